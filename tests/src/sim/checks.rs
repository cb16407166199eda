//! What must hold at every step, one function each. Where an agent checks itself (`election::invariants`), these look
//! at all nodes at once, which no agent can.

use super::consul::Consul;
use super::data::Writes;
use super::process::{Process, Role};
use super::promises::Tcp;
use super::world::{Node, World, index_of, name};
use election::{Incarnation, Master, NodeId, Phase, Reason, Record, WithoutReplica};
use std::collections::{BTreeMap, BTreeSet};

/// What has been promised to clients, and by whom.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) writes: u32,
    pub(crate) acked: Writes,
    pub(crate) acknowledged: u64,
    pub(crate) last_ack: u64,
    /// Writes under way when their connection ended.
    pub(crate) cut: u64,
    pub(crate) epochs: u64,
    /// When the first record was written.
    pub(crate) began: Option<u64>,
    pub(crate) power_cuts: u64,
    /// How many answers were excepted.
    pub(crate) exceptions: u64,
    /// Masters that were replaced with a declared loss: what they still acknowledge is part of it.
    disowned: BTreeSet<(usize, u64)>,
    /// Acknowledged writes that the record itself says may be lost.
    pub(crate) declared_lost: u64,
    pub(crate) tcp: Tcp,
    /// What the documents except: clients were told success although no copy had it, and until one has acknowledged
    /// something later. By whom, which, and where in the log.
    excepted: Vec<((usize, u64), u32, u64)>,
    /// The one instance that acknowledged in an epoch.
    ackers: BTreeMap<u64, (usize, u64)>,
    /// Every instance that any version of the record named master.
    named: BTreeSet<(NodeId, Incarnation)>,
    /// Every instance that a version of the record in phase `active` named master.
    activated: BTreeSet<(NodeId, Incarnation)>,
}

impl Ledger {
    /// See [`Ledger::excepted`].
    pub(crate) fn except(&mut self, n: usize, run: u64, write: u32, offset: u64) {
        self.excepted.push(((n, run), write, offset));
        self.exceptions += 1;
    }

    /// A copy has acknowledged all that this process has written so far.
    pub(crate) fn reached(&mut self, n: usize, run: u64, offset: u64) {
        let is = |(by, _, at): &((usize, u64), u32, u64)| *by == (n, run) && *at <= offset;
        if !self.excepted.iter().any(is) || self.is_disowned(n, run) {
            return;
        }
        let (reached, rest): (Vec<_>, Vec<_>) = self.excepted.drain(..).partition(is);
        self.excepted = rest;
        reached.into_iter().for_each(|(_, write, _)| self.acked.insert(write));
    }

    pub(crate) fn is_disowned(&self, n: usize, run: u64) -> bool {
        self.disowned.contains(&(n, run))
    }

    /// Invariant 3: only a named instance is promoted.
    pub(crate) fn may_be_promoted(&self, n: usize, incarnation: &Incarnation) -> Result<(), String> {
        let named = self.named.contains(&(name(n), incarnation.clone()));
        ensure(named, || format!("n{} ({incarnation}) is promoted though no record ever named it (invariant 3)", n + 1))
    }

    /// Invariant 5: only the instance of an active epoch is opened.
    pub(crate) fn may_open(&self, n: usize, incarnation: &Incarnation) -> Result<(), String> {
        let active = self.activated.contains(&(name(n), incarnation.clone()));
        ensure(active, || format!("n{} ({incarnation}) is opened in no epoch of its own (invariant 5)", n + 1))
    }

    /// At most one instance acknowledges in an epoch.
    pub(crate) fn one_instance_acknowledges(&mut self, n: usize, run: u64, epoch: u64) -> Result<(), String> {
        let first = *self.ackers.entry(epoch).or_insert((n, run));
        ensure(first == (n, run), || format!("n{} and n{} both acknowledge in epoch {epoch}", first.0 + 1, n + 1))
    }
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Invariant 1: epoch and seq only grow, uid and the epoch's master stay.
pub(crate) fn record_only_grows(before: Option<&Record>, after: &Record) -> Result<(), String> {
    let Some(before) = before else { return Ok(()) };
    ensure(after.seq == before.seq + 1 && after.epoch >= before.epoch, || {
        format!("the record goes from {} to {} (invariant 1)", before.stamp(), after.stamp())
    })?;
    ensure(after.uid == before.uid, || "the group's uid changes (invariant 1)".to_owned())?;
    ensure(after.epoch > before.epoch || after.master == before.master, || {
        format!("the master changes within epoch {} (invariant 3)", after.epoch)
    })
}

/// The living process that a record names, when it is still that one.
fn named<'a>(nodes: &'a [Node], id: &NodeId, incarnation: &Incarnation) -> Option<&'a Process> {
    let process = nodes.get(index_of(id)?)?.database.as_ref()?;
    (process.incarnation == *incarnation).then_some(process)
}

