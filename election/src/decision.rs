//! Everything the system can do, and every reason it has.

use crate::documents::{HistoryEntry, Outcome, Phase, Record};
use crate::ids::{Address, Incarnation, Millis, NodeId, Nonce, Position, Secret};
use crate::policy::Policy;
use crate::snapshot::Memory;
use crate::status::Marker;
use serde::{Deserialize, Serialize};

/// What a node should do now, why, and when to ask again though nothing changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The one thing to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// When to decide again at the latest.
    pub revisit: Option<Millis>,
}

impl Decision {
    /// Do this, for that reason, and look again when it is done.
    pub fn new(action: Action, reason: Reason) -> Self {
        Self { action, reason, revisit: None }
    }

    /// Do nothing, for that reason.
    pub fn wait(reason: Reason) -> Self {
        Self::new(Action::Wait, reason)
    }

    /// The same, and look again at `at`.
    #[must_use]
    pub fn revisit(mut self, at: Millis) -> Self {
        self.revisit = Some(self.revisit.map_or(at, |other| other.min(at)));
        self
    }
}

/// One thing to do. Each is a single effect on a single collaborator, so that a crash between any two of them is a
/// state that `decide` meets again.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Read the group from Consul, consistently, now.
    Read,
    /// Put this on disk.
    Remember(Memory),
    /// Submit one transaction.
    Submit(Box<Proposal>),
    /// Answer an operator's request without changing the record.
    Answer {
        /// What became of it.
        outcome: Outcome,
        /// The request's ModifyIndex.
        command_index: u64,
    },
    /// Begin to certify this node's copy.
    Nominate {
        /// The node.
        candidate: NodeId,
        /// The run of its database.
        incarnation: Incarnation,
    },
    /// Give the certification up.
    Abandon,
    /// Do this to the local database.
    Engine(EngineOp),
}

impl Action {
    /// One word for logs and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Wait => "wait",
            Action::Read => "read",
            Action::Remember(_) => "remember",
            Action::Submit(_) => "submit",
            Action::Answer { .. } => "answer",
            Action::Nominate { .. } => "nominate",
            Action::Abandon => "abandon",
            Action::Engine(op) => op.name(),
        }
    }
}

/// One transaction: all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The record's new version.
    pub record: Record,
    /// The ModifyIndex it was decided on; 0: there must be none.
    pub index: u64,
    /// Take the leader key: unlock it from this session if one holds it, then lock it with one's own.
    pub take_leader: Option<TakeLeader>,
    /// The policy, written with a new group's first record.
    pub policy: Option<Policy>,
    /// The epoch's story.
    pub history: Option<HistoryEntry>,
    /// What became of an operator's request.
    pub result: Option<Outcome>,
    /// The request to remove, by its ModifyIndex.
    pub consume: Option<u64>,
}

/// How the leader key changes hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeLeader {
    /// The session that holds it, when one does. Unlocking a session that does not fails the whole transaction.
    pub from: Option<String>,
    /// This agent's session.
    pub to: String,
}

/// One thing to do to the local database. Each may be repeated without harm.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineOp {
    /// Start the process: as the replica of a black hole, closed to writes.
    Start,
    /// Kill it.
    Kill,
    /// End it in an orderly way, everything on disk.
    Stop,
    /// Kill it and throw its data away; the folder stays ours.
    Reset,
    /// Keep the data set as it is beside the folder's data, as that of this epoch.
    Keep {
        /// The epoch this instance was master of.
        epoch: u64,
    },
    /// Stop receiving and acknowledging replication, keeping what is needed to go on later.
    Seal,
    /// Replicate from `source`.
    Follow {
        /// The instance.
        source: Address,
        /// The password and its name; `None`: the one it has.
        channel: Option<(Nonce, Secret)>,
        /// Whether the data may be replaced, where they cannot be gone on from. Not a hot replica's: the record names
        /// them. Redis sees to it by itself, since a password lets in or does not.
        replace: bool,
    },
    /// Become a master that is closed to clients' writes.
    Promote,
    /// Let clients write.
    Open,
    /// A deposed master: close to writes, end the clients' connections, replicate from a black hole.
    Fence,
    /// Refuse writes while no replica acknowledges them, or stop refusing.
    Guard(bool),
    /// Put every write, and all earlier ones, on disk before it is answered; or return to the configured policy.
    Fsync(bool),
    /// Say beside the marker whether an acknowledgement needs the hot replica.
    Need(bool),
    /// Set the replication password. `exclusive`: say that acknowledgements need the hot replica first, and end every
    /// replication link after.
    Channel {
        /// Its name.
        name: Nonce,
        /// The password.
        secret: Secret,
        /// Whether this is a certificate's channel.
        exclusive: bool,
    },
    /// End the replication links of all but one.
    Expel {
        /// The address the one that stays announces.
        keep: Address,
    },
    /// Write the marker.
    Mark(Marker),
    /// Hold client writes. Transactions that run go on; where some still do afterwards, it is ordered again.
    Quiesce {
        /// Their time is up: end them.
        end: bool,
    },
    /// Stop holding them.
    Release,
}

