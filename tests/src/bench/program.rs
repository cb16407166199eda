//! What every benchmark's program is: one measurement, which ctrl-c or SIGTERM ends together with all that it
//! started.

use anyhow::{Result, bail};
use config::Engine;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Reads an engine's name.
#[allow(dead_code, reason = "not every benchmark can be asked for another engine")]
pub(crate) fn engine(text: &str) -> Result<Engine, String> {
    let all = [Engine::Redis, Engine::Postgres, Engine::Mariadb];
    all.into_iter().find(|engine| engine.as_str() == text).ok_or_else(|| "write redis, postgres or mariadb".to_owned())
}

/// Measures, and tells on standard error what went wrong.
pub(crate) fn run(measure: impl Future<Output = Result<()>>) -> ExitCode {
    cli::install_tls_provider();
    match tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(interruptible(measure)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", env!("CARGO_BIN_NAME"));
            ExitCode::FAILURE
        }
    }
}

async fn interruptible(measure: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = measure => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
}
