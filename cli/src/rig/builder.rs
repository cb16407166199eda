//! What a rig is to be made of, and how it is started.

use super::consul;
use super::error::RigError;
use super::files::program;
use super::host::Host;
use super::ports::free_port;
use super::process::Process;
use super::running::{Files, Node, Proxy, Rig};
use super::server;
use config::Engine;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Consul, three databases and their first copies take about three seconds; a busy machine with two cores, longer.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How to get Consul: said when it is not there.
const HOW_CONSUL: &str = "get it from https://developer.hashicorp.com/consul/install or your distribution's package \
                          `consul` (any version from 1.8 on) and put it on PATH";

/// What a rig is to be made of.
#[derive(Debug, Clone)]
pub struct Builder {
    binary: PathBuf,
    engine: Engine,
    group: String,
    nodes: usize,
    proxies: usize,
    policy: Vec<(String, String)>,
    settings: Vec<(String, String)>,
    instance: Vec<(String, String)>,
    spread: bool,
    listener: String,
    hosts: BTreeMap<String, Host>,
    consuls: usize,
    folder: Option<PathBuf>,
    keep: bool,
}

impl Builder {
    pub(super) fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            engine: Engine::Redis,
            group: "demo".to_owned(),
            nodes: 3,
            proxies: 1,
            policy: Vec::new(),
            settings: Vec::new(),
            instance: Vec::new(),
            spread: false,
            listener: "protocol = \"tcp\"".to_owned(),
            hosts: BTreeMap::new(),
            consuls: 1,
            folder: None,
            keep: false,
        }
    }

    /// Where processes run, by their names (`consul1`, `db1`, `proxy1`); on loopback those that are not named.
    pub fn hosts(mut self, hosts: BTreeMap<String, Host>) -> Self {
        self.hosts = hosts;
        self
    }

    /// How many servers Consul has; 1 when not said. One alone keeps nothing on disk.
    pub fn consuls(mut self, count: usize) -> Self {
        self.consuls = count;
        self
    }

    /// What the nodes run; Redis when not said.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// The group's name, `demo` when not said.
    pub fn group(mut self, name: &str) -> Self {
        self.group = name.to_owned();
        self
    }

    /// How many nodes, named `db1`, `db2`, …; 3 when not said.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// How many proxies; 1 when not said.
    pub fn proxies(mut self, count: usize) -> Self {
        self.proxies = count;
        self
    }

    /// A line of the group's policy, the value as TOML: `.policy("flap_pause", "\"1s\"")`.
    pub fn policy(mut self, key: &str, value: &str) -> Self {
        self.policy.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A setting handed to every database, the value as TOML.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A line of every node's `[[instance]]`, the value as TOML: `.instance("password_file", "\"/etc/pw\"")`.
    pub fn instance(mut self, key: &str, value: &str) -> Self {
        self.instance.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Every node in a zone of its own: `a`, `b`, ….
    pub fn zones(mut self) -> Self {
        self.spread = true;
        self
    }

    /// More lines of TOML for the master's listener, in place of `protocol = "tcp"`.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener = lines.to_owned();
        self
    }

    /// Works in this folder, of the caller's own, and leaves it when the rig is dropped.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Leaves the folder, with files, data and logs, when the rig is dropped. Processes are ended all the same.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Starts everything and waits until the group is whole: every node healthy, master and hot replica known.
    pub async fn start(self) -> Result<Rig, RigError> {
        let rig = self.start_unready().await?;
        tokio::select! {
            whole = rig.wait_whole(WHOLE_WITHIN) => drop(whole?),
            // One that did not even run says more than that it was waited for.
            ended = an_end(&rig) => return Err(ended),
        }
        Ok(rig)
    }

    /// Starts everything and waits only for Consul.
    pub async fn start_unready(self) -> Result<Rig, RigError> {
        crate::install_tls_provider();
        server::find(self.engine)?;
        let consul_program = need("consul", HOW_CONSUL)?;
        let files = Files::create(self.binary.clone(), self.keep, self.folder.as_deref())?;
        let consul = consul::start(&consul_program, self.consul_hosts(), &files).await?;
        let mut rig = Rig::new(files, consul, self.group.clone(), self.engine);
        for index in 0..self.nodes {
            let node = self.node(index, &rig)?;
            rig.add_node(node)?;
        }
        for index in 0..self.proxies {
            let proxy = self.proxy(index, &rig)?;
            rig.add_proxy(proxy);
        }
        Ok(rig)
    }

    fn host(&self, name: &str) -> Host {
        self.hosts.get(name).cloned().unwrap_or_else(Host::loopback)
    }

    fn consul_hosts(&self) -> Vec<Host> {
        (0..self.consuls).map(|index| self.host(&consul::name(index))).collect()
    }

    fn node(&self, index: usize, rig: &Rig) -> Result<Node, RigError> {
        let name = format!("db{}", index + 1);
        let folder = rig.files().folder(&name)?;
        let node = Node::new(&name, folder, self.host(&name), port()?, port()?, self.engine);
        let zone = if self.spread { format!("zone = \"{}\"\n", zone(index)) } else { String::new() };
        write_file(&node.file(), &self.agent_file(&node, &zone, rig))?;
        Ok(node)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = self.settings.clone();
        if self.engine == Engine::Postgres {
            // In files below the data, so that a server which is killed for good leaves none in the system's memory.
            settings.push(("dynamic_shared_memory_type".to_owned(), "\"mmap\"".to_owned()));
        }
        settings
    }

    fn agent_file(&self, node: &Node, zone: &str, rig: &Rig) -> String {
        let mut text = format!(
            "[node]\nname = \"{name}\"\naddress = \"{address}\"\n{zone}data_dir = {memory}\n\n\
             [consul]\naddresses = {consul}\n\n\
             [http]\nlisten = \"{address}:{http}\"\n\n\
             [[instance]]\ngroup = \"{group}\"\nengine = \"{engine}\"\nport = {port}\ndata_dir = {data}\n",
            name = node.name,
            address = node.host.address,
            memory = quoted(&node.memory()),
            consul = addresses(rig),
            http = node.http_port,
            group = self.group,
            engine = self.engine,
            port = node.port,
            data = quoted(&node.data()),
        );
        lines(&mut text, &self.instance);
        section(&mut text, "instance.settings", &self.settings());
        section(&mut text, &format!("group.{}", self.group), &self.policy);
        text
    }

    fn proxy(&self, index: usize, rig: &Rig) -> Result<Proxy, RigError> {
        let name = format!("proxy{}", index + 1);
        let folder = rig.files().folder(&name)?;
        let host = self.host(&name);
        let (master, replica, http) = (port()?, port()?, port()?);
        let file = folder.join("proxy.toml");
        let text = format!(
            "[proxy]\nname = \"{name}\"\naddress = \"{address}\"\n\n\
             [consul]\naddresses = {consul}\n\n\
             [http]\nlisten = \"{address}:{http}\"\n\n\
             [[listener]]\nlisten = \"{address}:{master}\"\ngroups = [\"{group}\"]\nrole = \"master\"\n{lines}\n\n\
             [[listener]]\nlisten = \"{address}:{replica}\"\ngroups = [\"{group}\"]\nrole = \"replica\"\n\
             protocol = \"tcp\"\n",
            address = host.address,
            consul = addresses(rig),
            group = self.group,
            lines = self.listener,
        );
        write_file(&file, &text)?;
        let files = rig.files();
        let args = [Path::new("proxy"), Path::new("--config"), &file];
        let process = Process::start_on(&host, &name, &files.binary, args, &folder, &files.log(&name))?;
        Ok(Proxy { process, host, master, replica, http })
    }
}

