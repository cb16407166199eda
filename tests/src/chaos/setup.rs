//! What a group on stage is to be like.

use super::store::Store;
use crate::history::Promises;
use config::Engine;

pub(super) const CONSULS: usize = 3;
pub(super) const PROXIES: usize = 2;

/// The stage's networks and disks are private, and gone with it.
const PASSWORD: &str = "nobody else is here";

/// A client that gives up leaves its session behind, which waits for as long as its commit does.
const CONNECTIONS: &str = "600";

/// What a group is to be like, and its clients.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many nodes.
    pub nodes: usize,
    /// The kind of database, and how clients log in.
    pub store: Store,
    /// How the proxies carry clients to the master.
    pub protocol: &'static str,
    /// Whether nobody waits for the hot replica.
    pub is_async: bool,
}

impl Setup {
    /// Three nodes behind proxies that understand the engine's protocol, where there are such.
    pub fn of(engine: Engine) -> Self {
        let password = (engine != Engine::Redis).then(|| PASSWORD.to_owned());
        let protocol = match engine {
            Engine::Redis => "redis",
            Engine::Postgres => "postgres",
            Engine::Mariadb => "tcp",
        };
        Self { nodes: 3, store: Store { engine, password, greeting: None }, protocol, is_async: false }
    }

    /// The same behind proxies that only carry bytes: nothing is withheld.
    pub fn tcp(engine: Engine) -> Self {
        Self { protocol: "tcp", ..Self::of(engine) }
    }

    /// What is promised of it, beyond that no acknowledged write is lost.
    pub fn promises(&self) -> Promises {
        let all = !self.is_async && self.protocol == Self::of(self.store.engine).protocol;
        Promises { reads: all, order: all }
    }

    pub(super) fn machines(&self) -> Vec<String> {
        let named = |name: &str, count: usize| (1..=count).map(move |n| format!("{name}{n}")).collect::<Vec<_>>();
        [named("consul", CONSULS), named("db", self.nodes), named("proxy", PROXIES)].concat()
    }

    /// The group's policy beyond what every run has: pairs of key and value, as TOML.
    pub(super) fn policy(&self) -> Vec<(&'static str, &'static str)> {
        let durable = (self.protocol == "redis").then_some(("reads", "\"durable\""));
        durable.into_iter().chain(self.is_async.then_some(("durability", "\"async\""))).collect()
    }

    /// What every server is told: little memory, short logs. The same pairs.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str)> {
        match self.store.engine {
            Engine::Redis => Vec::new(),
            Engine::Postgres => vec![
                ("max_connections", CONNECTIONS),
                ("shared_buffers", "\"32MB\""),
                ("wal_keep_size", "\"64MB\""),
                ("min_wal_size", "\"32MB\""),
                ("max_wal_size", "\"96MB\""),
            ],
            Engine::Mariadb => vec![
                ("max_connections", CONNECTIONS),
                ("innodb_buffer_pool_size", "\"32M\""),
                ("innodb_log_file_size", "\"16M\""),
                ("max_binlog_size", "\"4M\""),
            ],
        }
    }

    /// The disk of a node's database: room for a run's writes, and for a second copy where that is made beside the old
    /// one; and soon full.
    pub(super) fn disk_mib(&self) -> u32 {
        if self.store.engine == Engine::Redis { 192 } else { 768 }
    }
}
