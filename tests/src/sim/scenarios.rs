//! The nine holes M1 to M9 that an explicit-state model of the design found, each as a script of named steps on the
//! same models: the trace is set up exactly, and the rule that closes it has to hold. Where a wire of the models can be
//! laid so that the rule is lost, the same script sees the loss.

use super::bugs::Bug;
use super::checks::ensure;
use super::mix::Mix;
use super::quiet::Manners;
use super::rng::Rng;
use super::world::{World, index_of};
use election::{Phase, Policy, Reads, Record, WithoutReplica};

/// No step of a script takes longer, in microseconds: a session's end and a certification fit into it.
const STEP_LIMIT_US: u64 = 60_000_000;

/// `appendfsync everysec` at its worst.
const LAG_US: u64 = 2_000_000;

/// The nine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// A proxy with an old view takes a master for one without a hot replica.
    M1,
    /// A certification outlives the agent that submitted it.
    M2,
    /// A hot replica is dropped, and the master's disk lags.
    M3,
    /// A new master is alone, and its disk lags.
    M4,
    /// A candidate acts on an older record of the same epoch.
    M5,
    /// The new master is lost in `promoting`, and the previous one has followed it.
    M6,
    /// The new master is restarted before it carries its epoch's marker.
    M7,
    /// The master lost power, its hot replica was only killed.
    M8,
    /// Another copy acknowledges before the drop of the hot replica is confirmed.
    M9,
    /// `fsync`: both lose power, the master never returns.
    BothDisks,
    /// `reads = "durable"`: a master that is cut off with a proxy that only reads.
    DurableReads,
    /// No hole: planned switchovers while clients write through proxies that hold requests back. None is cut off.
    Handover,
}

/// Plays one; an error says which step did not come about, or what was lost.
///
/// # Errors
/// See above.
pub fn play(case: Case, bug: Option<Bug>) -> Result<(), String> {
    match case {
        Case::M1 => old_view_of_a_proxy(bug),
        Case::M2 => certification_outlives_its_agent(bug),
        Case::M3 => dropped_while_the_disk_lags(bug),
        Case::M4 => taken_over_while_the_disk_lags(bug),
        Case::M5 => older_record_at_a_candidate(bug),
        Case::M6 => retaken_by_the_previous_master(bug),
        Case::M7 => restarted_before_its_marker(bug),
        Case::M8 => power_cut_and_killed(bug),
        Case::M9 => acknowledged_before_the_drop(bug),
        Case::BothDisks => one_of_two_disks_returns(bug),
        Case::DurableReads => read_from_a_master_that_is_cut_off(bug),
        Case::Handover => no_client_is_cut_off(bug),
    }
}

struct Scene {
    w: World,
}

type Played = Result<(), String>;

impl Scene {
    /// A group with master and hot replica, served for a while.
    fn formed(nodes: usize, policy: Policy, bug: Option<Bug>) -> Result<Self, String> {
        let w = World::of(Rng::new(4), Mix::calm_group(nodes, policy), bug, true, "scenario");
        let mut scene = Self { w };
        for n in 0..nodes {
            scene.w.after(0, move |w| w.start_agent(n));
        }
        for proxy in 0..scene.w.mix.proxies.len() {
            scene.w.after(500_000, move |w| w.client(proxy));
        }
        scene.w.after(0, World::expire_sessions);
        scene.until("the group forms", |w| w.attended() && w.serves_since(w.now.saturating_sub(200_000)))?;
        scene.pass(5_000_000)?;
        Ok(scene)
    }

    fn well(&self) -> Played {
        self.w.failure.clone().map_or(Ok(()), Err)
    }

    fn pass(&mut self, us: u64) -> Played {
        let end = self.w.now + us;
        while self.w.step(end) {}
        self.w.now = self.w.now.max(end);
        self.well()
    }

    /// Goes on to the very event after which it holds.
    fn until(&mut self, step: &str, holds: impl Fn(&World) -> bool) -> Played {
        let end = self.w.now + STEP_LIMIT_US;
        while !holds(&self.w) {
            let went = self.w.step(end);
            self.well()?;
            ensure(went, || format!("step \"{step}\" does not come about: {}", self.w.standstill()))?;
        }
        Ok(())
    }

