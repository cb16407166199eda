//! What goes wrong, when, and for how long.

use super::FORMED_US;
use super::data::{Disk, Entry, FSYNC_LAG_US};
use super::mix::Fault;
use super::world::{World, index_of, name};
use agent::step::Event;
use election::{Command, CommandOp, Memory, NodeId, Record, Stamp};

/// What an operator says of how long transactions may go on in a switchover.
const GRACES_MS: [Option<u64>; 4] = [None, Some(0), Some(600), Some(4_000)];

impl World {
    /// Faults come until `end`.
    pub(crate) fn trouble(&mut self, end: u64) {
        let pause = self.rng.range(self.mix.pace / 4, self.mix.pace * 2);
        if self.now + pause >= end {
            return;
        }
        self.after(pause, move |w| {
            let fault = w.mix.faults[w.rng.index(w.mix.faults.len())];
            w.faults += 1;
            w.strike(fault);
            w.trouble(end);
        });
    }

    /// A fault where it hurts most: the record has just changed, and its nodes are in the middle of acting on it.
    pub(crate) fn ambush(&mut self, record: &Record) {
        if self.now < FORMED_US || !self.rng.chance(self.mix.ambush[0]) {
            return;
        }
        let replica = record.replica.as_ref().and_then(|r| index_of(&r.id));
        let master = record.master.as_ref().and_then(|m| index_of(&m.id));
        let writer = index_of(&record.writer.node);
        let n = [master, replica, writer][self.rng.index(3)].unwrap_or_default();
        let delay = self.rng.range(0, 20_000);
        self.after(delay, move |w| {
            w.faults += 1;
            match w.rng.range(0, 7) {
                0 => w.kill_database(n, "SIGKILL"),
                1 => w.kill_node(n),
                2 => w.cut_power(n),
                3 => w.pause(n, true, true),
                4 => w.pause(n, false, true),
                5 => w.cut_from_consul(n),
                _ => w.stop_agent(n),
            }
        });
    }

    /// An agent ends between an effect's beginning and its end, and is there again a moment later.
    pub(crate) fn ambush_effect(&mut self, n: usize, boot: u64) {
        if self.now < FORMED_US || !self.rng.chance(self.mix.ambush[1]) {
            return;
        }
        let (delay, back) = (self.rng.range(0, 6_000), self.rng.range(10_000, 2_000_000));
        self.after(delay, move |w| {
            if w.agent(n, boot).is_some() {
                w.faults += 1;
                w.kill_agent(n);
                w.after(back, move |w| w.start_agent(n));
            }
        });
    }

    pub(crate) fn some_node(&mut self) -> usize {
        self.rng.index(self.mix.nodes)
    }

    pub(crate) fn master(&self) -> usize {
        let record = self.consul.truth();
        record.and_then(|r| r.master.as_ref()).and_then(|m| index_of(&m.id)).unwrap_or_default()
    }

    pub(crate) fn replica(&mut self) -> usize {
        let record = self.consul.truth();
        let named = record.and_then(|r| r.replica.as_ref()).and_then(|r| index_of(&r.id));
        named.unwrap_or_else(|| self.some_node())
    }

    /// Mostly short, now and then long enough for a session to end.
    pub(crate) fn for_a_while(&mut self) -> u64 {
        match self.rng.range(0, 10) {
            0..=4 => self.rng.range(50_000, 1_500_000),
            5..=8 => self.rng.range(1_000_000, 8_000_000),
            _ => self.rng.range(8_000_000, 30_000_000),
        }
    }

