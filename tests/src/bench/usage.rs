//! What a process has used so far, told from `/proc`.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Linux's unit of processor time in `/proc`, on every platform it is built for today: 10 ms.
const TICK: Duration = Duration::from_millis(10);

/// What one process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time of all its threads.
    pub(crate) cpu: Duration,
    /// How often its threads have gone to sleep, so how often they were woken.
    pub(crate) sleeps: u64,
    /// Resident memory, in KiB.
    pub(crate) resident_kib: u64,
}

/// Finds the `understudy` process that was started in exactly this folder; its database works in another.
pub(crate) fn find(folder: &Path) -> Result<u32> {
    let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
    let entries = fs::read_dir("/proc").context("/proc")?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let in_folder = |pid: &u32| fs::read_link(process(*pid).join("cwd")).is_ok_and(|cwd| cwd == folder);
    let configured = |pid: &u32| {
        fs::read(process(*pid).join("cmdline")).is_ok_and(|line| line.split(|b| *b == 0).any(|w| w == b"--config"))
    };
    pids.find(|pid| in_folder(pid) && configured(pid))
        .with_context(|| format!("no agent or proxy works in {}", folder.display()))
}

impl Usage {
    /// Of a living process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let folder = process(pid);
        Ok(Self {
            cpu: cpu(&read(&folder.join("stat"))?).with_context(|| format!("/proc/{pid}/stat"))?,
            sleeps: sleeps(&folder)?,
            resident_kib: field(&read(&folder.join("status"))?, "VmRSS").context("VmRSS")?,
        })
    }
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// User and system time: the 14th and 15th field, counted from the process's number. The name in brackets before them
/// may itself hold brackets and spaces.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

fn sleeps(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(folder.join("task"))?.flatten() {
        // A thread may end between the two looks.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        sum += field(&status, "voluntary_ctxt_switches").unwrap_or_default();
    }
    Ok(sum)
}

/// The number after `name:`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1_750)));
    }

    #[test]
    fn one_finds_oneself() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 100, "{usage:?}");
    }
}
