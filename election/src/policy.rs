//! The policy of a group: what its operator promises its users.

use serde::{Deserialize, Serialize};

/// When a write may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Only when master and hot replica have it.
    #[default]
    Sync,
    /// By the master alone.
    Async,
}

/// What a `sync` group does when its hot replica is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutReplica {
    /// The master removes it from the record, then goes on alone, every write on disk before it is answered.
    #[default]
    Continue,
    /// Writes wait until another copy is certified.
    Block,
}

/// What a read through the proxy's Redis mode promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// What the server answers, at once.
    #[default]
    Local,
    /// Released only when nothing it shows can be taken back.
    Durable,
}

/// A group's policy, in Consul under `<group>/config`. Durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// When a write may be acknowledged.
    pub durability: Durability,
    /// What happens to writes when the hot replica is lost.
    pub without_replica: WithoutReplica,
    /// Acknowledged means on both disks.
    pub fsync: bool,
    /// What a read promises.
    pub reads: Reads,
    /// Milliseconds of complete silence after which a node is suspected.
    pub detect_after: u64,
    /// Milliseconds without an answer after which a database is killed by its own agent.
    pub hang_after: u64,
    /// Milliseconds after a takeover in which suspicion alone starts no other.
    pub flap_pause: u64,
    /// Bytes a copy may lag to serve replica listeners, or to be promoted in an `async` group.
    pub max_lag: u64,
    /// An operator has the group in hand: no takeover, no new hot replica, no database started or killed.
    #[serde(default)]
    pub paused: bool,
}

impl Policy {
    /// An acknowledgement means that the hot replica has the write.
    pub fn is_sync(&self) -> bool {
        self.durability == Durability::Sync
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            without_replica: WithoutReplica::default(),
            fsync: false,
            reads: Reads::default(),
            detect_after: 1_000,
            hang_after: 5_000,
            flap_pause: 10_000,
            max_lag: 1_048_576,
            paused: false,
        }
    }
}