    fn kill(&mut self, n: usize) {
        self.w.kill_agent(n);
        self.w.kill_database(n, "SIGKILL");
    }

    fn power_cut(&mut self, n: usize) {
        self.w.cut_power_with(n, LAG_US);
    }

    /// Master, hot replica, and the third node where there is one.
    fn roles(&mut self) -> (usize, usize, usize) {
        let (master, replica) = (self.w.master(), self.w.replica());
        let spare = (0..self.w.mix.nodes).find(|n| *n != master && *n != replica).unwrap_or_default();
        (master, replica, spare)
    }

    fn epoch(&self) -> u64 {
        self.w.stamp().epoch
    }

    fn cut(&mut self, a: usize, b: usize, cut: bool) {
        (self.w.cut[a][b], self.w.cut[b][a]) = (cut, cut);
    }

    /// A planned switchover, until another copy is certified.
    fn hand_over(&mut self) -> Played {
        let epoch = self.epoch();
        let request = self.w.plan_switchover().ok_or("nobody to hand over to")?;
        ensure(self.w.ask_group(request), || "another request waits".to_owned())?;
        self.until("the roles are exchanged", |w| active_beyond(w, epoch) && w.attended())
    }

    /// The group is whole again, and has lost nothing, declared or not.
    fn ends_well(&mut self) -> Played {
        self.until("the group is whole again", |w| w.attended() && w.serves_since(w.now.saturating_sub(200_000)))?;
        self.pass(3_000_000)?;
        self.w.nothing_is_lost()?;
        let lost = self.w.ledger.declared_lost;
        ensure(lost == 0, || format!("{lost} acknowledged writes are lost, and declared so"))
    }
}

fn record(w: &World) -> Option<&Record> {
    w.consul.record.as_ref().map(|(r, _)| r)
}

fn alone(w: &World) -> bool {
    record(w).is_some_and(|r| r.replica.is_none() && r.phase == Phase::Active)
}

fn active_beyond(w: &World, epoch: u64) -> bool {
    record(w).is_some_and(|r| r.epoch > epoch && r.phase == Phase::Active)
}

fn promoting(w: &World) -> bool {
    record(w).is_some_and(|r| r.phase == Phase::Promoting)
}

/// The pair of two nodes, of which the hot replica is gone and the master goes on alone.
fn left_alone(bug: Option<Bug>) -> Result<(Scene, usize, usize), String> {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    scene.kill(replica);
    scene.until("the master drops the hot replica", alone)?;
    scene.pass(1_000_000)?;
    Ok((scene, master, replica))
}

fn old_view_of_a_proxy(bug: Option<Bug>) -> Played {
    let (mut scene, master, replica) = left_alone(bug)?;
    scene.w.blind_proxies = true;
    scene.w.start_agent(replica);
    scene.until("the copy is certified again", World::attended)?;
    scene.cut(master, replica, true);
    scene.pass(400_000)?; // Writes that the hot replica does not get, released or not by the old view.
    let epoch = scene.epoch();
    scene.kill(master);
    scene.cut(master, replica, false);
    scene.w.blind_proxies = false;
    scene.until("the hot replica takes over", |w| active_beyond(w, epoch))?;
    scene.w.start_agent(master);
    scene.ends_well()
}

fn certification_outlives_its_agent(bug: Option<Bug>) -> Played {
    let (mut scene, master, replica) = left_alone(bug)?;
    scene.w.hold = Some(|p| p.record.replica.is_some());
    scene.w.start_agent(replica);
    scene.until("the certification is under way", |w| !w.held.is_empty())?;
    scene.w.kill_agent(master);
    scene.w.hold = None;
    let under_way = std::mem::take(&mut scene.w.held);
    scene.w.start_agent(master);
    scene.until("the new agent has seen the record", |w| {
        w.nodes[master].agent.as_ref().is_some_and(|a| a.step.view().record.is_some() && a.session.is_some())
    })?;
    scene.w.nodes[master].blind = true;
    scene.pass(300_000)?;
    for proposal in &under_way {
        let applied = scene.w.apply(proposal).is_some();
        scene.well()?;
        ensure(!applied, || "a certification of an earlier run is applied".to_owned())?;
    }
    scene.w.nodes[master].blind = false;
    scene.w.consul_changed();
    scene.ends_well()
}

