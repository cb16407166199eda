//! One group's agent without its input and output: what arrives goes in as [`Event`]s, what to do comes out as one
//! [`Effect`] at a time, and the clock is an argument. The driver carries effects out on the real Consul, database and
//! disk; the simulation on models of them. Both run exactly this.
//!
//! The contract of a caller: hand in everything that arrives with [`Step::handle`]; call [`Step::poll`] after it, and
//! no later than the instant it named; carry its effect out and hand the result in with [`Step::done`], whatever it is;
//! send [`Step::beat`] to every peer every [`BEAT_EVERY_MS`], and at once when [`Step::news`] has changed.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod observed;

pub use observed::{Asking, Event, Sighting};

use election::{
    Action, Beat, Certifying, Command, CommandOp, Decision, Duty, Engine, EngineOp, Fresh, Me, Memory, Millis, NodeId,
    Nonce, Outcome, Phase, Policy, Proposal, Purpose, Reason, Record, Secret, Snapshot, Stamp, Taking, View, Writing,
    busy_proxy, decide, invariants,
};
use observed::Observed;
use std::mem::discriminant;

/// How often agents tell each other that they live: four beats fit into the default `detect_after`, so that one that
/// is lost on the way raises no suspicion.
pub const BEAT_EVERY_MS: u64 = 250;

/// How long a draining master may take to hand over: a certification takes longest, of a copy that has to be made.
pub const DRAIN_LIMIT_MS: u64 = 30_000;

/// After a call to Consul that failed, the next waits this long.
const CONSUL_BACKOFF_MS: u64 = 100;

/// After the node's own disk failed, the next try waits this long.
const MEMORY_BACKOFF_MS: u64 = 1_000;

/// After an operation of the database that failed, the next waits this long.
const ENGINE_BACKOFF_MS: u64 = 50;

/// The pause before a database that does not stay up is started again, doubled each time up to the second figure.
const START_BACKOFF_MS: (u64, u64) = (250, 5_000);

/// A database that has run this long has started well.
const STAYED_UP_MS: u64 = 10_000;

/// One thing to carry out.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The record it was decided for: the receiver refuses an older one than it has seen.
    pub stamp: Stamp,
    /// What.
    pub what: What,
}

/// What an [`Effect`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Read the group from Consul, consistently.
    Read,
    /// Put this on disk, so that it is there after a power cut.
    Remember(Memory),
    /// Submit one transaction.
    Submit(Box<Proposal>),
    /// Answer an operator's request.
    Answer {
        /// What became of it.
        outcome: Outcome,
        /// Its ModifyIndex.
        command_index: u64,
    },
    /// Do this to the database, then ask it how it is.
    Engine(EngineOp),
}

/// What became of an [`Effect`].
#[derive(Debug, Clone)]
pub enum Done {
    /// Of [`What::Read`]; `None`: Consul did not answer.
    Read(Option<Box<View>>),
    /// Of [`What::Remember`].
    Remembered(Result<Memory, String>),
    /// Of [`What::Submit`].
    Submitted(Box<Proposal>, Written),
    /// Of [`What::Answer`].
    Answered(Written),
    /// Of [`What::Engine`], with what the database said afterwards.
    Engine(EngineOp, Result<(), String>, Engine),
}

/// What became of a write to Consul. Unknown is a value of its own: the write may still be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was applied; the record has this ModifyIndex now.
    Applied {
        /// The index.
        index: u64,
    },
    /// It was refused: something was not as it was read.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What [`Step::poll`] wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// To be carried out now.
    pub effect: Option<Effect>,
    /// When to poll again at the latest.
    pub revisit: Millis,
    /// The database should be asked how it is more often than usual.
    pub watchful: bool,
}

/// What the peers were last told, as far as they are told at once when it changes.
struct Told {
    record: Option<Stamp>,
    engine: Engine,
    certifying: Option<Certifying>,
}

