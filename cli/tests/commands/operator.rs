//! What an operator takes into his hands, on a real group: pause, policy, drain, a new copy, a lost record, a forced
//! failover.

use crate::common::{Said, UNDERSTUDY, command, end, run};
use cli::rig::{Rig, http};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

async fn start() -> Rig {
    Rig::builder(UNDERSTUDY).group("g").policy("flap_pause", "\"1s\"").start().await.unwrap()
}

fn ask(rig: &Rig, words: &[&str]) -> Said {
    run(&[words, &["--consul", &rig.consul_address()]].concat())
}

/// Asks for something that is to be done, and gives what it says; the logs say why it was not.
#[track_caller]
fn done(rig: &Rig, words: &[&str], says: &[&str]) -> String {
    let said = ask(rig, words);
    assert_eq!(said.code, 0, "{words:?}: {}{}\n{}", said.out, said.err, rig.logs());
    for word in says {
        assert!(said.out.contains(word), "{words:?}: `{word}` is missing: {}", said.out);
    }
    said.out
}

/// Master, hot replica, spare.
async fn cast(rig: &Rig) -> [String; 3] {
    let status = rig.wait_whole(LIMIT).await.unwrap();
    let master = status.active_master().unwrap().to_owned();
    let replica = status.hot_replica().unwrap().to_owned();
    let spare = rig.node_names().into_iter().find(|name| *name != master && *name != replica).unwrap();
    [master, replica, spare]
}

/// What the agent of a node says of its instance; null while it does not answer.
async fn page(rig: &Rig, node: &str) -> Value {
    let url = format!("http://{}/status", rig.agent_http(node).unwrap());
    let Ok(reply) = http().get(url).send().await else { return Value::Null };
    let page: Value = reply.json().await.unwrap();
    page["instances"][0].clone()
}

/// Waits until what a node's agent says of its instance is so.
async fn wait_for(rig: &Rig, node: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = page(rig, node).await;
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: {seen}\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn key(rig: &Rig, name: &str) -> String {
    format!("{}/v1/kv/understudy/g/{name}", rig.consul_address())
}

async fn get(rig: &Rig, name: &str) -> Option<Value> {
    let reply = http().get(format!("{}?raw", key(rig, name))).send().await.unwrap();
    if reply.status().is_success() { Some(reply.json().await.unwrap()) } else { None }
}

async fn put(rig: &Rig, name: &str, text: String) {
    let reply = http().put(key(rig, name)).body(text).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap().trim(), "true");
}

