//! The rig's own Consul: one server that keeps everything in memory, or several that keep it on disk.

use super::error::RigError;
use super::files::tails;
use super::host::Host;
use super::http;
use super::ports::free_port;
use super::process::{Process, output};
use super::running::Files;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A server alone elects itself within two seconds, three within seven; a busy machine, longer.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The running servers.
#[derive(Debug)]
pub(super) struct Servers {
    program: PathBuf,
    all: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    name: String,
    host: Host,
    http: u16,
    raft: u16,
    lan: u16,
    args: Vec<String>,
    process: Option<Process>,
}

/// Starts a server on each host and waits until they have a leader.
pub(super) async fn start(program: &Path, hosts: Vec<Host>, files: &Files) -> Result<Servers, RigError> {
    let tls = has_grpc_tls(program)?;
    let mut all = Vec::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let free = || free_port().map_err(RigError::Port);
        let (http, raft, lan) = (free()?, free()?, free()?);
        all.push(Server { name: name(index), host, http, raft, lan, args: Vec::new(), process: None });
    }
    let join: Vec<String> = all.iter().map(|server| server.host.at(server.lan).to_string()).collect();
    for server in &mut all {
        server.args = arguments(server, &join, &files.folder(&server.name)?, tls);
    }
    let mut servers = Servers { program: program.to_owned(), all };
    servers.restart(files).await?;
    Ok(servers)
}

/// What the server at this place is called.
pub(super) fn name(index: usize) -> String {
    format!("consul{}", index + 1)
}

impl Servers {
    /// Every server's address, `http://host:port`, the living ones first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let (living, dead): (Vec<_>, Vec<_>) = self.all.iter().partition(|server| server.process.is_some());
        living.iter().chain(&dead).map(|server| server.address()).collect()
    }

    /// Stops all in their tracks.
    pub(super) fn freeze(&self) {
        self.all.iter().filter_map(|server| server.process.as_ref()).for_each(Process::freeze);
    }

    /// Wakes all.
    pub(super) fn thaw(&self) {
        self.all.iter().filter_map(|server| server.process.as_ref()).for_each(Process::thaw);
    }

    /// SIGKILL of all.
    pub(super) fn kill(&mut self) {
        self.all.iter_mut().for_each(|server| server.process = None);
    }

    /// SIGKILL of the one that leads, as the others say; its name.
    pub(super) async fn kill_leader(&mut self) -> Option<String> {
        for address in self.addresses() {
            let Ok(leader) = ask(&format!("{address}/v1/status/leader")).await else { continue };
            let leads = |server: &&mut Server| leader == format!("\"{}\"", server.host.at(server.raft));
            let Some(server) = self.all.iter_mut().find(leads) else { continue };
            server.process = None;
            return Some(server.name.clone());
        }
        None
    }

    /// Starts those that do not run.
    pub(super) fn start_dead(&mut self, files: &Files) -> Result<(), RigError> {
        for server in self.all.iter_mut().filter(|server| server.process.is_none()) {
            let (folder, log) = (files.folder(&server.name)?, files.log(&server.name));
            let process = Process::start_on(&server.host, &server.name, &self.program, &server.args, &folder, &log)?;
            server.process = Some(process);
        }
        Ok(())
    }

    /// Ends all, starts them again on their ports and waits until there is a leader. One server alone comes back empty.
    pub(super) async fn restart(&mut self, files: &Files) -> Result<(), RigError> {
        self.kill();
        self.start_dead(files)?;
        self.wait_ready(files).await
    }

    async fn wait_ready(&mut self, files: &Files) -> Result<(), RigError> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut seen = String::new();
        while Instant::now() < deadline {
            if self.all.iter().any(|server| server.process.as_ref().is_some_and(Process::has_ended)) {
                return Err(RigError::Ended { name: "consul".to_owned(), logs: tails(&files.logs()) });
            }
            match self.unready().await {
                Ok(None) => return Ok(()),
                Ok(Some(lack)) => seen = lack,
                Err(error) => seen = error.to_string(),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(RigError::Late {
            what: "Consul's leader".to_owned(),
            seconds: READY_WITHIN.as_secs(),
            seen,
            logs: tails(&files.logs()),
        })
    }

    /// What a server lacks: a leader, or its own place in the catalog, without which it refuses sessions.
    async fn unready(&self) -> reqwest::Result<Option<String>> {
        for server in &self.all {
            let (name, address) = (&server.name, server.address());
            // An empty text in quotes: nobody leads yet.
            if ask(&format!("{address}/v1/status/leader")).await?.len() <= 2 {
                return Ok(Some(format!("{name} knows no leader")));
            }
            if ask(&format!("{address}/v1/catalog/node/{name}")).await?.trim() == "null" {
                return Ok(Some(format!("{name} is not registered")));
            }
        }
        Ok(None)
    }
}

impl Server {
    fn address(&self) -> String {
        format!("http://{}", self.host.at(self.http))
    }
}

async fn ask(url: &str) -> reqwest::Result<String> {
    http().get(url).send().await?.error_for_status()?.text().await
}

/// A server on ports of its own. Those of DNS, the wide area and gRPC are not needed, and would be Consul's usual ones,
/// which may be taken.
fn arguments(server: &Server, join: &[String], folder: &Path, grpc_tls: bool) -> Vec<String> {
    let (address, Server { name, http, raft, lan, .. }) = (server.host.address, server);
    let mut flags = match join.len() {
        0 | 1 => "agent -dev".to_owned(),
        servers => format!("agent -server -bootstrap-expect {servers} -data-dir {}/data", folder.display()),
    };
    flags.push_str(&format!(
        " -node {name} -bind {address} -client {address} -http-port {http} -dns-port -1 -grpc-port -1 \
         -server-port {raft} -serf-lan-port {lan} -serf-wan-port -1 -log-level warn"
    ));
    if grpc_tls {
        flags.push_str(" -grpc-tls-port -1");
    }
    if join.len() > 1 {
        flags.push_str(" -retry-interval 1s -hcl performance{raft_multiplier=1}");
        join.iter().for_each(|other| flags.push_str(&format!(" -retry-join {other}")));
    }
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Consul has that port since 1.14, and older ones refuse its name.
fn has_grpc_tls(program: &Path) -> Result<bool, RigError> {
    let failed = |source| RigError::Start { name: "consul".to_owned(), program: program.to_owned(), source };
    let output = output(Command::new(program).arg("version"), READY_WITHIN).map_err(failed)?;
    Ok(version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= (1, 14)))
}

/// Major and minor number out of `Consul v1.8.7 …`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('v')?.1.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_is_read() {
        assert_eq!(version("Consul v1.8.7\nRevision 1\n"), Some((1, 8)));
        assert_eq!(version("Consul v1.22.0-dev"), Some((1, 22)));
        assert_eq!(version("no such thing"), None);
    }
}