/// Whether the peers may learn of the difference with the next beat.
fn is_no_news(before: &Engine, now: &Engine) -> bool {
    let (Engine::Up(old), Engine::Up(new)) = (before, now) else { return before == now };
    let marked = |status: &election::Status| status.marker.as_ref().map(|m| (m.nonce.clone(), m.epoch));
    old.incarnation == new.incarnation
        && old.role == new.role
        && marked(old) == marked(new)
        && old.persisted == new.persisted
        && old.fsync == new.fsync
        && old.loading == new.loading
        && old.channel == new.channel
        && old.quiesced == new.quiesced
}

fn draw(random: &mut impl FnMut() -> String) -> Fresh {
    Fresh { nonce: Nonce(random()), secret: Secret::new(random()) }
}

/// The agent of one group on one node.
pub struct Step {
    /// What every decision is made from, kept up to date: a copy for each would cost more than deciding does.
    known: Snapshot,
    file_policy: Policy,
    observed: Observed,
    must_read: bool,
    in_flight: bool,
    /// A database is being told that its disk may lag: whatever it says of itself meanwhile may not be true any more.
    loosening: bool,
    not_before: Millis,
    /// The request that is being answered with yes.
    taking_on: Option<Command>,
    /// One whose answer may have been applied: nobody knows until it is seen to stand, or to be gone.
    in_doubt: Option<Command>,
    start_backoff: u64,
    started: Option<Millis>,
    reason: Reason,
    told: Option<Told>,
    news: u64,
    violation: Option<invariants::Violation>,
    random: Box<dyn FnMut() -> String + Send>,
}

impl Step {
    /// A freshly started agent: `memory` is what its disk holds, `policy` what its file says for a new group, `random`
    /// gives a text that nobody can guess, another each time.
    pub fn new(
        me: Me,
        policy: Policy,
        memory: Memory,
        now: Millis,
        mut random: impl FnMut() -> String + Send + 'static,
    ) -> Self {
        let mut known = Snapshot::new(me, policy.clone(), memory, now);
        known.fresh = draw(&mut random);
        Self {
            known,
            file_policy: policy,
            observed: Observed::new(now),
            must_read: false,
            in_flight: false,
            loosening: false,
            not_before: Millis::default(),
            taking_on: None,
            in_doubt: None,
            start_backoff: START_BACKOFF_MS.0,
            started: None,
            reason: Reason::ConsulUnseen,
            told: None,
            news: 0,
            violation: None,
            random: Box::new(random),
        }
    }

    /// Takes in something that arrived.
    pub fn handle(&mut self, now: Millis, mut event: Event) {
        self.observed.awake(&mut self.known, now);
        if let (Event::Engine(Engine::Up(status)), true) = (&mut event, self.loosening) {
            status.fsync = false;
        }
        if let Event::Engine(engine) = &event {
            self.engine_changed(now, engine);
        }
        self.observed.take_in(&mut self.known, now, event);
        self.forget_what_ended();
    }

    /// Decides, and says what to carry out now.
    pub fn poll(&mut self, now: Millis, wall: u64) -> Poll {
        self.observed.awake(&mut self.known, now);
        let at_latest = now.plus(BEAT_EVERY_MS);
        if self.in_flight {
            return Poll { effect: None, revisit: at_latest, watchful: true };
        }
        // A nomination is remembered, not carried out: decide again with it. More than a few in a row would be a loop.
        for _ in 0..4 {
            let decision = self.decide(now, wall);
            let (action, revisit) = (decision.action, decision.revisit);
            match action {
                Action::Nominate { candidate, incarnation } => {
                    let nonce = self.draw().nonce;
                    self.known.certifying = Some(Certifying { candidate, incarnation, nonce, since: now });
                }
                Action::Abandon => self.known.certifying = None,
                action => {
                    self.refresh_news();
                    let watchful = action != Action::Wait || revisit.is_some_and(|at| at.since(now) < 50);
                    let effect = self.effect(now, action);
                    let revisit = revisit.unwrap_or(at_latest).min(at_latest);
                    let held = effect.is_none() && self.not_before > now;
                    let revisit = if held { revisit.min(self.not_before) } else { revisit };
                    return Poll { effect, revisit, watchful: watchful || self.is_changing() };
                }
            }
        }
        Poll { effect: None, revisit: at_latest, watchful: true }
    }

