//! Runs the simulation on many seeds until one fails, or replays one.

use clap::Parser;
use config::Engine;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use understudy_tests::sim::{self, Bug, Outcome};

/// A group under random faults, on virtual time.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run, from `first` on.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The groups' engine: redis, postgres or mariadb; each seed draws one unless this says which.
    #[arg(long, value_parser = engine)]
    engine: Option<Engine>,
    /// Replay this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Tell the whole story of the seed, not only its end.
    #[arg(long)]
    story: bool,
    /// Plant this bug; `list` prints them.
    #[arg(long)]
    bug: Option<String>,
    /// Go on after a seed that failed, and count them.
    #[arg(long)]
    keep_going: bool,
}

/// How much of a failing seed's story is told unasked.
const SHORT_STORY: usize = 60;

/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = match arguments.bug.as_deref().map(named) {
        None => None,
        Some(Some(bug)) => Some(bug),
        Some(None) => {
            Bug::ALL.iter().for_each(|bug| println!("{bug:?}: {}", bug.what()));
            return ExitCode::from(64);
        }
    };
    match arguments.seed {
        Some(seed) => replay(seed, arguments.engine.unwrap_or(sim::engine_of(seed)), bug, arguments.story),
        None => many(&arguments, bug),
    }
}

fn named(name: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name)
}

fn engine(name: &str) -> Result<Engine, String> {
    let all = [Engine::Redis, Engine::Postgres, Engine::Mariadb];
    all.into_iter().find(|engine| engine.as_str() == name).ok_or_else(|| "redis, postgres or mariadb".to_owned())
}

fn replay(seed: u64, engine: Engine, bug: Option<Bug>, whole: bool) -> ExitCode {
    let outcome = sim::run(seed, engine, bug, true);
    let skip = if whole { 0 } else { outcome.story.len().saturating_sub(SHORT_STORY) };
    outcome.story.iter().skip(skip).for_each(|line| println!("{line}"));
    println!("{}", summary(&outcome));
    if outcome.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What a run of many seeds adds up to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    faults: u64,
    epochs: u64,
    acknowledged: u64,
    declared: u64,
    virtual_ms: u64,
    halted: BTreeMap<&'static str, u64>,
    exceptions: u64,
    failed: Vec<(u64, Engine)>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.faults += outcome.faults;
        self.epochs += outcome.epochs;
        self.acknowledged += outcome.acknowledged;
        self.declared += outcome.declared_lost;
        self.exceptions += outcome.exceptions;
        self.virtual_ms += outcome.virtual_ms;
        if let Some(why) = outcome.halted {
            *self.halted.entry(why).or_default() += 1;
        }
        if outcome.failure.is_some() {
            self.failed.push((outcome.seed, outcome.engine));
        }
    }

    /// Speed is stated in schedules of one simulated minute.
    fn speed(&self, took: Duration) -> f64 {
        self.virtual_ms as f64 / 60_000.0 / took.as_secs_f64()
    }
}

fn many(arguments: &Arguments, bug: Option<Bug>) -> ExitCode {
    let (began, mut said) = (Instant::now(), Instant::now());
    let mut sum = Sum::default();
    sim::run_many(arguments.first, arguments.seeds, arguments.engine, bug, |outcome| {
        sum.add(&outcome);
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            let (of, speed) = (arguments.seeds, sum.speed(began.elapsed()));
            eprintln!("{} of {of} seeds, {speed:.0} simulated minutes a second", sum.seeds);
        }
        if outcome.failure.is_none() {
            return ControlFlow::Continue(());
        }
        println!("{}", summary(&outcome));
        if arguments.keep_going { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let took = began.elapsed();
    println!(
        "{} seeds in {:.1} s ({:.0} simulated minutes a second): {} simulated hours, {} faults, {} epochs, {} acknowledged \
         writes, {} declared lost, {} answers of the kind that the documents except, halted by the rules: {:?}, {} failed",
        sum.seeds,
        took.as_secs_f64(),
        sum.speed(took),
        sum.virtual_ms / 3_600_000,
        sum.faults,
        sum.epochs,
        sum.acknowledged,
        sum.declared,
        sum.exceptions,
        sum.halted,
        sum.failed.len()
    );
    let Some((first, engine)) = sum.failed.first() else { return ExitCode::SUCCESS };
    println!("replay with: make simulate SEED={first} ENGINE={}", engine.as_str());
    replay(*first, *engine, bug, false)
}

fn summary(outcome: &Outcome) -> String {
    let end = match (&outcome.failure, outcome.halted) {
        (Some(failure), _) => format!("FAILED: {failure}"),
        (None, Some(halted)) => format!("halted by the rules: {halted}"),
        (None, None) => "serves again, nothing lost".to_owned(),
    };
    format!(
        "seed {} ({}): {end} ({} faults, {} epochs, {} acknowledged, hash {:016x})",
        outcome.seed,
        outcome.engine.as_str(),
        outcome.faults,
        outcome.epochs,
        outcome.acknowledged,
        outcome.hash
    )
}
