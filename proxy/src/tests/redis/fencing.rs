//! A link belongs to one epoch; a client only as far as it waits for an answer.

use super::super::world::{assert_reset, until};
use super::{Database, at_once, exchange, in_phase, lead, led_by, master_front, show};
use election::Phase;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_new_epoch_cuts_those_who_wait_for_an_answer_and_nobody_else() {
    let (front, a, b) = (master_front().await, Database::start("a").await, Database::start("b").await);
    lead(&front, &a, 1);
    let (mut waiting, mut idle) = (front.client().await, front.client().await);
    exchange(&mut waiting, "SET who a\r\n", "+OK\r\n").await;
    exchange(&mut idle, "GET who\r\n", "$1\r\na\r\n").await;
    a.freeze();
    waiting.write_all(b"SET who me\r\n").await.expect("sent");
    until("it is on its way", async || front.group.tallies.sum().requests >= 3).await;
    show(&front, &in_phase(&b, 2, Phase::Promoting), &at_once(), &[&a, &b]);
    assert_reset(&mut waiting).await;
    show(&front, &led_by(&b, 2), &at_once(), &[&a, &b]);
    exchange(&mut idle, "EXISTS who\r\n", ":0\r\n").await;
    let counts = front.group.tallies.sum();
    assert_eq!((counts.unknown, counts.clients), (1, 1));
    // What the old master says when it wakes reaches nobody.
    a.wake();
    exchange(&mut idle, "PING\r\n", "+PONG\r\n").await;
}

#[tokio::test]
async fn a_master_that_dies_costs_those_who_wait_for_it_and_the_others_wait_for_the_next() {
    let (front, mut a, b) = (master_front().await, Database::start("a").await, Database::start("b").await);
    lead(&front, &a, 1);
    let (mut waiting, mut idle) = (front.client().await, front.client().await);
    exchange(&mut waiting, "PING\r\n", "+PONG\r\n").await;
    exchange(&mut idle, "PING\r\n", "+PONG\r\n").await;
    a.freeze();
    waiting.write_all(b"INCR n\r\n").await.expect("sent");
    until("it is on its way", async || front.group.tallies.sum().requests >= 3).await;
    a.kill();
    assert_reset(&mut waiting).await;
    idle.write_all(b"INCR n\r\n").await.expect("sent");
    until("it is held", async || front.group.tallies.sum().held == 1).await;
    lead(&front, &b, 2);
    super::expect(&mut idle, ":1\r\n").await;
}

#[tokio::test]
async fn the_same_master_in_a_new_epoch_is_another_mastership() {
    let (front, a) = (master_front().await, Database::start("a").await);
    lead(&front, &a, 1);
    let mut client = front.client().await;
    exchange(&mut client, "SET k v\r\n", "+OK\r\n").await;
    let links = async || a.ask("CLIENT LIST TYPE normal").await;
    let before = links().await;
    lead(&front, &a, 2);
    exchange(&mut client, "GET k\r\n", "$1\r\nv\r\n").await;
    let after = links().await;
    let id = |list: &str| list.split_whitespace().find(|word| word.starts_with("id=")).map(str::to_owned);
    assert_ne!(id(&before), id(&after), "its link is a new one:\n{before}\n{after}");
}
