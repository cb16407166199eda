//! Which programs are run, and which version the server is.

use std::path::{Path, PathBuf};

use crate::engine::{EngineError, program};

/// The server, and where Debian keeps it, which is not on the PATH of every user.
const SERVER: &str = "mariadbd";
const SYSTEM: &str = "/usr/sbin";

/// What would do in place of a program that cannot be used.
const WANTED: &str = "a mariadbd >= 10.6.19, 10.11.9 or 11.4.3";

/// The first releases of each series that can be told at their start to roll back what nobody has acknowledged
/// (`--init-rpl-role=SLAVE`), and otherwise keep what a replica may have. A series that is not here is refused when it is
/// older than the last one.
const LEAST: [(u32, u32, u32); 4] = [(10, 6, 19), (10, 11, 9), (11, 2, 5), (11, 4, 3)];

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
        let version = program::version(&server, &["--no-defaults"], WANTED, judge).await?;
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
    let folders: Vec<PathBuf> =
        folder.map(Path::to_owned).into_iter().chain(program::search_path()).chain([PathBuf::from(SYSTEM)]).collect();
    let found = program::find(names, &folders);
    found.ok_or_else(|| EngineError::ProgramMissing { looked: format!("{} in PATH", names.join(" or ")), install })
}

/// Its version, or what it is that is too old.
fn judge(text: &str) -> Option<Result<String, String>> {
    let version = parse_version(text.lines().next()?)?;
    Some(if is_new_enough(&version) { Ok(version) } else { Err(format!("MariaDB {version}")) })
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
