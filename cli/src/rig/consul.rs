//! The rig's own Consul: one server that keeps everything in memory.

use super::error::RigError;
use super::files::tails;
use super::ports::free_port;
use super::process::Process;
use super::running::Files;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A server alone elects itself within two seconds; a busy machine, longer.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The running server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: Process,
    pub(super) port: u16,
    args: Vec<String>,
}

/// Starts it and waits until it has a leader.
pub(super) async fn start(program: &Path, files: &Files) -> Result<Server, RigError> {
    let port = free_port().map_err(RigError::Port)?;
    let args = arguments(program, port)?;
    let folder = files.folder("consul")?;
    let process = Process::start("consul", program, &args, &folder, &files.log("consul"))?;
    let mut server = Server { process, port, args };
    server.wait_ready(files).await?;
    Ok(server)
}

impl Server {
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again on its ports, empty: it keeps nothing on disk.
    pub(super) async fn restart(&mut self, program: &Path, files: &Files) -> Result<(), RigError> {
        self.process.kill();
        let folder = files.folder("consul")?;
        self.process = Process::start("consul", program, &self.args, &folder, &files.log("consul"))?;
        self.wait_ready(files).await
    }

    async fn wait_ready(&mut self, files: &Files) -> Result<(), RigError> {
        let url = format!("{}/v1/status/leader", self.address());
        let deadline = Instant::now() + READY_WITHIN;
        let mut seen = String::new();
        while Instant::now() < deadline {
            if self.process.has_ended() {
                return Err(RigError::Ended { name: "consul".to_owned(), logs: tails(&files.logs()) });
            }
            match ask(&url).await {
                // An empty text in quotes: nobody leads yet.
                Ok(leader) if leader.len() > 2 => return Ok(()),
                Ok(_) => "it has no leader".clone_into(&mut seen),
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
}

async fn ask(url: &str) -> reqwest::Result<String> {
    reqwest::get(url).await?.error_for_status()?.text().await
}

/// A development server on ports of its own. Those of DNS, the wide area and gRPC are not needed, and would be
/// Consul's usual ones, which may be taken.
fn arguments(program: &Path, port: u16) -> Result<Vec<String>, RigError> {
    let free = || free_port().map_err(RigError::Port);
    let (server, lan) = (free()?, free()?);
    let mut flags = format!(
        "agent -dev -node rig -bind 127.0.0.1 -client 127.0.0.1 -http-port {port} -dns-port -1 -grpc-port -1 \
         -server-port {server} -serf-lan-port {lan} -serf-wan-port -1 -log-level warn"
    );
    if has_grpc_tls(program)? {
        flags.push_str(" -grpc-tls-port -1");
    }
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// Consul has that port since 1.14, and older ones refuse its name.
fn has_grpc_tls(program: &Path) -> Result<bool, RigError> {
    let failed = |source| RigError::Start { name: "consul".to_owned(), program: program.to_owned(), source };
    let output = Command::new(program).arg("version").output().map_err(failed)?;
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
