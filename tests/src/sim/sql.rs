//! What PostgreSQL and MariaDB have in common in this model, and Redis has not: a log that is on disk, commits that wait
//! for a copy before they are answered, copies that receive first and apply later.
//!
//! Their defects are in it. PostgreSQL answers a wait that is cancelled with success and a warning; that its setting was
//! read again does not say that commits wait yet; a copy of another history is fed by nobody until it is wound back or
//! cloned. MariaDB answers a wait that is killed with plain success; semi-synchronous replication may be switched off, by
//! itself too; what was received and not applied is thrown away unless it is applied first.

use super::bugs::Bug;
use super::client::Call;
use super::data::{Data, Entry, Source};
use super::history::Knot;
use super::process::{Downstream, Process, address};
use super::world::World;
use config::Engine as Kind;
use election::{EngineOp, Lineage, Marker, Nonce, Position};

/// A copy that is further behind than this, in transactions, finds the log that it needs removed.
pub(crate) const KEPT_LOG: u64 = 600;

/// Semi-synchronous replication's own limit, where nobody sets another.
const DEFAULT_TIMEOUT_US: u64 = 10_000_000;

/// Whose acknowledgement a commit needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Waits {
    /// Nobody's.
    #[default]
    Nobody,
    /// That of a copy that there is not.
    ForEver,
    /// PostgreSQL: of the copy of this name: its node and its channel.
    Named(usize, Nonce),
    /// MariaDB: of any.
    Anybody,
}

/// See the module.
pub(crate) struct Sql {
    pub(crate) kind: Kind,
    /// The end of what it has received or written.
    pub(crate) tip: Knot,
    /// The end of what is applied or committed: what is seen in it.
    pub(crate) applied: Knot,
    pub(crate) marker: Option<Marker>,
    applying: bool,
    pub(crate) waits: Waits,
    /// PostgreSQL: commits do wait as the setting says.
    pub(crate) in_force: bool,
    pub(crate) commits: Vec<Commit>,
    /// Clients' transactions that have begun and not come to their commit.
    pub(crate) running: Vec<u32>,
    /// PostgreSQL: nobody is let in to replicate but with the certificate's password.
    pub(crate) exclusive: bool,
    /// Whom it is told to follow.
    pub(crate) source: Option<Source>,
    /// PostgreSQL: it takes no connections before it has this.
    pub(crate) required: Option<Knot>,
    /// MariaDB: what an earlier run had received is being applied by its place in the relay log.
    pub(crate) rest: bool,
    /// MariaDB: semi-synchronous replication has switched itself off.
    pub(crate) gave_up: bool,
    /// And nothing that the agent sets can keep it from that.
    pub(crate) excused: bool,
    /// MariaDB: how many commits were let through, and how many acknowledgements have come.
    pub(crate) no_tx: u64,
    pub(crate) acknowledgements: u64,
    /// MariaDB: why it receives no more, for good.
    pub(crate) stopped: Option<Stopped>,
}

/// Why a copy cannot go on from where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The source has removed the log that it needs.
    Purged,
    /// It has what the source has not.
    Parted,
}

/// A commit that is not answered yet.
pub(crate) struct Commit {
    pub(crate) who: Who,
    pub(crate) at: Knot,
    pub(crate) offset: u64,
}

/// Who waits for it.
pub(crate) enum Who {
    Client(Call, u32),
    /// MariaDB's agent, for its marker.
    Agent {
        boot: u64,
        call: u64,
        op: EngineOp,
    },
}

/// What a client is told of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Success.
    Success,
    /// PostgreSQL: success, and a warning that the wait was cancelled.
    Warned,
    /// MariaDB: success, though nobody else has it.
    Leaked,
}

impl Sql {
    pub(crate) fn boot(kind: Kind, tip: Knot, applied: Knot) -> Self {
        let waits = if kind == Kind::Postgres { Waits::ForEver } else { Waits::Nobody };
        Self {
            kind,
            tip,
            applied,
            marker: None,
            applying: false,
            waits,
            in_force: true,
            commits: Vec::new(),
            running: Vec::new(),
            exclusive: false,
            source: None,
            required: None,
            rest: false,
            gave_up: false,
            excused: true,
            no_tx: 0,
            acknowledgements: 0,
            stopped: None,
        }
    }

    pub(crate) fn postgres(&self) -> bool {
        self.kind == Kind::Postgres
    }