    /// Takes in what became of the effect that `poll` gave.
    pub fn done(&mut self, now: Millis, done: Done) {
        (self.in_flight, self.loosening) = (false, false);
        match done {
            Done::Read(Some(view)) => {
                self.must_read = false;
                self.handle(now, Event::Read(view));
                self.resolve_doubt(now);
            }
            Done::Read(None) => self.consul_failed(now),
            Done::Remembered(Ok(memory)) => self.known.memory = memory,
            Done::Remembered(Err(why)) => {
                self.reason = Reason::MemoryFails { why };
                self.not_before = now.plus(MEMORY_BACKOFF_MS);
            }
            Done::Submitted(proposal, written) => self.submitted(now, *proposal, written),
            Done::Answered(written) => {
                let taking_on = self.taking_on.take();
                self.must_read = true;
                match written {
                    Written::Applied { .. } => self.take_on(now, taking_on),
                    // It may be an earlier answer that has consumed it.
                    Written::Refused => {}
                    Written::Unknown => {
                        self.in_doubt = taking_on.or(self.in_doubt.take());
                        self.consul_failed(now);
                    }
                }
            }
            Done::Engine(op, result, engine) => self.engine_done(now, op, result, engine),
        }
    }

    /// Begins to drain: the node hands over what it is master of, and stops its database within [`DRAIN_LIMIT_MS`].
    pub fn drain(&mut self, now: Millis) {
        self.known.duty.get_or_insert(Duty::Drain { until: now.plus(DRAIN_LIMIT_MS) });
    }

    /// What it has taken on and not done yet.
    pub fn duty(&self) -> Option<Duty> {
        self.known.duty
    }

    /// A draining master has a hot replica and no request to hand over to it is there: one is to be made.
    pub fn wants_handover(&self) -> bool {
        let view = &self.known.view;
        let hands_over = |r: &election::Record| {
            r.is_master(&self.known.me.id) && r.phase == Phase::Active && r.replica.is_some() && view.command.is_none()
        };
        matches!(self.known.duty, Some(Duty::Drain { .. }))
            && view.reachable
            && view.record.as_ref().is_some_and(hands_over)
    }

    /// The beat for a peer.
    pub fn beat(&self, now: Millis, to: &NodeId) -> Beat {
        let snapshot = &self.known;
        let quiesced = snapshot.status().filter(|st| st.quiesced && st.is_master());
        let reached = snapshot.record().and(snapshot.master_db.heard).map(|at| now.since(at));
        Beat {
            group: self.known.me.group.clone(),
            from: self.known.me.id.clone(),
            boot: self.known.me.boot.clone(),
            sent: now,
            database: self.known.me.database.clone(),
            stamp: snapshot.record().map(election::Record::stamp).unwrap_or_default(),
            silent_ms: self.observed.silent_ms(snapshot, now),
            reached_master_ms: reached,
            mastered: self.observed.mastered.clone(),
            quiesced_at: quiesced.map(|st| st.position),
            offer: election::offer(snapshot, to),
            zone: self.known.me.zone.clone(),
            priority: self.known.me.priority,
            engine: snapshot.engine.clone(),
        }
    }

    /// Changes whenever the peers should hear at once of what changed here.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// What the agent is doing, or waiting for.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// What the agent knows of Consul.
    pub fn view(&self) -> &View {
        &self.known.view
    }

    /// What it knows of its database.
    pub fn engine(&self) -> &Engine {
        &self.known.engine
    }

    /// This node.
    pub fn me(&self) -> &Me {
        &self.known.me
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        self.known.view.policy.as_ref().unwrap_or(&self.file_policy)
    }

    /// What is on its disk.
    pub fn memory(&self) -> &Memory {
        &self.known.memory
    }

