//! Bytes are carried whole, both ways, to each side's own end.

use super::world::{Echo, Front, assert_reset, limited, line, round_trip, until};
use election::Phase;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client and the database's side of its connection.
async fn connected(front: &Front) -> (TcpStream, TcpStream) {
    let database = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    front.show(1, Phase::Active, Some(("a", database.local_addr().expect("bound"))));
    let mut client = front.client().await;
    let (mut backend, _) = limited(database.accept()).await.expect("the proxy connects");
    // The kernel has connected them before the proxy knows of it; what has arrived has been carried.
    backend.write_all(b"a\n").await.expect("sent");
    assert_eq!(line(&mut client).await, "a");
    (client, backend)
}

#[tokio::test]
async fn the_clients_end_is_passed_on_and_the_answer_still_comes() {
    let front = Front::master().await;
    let (mut client, mut backend) = connected(&front).await;
    client.write_all(b"question").await.expect("sent");
    client.shutdown().await.expect("ended");
    let mut got = String::new();
    limited(backend.read_to_string(&mut got)).await.expect("the end arrives");
    assert_eq!(got, "question");
    backend.write_all(b"answer").await.expect("sent");
    drop(backend);
    let mut answer = String::new();
    limited(client.read_to_string(&mut answer)).await.expect("an orderly end");
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn the_databases_end_is_passed_on_and_the_client_may_still_speak() {
    let front = Front::master().await;
    let (mut client, mut backend) = connected(&front).await;
    backend.write_all(b"bye").await.expect("sent");
    backend.shutdown().await.expect("ended");
    let mut got = String::new();
    limited(client.read_to_string(&mut got)).await.expect("the end arrives");
    assert_eq!(got, "bye");
    client.write_all(b"one more word").await.expect("sent");
    client.shutdown().await.expect("ended");
    let mut last = String::new();
    limited(backend.read_to_string(&mut last)).await.expect("an orderly end");
    assert_eq!(last, "one more word");
    until("the connection is over", async || front.group.counters.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_database_that_breaks_off_resets_the_client_and_the_other_way_round() {
    let front = Front::master().await;
    let (mut client, backend) = connected(&front).await;
    backend.set_zero_linger().expect("a socket option");
    drop(backend);
    assert_reset(&mut client).await;
    drop(front);

    let front = Front::master().await;
    let (client, mut backend) = connected(&front).await;
    client.set_zero_linger().expect("a socket option");
    drop(client);
    assert_reset(&mut backend).await;
}

/// Bytes that are all different enough for a shift or a swap to show.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Reads all, now in crumbs and now in gulps, giving way between them.
async fn read_slowly(mut from: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let (mut all, mut buf, mut turn) = (Vec::new(), vec![0; 200_000], 0_usize);
    loop {
        turn += 1;
        let room = [1, 100, 7_000, buf.len()][turn % 4];
        match limited(from.read(&mut buf[..room])).await.expect("readable") {
            0 => return all,
            n => all.extend_from_slice(&buf[..n]),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn large_transfers_both_ways_at_once_arrive_whole_at_slow_readers() {
    const LEN: usize = 24 << 20;
    let front = Front::master().await;
    let (client, backend) = connected(&front).await;
    let (client_reads, mut client_writes) = client.into_split();
    let (backend_reads, mut backend_writes) = backend.into_split();
    let (up, down) = (pattern(LEN, 1), pattern(LEN, 2));
    let (want_up, want_down) = (up.clone(), down.clone());
    let writers = tokio::spawn(async move {
        let send_up = async {
            client_writes.write_all(&up).await.expect("sent up");
            client_writes.shutdown().await.expect("ended");
        };
        let send_down = async {
            backend_writes.write_all(&down).await.expect("sent down");
            backend_writes.shutdown().await.expect("ended");
        };
        tokio::join!(send_up, send_down);
    });
    let (got_up, got_down) = tokio::join!(read_slowly(backend_reads), read_slowly(client_reads));
    assert!(got_up == want_up, "{} of {LEN} bytes went up, or changed ones", got_up.len());
    assert!(got_down == want_down, "{} of {LEN} bytes came down, or changed ones", got_down.len());
    limited(writers).await.expect("no panic");
}

#[tokio::test]
async fn a_client_that_says_nothing_hinders_nobody() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut silent = front.client_of("a").await;
    for _ in 0..10 {
        round_trip(&mut front.client_of("a").await).await;
    }
    round_trip(&mut silent).await;
}
