//! All that one agent knows of one group at one instant: what Consul says, what the local database says, what the
//! peers say, and what the agent itself remembers.

use crate::documents::{Command, Member, Record};
use crate::ids::{Address, Incarnation, Lineage, Millis, NodeId, Nonce, Position, Secret, Stamp};
use crate::policy::Policy;
use crate::status::{Engine, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole input of [`decide`](crate::decide()).
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// This node's monotonic clock.
    pub now: Millis,
    /// The wall clock, milliseconds since 1970: for people, and for the expiry of an operator's request.
    pub wall: u64,
    /// This node.
    pub me: Me,
    /// What Consul says.
    pub view: View,
    /// The group's policy; before bootstrap the one of this node's file.
    pub policy: Policy,
    /// The local database.
    pub engine: Engine,
    /// The other agents of the group, by their last beat.
    pub peers: BTreeMap<NodeId, Peer>,
    /// This node's own probe of the recorded master's database.
    pub master_db: Contact,
    /// The proxies that reach the recorded master's database, by name.
    pub witnesses: BTreeMap<String, Witness>,
    /// The living proxies that hold requests back while roles change, by name, and the record under which each last said
    /// that nothing is in flight through it.
    pub proxies: BTreeMap<String, Option<Stamp>>,
    /// When something last arrived over the local replica's link to its source.
    pub link_heard: Option<Millis>,
    /// Since when the local instance has been seen sealed.
    pub sealed_since: Option<Millis>,
    /// When the recorded hot replica last acknowledged something to the local master.
    pub replica_acked: Option<Millis>,
    /// When this agent first saw the record's epoch.
    pub epoch_since: Millis,
    /// When this agent first saw the record's epoch in its present phase.
    pub phase_since: Millis,
    /// Silence counts from here at the earliest: an agent that found its own loop stopped was deaf, not the others mute.
    pub awake_since: Millis,
    /// What this node has on disk.
    pub memory: Memory,
    /// The newest record that this run of the agent has seen, whether it could be put on disk or not.
    pub newest: Stamp,
    /// What became of this agent's last write to Consul.
    pub writing: Writing,
    /// A write of this run of the agent is known to have been applied, so nothing of an earlier run is in flight.
    pub settled: bool,
    /// The certification under way (masters only).
    pub certifying: Option<Certifying>,
    /// The takeover under way: its first evidence, for the history.
    pub taking: Option<Taking>,
    /// When this agent last wrote the marker.
    pub marked: Option<Millis>,
    /// The replication password in force at the local instance, when this agent set it.
    pub channel: Option<Secret>,
    /// Not before this instant may the database be started again (it just failed to).
    pub start_after: Millis,
    /// The operator's request about this node that it has taken on.
    pub duty: Option<Duty>,
    /// Random texts for this decision: the core draws none itself.
    pub fresh: Fresh,
}

impl Snapshot {
    /// What an agent knows that has just started: who it is, what its file says, and what is on its disk.
    pub fn new(me: Me, policy: Policy, memory: Memory, now: Millis) -> Self {
        Self {
            now,
            wall: 0,
            me,
            view: View::default(),
            policy,
            engine: Engine::Unknown,
            peers: BTreeMap::new(),
            master_db: Contact::default(),
            witnesses: BTreeMap::new(),
            proxies: BTreeMap::new(),
            link_heard: None,
            sealed_since: None,
            replica_acked: None,
            epoch_since: Millis::default(),
            phase_since: now,
            awake_since: now,
            memory,
            newest: Stamp::default(),
            writing: Writing::Settled,
            settled: false,
            certifying: None,
            taking: None,
            marked: None,
            channel: None,
            start_after: Millis::default(),
            duty: None,
            fresh: Fresh::default(),
        }
    }

    /// The record, when Consul has shown one.
    pub fn record(&self) -> Option<&Record> {
        self.view.record.as_ref()
    }

    /// The local instance's answer, when it gave one.
    pub fn status(&self) -> Option<&Status> {
        self.engine.status()
    }

    /// Milliseconds since `heard`, or since this agent woke up, whichever is less: an upper bound of a silence that
    /// this agent can vouch for.
    pub fn silence(&self, heard: Option<Millis>) -> u64 {
        self.now.since(heard.unwrap_or_default().max(self.awake_since))
    }

    /// A peer whose agent was heard within `within` milliseconds.
    pub fn live_peer(&self, id: &NodeId, within: u64) -> Option<&Peer> {
        self.peers.get(id).filter(|p| self.now.since(p.heard) < within)
    }
}

/// A proxy that has not said yet, of this record, that it holds every request back and that none is in flight.
pub fn busy_proxy<'a>(proxies: &'a BTreeMap<String, Option<Stamp>>, record: &Record) -> Option<&'a str> {
    let quiet = |at: &Option<Stamp>| at.is_some_and(|at| at >= record.stamp());
    proxies.iter().find(|(_, at)| !quiet(at)).map(|(name, _)| name.as_str())
}

/// This node, as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its name.
    pub id: NodeId,
    /// Where its database listens.
    pub database: Address,
    /// Its zone.
    pub zone: Option<String>,
    /// 0: never master.
    pub priority: u32,
    /// A new group begins with this node's existing data, and with no other's.
    pub adopt: bool,
    /// The run of this agent, drawn at start.
    pub boot: String,
    /// The group's name.
    pub group: String,
}

