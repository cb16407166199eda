//! What `status --json` prints.

use election::{Copying, Durability, NodeId, Phase, Position, Role};
use serde::{Deserialize, Serialize};

/// The whole of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Page {
    /// Every group that was asked for.
    pub groups: Vec<GroupStatus>,
}

/// One group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// The number of the mastership, 0 before there was one.
    pub epoch: u64,
    /// How far the epoch has come; null before there was one.
    pub phase: Option<Phase>,
    /// When a write may be acknowledged.
    pub durability: Durability,
    /// Whether role changes are off.
    pub paused: bool,
    /// Who may accept writes.
    pub master: Option<MasterStatus>,
    /// Whose copy is certified.
    pub replica: Option<ReplicaStatus>,
    /// Every node that is known of, by name.
    pub members: Vec<MemberStatus>,
    /// What a person should know; not part of the JSON.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// The master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Its node.
    pub id: NodeId,
    /// Host name or IP address of its database.
    pub address: String,
    /// Port of its database.
    pub port: u16,
}

/// The hot replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its node.
    pub id: NodeId,
    /// Whether its copy is certified complete.
    pub complete: bool,
}

/// One node. What is not known is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub id: NodeId,
    /// Its role by the record.
    pub role: Role,
    /// The kind of database.
    pub engine: Option<String>,
    /// The database's version.
    pub version: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Host name or IP address of its database.
    pub address: Option<String>,
    /// Port of its database.
    pub port: Option<u16>,
    /// How far its copy has come.
    pub position: Option<Position>,
    /// How far its copy is behind the master's, in the unit of `position`: bytes, but MariaDB's transactions.
    pub lag_bytes: Option<u64>,
    /// How far its copy has come, as the engine itself writes it.
    pub place: Option<String>,
    /// Bytes of the master's log that its copy lacks.
    pub behind_bytes: Option<u64>,
    /// Transactions that its copy lacks, where the engine numbers them.
    pub behind_transactions: Option<u64>,
    /// How far a copy is that is being made there.
    pub copying: Option<Copying>,
    /// It is alive and what the record says.
    pub healthy: bool,
    /// What its agent does, or why nothing is known, a sentence.
    pub reason: String,
}

impl GroupStatus {
    /// The node of this name.
    pub fn member(&self, id: &str) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id.as_str() == id)
    }

    /// The name of the master, when the group is open to clients.
    pub fn active_master(&self) -> Option<&str> {
        self.master.as_ref().filter(|_| self.phase == Some(Phase::Active)).map(|master| master.id.as_str())
    }

    /// The name of the certified hot replica.
    pub fn hot_replica(&self) -> Option<&str> {
        self.replica.as_ref().filter(|replica| replica.complete).map(|replica| replica.id.as_str())
    }

    /// Whether the group is open, `nodes` nodes are healthy and, of two or more, one is the certified hot replica.
    pub fn is_whole(&self, nodes: usize) -> bool {
        self.active_master().is_some()
            && (nodes < 2 || self.hot_replica().is_some())
            && self.members.iter().filter(|member| member.healthy).count() >= nodes
    }
}
