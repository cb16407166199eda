//! What an agent sees, and since when: keeps the part of its snapshot true that comes from outside.

use super::BEAT_EVERY_MS;
use election::{
    Beat, Contact, Engine, EngineRole, Lineage, Millis, NodeId, Peer, Position, Proposal, Snapshot, Stamp, Status,
    View, Witness,
};
use std::collections::BTreeSet;

/// An answer of the watch that lies before what a read or an own write has shown was on its way when they happened. It
/// put aside for this long; when nothing newer has come until then, a lower index means that Consul's data went back.
const LATE_VIEW_MS: u64 = 2_000;

/// A run of a peer's agent that was taken for the former one, and goes on calling while the other has been silent for
/// this long, is the present one after all. Far longer than the pause between two beats.
const FORMER_RUN_MS: u64 = 2_000;

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
    /// The names of the living proxies that hold requests back while roles change.
    Proxies(BTreeSet<String>),
    /// One of them says that it does, under this record, and that nothing is in flight through it.
    Quiet {
        /// The proxy.
        proxy: String,
        /// The record.
        stamp: Stamp,
    },
}

/// What a proxy can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Nothing at present.
    Nothing,
    /// Whether it still reaches the master's database: asked by a hot replica that has lost sight of it.
    Witness,
    /// Whether nothing is in flight through it under this record or a later one: asked by a master that hands over.
    Quiet(Stamp),
}

/// What calling an address has shown. That nothing came back is no event: silence is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// It answered.
    Heard,
    /// The machine refused the connection: nobody listens.
    Refused,
}

/// What it takes to keep a snapshot true, and is no part of it.
pub(super) struct Observed {
    /// When a read or an own write last set the view.
    certain_since: Millis,
    /// When the record last was a newer one.
    newer_since: Millis,
    /// The last answer of the watch, when it lies before the view.
    late: Option<Box<View>>,
    engine_answered: Millis,
    /// The history the local database wrote, and how far, when it was last seen as a master.
    pub(super) mastered: Option<(Lineage, Position)>,
    last_awake: Millis,
}