    fn strike(&mut self, fault: Fault) {
        let n = self.some_node();
        let now = self.now;
        self.story.note(now, &[5, fault as u64, n as u64]);
        match fault {
            Fault::KillDatabase => self.kill_database(n, "SIGKILL"),
            Fault::MasterDatabase => {
                let n = self.master();
                self.kill_database(n, "SIGKILL");
            }
            Fault::ReplicaDatabase => {
                let n = self.replica();
                self.kill_database(n, "SIGKILL");
            }
            Fault::KillAgent => self.stop_agent(n),
            Fault::KillNode => self.kill_node(n),
            Fault::MasterNode => {
                let n = self.master();
                self.kill_node(n);
            }
            Fault::PowerLoss => self.cut_power(n),
            Fault::PauseDatabase => self.pause(n, false, true),
            Fault::PauseAgent => self.pause(n, true, false),
            Fault::PauseNode => self.pause(n, true, true),
            Fault::MasterPause => {
                let n = self.master();
                self.pause(n, true, true);
            }
            Fault::Partition => self.partition(),
            Fault::OneWay => self.one_way(),
            Fault::ConsulOutage => self.consul_outage(),
            Fault::CutFromConsul => self.cut_from_consul(n),
            Fault::Switchover => self.switchover(),
            Fault::Flush => self.flush_all(),
            Fault::BreakLink => self.break_link(n),
            Fault::Pause => self.pause_group(),
            Fault::Force => self.force(n),
            Fault::Drain => self.ask_to_drain(n),
            Fault::Reinit => self.reinit(n),
            Fault::DiskFails => self.disk_fails(n),
            Fault::ConsulGoesBack => self.consul_goes_back(),
            Fault::Fsync => self.change_fsync(),
            Fault::ConsulLeader => self.consul_leader_dies(),
            Fault::DiskLost => self.lose_disk(n),
        }
    }

    fn stop_agent(&mut self, n: usize) {
        self.kill_agent(n);
        let back = self.for_a_while();
        self.after(back, move |w| w.start_agent(n));
    }

    fn kill_node(&mut self, n: usize) {
        self.stop_agent(n);
        self.kill_database(n, "SIGKILL of the whole node");
    }

    /// The machine is off: nobody is told, and what had not reached the disk is gone.
    fn cut_power(&mut self, n: usize) {
        if !self.nodes[n].up {
            return;
        }
        let lag = self.rng.range(0, FSYNC_LAG_US);
        self.cut_power_with(n, lag);
        let back = self.for_a_while();
        self.after(back, move |w| w.power_on(n));
    }

    /// The last `lag` microseconds of writes had not reached the disk.
    pub(crate) fn cut_power_with(&mut self, n: usize, lag: u64) {
        self.tell(|| format!("n{} loses power", n + 1));
        self.kill_agent(n);
        self.forget_database(n);
        let now = self.now;
        self.nodes[n].disk.lose_power(now, lag);
        self.nodes[n].up = false;
        if let Some(memory) = self.nodes[n].unsynced.take() {
            self.nodes[n].memory = memory;
        }
        self.ledger.power_cuts += 1;
    }

    /// The machine comes back with an empty disk: its copy is gone, and so is all that its agent remembered. Not while
    /// Consul has lost the record as well: who remembers nothing cannot know of it, and nothing protects him.
    fn lose_disk(&mut self, n: usize) {
        if !self.nodes[n].up || self.consul.lost.is_some() {
            return;
        }
        self.cut_power(n);
        self.tell(|| format!("n{}'s disk is lost", n + 1));
        let node = &mut self.nodes[n];
        (node.disk, node.memory, node.remembered) = (Disk::default(), Memory::default(), Stamp::default());
    }

    pub(crate) fn power_on(&mut self, n: usize) {
        if self.nodes[n].up {
            return;
        }
        self.nodes[n].up = true;
        self.tell(|| format!("n{} has power again", n + 1));
        self.start_agent(n);
    }

    fn pause(&mut self, n: usize, agent: bool, database: bool) {
        let back = self.for_a_while();
        self.stop(n, agent, database);
        self.after(back, move |w| w.wake(n));
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self, n: usize, agent: bool, database: bool) {
        let kind = self.kind().as_str();
        let what = match (agent, database) {
            (true, true) => format!("agent and {kind} are"),
            (true, false) => "agent is".to_owned(),
            _ => format!("{kind} is"),
        };
        self.tell(|| format!("n{} {what} stopped", n + 1));
        if let Some(a) = self.nodes[n].agent.as_mut().filter(|_| agent) {
            a.paused = true;
        }
        if let Some(p) = self.nodes[n].database.as_mut().filter(|_| database) {
            p.paused = true;
        }
    }

