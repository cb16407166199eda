//! A request waits for somewhere to go, and is refused clearly when there is nowhere in time.

use super::super::world::{Front, LIMIT, line, until};
use super::{Database, at_once, exchange, expect, front, in_phase, lead, led_by, master_front, request, show};
use config::ListenerRole;
use election::Phase;
use serde_json::Value;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

async fn quiet(front: &Front) -> Value {
    let body = front.get("/witness/g").await.1;
    serde_json::from_str::<Value>(&body).expect("JSON")["quiet"].clone()
}

#[tokio::test]
async fn requests_that_come_before_the_master_are_answered_when_it_comes() {
    let (front, database) = (master_front().await, Database::start("a").await);
    let mut client = front.client().await;
    client.write_all(b"SET k v\r\n").await.expect("sent ahead");
    until("it is held", async || front.group.tallies.sum().held == 1).await;
    lead(&front, &database, 1);
    expect(&mut client, "+OK\r\n").await;
    assert_eq!(front.group.tallies.sum().held, 0);
}

#[tokio::test]
async fn a_request_for_which_no_master_comes_is_refused_after_hold_and_was_not_carried_out() {
    let front = front(ListenerRole::Master, Duration::from_millis(150), LIMIT).await;
    let mut client = front.client().await;
    exchange(&mut client, &request(&["SET", "k", "v"]), "-ERR understudy: group \"g\" has had no open master for ")
        .await;
    let rest = line(&mut client).await;
    assert!(rest.contains("was not carried out"), "{rest}");
    // The connection goes on. On a busy machine making a link may take longer than this hold.
    let database = Database::start("a").await;
    lead(&front, &database, 1);
    until("it is answered", async || {
        client.write_all(b"EXISTS k\r\n").await.expect("sent");
        line(&mut client).await == ":0"
    })
    .await;
}

#[tokio::test]
async fn another_process_than_the_recorded_one_is_not_served_from() {
    let (front, database) = (master_front().await, Database::start("a").await);
    let mut record = led_by(&database, 1);
    if let Some(master) = &mut record.master {
        master.incarnation = "of the process before".into();
    }
    show(&front, &record, &at_once(), &[&database]);
    let mut client = front.client().await;
    client.write_all(b"SET k v\r\n").await.expect("sent");
    until("it was looked at", async || front.group.tallies.sum().wrong_incarnation >= 1).await;
    assert_eq!(database.ask("EXISTS k").await, ":0\r\n");
    lead(&front, &database, 2);
    expect(&mut client, "+OK\r\n").await;
}

#[tokio::test]
async fn in_a_switchover_requests_wait_on_their_connections_and_the_witness_tells_when_it_is_quiet() {
    let (front, a, b) = (master_front().await, Database::start("a").await, Database::start("b").await);
    lead(&front, &a, 1);
    let mut busy = front.client().await;
    let mut idle = front.client().await;
    exchange(&mut busy, "SET where a\r\n", "+OK\r\n").await;
    exchange(&mut idle, "PING\r\n", "+PONG\r\n").await;
    assert_eq!(quiet(&front).await, Value::Null);
    // One request is under way when the switchover begins.
    a.freeze();
    busy.write_all(b"SET where a\r\n").await.expect("sent");
    until("it is on its way", async || front.group.tallies.sum().requests >= 3).await;
    let switching = in_phase(&a, 1, Phase::Switching);
    show(&front, &switching, &at_once(), &[&a, &b]);
    idle.write_all(b"SET where b\r\n").await.expect("sent");
    until("the next one is held", async || front.group.tallies.sum().held == 1).await;
    assert_eq!(quiet(&front).await, Value::Null, "an answer is still to come");
    a.wake();
    expect(&mut busy, "+OK\r\n").await;
    until("it is quiet", async || quiet(&front).await == switching.stamp().to_string()).await;
    assert_eq!(a.ask("GET where").await, "$1\r\na\r\n");

    show(&front, &in_phase(&b, 2, Phase::Promoting), &at_once(), &[&a, &b]);
    assert_eq!(quiet(&front).await, Value::Null);
    show(&front, &led_by(&b, 2), &at_once(), &[&a, &b]);
    expect(&mut idle, "+OK\r\n").await;
    exchange(&mut busy, "GET where\r\n", "$1\r\nb\r\n").await;
}
