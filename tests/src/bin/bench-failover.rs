//! How long a client cannot write when something fails: Understudy in turn with a peer of its engine (Redis Sentinel;
//! Patroni with Consul and HAProxy), on the same machine.
//!
//! One JSON object a line on standard output, a table on standard error.

#[path = "../bench/mod.rs"]
mod bench;
#[path = "../bench/program.rs"]
mod program;

use anyhow::{Result, ensure};
use bench::figures::{Figures, table};
use bench::{Fault, Sample, System, patroni, sentinel, understudy};
use clap::Parser;
use config::Engine;
use std::process::ExitCode;

/// Measures write outages.
#[derive(Debug, Parser)]
struct Args {
    /// How often each fault strikes each system
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The same for the peer, which may take ten times as long; as often as Understudy when not said
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    peer_runs: Option<u32>,
    /// The faults
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Fault::Kill, Fault::Node, Fault::Hang, Fault::Switchover])]
    faults: Vec<Fault>,
    /// What runs: redis, postgres or mariadb
    #[arg(long, default_value = "redis", value_parser = program::engine)]
    engine: Engine,
    /// The systems, of which those that do not know the engine are left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Understudy, System::Sentinel, System::Patroni])]
    systems: Vec<System>,
}

impl Args {
    fn runs_of(&self, system: System) -> u32 {
        if system == System::Understudy { self.runs } else { self.peer_runs.unwrap_or(self.runs) }
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.systems.retain(|system| system.runs(args.engine));
    program::run(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    ensure!(!args.systems.is_empty(), "none of the systems looks after {}", args.engine.as_str());
    let rounds = args.systems.iter().map(|system| args.runs_of(*system)).max().unwrap_or_default();
    let (mut all, mut failed) = (Vec::new(), 0);
    for fault in &args.faults {
        let mut samples = vec![Vec::new(); args.systems.len()];
        for run in 1..=rounds {
            for (system, samples) in args.systems.iter().zip(&mut samples) {
                let runs = args.runs_of(*system);
                if run > runs {
                    continue;
                }
                let name = format!("{} {} {run}/{runs}", system.name(), fault.name());
                match once(*system, args.engine, *fault).await {
                    Ok(sample) => {
                        eprintln!("{name}: {sample}");
                        samples.push(sample);
                    }
                    // An hour of other runs is worth more than the first refusal.
                    Err(error) => {
                        eprintln!("{name}: FAILED: {error:#}");
                        failed += 1;
                    }
                }
            }
        }
        for (system, samples) in args.systems.iter().zip(&samples) {
            if samples.is_empty() {
                continue;
            }
            let figures = Figures::of(*system, args.engine, *fault, samples);
            println!("{}", serde_json::to_string(&figures)?);
            all.push(figures);
        }
    }
    eprint!("\n{}", table(&all));
    ensure!(failed == 0, "{failed} runs failed and are in no figure");
    Ok(())
}

async fn once(system: System, engine: Engine, fault: Fault) -> Result<Sample> {
    match system {
        System::Understudy => understudy::once(engine, fault).await,
        System::Sentinel => sentinel::once(fault).await,
        System::Patroni => patroni::once(fault).await,
    }
}