fn dropped_while_the_disk_lags(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    let ends = scene.w.cut.len();
    (0..ends).filter(|end| *end != replica).for_each(|end| scene.cut(replica, end, true));
    if let Some(run) = scene.w.nodes[master].database.as_ref().map(|p| p.run) {
        scene.w.drop_downstream(master, run, |_| true);
    }
    scene.until("the master drops the hot replica", alone)?;
    let epoch = scene.epoch();
    scene.power_cut(master);
    scene.w.power_on(master);
    scene.until("the master resumes", |w| active_beyond(w, epoch))?;
    (0..ends).filter(|end| *end != replica).for_each(|end| scene.cut(replica, end, false));
    scene.ends_well()
}

fn taken_over_while_the_disk_lags(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    let epoch = scene.epoch();
    scene.kill(master);
    scene.until("the hot replica takes over", |w| active_beyond(w, epoch))?;
    if bug.is_some() {
        // Without the rule not even the epoch's marker is on the disk yet, and the group halts; once it is, writes are lost.
        scene.pass(2 * LAG_US)?;
    }
    scene.power_cut(replica);
    scene.w.power_on(replica);
    scene.until("it resumes from its own disk", |w| active_beyond(w, epoch + 1))?;
    scene.w.start_agent(master);
    scene.ends_well()
}

fn older_record_at_a_candidate(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(3, Policy::default(), bug)?;
    let (master, replica, spare) = scene.roles();
    (scene.w.nodes[spare].blind, scene.w.nodes[replica].blind) = (true, true);
    scene.cut(master, replica, true);
    if let Some(run) = scene.w.nodes[master].database.as_ref().map(|p| p.run) {
        scene.w.drop_downstream(master, run, |_| true);
    }
    scene.until("the master drops the hot replica", alone)?;
    scene.pass(2_000_000)?; // The former hot replica still calls the candidate, under the older record.
    ensure(alone(&scene.w), || "a candidate that knows an older record only is certified".to_owned())?;
    scene.w.nodes[spare].blind = false;
    scene.w.consul_changed();
    scene.until("the candidate is certified", |w| {
        record(w).and_then(|r| r.replica.as_ref()).and_then(|r| index_of(&r.id)) == Some(spare)
    })?;
    scene.pass(2_000_000)?;
    let epoch = scene.epoch();
    scene.kill(master);
    scene.cut(master, replica, false);
    scene.w.nodes[replica].blind = false;
    scene.until("it takes over", |w| active_beyond(w, epoch) && w.master() == spare)?;
    scene.w.start_agent(master);
    scene.ends_well()
}

fn retaken_by_the_previous_master(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    let epoch = scene.epoch();
    scene.w.hold = Some(|p| p.record.phase == Phase::Active && p.record.replica.is_none());
    if let Some(agent) = &mut scene.w.nodes[master].agent {
        agent.paused = true;
    }
    if let Some(process) = &mut scene.w.nodes[master].database {
        process.paused = true;
    }
    scene.until("the hot replica is promoted", |w| promoting(w) && !w.held.is_empty())?;
    scene.w.wake(master);
    scene.until("the previous master is fenced", |w| {
        w.nodes[master].database.as_ref().is_some_and(|p| !p.is_master())
    })?;
    scene.pass(200_000)?;
    scene.power_cut(replica);
    scene.w.power_on(replica);
    (scene.w.hold, scene.w.held) = (None, Vec::new());
    scene.until("the previous master takes back", |w| active_beyond(w, epoch + 1) && w.master() == master)?;
    scene.ends_well()
}

fn restarted_before_its_marker(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    let epoch = scene.epoch();
    scene.kill(master);
    scene.until("the hot replica is to be promoted", promoting)?;
    scene.w.kill_database(replica, "SIGKILL");
    scene.w.start_agent(master);
    scene.until("one of the two goes on", |w| active_beyond(w, epoch + 1))?;
    scene.ends_well()
}

fn power_cut_and_killed(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    let (master, replica, _) = scene.roles();
    let epoch = scene.epoch();
    scene.kill(replica);
    scene.power_cut(master);
    scene.w.start_agent(replica);
    scene.pass(3_000_000)?;
    ensure(scene.epoch() == epoch, || "one goes on while the other may hold more".to_owned())?;
    scene.w.power_on(master);
    scene.until("the newer data set goes on", |w| active_beyond(w, epoch))?;
    scene.ends_well()
}

