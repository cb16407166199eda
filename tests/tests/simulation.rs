//! Groups under faults on virtual time: nothing acknowledged is lost, whatever the seed; the same seed is the same
//! run; and a simulation of something that is wrong finds it.

use understudy_tests::sim::{self, Bug, Outcome};

/// What `make test` runs.
const SEEDS: u64 = 200;

/// Every planted bug is found within so many seeds, the rarest with room to spare.
const BUG_SEEDS: u64 = 1_000;

/// The end of a failing seed's story, and how to see it again.
fn show(outcome: &Outcome) -> String {
    let told = sim::run(outcome.seed, None, true);
    let skip = told.story.len().saturating_sub(40);
    let story = told.story[skip..].join("\n");
    let failure = outcome.failure.clone().unwrap_or_default();
    format!("{story}\nseed {0}: {failure}\nreplay with: make simulate SEED={0}", outcome.seed)
}

#[test]
fn two_hundred_seeds_lose_nothing_and_recover() {
    let (mut failed, mut acknowledged, mut epochs, mut halted) = (Vec::new(), 0, 0, 0);
    sim::run_many(1, SEEDS, None, |outcome| {
        acknowledged += outcome.acknowledged;
        epochs += outcome.epochs;
        halted += u64::from(outcome.halted.is_some());
        if outcome.failure.is_some() {
            failed.push(outcome);
        }
    });
    if let Some(first) = failed.first() {
        panic!("{} of {SEEDS} seeds failed; the first:\n{}", failed.len(), show(first));
    }
    // A simulation in which nothing happens proves nothing.
    assert!(acknowledged > 200 * SEEDS, "only {acknowledged} writes were acknowledged");
    assert!(epochs > 2 * SEEDS, "only {epochs} epochs");
    assert!(halted < SEEDS / 5, "{halted} groups do not serve at the end");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1_000..1_010 {
        let (once, again) = (sim::run(seed, None, false), sim::run(seed, None, true));
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.acknowledged, again.acknowledged, "seed {seed}");
    }
    assert_ne!(sim::run(1, None, false).hash, sim::run(2, None, false).hash);
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match (1..=BUG_SEEDS).find(|seed| sim::run(*seed, Some(bug), false).failure.is_some()) {
            Some(seed) => println!("{bug:?}: found by seed {seed}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {BUG_SEEDS} seeds: {missed:?}");
}