/// Invariant 2, seen from the record: whoever is named master or hot replica has every acknowledged write.
pub(crate) fn named_copies_are_complete(
    nodes: &[Node],
    record: &Record,
    acked: &Writes,
    sync: bool,
) -> Result<(), String> {
    let master = record.master.as_ref().map(|m| (&m.id, &m.incarnation, "master"));
    let replica = record.replica.as_ref().filter(|_| sync);
    let replica = replica.map(|r| (&r.id, &r.certificate.incarnation, "hot replica"));
    for (id, incarnation, role) in master.into_iter().chain(replica) {
        let Some(process) = named(nodes, id, incarnation).filter(|p| !p.loading) else { continue };
        if let Some((write, count)) = acked.missing_in(&process.data.writes) {
            return Err(format!(
                "record {} names {id} {role}, and its copy lacks {count} acknowledged writes, write {write} first (invariant 2)",
                record.stamp()
            ));
        }
    }
    Ok(())
}

/// Invariant 2, seen from the acknowledgement: every copy that the record names has the write.
pub(crate) fn acknowledged_on_every_named_copy(
    nodes: &[Node],
    record: &Record,
    write: u32,
    sync: bool,
) -> Result<(), String> {
    let master = record.master.as_ref().map(|m| (&m.id, &m.incarnation));
    let replica = record.replica.as_ref().filter(|_| sync).map(|r| (&r.id, &r.certificate.incarnation));
    for (id, incarnation) in master.into_iter().chain(replica) {
        let Some(process) = named(nodes, id, incarnation) else { continue };
        ensure(process.data.writes.contains(write), || {
            format!(
                "write {write} is acknowledged, and {id}, which record {} names, has it not (invariant 2)",
                record.stamp()
            )
        })?;
    }
    Ok(())
}

/// Invariant 6: nothing replaces a copy while the record names it.
pub(crate) fn may_be_wiped(consul: &Consul, n: usize, incarnation: &Incarnation) -> Result<(), String> {
    let Some(record) = consul.truth() else { return Ok(()) };
    let master = record.master.as_ref().is_some_and(|m| m.id == name(n) && m.incarnation == *incarnation);
    let replica = record.replica.as_ref().is_some_and(|r| r.id == name(n) && r.certificate.incarnation == *incarnation);
    ensure(!master && !replica, || {
        format!("n{}'s copy is wiped by a full resync while record {} names it (invariant 6)", n + 1, record.stamp())
    })
}

/// Invariant 4: when a takeover is applied, however late, its winner receives from nobody.
pub(crate) fn sealed_when_taking_over(nodes: &[Node], before: Option<&Record>, after: &Record) -> Result<(), String> {
    let (Some(before), Some(master)) = (before, &after.master) else { return Ok(()) };
    let Some(process) = named(nodes, &master.id, &master.incarnation).filter(|_| after.epoch > before.epoch) else {
        return Ok(());
    };
    ensure(matches!(process.role, Role::Sealed), || {
        format!("takeover {} by {} is applied while its database is not sealed (invariant 4)", after.stamp(), master.id)
    })
}

fn is_recorded_master(record: &Record, n: usize, p: &Process) -> bool {
    record.master.as_ref().is_some_and(|m: &Master| m.id == name(n) && m.incarnation == p.incarnation)
}

/// Invariant 8: while the record names a hot replica, its master waits for it.
pub(crate) fn waits_for_the_replica(consul: &Consul, n: usize, p: &Process, sync: bool) -> Result<(), String> {
    let Some(record) = consul.truth() else { return Ok(()) };
    if !sync || record.replica.is_none() || !is_recorded_master(record, n, p) || !p.is_master() {
        return Ok(());
    }
    ensure(p.is_guarded() && p.needs(), || {
        format!("record {} names a hot replica, and its master n{} waits for none (invariant 8)", record.stamp(), n + 1)
    })
}

/// Invariant 8: who acknowledges alone has every write on disk, and may at all.
pub(crate) fn alone_only_on_disk(consul: &Consul, n: usize, p: &Process, sync: bool) -> Result<(), String> {
    let Some(record) = consul.truth() else { return Ok(()) };
    let alone = p.open && p.is_master() && !p.needs() && is_recorded_master(record, n, p);
    if !alone || !sync {
        return Ok(());
    }
    let blocked = consul.view().policy.is_some_and(|policy| policy.without_replica == WithoutReplica::Block);
    ensure(!blocked, || format!("n{} acknowledges alone though without_replica is \"block\"", n + 1))?;
    ensure(p.fsync, || format!("n{} acknowledges alone, and its disk lags (invariant 8)", n + 1))
}

