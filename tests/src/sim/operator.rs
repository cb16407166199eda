//! What operators do to a group, and the troubles that only they can end: pauses, forced failovers, drains, copies
//! cloned anew, full disks, and a Consul whose data went back.

use super::HEALED_US;
use super::checks::ensure;
use super::world::{World, index_of, name};
use election::{
    Command, CommandOp, Duty, Engine, Identity, Incarnation, Memory, NodeId, Nonce, Phase, Previous, Proposal, Reason,
    Record, WithoutReplica,
};

/// A draining master asks for its hand-over again after this long, as the driver does.
const HAND_OVER_AGAIN_US: u64 = 5_000_000;

/// A transaction that is lost on its way may be applied this much later.
pub(crate) const LATE_TXN_US: u64 = 4_000_000;

/// How long a second agent waits for the answer of the first.
const SAME_NAME_PATIENCE_US: u64 = 1_000_000;

impl World {
    pub(crate) fn pause_group(&mut self) {
        if !self.pause_group_for_good() {
            return;
        }
        let back = self.for_a_while();
        self.after(back, World::resume_group);
    }

    pub(crate) fn pause_group_for_good(&mut self) -> bool {
        let paused = self.consul.pause(true);
        if paused {
            self.tell(|| "an operator pauses the group".to_owned());
            self.consul_changed();
        }
        paused
    }

    pub(crate) fn resume_group(&mut self) {
        if self.consul.pause(false) {
            self.tell(|| "an operator resumes the group".to_owned());
            self.consul_changed();
        }
    }

    pub(crate) fn change_fsync(&mut self) {
        if let Some(fsync) = self.consul.toggle_fsync() {
            self.tell(|| format!("an operator sets fsync={fsync}"));
            self.consul_changed();
        }
    }

    /// Who knows that the group is paused changes no role by himself.
    pub(crate) fn knows_of_a_pause(&self, n: usize, p: &Proposal) -> Result<(), String> {
        let Some(agent) = &self.nodes[n].agent else { return Ok(()) };
        let Some(record) = agent.step.view().record.as_ref().filter(|_| agent.step.policy().paused) else {
            return Ok(());
        };
        let asked = record.switchover.is_some() || p.consume.is_some();
        ensure(p.record.epoch == record.epoch || asked, || format!("n{} changes roles in a paused group", n + 1))
    }

    /// `failover --to NODE --accept-data-loss`.
    pub(crate) fn force(&mut self, n: usize) {
        let command = Command { op: CommandOp::Failover, ..self.request(Some(name(n))) };
        self.ask_group(command);
    }

    pub(crate) fn reinit(&mut self, n: usize) {
        let command = Command { op: CommandOp::Reinit, ..self.request(Some(name(n))) };
        self.ask_group(command);
    }

    /// An operator throws away what no agent may: copies with transactions that nobody else has. Whether there is one.
    pub(crate) fn look_after_errant_copies(&mut self) -> bool {
        let Some(errant) = (0..self.mix.nodes).find(|n| self.is_errant(*n)) else { return false };
        let id = name(errant);
        let named = self.consul.truth().is_some_and(|r| r.is_master(&id) || r.is_replica(&id));
        if !named {
            self.reinit(errant);
        }
        true
    }

    /// MariaDB: while a commit waits no copy can be made, and with `without_replica = "block"` it waits for a copy. The
    /// documents say how an operator ends that.
    pub(crate) fn release_what_blocks_a_copy(&mut self) {
        let copies = self.nodes.iter().filter_map(|n| n.agent.as_ref()).any(|a| a.adapter.copying.is_some());
        if copies && self.consul.unblock() {
            self.tell(|| "an operator sets without_replica=continue".to_owned());
            self.mix.policy.without_replica = WithoutReplica::Continue;
            self.consul_changed();
        }
    }

    /// By way of Consul, or by a signal.
    pub(crate) fn ask_to_drain(&mut self, n: usize) {
        if self.rng.chance(500) {
            let command = Command { op: CommandOp::Drain, ..self.request(Some(name(n))) };
            self.ask_group(command);
            return;
        }
        self.interrupt(n);
    }

    /// SIGTERM: the agent ends its session and itself; its database goes on.
    pub(crate) fn dismiss(&mut self, n: usize) {
        let Some(boot) = self.nodes[n].agent.as_ref().map(|a| a.boot) else { return };
        self.end_session_of(n, boot);
        self.tell(|| format!("n{} agent is told to leave", n + 1));
        self.kill_agent(n);
    }

    /// SIGINT: it drains.
    pub(crate) fn interrupt(&mut self, n: usize) {
        let now = self.millis(n);
        if let Some(agent) = self.nodes[n].agent.as_mut().filter(|a| !a.paused) {
            agent.step.drain(now);
            self.tell(|| format!("n{} is to be drained", n + 1));
        }
    }

