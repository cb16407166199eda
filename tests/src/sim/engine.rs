//! What an agent does to its database, and what the database says: the place of the adapters. Redis' is here, the
//! others' are in `postgres.rs` and `mariadb.rs`.

use super::bugs::Bug;
use super::checks;
use super::data::{Data, Entry, LogDisk};
use super::mariadb::{Acks, Copying};
use super::postgres::{Pursuit, chain};
use super::process::{Process, Role, node_at};
use super::sql::Sql;
use super::world::{World, index_of};
use agent::step::{Done, Event};
use config::Engine as Kind;
use election::{Engine, EngineOp, EngineRole, Incarnation, Lineage, Marker, Millis, Nonce, Position, Proposal, Status};

/// A command that is not answered in this time has failed, as far as the agent knows.
const PATIENCE_US: u64 = 500_000;

/// What the adapter remembers for its agent, of one run of the database each.
#[derive(Default)]
pub(crate) struct Adapter {
    pub(crate) channel: Option<(u64, Nonce)>,
    told: Option<(u64, Nonce)>,
    pub(crate) marked: Option<(u64, Marker, u64)>,
    /// The planted bug's: the only link the agent is told of.
    shown: Option<usize>,
    pub(crate) sealed_in_words: bool,
    /// The planted bugs': what was reported as done and was not.
    pub(crate) words: Words,
    memo: Memo,
    /// PostgreSQL's.
    pub(crate) pursuit: Pursuit,
    /// MariaDB's: the copy that is being fetched.
    pub(crate) copying: Option<Copying>,
    /// MariaDB's: since when a start waits for the group's word on what becomes of the tail.
    pub(crate) undecided_since: Option<u64>,
}

/// What an SQL engine's adapter remembers of one run.
#[derive(Default)]
pub(crate) struct Memo {
    run: u64,
    /// The channel in force is a certificate's.
    pub(crate) exclusive: bool,
    /// PostgreSQL: the last write of the agent's found the disk full; a commit was seen to wait; there is a hot replica,
    /// and no commit is to wait for it.
    pub(crate) disk_full: bool,
    pub(crate) seen_to_wait: bool,
    pub(crate) unneeded: bool,
    /// MariaDB: what an earlier run had received was seen to; the guard was asked for, whom it follows and with which
    /// password, what its counters say.
    pub(crate) begun: bool,
    pub(crate) guard: bool,
    pub(crate) follows: Option<usize>,
    pub(crate) follows_with: Option<(Nonce, String)>,
    pub(crate) acks: Acks,
}

impl Adapter {
    pub(crate) fn memo_of(&self, run: u64) -> Option<&Memo> {
        Some(&self.memo).filter(|memo| memo.run == run)
    }

    pub(crate) fn channel_of(&self, run: u64) -> Option<Nonce> {
        self.channel.as_ref().filter(|(of, _)| *of == run).map(|(_, name)| name.clone())
    }

    /// The position right behind the marker that it has, if this agent wrote it.
    pub(crate) fn marked_at(&self, run: u64, has: Option<&Marker>) -> Option<Position> {
        let written = self.marked.as_ref().filter(|(of, marker, _)| *of == run && has == Some(marker));
        written.map(|(.., at)| Position(*at))
    }
}

/// See [`Adapter::words`].
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) guard: Option<bool>,
    pub(crate) need: Option<bool>,
    marker: Option<Marker>,
}

