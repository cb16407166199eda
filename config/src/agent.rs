//! What `agent.toml` says, as typed values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use election::{GroupName, NodeId, Policy};

use crate::HttpConfig;
use crate::consul::ConsulConfig;

/// The whole of an agent's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Who this node is.
    pub node: NodeConfig,
    /// Where Consul is.
    pub consul: ConsulConfig,
    /// Where peers and load balancers are answered.
    pub http: HttpConfig,
    /// The databases that this agent looks after, at least one, at most one of each group.
    pub instances: Vec<InstanceConfig>,
    /// The policy of each instance's group: used once, when the group is bootstrapped. Every group that has an
    /// instance here is in it, with the defaults when the file is silent.
    pub groups: BTreeMap<GroupName, Policy>,
}

/// The `[node]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeConfig {
    /// The name of the node in all its groups; it survives a rebuild of the machine.
    pub name: NodeId,
    /// The host name or IP address (no port) at which others reach this node and its databases.
    pub address: String,
    /// What fails together: master and hot replica are spread over zones.
    pub zone: Option<String>,
    /// The folder of the agent's own memory.
    pub data_dir: PathBuf,
}

/// The kind of database an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Engine {
    /// Redis, or Valkey.
    #[default]
    Redis,
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
}

impl Engine {
    /// The name, as in the file and in Consul.
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Redis => "redis",
            Engine::Postgres => "postgres",
            Engine::Mariadb => "mariadb",
        }
    }

    /// Whether an acknowledged write is always on the disks of those who acknowledged it, whatever the policy says.
    pub fn is_always_on_disk(self) -> bool {
        self != Engine::Redis
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One `[[instance]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceConfig {
    /// The group that the instance belongs to.
    pub group: GroupName,
    /// What kind of database it is.
    pub engine: Engine,
    /// The TCP port that the database listens on.
    pub port: u16,
    /// The folder of the database's data.
    pub data_dir: PathBuf,
    /// The higher, the rather it becomes master or hot replica; 0: never master.
    pub priority: u32,
    /// Whether the group is bootstrapped from this folder's existing data.
    pub adopt: bool,
    /// The server's program, or the folder it is in; the engine's usual program when absent.
    pub bin: Option<PathBuf>,
    /// The file that holds the password of the database's clients; none is asked for when absent.
    pub password_file: Option<PathBuf>,
    /// Settings handed to the engine: name, and the text that follows the name in the engine's own file.
    pub settings: BTreeMap<String, String>,
}
