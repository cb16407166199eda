//! PostgreSQL, and what its adapter does to it: always a standby of nobody at first; commits that wait for a copy by name;
//! following with all that it may take, while the adapter says "copying".

use super::bugs::Bug;
use super::data::{Entry, LogDisk, Source};
use super::engine::Adapter;
use super::history::Knot;
use super::process::{LinkState, Process, Role, Upstream, address, node_at};
use super::sql::{KEPT_LOG, Waits};
use super::world::World;
use election::{Engine, EngineOp, EngineRole, Incarnation, Lineage, Nonce, Position, Status};

/// Between two questions to a source that is away, or not as far.
const AGAIN_US: u64 = 200_000;

/// A link that is down this long may never come up: the source is asked whether it can.
const STUCK_US: u64 = 3_000_000;

/// Between two tries to make a copy anew.
const REBUILD_AGAIN_US: u64 = 2_000_000;

/// A source that does not answer is given up.
const PATIENCE_US: u64 = 2_000_000;

/// What the adapter remembers of following. It survives the server, not the agent.
#[derive(Default)]
pub(crate) struct Pursuit {
    wish: Option<Source>,
    /// The data may be replaced for it.
    may_replace: bool,
    /// The number of the question that is under way.
    asking: u64,
    not_before: u64,
    down_since: Option<u64>,
    stage: Option<Stage>,
}

/// A copy under construction.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// The server is down, and its folder is worked on. The number of the attempt.
    Making(u64),
    /// It was started with what was made, and takes no connections yet.
    Starting(u64),
    /// It failed, and is tried again.
    Failed,
}

impl Pursuit {
    fn give_up(&mut self) {
        *self = Self::default();
    }
}

/// What comparing two histories shows.
enum Verdict {
    Fits,
    Ahead,
    Parted,
    Apart,
}

/// The password of the copies that are not certified: the group's, since a copy cannot change accounts.
pub(crate) fn chain(system: u32) -> String {
    format!("chain-{system}")
}

impl World {
    /// What is on its disk when it starts.
    pub(crate) fn boot_postgres(&mut self, n: usize) -> (Knot, Knot) {
        let whole = self.bug == Some(Bug::CopyLooksWhole);
        let log = &mut self.nodes[n].disk.log;
        if log.incomplete && !whole {
            *log = LogDisk { kept: log.kept, ..LogDisk::default() };
        }
        if !log.made {
            let own = self.histories.add(Knot::default(), Entry::System);
            let log = &mut self.nodes[n].disk.log;
            (log.made, log.fresh, log.received) = (true, true, own);
        }
        let log = &self.nodes[n].disk.log;
        (log.received, log.received)
    }

    pub(crate) fn pursuit(&mut self, n: usize, boot: u64) -> Option<&mut Pursuit> {
        self.agent(n, boot).map(|agent| &mut agent.adapter.pursuit)
    }

    /// What the adapter reports, after letting go on what is under way.
    pub(crate) fn postgres_says(&mut self, n: usize) -> Engine {
        let Some(boot) = self.nodes[n].agent.as_ref().map(|a| a.boot) else { return Engine::Unknown };
        self.go_on_rebuilding(n, boot);
        let Some(stage) = self.pursuit(n, boot).map(|p| p.stage) else { return Engine::Unknown };
        if matches!(stage, Some(Stage::Making(_) | Stage::Failed)) {
            return self.unready(n, true);
        }
        let Some(p) = &self.nodes[n].database else { return self.at_rest(n) };
        if p.loading {
            return self.unready(n, stage.is_some());
        }
        let run = p.run;
        if let Some(pursuit) = self.pursuit(n, boot) {
            pursuit.stage = None; // It has answered: there is a copy.
        }
        self.nodes[n].disk.log.incomplete = false;
        self.pursue(n, boot, run);
        self.postgres_status(n)
    }