impl Observed {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            certain_since: Millis::default(),
            newer_since: Millis::default(),
            late: None,
            engine_answered: now,
            mastered: None,
            last_awake: now,
        }
    }

    /// An agent that did not run for two beats was deaf in that time: silence counts from its waking.
    pub(super) fn awake(&mut self, s: &mut Snapshot, now: Millis) {
        if now.since(self.last_awake) > 2 * BEAT_EVERY_MS {
            s.awake_since = now;
        }
        self.last_awake = self.last_awake.max(now);
        if self.late.is_some()
            && now.since(self.certain_since) >= LATE_VIEW_MS
            && let Some(view) = self.late.take()
        {
            self.adopt(s, now, *view);
        }
    }

    pub(super) fn take_in(&mut self, s: &mut Snapshot, now: Millis, event: Event) {
        match event {
            Event::Watched(view) if self.is_late(s, now, &view) => {
                s.view.reachable = true;
                // The watch says this once; it says no more until something changes again.
                self.late = Some(view);
            }
            Event::Watched(view) => {
                self.late = None;
                self.adopt(s, now, *view);
            }
            // The watch was faster: what is known is later than this answer, and is not said a second time.
            Event::Read(view) if view.index < s.view.index && view.read_at <= Some(self.newer_since) => {
                (s.view.reachable, s.view.read_at) = (true, view.read_at);
            }
            Event::Written(view) if view.index < s.view.index => s.view.reachable = true,
            Event::Read(view) | Event::Written(view) => {
                self.late = None;
                self.certain_since = now;
                self.adopt(s, now, *view);
            }
            Event::ConsulLost => s.view.reachable = false,
            Event::Session(session) => s.view.session = session,
            Event::Engine(engine) => self.engine_answers(s, now, engine),
            Event::Beat(beat) => beat_arrives(s, now, *beat),
            Event::Agent(id, sighting) => {
                if let Some(peer) = s.peers.get_mut(&id) {
                    refuse_or_hear(now, &mut peer.refused_since, sighting);
                }
            }
            Event::Witness { proxy, epoch, ago_ms } => {
                let reached = Millis(now.0.saturating_sub(ago_ms));
                s.witnesses.insert(proxy, Witness { epoch, reached });
            }
            Event::Proxies(names) => {
                let known = std::mem::take(&mut s.proxies);
                s.proxies = names.into_iter().map(|name| (name.clone(), known.get(&name).copied().flatten())).collect();
            }
            Event::Quiet { proxy, stamp } => {
                if let Some(said) = s.proxies.get_mut(&proxy) {
                    *said = Some(stamp);
                }
            }
            Event::MasterDatabase(sighting) => {
                refuse_or_hear(now, &mut s.master_db.refused_since, sighting);
                if sighting == Sighting::Heard {
                    s.master_db.heard = Some(now);
                }
            }
        }
    }

    /// How long the local database has given no answer, when it gives none.
    pub(super) fn silent_ms(&self, s: &Snapshot, now: Millis) -> Option<u64> {
        matches!(s.engine, Engine::Silent { .. }).then(|| now.since(self.engine_answered.max(s.awake_since)))
    }

    fn is_late(&self, s: &Snapshot, now: Millis, view: &View) -> bool {
        view.index < s.view.index && now.since(self.certain_since) < LATE_VIEW_MS
    }

    fn adopt(&mut self, s: &mut Snapshot, now: Millis, mut view: View) {
        if view.index > s.view.index {
            self.newer_since = now;
        }
        let before = s.view.record.as_ref();
        let after = view.record.as_ref();
        let ours = after.filter(|record| s.memory.uid.as_ref().is_none_or(|uid| *uid == record.uid));
        s.newest = s.newest.max(ours.map(|record| record.stamp()).unwrap_or_default());
        let (was, is) = (before.map(|r| r.epoch), after.map(|r| r.epoch));
        if was != is {
            // At an agent's start nothing is known of when the epoch began: it counts as long ago.
            s.epoch_since = if was.is_some() { now } else { s.epoch_since };
        }
        if was != is || before.map(|r| r.phase) != after.map(|r| r.phase) {
            s.phase_since = now;
        }
        if before.and_then(|r| r.master.as_ref()) != after.and_then(|r| r.master.as_ref()) {
            s.master_db = Contact::default();
            s.link_heard = None;
        }
        if before.and_then(|r| r.replica.as_ref()) != after.and_then(|r| r.replica.as_ref()) {
            s.replica_acked = Some(now);
        }
        view.session.clone_from(&s.view.session);
        view.read_at = view.read_at.or(s.view.read_at);
        // A policy that is gone or cannot be read changes no promise: the last one seen stays in force.
        view.policy = view.policy.or_else(|| s.view.policy.take());
        s.view = view;
    }

    fn engine_answers(&mut self, s: &mut Snapshot, now: Millis, engine: Engine) {
        let engine = match engine {
            // The engine itself may know of a later sign of life: a refusal says that the server lives.
            Engine::Silent { since, incarnation } => {
                self.engine_answered = self.engine_answered.max(since);
                Engine::Silent { since: self.engine_answered, incarnation }
            }
            other => {
                self.engine_answered = now;
                other
            }
        };
        if let Engine::Up(status) = &engine {
            self.hear_link(s, now, status);
            self.hear_replica(s, now, status);
            s.sealed_since = status.is_sealed().then(|| s.sealed_since.unwrap_or(now));
            if status.is_master() {
                self.mastered = Some((status.lineage.clone(), status.position));
            }
        }
        s.engine = engine;
    }

    /// A byte over the replication link shows as a position that moved.
    fn hear_link(&mut self, s: &mut Snapshot, now: Millis, status: &Status) {
        let EngineRole::Follows { link_up: true, .. } = &status.role else { return };
        let before = s.engine.status();
        let was_up = before.is_some_and(|st| matches!(st.role, EngineRole::Follows { link_up: true, .. }));
        if !was_up || before.map(|st| st.position) != Some(status.position) {
            s.link_heard = Some(now);
        }
    }

    /// An acknowledgement shows as a position that moved, or as a small age.
    fn hear_replica(&mut self, s: &mut Snapshot, now: Millis, status: &Status) {
        let Some(replica) = s.view.record.as_ref().and_then(|r| r.replica.as_ref()) else { return };
        let address = s.peers.get(&replica.id).map(|p| &p.beat.database);
        let Some(link) = status.replicas.iter().find(|r| r.online && address.is_none_or(|a| *a == r.address)) else {
            return;
        };
        let before = s.engine.status().and_then(|st| st.replicas.iter().find(|r| r.address == link.address));
        let moved = before.is_some_and(|b| b.position != link.position);
        let heard = if moved { now } else { Millis(now.0.saturating_sub(link.lag_s * 1_000)) };
        s.replica_acked = Some(s.replica_acked.unwrap_or_default().max(heard));
    }
}

