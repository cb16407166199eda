//! What a proxy costs: redis-benchmark, pgbench or sysbench straight to a group's master, and to that same master through
//! each proxy.
//!
//! One JSON object a line on standard output, tables on standard error.

#[path = "../bench/numbers.rs"]
#[allow(dead_code, reason = "the spread of many runs is for the other benchmarks")]
mod numbers;
#[path = "../bench/program.rs"]
mod program;
#[path = "../bench/proxy/mod.rs"]
mod proxy;
#[path = "../bench/sql.rs"]
mod sql;
#[path = "../bench/usage.rs"]
#[allow(dead_code, reason = "sleeps, and finding a process by its folder, are bench-idle's")]
mod usage;

use anyhow::{Result, ensure};
use clap::{Parser, builder::PossibleValuesParser};
use config::Engine;
use proxy::{Front, Mode, Peer, Plan, cases};
use std::process::ExitCode;

/// Measures proxies.
#[derive(Debug, Parser)]
struct Args {
    /// What runs: redis, postgres or mariadb
    #[arg(long, default_value = "redis", value_parser = program::engine)]
    engine: Engine,
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The cases, all of the engine's when not said
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    cases: Vec<String>,
    /// Understudy's modes, of which those that do not carry the engine are left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Tcp, Mode::Redis, Mode::RedisDurable, Mode::Postgres])]
    modes: Vec<Mode>,
    /// The peers, of which those that do not carry the engine are left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Haproxy, Peer::Twemproxy])]
    peers: Vec<Peer>,
    /// Hundredths of the requests of a full run: a smaller number is quicker and says less
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    requests: u32,
}

fn main() -> ExitCode {
    program::run(measure(Args::parse()))
}

fn names() -> impl Iterator<Item = &'static str> {
    // Both engines of SQL have the same.
    [Engine::Redis, Engine::Postgres].into_iter().flat_map(cases).map(|case| case.name)
}

async fn measure(args: Args) -> Result<()> {
    let Args { engine, rounds, requests: percent, .. } = args;
    let chosen = |name: &str| args.cases.is_empty() || args.cases.iter().any(|case| case == name);
    let cases: Vec<_> = cases(engine).iter().filter(|case| chosen(case.name)).collect();
    ensure!(!cases.is_empty(), "none of these is a case of {}", engine.as_str());
    let peers = args.peers.into_iter().filter(|peer| peer.carries(engine)).map(Front::Peer);
    let modes = args.modes.into_iter().filter(|mode| mode.carries(engine)).map(Front::Understudy);
    let plan = Plan { engine, rounds, cases, fronts: peers.chain(modes).collect(), percent };
    let results = proxy::measure(&plan).await?;
    for line in results.lines() {
        println!("{}", serde_json::to_string(&line)?);
    }
    eprint!("\n{}\n{}", results.table(), results.targets());
    Ok(())
}