    /// What a peer last said.
    pub fn peer(&self, id: &NodeId) -> Option<&election::Peer> {
        self.known.peers.get(id)
    }

    /// What the proxies are to be asked now.
    pub fn asking(&self, now: Millis) -> Asking {
        match &self.known.view.record {
            Some(record) if self.misses_the_master(record, now) => Asking::Witness,
            Some(record) if self.waits_for_proxies(record) => Asking::Quiet(record.stamp()),
            _ => Asking::Nothing,
        }
    }

    /// The hot replica has heard nothing of the master's agent for a while.
    fn misses_the_master(&self, record: &Record, now: Millis) -> bool {
        let Some(master) = record.master.as_ref().filter(|_| record.is_replica(&self.known.me.id)) else {
            return false;
        };
        let heard = self.known.peers.get(&master.id).map_or(self.known.awake_since, |p| p.heard);
        now.since(heard.max(self.known.awake_since)) >= self.policy().detect_after / 2
    }

    /// The master hands over, and requests may be in flight.
    fn waits_for_proxies(&self, record: &Record) -> bool {
        let hands_over = record.phase == Phase::Switching && record.is_master(&self.known.me.id);
        hands_over && busy_proxy(&self.known.proxies, record).is_some()
    }

    /// The last decision that was not carried out because it would have broken an invariant, once.
    pub fn take_violation(&mut self) -> Option<invariants::Violation> {
        self.violation.take()
    }

    /// The operator's request that waits, if any.
    pub fn command(&self) -> Option<&Command> {
        self.known.view.command.as_ref().map(|(command, _)| command)
    }

    /// Decides on what is known at this instant.
    fn decide(&mut self, now: Millis, wall: u64) -> Decision {
        (self.known.now, self.known.wall) = (now, wall);
        let policy = self.policy().clone();
        self.known.policy = policy;
        let decision = self.checked(decide(&self.known));
        self.note(now, &decision);
        decision
    }

    /// The random texts that the last decision used; the next finds others.
    fn draw(&mut self) -> Fresh {
        std::mem::replace(&mut self.known.fresh, draw(&mut self.random))
    }

    /// The last gate: an action that would break an invariant is not carried out.
    fn checked(&mut self, decision: Decision) -> Decision {
        match invariants::check(&self.known, &decision.action) {
            Ok(()) => decision,
            Err(violation) => {
                tracing::error!(group = %self.known.me.group, reason = %decision.reason, %violation, "refusing to act");
                self.violation = Some(violation);
                Decision::wait(decision.reason)
            }
        }
    }

    /// Logs a changed reason, and keeps what the history will want to know of a takeover.
    fn note(&mut self, now: Millis, decision: &Decision) {
        match &decision.reason {
            Reason::Rereading { evidence }
            | Reason::Sealing { evidence }
            | Reason::GuardClosing { evidence }
            | Reason::TakingOver { evidence } => {
                let line = evidence.to_string();
                let taking = self.known.taking.get_or_insert_with(|| Taking { since: now, evidence: Vec::new() });
                if !taking.evidence.contains(&line) {
                    taking.evidence.push(line);
                }
            }
            // Between the transaction and the next view, and while Consul is slow, the takeover goes on.
            Reason::Promoting { .. } | Reason::Persisting { .. } | Reason::Activating { .. } => {}
            Reason::Remembering { .. } | Reason::Settling => {}
            Reason::ConsulAway | Reason::NoSession => {}
            _ => self.known.taking = None,
        }
        if let (Reason::MemoryFails { .. }, Action::Remember(_)) = (&self.reason, &decision.action) {
            return; // Still so, as far as anybody knows.
        }
        if discriminant(&self.reason) != discriminant(&decision.reason) {
            self.log(decision);
        }
        self.reason = decision.reason.clone();
    }

