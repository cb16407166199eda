//! What an agent has seen, and since when: the part of a snapshot that comes from outside.

use super::BEAT_EVERY_MS;
use election::{Beat, Contact, Engine, EngineRole, Me, Millis, NodeId, Peer, Proposal, Status, View, Witness};
use std::collections::BTreeMap;

/// An answer of the watch that lies before what a read or an own write has shown was on its way when they happened. It
/// put aside for this long; when nothing newer has come until then, a lower index means that Consul's data went back.
const LATE_VIEW_MS: u64 = 2_000;

/// Something that arrived.
#[derive(Debug, Clone)]
pub enum Event {
    /// The watch on the group's keys has answered.
    Watched(Box<View>),
    /// A consistent read has answered; its `read_at` is when it began.
    Read(Box<View>),
    /// An own write was applied, and this is what stands there now.
    Written(Box<View>),
    /// Consul does not answer.
    ConsulLost,
    /// This agent's session.
    Session(Option<String>),
    /// The database was asked, or has ended.
    Engine(Engine),
    /// A peer's beat.
    Beat(Box<Beat>),
    /// A peer's agent was called.
    Agent(NodeId, Sighting),
    /// The recorded master's database was called.
    MasterDatabase(Sighting),
    /// A proxy's word that it had bytes from the database of `epoch`'s master so many milliseconds ago.
    Witness {
        /// The proxy.
        proxy: String,
        /// The epoch.
        epoch: u64,
        /// How long ago.
        ago_ms: u64,
    },
}

/// What calling an address has shown. That nothing came back is no event: silence is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// It answered.
    Heard,
    /// The machine refused the connection: nobody listens.
    Refused,
}

/// See the module.
pub(super) struct Observed {
    pub(super) view: View,
    /// When a read or an own write last set the view.
    certain_since: Millis,
    /// The last answer of the watch, when it lies before the view.
    late: Option<Box<View>>,
    pub(super) engine: Engine,
    engine_answered: Millis,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) master_db: Contact,
    pub(super) witnesses: BTreeMap<String, Witness>,
    pub(super) link_heard: Option<Millis>,
    pub(super) sealed_since: Option<Millis>,
    pub(super) replica_acked: Option<Millis>,
    pub(super) epoch_since: Millis,
    pub(super) phase_since: Millis,
    pub(super) awake_since: Millis,
    last_awake: Millis,
}

