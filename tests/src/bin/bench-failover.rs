//! How long a client cannot write when something fails: Understudy in turn with Redis Sentinel, on the same machine.
//!
//! One JSON object a line on standard output, a table on standard error.

#[path = "../bench/mod.rs"]
mod bench;
#[path = "../bench/program.rs"]
mod program;

use anyhow::Result;
use bench::figures::{Figures, table};
use bench::{Fault, Sample, System, sentinel, understudy};
use clap::Parser;
use config::Engine;
use std::process::ExitCode;

/// Measures write outages.
#[derive(Debug, Parser)]
struct Args {
    /// How often each fault strikes each system
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The faults
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Fault::Kill, Fault::Node, Fault::Hang, Fault::Switchover])]
    faults: Vec<Fault>,
    /// What runs: redis, postgres or mariadb
    #[arg(long, default_value = "redis", value_parser = engine)]
    engine: Engine,
    /// The systems; Sentinel is measured with Redis only
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Understudy, System::Sentinel])]
    systems: Vec<System>,
}

fn engine(text: &str) -> Result<Engine, String> {
    let all = [Engine::Redis, Engine::Postgres, Engine::Mariadb];
    all.into_iter().find(|engine| engine.as_str() == text).ok_or_else(|| "write redis, postgres or mariadb".to_owned())
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.engine != Engine::Redis {
        args.systems.retain(|system| *system != System::Sentinel);
    }
    program::run(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    let mut all = Vec::new();
    for fault in &args.faults {
        let mut samples = vec![Vec::new(); args.systems.len()];
        for run in 1..=args.runs {
            for (system, samples) in args.systems.iter().zip(&mut samples) {
                let sample = once(*system, args.engine, *fault).await?;
                eprintln!("{} {} {run}/{}: {sample}", system.name(), fault.name(), args.runs);
                samples.push(sample);
            }
        }
        for (system, samples) in args.systems.iter().zip(&samples) {
            let figures = Figures::of(*system, args.engine, *fault, samples);
            println!("{}", serde_json::to_string(&figures)?);
            all.push(figures);
        }
    }
    eprint!("\n{}", table(&all));
    Ok(())
}

async fn once(system: System, engine: Engine, fault: Fault) -> Result<Sample> {
    match system {
        System::Understudy => understudy::once(engine, fault).await,
        System::Sentinel => sentinel::once(fault).await,
    }
}