    /// A line for each change; what happens on the way of every change is no change.
    fn log(&self, decision: &Decision) {
        let epoch = self.known.view.record.as_ref().map_or(0, |r| r.epoch);
        let (group, node, action) = (&self.known.me.group, &self.known.me.id, decision.action.name());
        if matches!(decision.reason, Reason::Remembering { .. } | Reason::Aligning) {
            tracing::debug!(%group, %node, epoch, action, "{}", decision.reason);
        } else {
            tracing::info!(%group, %node, epoch, action, "{}", decision.reason);
        }
    }

    /// Roles or a certification are on their way, and somebody waits for what the database says next.
    fn is_changing(&self) -> bool {
        let Some(record) = &self.known.view.record else { return false };
        let called = |peer: &election::Peer| {
            peer.beat.offer.as_ref().is_some_and(|o| o.stamp == record.stamp() && o.purpose != Purpose::Chain)
        };
        let candidate = !record.is_replica(&self.known.me.id) && self.known.peers.values().any(called);
        self.known.certifying.is_some() || candidate || record.phase != Phase::Active
    }

    fn effect(&mut self, now: Millis, action: Action) -> Option<Effect> {
        let what = match action {
            // What is known of Consul is known to be old: read before writing, or before forgetting.
            Action::Wait if self.must_read && self.in_doubt.is_some() => What::Read,
            Action::Submit(_) | Action::Answer { .. } if self.must_read => What::Read,
            Action::Read => What::Read,
            Action::Remember(memory) => What::Remember(memory),
            Action::Submit(proposal) => What::Submit(proposal),
            Action::Answer { outcome, command_index } => What::Answer { outcome, command_index },
            Action::Engine(op) => What::Engine(op),
            Action::Wait | Action::Nominate { .. } | Action::Abandon => return None,
        };
        if now < self.not_before {
            return None;
        }
        if let What::Engine(EngineOp::Start) = what {
            self.started = Some(now);
        }
        if let What::Engine(EngineOp::Channel { .. }) = what {
            // While it is under way the database may show the new name already, and the password here is the old one.
            self.known.channel = None;
        }
        if let (What::Engine(EngineOp::Fsync(false)), Engine::Up(status)) = (&what, &mut self.known.engine) {
            self.loosening = true;
            status.fsync = false;
        }
        self.in_flight = true;
        self.draw(); // Each effect has texts of its own.
        let answered = match &what {
            What::Answer { outcome, command_index } if outcome.done => Some(*command_index),
            What::Submit(proposal) => proposal.consume,
            _ => None,
        };
        let asked = self.known.view.command.as_ref().filter(|(_, index)| Some(*index) == answered);
        self.taking_on = asked.map(|(command, _)| command.clone());
        // A record that is gone or went back is not acted on, but the database is looked after: by what is remembered.
        let stamp =
            self.known.record().map_or(self.known.memory.stamp, |record| record.stamp().max(self.known.memory.stamp));
        Some(Effect { stamp, what })
    }

    fn submitted(&mut self, now: Millis, proposal: Proposal, written: Written) {
        let taking_on = self.taking_on.take();
        match written {
            Written::Applied { index } => {
                self.take_on(now, taking_on);
                self.known.writing = Writing::Settled;
                self.known.settled = true;
                let view = observed::after(&self.known.view, &proposal, index);
                self.handle(now, Event::Written(Box::new(view)));
            }
            Written::Refused => self.must_read = true,
            Written::Unknown => {
                self.in_doubt = taking_on.or(self.in_doubt.take());
                self.known.writing = Writing::Unknown { index: proposal.index };
                self.must_read = true;
                self.consul_failed(now);
            }
        }
    }

    /// The request was answered and is this node's now. The watch may have shown its end before the answer's.
    fn take_on(&mut self, now: Millis, command: Option<Command>) {
        let Some(command) = command else { return };
        self.in_doubt = None;
        match command.op {
            CommandOp::Drain => self.drain(now),
            CommandOp::Reinit => self.known.duty = Some(Duty::Reinit),
            CommandOp::Switchover | CommandOp::Failover => {}
        }
    }

