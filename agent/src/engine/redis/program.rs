//! Which program is run, and which version it is.

use std::path::{Path, PathBuf};

use crate::engine::{EngineError, program};

/// The names that are looked for, in this order.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// Older ones have no ACL for subcommands, no multi-part append-only file and no allow-oom scripts.
const LEAST_MAJOR: u32 = 7;

/// The package that brings a server.
const INSTALL: &str = "redis-server";

/// What would do in place of a program that cannot be used.
const WANTED: &str = "a redis-server >= 7.0 or a valkey-server";

/// A server's program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: String,
}

impl Program {
    /// Finds it and asks its version.
    pub(super) async fn find(bin: Option<&Path>) -> Result<Self, EngineError> {
        let path = locate(bin)?;
        let version = program::version(&path, &[], WANTED, judge).await?;
        Ok(Self { path, version })
    }

    /// Whether a running program is a server that this agent may take over.
    pub(super) fn is_server(&self, exe: &Path) -> bool {
        // Debian's redis-server is a link to redis-check-rdb, and an upgrade appends " (deleted)".
        let known = |name: &str| name.starts_with("redis") || name.starts_with("valkey");
        let named = exe.file_name().and_then(|n| n.to_str()).is_some_and(known);
        named || self.path.canonicalize().is_ok_and(|path| path == exe)
    }
}

fn locate(bin: Option<&Path>) -> Result<PathBuf, EngineError> {
    let missing = |looked: String| EngineError::ProgramMissing { looked, install: INSTALL };
    let Some(bin) = bin else {
        let found = program::find(&NAMES, &program::search_path());
        return found.ok_or_else(|| missing(format!("{} in PATH", NAMES.join(" or "))));
    };
    let found =
        if bin.is_dir() { program::find(&NAMES, &[bin.to_owned()]) } else { bin.is_file().then(|| bin.to_owned()) };
    found.ok_or_else(|| missing(format!("`bin` is {}", bin.display())))
}

/// Its version, or what it is that is too old.
fn judge(text: &str) -> Option<Result<String, String>> {
    let (valkey, version) = parse_version(text)?;
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    let old = !valkey && major.is_none_or(|n| n < LEAST_MAJOR);
    Some(if old { Err(format!("Redis {version}")) } else { Ok(version) })
}

/// Whether it is Valkey, and its version.
fn parse_version(text: &str) -> Option<(bool, String)> {
    let valkey = text.starts_with("Valkey server");
    if !valkey && !text.starts_with("Redis server") {
        return None;
    }
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    Some((valkey, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0";
        assert_eq!(parse_version(redis), Some((false, "7.0.15".to_owned())));
        assert_eq!(parse_version("Valkey server v=8.0.1 sha=0:0"), Some((true, "8.0.1".to_owned())));
        assert_eq!(parse_version("redis-cli 7.0.15"), None);
    }

    #[tokio::test]
    async fn a_program_that_is_no_server_is_refused_by_name() {
        let error = Program::find(Some(Path::new("/bin/true"))).await.unwrap_err().to_string();
        assert!(error.contains("/bin/true") && error.contains("bin"), "{error}");
        let error = Program::find(Some(Path::new("/nowhere/redis-server"))).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/redis-server") && error.contains("install"), "{error}");
    }
}
