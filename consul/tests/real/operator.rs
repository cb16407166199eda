//! An operator's calls, by rs-consul.

use config::ConsulConfig;
use consul::{Consul, TxnOp, Written};
use election::{Command, CommandOp, HistoryEntry, NodeId, Outcome, Policy};

use crate::helpers::{consul, group};

fn command(id: &str) -> Command {
    Command {
        id: id.to_owned(),
        op: CommandOp::Switchover,
        target: Some(NodeId::from("db2")),
        expect_epoch: 1,
        expires_at: 0,
        by: "test".to_owned(),
        grace_ms: None,
    }
}

fn story(epoch: u64) -> HistoryEntry {
    HistoryEntry {
        epoch,
        master: NodeId::from("db1"),
        previous: None,
        reason: "the master's process died".to_owned(),
        evidence: vec![],
        position: None,
        took_ms: 12,
        data_loss: None,
        at: 0,
        by: NodeId::from("db1"),
    }
}

#[tokio::test]
async fn one_command_at_a_time() {
    let (_server, client) = consul().await;
    assert!(client.put_command(&group(), &command("first")).await.unwrap().is_applied());
    let second = client.put_command(&group(), &command("second")).await.unwrap();
    assert!(matches!(&second, Written::Refused { why } if why.contains("backend-redis/command")), "{second:?}");
    assert_eq!(client.read_group(&group()).await.unwrap().command.unwrap().0, command("first"));
}

#[tokio::test]
async fn a_datacenter_does_not_lead_to_another_key() {
    let (server, _) = consul().await;
    let settings = ConsulConfig { datacenter: Some("dc1".to_owned()), ..server.config() };
    let client = Consul::connect(&settings).unwrap();
    assert!(client.put_command(&group(), &command("c")).await.unwrap().is_applied());
    assert_eq!(client.names("understudy/backend-redis/").await.unwrap(), vec!["understudy/backend-redis/command"]);
    assert_eq!(client.result(&group(), "none").await.unwrap(), None);
    assert!(client.forget_result(&group(), "none").await.unwrap().is_applied());
}

#[tokio::test]
async fn the_policy_changes_only_at_the_index_it_was_read_at() {
    let (_server, client) = consul().await;
    let mut policy = Policy::default();
    assert!(client.put_policy(&group(), &policy, 0).await.unwrap().is_applied());
    let (read, index) = client.read_group(&group()).await.unwrap().policy.unwrap();
    assert_eq!(read, policy);
    policy.detect_after = 2_000;
    assert!(client.put_policy(&group(), &policy, index).await.unwrap().is_applied());
    assert!(matches!(client.put_policy(&group(), &policy, index).await.unwrap(), Written::Refused { .. }));
}

#[tokio::test]
async fn history_comes_in_the_order_of_epochs() {
    let (_server, client) = consul().await;
    assert_eq!(client.history(&group()).await.unwrap(), vec![]);
    for epoch in [2, 10, 1] {
        let value = serde_json::to_vec(&story(epoch)).unwrap();
        let key = client.layout().history(&group(), epoch);
        assert!(client.transact(vec![TxnOp::Set { key, value }]).await.unwrap().is_applied());
    }
    assert_eq!(client.history(&group()).await.unwrap(), vec![story(1), story(2), story(10)]);
}

#[tokio::test]
async fn a_result_is_read_and_forgotten_and_no_other_with_it() {
    let (_server, client) = consul().await;
    for id in ["c", "c1"] {
        let outcome = Outcome { id: id.to_owned(), done: true, epoch: 2, message: "done".to_owned() };
        let key = client.layout().result(&group(), id);
        assert!(client.put_cas(&key, serde_json::to_vec(&outcome).unwrap(), 0).await.unwrap().is_applied());
    }
    assert_eq!(client.result(&group(), "c").await.unwrap().unwrap().id, "c");
    assert!(client.forget_result(&group(), "c").await.unwrap().is_applied());
    assert_eq!(client.result(&group(), "c").await.unwrap(), None);
    assert_eq!(client.result(&group(), "c1").await.unwrap().unwrap().id, "c1");
}

#[tokio::test]
async fn what_stands_there_unread_is_a_fault_that_names_its_key() {
    let (_server, client) = consul().await;
    let key = client.layout().result(&group(), "c");
    assert!(client.put_cas(&key, b"nonsense".to_vec(), 0).await.unwrap().is_applied());
    let error = client.result(&group(), "c").await.unwrap_err();
    assert!(error.to_string().contains(&key), "{error}");
}
