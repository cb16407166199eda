//! What a group costs while nothing happens, and whether it keeps calm while the machine is busy.
//!
//! One JSON object a line on standard output, tables on standard error.

#[path = "../bench/busy.rs"]
mod busy;
#[path = "../bench/idle.rs"]
mod idle;
#[path = "../bench/numbers.rs"]
#[allow(dead_code, reason = "the spread of many runs is for the other benchmarks")]
mod numbers;
#[path = "../bench/program.rs"]
mod program;
#[path = "../bench/usage.rs"]
mod usage;

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// Measures idling and false failovers.
#[derive(Debug, Parser)]
struct Args {
    /// How long the group idles, 0 to leave this out
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,
    /// How long the machine is kept busy, 0 to leave this out
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    busy: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    program::run(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    if args.idle > 0 {
        let idle = idle::measure(Duration::from_secs(args.idle)).await?;
        println!("{}", serde_json::to_string(&idle)?);
        eprintln!("{}", idle.table());
    }
    if args.busy > 0 {
        let busy = busy::measure(Duration::from_secs(args.busy * 60)).await?;
        println!("{}", serde_json::to_string(&busy)?);
        eprintln!("{}", busy.table());
    }
    Ok(())
}