impl EngineOp {
    /// One word for logs and tests.
    pub fn name(&self) -> &'static str {
        match self {
            EngineOp::Start => "start",
            EngineOp::Kill => "kill",
            EngineOp::Stop => "stop",
            EngineOp::Reset => "reset",
            EngineOp::Keep { .. } => "keep",
            EngineOp::Seal => "seal",
            EngineOp::Follow { .. } => "follow",
            EngineOp::Promote => "promote",
            EngineOp::Open => "open",
            EngineOp::Fence => "fence",
            EngineOp::Guard(true) => "guard",
            EngineOp::Guard(false) => "unguard",
            EngineOp::Fsync(true) => "fsync-always",
            EngineOp::Fsync(false) => "fsync-configured",
            EngineOp::Need(true) => "need",
            EngineOp::Need(false) => "need-not",
            EngineOp::Channel { .. } => "channel",
            EngineOp::Expel { .. } => "expel",
            EngineOp::Mark(_) => "mark",
            EngineOp::Quiesce { end: false } => "quiesce",
            EngineOp::Quiesce { end: true } => "quiesce-now",
            EngineOp::Release => "release",
        }
    }
}

/// Why a hot replica may try to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its own agent says so.
    #[error("master process died")]
    ProcessDied,
    /// Connections to its agent and to its database are refused: nobody listens there any more.
    #[error("master node's agent and database are gone")]
    NodeGone,
    /// No sign of life at all.
    #[error("master node is silent")]
    NodeSilent,
    /// The session ended and the replication link is silent.
    #[error("master's session ended and its replication link is silent")]
    SessionEnded,
    /// An operator asked for it, and the master holds its writes.
    #[error("planned switchover")]
    Switchover,
    /// The master handed over because its disk takes no writes.
    #[error("master's disk takes no writes; it handed over")]
    MasterDisk,
}