/// Invariant 6: while a certificate says that a disk holds every write, it does.
pub(crate) fn disks_hold_what_is_promised(consul: &Consul, n: usize, p: &Process) -> Result<(), String> {
    let Some(record) = consul.truth() else { return Ok(()) };
    let Some(replica) = record.replica.as_ref().filter(|r| r.certificate.fsync) else { return Ok(()) };
    let named = replica.id == name(n) && replica.certificate.incarnation == p.incarnation;
    ensure(p.fsync || !(named || is_recorded_master(record, n, p)), || {
        format!("record {} says that n{}'s disk holds every write, and it lags (invariant 6)", record.stamp(), n + 1)
    })
}

impl World {
    /// Everything that has to hold whenever the record has changed.
    pub(crate) fn record_changed(&mut self, before: Option<&Record>) {
        let Some((record, _)) = self.consul.record.clone() else { return };
        let now = self.now;
        self.story.note(now, &[3, record.epoch, record.seq]);
        self.tell(|| story_of(&record));
        self.ledger.began.get_or_insert(now);
        let grows = record_only_grows(before, &record);
        let sealed = sealed_when_taking_over(&self.nodes, before, &record);
        self.check(grows.and(sealed));
        if let Some(master) = &record.master {
            let instance = (master.id.clone(), master.incarnation.clone());
            if record.phase == Phase::Active {
                self.ledger.activated.insert(instance.clone());
            }
            self.ledger.named.insert(instance);
            if let (Some(n), Some(p)) = (index_of(&master.id), named(&self.nodes, &master.id, &master.incarnation)) {
                let run = p.run;
                self.ledger.disowned.retain(|instance| *instance != (n, run));
            }
        }
        self.ledger.epochs = self.ledger.epochs.max(record.epoch);
        self.note_deposed(before, &record);
        self.forgive_declared_loss(before, &record);
        let complete = named_copies_are_complete(&self.nodes, &record, &self.ledger.acked, self.sync());
        self.check(complete);
        (0..self.nodes.len()).for_each(|n| self.watch_need(n));
        self.ambush(&record);
    }

    /// The group's promise. It is what the seed drew: no fault changes it.
    pub(crate) fn sync(&self) -> bool {
        self.mix.policy.is_sync()
    }

    /// What is gone and said to be, in the three cases in which it may be: both copies were lost, one of them to a power
    /// cut; an operator forced it; or the group is `async`.
    fn forgive_declared_loss(&mut self, before: Option<&Record>, record: &Record) {
        let Some(previous) = record.previous.as_ref().filter(|p| p.data_loss.is_some()) else { return };
        let forced = previous.reason.starts_with("forced by");
        let may = forced || !self.sync() || self.ledger.power_cuts > 0;
        if !may || before.is_some_and(|b| b.epoch >= record.epoch) {
            return;
        }
        let Some(master) = &record.master else { return };
        let new = index_of(&master.id);
        let others = self.nodes.iter().enumerate().filter(|(n, _)| (forced || !self.sync()) && Some(*n) != new);
        let disowned: Vec<_> = others.filter_map(|(n, node)| node.database.as_ref().map(|p| (n, p.run))).collect();
        self.ledger.disowned.extend(disowned);
        if forced || !self.sync() {
            // It may be dead, and its last answers on their way.
            let master = previous.master.as_ref();
            let run = master.and_then(|m| m.incarnation.as_str().rsplit("-run").next()?.parse().ok());
            self.ledger.disowned.extend(master.and_then(|m| index_of(&m.id)).zip(run));
        }
        let Some(p) = named(&self.nodes, &master.id, &master.incarnation) else { return };
        let own = new.map(|n| (n, p.run));
        self.ledger.disowned.retain(|instance| Some(*instance) != own);
        let kept = p.data.writes.clone();
        self.ledger.declared_lost += u64::from(self.ledger.acked.keep_only(&kept));
        self.forgive_tcp(&kept);
    }

