//! What stands where in the data folder, and what has to happen to it before a server is started on it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use election::LogPlace;
use rustix::fs::FlockOperation;
use tokio::process::Command;
use tracing::info;

use super::program::{self, Program};
use super::{LOG, copy};
use crate::engine::folder::{self, remove_file, remove_tree};
use crate::engine::setup::Setup;
use crate::engine::{EngineError, KEPT};

/// The server's own folder. No schema's folder has a `-` in its name.
pub(super) const SERVER: &str = "mysql-data";

/// A new one that is being made.
const NEW: &str = "mysql-data.new";

/// Data whose place a copy has taken.
pub(super) const OLD: &str = "mysql-data.old";

/// There while the entries of an adopted folder are moved.
const ADOPTING: &str = "understudy.adopting";

/// There until a server that was made here has run once.
pub(super) const FRESH: &str = "understudy.fresh";

/// The generated files.
pub(super) const SETTINGS: &str = "mariadb.cnf";
pub(super) const INIT: &str = "mariadb-init.sql";
pub(super) const BACKUP_SETTINGS: &str = "mariadb-backup.cnf";

/// How many files of the binary log, its last, are kept of a former master.
const KEPT_LOGS: usize = 2;

/// Of so many files of the binary log before the last it is told how large they are: a copy that is further behind than
/// that is behind by files, not bytes.
const SHOWN_LOGS: usize = 4;

/// Where the flags of a binary log's first event stand, and the one that is there until it is closed in an orderly way.
const FLAGS_AT: u64 = 21;
const IN_USE: u8 = 1;

/// What becomes of a copy that was fetched whole, when a server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// It takes the data's place: the instance was told to follow.
    Replaces,
    /// It waits until then; unless it was taking the data's place already.
    Waits,
}

impl Setup {
    /// Says that the entries of this folder are to be moved; before it is ours, so that a crash in between is met again.
    pub(super) fn begin_adoption(&self) -> Result<(), EngineError> {
        let is_data = self.data_dir.join("ibdata1").is_file() && self.data_dir.join("mysql").is_dir();
        if !is_data && !self.data_dir.join(ADOPTING).exists() {
            return Err(EngineError::Folder {
                path: self.data_dir.clone(),
                why: "has no data of MariaDB to adopt (no `ibdata1`, no folder `mysql`): nothing was touched"
                    .to_owned(),
            });
        }
        if is_data && is_in_use(&self.data_dir.join("ibdata1")) {
            return Err(EngineError::Folder {
                path: self.data_dir.clone(),
                why: "is to be adopted, but a server still runs on it: nothing was touched. Shut that server down, and see \
                      that nothing starts it again"
                    .to_owned(),
            });
        }
        folder::write_private(&self.data_dir.join(ADOPTING), b"")
    }

    /// Brings to an end what a crash has interrupted: an adoption, a copy that was taking the data's place.
    pub(super) async fn settle(&self, program: &Program, copy: Fetched) -> Result<(), EngineError> {
        self.adopt_entries()?;
        // Large data take a while to be removed.
        let folder = self.data_dir.clone();
        let settled = tokio::task::spawn_blocking(move || settle(&folder, copy)).await;
        settled.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(EngineError::io("settle", &self.data_dir))?;
        self.check_version(program)
    }

    fn adopt_entries(&self) -> Result<(), EngineError> {
        let mark = self.data_dir.join(ADOPTING);
        if !mark.exists() {
            return Ok(());
        }
        let moved = || -> io::Result<()> {
            let server = self.server_folder();
            if !server.exists() {
                fs::DirBuilder::new().mode(0o700).create(&server)?;
            }
            for entry in fs::read_dir(&self.data_dir)? {
                let name = entry?.file_name();
                let text = name.to_string_lossy();
                let ours = [SERVER, ADOPTING, FRESH, folder::IDENTITY, LOG, "lost+found"].contains(&&*text)
                    || text.starts_with(KEPT);
                if !ours {
                    fs::rename(self.data_dir.join(&name), server.join(&name))?;
                }
            }
            Ok(())
        };
        moved().map_err(EngineError::io("adopt", &self.data_dir))?;
        if let Some(account) = &self.account {
            account.own_all(&self.server_folder())?;
        }
        info!(group = self.group, folder = %self.data_dir.display(), "adopted the data of a server that stood here");
        fs::remove_file(&mark).map_err(EngineError::io("remove", &mark))
    }

