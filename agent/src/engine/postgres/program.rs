//! Which programs are run, and which version they are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::{EngineError, program};

/// The package that brings a server.
const INSTALL: &str = "postgresql";

/// What would do in place of a program that cannot be used.
const WANTED: &str = "the folder of the programs of PostgreSQL 13 or newer";

/// Older ones read where they replicate from only at their start.
const LEAST_MAJOR: u32 = 13;

/// Where Debian and its kin keep the server's programs, a folder a version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs that an instance's life takes.
const NEEDED: [&str; 4] = ["postgres", "initdb", "pg_basebackup", "pg_rewind"];

/// The folder of a server's programs.
#[derive(Debug, Clone)]
pub(super) struct Program {
    folder: PathBuf,
    pub(super) version: String,
    pub(super) major: u32,
}

impl Program {
    /// Finds them and asks their version.
    pub(super) async fn find(bin: Option<&Path>) -> Result<Self, EngineError> {
        let folder = locate(bin)?;
        for name in NEEDED {
            if !folder.join(name).is_file() {
                let looked = format!("{name} in {}", folder.display());
                return Err(EngineError::ProgramMissing { looked, install: INSTALL });
            }
        }
        let (version, major) = program::version(&folder.join(NEEDED[0]), &[], WANTED, judge).await?;
        Ok(Self { folder, version, major })
    }

    /// One of them.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether a running program is one of these, or one of an upgrade before.
    pub(super) fn is_ours(exe: &Path) -> bool {
        // An upgrade appends " (deleted)".
        exe.file_name().and_then(|n| n.to_str()).is_some_and(|name| NEEDED.iter().any(|known| name.starts_with(known)))
    }

    /// Whether a running program is a server that this agent may take over.
    pub(super) fn is_server(exe: &Path) -> bool {
        exe.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with(NEEDED[0]))
    }
}

fn locate(bin: Option<&Path>) -> Result<PathBuf, EngineError> {
    let has_server = |folder: &Path| folder.join(NEEDED[0]).is_file();
    let missing = |looked: String| EngineError::ProgramMissing { looked, install: INSTALL };
    if let Some(bin) = bin {
        let folder = if bin.is_dir() { Some(bin) } else { bin.parent() };
        let found = folder.filter(|folder| has_server(folder)).map(Path::to_owned);
        return found.ok_or_else(|| missing(format!("`bin` is {}", bin.display())));
    }
    // Often only a link to one of the programs is on PATH.
    let real = |folder: PathBuf| folder.join(NEEDED[0]).canonicalize().ok()?.parent().map(Path::to_owned);
    let on_path = program::search_path().into_iter().filter_map(real).find(|folder| is_whole(folder));
    on_path.or_else(newest).ok_or_else(|| missing(format!("{} in PATH and below {DEBIAN}", NEEDED[0])))
}

fn is_whole(folder: &Path) -> bool {
    NEEDED.iter().all(|name| folder.join(name).is_file())
}

fn newest() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(DEBIAN).ok()?.flatten().map(|entry| entry.path());
    let folders = versions.filter_map(|path| Some((version(&path)?, path.join("bin"))));
    folders.filter(|(_, folder)| folder.join(NEEDED[0]).is_file()).max().map(|(_, folder)| folder)
}

/// Its version, or what it is that is too old.
fn judge(text: &str) -> Option<Result<(String, u32), String>> {
    let (version, major) = parse_version(text)?;
    Some(if major < LEAST_MAJOR { Err(format!("PostgreSQL {version}")) } else { Ok((version, major)) })
}

fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((version.to_owned(), major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(parse_version(debian), Some(("15.18".to_owned(), 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some(("18beta1".to_owned(), 18)));
        assert_eq!(parse_version("psql (PostgreSQL) 15.18"), None);
    }

    #[tokio::test]
    async fn a_folder_without_the_programs_is_refused_by_name() {
        let error = Program::find(Some(Path::new("/bin/true"))).await.unwrap_err().to_string();
        assert!(error.contains("/bin/true") && error.contains("install postgresql"), "{error}");
    }
}
