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
    /// The systems
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Understudy, System::Sentinel])]
    systems: Vec<System>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    program::run(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    let mut all = Vec::new();
    for fault in &args.faults {
        let mut samples = vec![Vec::new(); args.systems.len()];
        for run in 1..=args.runs {
            for (system, samples) in args.systems.iter().zip(&mut samples) {
                let sample = once(*system, *fault).await?;
                eprintln!("{} {} {run}/{}: {sample}", system.name(), fault.name(), args.runs);
                samples.push(sample);
            }
        }
        for (system, samples) in args.systems.iter().zip(&samples) {
            let figures = Figures::of(*system, *fault, samples);
            println!("{}", serde_json::to_string(&figures)?);
            all.push(figures);
        }
    }
    eprint!("\n{}", table(&all));
    Ok(())
}

async fn once(system: System, fault: Fault) -> Result<Sample> {
    match system {
        System::Understudy => understudy::once(fault).await,
        System::Sentinel => sentinel::once(fault).await,
    }
}
