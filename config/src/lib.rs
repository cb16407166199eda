//! Files into typed values: `agent.toml` and `proxy.toml`, every fault of a file reported at once.
//!
//! [`load_agent`] and [`load_proxy`] are what starts a process, [`check`] is what an operator asks beforehand. All
//! three tell every fault with file, line, column and key. What a file may say and this version cannot do yet stands
//! in one place, [`built`]. Which keys there are, and why their defaults are what they are, is told in
//! `docs/configuration.md`; a test keeps that page and the reader alike.
//!
//! Nothing here speaks to Consul, starts a process or listens.

pub mod agent;
pub mod built;
mod claims;
pub mod consul;
pub mod fault;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod load;
mod names;
mod near;
mod policy;
pub mod proxy;
mod read_agent;
mod read_common;
mod read_proxy;
mod reader;
mod settings;
#[cfg(test)]
mod tests;

pub use agent::{AgentConfig, Engine, InstanceConfig, NodeConfig};
pub use consul::ConsulConfig;
pub use fault::{Fault, Faults, Loaded, Place};
pub use files::{SecretError, read_secret};
pub use load::{Kind, check, load_agent, load_proxy};
pub use names::{RESERVED_GROUPS, parse_group, parse_listen};
pub use policy::{parse_policy, parse_policy_settings, policy_text};
pub use proxy::{
    Announce, Distribution, Hash, ListenerConfig, ListenerRole, Protocol, ProxyConfig, ProxyGroup, ProxyNode,
    SentinelConfig, Sharding,
};
pub use read_agent::{DEFAULT_HTTP_PORT, DEFAULT_PRIORITY};
pub use read_proxy::{DEFAULT_HOLD, DEFAULT_HTTP_LISTEN};
pub use reader::parse_duration;
pub use settings::{MARIADB_MANAGED, POSTGRES_MANAGED, REDIS_MANAGED, check_postgres, is_managed};

/// The exit code of a process whose configuration is faulty: `EX_CONFIG` of sysexits.h.
pub const EXIT_CONFIG: i32 = 78;

/// The `[http]` table: where a process answers load balancers, scrapers and, as an agent, its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// `host:port`, an IPv6 host in brackets.
    pub listen: String,
}