    /// It reads its data, or its copy is being made.
    fn unready(&self, n: usize, syncing: bool) -> Engine {
        let Some(agent) = &self.nodes[n].agent else { return Engine::Unknown };
        let incarnation = match (&self.nodes[n].database, syncing) {
            (Some(p), false) => p.incarnation.clone(),
            _ => Incarnation::from("rebuilding"),
        };
        let role = agent.adapter.pursuit.wish.as_ref().map_or(EngineRole::Sealed, |wish| EngineRole::Follows {
            source: address(wish.node),
            link_up: false,
            syncing,
            channel: Some(wish.channel.clone()),
        });
        Engine::Up(Box::new(Status {
            incarnation,
            version: "15.18".to_owned(),
            shown: election::Shown::default(),
            role,
            loading: true,
            empty: false,
            persisted: !syncing,
            disk_ok: true,
            kept: self.nodes[n].disk.log.kept,
            lineage: Lineage::default(),
            position: Position::default(),
            marker: None,
            marked_at: None,
            open: false,
            guard: true,
            fsync: true,
            need: true,
            quiesced: false,
            channel: None,
            replicas: Vec::new(),
        }))
    }

    fn postgres_status(&self, n: usize) -> Engine {
        let node = &self.nodes[n];
        let (Some(p), Some(agent)) = (&node.database, &node.agent) else { return Engine::Unknown };
        let Some(sql) = &p.sql else { return Engine::Unknown };
        let adapter = &agent.adapter;
        let memo = adapter.memo_of(p.run);
        let wish = adapter.pursuit.wish.as_ref();
        let fed_by = match &p.role {
            Role::Follows(up) if up.state == LinkState::Online && up.link.is_some() => Some(up.source),
            _ => None,
        };
        let follows = |source: usize, channel: Option<Nonce>| EngineRole::Follows {
            source: address(source),
            link_up: fed_by == Some(source),
            syncing: false,
            channel,
        };
        let role = match (&p.role, wish) {
            (Role::Master, _) => EngineRole::Master,
            (_, Some(wish)) => follows(wish.node, Some(wish.channel.clone())),
            (Role::Follows(up), None) => follows(up.source, None),
            (Role::Sealed, None) => EngineRole::Sealed,
        };
        let certified = certified(adapter, p);
        let named = certified.as_ref().is_none_or(|name| sql.waits == *name);
        let need = sql.needs() && named;
        let master = p.is_master();
        Engine::Up(Box::new(Status {
            incarnation: p.incarnation.clone(),
            version: "15.18".to_owned(),
            shown: election::Shown::default(),
            loading: false,
            empty: node.disk.log.fresh && sql.marker.is_none(),
            persisted: true,
            disk_ok: !memo.is_some_and(|memo| memo.disk_full),
            kept: node.disk.log.kept,
            lineage: self.lineage_of(sql),
            position: Position(p.offset),
            marker: sql.marker.clone(),
            marked_at: adapter.marked_at(p.run, sql.marker.as_ref()).filter(|_| master),
            open: p.open && master,
            guard: need || memo.is_some_and(|memo| memo.unneeded),
            fsync: true,
            need,
            quiesced: p.quiesced,
            channel: adapter.channel_of(p.run),
            replicas: self.attached_to(p),
            role,
        }))
    }

