//! The short form of `make chaos`: of Redis every kind of fault, drawn from one seed, of the other engines some failovers.

use anyhow::Result;
use config::Engine;
use std::time::Duration;
use understudy_tests::chaos::{Fault, Plan, Setup, run};

/// No round begins after this: with the end of the last one a minute and a half.
const TIME: Duration = Duration::from_secs(45);

#[test]
fn nothing_is_lost_in_chaos() -> Result<()> {
    let report = run(&Plan {
        seed: 11,
        faults: Fault::all().to_vec(),
        together: 3,
        failovers: u64::MAX,
        rounds: u64::MAX,
        time: TIME,
        clients: 16,
        setup: Setup::of(Engine::Redis),
        promises: Setup::of(Engine::Redis).promises(),
        loud: true,
    })?;
    println!("{report}");
    assert!(report.is_clean(), "{report}\n{}", report.story.join("\n"));
    Ok(())
}

/// As many failovers as the short form of an SQL engine sees, at the least.
const FAILOVERS: u64 = 2;

/// Each of these is a failover when it meets the master.
const SWIFT: [Fault; 5] = [Fault::KillDatabase, Fault::FreezeNode, Fault::Switchover, Fault::Isolate, Fault::KillNode];

fn some_failovers(engine: Engine, seed: u64) -> Result<()> {
    let setup = Setup::of(engine);
    let report = run(&Plan {
        seed,
        faults: SWIFT.to_vec(),
        together: 1,
        failovers: FAILOVERS,
        rounds: 4 * FAILOVERS,
        time: Duration::MAX,
        clients: 16,
        promises: setup.promises(),
        setup,
        loud: true,
    })?;
    println!("{report}");
    assert!(report.is_clean(), "{report}\n{}", report.story.join("\n"));
    assert!(report.failovers >= FAILOVERS, "{report}\n{}", report.story.join("\n"));
    Ok(())
}

#[test]
fn no_commit_is_lost_over_failovers_of_postgres() -> Result<()> {
    some_failovers(Engine::Postgres, 1)
}

#[test]
fn no_commit_is_lost_over_failovers_of_mariadb() -> Result<()> {
    some_failovers(Engine::Mariadb, 1)
}