/// Returns when an agent or proxy has ended by itself.
async fn an_end(rig: &Rig) -> RigError {
    loop {
        if let Some(ended) = rig.first_ended() {
            return ended;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn need(name: &'static str, how: &'static str) -> Result<PathBuf, RigError> {
    program(name).ok_or(RigError::Missing { program: name, how })
}

fn port() -> Result<u16, RigError> {
    free_port().map_err(RigError::Port)
}

/// `a` to `z`, then again.
fn zone(index: usize) -> char {
    char::from(b"abcdefghijklmnopqrstuvwxyz"[index % 26])
}

fn section(text: &mut String, name: &str, lines: &[(String, String)]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n[{name}]");
    self::lines(text, lines);
}

fn lines(text: &mut String, lines: &[(String, String)]) {
    for (key, value) in lines {
        let _ = writeln!(text, "{key} = {value}");
    }
}

/// Consul's addresses as a list in TOML.
fn addresses(rig: &Rig) -> String {
    serde_json::Value::from(rig.consul_addresses()).to_string()
}

/// A path as a TOML string. JSON's escapes are TOML's too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

fn write_file(path: &Path, text: &str) -> Result<(), RigError> {
    fs::write(path, text).map_err(|source| RigError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_that_does_not_run_is_told_at_once_with_its_log() {
        let begun = std::time::Instant::now();
        // It ends at once, whatever it is asked.
        let error = Rig::builder("/bin/false").start().await.unwrap_err();
        assert!(matches!(error, RigError::Ended { .. }), "{error}");
        assert!(begun.elapsed() < WHOLE_WITHIN);
    }
}
