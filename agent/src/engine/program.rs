//! Finding a server's program, and asking which version it is.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::EngineError;

/// A program that does not tell its version within this is no server.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// The folders that programs are looked for in.
pub(crate) fn search_path() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

/// The first of `names` that is in any of the folders: where several are installed, the one that is named first is meant.
pub(crate) fn find(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

/// What `--version` says, as `read` understands it: nothing when that is not a server's answer, else its version, or what
/// it is that will not do. `wanted` says what would.
pub(crate) async fn version<T>(
    program: &Path,
    args: &[&str],
    wanted: &'static str,
    read: impl FnOnce(&str) -> Option<Result<T, String>>,
) -> Result<T, EngineError> {
    let unusable = |why: String| EngineError::Program { path: program.to_owned(), why, wanted };
    let asked = Command::new(program).args(args).arg("--version").kill_on_drop(true).output();
    let output = match tokio::time::timeout(VERSION_LIMIT, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(unusable(format!("it does not run ({e})"))),
        Err(_) => return Err(unusable("it does not tell its version".to_owned())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match read(&text) {
        Some(Ok(version)) => Ok(version),
        Some(Err(what)) => Err(unusable(format!("it is {what}"))),
        None => Err(unusable(format!("its `--version` says `{}`", text.lines().next().unwrap_or_default().trim()))),
    }
}
