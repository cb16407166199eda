//! Makes a copy that parted from the group's history into one again, while the server is down: saves what only it has,
//! winds it back, or clones it anew.
//!
//! A copy under construction could be mistaken for whole: before anything is destroyed the folder says so, and until the
//! server has come back with it a start throws it away.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use election::{Address, Nonce, Secret};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::history::{Own, file_name};
use super::link::Link;
use super::marker;
use super::program::Program;
use super::turn::{Turn, Turns};
use super::{FRESH, config, link, lsn, slots};
use crate::engine::account::Account;
use crate::engine::progress::Progress;
use crate::engine::supervise::{Handle, end_stragglers};
use crate::engine::{EngineError, KEPT, folder};

/// The file that says that a copy is not whole.
pub(super) const INCOMPLETE: &str = "incomplete";

/// So many of a tool's last lines tell why it failed.
const LAST_WORDS: usize = 3;

/// So many digits of the name of one of the log's files are its timeline; the others are its place.
const TIMELINE_DIGITS: usize = 8;

/// How long an orderly end may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) group: String,
    pub(super) program: Program,
    pub(super) account: Option<Account>,
    /// The instance's folder.
    pub(super) folder: PathBuf,
    /// The server's own.
    pub(super) data: PathBuf,
    /// Where this instance listens.
    pub(super) address: Address,
    pub(super) source: Address,
    /// The name of the password.
    pub(super) channel: Nonce,
    pub(super) secret: Secret,
    /// What it has that the source does not, to be saved.
    pub(super) tail: Option<Tail>,
    /// Whether winding back is worth a try.
    pub(super) rewind: bool,
}

/// What a copy has beyond the source's history.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    pub(super) own: Own,
    /// Where the histories parted, when that is known.
    pub(super) fork: Option<u64>,
    /// The epoch it was written in.
    pub(super) epoch: u64,
}

/// Does it. The server is down afterwards, and its folder holds a copy that takes the source's log to be whole. Whether the
/// source has a slot for it.
pub(super) async fn run(
    plan: Plan,
    server: Option<Handle>,
    turns: Turns,
    progress: Progress,
) -> Result<bool, EngineError> {
    // One that was given up may not have ended yet.
    let turn = turns.next().await;
    if let Some(mut server) = server {
        server.end(Signal::INT, STOP_LIMIT).await;
    }
    let ended = |folder: &Path| {
        end_stragglers(folder, Program::is_ours);
        Ok(())
    };
    turn.work("end what works in", &plan.folder, ended).await?;
    if let Some(tail) = plan.tail.clone() {
        turn.work("save the log in", &plan.folder, move |folder| save(&tail, folder)).await?;
    }
    let slot = link::answered(plan.reserve()).await.map_err(EngineError::sql("get a slot at the source"))?;
    plan.write(&plan.folder.join(INCOMPLETE), b"")?;
    let fresh = plan.folder.join(FRESH);
    folder::remove_for_good(&fresh).map_err(EngineError::io("remove", &fresh))?;
    let passfile = config::passfile(&plan.channel, plan.secret.reveal());
    plan.write(&plan.folder.join(config::PASSFILE), passfile.as_bytes())?;
    if plan.rewind {
        match plan.rewind(&progress).await {
            Ok(()) => {
                tracing::info!(group = plan.group, "the copy is wound back to where the histories parted");
                return plan.tidy(&turn).await.map(|()| slot);
            }
            Err(error) => tracing::info!(group = plan.group, "the copy cannot be wound back, and is cloned: {error}"),
        }
    }
    turn.work("remove", &plan.data, remove).await?;
    plan.clone_anew(slot, &progress).await?;
    plan.tidy(&turn).await.map(|()| slot)
}