    /// A request in doubt that Consul has no more was answered: whoever asked takes it back only when it has expired.
    fn resolve_doubt(&mut self, now: Millis) {
        let Some(command) = self.in_doubt.take_if(|command| command.expires_at > self.known.wall) else {
            self.in_doubt = None;
            return;
        };
        let stands = self.known.view.command.as_ref().is_some_and(|(standing, _)| standing.id == command.id);
        if stands {
            self.in_doubt = Some(command);
        } else {
            self.take_on(now, Some(command));
        }
    }

    fn consul_failed(&mut self, now: Millis) {
        self.known.view.reachable = false;
        self.not_before = now.plus(CONSUL_BACKOFF_MS);
    }

    fn engine_done(&mut self, now: Millis, op: EngineOp, result: Result<(), String>, engine: Engine) {
        match result {
            Err(why) => {
                tracing::warn!(group = %self.known.me.group, node = %self.known.me.id, op = op.name(), "the database refused: {why}");
                self.not_before = now.plus(ENGINE_BACKOFF_MS);
                if matches!(op, EngineOp::Channel { .. }) {
                    self.known.channel = None; // Nobody knows which password is in force: none is given out until one is set.
                }
            }
            Ok(()) => match op {
                EngineOp::Mark(_) => self.known.marked = Some(now),
                EngineOp::Channel { secret, .. } => self.known.channel = Some(secret),
                EngineOp::Reset => self.known.duty = None,
                _ => {}
            },
        }
        self.handle(now, Event::Engine(engine));
    }

    /// A database that ends soon after its start is started again after a pause that grows.
    fn engine_changed(&mut self, now: Millis, engine: &Engine) {
        let was_down = matches!(self.known.engine, Engine::Down { .. });
        if let (Engine::Down { .. }, Some(started)) = (engine, self.started) {
            if now.since(started) < STAYED_UP_MS {
                self.known.start_after = now.plus(self.start_backoff);
                self.start_backoff = (self.start_backoff * 2).min(START_BACKOFF_MS.1);
            } else if !was_down {
                self.start_backoff = START_BACKOFF_MS.0;
            }
            self.started = None;
        }
    }

    /// What an agent remembers of a role it no longer has.
    fn forget_what_ended(&mut self) {
        if let Writing::Unknown { index } = self.known.writing
            && self.known.view.index > index
        {
            self.known.writing = Writing::Settled;
        }
        let mastering = self.known.view.record.as_ref().is_some_and(|r| r.is_master(&self.known.me.id));
        if !mastering {
            self.known.certifying = None;
        }
        if self.known.engine.status().is_some_and(|st| st.channel.is_none()) {
            self.known.channel = None;
        }
    }