    /// What arrived meanwhile is taken in now, oldest first; of two processes either may come first.
    pub(crate) fn wake(&mut self, n: usize) {
        let database_first = self.rng.chance(500);
        if database_first {
            self.wake_database(n);
        }
        if let Some(agent) = self.nodes[n].agent.as_mut().filter(|a| a.paused) {
            agent.paused = false;
            let (boot, inbox) = (agent.boot, std::mem::take(&mut agent.inbox));
            self.tell(|| format!("n{} agent wakes", n + 1));
            inbox.into_iter().for_each(|task| self.at_agent(n, boot, task));
        }
        self.wake_database(n);
    }

    fn wake_database(&mut self, n: usize) {
        let now = self.now;
        let Some(p) = self.nodes[n].database.as_mut().filter(|p| p.paused) else { return };
        (p.paused, p.awake_since) = (false, now);
        let (run, inbox) = (p.run, std::mem::take(&mut p.inbox));
        let kind = self.kind().as_str();
        self.tell(|| format!("n{} {kind} wakes", n + 1));
        inbox.into_iter().for_each(|task| self.at_database(n, run, task));
    }

    /// Splits all ends, Consul and proxies among them, in two.
    fn partition(&mut self) {
        let ends = self.cut.len();
        let side: Vec<bool> = (0..ends).map(|_| self.rng.chance(400)).collect();
        let pairs = (0..ends).flat_map(|a| (0..ends).map(move |b| (a, b)));
        let apart = pairs.filter(|(a, b)| side[*a] != side[*b]).collect();
        self.tell(|| format!("partition: {side:?} (nodes, consul, proxies)"));
        self.cut_off(apart);
    }

    fn one_way(&mut self) {
        let ends = self.cut.len();
        let (a, b) = (self.some_node(), self.rng.index(ends));
        if a != b {
            self.tell(|| format!("nothing gets from n{} to end {b}", a + 1));
            self.cut_off(vec![(a, b)]);
        }
    }

    fn cut_from_consul(&mut self, n: usize) {
        let consul = self.consul_end();
        self.tell(|| format!("n{} is cut from Consul", n + 1));
        self.cut_off(vec![(n, consul), (consul, n)]);
    }

    fn cut_off(&mut self, apart: Vec<(usize, usize)>) {
        apart.iter().for_each(|(a, b)| self.cut[*a][*b] = true);
        let back = self.for_a_while();
        self.after(back, move |w| {
            apart.iter().for_each(|(a, b)| w.cut[*a][*b] = false);
            w.tell(|| "a partition ends".to_owned());
        });
    }

    fn consul_outage(&mut self) {
        (self.consul.outage, self.consul.electing) = (true, false);
        self.tell(|| "Consul is away".to_owned());
        let back = self.for_a_while();
        self.after(back, move |w| w.consul_returns());
    }

    pub(crate) fn consul_returns(&mut self) {
        (self.consul.outage, self.consul.electing) = (false, false);
        let expires = self.now + 10_000_000;
        self.consul.restart_timers(expires);
        self.tell(|| "Consul is back".to_owned());
        for proposal in std::mem::take(&mut self.consul.handed_on) {
            self.apply(&proposal);
        }
    }

    /// Until the servers have elected another, nobody is answered; the next leader may apply what the last one took.
    pub(crate) fn consul_leader_dies(&mut self) {
        if self.consul.outage {
            return;
        }
        (self.consul.outage, self.consul.electing) = (true, true);
        self.tell(|| "Consul's leader dies".to_owned());
        let elected = self.rng.range(200_000, 6_000_000);
        self.after(elected, |w| {
            if w.consul.electing {
                w.consul_returns();
            }
        });
    }

