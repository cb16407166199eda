//! The documents that stand in Consul, as data. Their key names are the `consul` package's business.

use crate::ids::{Address, Incarnation, Lineage, NodeId, Nonce, Position, Stamp};
use serde::{Deserialize, Serialize};

/// The version of the record's form that this build writes, and the highest that it understands.
pub const RECORD_VERSION: u32 = 1;

/// The one document that decides who is master of a group. It changes only by check-and-set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the form, [`RECORD_VERSION`].
    pub v: u32,
    /// The group's name.
    pub group: String,
    /// Drawn once, at bootstrap: tells this group from another of the same name.
    pub uid: String,
    /// The number of this mastership; only grows.
    pub epoch: u64,
    /// The last epoch that became active: its marker is in the data. A record restored under another epoch keeps it.
    pub active_epoch: u64,
    /// Grows with every write of the record.
    pub seq: u64,
    /// Makes every write unlike the one before: Consul gives an identical value no new index.
    pub nonce: Nonce,
    /// Who wrote this version.
    pub writer: Writer,
    /// How far this epoch has come.
    pub phase: Phase,
    /// The one instance that may accept writes.
    pub master: Option<Master>,
    /// The hot replica: its copy holds every acknowledged write.
    pub replica: Option<Replica>,
    /// Every node puts each write on its disk before it acknowledges it: the policy as the master carries it out, whose
    /// own disk was ready before this said so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fsync: bool,
    /// The mastership before this one.
    pub previous: Option<Previous>,
    /// The planned switchover under way, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverRef>,
}

impl Record {
    /// The age of this version.
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, seq: self.seq }
    }

    /// Whether `node` is the master.
    pub fn is_master(&self, node: &NodeId) -> bool {
        self.master.as_ref().is_some_and(|m| &m.id == node)
    }

    /// Whether `node` is the hot replica.
    pub fn is_replica(&self, node: &NodeId) -> bool {
        self.replica.as_ref().is_some_and(|r| &r.id == node)
    }

    /// Whether the master's copy is known to be on its disk as it was when the master was named: a certificate, or a
    /// restart from that disk, said so. A forced failover, and data that a new group begins with, prove nothing.
    pub(crate) fn is_proven(&self) -> bool {
        self.previous.as_ref().is_some_and(|before| before.position.is_some())
    }

    /// The role this version gives to `node`.
    pub fn role_of(&self, node: &NodeId) -> Role {
        if self.is_master(node) {
            Role::Master
        } else if self.is_replica(node) {
            Role::Replica
        } else {
            Role::Spare
        }
    }
}

/// The author of a record's version: what lets a restarted agent see that it has something in flight.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Writer {
    /// The node.
    pub node: NodeId,
    /// The run of its agent, drawn at start.
    pub boot: String,
}

/// How far an epoch has come. Clients are sent to the master only in [`Phase::Active`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The first epoch of a new group, before its master is open.
    Bootstrapping,
    /// The master is open.
    Active,
    /// A new master has been named and is not open yet; nothing has been acknowledged in this epoch.
    Promoting,
    /// The master is holding writes so that the hot replica may take over without loss.
    Switching,
    /// Nobody may be master without an operator.
    Halted,
    /// The record cannot be trusted.
    Quarantine,
}

/// The master as the record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// Its node.
    pub id: NodeId,
    /// Host name or IP address of the database.
    pub address: String,
    /// Port of the database.
    pub port: u16,
    /// The run of the database that was promoted.
    pub incarnation: Incarnation,
}

impl Master {
    /// Where clients find it.
    pub fn endpoint(&self) -> Address {
        Address::new(self.address.clone(), self.port)
    }
}

/// The hot replica as the record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its node.
    pub id: NodeId,
    /// Whether the copy is certified complete. A hot replica always is; the field is there for readers.
    pub complete: bool,
    /// The proof.
    pub certificate: Certificate,
}