fn acknowledged_before_the_drop(bug: Option<Bug>) -> Played {
    let policy = Policy { without_replica: WithoutReplica::Block, ..Policy::default() };
    let mut scene = Scene::formed(3, policy, bug)?;
    let (master, replica, spare) = scene.roles();
    scene.w.hold = Some(|p| p.record.replica.is_none());
    scene.kill(replica);
    scene.until("the drop is under way", |w| !w.held.is_empty())?;
    let acknowledged = scene.w.ledger.acknowledged;
    let known = scene.w.nodes[master].database.as_ref().map(|p| p.former_secret.clone()).unwrap_or_default();
    if let Some(p) = &mut scene.w.nodes[spare].database {
        p.primary_auth = known; // As one that was a candidate once.
        let run = p.run;
        scene.w.replica_of(spare, run, Some(master));
    }
    if let Some(agent) = &mut scene.w.nodes[spare].agent {
        agent.paused = true; // Or it would call its database back.
    }
    scene.pass(3_000_000)?;
    scene.w.wake(spare);
    let more = scene.w.ledger.acknowledged - acknowledged;
    ensure(more == 0, || format!("{more} writes are acknowledged that the recorded hot replica has not"))?;
    (scene.w.hold, scene.w.held) = (None, Vec::new());
    scene.w.start_agent(replica);
    scene.ends_well()
}

fn no_client_is_cut_off(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(2, Policy::default(), bug)?;
    for manners in [Manners::Holds, Manners::Slow] {
        scene.w.mix.proxies[0] = manners;
        for _ in 0..5 {
            scene.hand_over()?;
            let cut = scene.w.ledger.cut;
            ensure(cut == 0, || format!("{cut} clients are cut off by a planned switchover"))?;
        }
    }
    // One that never is quiet costs its own clients something, and the group nothing.
    scene.w.mix.proxies[0] = Manners::NeverQuiet;
    scene.hand_over()?;
    scene.ends_well()
}

fn one_of_two_disks_returns(bug: Option<Bug>) -> Played {
    let mut scene = Scene::formed(3, Policy { fsync: true, ..Policy::default() }, bug)?;
    let (master, replica, _) = scene.roles();
    let epoch = scene.epoch();
    scene.power_cut(master);
    scene.power_cut(replica);
    scene.w.power_on(replica);
    scene.until("the hot replica goes on", |w| active_beyond(w, epoch) && w.master() == replica)?;
    scene.ends_well()
}

/// The hot replica has acknowledged all that the master has, and is in its place before the master sends anything else:
/// an old acknowledgement would answer for a read of old data.
fn read_from_a_master_that_is_cut_off(bug: Option<Bug>) -> Played {
    let policy = Policy { reads: Reads::Durable, detect_after: 200, ..Policy::default() };
    let mut scene = Scene::formed(2, policy, bug)?;
    let (master, ..) = scene.roles();
    scene.pass(10_000_000)?; // The pause after the first takeover.
    scene.w.mix.reading = vec![1_000; 2];
    scene.w.stop(master, true, false); // Or it would raise its marker.
    scene.pass(500_000)?;
    let offset = |w: &World| w.nodes[master].database.as_ref().map_or(0, |p| p.offset);
    let quiet = offset(&scene.w);
    scene.until("the master calls its hot replica", |w| offset(w) > quiet)?;
    scene.pass(20_000)?;
    let (epoch, reader) = (scene.epoch(), scene.w.proxy_end(0));
    let ends = scene.w.cut.len();
    for side in [master, reader] {
        (0..ends).filter(|end| ![master, reader].contains(end)).for_each(|end| scene.cut(side, end, true));
    }
    scene.w.mix.reading[1] = 0;
    scene.until("the hot replica takes over", |w| active_beyond(w, epoch))?;
    scene.until("a write is acknowledged there", |w| w.serves_since(w.now.saturating_sub(20_000)))?;
    scene.pass(1_500_000)?;
    for side in [master, reader] {
        (0..ends).filter(|end| *end != side).for_each(|end| scene.cut(side, end, false));
    }
    scene.w.wake(master);
    scene.ends_well()
}