    /// Somebody starts a second agent of a node's name. It asks at the address that the first has left in Consul, as the
    /// driver does: when another run answers it refuses to start, else it is the node's agent from now on.
    pub(crate) fn start_second(&mut self, n: usize) {
        let end = self.proxy_end(0);
        let known = self.consul.view().members.contains_key(&name(n));
        let asked = self.number();
        self.asking_first = Some(asked);
        self.after(SAME_NAME_PATIENCE_US, move |w| {
            if w.asking_first.take_if(|asking| *asking == asked).is_some() {
                w.tell(|| format!("nobody answers a second agent of n{}, and it starts", n + 1));
                w.start_agent(n);
            }
        });
        if !known {
            return;
        }
        self.send(end, n, move |w| {
            let Some(boot) = w.nodes[n].agent.as_ref().map(|a| a.boot) else { return };
            w.at_agent(n, boot, move |w| {
                w.send(n, end, move |w| {
                    if w.asking_first.take_if(|asking| *asking == asked).is_some() {
                        w.tell(|| format!("a second agent of n{} refuses to start: the first answers", n + 1));
                    }
                });
            });
        });
    }

    fn end_session_of(&mut self, n: usize, boot: u64) {
        if let Some(session) = self.agent(n, boot).and_then(|a| a.session.clone()).filter(|_| self.has_consul(n)) {
            self.consul.end_session(&session);
        }
    }

    /// What the driver does for a draining agent: it asks for the hand-over, and leaves when the database is stopped.
    pub(crate) fn drains(&mut self, n: usize, boot: u64) {
        let (now, end) = (self.now, self.consul_end());
        let Some(agent) = self.agent(n, boot) else { return };
        if !matches!(agent.step.duty(), Some(Duty::Drain { .. })) {
            return;
        }
        if matches!(agent.step.reason(), Reason::Drained) {
            return self.leave(n, boot);
        }
        if !agent.step.wants_handover() || now < agent.hand_over_after {
            return;
        }
        agent.hand_over_after = now + HAND_OVER_AGAIN_US;
        let expect_epoch = agent.step.view().record.as_ref().map_or(0, |r| r.epoch);
        let (id, expires_at) = (format!("drain{}", self.number()), self.wall() + HAND_OVER_AGAIN_US / 1_000);
        let by = format!("drain of n{}", n + 1);
        let command =
            Command { id, op: CommandOp::Switchover, target: None, expect_epoch, expires_at, by, grace_ms: None };
        self.send(n, end, move |w| {
            if !w.consul.outage {
                w.ask_group(command);
            }
        });
    }

    /// The agent ends its session and itself; some time later somebody starts it again.
    fn leave(&mut self, n: usize, boot: u64) {
        self.end_session_of(n, boot);
        self.tell(|| format!("n{} is drained and leaves", n + 1));
        let back = if self.now >= HEALED_US { 0 } else { self.for_a_while() };
        self.after(0, move |w| {
            if w.agent(n, boot).is_some() {
                w.kill_agent(n);
                w.after(back, move |w| w.start_agent(n));
            }
        });
    }

    /// A copy is thrown away by an agent that knows no record that names it.
    pub(crate) fn may_be_thrown_away(&mut self, n: usize, boot: u64) -> Result<(), String> {
        let Some(stamp) = self.agent(n, boot).and_then(|a| a.step.view().record.as_ref().map(Record::stamp)) else {
            return Ok(());
        };
        let Some(record) = self.consul.truth().filter(|r| r.stamp() == stamp) else { return Ok(()) };
        let named = record.is_master(&name(n)) || record.is_replica(&name(n));
        ensure(!named, || format!("n{} throws its copy away, and record {stamp} names it (invariant 13)", n + 1))
    }

    pub(crate) fn disk_fails(&mut self, n: usize) {
        self.nodes[n].disk.bad = true;
        self.tell(|| format!("n{}'s disk takes no writes", n + 1));
        let back = self.for_a_while();
        self.after(back, move |w| {
            w.nodes[n].disk.bad = false;
            w.tell(|| format!("n{}'s disk takes writes again", n + 1));
        });
    }

    /// A write that the disk does not take: refused, and under `appendfsync always` the end of the process.
    pub(crate) fn write_fails(&mut self, n: usize) {
        if self.nodes[n].database.as_ref().is_some_and(|p| p.fsync) {
            self.kill_database(n, "its disk takes no writes, and every write must be on it");
        }
    }

