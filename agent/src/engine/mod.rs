//! The databases an agent can stand beside: one trait, one module an engine.
//!
//! An engine tells what its process is ([`Engine::probe`]), does one thing to it ([`Engine::apply`]), and says the
//! moment it dies ([`Engine::exited`]). It decides nothing: what it is told to do comes from `election::decide`.
//! Every operation may be repeated, and after one that succeeded the next probe shows its effect.

mod account;
mod asker;
mod error;
mod folder;
pub(crate) mod mariadb;
pub(crate) mod postgres;
mod program;
mod progress;
pub(crate) mod redis;
mod setup;
mod supervise;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use config::InstanceConfig;
use election::{Address, EngineOp, Secret};
use tokio::sync::watch;

pub use self::asker::Asker;
pub use self::error::EngineError;
pub use self::mariadb::{Boot, Mariadb, judge_boot};
pub use self::postgres::Postgres;
pub use self::redis::Redis;
pub use self::supervise::Life;
use crate::clock::Clock;
use crate::knock::Knock;

/// How long a probe waits for an answer. Silence is measured from the last answer, so that this only bounds how long
/// the agent's loop stands still.
pub const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How long an operation may take that only speaks to the server: an fsync of a busy disk takes a second or two.
pub(crate) const OP_LIMIT: Duration = Duration::from_secs(5);

/// What the data set of a former master is kept as, in the data folder; the epoch follows.
pub(crate) const KEPT: &str = "diverged-";

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

    /// The replication password in force after a [`EngineOp::Channel`] that succeeded, where it is another than the one
    /// that was asked for: a copy whose accounts come from its source cannot change them.
    fn secret_in_force(&self) -> Option<Secret> {
        None
    }

    /// Whether the process runs; changes the moment it ends or is started. Stays valid over restarts.
    fn exited(&self) -> watch::Receiver<Life>;

    /// The version of the engine: of the running process once it has answered, of its program before.
    fn version(&self) -> String;

    /// How many numbered databases clients have, where the engine has such.
    fn databases(&self) -> Option<u32>;

    /// Who serves copies of the database to other agents, where the engine leaves that to them.
    fn copies(&self) -> Option<mariadb::copy::Copies> {
        None
    }

    /// Who asks the server what it is, where proxies cannot do so themselves.
    fn asker(&self) -> Option<Asker> {
        None
    }
}

/// Gives an operation no more than this time.
pub(crate) async fn within(
    limit: Duration,
    op: &'static str,
    work: impl Future<Output = Result<(), EngineError>>,
) -> Result<(), EngineError> {
    let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    tokio::time::timeout(limit, work).await.unwrap_or(Err(EngineError::Timeout { op, ms }))
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
    /// What the agent tells the time by.
    pub clock: Clock,
    /// Where the agents of the group's other nodes listen, by the addresses of their databases.
    pub agents: watch::Receiver<BTreeMap<Address, String>>,
    /// The databases of the nodes that belong to the group, living or not; nothing while that is not known.
    pub nodes: watch::Receiver<Option<BTreeSet<Address>>>,
}

/// Makes [`Database`] out of the engines, each named as in [`config::Engine`].
macro_rules! engines {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One of the engines there are.
        #[derive(Debug)]
        pub enum Database {
            $($(#[$doc])* $name(Box<$name>),)+
        }

        impl Database {
            /// Checks what can be checked before anything runs, and takes over a process that an earlier run of the
            /// agent has left running. Starts nothing.
            ///
            /// # Errors
            ///
            /// When the instance cannot work as it is configured: the text names the key or path and says what to do.
            pub async fn open(instance: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
                match instance.engine {
                    $(config::Engine::$name => Ok(Self::$name(Box::new($name::open(instance, site).await?))),)+
                }
            }
        }

        impl Engine for Database {
            async fn probe(&mut self) -> election::Engine {
                match self {
                    $(Self::$name(engine) => engine.probe().await,)+
                }
            }

            async fn apply(&mut self, op: &EngineOp) -> Result<(), EngineError> {
                match self {
                    $(Self::$name(engine) => engine.apply(op).await,)+
                }
            }

            fn secret_in_force(&self) -> Option<Secret> {
                match self {
                    $(Self::$name(engine) => engine.secret_in_force(),)+
                }
            }

            fn exited(&self) -> watch::Receiver<Life> {
                match self {
                    $(Self::$name(engine) => engine.exited(),)+
                }
            }

            fn version(&self) -> String {
                match self {
                    $(Self::$name(engine) => engine.version(),)+
                }
            }

            fn databases(&self) -> Option<u32> {
                match self {
                    $(Self::$name(engine) => engine.databases(),)+
                }
            }

            fn copies(&self) -> Option<mariadb::copy::Copies> {
                match self {
                    $(Self::$name(engine) => engine.copies(),)+
                }
            }

            fn asker(&self) -> Option<Asker> {
                match self {
                    $(Self::$name(engine) => engine.asker(),)+
                }
            }
        }
    };
}

engines! {
    /// Redis or Valkey.
    Redis,
    /// MariaDB.
    Mariadb,
    /// PostgreSQL.
    Postgres,
}

/// What makes a database of this kind answer without a login, with a greeting or an error: both are signs of life.
pub(crate) fn knock(engine: config::Engine) -> Knock {
    match engine {
        config::Engine::Redis => Knock { greeting: b"PING\r\n", again: true },
        // A request for encryption is answered with one letter before anything else is asked; a second one is an error
        // that the server's log would be full of.
        config::Engine::Postgres => Knock { greeting: b"\0\0\0\x08\x04\xd2\x16\x2f", again: false },
        // The server speaks first.
        config::Engine::Mariadb => Knock { greeting: b"", again: false },
    }
}
