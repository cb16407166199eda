//! A group under faults, on virtual time, from one seed: the real step of the agent and the real election, on models
//! of Consul, Redis, PostgreSQL, MariaDB, disks and the network, one thread, no clock, no chance but the seed's.
//!
//! The models have the real things' defects: Consul's transactions may be lost, applied without an answer, or late;
//! Redis promotes anything, counts any replica for WAIT, is wiped by a full resync, loses what was not fsynced with
//! the machine; those of the SQL engines are told in `sql.rs`. Clients write all the time; what was acknowledged must
//! stay.

mod adoption;
mod bugs;
mod checks;
mod client;
mod commits;
mod consul;
mod data;
mod engine;
mod faults;
mod history;
mod kv;
mod mariadb;
mod mix;
mod node;
mod operator;
mod postgres;
mod process;
mod promises;
mod quiet;
mod replication;
pub(crate) mod rng;
mod scenarios;
mod script;
mod sql;
mod story;
mod world;

pub use adoption::{Adoption, adopt};
pub use bugs::Bug;
use config::Engine;
pub use kv::{Kv, Pair};
pub use rng::Rng;
pub use scenarios::{Case, play};
pub use script::{Played, perform};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use world::World;

/// Faults begin when the group has had time to form, in microseconds.
const FORMED_US: u64 = 4_000_000;

/// Faults end.
const HEALED_US: u64 = 40_000_000;

/// A group that may serve serves again within this after the last fault: twice Consul's longest session, a full copy
/// and a certification fit into it.
const RECOVERED_US: u64 = 60_000_000;

/// Before that, every agent hears every other, what was on its way has arrived, and a database that did not stay up has
/// been started again: the longest pause between two starts is five seconds.
const CALM_US: u64 = 6_000_000;

/// A planned switchover in a healthy group, to a node that may have to be certified first, takes no longer.
const SWITCHED_US: u64 = 30_000_000;

/// How one seed ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The engine of its group.
    pub engine: Engine,
    /// What was wrong first, if anything was.
    pub failure: Option<String>,
    /// Why the group does not serve at the end though nothing was wrong.
    pub halted: Option<&'static str>,
    /// The same seed always gives this.
    pub hash: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// The highest epoch.
    pub epochs: u64,
    /// Acknowledged writes that the record itself declared lost, with both copies, one by a power cut.
    pub declared_lost: u64,
    /// Answers of the kind that the documents except: success that no copy had.
    pub exceptions: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// What happened, when it was asked for.
    pub story: Vec<String>,
}

/// The engine that a seed draws, where none is asked for.
pub fn engine_of(seed: u64) -> Engine {
    [Engine::Redis, Engine::Postgres, Engine::Mariadb][usize::try_from(seed % 3).unwrap_or_default()]
}

/// Runs one seed; with `bug`, on models that are wired wrongly in that way; with `telling`, keeping the story.
pub fn run(seed: u64, engine: Engine, bug: Option<Bug>, telling: bool) -> Outcome {
    let mut w = World::new(seed, engine, bug, telling);
    for n in 0..w.mix.nodes {
        let at = w.rng.range(0, 300_000);
        w.after(at, move |w| w.start_agent(n));
    }
    for proxy in 0..w.mix.proxies.len() {
        w.after(500_000, move |w| w.client(proxy));
    }
    w.after(0, World::expire_sessions);
    w.after(FORMED_US, |w| w.trouble(HEALED_US));
    while w.step(HEALED_US) {}
    let halted = if w.failure.is_none() { recover(&mut w) } else { None };
    Outcome {
        seed,
        engine,
        failure: w.failure.clone(),
        halted,
        hash: w.story.hash(),
        acknowledged: w.ledger.acknowledged,
        epochs: w.ledger.epochs,
        declared_lost: w.ledger.declared_lost,
        exceptions: w.ledger.exceptions,
        faults: w.faults,
        virtual_ms: w.now / 1_000,
        story: w.story.into_lines(),
    }
}

/// All faults end, and operators do what is theirs to do; the group must serve and have a hot replica again. Where the
/// rules have halted it, a forced failover must bring it back.
fn recover(w: &mut World) -> Option<&'static str> {
    w.now = HEALED_US;
    w.heal();
    if serves_again(w, HEALED_US + RECOVERED_US) {
        switch_over(w);
        return None;
    }
    if w.failure.is_some() {
        return None;
    }
    let excuse = w.excuse();
    if excuse.is_none() {
        let what = w.standstill();
        w.fail(what);
    }
    if w.consul.lost.is_none() && excuse.is_some() {
        w.force_the_best();
        let end = w.now + RECOVERED_US;
        if !serves_again(w, end) && w.failure.is_none() {
            let what = w.standstill();
            w.fail(format!("a forced failover does not bring it back: {what}"));
        }
    }
    excuse
}

fn serves_again(w: &mut World, end: u64) -> bool {
    let mut looked = w.now;
    while looked < end {
        looked += 500_000;
        while w.step(looked) {}
        w.now = w.now.max(looked);
        if w.failure.is_some() {
            return false;
        }
        if w.consul.lost.is_some() && looked > HEALED_US + CALM_US {
            w.restore_record();
        }
        if looked > HEALED_US + CALM_US {
            w.release_what_blocks_a_copy();
        }
        let errant = looked > HEALED_US + CALM_US && w.look_after_errant_copies();
        if w.serves_since(looked - 400_000) && w.attended() && !w.leaks_unnoticed() && !errant {
            let lost = w.nothing_is_lost();
            w.check(lost);
            return w.failure.is_none();
        }
    }
    let lost = w.nothing_is_lost();
    w.check(lost);
    false
}

/// A healthy group does what an operator asks: another node becomes master, and clients' writes are answered again.
fn switch_over(w: &mut World) {
    let calm = w.now + CALM_US;
    while w.step(calm) {}
    let Some(request) = w.plan_switchover().filter(|_| w.failure.is_none()) else { return };
    let end = w.now + SWITCHED_US;
    let mut asked = false;
    while w.now < end && w.failure.is_none() {
        asked = asked || w.ask_group(request.clone());
        w.release_what_blocks_a_copy();
        let looked = w.now + 250_000;
        while w.step(looked) {}
        w.now = w.now.max(looked);
        match w.consul.result(&request.id).map(|outcome| (outcome.done, outcome.message)) {
            Some((true, _)) if w.serves_since(looked - 200_000) => {
                let lost = w.nothing_is_lost();
                return w.check(lost);
            }
            Some((false, why)) => return w.fail(format!("a healthy group refuses a planned switchover: {why}")),
            _ => {}
        }
    }
    let stands = w.standstill();
    w.fail(format!("a planned switchover to {:?} does not come about: {stands}", request.target));
}

/// Runs `seeds` from `first`, of one engine or of that which each draws, on every core and hands each outcome to `each`, in whatever order they end, until it says
/// that it has seen enough.
pub fn run_many(
    first: u64,
    seeds: u64,
    engine: Option<Engine>,
    bug: Option<Bug>,
    mut each: impl FnMut(Outcome) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let (ended, outcomes) = mpsc::channel();
        for _ in 0..threads {
            let (next, ended) = (&next, ended.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens any more: enough was seen.
                    if seed >= first + seeds
                        || ended.send(run(seed, engine.unwrap_or(engine_of(seed)), bug, false)).is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(ended);
        // The first to break ends the loop, and with it the receiver.
        let _ = outcomes.into_iter().try_for_each(&mut each);
    });
}
