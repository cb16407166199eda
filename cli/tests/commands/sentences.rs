//! What the commands say when something is wrong, and their exit codes, with a real Consul and without.

use crate::common::{command, end, run};
use cli::rig::{free_port, http};
use consul::testing::TestConsul;
use consul::{Consul, TxnOp};
use serde_json::{Value, json};
use std::fs;

/// A group of three nodes as it stands in Consul, without any agent alive.
async fn group_without_agents(server: &TestConsul, name: &str) -> Consul {
    let consul = Consul::connect(&server.config()).unwrap();
    let port = free_port().unwrap();
    put(&consul, &format!("{name}/record"), &record(name)).await;
    put(&consul, &format!("{name}/history/2"), &story()).await;
    let session = session(server).await;
    for id in ["db1", "db2", "db3"] {
        let member = json!({
            "id": id, "address": "127.0.0.1", "port": 6379, "agent": format!("127.0.0.1:{port}"), "engine": "redis",
            "version": "7.0.15", "zone": null, "role": "spare", "incarnation": null,
            "priority": if id == "db3" { 0 } else { 100 }, "uid": "u", "boot": "b",
        });
        let key = format!("understudy/{name}/members/{id}");
        let lock = TxnOp::Lock { key, value: member.to_string().into_bytes(), session: session.clone() };
        assert!(consul.transact(vec![lock]).await.unwrap().is_applied());
    }
    consul
}

fn record(name: &str) -> Value {
    json!({
        "v": 1, "group": name, "uid": "u", "epoch": 2, "active_epoch": 2, "seq": 9, "nonce": "n",
        "writer": {"node": "db1", "boot": "b"}, "phase": "active",
        "master": {"id": "db1", "address": "127.0.0.1", "port": 6379, "incarnation": "i1"},
        "replica": {"id": "db2", "complete": true, "certificate":
            {"nonce": "c", "incarnation": "i2", "lineage": "l", "position": "77"}},
        "previous": {"epoch": 1, "master": {"id": "db4", "incarnation": "i4"}, "position": null, "reason": "it died"},
    })
}

fn story() -> Value {
    json!({
        "epoch": 2, "master": "db1", "previous": "db4", "reason": "the process of db4 died", "evidence": ["its exit"],
        "position": "77", "took_ms": 41, "data_loss": null, "at": 951_782_400_000_u64, "by": "db1",
    })
}

async fn put(consul: &Consul, key: &str, value: &Value) {
    let set = TxnOp::Set { key: format!("understudy/{key}"), value: value.to_string().into_bytes() };
    assert!(consul.transact(vec![set]).await.unwrap().is_applied());
}

async fn session(server: &TestConsul) -> String {
    let body = json!({"TTL": "3600s", "LockDelay": "0s", "NodeChecks": [], "ServiceChecks": []});
    let url = format!("{}/v1/session/create", server.http);
    let reply: Value = http().put(url).json(&body).send().await.unwrap().json().await.unwrap();
    reply["ID"].as_str().unwrap().to_owned()
}

async fn start() -> TestConsul {
    cli::install_tls_provider();
    TestConsul::start().await.unwrap()
}

#[test]
fn a_wrong_command_line_is_code_2() {
    assert_eq!(run(&["dance"]).code, 2);
    assert_eq!(run(&["switchover"]).code, 2);
    assert_eq!(run(&["switchover", "g", "--timeout", "0"]).code, 2);
}

#[test]
fn the_help_names_verbs_and_exit_codes() {
    let help = run(&["--help"]);
    let daily = ["agent", "proxy", "check", "status", "switchover", "explain", "history", "demo", "69", "78"];
    let rare = ["failover", "pause", "resume", "config", "drain", "reinit"];
    for word in daily.into_iter().chain(rare) {
        assert!(help.done().contains(word), "{word}");
    }
}

#[test]
fn without_consul_every_command_says_so_and_ends_with_69() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    for words in [
        &["status"][..],
        &["status", "g"],
        &["status", "--watch"],
        &["switchover", "g"],
        &["explain", "g"],
        &["history", "g", "--json"],
        &["failover", "g", "--to", "db1"],
        &["pause", "g"],
        &["resume", "g"],
        &["resume", "g", "--restore-record"],
        &["config", "g"],
        &["config", "g", "set", "max_lag=1"],
        &["drain", "db1"],
        &["reinit", "g", "db1"],
    ] {
        let words = [words, &["--consul", &nobody]].concat();
        run(&words).refused(69, &["no Consul answers", &nobody, "--consul"]);
    }
}

