//! A new connection waits for somewhere to go.

use super::world::{Echo, Front, assert_reset, line, round_trip, until};
use config::ListenerRole;
use election::Phase;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn clients_that_come_before_the_master_are_served_when_it_comes() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = front.client().await;
        client.write_all(b"word\n").await.expect("sent ahead");
        clients.push(client);
    }
    until("all are held", async || front.group.counters.held.load(Relaxed) == 20).await;
    front.show(1, Phase::Active, Some(("a", a.address)));
    for client in &mut clients {
        assert_eq!(line(client).await, "a");
        assert_eq!(line(client).await, "word");
    }
    assert_eq!(front.group.counters.held.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_for_whom_no_master_comes_is_reset_after_hold() {
    let hold = Duration::from_millis(150);
    let front = Front::start(ListenerRole::Master, hold).await;
    let start = Instant::now();
    let mut client = front.client().await;
    assert_reset(&mut client).await;
    assert!(start.elapsed() >= hold, "reset after {:?}", start.elapsed());
    until("it is counted", async || front.group.counters.expired.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_master_that_refuses_is_asked_again() {
    let front = Front::master().await;
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = port.local_addr().expect("bound");
    drop(port);
    front.show(1, Phase::Active, Some(("a", address)));
    let mut client = front.client().await;
    until("it has refused twice", async || front.group.counters.refused.load(Relaxed) >= 2).await;
    let _a = Echo::on(TcpListener::bind(address).await.expect("still free"), "a");
    assert_eq!(line(&mut client).await, "a");
    round_trip(&mut client).await;
}

#[tokio::test]
async fn a_new_master_is_taken_while_the_old_one_refuses() {
    let (front, b) = (Front::master().await, Echo::start("b"));
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    front.show(1, Phase::Active, Some(("a", port.local_addr().expect("bound"))));
    drop(port);
    let mut client = front.client().await;
    until("it has refused", async || front.group.counters.refused.load(Relaxed) >= 1).await;
    front.show(2, Phase::Active, Some(("b", b.address)));
    assert_eq!(line(&mut client).await, "b");
}

#[tokio::test]
async fn what_a_client_sent_before_it_gave_up_is_not_carried_out() {
    let front = Front::master().await;
    let mut client = front.client().await;
    client.write_all(b"too late\n").await.expect("sent");
    until("it is held", async || front.group.counters.held.load(Relaxed) == 1).await;
    client.set_zero_linger().expect("a socket option");
    drop(client);
    let database = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    front.show(1, Phase::Active, Some(("a", database.local_addr().expect("bound"))));
    let (mut connection, _) = super::world::limited(database.accept()).await.expect("the proxy connects");
    let mut got = Vec::new();
    // It is reset or ended, as it happens; what counts is that nothing came.
    let _ = super::world::limited(connection.read_to_end(&mut got)).await;
    assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_at_once_are_all_carried() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let address = front.address;
    let connecting = (0..1000).map(|_| tokio::spawn(TcpStream::connect(address)));
    let mut clients = Vec::new();
    for client in connecting.collect::<Vec<_>>() {
        clients.push(super::world::limited(client).await.expect("no panic").expect("connected"));
    }
    for client in &mut clients {
        assert_eq!(line(client).await, "a");
        round_trip(client).await;
    }
    assert_eq!(front.group.counters.open.load(Relaxed), 1000);
    drop(clients);
    until("all have gone", async || front.group.counters.open.load(Relaxed) == 0).await;
}
