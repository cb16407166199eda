//! Which programs are run, and which version the server is.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::engine::EngineError;

/// The server, and where Debian keeps it, which is not on the PATH of every user.
const SERVER: &str = "mariadbd";
const SYSTEM: &str = "/usr/sbin";

/// What would do in place of a program that cannot be used.
const WANTED: &str = "a mariadbd >= 10.6.19, 10.11.9 or 11.4.3";

/// The first releases of each series that can be told at their start to roll back what nobody has acknowledged
/// (`--init-rpl-role=SLAVE`), and otherwise keep what a replica may have. A series that is not here is refused when it is
/// older than the last one.
const LEAST: [(u32, u32, u32); 4] = [(10, 6, 19), (10, 11, 9), (11, 2, 5), (11, 4, 3)];

/// A program that does not tell its version within this is no server.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// The programs of one installation.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) server: PathBuf,
    pub(super) version: String,
    /// Makes a new data folder.
    pub(super) install: PathBuf,
    /// Copies a running server, and makes the copy whole.
    pub(super) backup: PathBuf,
    /// Unpacks a copy.
    pub(super) unpack: PathBuf,
}

impl Program {
    /// Finds them and asks the server's version.
    pub(super) async fn find(bin: Option<&Path>) -> Result<Self, EngineError> {
        let server = match bin {
            Some(file) if !file.is_dir() => file.to_owned(),
            _ => locate(bin, &[SERVER], "mariadb-server")?,
        };
        let beside = bin.and(server.parent());
        let version = version_of(&server).await?;
        Ok(Self {
            install: locate(beside, &["mariadb-install-db", "mysql_install_db"], "mariadb-server")?,
            backup: locate(beside, &["mariadb-backup", "mariabackup"], "mariadb-backup")?,
            unpack: locate(beside, &["mbstream"], "mariadb-backup")?,
            server,
            version,
        })
    }

    /// Whether a running program is a server that this agent may take over.
    pub(super) fn is_server(&self, exe: &Path) -> bool {
        // An upgrade appends " (deleted)".
        let named = exe.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with(SERVER));
        named || self.server.canonicalize().is_ok_and(|path| path == exe)
    }

    /// Major and minor number, which name the format of the data.
    pub(super) fn series(&self) -> Option<(u32, u32)> {
        numbers(&self.version).map(|(major, minor, _)| (major, minor))
    }
}

/// In the folder first, then on PATH.
fn locate(folder: Option<&Path>, names: &[&str], install: &'static str) -> Result<PathBuf, EngineError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        folder.map(Path::to_owned).into_iter().chain(env::split_paths(&path)).chain([PathBuf::from(SYSTEM)]).collect();
    let found = names.iter().find_map(|name| folders.iter().map(|f| f.join(name)).find(|p| p.is_file()));
    found.ok_or_else(|| EngineError::ProgramMissing { looked: format!("{} in PATH", names.join(" or ")), install })
}

async fn version_of(path: &Path) -> Result<String, EngineError> {
    let unusable = |why: String| EngineError::Program { path: path.to_owned(), why, wanted: WANTED };
    let asked = Command::new(path).args(["--no-defaults", "--version"]).kill_on_drop(true).output();
    let output = match tokio::time::timeout(VERSION_LIMIT, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(unusable(format!("it does not run ({e})"))),
        Err(_) => return Err(unusable("it does not tell its version".to_owned())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default().trim();
    let version = parse_version(first).ok_or_else(|| unusable(format!("its `--version` says `{first}`")))?;
    if is_new_enough(&version) { Ok(version) } else { Err(unusable(format!("it is MariaDB {version}"))) }
}

/// `mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)`
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Ver ")?;
    let word = rest.split_whitespace().next()?;
    word.contains("MariaDB").then(|| word.split('-').next().map(str::to_owned))?
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn is_new_enough(version: &str) -> bool {
    let Some((major, minor, patch)) = numbers(version) else { return false };
    match LEAST.iter().find(|(a, b, _)| (*a, *b) == (major, minor)) {
        Some((_, _, least)) => patch >= *least,
        None => LEAST.last().is_some_and(|(a, b, _)| (major, minor) > (*a, *b)),
    }
}

/// Major and minor number of a version text.
pub(super) fn series_of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.trim().parse().ok()?, parts.next()?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let line = "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(parse_version(line).as_deref(), Some("10.11.19"));
        assert_eq!(parse_version("mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)"), None);
        assert_eq!(series_of("10.11.19-MariaDB"), Some((10, 11)));
    }

    #[test]
    fn what_cannot_roll_back_is_refused() {
        for (version, good) in [
            ("10.6.18", false),
            ("10.6.19", true),
            ("10.5.99", false),
            ("10.9.9", false),
            ("10.11.8", false),
            ("10.11.19", true),
            ("11.4.2", false),
            ("11.4.3", true),
            ("11.8.1", true),
            ("12.0.0", true),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_server_is_refused_by_name() {
        let error = Program::find(Some(Path::new("/bin/true"))).await.unwrap_err().to_string();
        assert!(error.contains("/bin/true") && error.contains("bin"), "{error}");
    }
}
