//! What `proxy.toml` says, as typed values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use election::GroupName;

use crate::HttpConfig;
use crate::consul::ConsulConfig;

/// The whole of a proxy's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Who this proxy is.
    pub proxy: ProxyNode,
    /// Where Consul is.
    pub consul: ConsulConfig,
    /// Where load balancers and scrapers are answered.
    pub http: HttpConfig,
    /// What clients connect to, at least one.
    pub listeners: Vec<ListenerConfig>,
    /// How to speak to the instances of a group; only groups that the file has a table for.
    pub groups: BTreeMap<GroupName, ProxyGroup>,
    /// The Sentinel facade, when there is one.
    pub sentinel: Option<SentinelConfig>,
}

/// The `[proxy]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyNode {
    /// The name of the proxy, its own among all proxies.
    pub name: String,
    /// The host name or IP address (no port) at which clients reach it.
    pub address: String,
}

/// One `[[listener]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// `host:port`, an IPv6 host in brackets.
    pub listen: String,
    /// The groups behind it, at least one; several are sharded.
    pub groups: Vec<GroupName>,
    /// Which instances clients are carried to.
    pub role: ListenerRole,
    /// How much of the clients' protocol is understood.
    pub protocol: Protocol,
    /// How long a new connection waits for a master.
    pub hold: Duration,
    /// How keys find their group; there exactly when there are several groups.
    pub sharding: Option<Sharding>,
}

/// Which instances a listener carries its clients to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ListenerRole {
    /// The master.
    #[default]
    Master,
    /// The hot replica, and spares within the group's lag.
    Replica,
}

/// How much of the clients' protocol a listener understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Nothing: bytes are carried.
    #[default]
    Tcp,
    /// The Redis protocol.
    Redis,
    /// The PostgreSQL protocol.
    Postgres,
}

/// The `[listener.sharding]` table: how keys find their group, by twemproxy's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharding {
    /// The hash of a key.
    pub hash: Hash,
    /// How hashes are spread over groups.
    pub distribution: Distribution,
    /// Two characters: of a key that holds both, only what stands between them is hashed.
    pub hash_tag: Option<(char, char)>,
}

/// The hash functions of twemproxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names are the algorithms' own")]
pub enum Hash {
    OneAtATime,
    Md5,
    Crc16,
    Crc32,
    Crc32a,
    Fnv1_64,
    #[default]
    Fnv1a64,
    Fnv1_32,
    Fnv1a32,
    Hsieh,
    Murmur,
    Jenkins,
}

/// How hashes are spread over groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Distribution {
    /// Consistent hashing: adding a group moves few keys.
    #[default]
    Ketama,
    /// The hash modulo the number of groups.
    Modula,
    /// Any group, the key does not matter.
    Random,
}

/// A `[group.NAME]` table: what the proxy needs to speak to the instances of a group itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyGroup {
    /// The account; the engine's default one when absent.
    pub user: Option<String>,
    /// The file that holds the account's password.
    pub password_file: Option<PathBuf>,
}

/// The `[sentinel]` table: the facade for clients that ask Redis Sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelConfig {
    /// `host:port`, an IPv6 host in brackets.
    pub listen: String,
    /// What is announced as a master's address.
    pub announce: Announce,
    /// The file that holds the password that clients of the facade must know.
    pub password_file: Option<PathBuf>,
}

/// What the Sentinel facade announces as a master's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Announce {
    /// This proxy and the port of the group's listener.
    #[default]
    Proxy,
    /// The instance itself.
    Instance,
}
