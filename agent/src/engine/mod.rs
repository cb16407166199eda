//! The databases an agent can stand beside: one trait, one module an engine.
//!
//! An engine tells what its process is ([`Engine::probe`]), does one thing to it ([`Engine::apply`]), and says the
//! moment it dies ([`Engine::exited`]). It decides nothing: what it is told to do comes from `election::decide`.
//! Every operation may be repeated, and after one that succeeded the next probe shows its effect.

mod error;
mod folder;
pub(crate) mod redis;
mod supervise;

use std::future::Future;
use std::path::PathBuf;
use std::time::Instant;

use config::InstanceConfig;
use election::EngineOp;
use tokio::sync::watch;

pub use self::error::EngineError;
pub use self::redis::{PROBE_LIMIT, Redis};
pub use self::supervise::Life;

/// A database process and its folder.
pub trait Engine: Send {
    /// What the process says of itself now. Answers within [`PROBE_LIMIT`] whatever
    /// the process does; a process that is known to have ended is `Down` at once.
    fn probe(&mut self) -> impl Future<Output = election::Engine> + Send;

    /// Does one thing. Bounded by a few seconds.
    ///
    /// # Errors
    ///
    /// When it was not done, or not known to be done: the next probe tells which. Nothing secret is in the text.
    fn apply(&mut self, op: &EngineOp) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Whether the process runs; changes the moment it ends or is started. Stays valid over restarts.
    fn exited(&self) -> watch::Receiver<Life>;

    /// The version of the engine: of the running process once it has answered, of its program before.
    fn version(&self) -> String;

    /// How many numbered databases clients have, where the engine has such.
    fn databases(&self) -> Option<u32>;
}

/// What an engine has to know of the node it is on.
#[derive(Debug, Clone)]
pub struct Site {
    /// The node's name.
    pub node: String,
    /// The host name or IP address at which other nodes reach the database.
    pub address: String,
    /// The agent's own folder: run files and the agent's passwords.
    pub data_dir: PathBuf,
    /// What the agent's [`Millis`](election::Millis) count from.
    pub origin: Instant,
}

/// One of the engines there are.
#[derive(Debug)]
pub enum Database {
    /// Redis or Valkey.
    Redis(Box<Redis>),
}

impl Database {
    /// Checks what can be checked before anything runs, and takes over a process that an earlier run of the agent has
    /// left running. Starts nothing.
    ///
    /// # Errors
    ///
    /// When the instance cannot work as it is configured: the text names the key or path and says what to do.
    pub async fn open(instance: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        match instance.engine {
            config::Engine::Redis => Ok(Self::Redis(Box::new(Redis::open(instance, site).await?))),
            engine @ (config::Engine::Postgres | config::Engine::Mariadb) => Err(EngineError::NotBuilt { engine }),
        }
    }
}

impl Engine for Database {
    async fn probe(&mut self) -> election::Engine {
        match self {
            Self::Redis(redis) => redis.probe().await,
        }
    }

    async fn apply(&mut self, op: &EngineOp) -> Result<(), EngineError> {
        match self {
            Self::Redis(redis) => redis.apply(op).await,
        }
    }

    fn exited(&self) -> watch::Receiver<Life> {
        match self {
            Self::Redis(redis) => redis.exited(),
        }
    }

    fn version(&self) -> String {
        match self {
            Self::Redis(redis) => redis.version(),
        }
    }

    fn databases(&self) -> Option<u32> {
        match self {
            Self::Redis(redis) => redis.databases(),
        }
    }
}
