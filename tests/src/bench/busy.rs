//! Whether a machine whose cores are all kept busy is taken for a dead one.

use super::numbers::tenth;
use anyhow::{Context, Result};
use cli::rig::{Rig, understudy_binary};
use serde::Serialize;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Any state that is waited for: a busy machine is slow, not wrong.
const LIMIT: Duration = Duration::from_secs(90);

/// Threads for each core: so each core always has one more waiting than it can run.
const SPINNERS_A_CORE: usize = 2;

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Busy {
    bench: &'static str,
    engine: &'static str,
    minutes: f64,
    cores: usize,
    spinners: usize,
    false_failovers: u64,
    /// Changes of the record, failovers or not: a hot replica that was dropped and certified again is two.
    record_writes: u64,
    acked: usize,
    lost: usize,
    longest_gap_ms: f64,
}

/// Lets a group of three serve a writing client for so long while every core is kept busy by threads of ordinary
/// priority. Nothing fails, so every failover is a false one.
pub(crate) async fn measure(span: Duration) -> Result<Busy> {
    let rig = Rig::builder(understudy_binary()?).group("busy").start().await?;
    // In the pause after the first election suspicion starts nothing: that would flatter.
    rig.wait_calm(LIMIT).await?;
    rig.wait_whole(LIMIT).await?;
    let before = stamp(&rig).await?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let spinners = Spinners::start(cores * SPINNERS_A_CORE);
    let mut writer = rig.writer("busy");
    let begun = Instant::now();
    tokio::time::sleep(span).await;
    let after = stamp(&rig).await?;
    writer.stop();
    let longest = writer.longest_gap(begun).unwrap_or(span);
    drop(spinners);
    rig.wait_whole(LIMIT).await?;
    let lost = writer.missing(rig.proxy_addr()).await?.len();
    Ok(Busy {
        bench: "busy",
        engine: "redis",
        minutes: tenth(span.as_secs_f64() / 60.0),
        cores,
        spinners: cores * SPINNERS_A_CORE,
        false_failovers: after.epoch.saturating_sub(before.epoch),
        record_writes: after.seq.saturating_sub(before.seq),
        acked: writer.acked(),
        lost,
        longest_gap_ms: tenth(longest.as_secs_f64() * 1_000.0),
    })
}

impl Busy {
    /// The table.
    pub(crate) fn table(&self) -> String {
        format!(
            "A group of three nodes under a client that writes every 5 ms, for {} min, with {} threads that keep {} \
             cores busy.\n\n{:>16}{:>16}{:>10}{:>8}{:>20}\n{:>16}{:>16}{:>10}{:>8}{:>20.1}\n",
            self.minutes,
            self.spinners,
            self.cores,
            "FALSE FAILOVERS",
            "RECORD WRITES",
            "ACKED",
            "LOST",
            "LONGEST GAP ms",
            self.false_failovers,
            self.record_writes,
            self.acked,
            self.lost,
            self.longest_gap_ms
        )
    }
}

async fn stamp(rig: &Rig) -> Result<election::Stamp> {
    let group = rig.store()?.group(rig.group()).await?;
    Ok(group.view.record.context("a whole group has a record")?.0.stamp())
}

/// Threads that do nothing, as fast as they can, until this is dropped.
struct Spinners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |stop: Arc<AtomicBool>| {
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..count).map(|_| spin(stop.clone())).collect();
        Self { stop, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
