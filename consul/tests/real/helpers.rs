//! What the tests share: waiting for a state, documents, and servers that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use config::ConsulConfig;
use consul::Consul;
use consul::testing::TestConsul;
use election::documents::{RECORD_VERSION, Writer};
use election::{GroupName, Incarnation, Master, Member, NodeId, Nonce, Phase, Record, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Generous: nothing here takes more than a few seconds unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn consul() -> (TestConsul, Consul) {
    let server = TestConsul::start().await.unwrap();
    let client = server.client().unwrap();
    (server, client)
}

pub(crate) fn client_of(addresses: &[&str]) -> Consul {
    let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
    Consul::connect(&ConsulConfig { addresses, ..ConsulConfig::default() }).unwrap()
}

pub(crate) fn group() -> GroupName {
    GroupName::from("backend-redis")
}

/// What plain Consul answers.
pub(crate) async fn get(url: String) -> serde_json::Value {
    let request = reqwest::Client::new().get(url).timeout(LIMIT);
    request.send().await.unwrap().json().await.unwrap()
}

/// Waits until what is watched is as wanted, and gives it.
pub(crate) async fn until<T: Clone + std::fmt::Debug>(
    receiver: &mut watch::Receiver<T>,
    what: &str,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let found = tokio::time::timeout(LIMIT, receiver.wait_for(|value| wanted(value))).await.map(|r| r.unwrap().clone());
    found.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}; last: {:?}", *receiver.borrow()))
}

/// Asks again and again until the answer is as wanted, and gives it.
pub(crate) async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let began = std::time::Instant::now();
    loop {
        let found = ask().await;
        if wanted(&found) {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}; last: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn record(epoch: u64, seq: u64, master: &str) -> Record {
    Record {
        v: RECORD_VERSION,
        group: group().0,
        uid: "u".to_owned(),
        epoch,
        active_epoch: epoch.saturating_sub(1),
        seq,
        nonce: Nonce(format!("nonce-{seq}")),
        writer: Writer { node: NodeId::from(master), boot: "b".to_owned() },
        phase: Phase::Promoting,
        master: Some(Master {
            id: NodeId::from(master),
            address: "10.0.0.1".to_owned(),
            port: 6379,
            incarnation: Incarnation::from("i"),
        }),
        replica: None,
        previous: None,
        fsync: false,
        switchover: None,
    }
}

pub(crate) fn member(node: &str, version: &str) -> Member {
    Member {
        id: NodeId::from(node),
        address: "10.0.0.1".to_owned(),
        port: 6379,
        agent: "10.0.0.1:7400".to_owned(),
        engine: "redis".to_owned(),
        version: version.to_owned(),
        databases: Some(16),
        zone: None,
        role: Role::Spare,
        incarnation: None,
        priority: 100,
        adopt: false,
        uid: None,
        boot: "b".to_owned(),
    }
}

/// How a [`Troubled`] server treats a request that it has read.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    /// It never answers.
    Silence,
    /// It closes the connection.
    Close,
    /// It answers with status 500.
    Fail,
}

/// A server that reads requests and does no good. Ends with the test's runtime.
pub(crate) struct Troubled {
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
}

impl Troubled {
    pub(crate) async fn start(trouble: Trouble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    // Requests here are small and arrive whole.
                    if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                    match trouble {
                        Trouble::Silence => std::future::pending::<()>().await,
                        Trouble::Close => {}
                        Trouble::Fail => {
                            let body = "No cluster leader";
                            let head = format!(
                                "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                                body.len()
                            );
                            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                        }
                    }
                });
            }
        });
        Self { url, requests }
    }

    /// How many requests it has read.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens.
pub(crate) async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
