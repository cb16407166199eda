//! The workers stop without breaking what is under way, and not later than they are told.

use super::super::world::{Front, LIMIT, limited, until};
use super::{Database, exchange, front, lead, master_front};
use config::ListenerRole;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

async fn end(front: &mut Front) {
    limited(&mut front.running).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_stop_lets_present_clients_finish_and_takes_no_new_ones() {
    let (mut front, database) = (master_front().await, Database::start("a").await);
    lead(&front, &database, 1);
    let mut client = front.client().await;
    exchange(&mut client, "PING\r\n", "+PONG\r\n").await;
    front.stop.request();
    let address = front.address;
    until("nobody listens", async || {
        TcpStream::connect(address).await.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    exchange(&mut client, "SET k v\r\n", "+OK\r\n").await;
    assert!(!front.running.is_finished());
    drop(client);
    end(&mut front).await;
}

#[tokio::test]
async fn clients_that_do_not_finish_are_closed_at_the_drain_limit() {
    let limit = Duration::from_millis(100);
    let (mut front, database) = (front(ListenerRole::Master, LIMIT, limit).await, Database::start("a").await);
    lead(&front, &database, 1);
    let mut client = front.client().await;
    exchange(&mut client, "PING\r\n", "+PONG\r\n").await;
    let start = Instant::now();
    front.stop.request();
    assert_eq!(limited(client.read(&mut [0])).await.expect("an orderly close"), 0);
    assert!(start.elapsed() >= limit, "closed after {:?}", start.elapsed());
    end(&mut front).await;
}

#[tokio::test]
async fn a_second_request_ends_at_once() {
    let mut front = master_front().await;
    let mut client = front.client().await;
    until("it is let in", async || front.group.tallies.sum().clients == 1).await;
    let start = Instant::now();
    front.stop.request();
    front.stop.request();
    assert_eq!(limited(client.read(&mut [0])).await.expect("an orderly close"), 0);
    end(&mut front).await;
    assert!(start.elapsed() < LIMIT / 2, "ended after {:?}", start.elapsed());
}
