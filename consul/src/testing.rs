//! A real Consul on free ports of this machine, for tests, benchmarks and the demo. It ends with its owner.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use config::ConsulConfig;
use election::Secret;
use rustix::process::{Pid, Signal};

use crate::{Consistency, Consul};

/// Far longer than a Consul takes to be ready on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at a Consul that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A free port may be taken by somebody else before Consul gets it.
const START_TRIES: u32 = 3;

/// Why there is no Consul to work with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("there is no `consul` on PATH; `make setup` installs it on Debian 12, or install 1.8 or newer by hand")]
    Missing,
    /// Something of the machine failed.
    #[error("cannot start consul")]
    Machine(#[from] std::io::Error),
    /// It started and did not become ready.
    #[error("consul did not become ready; the end of its log: {log}")]
    NotReady {
        /// The last lines.
        log: String,
    },
}

/// How to start one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// With access control that denies everything by default, and this token allowed everything.
    pub master_token: Option<String>,
    /// With HTTPS beside HTTP, for which clients need a certificate of their own.
    pub tls: bool,
}

/// A running `consul agent -dev`, bound to 127.0.0.1. Its data is gone when it ends or is restarted.
pub struct TestConsul {
    /// `http://127.0.0.1:port`.
    pub http: String,
    /// `https://127.0.0.1:port`, when asked for.
    pub https: Option<String>,
    ports: Ports,
    options: Options,
    folder: tempfile::TempDir,
    child: Child,
}

impl TestConsul {
    /// Starts one and waits until it takes writes and sessions.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_with(Options::default()).await
    }

    /// As [`TestConsul::start`], with options.
    pub async fn start_with(options: Options) -> Result<Self, StartError> {
        let mut tries = 1;
        loop {
            match Self::try_start(options.clone()).await {
                Err(StartError::NotReady { .. }) if tries < START_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn try_start(options: Options) -> Result<Self, StartError> {
        let folder = tempfile::Builder::new().prefix("understudy-consul-").tempdir()?;
        let ports = Ports::free()?;
        if options.tls {
            make_certificates(folder.path())?;
        }
        let child = spawn(folder.path(), ports, &options)?;
        let http = format!("http://127.0.0.1:{}", ports.http);
        let https = options.tls.then(|| format!("https://127.0.0.1:{}", ports.https));
        let mut consul = Self { http, https, ports, options, folder, child };
        consul.ready().await?;
        Ok(consul)
    }

    /// Settings that lead to it.
    pub fn config(&self) -> ConsulConfig {
        ConsulConfig {
            addresses: vec![self.http.clone()],
            token: self.options.master_token.as_deref().map(Secret::new),
            ..ConsulConfig::default()
        }
    }

    /// Settings that lead to it over HTTPS, when that was asked for.
    pub fn tls_config(&self) -> Option<ConsulConfig> {
        let file = |name: &str| Some(self.folder.path().join(name));
        Some(ConsulConfig {
            addresses: vec![self.https.clone()?],
            ca_file: file(CA),
            cert_file: file(CLIENT_CERT),
            key_file: file(CLIENT_KEY),
            ..self.config()
        })
    }

    /// A client of it.
    pub fn client(&self) -> Result<Consul, crate::Error> {
        Consul::connect(&self.config())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Freezes it: connections are accepted and nothing is answered.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Wakes it.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it: connections are refused.
    pub fn kill(&mut self) {
        // It may have ended before; then there is nothing left to kill or to wait for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew on the same ports, without any of its data.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        self.child = spawn(self.folder.path(), self.ports, &self.options)?;
        self.ready().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended; whoever relies on the signal sees that by what it does next.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    async fn ready(&mut self) -> Result<(), StartError> {
        let client = self.client().map_err(|e| StartError::NotReady { log: e.to_string() })?;
        let began = Instant::now();
        while began.elapsed() < START_LIMIT {
            if self.child.try_wait()?.is_some() {
                break;
            }
            // A session needs a leader and the node in the catalogue: whoever gets one gets everything.
            if let Ok(id) = client.create_session("ready").await
                && client.destroy_session(&id).await.is_ok()
                && client.get("ready", Consistency::Consistent).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.kill();
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        Err(StartError::NotReady { log: lines[lines.len().saturating_sub(10)..].join("\n") })
    }
}

impl Drop for TestConsul {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `consul tls` calls its files.
const CA: &str = "consul-agent-ca.pem";
const SERVER_CERT: &str = "dc1-server-consul-0.pem";
const SERVER_KEY: &str = "dc1-server-consul-0-key.pem";
const CLIENT_CERT: &str = "dc1-client-consul-0.pem";
const CLIENT_KEY: &str = "dc1-client-consul-0-key.pem";

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
    server: u16,
    lan: u16,
    wan: u16,
}

impl Ports {
    /// Ports that are free for TCP at this instant.
    fn free() -> Result<Self, std::io::Error> {
        // All are held until all are known, or the same one would come twice.
        let held: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let port = |at: usize| held[at].local_addr().map(|address| address.port());
        Ok(Self { http: port(0)?, https: port(1)?, server: port(2)?, lan: port(3)?, wan: port(4)? })
    }
}

fn make_certificates(folder: &Path) -> Result<(), StartError> {
    for arguments in [&["ca", "create"][..], &["cert", "create", "-server"], &["cert", "create", "-client"]] {
        let made = Command::new("consul").arg("tls").args(arguments).current_dir(folder).output().map_err(not_run)?;
        if !made.status.success() {
            return Err(StartError::NotReady { log: String::from_utf8_lossy(&made.stderr).into_owned() });
        }
    }
    Ok(())
}

fn spawn(folder: &Path, ports: Ports, options: &Options) -> Result<Child, StartError> {
    let log = File::create(folder.join("log"))?;
    let mut command = Command::new("consul");
    command
        .args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-dns-port=-1", "-grpc-port=-1"])
        .args(["-log-level=warn", "-disable-host-node-id"])
        .arg(format!("-node=test-{}", ports.http))
        .arg(format!("-http-port={}", ports.http))
        .arg(format!("-server-port={}", ports.server))
        .arg(format!("-serf-lan-port={}", ports.lan))
        .arg(format!("-serf-wan-port={}", ports.wan))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut settings = serde_json::json!({});
    if let Some(token) = &options.master_token {
        let tokens = serde_json::json!({ "master": token, "agent": token });
        settings["acl"] = serde_json::json!({ "enabled": true, "default_policy": "deny", "tokens": tokens });
    }
    if options.tls {
        command.arg(format!("-https-port={}", ports.https));
        settings["verify_incoming_https"] = true.into();
        settings["ca_file"] = CA.into();
        settings["cert_file"] = SERVER_CERT.into();
        settings["key_file"] = SERVER_KEY.into();
    }
    std::fs::write(folder.join("settings.json"), settings.to_string())?;
    command.arg("-config-file=settings.json").spawn().map_err(not_run)
}

fn not_run(error: std::io::Error) -> StartError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StartError::Missing,
        _ => StartError::Machine(error),
    }
}