impl Plan {
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        folder::write_private(path, bytes)?;
        self.account.as_ref().map_or(Ok(()), |account| account.own(path))
    }

    /// Sees that the source keeps what is written from here on.
    async fn reserve(&self) -> Result<bool, sqlx::Error> {
        let mut link = Link::remote(&self.source, marker::role_of(&self.secret), &self.secret).await?;
        slots::reserve(&mut link, &self.address, false).await
    }

    async fn rewind(&self, progress: &Progress) -> Result<(), EngineError> {
        let mut command = self.tool("pg_rewind");
        command.arg("--target-pgdata").arg(&self.data).arg("--source-server").arg(self.conninfo());
        if self.program.major >= 15 {
            command.arg("--config-file").arg(self.folder.join(config::MAIN));
        }
        self.run("pg_rewind", command, progress).await
    }

    async fn clone_anew(&self, slot: bool, progress: &Progress) -> Result<(), EngineError> {
        let mut command = self.tool("pg_basebackup");
        command.arg("--pgdata").arg(&self.data).arg("--dbname").arg(self.conninfo());
        command.args(["--wal-method=stream", "--checkpoint=fast", "--no-password"]);
        if slot {
            command.arg("--slot").arg(slots::name(&self.address));
        }
        self.run("pg_basebackup", command, progress).await
    }

    fn conninfo(&self) -> String {
        let (host, port, role) = (&self.source.host, self.source.port, marker::role_of(&self.secret));
        format!("host={host} port={port} user={role} dbname=postgres connect_timeout=5 {}", config::KEEPALIVES)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.program.path(name));
        // Below the data folder: that is how one left behind by a killed agent is found.
        command.current_dir(&self.folder).env("PGPASSFILE", self.folder.join(config::PASSFILE)).env("LC_ALL", "C");
        if let Some(account) = &self.account {
            account.run(&mut command);
        }
        command
    }

    /// Runs a tool to its end, and tells how far it is: each says so every second.
    async fn run(&self, op: &'static str, mut command: Command, progress: &Progress) -> Result<(), EngineError> {
        let program = PathBuf::from(command.as_std().get_program());
        let failed = |e| EngineError::io("run", &program)(e);
        command.arg("--progress").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let mut words = VecDeque::new();
        if let Some(said) = child.stderr.take() {
            let mut lines = BufReader::new(said).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match read_progress(&line) {
                    Some((bytes, of)) => {
                        progress.reach(bytes);
                        progress.expect(of);
                    }
                    None if line.trim().is_empty() => {}
                    None => words.push_back(line.trim().to_owned()),
                }
                if words.len() > LAST_WORDS {
                    words.pop_front();
                }
            }
        }
        if child.wait().await.map_err(failed)?.success() {
            return Ok(());
        }
        Err(EngineError::Refused { op, answer: words.make_contiguous().join(" | ") })
    }

    /// What came along from the source and is not this instance's.
    async fn tidy(&self, turn: &Turn) -> Result<(), EngineError> {
        forget_overrides(&self.data)?;
        own_all(turn, self.account.as_ref(), &self.data).await
    }
}

/// Gives everything in a folder to whom the server runs as.
pub(super) async fn own_all(turn: &Turn, account: Option<&Account>, folder: &Path) -> Result<(), EngineError> {
    let Some(account) = account.cloned() else { return Ok(()) };
    turn.work("hand over", folder, move |folder| account.own_all(folder)).await
}

/// Settings that were changed by SQL override every file: those are removed that the user's own file may not have.
pub(super) fn forget_overrides(data: &Path) -> Result<(), EngineError> {
    let path = data.join("postgresql.auto.conf");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(EngineError::io("read", &path)(e)),
    };
    let stays = |line: &&str| {
        let (name, value) = read_setting(line);
        ::config::check_postgres(name, value).is_ok()
    };
    let kept: Vec<&str> = text.lines().filter(stays).collect();
    if kept.len() == text.lines().count() {
        return Ok(());
    }
    fs::write(&path, kept.join("\n") + "\n").map_err(EngineError::io("write", &path))
}

/// `name = 'value' # remark`: the name and the value, both empty where the line has none.
fn read_setting(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let (name, rest) = line.split_at(line.find(['=', ' ', '\t', '#']).unwrap_or(line.len()));
    let rest = rest.trim_start_matches(['=', ' ', '\t']);
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => rest.split([' ', '\t', '#']).next(),
    };
    (name, value.unwrap_or_default())
}

