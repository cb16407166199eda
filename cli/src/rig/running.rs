//! The running rig: its processes, the faults that can be put upon them, and its end.

use super::builder::Builder;
use super::consul::Servers;
use super::error::RigError;
use super::files::tails;
use super::host::Host;
use super::proc;
use super::process::Process;
use super::writer::{Route, Writer, fixed};
use config::Engine;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A group of real processes. Dropping it ends them all.
#[derive(Debug)]
pub struct Rig {
    // In this order: processes end before their folder goes.
    nodes: BTreeMap<String, Node>,
    proxies: Vec<Proxy>,
    consul: Servers,
    group: String,
    engine: Engine,
    last_start: Option<Instant>,
    files: Files,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    folder: PathBuf,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) http_port: u16,
    engine: Engine,
    agent: Option<Process>,
}

/// One proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) process: Process,
    pub(super) host: Host,
    pub(super) master: u16,
    pub(super) replica: u16,
    pub(super) http: u16,
}

/// Where the rig keeps what.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) binary: PathBuf,
    root: PathBuf,
    /// Removes the folder when dropped; none when it is to be kept.
    _remover: Option<TempDir>,
}

impl Rig {
    /// Begins a rig of this `understudy` binary.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder::new(binary.into())
    }

    pub(super) fn new(files: Files, consul: Servers, group: String, engine: Engine) -> Self {
        Self { nodes: BTreeMap::new(), proxies: Vec::new(), consul, group, engine, last_start: None, files }
    }

    /// What the nodes run.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn add_node(&mut self, mut node: Node) -> Result<(), RigError> {
        node.start_agent(&self.files)?;
        self.last_start = Some(Instant::now());
        self.nodes.insert(node.name.clone(), node);
        Ok(())
    }

    pub(super) fn add_proxy(&mut self, proxy: Proxy) {
        self.proxies.push(proxy);
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The nodes' names.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Consul's address, `http://host:port`; of several servers one that runs, if any does.
    pub fn consul_address(&self) -> String {
        self.consul_addresses().into_iter().next().unwrap_or_default()
    }

    /// The addresses of all of Consul's servers.
    pub fn consul_addresses(&self) -> Vec<String> {
        self.consul.addresses()
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        &self.files.root
    }

    /// The master's listener of the first proxy.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.first_proxy(|proxy| proxy.master)
    }

    /// The master's listeners of all proxies.
    pub fn proxy_addrs(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(|proxy| proxy.host.at(proxy.master)).collect()
    }

    fn first_proxy(&self, port: impl Fn(&Proxy) -> u16) -> SocketAddr {
        self.proxies.first().map_or(Host::loopback().at(0), |proxy| proxy.host.at(port(proxy)))
    }

    /// The replicas' listener of the first proxy.
    pub fn replica_addr(&self) -> SocketAddr {
        self.first_proxy(|proxy| proxy.replica)
    }

    /// The HTTP address of the first proxy.
    pub fn proxy_http(&self) -> SocketAddr {
        self.first_proxy(|proxy| proxy.http)
    }

    /// The HTTP address of a node's agent.
    pub fn agent_http(&self, node: &str) -> Result<SocketAddr, RigError> {
        let node = self.node(node)?;
        Ok(node.host.at(node.http_port))
    }

    /// The address of a node's database.
    pub fn database_addr(&self, node: &str) -> Result<SocketAddr, RigError> {
        let node = self.node(node)?;
        Ok(node.host.at(node.port))
    }

    /// Starts a client that writes through the first proxy.
    pub fn writer(&self, prefix: &str) -> Writer {
        self.writer_by(prefix, fixed(self.proxy_addr()))
    }

    /// Starts a client that writes where `route` says.
    pub fn writer_by(&self, prefix: &str, route: Route) -> Writer {
        Writer::start_for(self.engine, prefix, route)
    }

    /// SIGKILL of a node's database. Gives the instant before it.
    pub fn kill_database(&self, node: &str) -> Result<Instant, RigError> {
        let family = proc::family(self.database_pid(node)?);
        let at = Instant::now();
        proc::signal_all(&family, Signal::KILL);
        Ok(at)
    }

    /// SIGKILL of a node's agent and database at once. Gives the instant before it.
    pub fn kill_node(&mut self, node: &str) -> Result<Instant, RigError> {
        let family = proc::family(self.database_pid(node)?);
        let mut agent = self.take_agent(node)?;
        let at = Instant::now();
        proc::signal(agent.pid(), Signal::KILL);
        proc::signal_all(&family, Signal::KILL);
        agent.kill();
        Ok(at)
    }

    /// SIGKILL of a node's agent; the database lives on. Gives the instant before it.
    pub fn kill_agent(&mut self, node: &str) -> Result<Instant, RigError> {
        let mut agent = self.take_agent(node)?;
        let at = Instant::now();
        agent.kill();
        Ok(at)
    }

    /// SIGTERM of a node's agent, as an upgrade does it: it leaves, the database lives on. Gives how it ended; nothing
    /// when it had to be killed at the limit.
    pub async fn leave_agent(&mut self, node: &str, limit: Duration) -> Result<Option<ExitStatus>, RigError> {
        Ok(self.take_agent(node)?.end(limit).await)
    }

    /// SIGINT of a node's agent: it hands over, stops the database and leaves. Gives how it ended; nothing when it had
    /// to be killed at the limit.
    pub async fn drain_agent(&mut self, node: &str, limit: Duration) -> Result<Option<ExitStatus>, RigError> {
        Ok(self.take_agent(node)?.interrupt(limit).await)
    }

    /// How a node's agent ended by itself, if it has.
    pub fn ended_agent(&mut self, node: &str) -> Result<Option<ExitStatus>, RigError> {
        let found = self.nodes.get_mut(node).ok_or_else(|| RigError::NoNode(node.to_owned()))?;
        Ok(found.agent.as_mut().and_then(Process::ended))
    }

    /// SIGSTOP of a node's agent and database. Gives the instant before it.
    pub fn stop_node(&self, node: &str) -> Result<Instant, RigError> {
        let family = proc::family(self.database_pid(node)?);
        let agent = self.agent(node)?;
        let at = Instant::now();
        agent.freeze();
        proc::signal_all(&family, Signal::STOP);
        Ok(at)
    }

    /// SIGCONT after [`Rig::stop_node`].
    pub fn cont_node(&self, node: &str) -> Result<(), RigError> {
        proc::signal_all(&proc::family(self.database_pid(node)?), Signal::CONT);
        self.agent(node)?.thaw();
        Ok(())
    }

    /// SIGSTOP of a node's database alone. Gives the instant before it.
    pub fn stop_database(&self, node: &str) -> Result<Instant, RigError> {
        let family = proc::family(self.database_pid(node)?);
        let at = Instant::now();
        proc::signal_all(&family, Signal::STOP);
        Ok(at)
    }

    /// Starts a node's agent, killing the one that runs.
    pub fn restart_agent(&mut self, node: &str) -> Result<(), RigError> {
        let found = self.nodes.get_mut(node).ok_or_else(|| RigError::NoNode(node.to_owned()))?;
        found.agent = None;
        self.last_start = Some(Instant::now());
        found.start_agent(&self.files)
    }

    /// Starts the agents of all nodes that have none.
    pub fn start_dead_agents(&mut self) -> Result<(), RigError> {
        for node in self.nodes.values_mut().filter(|node| node.agent.is_none()) {
            self.last_start = Some(Instant::now());
            node.start_agent(&self.files)?;
        }
        Ok(())
    }

    /// SIGSTOP of a node's agent alone. Gives the instant before it.
    pub fn stop_agent(&self, node: &str) -> Result<Instant, RigError> {
        let at = Instant::now();
        self.agent(node)?.freeze();
        Ok(at)
    }

    /// SIGCONT of everything that was started here, agents' databases too.
    pub fn wake_all(&self) {
        proc::wake(&self.files.root);
    }

    /// When an agent was last started.
    pub(super) fn last_start(&self) -> Option<Instant> {
        self.last_start
    }

    /// Stops Consul in its tracks: it accepts connections and answers nothing.
    pub fn freeze_consul(&self) {
        self.consul.freeze();
    }

    /// Wakes Consul again.
    pub fn thaw_consul(&self) {
        self.consul.thaw();
    }

    /// Ends Consul and starts it again on the same ports. One server alone comes back empty.
    pub async fn restart_consul(&mut self) -> Result<(), RigError> {
        self.consul.restart(&self.files).await
    }

    /// SIGKILL of Consul's leader; the server's name, or nothing when nobody led.
    pub async fn kill_consul_leader(&mut self) -> Option<String> {
        self.consul.kill_leader().await
    }

    /// SIGKILL of all of Consul.
    pub fn kill_consul(&mut self) {
        self.consul.kill();
    }

    /// Starts those of Consul's servers that do not run.
    pub fn start_consul(&mut self) -> Result<(), RigError> {
        self.consul.start_dead(&self.files)
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        tails(&self.files.logs())
    }

    /// The id of a node's database, as its agent noted it.
    pub fn database_pid(&self, node: &str) -> Result<u32, RigError> {
        let found = self.node(node)?;
        let none = |why: String| RigError::NoDatabase { node: node.to_owned(), why };
        let file = found.memory().join(format!("{}.run.json", self.group));
        let text = fs::read_to_string(&file).map_err(|error| none(format!("{}: {error}", file.display())))?;
        let note: serde_json::Value = serde_json::from_str(&text).map_err(|error| none(error.to_string()))?;
        let pid = note["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| none(format!("{} names no pid", file.display())))?;
        // The number may be another process's by now: only what works in our folder is ours.
        if proc::works_in(pid, &self.files.root) { Ok(pid) } else { Err(none(format!("process {pid} is gone"))) }
    }

    /// The first agent or proxy that has ended by itself, with the logs.
    pub fn first_ended(&self) -> Option<RigError> {
        let agents = self.nodes.values().filter_map(|node| node.agent.as_ref());
        let proxies = self.proxies.iter().map(|proxy| &proxy.process);
        let ended = agents.chain(proxies).find(|process| process.has_ended())?;
        Some(RigError::Ended { name: ended.name().to_owned(), logs: self.logs() })
    }

    fn node(&self, name: &str) -> Result<&Node, RigError> {
        self.nodes.get(name).ok_or_else(|| RigError::NoNode(name.to_owned()))
    }

    fn agent(&self, name: &str) -> Result<&Process, RigError> {
        self.node(name)?.agent.as_ref().ok_or_else(|| RigError::NoNode(format!("{name} with a living agent")))
    }

    fn take_agent(&mut self, name: &str) -> Result<Process, RigError> {
        let node = self.nodes.get_mut(name).ok_or_else(|| RigError::NoNode(name.to_owned()))?;
        node.agent.take().ok_or_else(|| RigError::NoNode(format!("{name} with a living agent")))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Agents first: a living one would start its database again.
        self.nodes.clear();
        self.proxies.clear();
        proc::sweep(&self.files.root);
    }
}