#[test]
fn the_environment_is_heeded_as_by_consul() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    end(command(&["status"]).env("CONSUL_HTTP_ADDR", &nobody)).refused(69, &[&nobody]);
    let refused = end(command(&["status"]).env("CONSUL_HTTP_TOKEN_FILE", "/no/such/token"));
    assert_eq!(refused.code, 78, "{}", refused.err);
    assert!(refused.err.contains("/no/such/token"), "{}", refused.err);
}

#[tokio::test]
async fn an_empty_consul_has_no_groups() {
    let server = start().await;
    assert_eq!(run(&["status", "--consul", &server.http]).done(), "there are no groups\n");
    assert_eq!(run(&["status", "--json", "--consul", &server.http]).json(), json!({"groups": []}));
    run(&["status", "g", "--consul", &server.http]).refused(1, &["no group `g`", "nor any other", &server.http]);
}

#[tokio::test]
async fn an_unknown_group_is_told_with_those_there_are() {
    let server = start().await;
    group_without_agents(&server, "alpha").await;
    group_without_agents(&server, "beta").await;
    let plain = ["status", "switchover", "explain", "history", "pause", "resume", "config"].map(|verb| vec![verb]);
    let more = [vec!["failover", "--to=db1"], vec!["resume", "--restore-record"]];
    for verb in plain.into_iter().chain(more) {
        for name in ["gamma", "alpha/record", "proxies", ""] {
            let said = run(&[&verb, &[name, "--consul", &server.http][..]].concat());
            said.refused(1, &[&format!("no group `{name}`"), "alpha, beta"]);
        }
    }
    run(&["status", "alpha", "--consul", &server.http, "--prefix", "elsewhere"]).refused(1, &["`elsewhere`"]);
}

#[tokio::test]
async fn the_status_has_the_fields_of_the_contract_and_nulls_for_the_silent() {
    let server = start().await;
    let consul = group_without_agents(&server, "g").await;
    let policy = election::Policy { paused: true, ..election::Policy::default() };
    let policy = serde_json::to_value(policy).unwrap();
    put(&consul, "g/config", &policy).await;
    let page = run(&["status", "--json", "--consul", &server.http]).json();
    let group = &page["groups"][0];
    let fields = ["durability", "epoch", "group", "master", "members", "paused", "phase", "replica"];
    let keys: Vec<&String> = group.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), fields.len(), "{keys:?}");
    assert!(fields.iter().all(|field| group.get(field).is_some()), "{keys:?}");
    assert_eq!(group["master"], json!({"id": "db1", "address": "127.0.0.1", "port": 6379}));
    assert_eq!(group["replica"], json!({"id": "db2", "complete": true}));
    assert_eq!((&group["epoch"], &group["phase"]), (&json!(2), &json!("active")));
    assert_eq!((&group["durability"], &group["paused"]), (&json!("sync"), &json!(true)));
    let silent = &group["members"][1];
    assert_eq!((&silent["id"], &silent["role"], &silent["healthy"]), (&json!("db2"), &json!("replica"), &json!(false)));
    assert_eq!((&silent["position"], &silent["lag_bytes"]), (&json!(null), &json!(null)));
    assert!(silent["reason"].as_str().unwrap().contains("cannot be reached"), "{silent}");
    // It has no session and is remembered all the same.
    let gone = &group["members"][3];
    assert_eq!((&gone["id"], &gone["role"], &gone["healthy"]), (&json!("db4"), &json!("spare"), &json!(false)));
}

#[tokio::test]
async fn explain_names_the_rule_for_every_node() {
    let server = start().await;
    group_without_agents(&server, "g").await;
    let page = run(&["explain", "g", "--json", "--consul", &server.http]).json();
    let spare = page["nodes"].as_array().unwrap().iter().find(|node| node["id"] == "db3").unwrap();
    assert_eq!(spare["promotable"], json!(false));
    assert!(spare["rules"].to_string().contains("nothing proves that its copy is complete"), "{spare}");
    let text = run(&["explain", "g", "--consul", &server.http]);
    assert!(text.done().contains("db3 (spare) may not be promoted"), "{}", text.out);
}