    /// What a group that does not serve after every fault has ended may say for itself; `None`: nothing.
    pub(crate) fn excuse(&self) -> Option<&'static str> {
        if self.consul.lost.is_some() {
            return Some("the record cannot be restored: those whom it names do not remember it");
        }
        let record = self.consul.truth()?;
        let master = record.master.as_ref()?;
        if named(&self.nodes, &master.id, &master.incarnation).is_some() {
            return None;
        }
        // `async`: the master's run has ended, and the hot replica's agent began after that. Nobody knows how far the
        // copy is behind, and `max_lag` is a promise: an operator decides.
        let unheard =
            |reason: &Reason| matches!(reason, Reason::NotPromotable { flaw } if flaw.ends_with("never been heard"));
        if !self.sync() && self.nodes.iter().filter_map(|n| n.agent.as_ref()).any(|a| unheard(a.step.reason())) {
            return Some("async, and nobody knows how far the copy is behind");
        }
        self.nodes.iter().any(|node| self.rightly_refuses(node)).then_some("may not resume")
    }

    /// A disk that lost what proves its data set is an excuse, and only when it really did: power cuts have shortened
    /// it, or a client has removed the marker, or an operator took the copy by force, or the group is `async`.
    fn rightly_refuses(&self, node: &Node) -> bool {
        let Some(Reason::MayNotResume { .. }) = node.agent.as_ref().map(|agent| agent.step.reason()) else {
            return false;
        };
        let Some(p) = &node.database else { return false };
        // A copy that was taken by force and ended before it carried its epoch's marker: only force takes it again.
        let forced = self.consul.truth().is_some_and(|record| {
            record.phase == Phase::Promoting
                && record.previous.as_ref().is_some_and(|before| before.data_loss.is_some())
        });
        !self.sync() || forced || node.disk.shortened || p.data.marker.is_none()
    }

    /// The group serves: active, its master open, and a client had an answer since `since`.
    pub(crate) fn serves_since(&self, since: u64) -> bool {
        if self.consul.lost.is_some() {
            return false;
        }
        let Some((record, _)) = &self.consul.record else { return false };
        let Some(master) = record.master.as_ref().filter(|_| record.phase == Phase::Active) else { return false };
        let open = named(&self.nodes, &master.id, &master.incarnation)
            .is_some_and(|p| p.open && matches!(p.role, Role::Master));
        let blocked = self.mix.policy.without_replica == WithoutReplica::Block && !self.has_understudy();
        open && (self.ledger.last_ack > since || blocked)
    }

    /// Whether there is a second node that may become hot replica.
    pub(crate) fn has_understudy(&self) -> bool {
        let master = self.consul.record.as_ref().and_then(|(r, _)| r.master.as_ref()).and_then(|m| index_of(&m.id));
        self.mix.priorities.iter().enumerate().any(|(n, priority)| *priority > 0 && Some(n) != master)
    }

    /// At the end the master has everything that was ever acknowledged.
    pub(crate) fn nothing_is_lost(&self) -> Result<(), String> {
        match self.consul.truth() {
            Some(record) => named_copies_are_complete(&self.nodes, record, &self.ledger.acked, self.sync())?,
            None => return Ok(()),
        }
        let (master, record) = (self.master(), self.consul.record.as_ref());
        if let Some(p) = self.nodes[master].database.as_ref().filter(|p| p.is_master()) {
            ensure(p.data.books_balance(), || format!("n{}'s accounts are not what its rows make them", master + 1))?;
        }
        let serves = record.is_some_and(|(r, _)| r.phase == Phase::Active) && self.consul.lost.is_none();
        match self.nodes[master].database.as_ref().filter(|p| serves && p.is_master()) {
            Some(p) => self.tcp_keeps_its_promise(&p.data.writes),
            None => Ok(()),
        }
    }
}

fn story_of(record: &Record) -> String {
    let master = record.master.as_ref().map_or("nobody".to_owned(), |m| format!("{} ({})", m.id, m.incarnation));
    let replica =
        record.replica.as_ref().map_or("nobody".to_owned(), |r| format!("{} ({})", r.id, r.certificate.incarnation));
    let (stamp, phase, writer) = (record.stamp(), record.phase, &record.writer.node);
    format!("record {stamp} {phase:?} by {writer}: master {master}, hot replica {replica}")
}

impl World {
    /// The record names a hot replica, when there is a node that can be one.
    pub(crate) fn attended(&self) -> bool {
        let named = self.consul.record.as_ref().is_some_and(|(r, _)| r.replica.is_some());
        named || !self.has_understudy()
    }

    /// Where everybody stands.
    pub(crate) fn standstill(&self) -> String {
        let agents = self.nodes.iter().enumerate().map(|(n, node)| match &node.agent {
            Some(agent) => format!("n{}: {}", n + 1, agent.step.reason()),
            None => format!("n{}: no agent", n + 1),
        });
        let record = self.consul.record.as_ref().map_or("no record".to_owned(), |(r, _)| story_of(r));
        let sql = self.nodes[self.master()].database.as_ref().and_then(|p| p.sql.as_ref());
        let sql = sql.map_or(String::new(), |sql| format!("; {} commits wait for {:?}", sql.commits.len(), sql.waits));
        format!(
            "the group has not recovered a minute after the last fault: {record}; {}{sql}",
            agents.collect::<Vec<_>>().join("; ")
        )
    }
}