    pub(crate) fn expire_sessions(&mut self) {
        let now = self.now;
        if !self.consul.outage && self.consul.expire(now) {
            self.tell(|| "a session has ended".to_owned());
            self.consul_changed();
        }
        self.after(500_000, World::expire_sessions);
    }

    fn switchover(&mut self) {
        let target = self.rng.chance(500).then(|| self.some_node()).map(name);
        let stale = u64::from(self.rng.chance(100));
        let mut request = self.request(target);
        request.expect_epoch = request.expect_epoch.saturating_sub(stale);
        request.grace_ms = GRACES_MS[usize::try_from(self.number()).unwrap_or_default() % GRACES_MS.len()];
        self.ask_group(request);
    }

    pub(crate) fn request(&mut self, target: Option<NodeId>) -> Command {
        let (id, expires_at) = (format!("request{}", self.number()), self.wall() + 60_000);
        let by = "simulation".to_owned();
        Command {
            id,
            op: CommandOp::Switchover,
            target,
            expect_epoch: self.stamp().epoch,
            expires_at,
            by,
            grace_ms: None,
        }
    }

    /// False while another request waits.
    pub(crate) fn ask_group(&mut self, command: Command) -> bool {
        let (op, target, epoch) = (command.op, &command.target, command.expect_epoch);
        let line = format!("an operator asks for a {op:?} of {target:?} in epoch {epoch}");
        let asked = self.consul.ask(&command);
        if asked {
            self.tell(|| line);
            self.consul_changed();
        }
        asked
    }

    /// A request that a healthy group can fulfil, when it has more than one node for it.
    pub(crate) fn plan_switchover(&mut self) -> Option<Command> {
        if !self.has_understudy() {
            return None;
        }
        let master = self.master();
        let may = |n: &usize| {
            *n != master && self.mix.priorities[*n] > 0 && !self.nodes[*n].foreign && !self.holds_what_nobody_has(*n)
        };
        let able: Vec<usize> = (0..self.mix.nodes).filter(may).collect();
        if able.is_empty() {
            return None;
        }
        let target = able[self.rng.index(able.len())];
        let target = self.rng.chance(600).then(|| name(target));
        Some(self.request(target))
    }

    /// A client's FLUSHALL takes the marker, and what stands beside it, away.
    pub(crate) fn flush_all(&mut self) {
        if self.is_sql() {
            return self.meddle();
        }
        let (n, now) = (self.master(), self.now);
        let node = &mut self.nodes[n];
        let Some(p) = node.database.as_mut() else { return };
        if p.paused || !p.open || !p.is_master() || p.guard_refuses() || p.quiesced {
            return;
        }
        p.append(Entry::Flush, now, &mut node.disk);
        let run = p.run;
        self.tell(|| format!("a client flushes n{}", n + 1));
        self.pump(n, run);
        self.watch_need(n);
    }

    pub(crate) fn break_link(&mut self, n: usize) {
        let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run) else { return };
        self.tell(|| format!("n{}'s replication link breaks", n + 1));
        self.drop_upstream(n, run);
    }

    /// Every fault ends.
    pub(crate) fn heal(&mut self) {
        self.tell(|| "every fault ends".to_owned());
        self.mix.calm();
        self.cut.iter_mut().for_each(|row| row.fill(false));
        self.consul_returns();
        self.resume_group();
        self.consul.withdraw();
        for n in 0..self.mix.nodes {
            self.nodes[n].disk.bad = false;
            self.power_on(n);
            self.wake(n);
            if self.nodes[n].agent.as_ref().is_some_and(|a| a.step.duty().is_some()) {
                self.kill_agent(n); // Its drain has had its time.
            }
            self.start_agent(n);
            if self.nodes[n].database.is_none() {
                self.agent_event(n, Event::Engine(election::Engine::Down { why: "found so".to_owned() }));
            }
        }
    }
}
