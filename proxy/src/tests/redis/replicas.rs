//! Readers are spread over the copies whose agents vouch for them.

use super::super::replicas::Agent;
use super::super::world::{LIMIT, until};
use super::{Database, at_once, exchange, expect, front, led_by, show};
use config::ListenerRole;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncWriteExt;

/// A copy that says its own name.
async fn copy(name: &'static str, agent: &Agent) -> Database {
    let mut copy = Database::start(name).await;
    copy.agent = agent.address;
    assert_eq!(copy.ask(&format!("SET name {name}")).await, "+OK\r\n");
    copy
}

#[tokio::test]
async fn readers_are_spread_and_leave_a_copy_that_lags_without_losing_their_connection() {
    let (for_b, for_c) = (Agent::start(false).await, Agent::start(false).await);
    let (master, b, c) = (Database::start("a").await, copy("b", &for_b).await, copy("c", &for_c).await);
    let front = front(ListenerRole::Replica, LIMIT, LIMIT).await;
    show(&front, &led_by(&master, 1), &at_once(), &[&master, &b, &c]);
    let courses = front.group.courses(ListenerRole::Replica);
    let vouched = async |count| {
        until("the agents were asked", async || courses.borrow().heading.to.len() == count).await;
    };

    let mut early = front.client().await;
    early.write_all(b"GET name\r\n").await.expect("sent ahead");
    until("it is held", async || front.group.tallies.sum().held == 1).await;
    for_b.within.store(true, Relaxed);
    expect(&mut early, "$1\r\nb\r\n").await;

    for_c.within.store(true, Relaxed);
    vouched(2).await;
    let mut names = BTreeSet::new();
    for _ in 0..4 {
        let mut reader = front.client().await;
        exchange(&mut reader, "GET name\r\n", "$1\r\n").await;
        names.insert(super::super::world::line(&mut reader).await);
    }
    assert_eq!(names, BTreeSet::from(["b".to_owned(), "c".to_owned()]));

    for_b.within.store(false, Relaxed);
    vouched(1).await;
    exchange(&mut early, "GET name\r\n", "$1\r\nc\r\n").await;
    // Nor is a new epoch of the master's anything to them.
    show(&front, &led_by(&master, 2), &at_once(), &[&master, &b, &c]);
    exchange(&mut early, "GET name\r\n", "$1\r\nc\r\n").await;
    assert_eq!(front.group.tallies.sum().unknown, 0);
}