/// The view as it stands once `proposal` has been applied at `index`.
pub(super) fn after(view: &View, proposal: &Proposal, index: u64) -> View {
    let mut view = view.clone();
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

fn beat_arrives(s: &mut Snapshot, now: Millis, beat: Beat) {
    if beat.group != s.me.group || beat.from == s.me.id {
        return;
    }
    let known = s.peers.get(&beat.from);
    if known.is_some_and(|known| is_overtaken(known, &beat, now)) {
        return;
    }
    let now_master = beat.engine.status().filter(|st| st.is_master()).map(|st| (st.lineage.clone(), st.position));
    let mastered = now_master.or_else(|| beat.mastered.clone()).or_else(|| known?.mastered.clone());
    let former_boot = match known {
        Some(known) if known.beat.boot != beat.boot => Some(known.beat.boot.clone()),
        known => known.and_then(|known| known.former_boot.clone()),
    };
    s.peers.insert(beat.from.clone(), Peer { beat, heard: now, refused_since: None, mastered, former_boot });
}

/// Whether a later beat has arrived before this one. What an older one says would look like a change back.
///
/// Which of two runs is the former is known by what came first, and that may have been on its way for long: the run that
/// counts is the one that goes on calling.
fn is_overtaken(known: &Peer, beat: &Beat, now: Millis) -> bool {
    let earlier = known.beat.boot == beat.boot && beat.sent < known.beat.sent;
    let former = known.former_boot.as_ref() == Some(&beat.boot) && now.since(known.heard) < FORMER_RUN_MS;
    earlier || former
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
    use super::super::tests::me;
    use super::*;
    use election::{Address, Memory, Policy};

    fn view(index: u64) -> Box<View> {
        Box::new(View { seen: true, reachable: true, index, ..View::default() })
    }

    #[test]
    fn an_answer_that_lies_back_counts_when_nothing_newer_comes() {
        let mut observed = Observed::new(Millis(0));
        let mut s = Snapshot::new(me(), Policy::default(), Memory::default(), Millis(0));
        observed.take_in(&mut s, Millis(1_000), Event::Read(view(9)));
        observed.take_in(&mut s, Millis(1_100), Event::Watched(view(0)));
        observed.awake(&mut s, Millis(1_000 + LATE_VIEW_MS - 1));
        assert_eq!(s.view.index, 9);
        observed.awake(&mut s, Millis(1_000 + LATE_VIEW_MS));
        assert_eq!(s.view.index, 0, "the watch says a deletion once");

        observed.take_in(&mut s, Millis(4_000), Event::Read(view(9)));
        observed.take_in(&mut s, Millis(4_100), Event::Watched(view(8)));
        observed.take_in(&mut s, Millis(4_200), Event::Watched(view(10)));
        observed.awake(&mut s, Millis(9_000));
        assert_eq!(s.view.index, 10, "it was on its way");
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_takes_nothing_back() {
        let mut observed = Observed::new(Millis(0));
        let mut s = Snapshot::new(me(), Policy::default(), Memory::default(), Millis(0));
        let read = |index, began| Event::Read(Box::new(View { read_at: Some(Millis(began)), ..*view(index) }));
        observed.take_in(&mut s, Millis(1_000), read(9, 990));
        observed.take_in(&mut s, Millis(1_100), Event::Watched(view(11)));
        observed.take_in(&mut s, Millis(1_200), read(9, 1_050));
        assert_eq!((s.view.index, s.view.read_at), (11, Some(Millis(1_050))));
        observed.take_in(&mut s, Millis(1_300), Event::Written(view(10)));
        assert_eq!(s.view.index, 11, "another has written since");
        observed.take_in(&mut s, Millis(1_400), read(9, 1_350));
        assert_eq!(s.view.index, 9, "begun after that: Consul's data went back");
    }

    #[test]
    fn a_policy_that_vanishes_stays_in_force() {
        let mut observed = Observed::new(Millis(0));
        let mut s = Snapshot::new(me(), Policy::default(), Memory::default(), Millis(0));
        let policy = Policy { max_lag: 5, ..Policy::default() };
        let with = View { policy: Some(policy.clone()), ..*view(9) };
        observed.take_in(&mut s, Millis(1), Event::Watched(Box::new(with)));
        observed.take_in(&mut s, Millis(2), Event::Watched(view(10)));
        assert_eq!(s.view.policy, Some(policy));
    }

    fn beat(boot: &str, sent: u64, engine: Engine) -> Event {
        Event::Beat(Box::new(Beat {
            group: "g".to_owned(),
            from: NodeId::from("db2"),
            boot: boot.to_owned(),
            sent: Millis(sent),
            database: Address::new("10.0.0.2", 6379),
            stamp: Stamp::default(),
            engine,
            silent_ms: None,
            reached_master_ms: None,
            mastered: Some((Lineage("l".to_owned()), Position(7))),
            quiesced_at: None,
            offer: None,
            zone: None,
            priority: 100,
        }))
    }

    #[test]
    fn a_beat_that_was_overtaken_says_nothing() {
        let mut observed = Observed::new(Millis(0));
        let mut s = Snapshot::new(me(), Policy::default(), Memory::default(), Millis(0));
        let down = || Engine::Down { why: "killed".to_owned() };
        let arrivals = [
            (beat("x", 50, down()), 50, "x"),
            (beat("x", 90, Engine::Unknown), 90, "x"),
            (beat("x", 70, down()), 90, "x"),
            (beat("y", 5, Engine::Unknown), 5, "y"),
            (beat("x", 99, down()), 5, "y"),
            (beat("y", 6, Engine::Unknown), 6, "y"),
        ];
        for (now, (event, sent, boot)) in (1..).zip(arrivals) {
            observed.take_in(&mut s, Millis(now), event);
            let peer = &s.peers[&NodeId::from("db2")];
            assert_eq!((peer.beat.sent, peer.beat.boot.as_str()), (Millis(sent), boot), "arrival {now}");
        }
        let peer = &s.peers[&NodeId::from("db2")];
        assert_eq!((&peer.beat.engine, peer.heard), (&Engine::Unknown, Millis(6)));
        assert_eq!(peer.mastered, Some((Lineage("l".to_owned()), Position(7))), "its agent knows how far it came");
    }

    #[test]
    fn a_run_that_goes_on_calling_is_not_the_former_one() {
        let mut observed = Observed::new(Millis(0));
        let mut s = Snapshot::new(me(), Policy::default(), Memory::default(), Millis(0));
        let mut hear = |now, boot, sent| {
            observed.take_in(&mut s, Millis(now), beat(boot, sent, Engine::Unknown));
            s.peers[&NodeId::from("db2")].beat.boot.clone()
        };
        assert_eq!(hear(1, "new", 5), "new");
        assert_eq!(hear(2, "old", 900), "old", "it was on its way when its sender ended, and nothing tells it apart");
        assert_eq!(hear(1_000, "new", 6), "old");
        assert_eq!(hear(2 + FORMER_RUN_MS, "new", 7), "new");
        assert_eq!(hear(3 + FORMER_RUN_MS, "old", 950), "new");
    }
}