/// Copies the files of the log that hold the tail, of whichever timeline: the histories may have parted before this one
/// began. While it is not known where, all are taken. They can be read with `pg_waldump`.
fn save(tail: &Tail, folder: &Path) -> Result<(), EngineError> {
    let to = folder.join(format!("{KEPT}{}", tail.epoch));
    let own = &tail.own;
    let place = |position| file_name(own.timeline, position, own.segment).split_off(TIMELINE_DIGITS);
    let held = place(tail.fork.unwrap_or_default())..=place(own.end);
    let is_of_tail = |name: &str| {
        let segment = name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit());
        name.ends_with(".history") || segment && held.contains(&name[TIMELINE_DIGITS..].to_owned())
    };
    folder::appear(&to, |new| {
        for entry in fs::read_dir(&own.wal)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_of_tail(&name) {
                folder::copy_synced(&entry.path(), &new.join(&name))?;
            }
        }
        let note = serde_json::json!({
            "system": own.system, "timeline": own.timeline, "parted_at": tail.fork.map(lsn::text), "end": lsn::text(own.end),
        });
        fs::write(new.join("tail.json"), note.to_string() + "\n")?;
        fs::File::open(new.join("tail.json"))?.sync_all()
    })
}

/// ` 123/4567 kB (2%), 0/1 tablespace`: what is done, and about what there is to do, in bytes.
pub(super) fn read_progress(line: &str) -> Option<(u64, u64)> {
    let (done, all) = line.split_once(" kB (")?.0.trim().split_once('/')?;
    let bytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(1024);
    Some((bytes(done)?, bytes(all)?))
}

/// Removes a folder, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), EngineError> {
    folder::remove_tree(path).map_err(EngineError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tools_progress_is_read() {
        assert_eq!(read_progress(" 123/4567 kB (2%), 0/1 tablespace"), Some((123 * 1024, 4567 * 1024)));
        assert_eq!(read_progress("   0/31458 kB (0%) copied"), Some((0, 31458 * 1024)));
        assert_eq!(read_progress("pg_basebackup: error: connection to server failed"), None);
        assert_eq!(read_progress("99999999999999999999/1 kB (0%)"), None);
    }

    #[test]
    fn what_sql_has_set_of_the_agents_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgresql.auto.conf");
        forget_overrides(dir.path()).unwrap();
        let kept = "# head\nwork_mem = '8MB'\nsynchronous_commit = 'remote_apply'\nmax_wal_senders 20 # more\n\n";
        let ours = "primary_conninfo = 'host=x'\nrecovery_target_time='now'\nsynchronous_commit = 'off'\n\
                    wal_level = minimal#\n  Max_Wal_Senders\t= '1'\n";
        fs::write(&path, kept.to_owned() + ours).unwrap();
        forget_overrides(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    }

    /// What is saved of a copy on timeline 3, whose log has files of four.
    fn saved(fork: Option<u64>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        let segment = 16 << 20;
        for (timeline, number) in [(1, 1), (2, 2), (2, 3), (3, 3), (3, 4), (3, 5), (4, 9)] {
            fs::write(wal.join(file_name(timeline, number * segment, segment)), "").unwrap();
        }
        for other in ["00000003.history", "000000020000000000000003.partial", "archive_status"] {
            fs::write(wal.join(other), "").unwrap();
        }
        let (address, receiving) = (Address::new("h", 1), false);
        let own = Own { system: "7".into(), timeline: 3, end: 4 * segment + 5, segment, wal, address, receiving };
        let tail = Tail { own, fork: fork.map(|files| files * segment + 9), epoch: 12 };
        save(&tail, dir.path()).unwrap();
        save(&tail, dir.path()).unwrap();
        let entries = fs::read_dir(dir.path().join("diverged-12")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_tail_is_saved_once_and_whole() {
        let last = ["00000003.history", "000000030000000000000004", "tail.json"];
        assert_eq!(saved(Some(4)), last);
        let earlier = ["000000020000000000000003", last[0], "000000030000000000000003", last[1], last[2]];
        assert_eq!(saved(Some(3)), earlier);
        let all = [&["000000010000000000000001", "000000020000000000000002"], &earlier[..]].concat();
        assert_eq!(saved(None), all, "where they parted is not known");
    }
}
