//! No acknowledged commit of PostgreSQL and MariaDB is lost when a master is cut off together with its clients. And the
//! controls: the same harness convicts groups that wait for nobody, and commits whose wait somebody ends.

use anyhow::{Context, Result, ensure};
use config::Engine;
use std::time::{Duration, Instant};
use understudy_tests::chaos::{EndOfWaits, Setup, Stage, on_stage};
use understudy_tests::history::{Promises, Verdict};
use understudy_tests::real::LIMIT;

const CLIENTS: usize = 16;

/// Writes that show clients in full swing.
const SWING: u64 = 200;

/// Commits that were acknowledged to clients of a master that stands alone, or whose waits were ended there.
const SOME: u64 = 20;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What becomes of the commits that a cut-off master keeps waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nobody touches them.
    GoOn,
    /// There are none: it goes on acknowledging.
    AreNone,
    /// Somebody ends them.
    End,
}

/// The master and one proxy with its clients stand alone on their side, until the other side has gone on; then all is
/// healed. What the history shows.
async fn a_master_cut_off_with_its_clients(
    stage: &mut Stage<'_>,
    setup: &Setup,
    waits: Waits,
    promises: Promises,
) -> Result<Verdict> {
    let cast = stage.whole(LIMIT).await?;
    let load = stage.load(CLIENTS)?;
    load.wait_for(SWING, LIMIT).await?;
    let lonely = [cast.master.as_str(), "proxy1"];
    let others: Vec<&str> = stage.machines().into_iter().filter(|machine| !lonely.contains(machine)).collect();
    stage.net.cut(&lonely, &others)?;
    stage.taken_over(&cast.master, LIMIT).await?;
    match waits {
        Waits::GoOn => {}
        Waits::AreNone => load.wait_at(0, SOME, LIMIT).await.context("at the master that stands alone")?,
        Waits::End => end_waits(&EndOfWaits::at(stage.rig.database_addr(&cast.master)?, setup)).await?,
    }
    load.wait_at(1, SWING, LIMIT).await.context("after the takeover")?;
    stage.heal()?;
    // What a master committed alone can keep a MariaDB from coming back until an operator says `reinit`.
    if waits != Waits::AreNone {
        stage.whole(2 * LIMIT).await?;
    }
    load.wait_for(SWING, LIMIT).await.context("after all was healed")?;
    let verdict = stage.judge(load, promises).await?;
    println!("{verdict}");
    Ok(verdict)
}

async fn end_waits(somebody: &EndOfWaits) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while somebody.ended() < SOME {
        ensure!(Instant::now() < deadline, "waits that were ended: {}", somebody.ended());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn loses_nothing(setup: &Setup, waits: Waits) -> Result<()> {
    on_stage(setup, async |stage| {
        let verdict = a_master_cut_off_with_its_clients(stage, setup, waits, setup.promises()).await?;
        ensure!(verdict.is_clean(), "{verdict}\n{}", stage.rig.logs());
        Ok(())
    })
}

/// A control: whoever loses nothing here has not looked.
fn is_convicted(setup: &Setup, waits: Waits) -> Result<()> {
    on_stage(setup, async |stage| {
        let verdict = a_master_cut_off_with_its_clients(stage, setup, waits, Promises::default()).await?;
        ensure!(!verdict.lost.is_empty(), "the harness is blind: {verdict}");
        Ok(())
    })
}

#[test]
fn a_listener_of_postgres_passes_no_success_of_an_ended_wait_on() -> Result<()> {
    loses_nothing(&Setup::of(Engine::Postgres), Waits::End)
}

/// Control: the listener only carries bytes.
#[test]
fn lost_commits_are_found_when_waits_of_postgres_are_ended() -> Result<()> {
    is_convicted(&Setup::tcp(Engine::Postgres), Waits::End)
}

/// Control: every session asks for less.
#[test]
fn lost_commits_are_found_when_sessions_of_postgres_do_not_wait() -> Result<()> {
    let mut setup = Setup::of(Engine::Postgres);
    setup.store.greeting = Some("SET synchronous_commit = off".to_owned());
    is_convicted(&setup, Waits::AreNone)
}

#[test]
fn a_mariadb_that_is_cut_off_with_its_clients_acknowledges_nothing() -> Result<()> {
    loses_nothing(&Setup::of(Engine::Mariadb), Waits::GoOn)
}

/// Control: `KILL QUERY` is answered with a success.
#[test]
fn lost_commits_are_found_when_waits_of_mariadb_are_ended() -> Result<()> {
    is_convicted(&Setup::of(Engine::Mariadb), Waits::End)
}

/// Control: nobody waits.
#[test]
fn lost_commits_are_found_in_an_async_group_of_mariadb() -> Result<()> {
    is_convicted(&Setup { is_async: true, ..Setup::of(Engine::Mariadb) }, Waits::AreNone)
}
