//! Which program is run, and which version it is.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::engine::EngineError;

/// The names that are looked for, in this order.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// Older ones have no ACL for subcommands, no multi-part append-only file and no allow-oom scripts.
const LEAST_MAJOR: u32 = 7;

/// The package that brings a server.
const INSTALL: &str = "redis-server";

/// What would do in place of a program that cannot be used.
const WANTED: &str = "a redis-server >= 7.0 or a valkey-server";

/// A program that does not tell its version within this is no server.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

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
        let version = version_of(&path).await?;
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
    let in_folder = |folder: &Path| NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(bin) = bin else {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).collect();
        // By name first: where both are installed, redis-server is meant.
        let found = NAMES.iter().find_map(|name| folders.iter().map(|f| f.join(name)).find(|p| p.is_file()));
        return found.ok_or_else(|| EngineError::ProgramMissing {
            looked: format!("{} in PATH", NAMES.join(" or ")),
            install: INSTALL,
        });
    };
    let found = if bin.is_dir() { in_folder(bin) } else { bin.is_file().then(|| bin.to_owned()) };
    found.ok_or_else(|| EngineError::ProgramMissing { looked: format!("`bin` is {}", bin.display()), install: INSTALL })
}

async fn version_of(path: &Path) -> Result<String, EngineError> {
    let unusable = |why: String| EngineError::Program { path: path.to_owned(), why, wanted: WANTED };
    let asked = Command::new(path).arg("--version").kill_on_drop(true).output();
    let output = match tokio::time::timeout(VERSION_LIMIT, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(unusable(format!("it does not run ({e})"))),
        Err(_) => return Err(unusable("it does not tell its version".to_owned())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((valkey, version)) = parse_version(&text) else {
        return Err(unusable(format!("its `--version` says `{}`", text.lines().next().unwrap_or_default().trim())));
    };
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    if !valkey && major.is_none_or(|n| n < LEAST_MAJOR) {
        return Err(unusable(format!("it is Redis {version}")));
    }
    Ok(version)
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
