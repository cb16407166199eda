//! The proxy stops without breaking what is under way, and not later than it says.

use super::world::{Echo, Front, LIMIT, config, limited, round_trip, until};
use crate::{Error, Proxy};
use config::ListenerRole;
use election::Phase;
use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

async fn end(front: &mut Front) {
    limited(&mut front.running).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_stop_lets_present_clients_finish_and_takes_no_new_ones() {
    let (mut front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut client = front.client_of("a").await;
    assert_eq!(front.get("/readyz").await, (200, "ready\n".to_owned()));
    front.stop.request();
    let address = front.address;
    until("nobody listens", async || {
        TcpStream::connect(address).await.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    let (status, reason) = front.get("/readyz").await;
    assert_eq!(status, 503, "{reason}");
    assert!(reason.contains("stopping"), "{reason}");
    round_trip(&mut client).await;
    assert!(!front.running.is_finished());
    drop(client);
    end(&mut front).await;
}

#[tokio::test]
async fn clients_that_do_not_finish_are_closed_at_the_drain_limit() {
    let limit = Duration::from_millis(100);
    let mut front = Front::start_with(ListenerRole::Master, LIMIT, limit).await;
    let a = Echo::start("a");
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut client = front.client_of("a").await;
    let start = Instant::now();
    front.stop.request();
    assert_eq!(limited(client.read(&mut [0])).await.expect("an orderly close"), 0);
    assert!(start.elapsed() >= limit, "closed after {:?}", start.elapsed());
    end(&mut front).await;
}

#[tokio::test]
async fn a_second_request_ends_at_once() {
    let (mut front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut client = front.client_of("a").await;
    let _held = {
        front.show(1, Phase::Switching, Some(("a", a.address)));
        front.client().await
    };
    until("one is held", async || front.group.counters.held.load(Relaxed) == 1).await;
    let start = Instant::now();
    front.stop.request();
    front.stop.request();
    assert_eq!(limited(client.read(&mut [0])).await.expect("an orderly close"), 0);
    end(&mut front).await;
    assert!(start.elapsed() < LIMIT / 2, "ended after {:?}", start.elapsed());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let error = Proxy::bind(config(&address, ListenerRole::Master, LIMIT)).await.expect_err("it is taken");
    assert_eq!(error.to_string(), format!("listener[0].listen: cannot listen on {address}"));
    let Error::Listen { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::AddrInUse);
    assert!(error.source().is_some(), "the system's own words are kept");
}

#[tokio::test]
async fn what_is_not_built_is_refused_with_its_key() {
    let mut asks = config("127.0.0.1:0", ListenerRole::Master, LIMIT);
    asks.listeners[0].groups.push("h".into());
    let error = Proxy::bind(asks).await.expect_err("not built");
    assert!(error.to_string().starts_with("listener[0].groups: "), "{error}");
}