    /// Data of a newer series cannot be read, and that of an older one has to be upgraded by its owner.
    fn check_version(&self, program: &Program) -> Result<(), EngineError> {
        let written = ["mysql_upgrade_info", "mariadb_upgrade_info"]
            .iter()
            .find_map(|name| fs::read_to_string(self.server_folder().join(name)).ok())
            .and_then(|text| program::series_of(&text));
        match (written, program.series()) {
            (Some(data), Some(server)) if data > server => Err(EngineError::Folder {
                path: self.data_dir.clone(),
                why: format!(
                    "was written by MariaDB {}.{}, and the server here is {}.{}: install the newer one, or set `bin`",
                    data.0, data.1, server.0, server.1
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The server has run, and its accounts are made: passwords stand in what it was started with.
    pub(super) fn forget_start(&self) -> Result<(), EngineError> {
        [FRESH, INIT]
            .map(|name| self.data_dir.join(name))
            .iter()
            .try_for_each(|file| remove_file(file).map_err(EngineError::io("remove", file)))
    }

    /// Makes a new, empty data set; it gets its name when it is whole.
    pub(super) async fn install(&self, program: &Program) -> Result<(), EngineError> {
        let (new, fresh) = (self.data_dir.join(NEW), self.data_dir.join(FRESH));
        let make = || -> io::Result<()> { fs::DirBuilder::new().mode(0o700).create(&new) };
        make().map_err(EngineError::io("make", &new))?;
        folder::write_private(&fresh, b"")?;
        if let Some(account) = &self.account {
            account.own(&new)?;
            account.reaches(&new)?;
        }
        let mut command = Command::new(&program.install);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", new.display()))
            // No account without a password, none for guests; the system's root may log in over the socket.
            .args(["--auth-root-authentication-method=socket", "--auth-root-socket-user=root", "--skip-test-db"])
            .current_dir(&new)
            // A server that starts clears the folder of temporary tables: in the usual one those of others, as they are used.
            .env("TMPDIR", &new)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(account) = &self.account {
            account.run(&mut command);
        }
        let output = command.output().await.map_err(EngineError::io("run", &program.install))?;
        if !output.status.success() {
            let words = [output.stderr, output.stdout].concat();
            let text = String::from_utf8_lossy(&words);
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            let last = &lines[lines.len().saturating_sub(4)..];
            return Err(EngineError::StartFailed {
                why: format!("{} failed: {}", program.install.display(), last.join(" | ")),
            });
        }
        let server = self.server_folder();
        let name = || -> io::Result<()> {
            rustix::fs::syncfs(fs::File::open(&new)?)?;
            fs::rename(&new, &server)?;
            fs::File::open(&self.data_dir)?.sync_all()
        };
        name().map_err(EngineError::io("name", &server))
    }
}

fn settle(folder: &Path, copy: Fetched) -> io::Result<()> {
    let at = |name: &str| folder.join(name);
    remove_tree(&at(copy::UNDER_WAY))?;
    remove_tree(&at(NEW))?;
    if at(copy::WHOLE).exists() && (copy == Fetched::Replaces || !at(SERVER).exists()) {
        if at(SERVER).exists() {
            remove_tree(&at(OLD))?;
            fs::rename(at(SERVER), at(OLD))?;
        }
        fs::rename(at(copy::WHOLE), at(SERVER))?;
        fs::File::open(folder)?.sync_all()?;
        remove_file(&at(FRESH))?;
    }
    remove_tree(&at(OLD))
}

/// Whether a server has the lock that InnoDB takes on its first file.
fn is_in_use(file: &Path) -> bool {
    let opened = fs::OpenOptions::new().read(true).write(true).open(file);
    let locked = opened.map(|file| rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive));
    matches!(locked, Ok(Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS)))
}

/// Whether the server's last run did not close its binary log. Without one there is nothing to decide.
pub(super) fn ended_badly(server: &Path) -> bool {
    let Some(last) = logs(server, 1).pop() else { return false };
    let mut flags = [0];
    let read = fs::File::open(&last).and_then(|log| log.read_exact_at(&mut flags, FLAGS_AT));
    read.is_ok() && flags[0] & IN_USE != 0
}

/// The last files of the binary log, the newest first. There may be thousands.
fn logs(server: &Path, most: usize) -> Vec<PathBuf> {
    let index = fs::read_to_string(server.join("binlog.index")).unwrap_or_default();
    let names = index.lines().rev().filter_map(|line| Path::new(line.trim()).file_name());
    names.map(|name| server.join(name)).filter(|path| path.is_file()).take(most).collect()
}

/// Where the binary log ends, with how large the files before are. Looked up on disk: the server would not answer while a
/// write waits for room.
pub(super) fn log_end(server: &Path) -> Option<LogPlace> {
    let logs = logs(server, SHOWN_LOGS + 1);
    let size = |path: &PathBuf| fs::metadata(path).ok().map(|found| found.len());
    let (last, before) = logs.split_first()?;
    let before = before.iter().map_while(size).collect();
    Some(LogPlace { file: log_number(last.file_name()?.to_str()?)?, offset: size(last)?, before })
}

/// The number in the name of a file of a log.
pub(super) fn log_number(name: &str) -> Option<u64> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// Copies the last files of the binary log into `to`, which appears whole or not at all.
pub(super) fn keep_log(data_dir: &Path, to: &Path) -> Result<(), EngineError> {
    let mut picked = to.as_os_str().to_owned();
    picked.push(".pick");
    let picked = PathBuf::from(picked);
    let pick = || -> io::Result<()> {
        remove_tree(&picked)?;
        fs::DirBuilder::new().mode(0o700).create(&picked)?;
        for log in logs(&data_dir.join(SERVER), KEPT_LOGS) {
            if let Some(name) = log.file_name() {
                fs::hard_link(&log, picked.join(name))?;
            }
        }
        Ok(())
    };
    pick().map_err(EngineError::io("copy from", data_dir))?;
    folder::keep(&picked, to)?;
    remove_tree(&picked).map_err(EngineError::io("remove", &picked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orderly_end_is_told_from_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!ended_badly(dir.path()));
        fs::write(dir.path().join("binlog.index"), "./binlog.000001\n/elsewhere/binlog.000002\n").unwrap();
        let mut log = vec![0; 300];
        fs::write(dir.path().join("binlog.000001"), &log).unwrap();
        log[21] = IN_USE;
        fs::write(dir.path().join("binlog.000002"), &log).unwrap();
        assert!(ended_badly(dir.path()));
        log[21] = 0;
        fs::write(dir.path().join("binlog.000002"), &log).unwrap();
        assert!(!ended_badly(dir.path()));
    }

    #[test]
    fn the_end_of_the_log_is_its_last_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(log_end(dir.path()), None);
        fs::write(dir.path().join("binlog.index"), "./binlog.000009\n./binlog.000010\n").unwrap();
        fs::write(dir.path().join("binlog.000009"), [0; 300]).unwrap();
        fs::write(dir.path().join("binlog.000010"), [0; 20]).unwrap();
        assert_eq!(log_end(dir.path()), Some(LogPlace { file: 10, offset: 20, before: vec![300] }));
        assert_eq!((log_number("binlog.000010"), log_number("binlog"), log_number("")), (Some(10), None, None));
    }

    #[test]
    fn a_copy_takes_the_datas_place_when_it_is_told_to_or_had_begun_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let holds = |name: &str| fs::read_to_string(at(name).join("who")).ok();
        let make = |name: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("who"), name).unwrap();
        };
        for name in [SERVER, copy::WHOLE, copy::UNDER_WAY] {
            make(name);
        }
        settle(dir.path(), Fetched::Waits).unwrap();
        assert_eq!((holds(SERVER).as_deref(), holds(copy::UNDER_WAY)), (Some(SERVER), None));
        assert_eq!(holds(copy::WHOLE).as_deref(), Some(copy::WHOLE), "it waits");
        settle(dir.path(), Fetched::Replaces).unwrap();
        assert_eq!((holds(SERVER).as_deref(), holds(OLD)), (Some(copy::WHOLE), None));
        // A crash between the two renames.
        fs::rename(at(SERVER), at(OLD)).unwrap();
        make(copy::WHOLE);
        settle(dir.path(), Fetched::Waits).unwrap();
        assert_eq!((holds(SERVER).as_deref(), holds(OLD)), (Some(copy::WHOLE), None));
    }

    #[test]
    fn the_last_files_of_the_log_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join(SERVER);
        fs::create_dir(&server).unwrap();
        let names = ["binlog.000001", "binlog.000002", "binlog.000003"];
        fs::write(server.join("binlog.index"), names.map(|n| format!("./{n}\n")).concat()).unwrap();
        names.iter().for_each(|name| fs::write(server.join(name), name).unwrap());
        let to = dir.path().join("diverged-4");
        keep_log(dir.path(), &to).unwrap();
        assert!(!to.join(names[0]).exists());
        assert_eq!(fs::read(to.join(names[2])).unwrap(), names[2].as_bytes());
        assert_eq!(folder::kept(dir.path(), KEPT), Some(4));
    }
}
