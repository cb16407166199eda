//! MariaDB, and what its adapter does to it: semi-synchronous replication that the agent switches and watches, a relay log
//! that has to be applied before anything else is done, copies that arrive beside the data, tails that are rolled back or
//! kept at a start.

use super::bugs::Bug;
use super::data::{Entry, Source};
use super::history::Knot;
use super::process::{LinkState, Process, Role, Upstream, address, node_at};
use super::sql::{Commit, Stopped, Waits, Who};
use super::world::{World, name};
use agent::engine::{Boot, judge_boot};
use election::{Engine, EngineOp, EngineRole, Marker, Nonce, Position, Secret, Status};

/// After a copy that failed, the next is begun this late.
const COPY_AGAIN_US: u64 = 3_000_000;

/// A copy waits for the commits that wait.
const COPY_LOOKS_US: u64 = 200_000;

/// How long the start of a crashed master waits for its hot replica's takeover.
const UNDECIDED_US: u64 = 2_000_000;

/// A copy that is being fetched, or could not be.
pub(crate) struct Copying {
    attempt: u64,
    source: usize,
    failed: Option<u64>,
}

/// What the adapter makes of the server's counters.
#[derive(Default)]
pub(crate) struct Acks {
    count: u64,
    unanswered: Option<u64>,
    at: Option<u64>,
    position: u64,
    leaked: bool,
}

impl Acks {
    fn take_in(&mut self, p: &Process, written: u64, now: u64, watches: bool) {
        let Some(sql) = &p.sql else { return };
        if !sql.needs() {
            *self = Self { unanswered: Some(sql.no_tx), position: written, ..Self::default() };
            return;
        }
        self.leaked |= watches && (sql.gave_up || self.unanswered.is_some_and(|before| sql.no_tx > before));
        let nobody_waits = sql.commits.is_empty();
        let acknowledges = !self.leaked && (nobody_waits || sql.acknowledgements != self.count);
        if acknowledges || self.at.is_none() {
            self.at = Some(now);
        }
        if acknowledges && nobody_waits {
            self.position = written;
        }
        self.count = sql.acknowledgements;
        self.unanswered = Some(sql.no_tx);
    }
}

impl World {
    /// What is on its disk when it starts. What becomes of the end of the binary log is decided by the agent's own rule.
    pub(crate) fn boot_mariadb(&mut self, n: usize) -> (Knot, Knot) {
        let rolls_back = matches!(self.judged(n), Boot::RollBack { .. });
        let log = &mut self.nodes[n].disk.log;
        if let Some(whole) = log.whole.take_if(|_| std::mem::take(&mut log.replaces) || !log.made) {
            (log.received, log.written, log.applied) = (whole, whole, whole);
            (log.made, log.fresh, log.ended_badly, log.source) = (true, false, false, None);
        }
        if !log.made {
            (log.made, log.fresh) = (true, true);
        }
        let was_master = log.received == log.written;
        if rolls_back && log.ended_badly && was_master {
            (log.received, log.written) = (log.applied, log.applied);
            self.tell(|| format!("n{}'s tail is rolled back", n + 1));
        }
        let log = &mut self.nodes[n].disk.log;
        log.applied = log.written;
        if self.bug == Some(Bug::RelayLogThrownAway) {
            log.received = log.applied;
        }
        log.ended_badly = true;
        (log.received, log.applied)
    }

    fn judged(&self, n: usize) -> Boot {
        let node = &self.nodes[n];
        if node.disk.log.ended_badly { judge_boot(&node.memory, &name(n)) } else { Boot::Keep }
    }

    /// Whether a start is put off, and done with later.
    pub(crate) fn start_is_put_off(&mut self, n: usize, boot: u64) -> bool {
        let (undecided, now) = (matches!(self.judged(n), Boot::Undecided(_)), self.now);
        let Some(agent) = self.agent(n, boot).filter(|_| undecided) else { return false };
        let since = *agent.adapter.undecided_since.get_or_insert(now);
        now - since < UNDECIDED_US
    }

