//! Puts an agent together from its file, runs it, and takes it apart: the databases stay.

use crate::clock::Clock;
use crate::engine::{self, Database, Engine as _, EngineError, Site};
use crate::http::{Served, State};
use crate::instance::{Instance, Message};
use crate::memory::{MemoryError, MemoryFile};
use crate::step::{Asking, Event, Step};
use crate::{api, database, http, knock, peers, status, witness};
use config::{AgentConfig, InstanceConfig};
use consul::{Consul, Registrar, Service, SessionKeeper};
use election::{Address, Me, Millis, NodeId};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events that may wait for an instance's loop. It takes them in within microseconds; more than this means that it is
/// stuck, and then whoever sends waits.
const INBOX: usize = 1_024;

/// How long an agent of the same name may take to say that it lives.
const SAME_NAME_PATIENCE: Duration = Duration::from_secs(1);

/// Why an agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its own folder cannot be used.
    #[error("node.data_dir {path}: cannot be used; create it and make this user its owner")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent works in its folder.
    #[error("node.data_dir {path}: another agent runs with this folder; stop it first")]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// Its address is taken.
    #[error("http.listen {address}: cannot listen there; free the port or name another")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The settings of Consul cannot be used.
    #[error("the [consul] settings cannot be used")]
    Consul {
        /// Why.
        source: consul::Error,
    },
    /// An instance cannot work as it is configured.
    #[error("instance of group {group}")]
    Engine {
        /// Its group.
        group: String,
        /// Why.
        source: EngineError,
    },
    /// What the node must not forget cannot be read.
    #[error("instance of group {group}")]
    Memory {
        /// Its group.
        group: String,
        /// Why.
        source: MemoryError,
    },
    /// The password cannot be read.
    #[error("instance of group {group}")]
    Password {
        /// Its group.
        group: String,
        /// Why.
        source: config::SecretError,
    },
    /// Another living node has this name.
    #[error("node.name {node}: an agent of this name runs at {agent}; every node of a group needs a name of its own")]
    SameName {
        /// The name.
        node: NodeId,
        /// Where the other answers.
        agent: String,
    },
}

/// Runs an agent until `leave` or `drain`. When it leaves, its databases go on without it and stay registered: an
/// upgrade is no failover. When it drains (so told here, or by an operator through Consul) it hands over what it is
/// master of, stops its databases and deregisters them.
///
/// # Errors
/// When it cannot start; the text names the key or path and says what to do.
pub async fn run(config: AgentConfig, leave: CancellationToken, drain: CancellationToken) -> Result<(), Error> {
    let lock = lock_folder(&config)?;
    let address = config.http.listen.clone();
    let listener =
        TcpListener::bind(&address).await.map_err(|source| Error::Listen { address: address.clone(), source })?;
    let consul = Consul::connect(&config.consul).map_err(|source| Error::Consul { source })?;
    let boot = uuid::Uuid::new_v4().simple().to_string();
    let agent_address = reachable(&config);
    let clock = Clock::start();
    let agent = Agent { agent_address, consul, boot: boot.clone(), clock, drain: drain.clone(), config };
    agent.refuse_same_name().await?;

    let session = SessionKeeper::start(agent.consul.clone(), format!("understudy agent {}", agent.config.node.name));
    let mut tasks = JoinSet::new();
    let (mut served, mut registrars) = (BTreeMap::new(), Vec::new());
    for instance in &agent.config.instances {
        let registrar = Arc::new(Registrar::start(agent.consul.clone(), agent.service(instance)));
        registrars.push(registrar.clone());
        let (name, one) = agent.start(instance, session.id(), registrar, &mut tasks).await?;
        served.insert(name, one);
    }
    let state = Arc::new(State { node: agent.config.node.name.0.clone(), boot, instances: served });
    tracing::info!(node = %agent.config.node.name, listen = %address, "the agent runs");
    let serving = tokio::spawn(http::serve(listener, state.clone(), leave.clone()));
    let drained = tokio::select! {
        () = leave.cancelled() => false,
        () = drain.cancelled() => tokio::select! {
            () = leave.cancelled() => false,
            () = drain_all(&state) => true,
        },
    };
    leave.cancel();
    let _ = serving.await;
    tasks.shutdown().await;
    if drained {
        for registrar in registrars.into_iter().filter_map(Arc::into_inner) {
            registrar.deregister().await;
        }
    }
    session.destroy().await;
    drop(lock);
    let what = if drained {
        "the node is drained: its databases are stopped"
    } else {
        "the agent has left; its databases go on"
    };
    tracing::info!(node = %agent.config.node.name, "{what}");
    Ok(())
}

/// Tells every instance to drain, and waits until all have.
async fn drain_all(state: &State) {
    for served in state.instances.values() {
        let _ = served.messages.send(Message::Drain).await;
    }
    for served in state.instances.values() {
        // Its loop ends only with the agent: then there is nothing to wait for.
        let _ = served.status.clone().wait_for(|status| status.reason_code == "drained").await;
    }
}

struct Agent {
    config: AgentConfig,
    consul: Consul,
    boot: String,
    clock: Clock,
    agent_address: String,
    drain: CancellationToken,
}