impl World {
    pub(crate) fn start_database(&mut self, n: usize) {
        if self.nodes[n].database.is_some() || !self.nodes[n].up {
            return;
        }
        let run = self.number();
        let named = if self.bug == Some(Bug::RunKeepsItsName) { 0 } else { run };
        let (replid, secret) = (Lineage(self.rng.text()), self.rng.text());
        let sql = self.boot_sql(n);
        let data = match &sql {
            Some(sql) => self.data_at(sql.tip, self.nodes[n].disk.log.torn),
            None => self.nodes[n].disk.content(),
        };
        let mut p = Process::boot(run, Incarnation(format!("n{}-run{named}", n + 1)), replid, secret, data);
        if let Some(sql) = sql {
            (p.offset, p.fsync, p.fsync_works, p.sql) = (self.histories.depth(sql.tip), true, true, Some(sql));
        }
        if self.bug == Some(Bug::NamesEmptyAtStart) && p.data.marker.is_some() {
            (p.role, p.open) = (Role::Master, true);
        }
        if self.bug == Some(Bug::BootsAsMaster) && !self.nodes[n].last_secret.is_empty() {
            p.role = Role::Master;
            p.secret.clone_from(&self.nodes[n].last_secret);
        }
        self.nodes[n].database = Some(p);
        let kind = self.kind().as_str();
        self.tell(|| format!("n{} {kind} starts, run {run}", n + 1));
        if self.nodes[n].disk.bad {
            // It cannot open its append-only file for writing.
            return self.after(20_000, move |w| {
                if w.database(n, run).is_some() {
                    w.kill_database(n, "its disk takes no writes");
                }
            });
        }
        let load = self.rng.range(5_000, 200_000);
        self.after(load, move |w| w.at_database(n, run, move |w| w.booted(n, run)));
        let first = self.rng.range(0, 250_000);
        self.after(first, move |w| w.cron(n, run, 0));
    }

    fn booted(&mut self, n: usize, run: u64) {
        if self.kind() == Kind::Postgres {
            return self.postgres_comes_up(n, run);
        }
        if let Some(p) = self.database(n, run) {
            p.loading = false;
        }
    }

    /// What a server of an SQL engine finds on its disk.
    fn boot_sql(&mut self, n: usize) -> Option<Sql> {
        let kind = self.kind();
        let (tip, applied) = match kind {
            Kind::Redis => return None,
            Kind::Postgres => self.boot_postgres(n),
            Kind::Mariadb => self.boot_mariadb(n),
        };
        let mut sql = Sql::boot(kind, tip, applied);
        sql.marker = self.histories.data(applied).marker;
        sql.source = self.nodes[n].disk.log.source.clone().filter(|_| kind == Kind::Mariadb);
        if self.bug == Some(Bug::NamesEmptyAtStart) {
            sql.waits = super::sql::Waits::Nobody;
        }
        Some(sql)
    }

    /// What the adapter remembers of this run; of another it says nothing.
    pub(crate) fn memo(&mut self, n: usize, boot: u64, run: u64) -> Option<&mut Memo> {
        let memo = &mut self.agent(n, boot)?.adapter.memo;
        if memo.run != run {
            *memo = Memo { run, ..Memo::default() };
        }
        Some(memo)
    }

    pub(crate) fn note(&mut self, n: usize, boot: u64, run: u64, change: impl FnOnce(&mut Memo)) {
        if let Some(memo) = self.memo(n, boot, run) {
            change(memo);
        }
    }

