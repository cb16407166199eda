//! Programs on PATH, and the last lines of logs.

use super::error::RigError;
use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Enough to see why a process ended, little enough to read.
const TAIL_LINES: usize = 25;

/// No 25 lines of ours are longer.
const TAIL_BYTES: u64 = 16 * 1024;

/// The `understudy` program that belongs to the running test or benchmark: the one that UNDERSTUDY_BIN names, else the
/// one that cargo built beside it. `cargo build -p understudy` builds it; the profile must be the same.
pub fn understudy_binary() -> Result<PathBuf, RigError> {
    if let Some(named) = env::var_os("UNDERSTUDY_BIN") {
        return Ok(PathBuf::from(named));
    }
    let missing = RigError::Missing {
        program: "understudy",
        how: "build it with `cargo build -p understudy` in the same profile, or name it in UNDERSTUDY_BIN",
    };
    let me = env::current_exe().map_err(|source| RigError::File { path: PathBuf::from("/proc/self/exe"), source })?;
    // Tests are built one folder deeper than programs.
    let folders = me.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("understudy")).find(|candidate| is_program(candidate)).ok_or(missing)
}

/// Where a program is, by PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The last lines of every log in the folder, each under its name.
pub(super) fn tails(folder: &Path) -> String {
    let mut logs: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    logs.sort();
    logs.iter().map(|log| format!("--- {}\n{}\n", name_of(log), tail(log))).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn tail(log: &Path) -> String {
    let text = read_end(log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_end(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
        fs::write(folder.path().join("a.log"), lines.join("\n")).unwrap();
        let shown = tails(folder.path());
        assert!(shown.starts_with("--- a.log\n76\n") && shown.ends_with("\n100\n"), "{shown}");
    }

    #[test]
    fn a_program_is_found_by_path() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-anywhere").is_none());
    }
}