impl Agent {
    /// Starts everything that belongs to one instance.
    async fn start(
        &self,
        instance: &InstanceConfig,
        session: watch::Receiver<Option<String>>,
        registrar: Arc<Registrar>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(String, Served), Error> {
        let group = instance.group.clone();
        let name = group.0.clone();
        let (agents, known_agents) = watch::channel(BTreeMap::new());
        let (nodes, known_nodes) = watch::channel(None);
        let site = Site {
            node: self.config.node.name.0.clone(),
            address: self.config.node.address.clone(),
            data_dir: self.config.node.data_dir.clone(),
            clock: self.clock,
            agents: known_agents,
            nodes: known_nodes,
        };
        let database =
            Database::open(instance, &site).await.map_err(|source| Error::Engine { group: name.clone(), source })?;
        let databases = database.databases();
        let (copies, asker) = (database.copies(), database.asker());
        let memory = MemoryFile::new(&self.config.node.data_dir, &name);
        let remembered = memory.load().map_err(|source| Error::Memory { group: name.clone(), source })?;
        let me = self.me(instance);
        let policy = self.config.groups.get(&group).cloned().unwrap_or_default();
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let step = Step::new(me, policy, remembered, self.clock.now(), random);

        let (sender, messages) = mpsc::channel(INBOX);
        let (orders, order_inbox) = mpsc::channel(1);
        let (knock, target) = watch::channel(None);
        let engine_name = instance.engine.as_str();
        let first = Arc::new(status::instance(&step, self.clock.now(), engine_name));
        let (published, seen) = watch::channel(first);
        let peer_key = self.peer_key(instance)?;

        tasks.spawn(database::run(database, order_inbox, sender.clone()));
        tasks.spawn(knock::run(target, engine::knock(instance.engine), sender.clone()));
        let http = reqwest::Client::new();
        let (asking, wanted) = watch::channel(Asking::Nothing);
        let proxies = self.consul.watch_proxies();
        tasks.spawn(witness::run(group.clone(), http.clone(), wanted, proxies, sender.clone()));
        tasks.spawn(forward_session(session.clone(), sender.clone()));
        let driver = Instance {
            step,
            clock: self.clock,
            consul: self.consul.clone(),
            http,
            asking,
            peer_key: peer_key.clone(),
            memory,
            engine_name,
            databases,
            agent_address: self.agent_address.clone(),
            database: orders,
            sender: sender.clone(),
            knock,
            agents,
            nodes,
            published,
            presence: self.consul.keep_member(&group, &self.config.node.name, session),
            registrar,
            draining: self.drain.clone(),
            asked: None,
            gist: None,
            looked: Millis::default(),
        };
        let views = self.consul.watch_group(&group);
        tasks.spawn(driver.run(messages, views));
        Ok((name, Served { status: seen, messages: sender, peer_key, copies, asker }))
    }

    fn me(&self, instance: &InstanceConfig) -> Me {
        Me {
            id: self.config.node.name.clone(),
            database: Address::new(self.config.node.address.clone(), instance.port),
            zone: self.config.node.zone.clone(),
            priority: instance.priority,
            adopt: instance.adopt,
            boot: self.boot.clone(),
            group: instance.group.0.clone(),
        }
    }

    fn service(&self, instance: &InstanceConfig) -> Service {
        Service {
            group: instance.group.clone(),
            node: self.config.node.name.clone(),
            address: Address::new(self.config.node.address.clone(), instance.port),
            engine: instance.engine.as_str().to_owned(),
            zone: self.config.node.zone.clone(),
        }
    }

    fn peer_key(&self, instance: &InstanceConfig) -> Result<String, Error> {
        let Some(file) = &instance.password_file else { return Ok(peers::key(&instance.group.0, None)) };
        let password =
            config::read_secret(file).map_err(|source| Error::Password { group: instance.group.0.clone(), source })?;
        Ok(peers::key(&instance.group.0, Some(password.reveal())))
    }

    /// Two living nodes of one name would take each other's place in Consul again and again.
    async fn refuse_same_name(&self) -> Result<(), Error> {
        let http = reqwest::Client::new();
        for instance in &self.config.instances {
            // Without Consul nobody can be asked; a second node of this name will ask when it starts.
            let Ok(view) = self.consul.read_group(&instance.group).await else { return Ok(()) };
            let Some(member) = view.members.get(&self.config.node.name) else { continue };
            let request = http.get(format!("http://{}/status", member.agent)).timeout(SAME_NAME_PATIENCE);
            let Ok(answer) = request.send().await else { continue };
            let Ok(page) = answer.json::<api::AgentStatus>().await else { continue };
            if page.node == self.config.node.name.0 && page.boot == member.boot {
                return Err(Error::SameName { node: self.config.node.name.clone(), agent: member.agent.clone() });
            }
        }
        Ok(())
    }
}

/// One agent a folder: two would each remember half.
fn lock_folder(config: &AgentConfig) -> Result<File, Error> {
    let path = config.node.data_dir.clone();
    let io = |source| Error::DataDir { path: path.clone(), source };
    fs::create_dir_all(&path).map_err(io)?;
    let file = File::create(path.join("agent.lock")).map_err(io)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running { path }),
        Err(e) => Err(io(e.into())),
    }
}

/// Where peers and proxies find this agent: where it listens, or, when that is everywhere, the node's address.
fn reachable(config: &AgentConfig) -> String {
    let listen = &config.http.listen;
    let everywhere = ["0.0.0.0:", "[::]:"].iter().any(|any| listen.starts_with(any));
    match listen.rsplit_once(':') {
        Some((_, port)) if everywhere => format!("{}:{port}", config.node.address),
        _ => listen.clone(),
    }
}

async fn forward_session(mut session: watch::Receiver<Option<String>>, messages: mpsc::Sender<Message>) {
    loop {
        let id = session.borrow_and_update().clone();
        if messages.send(Message::Event(Event::Session(id))).await.is_err() || session.changed().await.is_err() {
            return;
        }
    }
}