    pub(crate) fn set_channel(
        &mut self,
        n: usize,
        run: u64,
        boot: u64,
        name: &Nonce,
        exclusive: bool,
    ) -> Result<(), String> {
        self.note(n, boot, run, |memo| memo.exclusive = exclusive);
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.channel = Some((run, name.clone()));
        }
        Ok(())
    }

    pub(crate) fn word_marked(&mut self, n: usize, boot: u64, run: u64, marker: &Marker, at: u64) {
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.marked = Some((run, marker.clone(), at));
        }
    }

    /// SIGKILL: what was in memory is gone, the kernel ends its connections.
    pub(crate) fn kill_database(&mut self, n: usize, why: &'static str) {
        let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run) else { return };
        let kind = self.kind().as_str();
        self.tell(|| format!("n{} {kind} dies: {why}", n + 1));
        self.drop_upstream(n, run);
        self.drop_downstream(n, run, |_| true);
        self.forget_database(n);
        let Some(boot) = self.nodes[n].agent.as_ref().map(|a| a.boot) else { return };
        let delay = self.rng.range(200, 5_000);
        self.after(delay, move |w| {
            w.at_agent(n, boot, move |w| {
                if w.nodes[n].database.is_none() {
                    let engine = match w.engine(n) {
                        Engine::Down { .. } => Engine::Down { why: why.to_owned() },
                        // Its copy is being made anew.
                        other => other,
                    };
                    w.agent_event(n, Event::Engine(engine));
                }
            });
        });
    }

    /// The process is gone, and nobody is told.
    pub(crate) fn forget_database(&mut self, n: usize) {
        if let Some(p) = self.nodes[n].database.take() {
            self.nodes[n].last_secret = p.secret;
        }
    }

    /// What the folder makes of a database that does not run.
    pub(crate) fn at_rest(&self, n: usize) -> Engine {
        if self.nodes[n].foreign && !self.nodes[n].adopt {
            return Engine::Foreign { why: "data of somebody else".to_owned() };
        }
        Engine::Down { why: "it is not running".to_owned() }
    }

    /// What the adapter reports.
    pub(crate) fn engine(&mut self, n: usize) -> Engine {
        match self.kind() {
            Kind::Redis => {}
            Kind::Postgres => return self.postgres_says(n),
            Kind::Mariadb => return self.mariadb_says(n),
        }
        let now = self.now;
        let lies = self.bug == Some(Bug::ClaimsToBeWhole);
        let Some(p) = self.nodes[n].database.as_ref() else {
            return self.at_rest(n);
        };
        let mut status = p.status(now);
        status.disk_ok = !self.nodes[n].disk.bad;
        let claimed = match &p.role {
            Role::Follows(up) if lies => {
                self.nodes[up.source].database.as_ref().map(|s| (s.status(now), s.data.clone()))
            }
            _ => None,
        };
        let Some(agent) = &self.nodes[n].agent else { return Engine::Unknown };
        let adapter = &agent.adapter;
        let of_this_run = |(run, nonce): &(u64, Nonce)| (*run == p.run).then(|| nonce.clone());
        status.channel = adapter.channel.as_ref().and_then(of_this_run);
        if let EngineRole::Follows { channel, .. } = &mut status.role {
            *channel = adapter.told.as_ref().and_then(of_this_run);
        }
        status.marked_at = adapter
            .marked
            .as_ref()
            .filter(|(run, marker, _)| *run == p.run && status.marker.as_ref() == Some(marker))
            .map(|(_, _, at)| election::Position(*at));
        if let Some(shown) = adapter.shown {
            status.replicas.retain(|r| node_at(&r.address) == Some(shown));
        }
        if adapter.sealed_in_words {
            status.role = EngineRole::Sealed;
        }
        match self.bug {
            Some(Bug::GuardNotSet) => status.guard = adapter.words.guard.unwrap_or(status.guard),
            Some(Bug::NeedNotRaised) => status.need = adapter.words.need.unwrap_or(status.need),
            Some(Bug::ReleasedBeforeTheDrop) => {
                status.guard = adapter.words.guard.unwrap_or(status.guard);
                status.need = adapter.words.need.unwrap_or(status.need);
            }
            Some(Bug::QuiesceDoesNothing) => status.quiesced = p.quiesced,
            Some(Bug::PersistedTooEarly) => status.persisted = true,
            Some(Bug::MarkInWords) => status.marker = adapter.words.marker.clone().or(status.marker),
            Some(Bug::MarkerNotChecked) => self.asked_marker(n, &mut status),
            _ => {}
        }
        if let (Some((source, data)), EngineRole::Follows { syncing, .. }) = (claimed, &mut status.role) {
            *syncing = false;
            (status.loading, status.persisted, status.marker) = (false, true, data.marker);
            (status.lineage, status.position) = (source.lineage, source.position);
        }
        Engine::Up(Box::new(status))
    }

    /// Carries an operation out, and tells the agent what became of it and how the database is then.
    pub(crate) fn engine_effect(&mut self, n: usize, boot: u64, op: EngineOp) {
        let delay = self.rng.range(200, 4_000);
        self.after(delay, move |w| {
            if w.agent(n, boot).is_none() {
                return; // It died before it came to it.
            }
            match op {
                EngineOp::Start if w.nodes[n].foreign && !w.nodes[n].adopt => {
                    w.engine_done(n, boot, op, Err("data of somebody else".to_owned()));
                }
                EngineOp::Start if w.is_made_anew(n, boot) => w.engine_done(n, boot, op, Ok(())),
                EngineOp::Start if w.kind() == Kind::Mariadb && w.start_is_put_off(n, boot) => {
                    w.engine_done(n, boot, op, Ok(()));
                }
                EngineOp::Start => {
                    if w.kind() == Kind::Mariadb {
                        w.keep_before_start(n, boot);
                    }
                    // From now on the folder says whose it is.
                    w.nodes[n].foreign = false;
                    w.start_database(n);
                    w.engine_done(n, boot, op, Ok(()));
                }
                EngineOp::Kill => {
                    w.give_up_pursuit(n, boot);
                    w.kill_database(n, "its agent killed it");
                    w.engine_done(n, boot, op, Ok(()));
                }
                EngineOp::Stop => {
                    w.give_up_pursuit(n, boot);
                    w.drop_copy(n, boot);
                    w.nodes[n].disk.sync();
                    let waiting = |p: &Process| p.sql.as_ref().is_some_and(|sql| !sql.commits.is_empty());
                    let orderly = w.nodes[n].database.as_ref().is_some_and(|p| !p.paused && !waiting(p));
                    w.kill_database(n, "its agent stopped it");
                    w.nodes[n].disk.log.ended_badly &= !orderly;
                    w.engine_done(n, boot, op, Ok(()));
                }
                EngineOp::Reset if w.nodes[n].foreign => w.engine_done(n, boot, op, Ok(())),
                EngineOp::Reset => {
                    let kept = w.may_be_thrown_away(n, boot);
                    w.check(kept);
                    w.give_up_pursuit(n, boot);
                    w.drop_copy(n, boot);
                    w.kill_database(n, "its agent threw its copy away");
                    w.nodes[n].disk.replace(&Data::default());
                    w.nodes[n].disk.log = LogDisk::default();
                    w.engine_done(n, boot, op, Ok(()));
                }
                // Whom a copy of PostgreSQL follows is told to its adapter, whether a server runs or not.
                op if w.kind() == Kind::Postgres && matches!(op, EngineOp::Follow { .. }) => {
                    let result = w.execute_postgres(n, 0, boot, &op);
                    w.engine_done(n, boot, op, result);
                }
                op => w.command(n, boot, op),
            }
        });
    }

    fn command(&mut self, n: usize, boot: u64, op: EngineOp) {
        let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run) else {
            return self.engine_done(n, boot, op, Err("nobody listens".to_owned()));
        };
        let call = self.number();
        if let Some(agent) = self.agent(n, boot) {
            agent.call = call;
        }
        let late = op.clone();
        self.after(PATIENCE_US, move |w| w.no_answer(n, boot, call, late));
        // A stopped process has the command in its socket, and executes it when it wakes, whoever asked.
        self.at_database(n, run, move |w| {
            if let (Kind::Mariadb, EngineOp::Mark(_)) = (w.kind(), &op) {
                return w.mark_mariadb(n, run, boot, call, op);
            }
            let before = w.rng.chance(w.mix.op_fails);
            let result = if before { Err("connection lost".to_owned()) } else { w.execute(n, run, boot, &op) };
            let result = if w.rng.chance(w.mix.op_fails) { Err("answer lost".to_owned()) } else { result };
            if w.agent(n, boot).is_some_and(|a| a.call == call) {
                w.engine_done(n, boot, op, result);
            }
        });
    }

    fn no_answer(&mut self, n: usize, boot: u64, call: u64, op: EngineOp) {
        if self.agent(n, boot).is_some_and(|a| a.call == call) {
            self.engine_done(n, boot, op, Err("no answer in time".to_owned()));
        }
    }

    pub(crate) fn engine_done(&mut self, n: usize, boot: u64, mut op: EngineOp, result: Result<(), String>) {
        if let Some(agent) = self.agent(n, boot) {
            agent.call = 0;
        }
        if let (Kind::Postgres, EngineOp::Channel { exclusive: false, secret, .. }) = (self.kind(), &mut op)
            && let Some(sql) = self.nodes[n].database.as_ref().and_then(|p| p.sql.as_ref())
        {
            // A copy cannot change accounts: the password in force is the group's.
            *secret = election::Secret::new(chain(self.histories.system(sql.tip)));
        }
        let silent = self.nodes[n].database.as_ref().is_some_and(|p| p.paused);
        let incarnation = self.nodes[n].database.as_ref().map(|p| p.incarnation.clone());
        let engine = if silent { Engine::Silent { since: Millis::default(), incarnation } } else { self.engine(n) };
        let delay = self.rng.range(100, 2_000);
        self.after(delay, move |w| {
            w.at_agent(n, boot, move |w| w.agent_done(n, Done::Engine(op, result, engine)));
        });
    }

    /// The commands themselves, in the order the adapter sends them.
    fn execute(&mut self, n: usize, run: u64, boot: u64, op: &EngineOp) -> Result<(), String> {
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        let follows = matches!(op, EngineOp::Follow { .. } | EngineOp::Fence | EngineOp::Keep { .. });
        if p.loading && !(p.sql.is_some() && follows) {
            return Err("it is loading its data".to_owned());
        }
        let done = match self.kind() {
            Kind::Redis => self.execute_redis(n, run, boot, op),
            Kind::Postgres => self.execute_postgres(n, run, boot, op),
            Kind::Mariadb => self.execute_mariadb(n, run, boot, op),
        };
        self.watch_need(n);
        done
    }

    fn execute_redis(&mut self, n: usize, run: u64, boot: u64, op: &EngineOp) -> Result<(), String> {
        let (now, bug) = (self.now, self.bug);
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        match op {
            EngineOp::Start | EngineOp::Kill | EngineOp::Stop | EngineOp::Reset => {}
            EngineOp::Seal => self.seal(n, run, boot),
            EngineOp::Follow { source, channel, .. } => {
                let source = node_at(source).ok_or("no such host")?;
                return self.follow(n, run, boot, source, channel.as_ref().map(|(c, s)| (c, s.reveal())));
            }
            EngineOp::Keep { epoch } => p.kept = Some(*epoch),
            EngineOp::Promote => self.promote(n, run),
            EngineOp::Open => {
                p.open = true;
                let incarnation = p.incarnation.clone();
                let result = self.ledger.may_open(n, &incarnation);
                self.check(result);
            }
            EngineOp::Fence => {
                p.open = false;
                p.end_clients();
                let successor = self.consul.truth().and_then(|r| r.master.as_ref()).and_then(|m| index_of(&m.id));
                match successor.filter(|s| *s != n && self.bug == Some(Bug::FencedByFollowing)) {
                    Some(successor) => {
                        self.replica_of(n, run, Some(successor));
                        if let Some(agent) = self.agent(n, boot) {
                            agent.adapter.sealed_in_words = true;
                        }
                    }
                    None => self.replica_of(n, run, None),
                }
            }
            EngineOp::Guard(on) => {
                p.guard = *on && bug != Some(Bug::GuardNotSet);
                p.count_replicas(now);
                self.word(n, boot, |words| words.guard = Some(*on));
            }
            EngineOp::Fsync(always) => self.fsync(n, run, *always)?,
            EngineOp::Need(need) => return self.set_need(n, run, boot, *need),
            EngineOp::Channel { name, secret, exclusive } => {
                return self.channel(n, run, boot, name, secret.reveal(), *exclusive);
            }
            EngineOp::Expel { keep } => {
                let keep = node_at(keep);
                if self.bug == Some(Bug::ChannelNotExclusive) {
                    if let Some(agent) = self.agent(n, boot) {
                        agent.adapter.shown = keep;
                    }
                } else {
                    self.drop_downstream(n, run, |node| Some(node) != keep);
                }
            }
            EngineOp::Mark(marker) if bug == Some(Bug::MarkInWords) => {
                self.word(n, boot, |words| words.marker = Some(marker.clone()));
            }
            EngineOp::Mark(marker) => {
                let at = self.write(n, run, Entry::Mark(marker.clone()))?;
                if let Some(agent) = self.agent(n, boot) {
                    agent.adapter.marked = Some((run, marker.clone(), at));
                }
            }
            EngineOp::Quiesce { .. } => p.quiesced = true,
            EngineOp::Release => self.release(n, run),
        }
        Ok(())
    }

    fn word(&mut self, n: usize, boot: u64, change: impl FnOnce(&mut Words)) {
        if let Some(agent) = self.agent(n, boot) {
            change(&mut agent.adapter.words);
        }
    }

    fn set_need(&mut self, n: usize, run: u64, boot: u64, need: bool) -> Result<(), String> {
        self.word(n, boot, |words| words.need = Some(need));
        if need && self.bug == Some(Bug::NeedNotRaised) {
            return Ok(());
        }
        self.write(n, run, Entry::Need(need)).map(|_| ())
    }

    /// The planted bug's database carries whatever marker it is asked for.
    fn asked_marker(&self, n: usize, status: &mut Status) {
        let Some(agent) = &self.nodes[n].agent else { return };
        let Some(record) = agent.step.view().record.as_ref().filter(|_| !status.is_master()) else { return };
        let nonce = record.replica.as_ref().map(|r| r.certificate.nonce.clone()).unwrap_or_default();
        let counter = agent.step.memory().marker.map_or(0, |(_, counter)| counter) + 1_000;
        status.marker = Some(Marker { uid: record.uid.clone(), epoch: record.epoch, nonce, counter });
    }

    /// The planted bug's master lets go before the record does.
    pub(crate) fn release_early(&mut self, n: usize, boot: u64, proposal: &Proposal) {
        let Some(record) = self.consul.truth() else { return };
        let drops = record.replica.is_some() && proposal.record.replica.is_none();
        if self.bug != Some(Bug::ReleasedBeforeTheDrop) || !drops || proposal.record.epoch > record.epoch {
            return;
        }
        let Some(p) = self.nodes[n].database.as_mut().filter(|p| p.is_master()) else { return };
        let (run, guard) = (p.run, std::mem::replace(&mut p.guard, false));
        let need = p.data.need;
        self.word(n, boot, |words| (words.guard, words.need) = (Some(guard), need));
        let _ = self.write(n, run, Entry::Need(false));
    }

    fn seal(&mut self, n: usize, run: u64, boot: u64) {
        if self.bug == Some(Bug::SealDoesNothing) {
            if let Some(agent) = self.agent(n, boot) {
                agent.adapter.sealed_in_words = true;
            }
            return;
        }
        self.replica_of(n, run, None);
    }

    fn follow(
        &mut self,
        n: usize,
        run: u64,
        boot: u64,
        source: usize,
        channel: Option<(&Nonce, &str)>,
    ) -> Result<(), String> {
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.sealed_in_words = false;
            if let Some((name, _)) = channel {
                agent.adapter.told = Some((run, name.clone()));
            }
        }
        let same = self.bug == Some(Bug::SecretNeverChanges);
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        if let Some((_, secret)) = channel {
            secret.clone_into(&mut p.primary_auth);
        }
        if same {
            "always the same".clone_into(&mut p.primary_auth);
        }
        // "OK Already connected to specified master": the link that stands, stands.
        let already = matches!(&p.role, Role::Follows(up) if up.source == source);
        if !already {
            self.replica_of(n, run, Some(source));
        }
        Ok(())
    }

    /// REPLICAOF NO ONE: legal for every copy, whatever it holds.
    fn promote(&mut self, n: usize, run: u64) {
        let replid = Lineage(self.rng.text());
        let early = self.bug == Some(Bug::OpensInPromoting);
        self.drop_upstream(n, run);
        self.drop_downstream(n, run, |_| true);
        let Some(p) = self.database(n, run) else { return };
        if !p.is_master() {
            p.role = Role::Master;
            p.rename_history(replid);
        }
        p.open = early;
        let (incarnation, off) = (p.incarnation.clone(), !p.append_only);
        if off {
            self.rewrite_file(n, run);
        }
        let result = self.ledger.may_be_promoted(n, &incarnation);
        self.check(result);
        if let Some(agent) = &mut self.nodes[n].agent {
            agent.adapter.sealed_in_words = false;
        }
    }

    fn fsync(&mut self, n: usize, run: u64, always: bool) -> Result<(), String> {
        let really = always && self.bug != Some(Bug::FsyncDoesNothing);
        let node = &mut self.nodes[n];
        let Some(p) = node.database.as_mut().filter(|p| p.run == run) else { return Err("nobody listens".to_owned()) };
        if always && !p.append_only {
            return Err("the append-only file is off, or its last write failed".to_owned());
        }
        p.fsync = always;
        p.fsync_works = really;
        if really {
            node.disk.sync();
        }
        Ok(())
    }

    /// A write of the agent's, under the same rules as a client's.
    fn write(&mut self, n: usize, run: u64, entry: Entry) -> Result<u64, String> {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(p) = node.database.as_mut().filter(|p| p.run == run) else { return Err("nobody listens".to_owned()) };
        if !p.is_master() {
            return Err("READONLY You can't write against a read only replica.".to_owned());
        }
        if p.guard_refuses() {
            return Err("NOREPLICAS Not enough good replicas to write.".to_owned());
        }
        if p.quiesced {
            return Err("no answer: writes are held".to_owned());
        }
        if node.disk.bad {
            self.write_fails(n);
            return Err("MISCONF Errors writing to the AOF file: No space left on device".to_owned());
        }
        p.append(entry, now, &mut node.disk);
        let at = p.offset;
        self.pump(n, run);
        self.watch_need(n);
        Ok(at)
    }

    fn channel(
        &mut self,
        n: usize,
        run: u64,
        boot: u64,
        name: &Nonce,
        secret: &str,
        exclusive: bool,
    ) -> Result<(), String> {
        let half = self.rng.chance(self.mix.op_fails);
        let raises = self.bug != Some(Bug::NeedNotRaised);
        if exclusive && raises && self.database(n, run).is_some_and(|p| p.data.need == Some(false)) {
            self.write(n, run, Entry::Need(true))?;
        }
        if half {
            return Err("connection lost half-way".to_owned());
        }
        let keeps = exclusive && self.bug == Some(Bug::ChannelNotExclusive);
        let candidate = self.database(n, run).and_then(|p| p.downstream.first().map(|d| d.node));
        if let Some(p) = self.database(n, run) {
            p.former_secret.clone_from(&p.secret);
            if !keeps {
                secret.clone_into(&mut p.secret);
            }
        }
        if self.bug == Some(Bug::SecretNeverChanges)
            && let Some(p) = self.database(n, run)
        {
            "always the same".clone_into(&mut p.secret);
        }
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.channel = Some((run, name.clone()));
            agent.adapter.shown = candidate.filter(|_| keeps);
        }
        if exclusive && !keeps {
            self.drop_downstream(n, run, |_| true);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        p.quiesced = false;
        let held = std::mem::take(&mut p.held);
        held.into_iter().for_each(|task| task(self));
    }

    /// Whether the settings that decide about acknowledgements fit the record, whenever either changes.
    pub(crate) fn watch_need(&mut self, n: usize) {
        let Some(p) = &self.nodes[n].database else { return };
        let waits = checks::waits_for_the_replica(&self.consul, n, p, self.sync());
        let disks = checks::disks_hold_what_is_promised(&self.consul, n, p);
        let result = waits.and(checks::alone_only_on_disk(&self.consul, n, p, self.sync())).and(disks);
        self.check(result);
    }
}