    /// Whether commits wait for somebody.
    pub(crate) fn needs(&self) -> bool {
        self.waits != Waits::Nobody
    }

    /// What a client is told whose commit nobody has acknowledged, or somebody has.
    fn told(&self) -> Told {
        if self.gave_up && self.excused { Told::Leaked } else { Told::Success }
    }

    /// How far commits may be answered.
    fn answered_to(&self, downstream: &[Downstream]) -> u64 {
        let acked = |d: &&Downstream| d.online;
        let furthest = |which: &dyn Fn(&&Downstream) -> bool| {
            downstream.iter().filter(acked).filter(which).map(|d| d.ack).max().unwrap_or_default()
        };
        match &self.waits {
            _ if !self.in_force || self.gave_up => u64::MAX,
            Waits::Nobody => u64::MAX,
            Waits::ForEver => 0,
            Waits::Named(node, channel) => furthest(&|d| d.node == *node && d.channel.as_ref() == Some(channel)),
            Waits::Anybody => furthest(&|_| true),
        }
    }
}

impl World {
    pub(crate) fn kind(&self) -> Kind {
        self.mix.engine
    }

    pub(crate) fn is_sql(&self) -> bool {
        self.mix.engine != Kind::Redis
    }

    /// The end of what it sends to others: MariaDB sends what is in its own binary log.
    pub(crate) fn sends_to(p: &Process) -> Knot {
        match &p.sql {
            Some(sql) if sql.postgres() || p.is_master() => sql.tip,
            Some(sql) => sql.applied,
            None => Knot::default(),
        }
    }

    /// A server's own write is on its disk, and on its way to the copies.
    pub(crate) fn write_log(&mut self, n: usize, run: u64, entry: Entry) -> Option<(Knot, u64)> {
        let node = &mut self.nodes[n];
        let p = node.database.as_mut().filter(|p| p.run == run)?;
        let sql = p.sql.as_mut()?;
        let at = self.histories.add(sql.tip, entry.clone());
        (sql.tip, p.offset) = (at, self.histories.depth(at));
        p.data.apply(&entry);
        (node.disk.log.received, node.disk.log.written, node.disk.log.fresh) = (at, at, false);
        // MariaDB shows nothing of it before it is acknowledged, PostgreSQL's agent does not wait.
        if sql.postgres() || !sql.needs() {
            self.commit(n, run, at);
        }
        let offset = self.histories.depth(at);
        self.pump(n, run);
        Some((at, offset))
    }

    /// Everything up to there is committed or applied, and is seen from now on.
    pub(crate) fn commit(&mut self, n: usize, run: u64, at: Knot) {
        let node = &mut self.nodes[n];
        let Some(p) = node.database.as_mut().filter(|p| p.run == run) else { return };
        let Some(sql) = &mut p.sql else { return };
        if self.histories.depth(at) <= self.histories.depth(sql.applied) {
            return;
        }
        let marks = self.histories.between(sql.applied, at).filter_map(|entry| match entry {
            Entry::Mark(marker) => Some(marker),
            _ => None,
        });
        sql.marker = marks.last().cloned().or(sql.marker.take());
        sql.applied = at;
        node.disk.log.applied = at;
        if self.histories.depth(node.disk.log.written) < self.histories.depth(at) {
            node.disk.log.written = at;
        }
    }