    /// Compares what the peers were last told with what they would be told now, apart from what changes all the time.
    fn refresh_news(&mut self) {
        let s = &self.known;
        let record = s.record().map(election::Record::stamp);
        let same = self.told.as_ref().is_some_and(|told| {
            told.record == record && told.certifying == s.certifying && is_no_news(&told.engine, &s.engine)
        });
        if !same {
            self.told = Some(Told { record, engine: s.engine.clone(), certifying: s.certifying.clone() });
            self.news += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::documents::{RECORD_VERSION, Writer};
    use election::{Address, Incarnation, Master};

    const WALL: u64 = 1_000_000;

    pub(super) fn me() -> Me {
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

    /// A group of which this node is a spare.
    fn record() -> Record {
        let master = Master {
            id: NodeId::from("db2"),
            address: "10.0.0.2".to_owned(),
            port: 6379,
            incarnation: Incarnation::from("i"),
        };
        Record {
            v: RECORD_VERSION,
            group: "g".into(),
            uid: "u".into(),
            epoch: 1,
            active_epoch: 1,
            seq: 1,
            nonce: Nonce::from("n"),
            writer: Writer { node: NodeId::from("db2"), boot: "b2".to_owned() },
            phase: Phase::Active,
            master: Some(master),
            replica: None,
            previous: None,
            switchover: None,
            fsync: false,
        }
    }

    fn view(command: Option<Command>) -> Box<View> {
        Box::new(View {
            seen: true,
            reachable: true,
            index: 7,
            session: Some("s".to_owned()),
            record: Some(record()),
            command: command.map(|command| (command, 9)),
            ..View::default()
        })
    }

    fn asked() -> Command {
        Command {
            id: "c".to_owned(),
            op: CommandOp::Drain,
            target: Some(NodeId::from("db1")),
            expect_epoch: 1,
            expires_at: WALL + 30_000,
            by: "ada".to_owned(),
            grace_ms: None,
        }
    }

    /// A step that has just sent its answer to a drain, and does not know what became of it.
    fn in_doubt() -> Step {
        let memory = Memory { uid: Some("u".into()), ..Memory::default() };
        let mut step = Step::new(me(), Policy::default(), memory, Millis(0), || "r".to_owned());
        step.handle(Millis(1), Event::Session(Some("s".to_owned())));
        step.handle(Millis(1), Event::Read(view(Some(asked()))));
        for now in 2..50 {
            match step.poll(Millis(now), WALL).effect.map(|effect| effect.what) {
                Some(What::Answer { .. }) => {
                    step.done(Millis(now), Done::Answered(Written::Unknown));
                    assert_eq!(step.duty(), None);
                    return step;
                }
                Some(What::Remember(memory)) => step.done(Millis(now), Done::Remembered(Ok(memory))),
                Some(What::Read) => step.done(Millis(now), Done::Read(Some(view(Some(asked()))))),
                Some(What::Engine(op)) => step.done(Millis(now), Done::Engine(op, Ok(()), Engine::Unknown)),
                other => assert!(other.is_none(), "{other:?}"),
            }
        }
        panic!("it does not answer: {}", step.reason())
    }

    /// Lets it read once, and gives what it has taken on then.
    fn after_reading(step: &mut Step, wall: u64, found: Option<Command>) -> Option<Duty> {
        for now in (200..2_000).step_by(10) {
            match step.poll(Millis(now), wall).effect.map(|effect| effect.what) {
                Some(What::Read) => {
                    step.done(Millis(now), Done::Read(Some(view(found))));
                    return step.duty();
                }
                Some(What::Engine(op)) => step.done(Millis(now), Done::Engine(op, Ok(()), Engine::Unknown)),
                other => assert!(other.is_none(), "{other:?}"),
            }
        }
        panic!("it does not look: {}", step.reason())
    }

    #[test]
    fn a_server_that_refuses_is_no_silent_one() {
        let mut step = Step::new(me(), Policy::default(), Memory::default(), Millis(0), || "r".to_owned());
        let since = |step: &mut Step, now: u64, heard: u64| {
            step.handle(Millis(now), Event::Engine(Engine::Silent { since: Millis(heard), incarnation: None }));
            match step.engine() {
                Engine::Silent { since, .. } => *since,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(since(&mut step, 4_000, 0), Millis(0));
        assert_eq!(since(&mut step, 5_000, 4_900), Millis(4_900), "its engine was told that it is crowded");
        assert_eq!(since(&mut step, 6_000, 0), Millis(4_900));
    }

    #[test]
    fn an_answer_of_unknown_fate_is_no_duty_forgotten() {
        assert!(matches!(after_reading(&mut in_doubt(), WALL, None), Some(Duty::Drain { .. })));
        assert_eq!(after_reading(&mut in_doubt(), WALL + 30_000, None), None, "it may have been taken back");
        let mut step = in_doubt();
        assert_eq!(after_reading(&mut step, WALL, Some(asked())), None, "it was not answered");
        let again = step.poll(Millis(3_000), WALL).effect.map(|effect| effect.what);
        assert!(matches!(again, Some(What::Answer { .. })), "{again:?}");
        // It was late: the answer before is the one that counts.
        step.done(Millis(3_001), Done::Answered(Written::Refused));
        assert!(matches!(after_reading(&mut step, WALL, None), Some(Duty::Drain { .. })));
    }
}
