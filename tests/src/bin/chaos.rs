//! Random faults upon real processes: `make chaos ENGINE=redis RUNS=3 SEED=1 FAULTS=kill-database,split`.

use clap::{Parser, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;
use understudy_tests::chaos::{Fault, Plan, Report, Setup, run};

/// Kills, freezes, cuts off and fills up a group of real processes under load, and judges what its clients were told.
#[derive(Debug, Parser)]
struct Arguments {
    /// The database.
    #[arg(long, value_enum, default_value_t = Engine::Redis)]
    engine: Engine,
    /// What may happen.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::all().to_vec(), hide_default_value = true)]
    faults: Vec<Fault>,
    /// How many runs, each with a group and a seed of its own.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The first run's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds of a run.
    #[arg(long, default_value_t = 12)]
    rounds: u64,
    /// Faults that overlap, at most.
    #[arg(long, default_value_t = 3)]
    together: u64,
    /// A run ends earlier when it has seen so many failovers.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    failovers: u64,
    /// How many clients.
    #[arg(long, default_value_t = 24)]
    clients: usize,
    /// The proxies only carry bytes, whatever the engine: with Redis, lost writes are expected.
    #[arg(long)]
    tcp: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Redis,
    Postgres,
    Mariadb,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    eprintln!("clocks are not stepped: this machine has one for all of its processes, ours and others");
    let mut reports = Vec::new();
    for seed in arguments.seed..arguments.seed + arguments.runs {
        eprintln!("seed {seed}");
        let report = run(&plan(&arguments, seed))?;
        println!("{report}");
        reports.push(report);
    }
    Ok(conclude(&reports))
}

fn plan(arguments: &Arguments, seed: u64) -> Plan {
    let engine = match arguments.engine {
        Engine::Redis => config::Engine::Redis,
        Engine::Postgres => config::Engine::Postgres,
        Engine::Mariadb => config::Engine::Mariadb,
    };
    let setup = if arguments.tcp { Setup::tcp(engine) } else { Setup::of(engine) };
    Plan {
        seed,
        faults: arguments.faults.clone(),
        together: arguments.together,
        failovers: arguments.failovers,
        rounds: arguments.rounds,
        time: Duration::MAX,
        clients: arguments.clients,
        promises: setup.promises(),
        setup,
        loud: true,
    }
}

fn conclude(reports: &[Report]) -> ExitCode {
    let failovers: u64 = reports.iter().map(|report| report.failovers).sum();
    let verdicts = || reports.iter().filter_map(|report| report.verdict.as_ref());
    let acknowledged: usize = verdicts().map(|verdict| verdict.acknowledged).sum();
    let lost: usize = verdicts().map(|verdict| verdict.lost.len()).sum();
    let failed: Vec<u64> = reports.iter().filter(|report| !report.is_clean()).map(|report| report.seed).collect();
    println!("{} runs, {failovers} failovers, {acknowledged} acknowledged writes, {lost} lost", reports.len());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("seeds that failed: {failed:?}");
    ExitCode::FAILURE
}
