//! Readers are spread over the instances whose agents vouch for their lag.

use super::world::{Echo, Front, LIMIT, assert_reset, limited, line, round_trip, until};
use config::ListenerRole;
use election::Phase;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// An agent that knows one thing: whether its instance is within the lag.
pub(super) struct Agent {
    pub(super) address: SocketAddr,
    pub(super) within: Arc<AtomicBool>,
    asked: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Agent {
    pub(super) async fn start(within: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (within, asked) = (Arc::new(AtomicBool::new(within)), Arc::<Mutex<String>>::default());
        let (says, hears) = (within.clone(), asked.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1024];
                let n = stream.read(&mut request).await.unwrap_or(0);
                *hears.lock().expect("no panic") = String::from_utf8_lossy(&request[..n]).into_owned();
                let status = if says.load(Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // A proxy that has gone needs no answer.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, within, asked, _serving: serving }
    }
}

/// The names that `count` clients were carried to, sorted, and the clients.
async fn spread(front: &Front, count: usize) -> (Vec<String>, Vec<tokio::net::TcpStream>) {
    let (mut names, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut client = front.client().await;
        names.push(line(&mut client).await);
        clients.push(client);
    }
    names.sort();
    (names, clients)
}

pub(super) async fn vouched(front: &Front, count: usize) {
    let target = front.group.subscribe(ListenerRole::Replica);
    until("the agents were asked", async || target.borrow().admit.len() == count).await;
}

#[tokio::test]
async fn readers_take_turns_over_those_within_the_lag() {
    let front = Front::start(ListenerRole::Replica, LIMIT).await;
    let (a, b, c) = (Echo::start("a"), Echo::start("b"), Echo::start("c"));
    let (for_b, for_c) = (Agent::start(true).await, Agent::start(false).await);
    let members = [("a", a.address, for_b.address), ("b", b.address, for_b.address), ("c", c.address, for_c.address)];
    front.show_with(1, Phase::Active, Some(("a", a.address)), &members);
    assert_eq!(spread(&front, 2).await.0, ["b", "b"], "c is not within the lag, a is the master");
    let asked = for_c.asked.lock().expect("no panic").clone();
    assert!(asked.starts_with("GET /g/replica?lag=77 HTTP/1.1\r\n"), "{asked}");

    for_c.within.store(true, Relaxed);
    vouched(&front, 2).await;
    let (names, mut clients) = spread(&front, 4).await;
    assert_eq!(names, ["b", "b", "c", "c"]);

    // b falls behind: those it has may stay, new ones go elsewhere.
    for_b.within.store(false, Relaxed);
    vouched(&front, 1).await;
    assert_eq!(spread(&front, 2).await.0, ["c", "c"]);
    for client in &mut clients {
        round_trip(client).await;
    }
}

#[tokio::test]
async fn readers_of_a_replica_that_becomes_master_or_leaves_are_reset_and_others_stay() {
    let front = Front::start(ListenerRole::Replica, LIMIT).await;
    let (a, b, c) = (Echo::start("a"), Echo::start("b"), Echo::start("c"));
    let agent = Agent::start(true).await;
    let all = [("a", a.address, agent.address), ("b", b.address, agent.address), ("c", c.address, agent.address)];
    front.show_with(1, Phase::Active, Some(("a", a.address)), &all);
    vouched(&front, 2).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut client = front.client().await;
        readers.push((line(&mut client).await, client));
    }
    readers.sort_by(|x, y| x.0.cmp(&y.0));
    let [(_, of_b), (_, of_c)] = readers.as_mut_slice() else { panic!("two readers") };
    front.show_with(2, Phase::Promoting, Some(("b", b.address)), &all);
    assert_reset(of_b).await;
    round_trip(of_c).await;
    front.show_with(2, Phase::Active, Some(("b", b.address)), &all[..2]);
    assert_reset(of_c).await;
}

#[tokio::test]
async fn readers_for_whom_no_replica_is_good_enough_are_reset_after_hold() {
    let front = Front::start(ListenerRole::Replica, Duration::from_millis(200)).await;
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let agent = Agent::start(false).await;
    front.show_with(1, Phase::Active, Some(("a", a.address)), &[("b", b.address, agent.address)]);
    let mut client = front.client().await;
    limited(assert_reset(&mut client)).await;
}
