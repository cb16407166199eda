//! What the tests of all engines share: a node with an instance and a folder of its own. Its processes end with it.

use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use config::InstanceConfig;
use election::{Address, EngineOp, GroupName, Status};
use tempfile::TempDir;

use super::supervise::end_stragglers;
use super::{Engine, EngineError, Site};
use crate::clock::Clock;

/// Far more than anything here takes: a loaded machine is slow and not wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a test has to know of an engine.
pub(crate) trait Tested: Engine + Sized {
    const KIND: config::Engine;

    /// The server's log, in the data folder.
    const LOG: &'static str;

    /// Settings that make the server a small one.
    const SETTINGS: &'static [(&'static str, &'static str)] = &[];

    fn open(config: &InstanceConfig, site: &Site) -> impl Future<Output = Result<Self, EngineError>>;
}

pub(crate) struct Node<E> {
    pub(crate) engine: Option<E>,
    pub(crate) config: InstanceConfig,
    pub(crate) site: Site,
    pub(crate) dir: TempDir,
}

impl<E> Drop for Node<E> {
    /// Kills what was started here, and nothing else: all of it works below this folder.
    fn drop(&mut self) {
        self.engine = None;
        end_stragglers(self.dir.path(), |_| true);
        // Shared memory of a killed PostgreSQL, which only its own next start would remove: line 7 of its lock is `key id`.
        let lock = std::fs::read_to_string(self.config.data_dir.join("pgdata/postmaster.pid")).unwrap_or_default();
        if let Some(id) = lock.lines().nth(6).and_then(|line| line.split_ascii_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }
}

impl<E: Tested> Node<E> {
    /// Nothing opened yet.
    pub(crate) fn prepared() -> Self {
        let dir = tempfile::Builder::new().prefix("understudy-").tempdir().unwrap();
        // The server is another user than the one that runs the tests as root.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let config = InstanceConfig {
            group: GroupName::from("g"),
            engine: E::KIND,
            port: free_port(),
            data_dir: dir.path().join("data"),
            priority: 100,
            settings: E::SETTINGS.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..InstanceConfig::default()
        };
        let site = Site {
            node: "db1".into(),
            address: "127.0.0.1".into(),
            data_dir: dir.path().join("agent"),
            clock: Clock::start(),
            agents: tokio::sync::watch::channel(Default::default()).1,
            nodes: tokio::sync::watch::channel(None).1,
        };
        Self { engine: None, config, site, dir }
    }

    /// What an agent does when it starts: also in place of one that is gone.
    pub(crate) async fn open(&mut self) -> Result<(), EngineError> {
        self.engine = None;
        self.engine = Some(E::open(&self.config, &self.site).await?);
        Ok(())
    }

    pub(crate) fn engine(&mut self) -> &mut E {
        self.engine.as_mut().unwrap()
    }

    pub(crate) async fn apply(&mut self, op: EngineOp) {
        let name = op.name();
        self.engine().apply(&op).await.unwrap_or_else(|e| panic!("{name}: {}", crate::error_chain(&e)));
    }

    pub(crate) async fn status(&mut self) -> Status {
        match self.engine().probe().await {
            election::Engine::Up(status) => *status,
            other => panic!("not up: {other:?}"),
        }
    }

    /// Waits until the server is up and as it is wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let end = Instant::now() + LIMIT;
        loop {
            let seen = self.engine().probe().await;
            if let election::Engine::Up(status) = &seen
                && wanted(status)
            {
                return (**status).clone();
            }
            assert!(Instant::now() < end, "{what} did not come: {seen:?}\n{}", self.log());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The end of the server's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.config.data_dir.join(E::LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub(crate) fn address(&self) -> Address {
        Address::new("127.0.0.1", self.config.port)
    }
}

/// A port that is this test's own: below those that the system gives to connections, which may take any of them while a
/// server is down, and each only once.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 40).unwrap() * 100;
    loop {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 5_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
