//! What an idle group costs: entries in Consul's log, processor time, memory.

use super::numbers::tenth;
use super::usage::{Usage, find};
use anyhow::{Context, Result};
use cli::rig::{Rig, http, understudy_binary};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Any state that is waited for: a busy machine is slow, not wrong.
const LIMIT: Duration = Duration::from_secs(90);

const PROXY: &str = "proxy1";

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Idle {
    bench: &'static str,
    engine: &'static str,
    nodes: usize,
    seconds: f64,
    raft_entries_per_min: Entries,
    /// Of the costliest of the agents.
    agent: Cost,
    proxy: Cost,
}

/// Entries that were appended to Consul's log, a minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Entries {
    with: f64,
    without: f64,
    above: f64,
}

/// What a process used.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cost {
    cpu_s_per_min: f64,
    cpu_percent: f64,
    wakeups_per_s: f64,
    rss_mib: f64,
}

/// Everything that is measured, at one instant.
struct Reading {
    at: Instant,
    with: u64,
    without: u64,
    usages: Vec<Usage>,
}

/// Lets a group of three and a proxy idle for so long, beside a Consul of the same kind that nobody uses: so both are
/// measured in the same minute, on the same machine.
pub(crate) async fn measure(span: Duration) -> Result<Idle> {
    let alone = Rig::builder(understudy_binary()?).nodes(0).proxies(0).start_unready().await?;
    let rig = Rig::builder(understudy_binary()?).group("idle").start().await?;
    // Bootstrap, first copies, and the pause after them are no idling.
    rig.wait_calm(LIMIT).await?;
    rig.wait_whole(LIMIT).await?;
    let nodes = rig.node_names();
    let folders = nodes.iter().map(String::as_str).chain([PROXY]).map(|name| rig.folder().join(name));
    let pids = folders.map(|folder| find(&folder)).collect::<Result<Vec<u32>>>()?;
    let before = Reading::take(&rig, &alone, &pids).await?;
    tokio::time::sleep(span).await;
    let after = Reading::take(&rig, &alone, &pids).await?;
    rig.wait_whole(LIMIT).await?;
    Ok(Idle::of(nodes.len(), &before, &after))
}

impl Reading {
    async fn take(rig: &Rig, alone: &Rig, pids: &[u32]) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            with: last_log_index(&rig.consul_address()).await?,
            without: last_log_index(&alone.consul_address()).await?,
            usages: pids.iter().map(|pid| Usage::of(*pid)).collect::<Result<_>>()?,
        })
    }
}

impl Idle {
    fn of(nodes: usize, before: &Reading, after: &Reading) -> Self {
        let span = after.at - before.at;
        let a_minute = |from: u64, to: u64| tenth(to.saturating_sub(from) as f64 * 60.0 / span.as_secs_f64());
        let (with, without) = (a_minute(before.with, after.with), a_minute(before.without, after.without));
        let mut costs: Vec<Cost> =
            before.usages.iter().zip(&after.usages).map(|(from, to)| Cost::of(*from, *to, span)).collect();
        // The proxy comes last, see `measure`.
        let proxy = costs.pop().unwrap_or_default();
        let dearest = |a: &Cost, b: &Cost| a.cpu_s_per_min.total_cmp(&b.cpu_s_per_min);
        let largest = costs.iter().map(|cost| cost.rss_mib).fold(0.0, f64::max);
        let agent = costs.into_iter().max_by(dearest).unwrap_or_default();
        Self {
            bench: "idle",
            engine: "redis",
            nodes,
            seconds: tenth(span.as_secs_f64()),
            raft_entries_per_min: Entries { with, without, above: tenth(with - without) },
            agent: Cost { rss_mib: largest, ..agent },
            proxy,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let Entries { with, without, above } = &self.raft_entries_per_min;
        let mut text = format!(
            "An idle group of {} nodes with one proxy, for {} s.\nEntries a minute in Consul's log: {with} with it, \
             {without} in one beside it that nobody uses: {above} above.\n\n{:<10}{:>14}{:>14}{:>14}{:>12}\n",
            self.nodes, self.seconds, "PROCESS", "CPU s/min", "% OF A CORE", "WAKE-UPS/s", "RSS MiB"
        );
        for (name, cost) in [("agent", &self.agent), ("proxy", &self.proxy)] {
            let Cost { cpu_s_per_min, cpu_percent, wakeups_per_s, rss_mib } = cost;
            let _ = writeln!(
                text,
                "{name:<10}{cpu_s_per_min:>14.2}{cpu_percent:>14.2}{wakeups_per_s:>14.1}{rss_mib:>12.1}"
            );
        }
        text
    }
}

impl Cost {
    fn of(from: Usage, to: Usage, span: Duration) -> Self {
        let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64() / span.as_secs_f64();
        Self {
            cpu_s_per_min: hundredth(cpu * 60.0),
            cpu_percent: hundredth(cpu * 100.0),
            wakeups_per_s: tenth(to.sleeps.saturating_sub(from.sleeps) as f64 / span.as_secs_f64()),
            rss_mib: tenth(to.resident_kib as f64 / 1_024.0),
        }
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self { cpu_s_per_min: 0.0, cpu_percent: 0.0, wakeups_per_s: 0.0, rss_mib: 0.0 }
    }
}

fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The length of the log that Consul's servers agree on.
async fn last_log_index(consul: &str) -> Result<u64> {
    let url = format!("{consul}/v1/agent/self");
    let page: serde_json::Value = http().get(&url).send().await?.error_for_status()?.json().await?;
    let index = page["Stats"]["raft"]["last_log_index"].as_str().context("Consul does not tell its last_log_index")?;
    Ok(index.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, with: u64, without: u64, cpu: [u64; 3]) -> Reading {
        let usage =
            |ms: u64| Usage { cpu: Duration::from_millis(ms), sleeps: ms, resident_kib: 10_240 + 1_024 * (ms % 7) };
        Reading { at, with, without, usages: cpu.map(usage).to_vec() }
    }

    #[test]
    fn the_line_is_what_was_promised() {
        let at = Instant::now();
        let before = reading(at, 100, 50, [0, 0, 0]);
        let after = reading(at + Duration::from_secs(30), 103, 51, [90, 150, 30]);
        let line = serde_json::to_string(&Idle::of(2, &before, &after)).unwrap();
        assert_eq!(
            line,
            "{\"bench\":\"idle\",\"engine\":\"redis\",\"nodes\":2,\"seconds\":30.0,\
             \"raft_entries_per_min\":{\"with\":6.0,\"without\":2.0,\"above\":4.0},\
             \"agent\":{\"cpu_s_per_min\":0.3,\"cpu_percent\":0.5,\"wakeups_per_s\":5.0,\"rss_mib\":16.0},\
             \"proxy\":{\"cpu_s_per_min\":0.06,\"cpu_percent\":0.1,\"wakeups_per_s\":1.0,\"rss_mib\":12.0}}"
        );
    }
}
