//! The short form of `make chaos`: every kind of fault, drawn from one seed.

use anyhow::Result;
use std::time::Duration;
use understudy_tests::chaos::{Fault, Plan, Setup, run};
use understudy_tests::history::Promises;

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
        setup: Setup::redis(),
        promises: Promises { reads: true, order: true },
        loud: true,
    })?;
    println!("{report}");
    assert!(report.is_clean(), "{report}\n{}", report.story.join("\n"));
    Ok(())
}
