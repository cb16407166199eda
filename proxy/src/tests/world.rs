//! What the tests share: a proxy on free ports, databases that echo, and a record to show to the proxy.

use crate::group::Group;
use crate::routes::Seen;
use crate::{Error, Proxy, Stop};
use config::{HttpConfig, ListenerConfig, ListenerRole, Protocol, ProxyConfig, ProxyNode};
use election::documents::{RECORD_VERSION, Writer};
use election::{Master, Member, NodeId, Phase, Policy, Record, Role};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Far more than anything here takes, on any machine.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// A proxy with one listener for the group `g`.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) group: Arc<Group>,
    pub(super) stop: Stop,
    pub(super) running: JoinHandle<Result<(), Error>>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.request();
        self.stop.request();
    }
}

pub(super) fn config(listen: &str, role: ListenerRole, hold: Duration) -> ProxyConfig {
    ProxyConfig {
        proxy: ProxyNode { name: "p1".into(), address: "127.0.0.1".into() },
        consul: config::ConsulConfig::default(),
        http: HttpConfig { listen: "127.0.0.1:0".into() },
        listeners: vec![ListenerConfig {
            listen: listen.into(),
            groups: vec!["g".into()],
            role,
            protocol: Protocol::Tcp,
            hold,
            sharding: None,
        }],
        groups: BTreeMap::new(),
        sentinel: None,
    }
}

impl Front {
    pub(super) async fn start(role: ListenerRole, hold: Duration) -> Self {
        Self::start_with(role, hold, LIMIT).await
    }

    pub(super) async fn start_with(role: ListenerRole, hold: Duration, drain_limit: Duration) -> Self {
        Self::start_of(config("127.0.0.1:0", role, hold), drain_limit).await
    }

    pub(super) async fn start_of(config: ProxyConfig, drain_limit: Duration) -> Self {
        let proxy = Proxy::bind(config).await.expect("free ports");
        let (address, http) = (proxy.addresses()[0], proxy.http_address().expect("bound"));
        let group = proxy.groups[&"g".into()].clone();
        let stop = Stop::new();
        let running = tokio::spawn(proxy.carry(stop.clone(), drain_limit, JoinSet::new()));
        Self { address, http, group, stop, running }
    }

    /// A proxy for the master that holds for long.
    pub(super) async fn master() -> Self {
        Self::start(ListenerRole::Master, LIMIT).await
    }

    pub(super) async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the proxy listens")
    }

    /// A client that has read the name of the database it was carried to.
    pub(super) async fn client_of(&self, name: &str) -> TcpStream {
        let mut client = self.client().await;
        assert_eq!(line(&mut client).await, name);
        client
    }

    /// Shows a record to the proxy as Consul would; the sequence is ten times the epoch, and the phase.
    pub(super) fn show(&self, epoch: u64, phase: Phase, master: Option<(&str, SocketAddr)>) {
        self.show_with(epoch, phase, master, &[]);
    }

    /// The same with members: name, database, agent.
    pub(super) fn show_with(
        &self,
        epoch: u64,
        phase: Phase,
        master: Option<(&str, SocketAddr)>,
        members: &[(&str, SocketAddr, SocketAddr)],
    ) {
        self.show_engine("redis", epoch, phase, master, members);
    }

    /// The same with members that run `engine`.
    pub(super) fn show_engine(
        &self,
        engine: &str,
        epoch: u64,
        phase: Phase,
        master: Option<(&str, SocketAddr)>,
        members: &[(&str, SocketAddr, SocketAddr)],
    ) {
        let members: BTreeMap<_, _> = members.iter().map(|m| (NodeId::from(m.0), member(engine, m))).collect();
        let seq = epoch * 10 + phase_number(phase);
        let record = record(epoch, seq, phase, master);
        self.group.observe(
            Seen { record: Some(&record), fault: None, members: &members },
            Some(&Policy { max_lag: 77, ..Policy::default() }),
        );
    }

    /// Status and body of a page.
    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path).await
    }

    pub(super) async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        ask(self.http, method, path).await
    }
}

/// Status and body of a page.
pub(super) async fn get(http: SocketAddr, path: &str) -> (u16, String) {
    ask(http, "GET", path).await
}

async fn ask(http: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).await.expect("HTTP is served");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    limited(stream.read_to_string(&mut answer)).await.expect("answered");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a head").1.to_owned();
    (status, body)
}

/// Later phases of an epoch have a higher sequence, as in life.
fn phase_number(phase: Phase) -> u64 {
    match phase {
        Phase::Bootstrapping | Phase::Promoting => 0,
        Phase::Active => 1,
        Phase::Switching => 2,
        Phase::Halted | Phase::Quarantine => 3,
    }
}

pub(super) fn record(epoch: u64, seq: u64, phase: Phase, master: Option<(&str, SocketAddr)>) -> Record {
    Record {
        v: RECORD_VERSION,
        group: "g".into(),
        uid: "uid".into(),
        epoch,
        active_epoch: epoch,
        seq,
        nonce: seq.to_string().as_str().into(),
        writer: Writer::default(),
        phase,
        master: master.map(|(id, at)| Master {
            id: id.into(),
            address: at.ip().to_string(),
            port: at.port(),
            incarnation: "run".into(),
        }),
        replica: None,
        previous: None,
        fsync: false,
        switchover: None,
    }
}

fn member(engine: &str, (id, at, agent): &(&str, SocketAddr, SocketAddr)) -> Member {
    Member {
        id: (*id).into(),
        address: at.ip().to_string(),
        port: at.port(),
        agent: agent.to_string(),
        engine: engine.into(),
        version: String::new(),
        databases: Some(16),
        zone: None,
        role: Role::Spare,
        incarnation: None,
        priority: 100,
        adopt: false,
        uid: None,
        boot: "boot".into(),
    }
}

/// A database: says its name on a line, then echoes until the client's end. Gone with the value.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Echo {
    pub(super) fn start(name: &'static str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        // Room for all clients of any test at once: beyond it the kernel forgets connections whose client, like ours,
        // waits for the first word.
        Self::on(socket.listen(4_096).expect("listening"), name)
    }

    pub(super) fn on(listener: TcpListener, name: &'static str) -> Self {
        let address = listener.local_addr().expect("bound");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(echo(stream, name));
            }
        });
        Self { address, _serving: serving }
    }
}

async fn echo(mut stream: TcpStream, name: &str) {
    let (mut read, mut write) = stream.split();
    if write.write_all(format!("{name}\n").as_bytes()).await.is_ok() {
        // A client that breaks off ends it: nothing to tell.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    }
}

/// What the future gives, which it must do in time.
pub(super) async fn limited<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("nothing happened for much too long")
}

/// The next line, without its end.
pub(super) async fn line(stream: &mut TcpStream) -> String {
    let mut line = String::new();
    // One byte at a time, so that nothing behind the line is taken.
    limited(BufReader::with_capacity(1, stream).read_line(&mut line)).await.expect("a line");
    line.trim_end().to_owned()
}

/// Sends a word and sees it come back.
pub(super) async fn round_trip(client: &mut TcpStream) {
    client.write_all(b"word\n").await.expect("sent");
    assert_eq!(line(client).await, "word");
}

/// The client's connection must be reset.
pub(super) async fn assert_reset(client: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = limited(client.read_to_end(&mut rest)).await.expect_err("it must be reset, and was ended orderly");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Waits for a state.
pub(super) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !reached().await {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