    /// What nobody acknowledged is kept beside the data before it is rolled back.
    pub(crate) fn keep_before_start(&mut self, n: usize, boot: u64) {
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.undecided_since = None;
        }
        if let Boot::RollBack { epoch } = self.judged(n) {
            let _ = self.keep_tail(n, epoch);
        }
    }

    /// What the adapter reports.
    pub(crate) fn mariadb_says(&mut self, n: usize) -> Engine {
        let now = self.now;
        let Some(boot) = self.nodes[n].agent.as_ref().map(|a| a.boot) else { return Engine::Unknown };
        self.tend_copy(n, boot);
        let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run) else { return self.at_rest(n) };
        self.begin_run(n, boot, run);
        let watches = self.bug != Some(Bug::CounterNotWatched);
        let Some(mut acks) = self.memo(n, boot, run).map(|memo| std::mem::take(&mut memo.acks)) else {
            return Engine::Unknown;
        };
        if let Some(p) = self.nodes[n].database.as_ref().filter(|p| p.is_master()) {
            acks.take_in(p, p.offset, now, watches);
        }
        if let Some(memo) = self.memo(n, boot, run) {
            memo.acks = acks;
        }
        self.mariadb_status(n)
    }

    /// The first thing a new run is asked: to apply what an earlier one had received.
    fn begin_run(&mut self, n: usize, boot: u64, run: u64) {
        if self.database(n, run).is_none_or(|p| p.loading) {
            return;
        }
        let Some(memo) = self.memo(n, boot, run) else { return };
        if std::mem::replace(&mut memo.begun, true) {
            return;
        }
        let Some(p) = self.database(n, run).filter(|p| matches!(p.role, Role::Sealed)) else { return };
        let Some(sql) = p.sql.as_mut().filter(|sql| sql.tip != sql.applied && sql.stopped.is_none()) else { return };
        sql.rest = true;
        self.apply_received(n, run);
    }

    fn mariadb_status(&self, n: usize) -> Engine {
        let node = &self.nodes[n];
        let (Some(p), Some(agent)) = (&node.database, &node.agent) else { return Engine::Unknown };
        let Some(sql) = &p.sql else { return Engine::Unknown };
        let adapter = &agent.adapter;
        let memo = adapter.memo_of(p.run);
        let master = p.is_master();
        let role = self.mariadb_role(n, p);
        let applies_the_rest = sql.rest && sql.tip != sql.applied;
        let worthless = node.disk.log.fresh && sql.marker.is_none();
        let replicas = p.downstream.iter().map(|d| election::Attached {
            address: address(d.node),
            online: true,
            position: Position(if sql.needs() { memo.map_or(0, |memo| memo.acks.position) } else { p.offset }),
            lag_s: memo
                .and_then(|memo| memo.acks.at)
                .filter(|_| sql.needs())
                .map_or(0, |at| self.now.saturating_sub(at) / 1_000_000),
        });
        Engine::Up(Box::new(Status {
            incarnation: p.incarnation.clone(),
            version: "10.11.19".to_owned(),
            shown: election::Shown::default(),
            loading: p.loading || applies_the_rest,
            empty: worthless,
            persisted: true,
            disk_ok: !node.disk.bad,
            kept: node.disk.log.kept,
            lineage: self.lineage_of(sql),
            position: Position(p.offset),
            marker: sql.marker.clone(),
            marked_at: adapter.marked_at(p.run, sql.marker.as_ref()).filter(|_| master),
            open: p.open && master,
            guard: sql.needs() || memo.is_some_and(|memo| memo.guard),
            fsync: true,
            need: sql.needs(),
            quiesced: p.quiesced,
            channel: adapter.channel_of(p.run),
            replicas: replicas.collect(),
            role,
        }))
    }

    fn mariadb_role(&self, n: usize, p: &Process) -> EngineRole {
        let Some(agent) = &self.nodes[n].agent else { return EngineRole::Sealed };
        let memo = agent.adapter.memo_of(p.run);
        let channel = memo.and_then(|memo| memo.follows_with.as_ref()).map(|(name, _)| name.clone());
        let follows = |source: usize, link_up: bool, syncing: bool| EngineRole::Follows {
            source: address(source),
            link_up,
            syncing,
            channel: channel.clone(),
        };
        if let Some(copying) = &agent.adapter.copying {
            return follows(copying.source, false, true);
        }
        let Some(sql) = &p.sql else { return EngineRole::Sealed };
        let ordered = memo.is_some_and(|memo| memo.follows.is_some());
        match (&p.role, &sql.source, sql.stopped.filter(|_| ordered)) {
            (Role::Master, ..) => EngineRole::Master,
            (_, Some(source), Some(stopped)) => match self.is_replaceable(n, sql.marker.as_ref(), stopped) {
                true => EngineRole::Sealed,
                false => follows(source.node, false, true),
            },
            (Role::Follows(up), ..) => follows(up.source, up.link.is_some() && up.state == LinkState::Online, false),
            (Role::Sealed, ..) => EngineRole::Sealed,
        }
    }

    /// Whether nothing in a copy that cannot go on is worth keeping, or what is has been kept.
    fn is_replaceable(&self, n: usize, marker: Option<&Marker>, stopped: Stopped) -> bool {
        let kept = self.nodes[n].disk.log.kept;
        stopped == Stopped::Purged || (kept.is_some() && marker.map(|m| m.epoch) == kept)
    }

    /// One operation of the core on a running server. The marker's is another matter: it waits for its acknowledgement.
    pub(crate) fn execute_mariadb(&mut self, n: usize, run: u64, boot: u64, op: &EngineOp) -> Result<(), String> {
        match op {
            EngineOp::Start | EngineOp::Kill | EngineOp::Stop | EngineOp::Reset | EngineOp::Fsync(_) => Ok(()),
            EngineOp::Mark(_) => Ok(()),
            EngineOp::Keep { epoch } => self.keep_tail(n, *epoch),
            EngineOp::Seal => {
                self.note(n, boot, run, |memo| memo.follows = None);
                self.drop_copy(n, boot);
                self.stop_receiving(n, run);
                Ok(())
            }
            EngineOp::Follow { source, channel, replace } => {
                let source = node_at(source).ok_or("no such host")?;
                self.follow_mariadb(n, run, boot, source, channel.as_ref(), *replace)
            }
            EngineOp::Promote => self.promote_mariadb(n, run, boot),
            EngineOp::Open => {
                self.open_sql(n, run);
                Ok(())
            }
            EngineOp::Fence => self.fence_mariadb(n, run, boot),
            EngineOp::Guard(on) => {
                self.note(n, boot, run, |memo| memo.guard = *on);
                if !on {
                    self.wait_for(n, run, Waits::Nobody);
                }
                Ok(())
            }
            EngineOp::Need(need) => {
                self.semi_sync(n, run, *need);
                Ok(())
            }
            EngineOp::Channel { name, secret, exclusive } => {
                self.channel_mariadb(n, run, boot, name, secret, *exclusive)
            }
            EngineOp::Expel { .. } => {
                self.drop_downstream(n, run, |_| true);
                Ok(())
            }
            EngineOp::Quiesce { end } => self.quiesce_mariadb(n, run, *end),
            EngineOp::Release => {
                self.release(n, run);
                Ok(())
            }
        }
    }

    fn semi_sync(&mut self, n: usize, run: u64, on: bool) {
        if let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()).filter(|sql| on && sql.gave_up) {
            (sql.gave_up, sql.excused) = (false, true); // Switched off, and on again.
        }
        self.wait_for(n, run, if on { Waits::Anybody } else { Waits::Nobody });
    }

    pub(crate) fn stop_receiving(&mut self, n: usize, run: u64) {
        self.drop_upstream(n, run);
        if let Some(p) = self.database(n, run).filter(|p| !p.is_master()) {
            p.role = Role::Sealed;
        }
    }

    fn is_applied(&mut self, n: usize, run: u64) -> Result<(), String> {
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_ref()) else {
            return Err("nobody listens".to_owned());
        };
        let all = sql.tip == sql.applied || sql.stopped == Some(Stopped::Parted);
        if all { Ok(()) } else { Err("not everything that was received is applied".to_owned()) }
    }

    fn follow_mariadb(
        &mut self,
        n: usize,
        run: u64,
        boot: u64,
        source: usize,
        channel: Option<&(Nonce, Secret)>,
        may_replace: bool,
    ) -> Result<(), String> {
        let Some(agent) = self.agent(n, boot) else { return Ok(()) };
        if agent.adapter.copying.as_ref().is_some_and(|copying| copying.source == source) {
            return Ok(());
        }
        agent.adapter.copying = None;
        if may_replace && self.nodes[n].disk.log.whole.is_some() {
            let incarnation = self.database(n, run).map(|p| p.incarnation.clone()).unwrap_or_default();
            let result = super::checks::may_be_wiped(&self.consul, n, &incarnation);
            self.check(result);
            self.kill_database(n, "a copy takes its data's place");
            self.nodes[n].disk.log.replaces = true;
            self.start_database(n);
            return Err("a copy takes the data's place".to_owned());
        }
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return Ok(()) };
        let (configured, stopped, marker) = (sql.source.clone(), sql.stopped, sql.marker.clone());
        let Some(memo) = self.memo(n, boot, run) else { return Ok(()) };
        let known = memo.follows_with.clone();
        let stopped = stopped.filter(|_| memo.follows.is_some());
        let given = channel.map(|(name, secret)| (name.clone(), secret.reveal().to_owned()));
        let Some((channel, secret)) = given.or(known.clone()) else {
            let Some(configured) = configured.filter(|configured| configured.node == source) else {
                return Err("no password to follow with is known".to_owned());
            };
            memo.follows = Some(source);
            return self.receive_mariadb(n, run, configured);
        };
        let worthless = self.nodes[n].disk.log.fresh && marker.is_none();
        if worthless || stopped.is_some_and(|stopped| self.is_replaceable(n, marker.as_ref(), stopped)) {
            if !may_replace {
                return Err("it cannot go on from where it is".to_owned());
            }
            return self.begin_copy(n, run, boot, Source { node: source, channel, secret });
        }
        let wanted = Source { node: source, channel: channel.clone(), secret: secret.clone() };
        if configured.as_ref() == Some(&wanted) && known.is_some_and(|(_, had)| had == secret) {
            self.note(n, boot, run, |memo| memo.follows = Some(source));
            return self.receive_mariadb(n, run, wanted);
        }
        self.stop_receiving(n, run);
        self.is_applied(n, run)?;
        self.receive_mariadb(n, run, wanted)?;
        if let Some(memo) = self.memo(n, boot, run) {
            (memo.follows, memo.follows_with) = (Some(source), Some((channel, secret)));
        }
        Ok(())
    }

    /// `START SLAVE`. Where not everything is applied, the server would throw the rest away, and fetch it again.
    fn receive_mariadb(&mut self, n: usize, run: u64, source: Source) -> Result<(), String> {
        let now = self.now;
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        if matches!(&p.role, Role::Follows(up) if up.source == source.node)
            && p.sql.as_ref().is_some_and(|s| s.source.as_ref() == Some(&source))
        {
            return Ok(());
        }
        self.is_applied(n, run)?;
        self.drop_upstream(n, run);
        self.nodes[n].disk.log.source = Some(source.clone());
        let Some(p) = self.database(n, run) else { return Ok(()) };
        p.role = Role::Follows(Upstream { source: source.node, link: None, state: LinkState::Connecting, heard: now });
        p.primary_auth.clone_from(&source.secret);
        if let Some(sql) = &mut p.sql {
            (sql.source, sql.stopped, sql.rest) = (Some(source), None, false);
        }
        self.connect(n, run);
        Ok(())
    }

    /// Everything that was received is applied first; the server would throw the rest away.
    fn promote_mariadb(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        self.note(n, boot, run, |memo| memo.follows = None);
        self.drop_copy(n, boot);
        self.stop_receiving(n, run);
        if self.bug == Some(Bug::PromotesUnapplied) {
            self.throw_relay_log_away(n, run);
        }
        self.is_applied(n, run)?;
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        p.role = Role::Master;
        p.open = false;
        p.quiesced = false;
        let incarnation = p.incarnation.clone();
        if let Some(sql) = &mut p.sql {
            (sql.source, sql.stopped) = (None, None);
        }
        let log = &mut self.nodes[n].disk.log;
        (log.source, log.received, log.fresh, log.whole) = (None, log.written, false, None);
        self.wait_for(n, run, Waits::Nobody);
        self.note(n, boot, run, |memo| memo.guard = false);
        let result = self.ledger.may_be_promoted(n, &incarnation);
        self.check(result);
        Ok(())
    }

    fn throw_relay_log_away(&mut self, n: usize, run: u64) {
        let Some(applied) = self.database(n, run).and_then(|p| p.sql.as_ref()).map(|sql| sql.applied) else { return };
        let (data, offset) = (self.histories.data(applied), self.histories.depth(applied));
        self.nodes[n].disk.log.received = applied;
        let Some(p) = self.database(n, run) else { return };
        (p.data, p.offset) = (data, offset);
        p.sql.iter_mut().for_each(|sql| sql.tip = applied);
    }

    /// A server whose commits wait cannot be closed without letting them through: it is killed.
    fn fence_mariadb(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        let releases = self.bug == Some(Bug::FenceReleases);
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        let waiting = p.sql.as_ref().is_some_and(|sql| !sql.commits.is_empty());
        if waiting && !releases {
            self.kill_database(n, "commits wait for an acknowledgement that will not come");
            return Ok(());
        }
        p.open = false;
        if releases {
            self.wait_for(n, run, Waits::Nobody);
        }
        self.end_transactions(n, run);
        let Some(p) = self.database(n, run) else { return Ok(()) };
        (p.role, p.quiesced) = (Role::Sealed, false);
        p.secret = String::new();
        self.drop_downstream(n, run, |_| true);
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.channel = None;
        }
        self.wait_for(n, run, Waits::Nobody);
        Ok(())
    }

    fn channel_mariadb(
        &mut self,
        n: usize,
        run: u64,
        boot: u64,
        name: &Nonce,
        secret: &Secret,
        exclusive: bool,
    ) -> Result<(), String> {
        if exclusive {
            self.drop_downstream(n, run, |_| true);
            self.semi_sync(n, run, true);
            self.note(n, boot, run, |memo| (memo.acks.leaked, memo.acks.at) = (false, None));
        }
        if let Some(p) = self.database(n, run) {
            secret.reveal().clone_into(&mut p.secret);
        }
        self.set_channel(n, run, boot, name, exclusive)
    }

    fn quiesce_mariadb(&mut self, n: usize, run: u64, end: bool) -> Result<(), String> {
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        let Some(sql) = &p.sql else { return Ok(()) };
        if p.quiesced || (!end && !sql.running.is_empty()) {
            return Ok(());
        }
        if !sql.commits.is_empty() {
            self.end_transactions(n, run);
            return Err("writes do not come to rest".to_owned());
        }
        p.quiesced = true;
        Ok(())
    }

    /// The marker's transaction waits for the hot replica like any other.
    pub(crate) fn mark_mariadb(&mut self, n: usize, run: u64, boot: u64, call: u64, op: EngineOp) {
        let EngineOp::Mark(marker) = &op else { return };
        let full = self.nodes[n].disk.bad;
        let refused = match self.database(n, run) {
            Some(p) if p.quiesced => Some("writes are held"),
            Some(p) if !p.is_master() => Some("it is read-only"),
            Some(p)
                if p.sql.as_ref().is_some_and(|sql| sql.commits.iter().any(|c| matches!(c.who, Who::Agent { .. }))) =>
            {
                Some("the marker before it waits yet")
            }
            Some(_) if full => return, // It waits for room.
            Some(_) => None,
            None => Some("nobody listens"),
        };
        if let Some(why) = refused {
            return self.engine_done(n, boot, op, Err(why.to_owned()));
        }
        let Some((at, offset)) = self.write_log(n, run, Entry::Mark(marker.clone())) else { return };
        self.wait_or_answer(n, run, Commit { who: Who::Agent { boot, call, op }, at, offset });
    }

    pub(crate) fn drop_copy(&mut self, n: usize, boot: u64) {
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.copying = None;
        }
    }

    /// Begins to fetch a copy from the source's agent. Until it is whole, the data here stays as it is.
    fn begin_copy(&mut self, n: usize, run: u64, boot: u64, source: Source) -> Result<(), String> {
        let attempt = self.number();
        self.stop_receiving(n, run);
        if let Some(memo) = self.memo(n, boot, run) {
            memo.follows_with = Some((source.channel.clone(), source.secret.clone()));
        }
        let s = source.node;
        let begun = self.nodes[s].database.as_ref().map(|p| p.run);
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.copying = Some(Copying { attempt, source: s, failed: None });
        }
        self.tell(|| format!("n{} fetches a copy of n{}", n + 1, s + 1));
        let takes = self.rng.range(100_000, 5_000_000);
        self.after(takes, move |w| w.copied(n, boot, attempt, source, begun));
        Ok(())
    }

    fn copied(&mut self, n: usize, boot: u64, attempt: u64, source: Source, begun: Option<u64>) {
        let (s, now, early) = (source.node, self.now, self.bug == Some(Bug::CopyLooksWhole));
        let underway = |w: &mut World| {
            w.agent(n, boot).is_some_and(|a| a.adapter.copying.as_ref().is_some_and(|c| c.attempt == attempt))
        };
        if !underway(self) {
            return;
        }
        let serves = self.nodes[s].agent.as_ref().is_some_and(|agent| !agent.paused);
        let reached = self.reaches(n, s) && self.reaches(s, n) && serves && !self.nodes[n].disk.bad;
        let theirs = self.nodes[s].database.as_ref().filter(|p| reached && Some(p.run) == begun && !p.loading);
        let found = theirs.filter(|p| p.secret == source.secret || early).map(|p| {
            let waits = p.paused || p.sql.as_ref().is_some_and(|sql| !sql.commits.is_empty());
            (waits, p.sql.as_ref().map(|sql| sql.applied).unwrap_or_default())
        });
        match found {
            Some((true, _)) => self.after(COPY_LOOKS_US, move |w| w.copied(n, boot, attempt, source, begun)),
            Some((false, at)) => {
                let log = &mut self.nodes[n].disk.log;
                (log.whole, log.torn) = (Some(at), false);
                self.drop_copy(n, boot);
            }
            None if early => {
                let half = self.nodes[s].database.as_ref().and_then(|p| p.sql.as_ref()).map(|sql| sql.applied);
                let log = &mut self.nodes[n].disk.log;
                (log.whole, log.torn) = (half, half.is_some());
                self.drop_copy(n, boot);
            }
            None => {
                if let Some(copying) = self.agent(n, boot).and_then(|agent| agent.adapter.copying.as_mut()) {
                    copying.failed = Some(now);
                }
            }
        }
    }

    fn tend_copy(&mut self, n: usize, boot: u64) {
        let now = self.now;
        let Some(agent) = self.agent(n, boot) else { return };
        let copying = agent.adapter.copying.as_ref();
        if copying.and_then(|c| c.failed).is_some_and(|at| now - at >= COPY_AGAIN_US) {
            agent.adapter.copying = None;
        }
    }

    /// Somebody has written on this copy, whether it has been noticed or not.
    pub(crate) fn holds_what_nobody_has(&self, n: usize) -> bool {
        let sql = |n: usize| self.nodes[n].database.as_ref().and_then(|p| p.sql.as_ref()).filter(|sql| !sql.postgres());
        let (Some(own), Some(masters)) = (sql(n), sql(self.master())) else { return false };
        !self.histories.holds(masters.tip, own.tip)
    }

    /// A copy that holds what nobody else has takes no part until somebody throws it away.
    pub(crate) fn is_errant(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let stopped = node.database.as_ref().and_then(|p| p.sql.as_ref()).and_then(|sql| sql.stopped);
        stopped == Some(Stopped::Parted)
    }
}