    /// Consul's data go back to an older snapshot, or are lost; but only while every node remembers the newest record:
    /// who does not cannot know, and nothing protects him.
    pub(crate) fn consul_goes_back(&mut self) {
        let Some(stamp) = self.consul.truth().map(Record::stamp) else { return };
        let known = self.nodes.iter().all(|node| node.agent.is_some() && node.memory.stamp == stamp);
        // Nor while a first transaction may still be on its way: it would make another group, and this one is warned.
        let young = self.ledger.began.is_none_or(|began| self.now < began + LATE_TXN_US);
        if young || !known || self.consul.lost.is_some() || self.consul.outage {
            return;
        }
        let ago = self.rng.index(4);
        let (what, done) = match self.rng.range(0, 3) {
            0 => ("the record is deleted", self.consul.wipe(false)),
            1 => ("everything in Consul is lost", self.consul.wipe(true)),
            _ => ("Consul's data go back to an older snapshot", self.consul.roll_back(ago)),
        };
        if done {
            self.tell(|| what.to_owned());
            self.consul_changed();
            self.look_after_the_record();
        }
    }

    /// Somebody notices, and tries until it works.
    fn look_after_the_record(&mut self) {
        let pause = self.rng.range(300_000, 4_000_000);
        self.after(pause, |w| {
            if w.consul.lost.is_some() && (w.consul.outage || !w.restore_record()) {
                w.look_after_the_record();
            }
        });
    }

    /// `resume --restore-record`, under the condition it has: those that the newest record names remember the same. Where
    /// their databases still run as it says, it begins an epoch of its own; else the agents decide who holds every write.
    pub(crate) fn restore_record(&mut self) -> bool {
        let memories: Vec<&Memory> = self.nodes.iter().map(|node| &node.memory).collect();
        let Some(newest) = memories.iter().filter_map(|m| m.record.as_ref()).max_by_key(|r| r.stamp()) else {
            return false;
        };
        let holds = |id: &NodeId| index_of(id).is_some_and(|n| memories[n].record.as_ref() == Some(newest));
        let master = newest.master.as_ref().map(|m| (&m.id, &m.incarnation));
        let replica = newest.replica.as_ref().map(|r| (&r.id, &r.certificate.incarnation));
        let named: Vec<(&NodeId, &Incarnation)> = master.into_iter().chain(replica).collect();
        if !named.iter().all(|(id, _)| holds(id)) {
            return false;
        }
        let runs = |(id, run): &(&NodeId, &Incarnation)| {
            let process = index_of(id).and_then(|n| self.nodes[n].database.as_ref());
            process.is_some_and(|p| p.incarnation == **run)
        };
        let record = if named.iter().all(runs) { restored(newest) } else { renewed(newest) };
        let policy = self.mix.policy.clone();
        self.consul.restore(&record, &policy);
        self.tell(|| "an operator restores the record".to_owned());
        self.record_changed(None);
        self.consul_changed();
        true
    }

    /// The last way out of a halt: an operator takes the node whose copy holds most.
    pub(crate) fn force_the_best(&mut self) -> bool {
        let able = |n: &usize| matches!(self.nodes[*n].agent.as_ref().map(|a| a.step.engine()), Some(Engine::Up(_)));
        let held = |n: &usize| self.nodes[*n].database.as_ref().map_or(0, |p| p.data.writes.count());
        let Some(best) = (0..self.mix.nodes).filter(able).max_by_key(held) else { return false };
        self.consul.withdraw();
        let command = Command { op: CommandOp::Failover, ..self.request(Some(name(best))) };
        self.ask_group(command)
    }
}

/// The same roles in an epoch of its own, as the command line makes it.
fn restored(newest: &Record) -> Record {
    let epoch = newest.epoch + 1;
    let active = matches!(newest.phase, Phase::Active | Phase::Switching);
    let same = newest.master.as_ref().map(|m| Identity { id: m.id.clone(), incarnation: m.incarnation.clone() });
    let reason = "record restored".to_owned();
    let fresh = Previous {
        epoch: newest.epoch,
        master: same,
        position: None,
        reason: reason.clone(),
        fsync: false,
        data_loss: None,
    };
    let previous = if active { fresh } else { newest.previous.clone().unwrap_or(fresh) };
    let mut writer = newest.writer.clone();
    writer.boot = format!("operator{epoch}");
    Record {
        epoch,
        writer,
        seq: newest.seq + 1,
        nonce: Nonce(format!("restored{epoch}")),
        phase: if active { Phase::Active } else { newest.phase },
        previous: Some(Previous { reason, ..previous }),
        switchover: newest.switchover.clone().filter(|_| !active),
        ..newest.clone()
    }
}

/// The same record, one write later.
fn renewed(newest: &Record) -> Record {
    let seq = newest.seq + 1;
    Record { seq, nonce: Nonce(format!("renewed{}-{seq}", newest.epoch)), ..newest.clone() }
}
