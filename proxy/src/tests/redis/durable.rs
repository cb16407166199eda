//! A write is answered when the hot replica has it, and not before.

use super::super::world::Front;
use super::{Database, exchange, expect, led_by, master_front, show};
use election::{Policy, Reads};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for a reply that is not withheld to arrive, many times over.
const WITHHELD: Duration = Duration::from_millis(300);

async fn pair(policy: &Policy) -> (Front, Database, Database) {
    let (front, master, copy) = (master_front().await, Database::start("a").await, Database::start("b").await);
    assert_eq!(master.ask(&format!("SELECT {}\r\nSET understudy:need 1", super::DATABASES)).await, "+OK\r\n+OK\r\n");
    copy.follow(&master).await;
    show(&front, &led_by(&master, 1), policy, &[&master, &copy]);
    (front, master, copy)
}

async fn assert_silent(client: &mut TcpStream) {
    let mut byte = [0];
    let said = timeout(WITHHELD, client.peek(&mut byte)).await;
    assert!(said.is_err(), "an answer has left: {said:?}");
}

#[tokio::test]
async fn a_write_is_answered_when_the_copy_has_it_and_a_read_at_once() {
    let (front, _master, copy) = pair(&Policy::default()).await;
    let (mut writer, mut reader) = (front.client().await, front.client().await);
    exchange(&mut writer, "SET k 1\r\n", "+OK\r\n").await;
    copy.freeze();
    writer.write_all(b"SET k 2\r\nGET k\r\n").await.expect("sent");
    assert_silent(&mut writer).await;
    exchange(&mut reader, "GET k\r\n", "$1\r\n2\r\n").await;
    assert_eq!(front.group.tallies.sum().withheld, 1);
    copy.wake();
    expect(&mut writer, "+OK\r\n$1\r\n2\r\n").await;
    assert_eq!(copy.ask("GET k").await, "$1\r\n2\r\n");
}

#[tokio::test]
async fn a_durable_read_shows_nothing_that_can_be_taken_back() {
    let (front, _master, copy) = pair(&Policy { reads: Reads::Durable, ..Policy::default() }).await;
    let mut reader = front.client().await;
    exchange(&mut reader, "EXISTS k\r\n", ":0\r\n").await;
    copy.freeze();
    reader.write_all(b"EXISTS k\r\n").await.expect("sent");
    assert_silent(&mut reader).await;
    copy.wake();
    expect(&mut reader, ":0\r\n").await;
}

#[tokio::test]
async fn a_master_that_says_it_is_alone_is_believed() {
    let (front, master, mut copy) = pair(&Policy::default()).await;
    let mut writer = front.client().await;
    exchange(&mut writer, "SET k 1\r\n", "+OK\r\n").await;
    copy.kill();
    writer.write_all(b"SET k 2\r\n").await.expect("sent");
    assert_silent(&mut writer).await;
    assert_eq!(master.ask(&format!("SELECT {}\r\nSET understudy:need 0", super::DATABASES)).await, "+OK\r\n+OK\r\n");
    expect(&mut writer, "+OK\r\n").await;
    exchange(&mut writer, "SET k 3\r\n", "+OK\r\n").await;
    // Somebody is needed again: nothing leaves before there is one.
    assert_eq!(master.ask(&format!("SELECT {}\r\nSET understudy:need 1", super::DATABASES)).await, "+OK\r\n+OK\r\n");
    writer.write_all(b"SET k 4\r\n").await.expect("sent");
    assert_silent(&mut writer).await;
}
