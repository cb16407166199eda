//! How soon a killed master is back as a copy.

use super::bench::numbers::Spread;
use super::bench::sentinel::by_sentinel;
use super::bench::sentinel_rig::{SentinelRig, ask_master};
use super::bench::{LIMIT, System, warm};
use agent::api::AgentStatus;
use anyhow::{Context, Result, bail};
use cli::rig::{Rig, Writer, http, understudy_binary};
use election::Role;
use serde::Serialize;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A tenth of what is measured at the least, and no load.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The figures of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rejoin {
    bench: &'static str,
    system: &'static str,
    engine: &'static str,
    runs: usize,
    rejoin_ms: Spread,
}

impl Rejoin {
    pub(crate) fn of(system: System, times: &[Duration]) -> Self {
        Self {
            bench: "rejoin",
            system: system.name(),
            engine: "redis",
            runs: times.len(),
            rejoin_ms: Spread::of(times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect()),
        }
    }
}

/// The table.
pub(crate) fn table(all: &[Rejoin]) -> String {
    let mut text = String::from(
        "Milliseconds until a master's Redis that was killed under a writing client is a copy again, its link up.\n\
         Understudy: from the kill on; its agent starts it again by itself, and says that the copy is whole.\n\
         Sentinel: from when it is started again, by hand, once another is master; its INFO says so.\n\n",
    );
    let _ = writeln!(text, "{:<12}{:>5}{:>10}{:>10}{:>10}", "SYSTEM", "RUNS", "MIN", "MEDIAN", "MAX");
    for Rejoin { system, runs, rejoin_ms: Spread { min, median, max }, .. } in all {
        let _ = writeln!(text, "{system:<12}{runs:>5}{min:>10.1}{median:>10.1}{max:>10.1}");
    }
    text
}

/// One run.
pub(crate) async fn once(system: System) -> Result<Duration> {
    match system {
        System::Understudy => understudy().await,
        System::Sentinel => sentinel().await,
        System::Patroni => bail!("this is measured with Redis, which Patroni does not know"),
    }
}

async fn understudy() -> Result<Duration> {
    let rig = Rig::builder(understudy_binary()?).group("bench").start().await?;
    let status = rig.wait_whole(LIMIT).await?;
    let old = status.active_master().context("a whole group has a master")?.to_owned();
    let agent = rig.agent_http(&old)?;
    let writer = rig.writer("bench");
    warm(&writer).await?;
    let at = rig.kill_database(&old)?;
    until("the killed master to be a copy", || is_copy(agent)).await.with_context(|| rig.logs())?;
    Ok(at.elapsed())
}

/// Whether the node's agent says that it has a copy that is whole and fed, and certified if it is the hot replica.
async fn is_copy(agent: SocketAddr) -> Result<bool> {
    let page: AgentStatus = http().get(format!("http://{agent}/status")).send().await?.json().await?;
    let copy = |role| matches!(role, Some(Role::Replica | Role::Spare));
    Ok(page.instances.iter().any(|instance| copy(instance.role) && instance.healthy))
}

async fn sentinel() -> Result<Duration> {
    let mut rig = SentinelRig::start().await?;
    let (old, sentinels) = (rig.redis_addr(0), rig.sentinels());
    let writer = Writer::start("bench", by_sentinel(sentinels.clone()));
    warm(&writer).await?;
    rig.kill_redis(0);
    // Back before the Sentinels have acted it would be master again, and nothing would have to rejoin.
    until("another master", async || Ok(ask_master(sentinels[1])? != old)).await?;
    let at = Instant::now();
    rig.restart_redis(0)?;
    rig.wait_for_new_master(old, LIMIT).await?;
    Ok(at.elapsed())
}

/// Waits for a state; while it cannot be asked for, it does not hold.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = match holds().await {
            Ok(true) => return Ok(()),
            Ok(false) => "it does not hold".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}: {seen}", LIMIT.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_what_was_promised() {
        let times = [2_000, 1_000, 4_500].map(Duration::from_millis);
        let line = serde_json::to_string(&Rejoin::of(System::Understudy, &times)).unwrap();
        assert_eq!(
            line,
            "{\"bench\":\"rejoin\",\"system\":\"understudy\",\"engine\":\"redis\",\"runs\":3,\
             \"rejoin_ms\":{\"min\":1000.0,\"median\":2000.0,\"max\":4500.0}}"
        );
    }
}
