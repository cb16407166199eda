//! A proxy from its first socket to its last client.

use crate::error::Error;
use crate::group::Group;
use crate::http::{self, Pages};
use crate::postgres::Keys;
use crate::redis::{Crew, Login, Redis};
use crate::stop::Stop;
use crate::tcp::Tcp;
use crate::worker::{self, Signals};
use crate::{lag, learn, limits, listen};
use config::{ListenerConfig, ListenerRole, Protocol, ProxyConfig, ProxyGroup};
use consul::{Consul, SessionKeeper};
use election::{GroupName, Secret};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// How long connected clients may go on after the proxy was told to stop.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Starts a proxy as its file says, and runs it until told to stop.
///
/// # Errors
/// See [`Proxy::bind`] and [`Proxy::serve`].
pub async fn run(config: ProxyConfig, stop: Stop) -> Result<(), Error> {
    Proxy::bind(config).await?.serve(stop).await
}

/// A proxy whose sockets are bound. Clients may connect already; they are served by [`Proxy::serve`].
#[derive(Debug)]
pub struct Proxy {
    pub(crate) config: ProxyConfig,
    pub(crate) groups: BTreeMap<GroupName, Arc<Group>>,
    listeners: Vec<Bound>,
    http: StdListener,
}

/// One `[[listener]]` and its sockets.
#[derive(Debug)]
struct Bound {
    address: SocketAddr,
    sockets: Vec<StdListener>,
    carrier: Carrier,
}

/// Who carries a listener's clients.
#[derive(Debug, Clone)]
enum Carrier {
    Tcp(Arc<Tcp>),
    Redis(Arc<Redis>),
}

impl Carrier {
    fn group_of_readers(&self) -> Option<&Arc<Group>> {
        let (role, group) = match self {
            Carrier::Tcp(tcp) => (tcp.role, &tcp.group),
            Carrier::Redis(redis) => (redis.role, &redis.group),
        };
        (role == ListenerRole::Replica).then_some(group)
    }
}

impl Proxy {
    /// Binds every socket that the file asks for.
    ///
    /// # Errors
    /// When the file asks for something that is not built yet, or an address cannot be listened on. Nothing stays
    /// bound then.
    pub async fn bind(config: ProxyConfig) -> Result<Self, Error> {
        if config.sentinel.is_some() {
            return Err(not_built("sentinel", "the Sentinel facade", "leave the table out"));
        }
        let http = bind_one("http.listen", &config.http.listen, 1).await?.1;
        let http = http.into_iter().next().ok_or_else(|| unbound("http.listen", &config.http.listen))?;
        let mut groups = BTreeMap::new();
        let mut listeners = Vec::new();
        for (i, listener) in config.listeners.iter().enumerate() {
            listeners.push(bind_listener(i, listener, &config, &mut groups).await?);
        }
        Ok(Self { config, groups, listeners, http })
    }

    /// Where each listener of the file is bound, in the file's order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|l| l.address).collect()
    }

    /// Where HTTP is answered.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Follows the routes in Consul and carries clients until told to stop.
    ///
    /// # Errors
    /// When no Consul client can be made from the file's settings, or the system does not grant what is needed. An
    /// unreachable Consul is none: it is waited for.
    pub async fn serve(self, stop: Stop) -> Result<(), Error> {
        let consul = Consul::connect(&self.config.consul).map_err(Error::Consul)?;
        let name = &self.config.proxy.name;
        let mut background = JoinSet::new();
        for group in self.groups.values() {
            background.spawn(learn::follow(group.clone(), consul.watch_group(&group.name)));
        }
        let session = SessionKeeper::start(consul.clone(), format!("understudy proxy {name}"));
        let presence = consul.keep_proxy(name, session.id());
        let http = self.http_address().map_err(Error::System)?;
        presence.set(&learn::presence(&self.config, &self.addresses(), http));
        let outcome = self.carry(stop, DRAIN_LIMIT, background).await;
        drop(presence);
        session.destroy().await;
        outcome
    }

    /// Carries clients until told to stop. `background` learns the routes meanwhile.
    pub(crate) async fn carry(self, stop: Stop, drain_limit: Duration, background: JoinSet<()>) -> Result<(), Error> {
        limits::raise_open_files();
        let signals = Signals { drain: stop.draining().clone(), ..Signals::default() };
        // Threads do not end with the future that started them: this ends them with it.
        let _ends_with_us = signals.end.clone().drop_guard();
        let mut background = background;
        // By group: two listeners of one group share what its agents say.
        let readers = self.listeners.iter().filter_map(|l| l.carrier.group_of_readers());
        let read: BTreeMap<_, _> = readers.map(|group| (&group.name, group)).collect();
        for group in read.into_values() {
            background.spawn(lag::watch(group.clone()));
        }
        let pages = Arc::new(Pages { groups: self.groups, draining: stop.draining().clone() });
        let http = TcpListener::from_std(self.http).map_err(Error::System)?;
        background.spawn(http::serve(http, pages));
        let mut crew = Crew::default();
        let mut shares = Vec::new();
        for Bound { sockets, carrier, .. } in self.listeners {
            match carrier {
                Carrier::Tcp(tcp) => deal(sockets, &tcp, &mut shares),
                Carrier::Redis(redis) => crew.start(&redis, sockets, &signals.clients, &mut background)?,
            }
        }
        let mut threads = worker::start(shares, &signals)?;
        stop.draining().cancelled().await;
        crew.drain();
        drain(&stop, &signals, drain_limit).await;
        signals.end.cancel();
        threads.extend(crew.end());
        join(threads).await;
        background.shutdown().await;
        Ok(())
    }
}