#[tokio::test]
async fn history_tells_who_when_and_why() {
    let server = start().await;
    group_without_agents(&server, "g").await;
    let text = run(&["history", "g", "--consul", &server.http]);
    for word in ["2000-02-29 00:00:00", "db1", "db4", "the process of db4 died", "41 ms", "none"] {
        assert!(text.done().contains(word), "{word}: {}", text.out);
    }
    let page = run(&["history", "g", "--json", "--consul", &server.http]).json();
    assert_eq!(page, json!({"group": "g", "history": [story()]}));
}

#[tokio::test]
async fn a_node_that_cannot_be_the_target_is_told_with_the_reason() {
    let server = start().await;
    let consul = group_without_agents(&server, "g").await;
    let to = |node: &str| run(&["switchover", "g", "--to", node, "--consul", &server.http]);
    to("db1").refused(1, &["db1 cannot be the target", "is the master", "no other node can either"]);
    to("db2").refused(1, &["db2 cannot be the target", "cannot be reached"]);
    to("db3").refused(1, &["its priority is 0"]);
    to("db9").refused(1, &["g has no node of that name"]);
    let mut halted = record("g");
    halted["phase"] = json!("halted");
    put(&consul, "g/record", &halted).await;
    to("db2").refused(1, &["g is halted", "understudy explain g"]);
    let mut alone = record("g");
    alone["replica"] = json!(null);
    put(&consul, "g/record", &alone).await;
    run(&["switchover", "g", "--consul", &server.http]).refused(1, &["no hot replica"]);
    put(&consul, "g/record", &json!("nonsense")).await;
    to("db2").refused(1, &["understudy/g/record"]);
}

#[tokio::test]
async fn what_needs_living_agents_says_which_are_missing() {
    let server = start().await;
    let consul = group_without_agents(&server, "g").await;
    let ask = |words: &[&str]| run(&[words, &["--consul", &server.http]].concat());
    ask(&["failover", "g", "--to", "db2"]).refused(1, &["db2 cannot be the target", "cannot be reached"]);
    ask(&["failover", "g", "--to", "db9"]).refused(1, &["g has no living node of that name"]);
    ask(&["reinit", "g", "db2"]).refused(1, &["db2 cannot be cloned anew", "cannot be reached"]);
    ask(&["reinit", "g", "db4"]).refused(1, &["its agent has no session in Consul"]);
    ask(&["drain", "db4"]).refused(1, &["no node of the name db4", "db1, db2, db3"]);
    ask(&["resume", "g", "--restore-record"]).refused(1, &["missing: db1 (", "db2 (", "db3 ("]);
    // Nobody can tell the policy that Consul does not have.
    ask(&["pause", "g"]).refused(1, &["g has no policy in Consul, and no agent answers"]);
    put(&consul, "g/record", &json!("nonsense")).await;
    ask(&["failover", "g", "--to", "db2"]).refused(1, &["understudy/g/record", "--restore-record"]);
    ask(&["reinit", "g", "db2"]).refused(1, &["understudy/g/record"]);
    ask(&["drain", "db2"]).refused(1, &["no group of db2 (g) has a record", "SIGINT"]);
}

#[tokio::test]
async fn a_forgotten_node_is_hidden_until_something_tells_of_it() {
    let server = start().await;
    let consul = group_without_agents(&server, "g").await;
    let ask = |words: &[&str]| run(&[words, &["--consul", &server.http]].concat());
    let listed = || {
        let page = ask(&["status", "g", "--json"]).json();
        page["groups"][0]["members"].as_array().unwrap().iter().any(|member| member["id"] == "db4")
    };
    for (node, why) in [("db1", "has a session"), ("db9", "lists no node"), ("a/b", "lists no node"), ("", "lists no")]
    {
        ask(&["reinit", "g", node, "--forget"]).refused(1, &["is not forgotten", why]);
    }
    assert!(listed());
    ask(&["reinit", "g", "db4", "--forget"]).done();
    assert!(!listed());
    let mut later = story();
    later["epoch"] = json!(3);
    later["master"] = json!("db4");
    put(&consul, "g/history/3", &later).await;
    assert!(listed());
    ask(&["reinit", "g", "db4", "--forget"]).done();
    assert!(!listed());
    put(&consul, "g/record", &{
        let mut named = record("g");
        named["replica"]["id"] = json!("db4");
        named
    })
    .await;
    assert!(listed());
    ask(&["reinit", "g", "db4", "--forget"]).refused(1, &["names it hot replica"]);
}

