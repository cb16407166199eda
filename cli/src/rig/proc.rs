//! Which processes belong to a rig's folder, told from `/proc`.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A killed process is gone within milliseconds, unless it waits for a disk.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Sends a signal to a process; a process that is gone is none to complain about.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to several processes, in this order; one that is gone is none to complain about.
pub fn signal_all(pids: &[u32], what: Signal) {
    pids.iter().for_each(|pid| signal(*pid, what));
}

/// A process and all that it has started, and they: some servers are many processes. The first comes first, so that a
/// signal finds it before it can do anything about the end of the others.
pub fn family(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&one) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether the process works inside `folder`. Everything that a rig starts does, and nothing else: the folder's name
/// was drawn for it.
pub(super) fn works_in(pid: u32, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) && !is_zombie(pid)
}

/// Kills every process that works inside `folder` or has it on its command line, until none is left. Only for a
/// folder that was drawn for the caller's own processes, such as a `tempfile::TempDir`. What a killed PostgreSQL kept in
/// the system's shared memory goes too: only its own next start would remove it.
pub fn sweep(folder: &Path) {
    end_all(folder);
    lock_files(folder, 4).iter().filter_map(|file| memory(file)).for_each(|id| {
        let _ = Command::new("ipcrm").args(["-m", &id.to_string()]).stderr(Stdio::null()).status();
    });
}

/// The lock files of PostgreSQL servers at most `depth` folders below.
fn lock_files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let lock = folder.join("postmaster.pid");
    if depth == 0 || lock.exists() {
        return vec![lock];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.flat_map(|folder| lock_files(&folder.path(), depth - 1)).collect()
}

/// The id of a server's shared memory: its lock file's seventh line is `key id`.
fn memory(lock: &Path) -> Option<u64> {
    fs::read_to_string(lock).ok()?.lines().nth(6)?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn end_all(folder: &Path) {
    let deadline = Instant::now() + GONE_WITHIN;
    // A folder that was named through a link would match nobody.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    loop {
        let found: Vec<u32> = ours(&folder).collect();
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Wakes every process that works inside `folder`.
pub(super) fn wake(folder: &Path) {
    ours(folder).for_each(|pid| signal(pid, Signal::CONT));
}

fn ours(folder: &Path) -> impl Iterator<Item = u32> {
    let me = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != me && (works_in(*pid, folder) || names(*pid, folder)))
}

/// Whether the folder is on the process's command line, as a path of its own or the beginning of one.
fn names(pid: u32, folder: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let folder = folder.as_os_str().as_bytes();
    line.split(|b| *b == 0 || *b == b'=').any(|word| match word.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest[0] == b'/',
        None => false,
    })
}

/// Whether a process has ended: it is gone, or only waits to be collected by whoever started it.
pub(super) fn is_zombie(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The name in brackets may itself hold brackets and spaces.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::process::wait;
    use std::process::{Child, ExitStatus};

    #[test]
    fn a_sweep_ends_what_works_in_the_folder_and_nothing_else() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let start = |dir: &Path| Command::new("sleep").arg("600").current_dir(dir).spawn().unwrap();
        let (mut victim, mut other) = (start(inside.path()), start(outside.path()));
        sweep(inside.path());
        assert!(!ended(&mut victim).success());
        assert!(works_in(other.id(), &outside.path().canonicalize().unwrap()));
        other.kill().unwrap();
        ended(&mut other);
    }

    #[test]
    fn a_family_is_a_process_and_what_it_started() {
        let mut shell = Command::new("sh").args(["-c", "sleep 600; true"]).spawn().unwrap();
        until(|| family(shell.id()).len() == 2);
        let members = family(shell.id());
        assert_eq!(members[0], shell.id());
        signal_all(&members, Signal::KILL);
        shell.wait().unwrap();
    }

    #[test]
    fn a_sweep_finds_a_process_that_only_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "").unwrap();
        let mut child = Command::new("tail").arg("-f").arg(&file).current_dir("/").spawn().unwrap();
        // `spawn` returns as soon as the new program is in place, a moment before the kernel shows its command line.
        until(|| names(child.id(), folder.path()));
        sweep(folder.path());
        assert!(!ended(&mut child).success());
    }

    fn ended(child: &mut Child) -> ExitStatus {
        wait(child, 6 * GONE_WITHIN).unwrap().expect("it goes on")
    }

    fn until(reached: impl Fn() -> bool) {
        let deadline = Instant::now() + 6 * GONE_WITHIN;
        while !reached() {
            assert!(Instant::now() < deadline, "it never happened");
            thread::sleep(LOOK_AGAIN);
        }
    }
}