/// What Consul says of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Consul has answered at least once, so that "no record" means that there is none.
    pub seen: bool,
    /// The last call to Consul was answered.
    pub reachable: bool,
    /// The record.
    pub record: Option<Record>,
    /// What is wrong with what stands in the record's place, when it cannot be read as one.
    pub fault: Option<String>,
    /// Its ModifyIndex, 0 when there is none.
    pub index: u64,
    /// The session that holds the leader key.
    pub leader: Option<String>,
    /// This agent's own session.
    pub session: Option<String>,
    /// The living nodes.
    pub members: BTreeMap<NodeId, Member>,
    /// The policy in Consul.
    pub policy: Option<Policy>,
    /// An operator's request and its ModifyIndex.
    pub command: Option<(Command, u64)>,
    /// When the last consistent read of all this began.
    pub read_at: Option<Millis>,
}

/// What one agent tells another. Sent to every peer a few times a second, and at once when something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// The group.
    pub group: String,
    /// The sender.
    pub from: NodeId,
    /// The run of its agent.
    pub boot: String,
    /// When it was sent, on the clock of that run: beats may overtake each other on their way.
    #[serde(default)]
    pub sent: Millis,
    /// Where its database listens.
    pub database: Address,
    /// The age of the record it knows.
    pub stamp: Stamp,
    /// Its database.
    pub engine: Engine,
    /// How long its database has given no answer, in milliseconds, when it gives none.
    pub silent_ms: Option<u64>,
    /// How long ago it had an answer from the database of the master of `stamp.epoch`, in milliseconds.
    pub reached_master_ms: Option<u64>,
    /// The history its database wrote, and how far, when this run of the agent last saw it as a master; also after that
    /// database has ended.
    #[serde(default)]
    pub mastered: Option<(Lineage, Position)>,
    /// Its database holds client writes for a switchover in `stamp.epoch`, and this is where it stands.
    pub quiesced_at: Option<Position>,
    /// What the receiver needs in order to replicate from the sender.
    pub offer: Option<Offer>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its priority.
    pub priority: u32,
}

/// Leave to replicate from an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The record it was made under: the receiver accepts it only under the same.
    pub stamp: Stamp,
    /// The instance.
    pub source: Address,
    /// The password's name.
    pub channel: Nonce,
    /// The password.
    pub secret: Secret,
    /// What for.
    pub purpose: Purpose,
}

/// What an [`Offer`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A spare behind the hot replica.
    Chain,
    /// The candidate, catching up with the master.
    Join,
    /// The candidate, alone on the master's exclusive channel; or the hot replica that it became.
    Certify,
}

/// A peer by its last beat.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The beat.
    pub beat: Beat,
    /// When it arrived, on the receiver's clock.
    pub heard: Millis,
    /// Since when its agent's port refuses connections: nobody listens there, though the machine answers.
    pub refused_since: Option<Millis>,
    /// The history its database wrote, and how far, when it was last heard of as a master: its next run says nothing
    /// of that.
    pub mastered: Option<(Lineage, Position)>,
    /// The run of its agent before this one: what still arrives from it says nothing any more.
    pub former_boot: Option<String>,
}

impl Peer {
    /// The peer's database, when it answered its agent.
    pub fn status(&self) -> Option<&Status> {
        self.beat.engine.status()
    }
}

/// What probing an address has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact {
    /// The last answer.
    pub heard: Option<Millis>,
    /// Since when connections are refused.
    pub refused_since: Option<Millis>,
}

/// A proxy's word that it reaches the master's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The epoch whose master it means.
    pub epoch: u64,
    /// When something last arrived there from the master's database, on this node's clock.
    pub reached: Millis,
}

/// An operator's request about a node, taken on and not done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Hand over and stop the database; at this instant at the latest, handed over or not.
    Drain {
        /// The instant.
        until: Millis,
    },
    /// Throw the copy away; it is cloned anew.
    Reinit,
}

/// What a node has on disk: it acts on nothing older.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The group's uid, once it belonged to one.
    pub uid: Option<String>,
    /// The highest record it has seen.
    pub stamp: Stamp,
    /// The last (epoch, counter) of the marker that is known to be on the instance's disk; reset when it follows another.
    pub marker: Option<(u64, u64)>,
    /// The last epoch this node was the active master of, and the run of its database then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mastered: Option<(u64, Incarnation)>,
    /// That record itself: what `resume --restore-record` puts back when Consul has lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<Record>>,
}

/// What became of this agent's last write of the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writing {
    /// It is known: applied, refused, or there was none.
    #[default]
    Settled,
    /// It may still be applied, as long as the record's index is this one.
    Unknown {
        /// The index it was conditioned on.
        index: u64,
    },
}

/// A certification under way, in the memory of the master's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certifying {
    /// Who is to become hot replica.
    pub candidate: NodeId,
    /// The run of its database.
    pub incarnation: Incarnation,
    /// The certificate's nonce, and the name of the exclusive channel's password.
    pub nonce: Nonce,
    /// When it began.
    pub since: Millis,
}

/// A takeover under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    /// When its evidence was first seen.
    pub since: Millis,
    /// The evidence, a line each.
    pub evidence: Vec<String>,
}

/// Random texts, drawn by the agent for each decision.
#[derive(Debug, Clone, Default)]
pub struct Fresh {
    /// For a record, a certificate, or a channel.
    pub nonce: Nonce,
    /// For a channel.
    pub secret: Secret,
}
