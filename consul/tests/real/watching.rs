//! Blocking queries: waking, Consul lost and found, an index that goes backwards, documents that cannot be read.

use std::time::Instant;

use consul::{TxnOp, proposal_ops};
use election::{GroupName, Proposal, Record};

use crate::helpers::{consul, group, record, until};

fn put(record: Record, index: u64) -> Proposal {
    Proposal { record, index, take_leader: None, policy: None, history: None, result: None, consume: None }
}

#[tokio::test]
async fn a_watch_begins_before_the_group_exists_and_wakes_at_once() {
    let (_server, client) = consul().await;
    let mut views = client.watch_group(&group());
    assert!(!views.borrow().seen);
    let empty = until(&mut views, "the first answer", |v| v.seen).await;
    assert!(empty.reachable && empty.record.is_none() && empty.record_index == 0, "{empty:?}");

    let began = Instant::now();
    assert!(client.transact(proposal_ops(client.layout(), &put(record(1, 1, "db1"), 0))).await.unwrap().is_applied());
    until(&mut views, "the record", |v| v.record.as_ref().is_some_and(|r| r.0.epoch == 1)).await;
    let took = began.elapsed();
    // The blocking query itself would end after five seconds: this was woken.
    assert!(took.as_millis() < 2_000, "woken only after {took:?}");
}

#[tokio::test]
async fn a_watch_keeps_its_last_view_while_consul_is_away() {
    let (mut server, client) = consul().await;
    assert!(client.transact(proposal_ops(client.layout(), &put(record(7, 1, "db1"), 0))).await.unwrap().is_applied());
    let mut views = client.watch_group(&group());
    let before = until(&mut views, "the record", |v| v.record.is_some()).await;
    server.kill();
    let away = until(&mut views, "Consul away", |v| !v.reachable).await;
    assert!(away.seen);
    assert_eq!(away.record, before.record);
}

#[tokio::test]
async fn a_watch_notices_a_frozen_consul_and_its_return() {
    let (server, client) = consul().await;
    let mut views = client.watch_group(&group());
    until(&mut views, "the first answer", |v| v.reachable).await;
    server.stop();
    until(&mut views, "Consul away", |v| !v.reachable).await;
    server.cont();
    until(&mut views, "Consul back", |v| v.reachable).await;
}

#[tokio::test]
async fn a_watch_survives_a_consul_that_lost_its_data_and_counts_from_the_start() {
    let (mut server, client) = consul().await;
    let mut index = 0;
    for seq in 1..40 {
        let ops = proposal_ops(client.layout(), &put(record(1, seq, "db1"), index));
        assert!(client.transact(ops).await.unwrap().is_applied());
        index = client.read_group(&group()).await.unwrap().record_index;
    }
    let mut views = client.watch_group(&group());
    let before = until(&mut views, "the record", |v| v.record.is_some()).await;
    server.restart().await.unwrap();
    let after = until(&mut views, "a Consul without data", |v| v.reachable && v.record.is_none()).await;
    assert!(after.index < before.index, "the index did not go backwards: {} and {}", before.index, after.index);
    assert!(client.transact(proposal_ops(client.layout(), &put(record(1, 99, "db2"), 0))).await.unwrap().is_applied());
    until(&mut views, "the new record", |v| v.record.as_ref().is_some_and(|r| r.0.seq == 99)).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_shown_as_a_fault_and_heals() {
    let (_server, client) = consul().await;
    let key = client.layout().record(&group());
    let set = |value: &str| vec![TxnOp::Set { key: key.clone(), value: value.as_bytes().to_vec() }];
    assert!(client.transact(set("not a record")).await.unwrap().is_applied());
    let mut views = client.watch_group(&group());
    let faulty = until(&mut views, "the fault", |v| v.record_fault.is_some()).await;
    assert!(faulty.record_fault.unwrap().contains("understudy/backend-redis/record"));
    assert!(faulty.record.is_none() && faulty.record_index > 0);
    let read = client.read_group(&group()).await.unwrap();
    assert!(read.record_fault.is_some(), "{read:?}");

    let json = String::from_utf8(record_json()).unwrap();
    assert!(client.transact(set(&json)).await.unwrap().is_applied());
    let healed = until(&mut views, "the record", |v| v.record.is_some()).await;
    assert_eq!(healed.record_fault, None);
}

fn record_json() -> Vec<u8> {
    serde_json::to_vec(&record(1, 1, "db1")).unwrap()
}

#[tokio::test]
async fn groups_are_listed_without_the_proxies() {
    let (_server, client) = consul().await;
    assert_eq!(client.list_groups().await.unwrap(), vec![]);
    for key in ["understudy/one/record", "understudy/two/members/a", "understudy/proxies/p", "other/three/record"] {
        assert!(client.put_cas(key, b"{}".to_vec(), 0).await.unwrap().is_applied());
    }
    assert_eq!(client.list_groups().await.unwrap(), vec![GroupName::from("one"), GroupName::from("two")]);
}
