//! Runs the simulation on many seeds, or replays one.

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use understudy_tests::sim::{self, Bug, Outcome};

/// A group under random faults, on virtual time.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run, from `first` on.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Replay this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Tell the whole story of the seed, not only its end.
    #[arg(long)]
    story: bool,
    /// Wire the models wrongly in this way, by its number in `Bug::ALL`.
    #[arg(long)]
    bug: Option<usize>,
}

/// How much of a failing seed's story is told unasked.
const SHORT_STORY: usize = 60;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = arguments.bug.and_then(|number| Bug::ALL.get(number).copied());
    match arguments.seed {
        Some(seed) => replay(seed, bug, arguments.story),
        None => many(&arguments, bug),
    }
}

fn replay(seed: u64, bug: Option<Bug>, whole: bool) -> ExitCode {
    let outcome = sim::run(seed, bug, true);
    let skip = if whole { 0 } else { outcome.story.len().saturating_sub(SHORT_STORY) };
    outcome.story.iter().skip(skip).for_each(|line| println!("{line}"));
    println!("{}", summary(&outcome));
    if outcome.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn many(arguments: &Arguments, bug: Option<Bug>) -> ExitCode {
    let began = Instant::now();
    let mut halted = BTreeMap::<_, u64>::new();
    let mut declared = 0;
    let (mut failed, mut acknowledged, mut faults, mut epochs, mut virtual_ms) = (Vec::new(), 0, 0, 0, 0);
    sim::run_many(arguments.first, arguments.seeds, bug, |outcome| {
        if let Some(why) = outcome.halted {
            *halted.entry(why).or_default() += 1;
        }
        declared += outcome.declared_lost;
        acknowledged += outcome.acknowledged;
        faults += outcome.faults;
        epochs += outcome.epochs;
        virtual_ms += outcome.virtual_ms;
        if outcome.failure.is_some() {
            println!("{}", summary(&outcome));
            failed.push(outcome.seed);
        }
    });
    println!(
        "{} seeds in {:.1} s: {} virtual hours, {faults} faults, {epochs} epochs, {acknowledged} acknowledged writes, {declared} declared lost, halted by the rules: {halted:?}, {} failed",
        arguments.seeds,
        began.elapsed().as_secs_f64(),
        virtual_ms / 3_600_000,
        failed.len()
    );
    let Some(first) = failed.first() else { return ExitCode::SUCCESS };
    println!("replay with: make simulate SEED={first}");
    replay(*first, bug, false)
}

fn summary(outcome: &Outcome) -> String {
    let end = match (&outcome.failure, outcome.halted) {
        (Some(failure), _) => format!("FAILED: {failure}"),
        (None, Some(halted)) => format!("halted by the rules: {halted}"),
        (None, None) => "serves again, nothing lost".to_owned(),
    };
    format!(
        "seed {}: {end} ({} faults, {} epochs, {} acknowledged, hash {:016x})",
        outcome.seed, outcome.faults, outcome.epochs, outcome.acknowledged, outcome.hash
    )
}
