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
#[path = "../bench/usage.rs"]
mod usage;

use anyhow::{Result, bail};
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
    cli::install_tls_provider();
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(interruptible(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("bench-idle: {error:#}");
    ExitCode::FAILURE
}

/// Ctrl-c ends every process that was started, too.
async fn interruptible(args: &Args) -> Result<()> {
    tokio::select! {
        result = measure(args) => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
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
