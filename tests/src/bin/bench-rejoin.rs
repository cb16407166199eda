//! How soon a killed master is back as a copy: Understudy in turn with Redis Sentinel, on the same machine.
//!
//! One JSON object a line on standard output, a table on standard error.

#[path = "../bench/mod.rs"]
#[allow(dead_code, reason = "faults and outages are bench-failover's; what starts the systems is shared")]
mod bench;
#[path = "../bench/program.rs"]
mod program;
#[path = "../bench/rejoin.rs"]
mod rejoin;

use anyhow::Result;
use bench::System;
use clap::Parser;
use std::process::ExitCode;

/// Measures how soon a killed master is a copy again.
#[derive(Debug, Parser)]
struct Args {
    /// How often each system's master is killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The systems
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Understudy, System::Sentinel])]
    systems: Vec<System>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    program::run(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    let mut times = vec![Vec::new(); args.systems.len()];
    for run in 1..=args.runs {
        for (system, times) in args.systems.iter().zip(&mut times) {
            let time = rejoin::once(*system).await?;
            eprintln!("{} {run}/{}: {:.1} ms", system.name(), args.runs, time.as_secs_f64() * 1_000.0);
            times.push(time);
        }
    }
    let all: Vec<_> =
        args.systems.iter().zip(&times).map(|(system, times)| rejoin::Rejoin::of(*system, times)).collect();
    for figures in &all {
        println!("{}", serde_json::to_string(figures)?);
    }
    eprint!("\n{}", rejoin::table(&all));
    Ok(())
}
