//! The `postgres` protocol, against servers that say what the test tells them to.

use super::replicas::{Agent, vouched};
use super::world::{Front, LIMIT, assert_reset, config, limited};
use crate::postgres::message;
use config::{ListenerRole, Protocol};
use election::Phase;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CANCEL: u32 = 80_877_102;

fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + rest.len()).expect("short");
    [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

fn login() -> Vec<u8> {
    packet(196_608, b"user\0app\0\0")
}

/// What a server says when it lets a client in.
fn welcome(standby: &str, key: &[u8]) -> Vec<u8> {
    let status = format!("in_hot_standby\0{standby}\0");
    [message(b'R', &[0; 4]), message(b'S', status.as_bytes()), message(b'K', key), message(b'Z', b"I")].concat()
}

async fn front(role: ListenerRole, hold: Duration) -> Front {
    let mut asks = config("127.0.0.1:0", role, hold);
    asks.listeners[0].protocol = Protocol::Postgres;
    Front::start_of(asks, LIMIT).await
}

async fn listen() -> (TcpListener, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("bound");
    (server, address)
}

async fn reads(stream: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    limited(stream.read_exact(&mut got)).await.expect("it arrives");
    assert_eq!(got, wanted);
}

/// A client that a server has let in, and the server's side of it.
async fn session(front: &Front, server: &TcpListener, welcome: &[u8]) -> (TcpStream, TcpStream) {
    let mut client = front.client().await;
    client.write_all(&login()).await.expect("sent");
    let (mut side, _) = limited(server.accept()).await.expect("the proxy comes");
    reads(&mut side, &login()).await;
    side.write_all(welcome).await.expect("sent");
    (client, side)
}

#[tokio::test]
async fn no_success_follows_a_cancelled_wait() {
    let front = front(ListenerRole::Master, LIMIT).await;
    let (server, address) = listen().await;
    front.show(1, Phase::Active, Some(("db1", address)));
    let (mut client, mut side) = session(&front, &server, &welcome("off", b"key1")).await;
    reads(&mut client, &welcome("off", b"key1")).await;
    client.write_all(&message(b'Q', b"INSERT\0")).await.expect("sent");
    reads(&mut side, &message(b'Q', b"INSERT\0")).await;
    let done = message(b'C', b"INSERT 0 1\0");
    side.write_all(&done).await.expect("sent");
    reads(&mut client, &done).await;
    let notice = message(b'N', b"SWARNING\0Mcanceling wait\0RSyncRepWaitForLSN\0\0");
    side.write_all(&[notice, done].concat()).await.expect("sent");
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_server_in_another_role_is_not_handed_a_client() {
    let front = front(ListenerRole::Master, LIMIT).await;
    let (server, address) = listen().await;
    front.show(1, Phase::Active, Some(("db1", address)));
    let (mut client, _side) = session(&front, &server, &welcome("on", b"key1")).await;
    let mut said = Vec::new();
    limited(client.read_to_end(&mut said)).await.expect("it is told, and the end is orderly");
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with('E') && said.contains("57P03") && said.contains("a standby, not the master"), "{said:?}");
}

#[tokio::test]
async fn a_client_that_waited_in_vain_is_told() {
    let front = front(ListenerRole::Master, Duration::from_millis(50)).await;
    front.show(1, Phase::Promoting, None);
    let mut client = front.client().await;
    client.write_all(&login()).await.expect("sent");
    let mut said = Vec::new();
    limited(client.read_to_end(&mut said)).await.expect("it is told, and the end is orderly");
    assert!(String::from_utf8_lossy(&said).contains("no server for this role"), "{said:?}");
}

#[tokio::test]
async fn a_request_to_cancel_goes_to_the_server_that_gave_the_key() {
    let front = front(ListenerRole::Replica, LIMIT).await;
    let ((one, first), (two, second)) = (listen().await, listen().await);
    let agent = Agent::start(true).await;
    front.show_with(1, Phase::Active, None, &[("db2", first, agent.address), ("db3", second, agent.address)]);
    vouched(&front, 2).await;
    // Two sessions: replicas take turns.
    let (mut a, _one) = session(&front, &one, &welcome("on", b"key1")).await;
    reads(&mut a, &welcome("on", b"key1")).await;
    let (mut b, _two) = session(&front, &two, &welcome("on", b"key2")).await;
    reads(&mut b, &welcome("on", b"key2")).await;

    let request = packet(CANCEL, b"key2");
    let mut asks = front.client().await;
    asks.write_all(&request).await.expect("sent");
    let (mut side, _) = limited(two.accept()).await.expect("the proxy comes");
    reads(&mut side, &request).await;
    drop(side);
    assert_eq!(limited(asks.read(&mut [0; 1])).await.expect("closed in order"), 0);

    // One that no connection here has goes to all.
    let request = packet(CANCEL, b"key9");
    let mut asks = front.client().await;
    asks.write_all(&request).await.expect("sent");
    for server in [one, two] {
        let (mut side, _) = limited(server.accept()).await.expect("the proxy comes");
        reads(&mut side, &request).await;
    }
}
