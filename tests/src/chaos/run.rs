//! A run: rounds of faults drawn from a seed, under load; at the end the history is judged.

use super::fault::Fault;
use super::load::Load;
use super::setup::Setup;
use super::stage::{Stage, WHOLE_WITHIN, on_stage};
use crate::history::{Promises, Verdict};
use crate::real::Cast;
use crate::sim::rng::Rng;
use anyhow::{Context, Result};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Writes that show that the group is open again.
const SWING: u64 = 100;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Everything that is left to chance comes from here. (What the processes make of it does not.)
    pub seed: u64,
    /// What may happen.
    pub faults: Vec<Fault>,
    /// At most so many faults overlap.
    pub together: u64,
    /// The run ends with the round that reaches so many failovers,
    pub failovers: u64,
    /// or after so many rounds,
    pub rounds: u64,
    /// or with the round in which this time is over.
    pub time: Duration,
    /// How many clients.
    pub clients: usize,
    /// What the group is like.
    pub setup: Setup,
    /// What is promised of it.
    pub promises: Promises,
    /// Whether each round is told on standard error as it ends.
    pub loud: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A line for each round.
    pub story: Vec<String>,
    /// How far the epoch rose.
    pub failovers: u64,
    /// For each round the longest time in which no write was acknowledged.
    pub outages: Vec<Duration>,
    /// What the history shows; nothing when it could not be read back.
    pub verdict: Option<Verdict>,
    /// What else went wrong: a group that did not recover.
    pub failure: Option<String>,
    /// Where everything lies, of a run that went wrong.
    pub kept: Option<PathBuf>,
}

/// Runs a plan from beginning to end.
///
/// # Errors
/// When it could not even begin: no namespaces, no programs, a group that never became whole.
pub fn run(plan: &Plan) -> Result<Report> {
    on_stage(&plan.setup, async |stage| play(plan, stage).await)
}

impl Report {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.failure.is_none() && self.verdict.as_ref().is_some_and(Verdict::is_clean)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.outages.iter().max().copied().unwrap_or_default();
        write!(
            f,
            "seed {}: {} failovers in {} rounds, longest time without a write {:.1} s; ",
            self.seed,
            self.failovers,
            self.story.len(),
            longest.as_secs_f64()
        )?;
        match &self.verdict {
            Some(verdict) => write!(f, "{verdict}")?,
            None => write!(f, "not judged")?,
        }
        if let Some(failure) = &self.failure {
            write!(f, "\n  FAILED: {failure}")?;
        }
        match &self.kept {
            Some(folder) => write!(f, "\n  kept in {}", folder.display()),
            None => Ok(()),
        }
    }
}

async fn play(plan: &Plan, stage: &mut Stage<'_>) -> Result<Report> {
    let (begun, mut rng) = (Instant::now(), Rng::new(plan.seed));
    let load = stage.load(plan.clients)?;
    load.wait_for(SWING, WHOLE_WITHIN).await.context("before any fault")?;
    load.turn();
    let mut report = Report {
        seed: plan.seed,
        story: Vec::new(),
        failovers: 0,
        outages: Vec::new(),
        verdict: None,
        failure: None,
        kept: None,
    };
    let mut cast = stage.whole(WHOLE_WITHIN).await?;
    for number in 1..=plan.rounds {
        if report.failovers >= plan.failovers || begun.elapsed() > plan.time {
            break;
        }
        match round(plan, stage, &load, &cast, &mut rng).await {
            Ok(Round { told, after, outage }) => {
                report.failovers += after.epoch - cast.epoch;
                report.outages.push(outage);
                cast = after;
                tell(plan, &mut report, format!("round {number}: {told}"));
            }
            Err(error) => {
                report.failure = Some(format!("in round {number}: {error:#}"));
                break;
            }
        }
    }
    match stage.judge(load, plan.promises).await {
        Ok(verdict) => report.verdict = Some(verdict),
        Err(error) => drop(report.failure.get_or_insert_with(|| format!("{error:#}"))),
    }
    if !report.is_clean() {
        report.kept = stage.keep();
    }
    Ok(report)
}

fn tell(plan: &Plan, report: &mut Report, line: String) {
    if plan.loud {
        eprintln!("{line}");
    }
    report.story.push(line);
}

struct Round {
    told: String,
    after: Cast,
    outage: Duration,
}

async fn round(plan: &Plan, stage: &mut Stage<'_>, load: &Load, cast: &Cast, rng: &mut Rng) -> Result<Round> {
    let mut told = Vec::new();
    let begun = Instant::now();
    for n in 0..=rng.range(0, plan.together) {
        if n > 0 {
            pause(rng, 0, 1_500).await;
        }
        let fault = plan.faults[rng.index(plan.faults.len())];
        let at = begun.elapsed().as_secs_f64();
        told.push(format!("{at:.1} s {}", fault.strike(stage, cast, rng).await.context(fault.name())?));
    }
    pause(rng, 300, 4_000).await;
    let held = begun.elapsed();
    stage.heal()?;
    let after = stage.whole(WHOLE_WITHIN).await.with_context(|| told.join(", "))?;
    load.wait_for(SWING, WHOLE_WITHIN).await.with_context(|| told.join(", "))?;
    let outage = load.turn();
    let told = format!(
        "{}; healed after {:.1} s, whole after {:.1} s; epoch {} -> {}, {} -> {}; {:.1} s without a write",
        told.join(", "),
        held.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        cast.epoch,
        after.epoch,
        cast.master,
        after.master,
        outage.as_secs_f64(),
    );
    Ok(Round { told, after, outage })
}

async fn pause(rng: &mut Rng, low: u64, high: u64) {
    tokio::time::sleep(Duration::from_millis(rng.range(low, high))).await;
}