    /// One operation of the core on a running server.
    pub(crate) fn execute_postgres(&mut self, n: usize, run: u64, boot: u64, op: &EngineOp) -> Result<(), String> {
        match op {
            EngineOp::Start | EngineOp::Kill | EngineOp::Stop | EngineOp::Reset | EngineOp::Fsync(_) => Ok(()),
            EngineOp::Keep { epoch } => self.keep_tail(n, *epoch),
            EngineOp::Fence => self.fence_postgres(n, run, boot),
            EngineOp::Follow { source, channel, replace } => {
                let source = node_at(source).ok_or("no such host")?;
                self.wish(
                    n,
                    boot,
                    source,
                    channel.as_ref().map(|(name, secret)| (name.clone(), secret.reveal())),
                    *replace,
                )
            }
            EngineOp::Seal => self.seal_postgres(n, run, boot),
            EngineOp::Promote => self.promote_postgres(n, run, boot),
            EngineOp::Open => {
                self.open_sql(n, run);
                Ok(())
            }
            EngineOp::Guard(true) | EngineOp::Need(true) => self.wait_for_copy(n, run, boot),
            EngineOp::Guard(false) => self.postgres_waits_for_nobody(n, run, boot, false),
            EngineOp::Need(false) => self.postgres_waits_for_nobody(n, run, boot, true),
            EngineOp::Channel { name, secret, exclusive: true } => {
                self.write_log(n, run, Entry::Account);
                if let Some(p) = self.database(n, run) {
                    secret.reveal().clone_into(&mut p.secret);
                    p.sql.iter_mut().for_each(|sql| sql.exclusive = true);
                }
                self.drop_downstream(n, run, |_| true);
                self.set_channel(n, run, boot, name, true)
            }
            EngineOp::Channel { name, .. } => {
                let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return Ok(()) };
                sql.exclusive = false;
                let tip = sql.tip;
                if self.histories.timeline(tip) == 1 {
                    return Err("there is no password of the chain in the data yet".to_owned());
                }
                self.set_channel(n, run, boot, name, false)
            }
            EngineOp::Expel { keep } => {
                let keep = node_at(keep);
                self.drop_downstream(n, run, |node| Some(node) != keep);
                Ok(())
            }
            EngineOp::Mark(marker) => {
                if self.nodes[n].disk.bad {
                    self.note(n, boot, run, |memo| memo.disk_full = true);
                    return Err("could not extend file: No space left on device".to_owned());
                }
                self.note(n, boot, run, |memo| memo.disk_full = false);
                if !self.database(n, run).is_some_and(|p| p.is_master()) {
                    return Err("cannot execute in a read-only transaction".to_owned());
                }
                let Some((_, at)) = self.write_log(n, run, Entry::Mark(marker.clone())) else { return Ok(()) };
                self.word_marked(n, boot, run, marker, at);
                Ok(())
            }
            EngineOp::Quiesce { end } => self.quiesce_postgres(n, run, *end),
            EngineOp::Release => {
                self.database(n, run).into_iter().for_each(|p| p.quiesced = false);
                Ok(())
            }
        }
    }

    /// What only this copy has is saved before anything of it is destroyed.
    pub(crate) fn keep_tail(&mut self, n: usize, epoch: u64) -> Result<(), String> {
        let kept = &mut self.nodes[n].disk.log.kept;
        *kept = (*kept).max(Some(epoch));
        Ok(())
    }

    /// Ended at once, and started as a standby of nobody.
    fn fence_postgres(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        if self.bug == Some(Bug::FenceReleases) {
            self.wait_for(n, run, Waits::Nobody);
        }
        self.give_up_pursuit(n, boot);
        self.kill_database(n, "it is fenced");
        self.start_database(n);
        Ok(())
    }

    fn seal_postgres(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        if self.pursuit(n, boot).is_some_and(|p| p.stage.is_some()) {
            return Err("the copy is being made anew".to_owned());
        }
        self.give_up_pursuit(n, boot);
        self.drop_upstream(n, run);
        if let Some(p) = self.database(n, run) {
            p.role = Role::Sealed;
        }
        Ok(())
    }

    /// `pg_promote`: everything that was received is replayed first, and a new timeline begins.
    fn promote_postgres(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        p.open = false;
        p.end_clients();
        let Some((tip, applied)) = p.sql.as_ref().map(|sql| (sql.tip, sql.applied)) else { return Ok(()) };
        if tip != applied {
            return Err("it has not replayed everything yet".to_owned());
        }
        if !p.is_master() {
            self.drop_upstream(n, run);
            self.drop_downstream(n, run, |_| true);
            if let Some(p) = self.database(n, run) {
                p.role = Role::Master;
            }
            self.write_log(n, run, Entry::Promote);
        }
        self.give_up_pursuit(n, boot);
        let Some(incarnation) = self.database(n, run).map(|p| p.incarnation.clone()) else { return Ok(()) };
        let result = self.ledger.may_be_promoted(n, &incarnation);
        self.check(result);
        Ok(())
    }

    pub(crate) fn open_sql(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        p.open = true;
        let incarnation = p.incarnation.clone();
        let result = self.ledger.may_open(n, &incarnation);
        self.check(result);
    }

    /// Commits wait from now on: for the copy on the certificate's channel, or, while there is none, for ever. That they
    /// do is seen first.
    fn wait_for_copy(&mut self, n: usize, run: u64, boot: u64) -> Result<(), String> {
        let unseen = self.bug == Some(Bug::WaitNotSeen);
        let node = &self.nodes[n];
        let (Some(p), Some(agent)) = (&node.database, &node.agent) else { return Err("nobody listens".to_owned()) };
        let wanted = certified(&agent.adapter, p).unwrap_or(Waits::ForEver);
        let seen = self.memo(n, boot, run).is_some_and(|memo| memo.seen_to_wait);
        if !seen && !unseen {
            self.wait_for(n, run, Waits::ForEver);
            if !self.database(n, run).and_then(|p| p.sql.as_ref()).is_some_and(|sql| sql.in_force) {
                return Err("no commit has been seen to wait yet".to_owned());
            }
            self.note(n, boot, run, |memo| memo.seen_to_wait = true);
        }
        self.note(n, boot, run, |memo| memo.unneeded = false);
        self.wait_for(n, run, wanted);
        Ok(())
    }

    fn postgres_waits_for_nobody(&mut self, n: usize, run: u64, boot: u64, guarded: bool) -> Result<(), String> {
        if !self.database(n, run).is_some_and(|p| p.open) {
            self.end_transactions(n, run);
        }
        if let Some(memo) = self.memo(n, boot, run) {
            (memo.seen_to_wait, memo.unneeded) = (false, guarded);
        }
        self.wait_for(n, run, Waits::Nobody);
        Ok(())
    }

    /// Nobody is let in, and the connections end once their transactions have, or now.
    fn quiesce_postgres(&mut self, n: usize, run: u64, end: bool) -> Result<(), String> {
        let Some(p) = self.database(n, run) else { return Err("nobody listens".to_owned()) };
        p.open = false;
        let idle = p.sql.as_ref().is_some_and(|sql| sql.running.is_empty() && sql.commits.is_empty());
        if idle || end {
            p.quiesced = true;
            self.end_transactions(n, run);
        }
        Ok(())
    }

    /// It is told whom to follow from now on.
    fn wish(
        &mut self,
        n: usize,
        boot: u64,
        source: usize,
        channel: Option<(Nonce, &str)>,
        may_replace: bool,
    ) -> Result<(), String> {
        let recalled = self.nodes[n].database.as_ref().and_then(|p| p.sql.as_ref()).and_then(|sql| sql.source.clone());
        let recalled = recalled.or_else(|| self.nodes[n].disk.log.source.clone());
        let now = self.now;
        let Some(pursuit) = self.pursuit(n, boot) else { return Ok(()) };
        let before = pursuit.wish.take();
        pursuit.may_replace = may_replace;
        let wish = match channel {
            Some((channel, secret)) => Source { node: source, channel, secret: secret.to_owned() },
            None => match (before, recalled) {
                (Some(known), _) | (None, Some(known)) => Source { node: source, ..known },
                (None, None) => return Err("no password to follow with is known".to_owned()),
            },
        };
        pursuit.wish = Some(wish.clone());
        (pursuit.not_before, pursuit.down_since, pursuit.asking) = (now, None, 0);
        if let Some(Stage::Starting(run)) = pursuit.stage {
            // What was wound back takes no connections before it has been fed.
            self.point(n, run, wish);
            return Ok(());
        }
        if pursuit.stage.is_none()
            && let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run)
        {
            self.pursue(n, boot, run);
        }
        Ok(())
    }

    /// Compares what is wished with what is, and does the next thing about the difference.
    fn pursue(&mut self, n: usize, boot: u64, run: u64) {
        let (now, number) = (self.now, self.number());
        let Some(p) = self.nodes[n].database.as_ref().filter(|p| p.run == run && !p.is_master() && !p.loading) else {
            return;
        };
        let Some(sql) = &p.sql else { return };
        let fed = matches!(&p.role, Role::Follows(up) if up.state == LinkState::Online && up.link.is_some());
        let (source, tip) = (sql.source.clone(), sql.tip);
        let Some(pursuit) = self.pursuit(n, boot) else { return };
        if pursuit.asking != 0 || now < pursuit.not_before {
            return;
        }
        let Some(wish) = pursuit.wish.clone() else { return };
        if source.as_ref() == Some(&wish) {
            let since = *pursuit.down_since.get_or_insert(now);
            if fed || now - since < STUCK_US {
                pursuit.down_since = pursuit.down_since.filter(|_| !fed);
                return;
            }
            pursuit.down_since = None;
        }
        pursuit.asking = number;
        self.after(PATIENCE_US, move |w| w.compared(n, boot, number, None));
        let s = wish.node;
        self.send(n, s, move |w| {
            let Some(s_run) = w.nodes[s].database.as_ref().map(|p| p.run) else {
                return w.send(s, n, move |w| w.compared(n, boot, number, None));
            };
            w.at_database(s, s_run, move |w| {
                let verdict = w.compare(s, &wish.secret, tip);
                w.send(s, n, move |w| w.compared(n, boot, number, verdict));
            });
        });
    }

    /// Whether a copy can be fed by this one as it is.
    fn compare(&self, s: usize, secret: &str, tip: Knot) -> Option<Verdict> {
        let p = self.nodes[s].database.as_ref().filter(|p| !p.loading)?;
        let theirs = p.sql.as_ref()?.tip;
        if p.secret != secret && chain(self.histories.system(theirs)) != secret {
            return None;
        }
        let h = &self.histories;
        Some(if h.system(theirs) != h.system(tip) || h.depth(theirs) > h.depth(tip) + KEPT_LOG {
            Verdict::Apart
        } else if h.holds(theirs, tip) {
            Verdict::Fits
        } else if h.holds(tip, theirs) {
            Verdict::Ahead
        } else {
            Verdict::Parted
        })
    }

    fn compared(&mut self, n: usize, boot: u64, number: u64, verdict: Option<Verdict>) {
        let again = self.now + AGAIN_US;
        let Some(pursuit) = self.pursuit(n, boot).filter(|p| p.asking == number) else { return };
        (pursuit.asking, pursuit.not_before) = (0, again);
        let (wish, may_replace) = (pursuit.wish.clone(), pursuit.may_replace);
        let Some(run) = self.nodes[n].database.as_ref().filter(|p| !p.is_master()).map(|p| p.run) else { return };
        match (verdict, wish) {
            (Some(Verdict::Fits), Some(wish)) => self.point(n, run, wish),
            (Some(Verdict::Parted | Verdict::Apart), Some(_)) if !may_replace => {
                self.pursuit(n, boot).into_iter().for_each(|p| p.wish = None);
            }
            (Some(Verdict::Parted), Some(_)) => {
                let rewinds = self.rng.chance(700);
                self.rebuild(n, boot, rewinds);
            }
            (Some(Verdict::Apart), Some(_)) => self.rebuild(n, boot, false),
            _ => {}
        }
    }

    /// Lets the server replicate from there.
    fn point(&mut self, n: usize, run: u64, wish: Source) {
        let now = self.now;
        self.drop_upstream(n, run);
        self.nodes[n].disk.log.source = Some(wish.clone());
        let Some(p) = self.database(n, run) else { return };
        p.role = Role::Follows(Upstream { source: wish.node, link: None, state: LinkState::Connecting, heard: now });
        p.primary_auth.clone_from(&wish.secret);
        p.sql.iter_mut().for_each(|sql| sql.source = Some(wish.clone()));
        self.connect(n, run);
    }

    /// The server is ended, and its copy wound back or cloned: it may take long, and be cut off at any time.
    fn rebuild(&mut self, n: usize, boot: u64, rewinds: bool) {
        let attempt = self.number();
        let incarnation = self.nodes[n].database.as_ref().map(|p| p.incarnation.clone()).unwrap_or_default();
        let result = super::checks::may_be_wiped(&self.consul, n, &incarnation);
        self.check(result);
        let Some(pursuit) = self.pursuit(n, boot) else { return };
        pursuit.stage = Some(Stage::Making(attempt));
        let Some(wish) = pursuit.wish.clone() else { return };
        self.kill_database(n, "its copy is made anew");
        let source = self.nodes[wish.node].database.as_ref().map(|p| (p.run, p.sql.as_ref().map(|sql| sql.tip)));
        let log = &mut self.nodes[n].disk.log;
        (log.incomplete, log.fresh, log.made) = (true, false, true);
        if let Some((_, Some(tip))) = source {
            // Cut off from here on, it is half a copy.
            (log.received, log.torn) = (tip, true);
        }
        let how = if rewinds { "wound back" } else { "cloned" };
        self.tell(|| format!("n{} is {how} from n{}", n + 1, wish.node + 1));
        let takes = if rewinds { self.rng.range(50_000, 1_500_000) } else { self.rng.range(100_000, 5_000_000) };
        self.after(takes, move |w| w.rebuilt(n, boot, attempt, wish.node, source, rewinds));
    }

    fn rebuilt(
        &mut self,
        n: usize,
        boot: u64,
        attempt: u64,
        s: usize,
        source: Option<(u64, Option<Knot>)>,
        rewinds: bool,
    ) {
        if self.pursuit(n, boot).is_none_or(|p| p.stage != Some(Stage::Making(attempt))) {
            return;
        }
        let reached = self.reaches(n, s) && self.reaches(s, n) && !self.nodes[n].disk.bad;
        let theirs = self.nodes[s].database.as_ref().filter(|p| !p.loading && !p.paused && reached);
        let theirs = theirs.and_then(|p| Some((p.run, p.sql.as_ref()?.tip)));
        let (again, wish) = (self.now + REBUILD_AGAIN_US, self.pursuit(n, boot).and_then(|p| p.wish.clone()));
        let made = source.and_then(|(run, begun)| {
            let (now_run, end) = theirs?;
            (run == now_run).then_some((begun?, end))
        });
        let (Some((begun, end)), Some(wish)) = (made, wish) else {
            if let Some(pursuit) = self.pursuit(n, boot) {
                (pursuit.stage, pursuit.not_before) = (Some(Stage::Failed), again);
            }
            return;
        };
        // A copy that is wound back takes no connections before it has what the source had when it was done.
        let log = &mut self.nodes[n].disk.log;
        (log.received, log.torn) = (if rewinds { begun } else { end }, false);
        let incomplete = std::mem::replace(&mut log.incomplete, false);
        self.start_database(n);
        self.nodes[n].disk.log.incomplete = incomplete;
        let Some(p) = &mut self.nodes[n].database else { return };
        let run = p.run;
        if let Some(sql) = &mut p.sql {
            sql.required = Some(end);
        }
        if let Some(pursuit) = self.pursuit(n, boot) {
            pursuit.stage = Some(Stage::Starting(run));
        }
        self.point(n, run, wish);
    }

    /// Lets go on what is under way.
    fn go_on_rebuilding(&mut self, n: usize, boot: u64) {
        let now = self.now;
        let runs = self.nodes[n].database.as_ref().map(|p| p.run);
        let Some(pursuit) = self.pursuit(n, boot) else { return };
        match pursuit.stage {
            Some(Stage::Starting(run)) if runs != Some(run) => {
                (pursuit.stage, pursuit.not_before) = (Some(Stage::Failed), now + REBUILD_AGAIN_US);
            }
            Some(Stage::Failed) if now >= pursuit.not_before => self.rebuild(n, boot, false),
            _ => {}
        }
    }

    /// Its copy is being made: what is there is no data, and is started by itself when it is.
    pub(crate) fn is_made_anew(&mut self, n: usize, boot: u64) -> bool {
        self.pursuit(n, boot).is_some_and(|p| matches!(p.stage, Some(Stage::Making(_) | Stage::Failed)))
    }

    /// The agent ends the database, and with it whatever is done to its folder.
    pub(crate) fn give_up_pursuit(&mut self, n: usize, boot: u64) {
        if let Some(pursuit) = self.pursuit(n, boot) {
            pursuit.give_up();
        }
    }

    /// A server that was started: when it takes connections.
    pub(crate) fn postgres_comes_up(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        let Some(sql) = &p.sql else { return };
        let (tip, required) = (sql.tip, sql.required);
        if required.is_none_or(|required| self.histories.holds(tip, required))
            && let Some(p) = self.database(n, run)
        {
            p.loading = false;
        }
    }
}

/// The copy that is attached under the certificate's channel, as what commits wait for.
fn certified(adapter: &Adapter, p: &Process) -> Option<Waits> {
    let memo = adapter.memo_of(p.run).filter(|memo| memo.exclusive)?;
    let channel = adapter.channel_of(p.run).filter(|_| memo.exclusive)?;
    let d = p.downstream.iter().find(|d| d.channel.as_ref() == Some(&channel))?;
    Some(Waits::Named(d.node, channel))
}
