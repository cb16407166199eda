//! What a proxy costs: redis-benchmark straight to a group's master, and to that same master through each proxy.
//!
//! One JSON object a line on standard output, tables on standard error.

#[path = "../bench/numbers.rs"]
#[allow(dead_code, reason = "the spread of many runs is for the other benchmarks")]
mod numbers;
#[path = "../bench/program.rs"]
mod program;
#[path = "../bench/proxy/mod.rs"]
mod proxy;
#[path = "../bench/usage.rs"]
#[allow(dead_code, reason = "sleeps, and finding a process by its folder, are bench-idle's")]
mod usage;

use anyhow::Result;
use clap::{Parser, builder::PossibleValuesParser};
use proxy::{CASES, Front, Mode, Peer, Plan};
use std::process::ExitCode;

/// Measures proxies.
#[derive(Debug, Parser)]
struct Args {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The cases
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    cases: Vec<String>,
    /// Understudy's modes
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Tcp, Mode::Redis, Mode::RedisDurable])]
    modes: Vec<Mode>,
    /// The peers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Haproxy, Peer::Twemproxy])]
    peers: Vec<Peer>,
    /// Hundredths of the requests of a full run: a smaller number is quicker and says less
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    requests: u32,
}

fn main() -> ExitCode {
    program::run(measure(Args::parse()))
}

async fn measure(args: Args) -> Result<()> {
    let chosen = |name: &str| args.cases.is_empty() || args.cases.iter().any(|case| case == name);
    let plan = Plan {
        rounds: args.rounds,
        cases: CASES.iter().filter(|case| chosen(case.name)).collect(),
        fronts: args.peers.into_iter().map(Front::Peer).chain(args.modes.into_iter().map(Front::Understudy)).collect(),
        percent: args.requests,
    };
    let results = proxy::measure(&plan).await?;
    for line in results.lines() {
        println!("{}", serde_json::to_string(&line)?);
    }
    eprint!("\n{}\n{}", results.table(), results.targets());
    Ok(())
}