impl Observed {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            view: View::default(),
            certain_since: Millis::default(),
            late: None,
            engine: Engine::Unknown,
            engine_answered: now,
            peers: BTreeMap::new(),
            master_db: Contact::default(),
            witnesses: BTreeMap::new(),
            link_heard: None,
            sealed_since: None,
            replica_acked: None,
            epoch_since: Millis::default(),
            phase_since: now,
            awake_since: now,
            last_awake: now,
        }
    }

    /// An agent that did not run for two beats was deaf in that time: silence counts from its waking.
    pub(super) fn awake(&mut self, now: Millis) {
        if now.since(self.last_awake) > 2 * BEAT_EVERY_MS {
            self.awake_since = now;
        }
        self.last_awake = self.last_awake.max(now);
        if self.late.is_some()
            && now.since(self.certain_since) >= LATE_VIEW_MS
            && let Some(view) = self.late.take()
        {
            self.adopt(now, *view);
        }
    }

    pub(super) fn take_in(&mut self, now: Millis, me: &Me, event: Event) {
        match event {
            Event::Watched(view) if self.is_late(now, &view) => {
                self.view.reachable = true;
                // The watch says this once; it says no more until something changes again.
                self.late = Some(view);
            }
            Event::Watched(view) => {
                self.late = None;
                self.adopt(now, *view);
            }
            Event::Read(view) | Event::Written(view) => {
                self.late = None;
                self.certain_since = now;
                self.adopt(now, *view);
            }
            Event::ConsulLost => self.view.reachable = false,
            Event::Session(session) => self.view.session = session,
            Event::Engine(engine) => self.engine_answers(now, engine),
            Event::Beat(beat) => self.beat(now, me, *beat),
            Event::Agent(id, sighting) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    refuse_or_hear(now, &mut peer.refused_since, sighting);
                }
            }
            Event::Witness { proxy, epoch, ago_ms } => {
                let reached = Millis(now.0.saturating_sub(ago_ms));
                self.witnesses.insert(proxy, Witness { epoch, reached });
            }
            Event::MasterDatabase(sighting) => {
                refuse_or_hear(now, &mut self.master_db.refused_since, sighting);
                if sighting == Sighting::Heard {
                    self.master_db.heard = Some(now);
                }
            }
        }
    }

    /// How long the local database has given no answer, when it gives none.
    pub(super) fn silent_ms(&self, now: Millis) -> Option<u64> {
        matches!(self.engine, Engine::Silent { .. }).then(|| now.since(self.engine_answered.max(self.awake_since)))
    }

    /// The view as it stands once `proposal` has been applied at `index`.
    pub(super) fn after(&self, proposal: &Proposal, index: u64) -> View {
        let mut view = self.view.clone();
        view.record = Some(proposal.record.clone());
        view.index = index;
        view.reachable = true;
        if let Some(take) = &proposal.take_leader {
            view.leader = Some(take.to.clone());
        }
        if proposal.policy.is_some() {
            view.policy.clone_from(&proposal.policy);
        }
        if proposal.consume.is_some() {
            view.command = None;
        }
        view
    }

    fn is_late(&self, now: Millis, view: &View) -> bool {
        view.index < self.view.index && now.since(self.certain_since) < LATE_VIEW_MS
    }

    fn adopt(&mut self, now: Millis, mut view: View) {
        let before = self.view.record.as_ref();
        let after = view.record.as_ref();
        let (was, is) = (before.map(|r| r.epoch), after.map(|r| r.epoch));
        if was != is {
            // At an agent's start nothing is known of when the epoch began: it counts as long ago.
            self.epoch_since = if was.is_some() { now } else { self.epoch_since };
        }
        if was != is || before.map(|r| r.phase) != after.map(|r| r.phase) {
            self.phase_since = now;
        }
        if before.and_then(|r| r.master.as_ref()) != after.and_then(|r| r.master.as_ref()) {
            self.master_db = Contact::default();
            self.link_heard = None;
        }
        if before.and_then(|r| r.replica.as_ref()) != after.and_then(|r| r.replica.as_ref()) {
            self.replica_acked = Some(now);
        }
        view.session.clone_from(&self.view.session);
        view.read_at = view.read_at.or(self.view.read_at);
        // A policy that is gone or cannot be read changes no promise: the last one seen stays in force.
        view.policy = view.policy.or_else(|| self.view.policy.take());
        self.view = view;
    }

    fn engine_answers(&mut self, now: Millis, engine: Engine) {
        let engine = match engine {
            Engine::Silent { incarnation, .. } => Engine::Silent { since: self.engine_answered, incarnation },
            other => {
                self.engine_answered = now;
                other
            }
        };
        if let Engine::Up(status) = &engine {
            self.hear_link(now, status);
            self.hear_replica(now, status);
            self.sealed_since = status.is_sealed().then(|| self.sealed_since.unwrap_or(now));
        }
        self.engine = engine;
    }

    /// A byte over the replication link shows as a position that moved.
    fn hear_link(&mut self, now: Millis, status: &Status) {
        let EngineRole::Follows { link_up: true, .. } = &status.role else { return };
        let before = self.engine.status();
        let was_up = before.is_some_and(|st| matches!(st.role, EngineRole::Follows { link_up: true, .. }));
        if !was_up || before.map(|st| st.position) != Some(status.position) {
            self.link_heard = Some(now);
        }
    }

    /// An acknowledgement shows as a position that moved, or as a small age.
    fn hear_replica(&mut self, now: Millis, status: &Status) {
        let Some(replica) = self.view.record.as_ref().and_then(|r| r.replica.as_ref()) else { return };
        let address = self.peers.get(&replica.id).map(|p| &p.beat.database);
        let Some(link) = status.replicas.iter().find(|r| r.online && address.is_none_or(|a| *a == r.address)) else {
            return;
        };
        let before = self.engine.status().and_then(|st| st.replicas.iter().find(|r| r.address == link.address));
        let moved = before.is_some_and(|b| b.position != link.position);
        let heard = if moved { now } else { Millis(now.0.saturating_sub(link.lag_s * 1_000)) };
        self.replica_acked = Some(self.replica_acked.unwrap_or_default().max(heard));
    }

    fn beat(&mut self, now: Millis, me: &Me, beat: Beat) {
        if beat.group != me.group || beat.from == me.id {
            return;
        }
        let id = beat.from.clone();
        let now_master = beat.engine.status().filter(|st| st.is_master()).map(|st| (st.lineage.clone(), st.position));
        let mastered = now_master.or_else(|| self.peers.get(&id).and_then(|p| p.mastered.clone()));
        self.peers.insert(id, Peer { beat, heard: now, refused_since: None, mastered });
    }
}

fn refuse_or_hear(now: Millis, refused_since: &mut Option<Millis>, sighting: Sighting) {
    match sighting {
        Sighting::Heard => *refused_since = None,
        Sighting::Refused => {
            refused_since.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::{Address, Policy};

    fn me() -> Me {
        Me {
            id: NodeId::from("db1"),
            database: Address::new("10.0.0.1", 6379),
            zone: None,
            priority: 100,
            adopt: false,
            boot: "b".to_owned(),
            group: "g".to_owned(),
        }
    }

    fn view(index: u64) -> Box<View> {
        Box::new(View { seen: true, reachable: true, index, ..View::default() })
    }

    #[test]
    fn an_answer_that_lies_back_counts_when_nothing_newer_comes() {
        let mut observed = Observed::new(Millis(0));
        observed.take_in(Millis(1_000), &me(), Event::Read(view(9)));
        observed.take_in(Millis(1_100), &me(), Event::Watched(view(0)));
        observed.awake(Millis(1_000 + LATE_VIEW_MS - 1));
        assert_eq!(observed.view.index, 9);
        observed.awake(Millis(1_000 + LATE_VIEW_MS));
        assert_eq!(observed.view.index, 0, "the watch says a deletion once");

        observed.take_in(Millis(4_000), &me(), Event::Read(view(9)));
        observed.take_in(Millis(4_100), &me(), Event::Watched(view(8)));
        observed.take_in(Millis(4_200), &me(), Event::Watched(view(10)));
        observed.awake(Millis(9_000));
        assert_eq!(observed.view.index, 10, "it was on its way");
    }

    #[test]
    fn a_policy_that_vanishes_stays_in_force() {
        let mut observed = Observed::new(Millis(0));
        let policy = Policy { max_lag: 5, ..Policy::default() };
        let with = View { policy: Some(policy.clone()), ..*view(9) };
        observed.take_in(Millis(1), &me(), Event::Watched(Box::new(with)));
        observed.take_in(Millis(2), &me(), Event::Watched(view(10)));
        assert_eq!(observed.view.policy, Some(policy));
    }
}