async fn drain(stop: &Stop, signals: &Signals, limit: Duration) {
    signals.clients.close();
    info!(
        clients = signals.clients.len(),
        limit_s = limit.as_secs(),
        "stopping: no new clients, the present ones go on"
    );
    tokio::select! {
        () = signals.clients.wait() => info!("all clients have finished"),
        () = tokio::time::sleep(limit) => warn!(clients = signals.clients.len(), "the drain limit has passed: closing them"),
        () = stop.at_once() => warn!(clients = signals.clients.len(), "told to stop at once: closing them"),
    }
}

async fn join(threads: Vec<std::thread::JoinHandle<()>>) {
    for thread in threads {
        // Both errors are panics, and were reported where they happened.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

/// Deals a listener's sockets out: one to each worker.
fn deal(sockets: Vec<StdListener>, tcp: &Arc<Tcp>, shares: &mut Vec<worker::Share>) {
    for (i, socket) in sockets.into_iter().enumerate() {
        if shares.len() <= i {
            shares.push(Vec::new());
        }
        shares[i].push((socket, tcp.clone()));
    }
}

async fn bind_listener(
    index: usize,
    listener: &ListenerConfig,
    config: &ProxyConfig,
    groups: &mut BTreeMap<GroupName, Arc<Group>>,
) -> Result<Bound, Error> {
    let [name] = listener.groups.as_slice() else {
        let key = format!("listener[{index}].groups");
        return Err(not_built(&key, "sharding over several groups", "name one group"));
    };
    let group = groups.entry(name.clone()).or_insert_with(|| Arc::new(Group::new(name.clone()))).clone();
    let ListenerConfig { role, hold, protocol, .. } = *listener;
    let carrier = match protocol {
        Protocol::Tcp | Protocol::Postgres => {
            let postgres = (protocol == Protocol::Postgres).then(Keys::default);
            let tcp = Tcp { group, role, hold, turn: AtomicUsize::new(0), postgres };
            Carrier::Tcp(Arc::new(tcp))
        }
        Protocol::Redis => {
            let account = account(name, config)?;
            let redis = Redis { group, role, hold, account, proxy: config.proxy.name.clone() };
            Carrier::Redis(Arc::new(redis))
        }
    };
    let (address, sockets) =
        bind_one(&format!("listener[{index}].listen"), &listener.listen, worker::threads()).await?;
    info!(%address, group = %name, ?role, ?protocol, "listening");
    Ok(Bound { address, sockets, carrier })
}

/// The proxy's own account in a group, with its password read from the file.
fn account(group: &GroupName, config: &ProxyConfig) -> Result<Option<Login>, Error> {
    let Some(ProxyGroup { user, password_file: Some(path) }) = config.groups.get(group) else { return Ok(None) };
    let key = format!("group.{group}.password_file");
    let failed = |why| Error::Password { key: key.clone(), path: path.clone(), why };
    let text = fs::read_to_string(path).map_err(|error| failed(format!("cannot be read ({error})")))?;
    // One line end at the file's end is not part of it.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(failed("is empty: write the password into it, or remove the key".to_owned()));
    }
    Ok(Some(Login { user: user.clone(), password: Secret::new(password) }))
}

async fn bind_one(key: &str, listen: &str, count: usize) -> Result<(SocketAddr, Vec<StdListener>), Error> {
    let failed = |source| Error::Listen { key: key.to_owned(), address: listen.to_owned(), source };
    let wanted = listen::resolve(key, listen).await?;
    let sockets = listen::bind(wanted, count).map_err(failed)?;
    let bound = sockets.first().map_or(Ok(wanted), StdListener::local_addr).map_err(failed)?;
    Ok((bound, sockets))
}

fn unbound(key: &str, listen: &str) -> Error {
    Error::Listen { key: key.to_owned(), address: listen.to_owned(), source: io::ErrorKind::AddrNotAvailable.into() }
}

fn not_built(key: &str, what: &str, instead: &'static str) -> Error {
    Error::NotBuilt { key: key.to_owned(), what: what.to_owned(), instead }
}
