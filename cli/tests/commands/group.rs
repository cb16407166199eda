//! The operator's commands on a real group: agents, Redis, Consul and proxy as processes.

use crate::common::{Said, UNDERSTUDY, run};
use cli::rig::{Rig, http};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

async fn start() -> Rig {
    Rig::builder(UNDERSTUDY).group("g").start().await.unwrap()
}

fn ask(rig: &Rig, words: &[&str]) -> Said {
    run(&[words, &["--consul", &rig.consul_address()]].concat())
}

/// Asks for a switchover that is to be done; the logs say why one was not.
#[track_caller]
fn switch(rig: &Rig, words: &[&str], says: &str) {
    let said = ask(rig, words);
    assert!(said.code == 0 && said.out.starts_with(says), "{}{}\n{}", said.out, said.err, rig.logs());
}

/// Master, hot replica, spare.
async fn cast(rig: &Rig) -> [String; 3] {
    let status = rig.wait_whole(LIMIT).await.unwrap();
    let master = status.active_master().unwrap().to_owned();
    let replica = status.hot_replica().unwrap().to_owned();
    let spare = rig.node_names().into_iter().find(|name| *name != master && *name != replica).unwrap();
    [master, replica, spare]
}

async fn put_command(rig: &Rig, expires_at: u64) {
    let command = json!({"id": "other", "op": "switchover", "target": "db9", "expect_epoch": 1,
        "expires_at": expires_at, "by": "somebody@else"});
    let url = format!("{}/v1/kv/understudy/g/command", rig.consul_address());
    let put = http().put(url).body(command.to_string()).send().await.unwrap();
    assert!(put.status().is_success());
}

async fn command(rig: &Rig) -> Option<Value> {
    let url = format!("{}/v1/kv/understudy/g/command?raw", rig.consul_address());
    let reply = http().get(url).send().await.unwrap();
    if reply.status().is_success() { Some(reply.json().await.unwrap()) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_explain_and_switchover_tell_one_truth() {
    let rig = start().await;
    let [master, replica, spare] = cast(&rig).await;

    let page = ask(&rig, &["status", "g", "--json"]).json();
    let members = page["groups"][0]["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["healthy"] == json!(true) && member["position"].is_string()), "{page}");
    let table = ask(&rig, &["status"]);
    for word in [&master, &replica, &spare, "hot replica", "healthy", "tcp mode"] {
        assert!(table.done().contains(word), "{word}: {}", table.out);
    }

    let explained = ask(&rig, &["explain", "g", "--json"]).json();
    for node in explained["nodes"].as_array().unwrap() {
        assert_eq!(node["promotable"], json!(node["id"] != json!(spare)), "{node}");
    }

    let refused = ask(&rig, &["switchover", "g", "--to", &master]);
    refused.refused(1, &["is the master of g already", &format!("these can: {}", sorted(&[&replica, &spare]))]);

    switch(&rig, &["switchover", "g"], &format!("{replica} is master of g in epoch 2"));
    let [now, ..] = cast(&rig).await;
    assert_eq!(now, replica);

    let history = ask(&rig, &["history", "g", "--json"]).json();
    let masters: Vec<&Value> = history["history"].as_array().unwrap().iter().map(|story| &story["master"]).collect();
    assert_eq!(masters.last(), Some(&&json!(replica)), "{history}");
}

fn sorted(names: &[&String]) -> String {
    let mut names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_to_a_spare_makes_it_the_hot_replica_first() {
    let rig = start().await;
    let [_, _, spare] = cast(&rig).await;
    switch(&rig, &["switchover", "g", "--to", &spare], &format!("{spare} is master of g in epoch 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_takes_is_taken_back() {
    let mut rig = start().await;
    let [master, ..] = cast(&rig).await;
    // Only the master's agent acts on requests; its database goes on, so there is no other master.
    rig.kill_agent(&master).unwrap();

    put_command(&rig, u64::MAX >> 12).await;
    ask(&rig, &["switchover", "g"]).refused(1, &["another request to g is pending", "somebody@else"]);
    assert_eq!(command(&rig).await.unwrap()["id"], json!("other"));

    put_command(&rig, 1).await;
    let refused = ask(&rig, &["switchover", "g", "--timeout", "1"]);
    refused.refused(1, &["no agent of g took the request within 1 s", "nothing has changed"]);
    assert_eq!(command(&rig).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_sees_the_outage_and_the_rig_leaves_nothing_behind() {
    let rig = start().await;
    let [master, replica, _] = cast(&rig).await;
    let mut writer = rig.writer("k");
    writer.wait_for_acks(100, Instant::now(), LIMIT).await.unwrap();
    let pid = rig.database_pid(&master).unwrap();
    let at = rig.kill_database(&master).unwrap();
    writer.wait_for(100, at, LIMIT, |ack| ack.connected_at > at).await.unwrap();
    writer.stop();
    let status = rig.wait_whole(LIMIT).await.unwrap();
    assert_eq!(status.active_master(), Some(replica.as_str()));
    assert!(writer.longest_gap(at).unwrap() < LIMIT);
    assert!(writer.acked() >= 200);
    assert!(writer.missing(rig.proxy_addr()).await.unwrap().is_empty());
    assert_ne!(rig.database_pid(&master).unwrap(), pid);

    let pids: Vec<u32> = rig.node_names().iter().map(|node| rig.database_pid(node).unwrap()).collect();
    let folder = rig.folder().to_owned();
    drop(rig);
    assert!(!folder.exists());
    for pid in pids {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        assert!(!cwd.starts_with(&folder), "process {pid} is left");
    }
}