async fn delete(rig: &Rig, name: &str) {
    let reply = http().delete(key(rig, name)).send().await.unwrap();
    assert!(reply.status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_takeover_and_a_policy_is_in_force_at_once() {
    let rig = start().await;
    let [master, replica, _] = cast(&rig).await;

    done(&rig, &["config", "g"], &["[group.g]\n", "detect_after = \"1s\"", "flap_pause = \"1s\""]);
    let said = done(&rig, &["config", "g", "set", "detect_after=600ms", "max_lag=4096"], &["is in force"]);
    assert!(said.contains("detect_after = \"600ms\"  (was \"1s\")") && said.contains("max_lag = 4096"), "{said}");
    for node in rig.node_names() {
        wait_for(&rig, &node, "the new policy", |seen| seen["policy"]["detect_after"] == json!(600)).await;
    }
    done(&rig, &["config", "g", "set", "max_lag=4096"], &["is so already; nothing was written"]);

    let pid = rig.database_pid(&master).unwrap();
    done(&rig, &["pause", "g"], &["g is paused", "understudy resume g"]);
    done(&rig, &["pause", "g"], &["g is paused already"]);
    for node in rig.node_names() {
        wait_for(&rig, &node, "the pause", |seen| seen["policy"]["paused"] == json!(true)).await;
    }
    done(&rig, &["status", "g"], &["  paused\n"]);
    done(&rig, &["explain", "g"], &["paused: nobody takes over by itself before `understudy resume g`"]);
    let killed = rig.kill_database(&master).unwrap();
    for node in [&master, &replica] {
        wait_for(&rig, node, "why it waits", |seen| seen["reason_code"] == json!("paused")).await;
    }
    // Without a pause it takes a tenth of this; that nothing happens can only be waited for.
    while killed.elapsed() < Duration::from_secs(3) {
        let status = rig.status().await.unwrap();
        assert_eq!((status.epoch, status.active_master()), (1, Some(master.as_str())));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(rig.database_pid(&master).is_err(), "process {pid} was started again");

    done(&rig, &["resume", "g"], &["g goes on by itself again"]);
    done(&rig, &["resume", "g"], &["g is not paused"]);
    let status = rig.wait_whole(LIMIT).await.unwrap();
    assert_eq!((status.epoch, status.active_master()), (2, Some(replica.as_str())));
    assert_eq!(get(&rig, "config").await.unwrap()["detect_after"], json!(600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_master_hands_over_and_loses_nothing() {
    let mut rig = start().await;
    let [master, replica, _] = cast(&rig).await;
    let mut writer = rig.writer("k");
    writer.wait_for_acks(100, Instant::now(), LIMIT).await.unwrap();

    ask(&rig, &["drain", "db9"]).refused(1, &["no node of the name db9", "db1, db2, db3"]);
    done(
        &rig,
        &["drain", &master],
        &[&format!("{master} is drained"), &format!("{replica} is master of g in epoch 2")],
    );
    assert!(rig.database_pid(&master).is_err(), "its database runs");
    let services = format!("{}/v1/catalog/service/g", rig.consul_address());
    let left: Value = http().get(&services).send().await.unwrap().json().await.unwrap();
    assert_eq!(left.as_array().unwrap().len(), 2, "{left}");
    assert!(!left.to_string().contains(&format!("g-{master}")), "{left}");
    let deadline = Instant::now() + LIMIT;
    let ended = loop {
        if let Some(ended) = rig.ended_agent(&master).unwrap() {
            break ended;
        }
        assert!(Instant::now() < deadline, "the agent of {master} runs on: {}", rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((ended.code(), ended.signal()), (Some(0), None));
    let at = Instant::now();
    writer.wait_for_acks(100, at, LIMIT).await.unwrap();
    // It is listed as it was, until somebody says that it will not return.
    let status = rig.status().await.unwrap();
    let gone = status.members.iter().find(|member| member.id.as_str() == master).expect("it is not listed");
    assert!(!gone.healthy && gone.reason.contains("has no session"), "{gone:?}");
    assert_eq!((gone.engine.as_deref(), gone.port), (Some("redis"), Some(rig.database_addr(&master).unwrap().port())));

    // It comes back as any node does; then the same by a signal, of the present master.
    rig.restart_agent(&master).unwrap();
    let [second, next, _] = cast(&rig).await;
    assert_eq!(second, replica);
    let ended = rig.drain_agent(&second, LIMIT).await.unwrap().expect("it ends by itself");
    assert_eq!((ended.code(), ended.signal()), (Some(0), None));
    assert!(rig.database_pid(&second).is_err(), "its database runs");
    let deadline = Instant::now() + LIMIT;
    loop {
        // Consul tells its catalogue a moment after it has answered the agent.
        let left: Value = http().get(&services).send().await.unwrap().json().await.unwrap();
        if !left.to_string().contains(&format!("g-{second}")) {
            break;
        }
        assert!(Instant::now() < deadline, "{left}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = |status: &cli::page::GroupStatus| status.active_master() == Some(next.as_str());
    rig.wait_until("the next master", LIMIT, open).await.unwrap();
    let at = Instant::now();
    writer.wait_for_acks(100, at, LIMIT).await.unwrap();
    writer.stop();
    assert!(writer.missing(rig.proxy_addr()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_is_cloned_anew_and_a_node_that_will_not_return_is_forgotten() {
    let mut rig = start().await;
    let [master, _, spare] = cast(&rig).await;
    let pid = rig.database_pid(&spare).unwrap();
    ask(&rig, &["reinit", "g", &master]).refused(1, &[&format!("node {master} is master"), "switch over"]);
    ask(&rig, &["reinit", "g", "db9"]).refused(1, &["g has no node of that name"]);
    ask(&rig, &["reinit", "g", &spare, "--forget"]).refused(1, &["has a session in Consul"]);
    done(&rig, &["reinit", "g", &spare], &[&format!("{spare} has a new copy of g and is a healthy spare again")]);
    assert_ne!(rig.database_pid(&spare).unwrap(), pid);

    // A spare that dies for good: it is listed until it is forgotten.
    let has = |status: &cli::page::GroupStatus, node: &str| {
        status.members.iter().find(|member| member.id.as_str() == node).map(|member| member.reason.clone())
    };
    rig.kill_node(&spare).unwrap();
    let left = |status: &cli::page::GroupStatus| has(status, &spare).is_some_and(|why| why.contains("has no session"));
    rig.wait_until("the end of the spare's session", LIMIT, left).await.unwrap();
    done(&rig, &["reinit", "g", &spare, "--forget"], &[&format!("{spare} is no longer listed in g")]);
    assert_eq!(has(&rig.status().await.unwrap(), &spare), None);
    rig.restart_agent(&spare).unwrap();
    rig.wait_whole(LIMIT).await.unwrap();

    // One that was never anything but a spare and is drained: the same.
    let [_, _, last] = cast(&rig).await;
    done(&rig, &["drain", &last], &[&format!("{last} is drained")]);
    assert!(has(&rig.status().await.unwrap(), &last).is_some_and(|why| why.contains("has no session")));
    done(&rig, &["reinit", "g", &last, "--forget"], &[&format!("{last} is no longer listed in g")]);
    assert_eq!(has(&rig.status().await.unwrap(), &last), None);
    rig.restart_agent(&last).unwrap();
    rig.wait_whole(LIMIT).await.unwrap();
    let [master, replica, _] = cast(&rig).await;

    // A master that dies for good: listed until it is forgotten, and again when it is back.
    rig.kill_node(&master).unwrap();
    let listed = |status: &cli::page::GroupStatus| status.members.iter().any(|member| member.id.as_str() == master);
    let gone = |status: &cli::page::GroupStatus| {
        let silent = |member: &cli::page::MemberStatus| member.reason.contains("has no session");
        let found = status.members.iter().find(|member| member.id.as_str() == master);
        status.active_master() == Some(replica.as_str()) && found.is_some_and(silent)
    };
    ask(&rig, &["reinit", "g", &master, "--forget"]).refused(1, &["is not forgotten"]);
    rig.wait_until("the end of its session", LIMIT, gone).await.unwrap();
    ask(&rig, &["reinit", "g", &replica, "--forget"]).refused(1, &["has a session in Consul"]);
    done(&rig, &["reinit", "g", &master, "--forget"], &[&format!("{master} is no longer listed in g")]);
    assert!(!listed(&rig.status().await.unwrap()));
    rig.restart_agent(&master).unwrap();
    assert!(listed(&rig.wait_whole(LIMIT).await.unwrap()));
}

fn quarantined(code: &'static str) -> impl Fn(&Value) -> bool {
    move |seen| seen["reason_code"] == json!(code)
}

async fn all_quarantined(rig: &Rig, code: &'static str) {
    for node in rig.node_names() {
        wait_for(rig, &node, "quarantine", quarantined(code)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_restored_while_writing_goes_on() {
    let mut rig = start().await;
    let [master, replica, spare] = cast(&rig).await;
    let mut writer = rig.writer("k");
    writer.wait_for_acks(50, Instant::now(), LIMIT).await.unwrap();
    let pids = |rig: &Rig| [&master, &replica, &spare].map(|node| rig.database_pid(node).unwrap());
    let before = pids(&rig);
    let restore = ["resume", "g", "--restore-record"];
    ask(&rig, &restore).refused(1, &["is as new as what the nodes remember"]);
    let first = get(&rig, "record").await.unwrap();
    done(&rig, &["config", "g", "set", "without_replica=block"], &["is in force"]);
    wait_for(&rig, &master, "the new policy", |seen| seen["policy"]["without_replica"] == json!("block")).await;

    // Gone, and the policy with it.
    delete(&rig, "record").await;
    delete(&rig, "config").await;
    all_quarantined(&rig, "record_went_back").await;
    let at = Instant::now();
    writer.wait_for_acks(100, at, LIMIT).await.unwrap();
    // Nobody who could remember a newer one may be silent.
    rig.kill_agent(&spare).unwrap();
    ask(&rig, &restore).refused(1, &["every node has to say what it remembers", &spare]);
    rig.restart_agent(&spare).unwrap();
    wait_for(&rig, &spare, "quarantine", quarantined("record_went_back")).await;
    let says = ["Consul had lost the policy too", &format!("{master} is master, {replica} hot replica, in epoch 2")];
    done(&rig, &restore, &says);
    let status = rig.wait_whole(LIMIT).await.unwrap();
    assert_eq!((status.epoch, status.active_master()), (2, Some(master.as_str())));
    assert_eq!(status.hot_replica(), Some(replica.as_str()));
    assert_eq!(get(&rig, "config").await.unwrap()["without_replica"], json!("block"));
    done(&rig, &["history", "g"], &["record restored by "]);

    // Half written by hand.
    put(&rig, "record", "{\"v\":1,\"group\":".to_owned()).await;
    all_quarantined(&rig, "record_unreadable").await;
    let at = Instant::now();
    writer.wait_for_acks(100, at, LIMIT).await.unwrap();
    done(&rig, &restore, &["in epoch 3"]);
    cast(&rig).await;

    // Of a newer version: not lost.
    put(&rig, "record", json!({"v": 99, "group": "g"}).to_string()).await;
    wait_for(&rig, &master, "quarantine", quarantined("record_unreadable")).await;
    ask(&rig, &restore).refused(1, &["form 99", "upgrade"]);

    // Rolled back.
    put(&rig, "record", first.to_string()).await;
    wait_for(&rig, &master, "quarantine", quarantined("record_went_back")).await;
    done(&rig, &restore, &["in epoch 4"]);
    let [now, ..] = cast(&rig).await;
    assert_eq!((now, pids(&rig)), (master.clone(), before));
    let at = Instant::now();
    writer.wait_for_acks(50, at, LIMIT).await.unwrap();
    writer.stop();
    assert!(writer.missing(rig.proxy_addr()).await.unwrap().is_empty());

    // With everything else in Consul: the agents come back with new sessions, and their policy.
    rig.restart_consul().await.unwrap();
    let deadline = Instant::now() + LIMIT;
    while ask(&rig, &restore).code != 0 {
        assert!(Instant::now() < deadline, "{}{}", ask(&rig, &restore).err, rig.logs());
    }
    let status = rig.wait_whole(LIMIT).await.unwrap();
    assert_eq!((status.epoch, status.active_master()), (5, Some(master.as_str())));
    assert_eq!(pids(&rig), before);
    assert_eq!(get(&rig, "config").await.unwrap()["without_replica"], json!("block"));

    // It names the hot replica's run. That one has ended: the record is put back in its epoch, the master lets go of the
    // copy that proves nothing any more, and certifies another.
    delete(&rig, "record").await;
    all_quarantined(&rig, "record_went_back").await;
    rig.kill_database(&replica).unwrap();
    wait_for(&rig, &replica, "another run", |seen| {
        seen["database"]["state"] == json!("up") && rig.database_pid(&replica).is_ok_and(|pid| pid != before[1])
    })
    .await;
    done(&rig, &restore, &[&replica, "hot replica", "was restarted since", "in epoch 5"]);
    let status = rig.wait_whole(LIMIT).await.unwrap();
    assert_eq!((status.epoch, status.active_master()), (5, Some(master.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_goes_on_by_force_when_both_copies_are_lost_for_good() {
    let mut rig = start().await;
    let [master, replica, spare] = cast(&rig).await;
    let mut writer = rig.writer("k");
    writer.wait_for_acks(100, Instant::now(), LIMIT).await.unwrap();
    writer.stop();
    // A copy of a copy is sent nothing before its first acknowledgement, which comes after a second.
    let deadline = Instant::now() + LIMIT;
    while !writer.missing(rig.database_addr(&spare).unwrap()).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{spare} does not get the writes: {}", rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let force = ["failover", "g", "--to", &spare];
    ask(&rig, &force).refused(1, &[&format!("{master} is master of g and lives"), "understudy switchover"]);
    // Both at once: neither could let go of the other, or take over from it.
    for node in [&master, &replica] {
        rig.stop_node(node).unwrap();
    }
    for node in [&master, &replica] {
        rig.kill_node(node).unwrap();
    }
    let silent = |status: &cli::page::GroupStatus| status.active_master() != Some(spare.as_str());
    rig.wait_until("nobody else", LIMIT, silent).await.unwrap();

    let shown = ask(&rig, &force);
    assert_eq!(shown.code, 1, "{}", shown.err);
    assert!(shown.err.contains("nothing was done") && shown.err.contains("--accept-data-loss"), "{}", shown.err);
    for word in
        [master.as_str(), &replica, &spare, "nobody knows what it holds", "the newest of the copies that answer"]
    {
        assert!(shown.out.contains(word), "{word}: {}", shown.out);
    }
    assert_eq!(get(&rig, "command").await, None);
    let stake = ask(&rig, &[&force[..], &["--json"]].concat());
    let stake: Value = serde_json::from_str(&stake.out).unwrap();
    let mine = stake["nodes"].as_array().unwrap().iter().find(|node| node["id"] == json!(spare)).unwrap();
    assert!(mine["marker"]["counter"].is_u64() && mine["position"].is_string(), "{stake}");
    ask(&rig, &["failover", "g", "--to", "db9", "--accept-data-loss"]).refused(1, &["db9 cannot be the target"]);

    let by =
        format!("USER=ada {UNDERSTUDY} failover g --to {spare} --accept-data-loss --consul {}", rig.consul_address());
    let deadline = Instant::now() + LIMIT;
    let forced = loop {
        let said = end(std::process::Command::new("sh").args(["-c", &by]));
        // It heard of the master a moment ago.
        if !said.err.contains("is master and lives") || Instant::now() > deadline {
            assert_eq!(said.code, 0, "{}{}\n{}", said.out, said.err, rig.logs());
            break said.out;
        }
    };
    assert!(forced.contains(&format!("{spare} is master of g in epoch 2")), "{forced}");
    assert!(forced.contains("acknowledged writes may be lost"), "{forced}");
    let history = ask(&rig, &["history", "g", "--json"]).json();
    let story = history["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&story["master"], &story["epoch"]), (&json!(spare), &json!(2)));
    assert!(story["reason"].as_str().unwrap().contains("forced by ada@"), "{story}");
    assert!(story["data_loss"].as_str().unwrap().contains("epoch 1"), "{story}");
    // The writes had stopped before: the spare had them all, and the group is open.
    let missing = writer.missing(rig.proxy_addr()).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}\n{}", rig.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_policy_is_checked_and_a_concurrent_change_is_not_lost() {
    let rig = Rig::builder(UNDERSTUDY).group("g").nodes(1).proxies(0).start_unready().await.unwrap();
    rig.wait_until("a master", LIMIT, |status| status.active_master().is_some()).await.unwrap();
    let folder = rig.folder().to_owned();
    let edit = |script: &str| {
        let editor = folder.join("editor");
        std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut command = command(&["config", "g", "edit", "--consul", &rig.consul_address()]);
        command.env("VISUAL", format!("sh {}", editor.display())).env("TMPDIR", &folder);
        end(&mut command)
    };
    assert!(edit("true").done().contains("is so already"));
    let changed = edit("sed -i 's/^max_lag.*/max_lag = 5/' \"$1\"");
    assert!(changed.done().contains("max_lag = 5  (was 1048576)"), "{}", changed.out);
    let faulty = edit("echo 'detect_after = \"1ms\"' > \"$1\"; echo 'fsnc = true' >> \"$1\"");
    assert_eq!(faulty.code, 78, "{}", faulty.err);
    for word in ["is not between 200ms and 1m", ":2:1: fsnc: there is no such key; did you mean `fsync`", "2 faults"] {
        assert!(faulty.err.contains(word), "{word}: {}", faulty.err);
    }
    let meanwhile = format!(
        "{UNDERSTUDY} config g set max_lag=6 --consul {}; sed -i 's/^max_lag.*/max_lag = 7/' \"$1\"",
        rig.consul_address()
    );
    let lost = edit(&meanwhile);
    assert!(lost.code == 1 && lost.err.contains("somebody else has just changed"), "{}{}", lost.out, lost.err);
    assert_eq!(get(&rig, "config").await.unwrap()["max_lag"], json!(6));
    assert_eq!(edit("exit 3").code, 1);

    let set = |word: &str| ask(&rig, &["config", "g", "set", word]);
    for (word, says) in [
        ("fsync=perhaps", "fsync: is a text"),
        ("reads=dirty", "reads: \"dirty\""),
        ("paused=true", "paused: there is no such key"),
        ("hang_after=1ms", "is not between"),
    ] {
        let refused = set(word);
        assert_eq!(refused.code, 78, "{}", refused.err);
        assert!(refused.err.contains(says), "{says}: {}", refused.err);
    }
    let json = ask(&rig, &["config", "g", "show", "--json"]).json();
    assert_eq!((&json["group"], &json["policy"]["max_lag"]), (&json!("g"), &json!(6)));
    put(&rig, "config", "nonsense".to_owned()).await;
    ask(&rig, &["pause", "g"]).refused(1, &["understudy/g/config", "put it right"]);
}