/// Why a node does what it does. One sentence each, used alike by log, `/status`, `explain` and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum Reason {
    // The view.
    /// Nothing is known of Consul yet.
    #[error("waiting for Consul's first answer")]
    ConsulUnseen,
    /// Consul does not answer: nobody changes roles.
    #[error("Consul does not answer; serving goes on, roles stay")]
    ConsulAway,
    /// There is no session to act under.
    #[error("waiting for a Consul session")]
    NoSession,
    /// The record that this node remembers has vanished or gone back.
    #[error(
        "the record in Consul is older than the one this node remembers ({remembered}), or gone: quarantine, no role changes"
    )]
    RecordWentBack {
        /// What the node remembers.
        remembered: String,
    },
    /// The record belongs to another group of the same name.
    #[error(
        "the record in Consul belongs to another group (uid {theirs}, this node's is {ours}): quarantine, no role changes"
    )]
    OtherGroup {
        /// This node's.
        ours: String,
        /// The record's.
        theirs: String,
    },
    /// What stands in the record's place is no record.
    #[error("the record in Consul cannot be read ({fault}): quarantine, no role changes")]
    RecordUnreadable {
        /// What is wrong with it.
        fault: String,
    },
    /// The record was written by a newer version.
    #[error("the record has version {v}, which this build does not understand: upgrade this agent")]
    RecordTooNew {
        /// The record's.
        v: u32,
    },
    /// Another node has an identity although there is no record.
    #[error("there is no record, but node {node} belongs to a group: quarantine, no new group is made")]
    RecordVanished {
        /// The node with an identity.
        node: NodeId,
    },
    /// The phase says that an operator must act.
    #[error("the group is halted: an operator must decide")]
    Halted,
    /// A write whose outcome is unknown is being settled.
    #[error("settling a write to Consul whose outcome is unknown")]
    Settling,
    /// A newer record is being put on disk.
    #[error("remembering record {stamp}")]
    Remembering {
        /// Its age.
        stamp: String,
    },
    /// The node's own disk does not take what must be remembered.
    #[error(
        "this agent cannot remember the record on its own disk ({why}): it changes nothing until it can; serving goes on"
    )]
    MemoryFails {
        /// What the disk says.
        why: String,
    },
    /// A restarted agent makes sure that nothing of its earlier run is in flight.
    #[error("raising the record's seq: an earlier run of this agent may have a write in flight")]
    Renewing,
    /// The leader key is not held by this master's session.
    #[error("taking the leader key back: it is not held by this agent's session")]
    Relocking,

    /// An operator has the group in hand.
    #[error("paused by an operator: otherwise it would be {instead}")]
    Paused {
        /// What would be done.
        instead: String,
    },

    // The local database.
    /// Nobody has looked yet.
    #[error("waiting for the database's first answer")]
    EngineUnknown,
    /// It is not running and is being started.
    #[error("starting the database ({why})")]
    Starting {
        /// Why it is down.
        why: String,
    },
    /// It just failed to start.
    #[error("the database does not stay up ({why}); it is started again in a moment")]
    StartBackoff {
        /// Why it is down.
        why: String,
    },
    /// It does not answer.
    #[error("the database has not answered for {ms} ms")]
    EngineSilent {
        /// For how long.
        ms: u64,
    },
    /// It has not answered for so long that it is killed.
    #[error("the database has not answered for {ms} ms: killing it")]
    EngineHung {
        /// For how long.
        ms: u64,
    },
    /// The folder is not ours.
    #[error("{why}")]
    ForeignData {
        /// What was found, and what to do.
        why: String,
    },
    /// The data were written in another group of the same name.
    #[error(
        "the data are another group's (uid {theirs}, not {ours}): correct data_dir, or `understudy reinit` the node"
    )]
    OtherData {
        /// This group's.
        ours: String,
        /// The data's.
        theirs: String,
    },
    /// It is reading its data.
    #[error("the database is loading its data")]
    Loading,

    // A new group.
    /// This node creates the group.
    #[error("no record, no node with an identity: creating the group")]
    Bootstrapping,
    /// Priority 0 never masters.
    #[error("no record yet; this node has priority 0 and does not create the group")]
    NotEligible,
    /// The local data is not empty, so this node may not create the group.
    #[error("no record, and the local database is not empty: this node does not create the group")]
    NotEmpty,

    // The master.
    /// All is well.
    #[error("master, hot replica {replica} acknowledges")]
    Serving {
        /// The hot replica.
        replica: NodeId,
    },
    /// The hot replica's agent is gone, its database is not.
    #[error("master; the agent of hot replica {replica} is silent, its database still acknowledges")]
    ServingReplicaAgentSilent {
        /// The hot replica.
        replica: NodeId,
    },
    /// The hot replica is not attached at this moment.
    #[error("master; hot replica {replica} has been silent for {ms} ms")]
    ReplicaUnseen {
        /// The hot replica.
        replica: NodeId,
        /// For how long.
        ms: u64,
    },
    /// No copy can be certified.
    #[error("master alone, every write on disk before it is answered; no other copy is there to be certified")]
    ServingAlone,
    /// The same, in `block` mode.
    #[error("master alone; without_replica = \"block\": writes wait until another copy is certified")]
    BlockedAlone,
    /// The epoch's instance is being made master.
    #[error("promoting in epoch {epoch}")]
    Promoting {
        /// The epoch.
        epoch: u64,
    },
    /// Nothing proved that its copy is on its disk.
    #[error("promoting in epoch {epoch}: waiting until this copy, and not an older one, is on this node's disk")]
    Persisting {
        /// The epoch.
        epoch: u64,
    },
    /// The epoch becomes active.
    #[error("opening epoch {epoch}")]
    Activating {
        /// The epoch.
        epoch: u64,
    },
    /// The accounts are opened to clients.
    #[error("opening to clients in epoch {epoch}")]
    Opening {
        /// The epoch.
        epoch: u64,
    },
    /// The hot replica is lost.
    #[error("dropping hot replica {replica}: {why}")]
    Dropping {
        /// The hot replica.
        replica: NodeId,
        /// Why.
        why: String,
    },
    /// The policy's `fsync` is carried out in an order that never promises too much.
    #[error("fsync: writing into the record that {step}")]
    AgreeingOnDisks {
        /// What it says from then on.
        step: String,
    },
    /// Settings follow the record.
    #[error("bringing the master's settings in line with the record")]
    Aligning,
    /// The marker is raised.
    #[error("raising the marker")]
    Marking,
    /// A copy is chosen.
    #[error("choosing {candidate} to become hot replica")]
    Choosing {
        /// The node.
        candidate: NodeId,
    },
    /// A copy catches up.
    #[error("{candidate} is catching up to become hot replica")]
    CatchingUp {
        /// The node.
        candidate: NodeId,
    },
    /// A copy is being certified.
    #[error("certifying {candidate}")]
    CertifyingCopy {
        /// The node.
        candidate: NodeId,
    },
    /// A copy has become hot replica.
    #[error("{replica} is certified as hot replica")]
    Certified {
        /// The node.
        replica: NodeId,
    },
    /// The candidate does not get there.
    #[error("giving up on {candidate}: {why}")]
    Abandoning {
        /// The node.
        candidate: NodeId,
        /// Why.
        why: String,
    },
    /// A second replication client hangs on a master.
    #[error("alarm: a replication client that the record does not name is attached ({address}); ending its link")]
    Intruder {
        /// Its address.
        address: String,
    },
    /// The recorded master's process ended; the hot replica acts.
    #[error(
        "the run that the record names ended here; {replica} holds the copy that may go on, and decides whether it does"
    )]
    HandingOver {
        /// The hot replica.
        replica: NodeId,
    },
    /// The recorded master resumes from its own disk.
    #[error("resuming from this node's own disk: the record names no hot replica")]
    Resuming,
    /// The recorded master may not resume.
    #[error("this node may not resume: {why}")]
    MayNotResume {
        /// Why.
        why: String,
    },
    /// The other disk holds the newer data set.
    #[error("both were restarted, and {node} has the newer data: it resumes")]
    OtherResumes {
        /// The node.
        node: NodeId,
    },
    /// The other one may hold writes that this one does not.
    #[error(
        "halted: waiting for {node}, which may hold writes that this node does not ({why}); if it will not return, an operator must decide"
    )]
    WaitingForOther {
        /// The node.
        node: NodeId,
        /// Why nothing is known of it.
        why: String,
    },
    /// The new master is gone before it was open.
    #[error("{master} was lost before epoch {epoch} became active: taking the group back")]
    Retaking {
        /// The new master.
        master: NodeId,
        /// Its epoch.
        epoch: u64,
    },
    /// The recorded master is not a master.
    #[error("the record names this node master, but its database follows another: refusing to act")]
    RoleLost,

    // A planned switchover.
    /// Another copy is made hot replica first.
    #[error("planned switchover: making {target} the hot replica first")]
    Preparing {
        /// The node.
        target: NodeId,
    },
    /// The switchover begins.
    #[error("planned switchover to {target}")]
    SwitchingTo {
        /// The node.
        target: NodeId,
    },
    /// Requests that are under way through the proxies are answered first.
    #[error("planned switchover: waiting until nothing is in flight through proxy {proxy}")]
    Quieting {
        /// The proxy.
        proxy: String,
    },
    /// Writes are held.
    #[error("holding writes until {target} has taken over")]
    Holding {
        /// The node.
        target: NodeId,
    },
    /// The disk takes no writes.
    #[error("the database's disk takes no writes: handing over to {target}")]
    DiskFailed {
        /// The hot replica.
        target: NodeId,
    },
    /// It did not come about.
    #[error("planned switchover given up: {why}")]
    SwitchGivenUp {
        /// Why.
        why: String,
    },
    /// A request is refused.
    #[error("refusing an operator's request: {why}")]
    Refusing {
        /// Why.
        why: String,
    },

    // What an operator asked of this node.
    /// It stops.
    #[error("draining: stopping the database")]
    DrainStopping,
    /// It has stopped.
    #[error("drained: the database is stopped; start the agent to bring the node back")]
    Drained,
    /// The request is taken on.
    #[error("taking on an operator's request: {what}")]
    TakingOn {
        /// What.
        what: String,
    },
    /// The copy is thrown away.
    #[error("throwing this copy away, to be cloned anew")]
    Reinitialising,
    /// A node with data to adopt came after the group was made.
    #[error(
        "adopt = true, but the group exists already and its data would replace the data here: nothing was started or touched. Set adopt = false and name an empty folder to join; or begin a new group"
    )]
    AdoptTooLate,
    /// Another node's data make the group.
    #[error("no record yet; node {node} brings the data that the group begins with")]
    WaitingForAdoption {
        /// The node.
        node: NodeId,
    },

    // A forced failover.
    /// The target stops receiving first.
    #[error("forced failover: {step}")]
    Forcing {
        /// What is being done.
        step: String,
    },

    // The hot replica.
    /// All is well.
    #[error("hot replica of {master}")]
    Understudying {
        /// The master.
        master: NodeId,
    },
    /// The master holds its writes, and its last bytes are on their way.
    #[error("planned switchover: at {has}, waiting for the master's {position}")]
    Reaching {
        /// Where the master stands.
        position: Position,
        /// Where this copy stands.
        has: Position,
    },
    /// The master cannot be heard, but somebody else hears it.
    #[error("no sign of {master}, but {witness} still reaches its database")]
    Witnessed {
        /// The master.
        master: NodeId,
        /// Who reaches it.
        witness: NodeId,
    },
    /// The master is silent, but the last takeover was a moment ago.
    #[error("no sign of {master}; the last takeover was less than flap_pause ago")]
    FlapPause {
        /// The master.
        master: NodeId,
    },
    /// The certificate is void.
    #[error("this copy may not be promoted: {flaw}")]
    NotPromotable {
        /// The rule.
        flaw: String,
    },
    /// The record is read again before anything is done.
    #[error("reading the record before taking over ({evidence})")]
    Rereading {
        /// The evidence.
        evidence: Evidence,
    },
    /// The replica is sealed.
    #[error("sealing before taking over ({evidence})")]
    Sealing {
        /// The evidence.
        evidence: Evidence,
    },
    /// `async`: the former master may still acknowledge by itself.
    #[error("sealed; waiting until the former master's guard has certainly closed ({evidence})")]
    GuardClosing {
        /// The evidence.
        evidence: Evidence,
    },
    /// The takeover is submitted.
    #[error("taking over ({evidence})")]
    TakingOver {
        /// The evidence.
        evidence: Evidence,
    },
    /// The grounds are gone.
    #[error("following {master} again: the grounds for a takeover are gone")]
    Unsealing {
        /// The master.
        master: NodeId,
    },

    // A spare.
    /// A master that the record does not name.
    #[error("deposed: {master} is master in epoch {epoch}; fencing this instance")]
    Deposed {
        /// The master.
        master: String,
        /// The epoch.
        epoch: u64,
    },
    /// A former master came back with data that may hold writes nobody else has.
    #[error("keeping the data this node had as master of epoch {epoch} as diverged-{epoch}, before it follows another")]
    Keeping {
        /// The epoch.
        epoch: u64,
    },
    /// Roles are changing.
    #[error("waiting for epoch {epoch} to become active")]
    WaitingForActive {
        /// The epoch.
        epoch: u64,
    },
    /// The password for spares is set.
    #[error("setting the password that spares replicate with")]
    OpeningChannel,
    /// No leave to follow yet.
    #[error("spare; waiting for leave to follow {source_node}")]
    WaitingForOffer {
        /// Whom.
        source_node: NodeId,
    },
    /// The record names no hot replica and another node is the candidate.
    #[error("spare; waiting for a hot replica to follow")]
    WaitingForReplica,
    /// It is told to follow.
    #[error("following {source_node}")]
    Following {
        /// Whom.
        source_node: NodeId,
    },
    /// It follows, the link is not up yet.
    #[error("connecting to {source_node}")]
    Connecting {
        /// Whom.
        source_node: NodeId,
    },
    /// It copies.
    #[error("copying from {source_node}")]
    Copying {
        /// Whom.
        source_node: NodeId,
    },
    /// All is well.
    #[error("spare behind {source_node}")]
    Spare {
        /// Whom it follows.
        source_node: NodeId,
    },
}

impl Reason {
    /// What people call the state of a group in which a node that it depends on says this, beyond the record's phase:
    /// [`Phase::Quarantine`] when the record cannot be trusted, [`Phase::Halted`] when nobody may be master.
    pub fn standing(&self) -> Option<Phase> {
        match self {
            Reason::RecordWentBack { .. }
            | Reason::OtherGroup { .. }
            | Reason::RecordUnreadable { .. }
            | Reason::RecordTooNew { .. }
            | Reason::RecordVanished { .. } => Some(Phase::Quarantine),
            Reason::Halted | Reason::WaitingForOther { .. } | Reason::MayNotResume { .. } | Reason::RoleLost => {
                Some(Phase::Halted)
            }
            _ => None,
        }
    }

    /// The variant's name in snake case, as serde writes it: a metric label, a JSON field.
    pub fn code(&self) -> String {
        let debug = format!("{self:?}");
        let mut code = String::new();
        for c in debug.chars().take_while(char::is_ascii_alphanumeric) {
            if c.is_ascii_uppercase() && !code.is_empty() {
                code.push('_');
            }
            code.push(c.to_ascii_lowercase());
        }
        code
    }
}
