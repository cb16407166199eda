//! Groups under faults on virtual time: nothing acknowledged is lost, whatever the seed; the same seed is the same
//! run; and a simulation of something that is wrong finds it.

use config::Engine;
use std::ops::ControlFlow;
use understudy_tests::sim::{self, Adoption, Bug, Outcome};

/// What `make test` runs.
const SEEDS: u64 = 1_000;

/// How often data are brought to a group, before it begins and after.
const ADOPTION_SEEDS: u64 = 20;

/// Every planted bug is found within so many seeds; `docs/proof.md` says by which.
const BUG_SEEDS: u64 = 1_000;

/// These need a rarer coincidence: searched from here on, or this test would take minutes.
const RARE: [(Bug, u64); 2] = [(Bug::GuardNeverCloses, 3_100), (Bug::PersistedTooEarly, 1_870)];

/// The end of a failing seed's story, and how to see it again.
fn show(outcome: &Outcome) -> String {
    let told = sim::run(outcome.seed, outcome.engine, None, true);
    let skip = told.story.len().saturating_sub(40);
    let story = told.story[skip..].join("\n");
    let failure = outcome.failure.clone().unwrap_or_default();
    let engine = outcome.engine.as_str();
    format!("{story}\nseed {0}: {failure}\nreplay with: make simulate SEED={0} ENGINE={engine}", outcome.seed)
}

#[test]
fn seeds_lose_nothing_and_recover() {
    let (mut acknowledged, mut epochs, mut halted) = (0, 0, 0);
    sim::run_many(1, SEEDS, None, None, |outcome| {
        acknowledged += outcome.acknowledged;
        epochs += outcome.epochs;
        halted += u64::from(outcome.halted.is_some());
        assert!(outcome.failure.is_none(), "{}", show(&outcome));
        ControlFlow::Continue(())
    });
    // A simulation in which nothing happens proves nothing.
    assert!(acknowledged > 200 * SEEDS, "only {acknowledged} writes were acknowledged");
    assert!(epochs > 2 * SEEDS, "only {epochs} epochs");
    assert!(halted < SEEDS / 5, "{halted} groups do not serve at the end");
}

#[test]
fn the_same_seeds_are_the_same_runs() {
    let hashes = |first| {
        let mut hashes = Vec::new();
        sim::run_many(first, 60, None, None, |outcome| {
            hashes.push((outcome.seed, outcome.hash, outcome.acknowledged));
            ControlFlow::Continue(())
        });
        hashes.sort_unstable();
        hashes
    };
    assert_eq!(hashes(2_000), hashes(2_000));
    // Telling its story changes nothing in it.
    for engine in [Engine::Redis, Engine::Postgres, Engine::Mariadb] {
        assert_eq!(sim::run(1, engine, None, false).hash, sim::run(1, engine, None, true).hash);
        assert_ne!(sim::run(1, engine, None, false).hash, sim::run(2, engine, None, false).hash);
    }
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().copied().filter(|bug| bug.is_random()) {
        let mut found = None;
        let first = RARE.iter().find(|(rare, _)| *rare == bug).map_or(1, |(_, first)| *first);
        sim::run_many(first, BUG_SEEDS, Some(bug.engine()), Some(bug), |outcome| {
            // A seed that fails by itself shows nothing of the bug.
            if outcome.failure.is_none() || sim::run(outcome.seed, outcome.engine, None, false).failure.is_some() {
                return ControlFlow::Continue(());
            }
            found = Some(outcome);
            ControlFlow::Break(())
        });
        match found {
            Some(outcome) => println!("{bug:?}: seed {}: {}", outcome.seed, outcome.failure.unwrap_or_default()),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {BUG_SEEDS} seeds: {missed:?}");
}

#[test]
fn data_that_were_there_before_are_adopted_or_left_alone() {
    for seed in 1..=ADOPTION_SEEDS {
        for (late, expected) in [(false, Adoption::Adopted), (true, Adoption::TooLate)] {
            let became = sim::adopt(seed, late, None);
            assert_eq!(became, Ok(expected), "seed {seed}, late: {late}");
        }
    }
}