impl Node {
    pub(super) fn new(name: &str, folder: PathBuf, host: Host, port: u16, http_port: u16, engine: Engine) -> Self {
        Self { name: name.to_owned(), folder, host, port, http_port, engine, agent: None }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    /// The folder of the agent's own memory.
    pub(super) fn memory(&self) -> PathBuf {
        self.folder.join("agent")
    }

    /// The folder of the database's data.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join(self.engine.as_str())
    }

    fn start_agent(&mut self, files: &Files) -> Result<(), RigError> {
        let file = self.file();
        let args = [Path::new("agent"), Path::new("--config"), &file];
        let log = files.log(&self.name);
        let process = Process::start_on(&self.host, &self.name, &files.binary, args, &self.folder, &log)?;
        self.agent = Some(process);
        Ok(())
    }
}

impl Files {
    /// In a folder of its own, or in `folder`, which stays.
    pub(super) fn create(binary: PathBuf, keep: bool, folder: Option<&Path>) -> Result<Self, RigError> {
        if let Some(folder) = folder {
            let failed = |source| RigError::File { path: folder.to_owned(), source };
            let files = Self { binary, root: folder.canonicalize().map_err(failed)?, _remover: None };
            files.folder("logs")?;
            return Ok(files);
        }
        let failed = |source| RigError::File { path: std::env::temp_dir(), source };
        let folder = tempfile::Builder::new().prefix("understudy-").tempdir().map_err(failed)?;
        // Servers that do not run as root have to get through to their folders.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(folder.path(), open).map_err(failed)?;
        // Processes' folders are told by `/proc` without links.
        let root = folder.path().canonicalize().map_err(failed)?;
        let remover = if keep {
            let _ = folder.keep();
            None
        } else {
            Some(folder)
        };
        let files = Self { binary, root, _remover: remover };
        files.folder("logs")?;
        Ok(files)
    }

    /// A folder of the rig, made when it is not there.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, RigError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|source| RigError::File { path: path.clone(), source })?;
        Ok(path)
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }
}