#[tokio::test]
async fn a_pause_and_a_setting_need_no_agent() {
    let server = start().await;
    let consul = group_without_agents(&server, "g").await;
    put(&consul, "g/config", &serde_json::to_value(election::Policy::default()).unwrap()).await;
    let ask = |words: &[&str]| run(&[words, &["--consul", &server.http]].concat());
    assert!(ask(&["pause", "g"]).done().starts_with("g is paused: no takeover"));
    assert_eq!(ask(&["pause", "g"]).done(), "g is paused already\n");
    assert_eq!(ask(&["status", "g", "--json"]).json()["groups"][0]["paused"], json!(true));
    assert!(ask(&["config", "g"]).done().contains("# paused, until `understudy resume g`\n"));
    ask(&["config", "g", "set", "hang_after=9s", "without_replica=block"]).done();
    let policy = ask(&["config", "g", "show", "--json"]).json()["policy"].clone();
    assert_eq!((&policy["hang_after"], &policy["paused"]), (&json!(9_000), &json!(true)));
    assert_eq!(ask(&["resume", "g"]).done(), "g goes on by itself again\n");
    assert_eq!(ask(&["explain", "g", "--json"]).json()["paused"], json!(false));
}

#[test]
fn every_fault_of_a_file_is_told_with_code_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "[node]\nname = 5\naddres = \"x\"\n").unwrap();
    let path = file.to_str().unwrap();
    for words in [&["check", path][..], &["agent", "--config", path]] {
        let refused = run(words);
        assert_eq!(refused.code, 78, "{}", refused.err);
        for word in ["node.name", "node.addres", "faults", &format!("{path}:2")] {
            assert!(refused.err.contains(word), "{word}: {}", refused.err);
        }
    }
    let missing = run(&["proxy", "--config", "/no/such/file.toml"]);
    assert_eq!(missing.code, 78);
    assert!(missing.err.contains("/no/such/file.toml"), "{}", missing.err);
}

#[test]
fn what_is_not_built_yet_is_refused_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let text = "[proxy]\nname = \"p\"\naddress = \"127.0.0.1\"\n[http]\nlisten = \"127.0.0.1:7401\"\n[[listener]]\n\
                listen = \"127.0.0.1:6380\"\ngroups = [\"g\"]\nprotocol = \"tcp\"\n[sentinel]\n\
                listen = \"127.0.0.1:26379\"\n";
    fs::write(&file, text).unwrap();
    let refused = run(&["proxy", "--config", file.to_str().unwrap()]);
    assert_eq!(refused.code, 78, "{}", refused.err);
    assert!(refused.err.contains("sentinel"), "{}", refused.err);
}

#[test]
fn without_consul_and_redis_the_demo_says_how_to_get_them() {
    let empty = tempfile::tempdir().unwrap();
    let said = end(command(&["demo"]).env("PATH", empty.path()));
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`redis-server` is not on PATH") && said.err.contains("apt-get"), "{}", said.err);
    std::os::unix::fs::symlink("/bin/true", empty.path().join("redis-server")).unwrap();
    let said = end(command(&["demo"]).env("PATH", empty.path()));
    assert!(said.err.contains("`consul` is not on PATH") && said.err.contains("get it"), "{}", said.err);
    assert_eq!((said.code, said.err.lines().count()), (1, 1));
    // PostgreSQL is found where Debian keeps it, whatever PATH is.
    let said = end(command(&["demo", "--engine", "mariadb"]).env("PATH", empty.path()));
    assert!(
        said.err.contains("`mariadb-backup` is not on PATH") && said.err.contains("mariadb-server"),
        "{}",
        said.err
    );
    assert_eq!(said.code, 1);
    let said = end(&mut command(&["demo", "--engine", "oracle"]));
    assert!(said.code == 2 && said.err.contains("write redis, postgres or mariadb"), "{}", said.err);
}