/// The proof that a named copy, of a named incarnation, is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Also in the copy's marker: read back from it before the certificate was written.
    pub nonce: Nonce,
    /// The run of the database whose memory holds the copy.
    pub incarnation: Incarnation,
    /// The history the copy follows.
    pub lineage: Lineage,
    /// The copy had reached at least this position when it was certified.
    pub position: Position,
    /// Every write that is acknowledged under it is on the disks of both copies, as are all earlier ones.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fsync: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The mastership that an epoch replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its epoch.
    pub epoch: u64,
    /// Its master.
    pub master: Option<Identity>,
    /// Where the successor's copy stood when it was sealed. `None` when an operator named the successor: nothing is
    /// proven of its copy.
    pub position: Option<Position>,
    /// Why it ended, a sentence for people.
    pub reason: String,
    /// Every write that it acknowledged is on the disks of both its copies.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fsync: bool,
    /// Whether acknowledged writes may have been lost with it, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<String>,
}

/// A node and the run of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub id: NodeId,
    /// The run of its database.
    pub incarnation: Incarnation,
}

/// A planned switchover under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverRef {
    /// The operator's request; empty when the master itself hands over because its disk takes no writes.
    pub id: String,
    /// The node that is to be master.
    pub target: NodeId,
    /// How long running transactions may go on before they are ended, as the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What an instance is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May accept writes.
    Master,
    /// Certified complete.
    Replica,
    /// Any other.
    Spare,
}

impl Role {
    /// The word used in Consul's tags and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Replica => "replica",
            Role::Spare => "spare",
        }
    }
}

/// A living node of a group: in Consul under `members/<node>`, bound to its agent's session and gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Host name or IP address of the database.
    pub address: String,
    /// Port of the database.
    pub port: u16,
    /// `host:port` of the agent's HTTP.
    pub agent: String,
    /// `redis`, `postgres` or `mariadb`.
    pub engine: String,
    /// The engine's version, empty until it has been asked.
    pub version: String,
    /// How many numbered databases clients have, where the engine has such: the marker is in the one after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<u32>,
    /// Master and hot replica are spread over zones.
    pub zone: Option<String>,
    /// The role last seen in the record.
    pub role: Role,
    /// The run of its database, if it runs.
    pub incarnation: Option<Incarnation>,
    /// Higher is preferred, 0 is never master.
    pub priority: u32,
    /// It is the node whose existing data a new group begins with.
    #[serde(default)]
    pub adopt: bool,
    /// The group's uid as this node remembers it on disk: a lost record is no new group.
    pub uid: Option<String>,
    /// The run of its agent.
    pub boot: String,
}

/// An operator's request, under `<group>/command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Drawn by the command line; the result is written under it.
    pub id: String,
    /// What is asked for.
    pub op: CommandOp,
    /// The node it concerns.
    pub target: Option<NodeId>,
    /// The epoch the operator saw: the request is refused in any other.
    pub expect_epoch: u64,
    /// Milliseconds since 1970 after which the request is void. Wall clocks differ: this bounds surprise, not safety.
    pub expires_at: u64,
    /// Who asked.
    pub by: String,
    /// Switchover: how long running transactions may go on before they are ended; `None`: a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What an operator can ask of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandOp {
    /// Make another node master without losing a write.
    Switchover,
    /// Make the target master although nothing proves its copy complete: the way out when both copies are lost.
    Failover,
    /// Hand over what the target is master of, stop its databases, deregister them, end its agent.
    Drain,
    /// Throw the target's copy away and clone it anew.
    Reinit,
}

/// What became of a request, under `<group>/result/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The request.
    pub id: String,
    /// Whether it was done.
    pub done: bool,
    /// The epoch it led to, or the one it was refused in.
    pub epoch: u64,
    /// A sentence for the operator.
    pub message: String,
}

/// The story of one takeover, under `<group>/history/<epoch>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The epoch that began.
    pub epoch: u64,
    /// Its master.
    pub master: NodeId,
    /// The master before it.
    pub previous: Option<NodeId>,
    /// Why, a sentence.
    pub reason: String,
    /// What was seen, a line each.
    pub evidence: Vec<String>,
    /// Where the new master's copy stood.
    pub position: Option<Position>,
    /// Milliseconds from the decision to take over until the epoch was active, on the winner's clock.
    pub took_ms: u64,
    /// Whether acknowledged writes may have been lost, and which.
    pub data_loss: Option<String>,
    /// Milliseconds since 1970, for people.
    pub at: u64,
    /// The node that wrote it.
    pub by: NodeId,
}
