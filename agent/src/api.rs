//! The JSON of an agent's `/status`: what `understudy status` and `understudy explain` read.

use election::{Copying, Engine, Phase, Policy, Position, Record, Role};
use serde::{Deserialize, Serialize};

/// The whole page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The node's name.
    pub node: String,
    /// The run of the agent, drawn at start.
    pub boot: String,
    /// The program's version.
    pub version: String,
    /// Whether the last call to Consul was answered.
    pub consul_reachable: bool,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its group.
    pub group: String,
    /// Its role in the record as this agent knows it; `None` before there is one.
    pub role: Option<Role>,
    /// The record's epoch, 0 before there is one.
    pub epoch: u64,
    /// The record's phase.
    pub phase: Option<Phase>,
    /// `redis`, `postgres` or `mariadb`.
    pub engine: String,
    /// The engine's version.
    pub version: String,
    /// Host name or IP address of the database.
    pub address: String,
    /// Port of the database.
    pub port: u16,
    /// Its zone.
    pub zone: Option<String>,
    /// Its priority.
    pub priority: u32,
    /// How far it has come.
    pub position: Option<Position>,
    /// How far it is behind the master, as far as the two agents know, in the unit of `position`: bytes, but MariaDB's
    /// transactions.
    pub lag_bytes: Option<u64>,
    /// How far it has come, as the engine itself writes it: a place in the log, a global transaction id.
    #[serde(default)]
    pub place: Option<String>,
    /// Bytes of its log that the master has and this copy has not; `None` when that is not known.
    #[serde(default)]
    pub behind_bytes: Option<u64>,
    /// The same in transactions, of engines that number them.
    #[serde(default)]
    pub behind_transactions: Option<u64>,
    /// The copy of another node's data that is being made here.
    #[serde(default)]
    pub copying: Option<Copying>,
    /// The database answers and is what the record says.
    pub healthy: bool,
    /// Whether the last call to Consul was answered.
    pub consul_reachable: bool,
    /// The group's policy as it is in force here: Consul's, or while Consul has none the last one seen.
    pub policy: Policy,
    /// Bytes a copy may lag to serve replica listeners (the group's policy).
    pub max_lag: u64,
    /// What the agent is doing, a sentence.
    pub reason: String,
    /// The same as one word.
    pub reason_code: String,
    /// `quarantine` or `halted`, when that is what the reason means for the group.
    pub standing: Option<Phase>,
    /// The database as the agent last saw it.
    pub database: Engine,
    /// The record as this agent knows it.
    pub record: Option<Record>,
    /// The last record this node has put on its own disk: what Consul's may be compared with, and restored from.
    pub remembered: Option<Record>,
    /// What clients of this group are not protected from, and what is promised but not in force yet.
    pub caveats: Vec<String>,
}