    /// What was received is applied in its own time.
    pub(crate) fn apply_received(&mut self, n: usize, run: u64) {
        let lag = match self.rng.range(0, 200) {
            0 => self.rng.range(100_000, 2_000_000),
            1..=8 => self.rng.range(2_000, 100_000),
            _ => self.rng.range(50, 1_500),
        };
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return };
        if std::mem::replace(&mut sql.applying, true) {
            return;
        }
        self.after(lag, move |w| w.at_database(n, run, move |w| w.applied(n, run)));
    }

    fn applied(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run).filter(|p| !p.is_master()) else { return };
        let Some(sql) = &mut p.sql else { return };
        sql.applying = false;
        let tip = sql.tip;
        self.commit(n, run, tip);
        self.pump(n, run);
    }

    /// Answers the commits that need wait no longer.
    pub(crate) fn release_commits(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        let to = p.sql.as_ref().map_or(0, |sql| sql.answered_to(&p.downstream));
        let Some(sql) = p.sql.as_mut() else { return };
        let (gave_up, told) = (sql.gave_up, sql.told());
        let waiting = std::mem::take(&mut sql.commits);
        let (answered, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|commit| commit.offset <= to);
        sql.commits = rest;
        if to != u64::MAX {
            self.ledger.reached(n, run, to);
        }
        if let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()).filter(|_| gave_up) {
            sql.no_tx += u64::try_from(answered.len()).unwrap_or_default();
        }
        answered.into_iter().for_each(|commit| self.end_commit(n, run, commit, told));
    }

    /// A commit's wait is over.
    pub(crate) fn end_commit(&mut self, n: usize, run: u64, commit: Commit, told: Told) {
        self.commit(n, run, commit.at);
        match commit.who {
            Who::Client(call, write) => self.tell_client(call, write, commit.offset, told),
            Who::Agent { boot, call, op } => {
                let EngineOp::Mark(marker) = &op else { return };
                let (marker, at) = (marker.clone(), commit.offset);
                if let Some(agent) = self.agent(n, boot) {
                    agent.adapter.marked = Some((run, marker, at));
                }
                if self.agent(n, boot).is_some_and(|a| a.call == call) {
                    self.engine_done(n, boot, op, Ok(()));
                }
            }
        }
    }

    /// Whose acknowledgement commits need from now on.
    pub(crate) fn wait_for(&mut self, n: usize, run: u64, waits: Waits) {
        let tells = self.rng.range(0, 400_000);
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return };
        let begins = !sql.needs() && waits != Waits::Nobody;
        let postgres = sql.postgres();
        if begins && postgres {
            sql.in_force = false; // Another of its processes says so, in its own time.
        }
        if waits == Waits::Nobody {
            (sql.in_force, sql.gave_up) = (true, false);
            sql.excused = true;
        }
        sql.waits = waits;
        if begins && postgres {
            self.after(tells, move |w| {
                w.at_database(n, run, move |w| {
                    if let Some(sql) = w.database(n, run).and_then(|p| p.sql.as_mut()).filter(|sql| sql.needs()) {
                        sql.in_force = true;
                    }
                });
            });
        }
        self.release_commits(n, run);
        self.watch_need(n);
    }

    /// A commit waits, or is answered at once.
    pub(crate) fn wait_or_answer(&mut self, n: usize, run: u64, commit: Commit) {
        let times_out = self.bug == Some(Bug::SemiSyncTimesOut);
        let offset = commit.offset;
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return };
        let leaks = sql.gave_up || !sql.in_force;
        let (waits, mariadb) = (sql.needs() && !leaks, !sql.postgres());
        if waits {
            sql.commits.push(commit);
            self.release_commits(n, run);
            if times_out && mariadb {
                self.after(DEFAULT_TIMEOUT_US, move |w| w.at_database(n, run, move |w| w.times_out(n, run, offset)));
            }
            return;
        }
        let told = sql.told();
        sql.no_tx += u64::from(sql.gave_up);
        self.end_commit(n, run, commit, told);
    }

    /// The planted bug's: a wait has lasted too long for the server, and it waits no more.
    fn times_out(&mut self, n: usize, run: u64, offset: u64) {
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return };
        if !sql.commits.iter().any(|commit| commit.offset == offset) {
            return;
        }
        (sql.gave_up, sql.excused) = (true, false);
        self.release_commits(n, run);
    }

    /// The data a process begins with.
    pub(crate) fn data_at(&self, tip: Knot, torn: bool) -> Data {
        let mut data = self.histories.data(tip);
        if torn {
            data.writes.tear();
        }
        data
    }

    /// What the copies are called by the log that they hold.
    pub(crate) fn lineage_of(&self, sql: &Sql) -> Lineage {
        if sql.postgres() {
            let (system, timeline) = (self.histories.system(sql.tip), self.histories.timeline(sql.tip));
            return Lineage(format!("{system}/{timeline}"));
        }
        Lineage(sql.marker.as_ref().map(|m| m.uid.clone()).unwrap_or_default())
    }

    /// How the copies that are attached look to a master's agent.
    pub(crate) fn attached_to(&self, p: &Process) -> Vec<election::Attached> {
        let lag = |d: &Downstream| self.now.saturating_sub(d.acked_at) / 1_000_000;
        let one = |d: &Downstream| election::Attached {
            address: address(d.node),
            online: d.online,
            position: Position(d.ack),
            lag_s: lag(d),
        };
        p.downstream.iter().map(one).collect()
    }
}
