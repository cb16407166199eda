//! The proxy with a real Consul: routes are followed, its absence is survived, its return from the past is refused.

use super::world::{Echo, assert_reset, config, get, limited, line, record, round_trip, until};
use crate::{Error, Proxy, Stop};
use config::{ListenerRole, ProxyConfig};
use consul::testing::TestConsul;
use consul::{Consul, TxnOp};
use election::Phase;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Front {
    address: SocketAddr,
    http: SocketAddr,
    stop: Stop,
    running: JoinHandle<Result<(), Error>>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.request();
        self.stop.request();
    }
}

impl Front {
    async fn start(consul: &TestConsul) -> Self {
        // Longer than a Consul takes to start again.
        let hold = Duration::from_secs(60);
        let config = ProxyConfig { consul: consul.config(), ..config("127.0.0.1:0", ListenerRole::Master, hold) };
        let proxy = Proxy::bind(config).await.expect("free ports");
        let (address, http) = (proxy.addresses()[0], proxy.http_address().expect("bound"));
        let stop = Stop::new();
        Self { address, http, stop: stop.clone(), running: tokio::spawn(proxy.serve(stop)) }
    }

    /// A client, and the name of the database it was carried to.
    async fn client(&self) -> (TcpStream, String) {
        let mut client = TcpStream::connect(self.address).await.expect("the proxy listens");
        let name = line(&mut client).await;
        (client, name)
    }

    async fn until_page(&self, path: &str, says: &str) {
        until(&format!("{path} says {says}"), async || {
            let (status, body) = get(self.http, path).await;
            format!("{status} {body}").contains(says)
        })
        .await;
    }
}

async fn show(consul: &Consul, epoch: u64, seq: u64, phase: Phase, master: &Echo) {
    let key = consul.layout().record(&"g".into());
    let value = serde_json::to_vec(&record(epoch, seq, phase, Some(("db", master.address)))).expect("JSON");
    let written = limited(consul.transact(vec![TxnOp::Set { key, value }])).await.expect("Consul answers");
    assert!(written.is_applied(), "{written:?}");
}

#[tokio::test]
async fn clients_follow_the_record_in_consul() {
    let test = TestConsul::start().await.expect("consul");
    let consul = test.client().expect("a client");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let front = Front::start(&test).await;
    // There is no record yet: Consul has been seen, so the proxy is ready, and clients wait.
    front.until_page("/readyz", "200 ready").await;
    show(&consul, 1, 1, Phase::Active, &a).await;
    let (mut first, name) = front.client().await;
    assert_eq!(name, "a");
    show(&consul, 2, 2, Phase::Promoting, &b).await;
    assert_reset(&mut first).await;
    show(&consul, 2, 3, Phase::Active, &b).await;
    let (mut second, name) = front.client().await;
    assert_eq!(name, "b");
    round_trip(&mut second).await;
}

#[tokio::test]
async fn without_consul_serving_goes_on_and_one_that_forgot_is_not_believed() {
    let mut test = TestConsul::start().await.expect("consul");
    let consul = test.client().expect("a client");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let front = Front::start(&test).await;
    show(&consul, 5, 50, Phase::Active, &a).await;
    let (mut client, _) = front.client().await;

    test.kill();
    front.until_page("/routes", r#""consul":"away""#).await;
    round_trip(&mut client).await;
    assert_eq!(front.client().await.1, "a");

    test.restart().await.expect("consul");
    front.until_page("/routes", "has vanished").await;
    show(&consul, 4, 49, Phase::Active, &b).await;
    front.until_page("/routes", "is older than the one known").await;
    round_trip(&mut client).await;
    assert_eq!(front.client().await.1, "a");

    show(&consul, 6, 51, Phase::Active, &b).await;
    assert_reset(&mut client).await;
    assert_eq!(front.client().await.1, "b");
}

#[tokio::test]
async fn the_proxy_is_in_consul_while_it_lives() {
    let test = TestConsul::start().await.expect("consul");
    let consul = test.client().expect("a client");
    let mut front = Front::start(&test).await;
    let mut proxies = consul.watch_proxies();
    let view = limited(proxies.wait_for(|view| view.proxies.contains_key("p1"))).await.expect("watched").clone();
    let record = &view.proxies["p1"];
    assert_eq!((record.address.as_str(), record.http.as_str()), ("127.0.0.1", front.http.to_string().as_str()));
    let listener = &record.listeners[0];
    assert_eq!((listener.listen.as_str(), listener.role.as_str()), (front.address.to_string().as_str(), "master"));

    front.stop.request();
    limited(&mut front.running).await.expect("no panic").expect("an orderly end");
    limited(proxies.wait_for(|view| !view.proxies.contains_key("p1"))).await.expect("watched");
}
