//! Clients that are programs of their own, in Python or JavaScript: the scripts of `tests/clients`.

use super::LIMIT;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How many rounds of all its ways make a client one in full swing.
pub const ROUNDS: u64 = 5;

/// A client's word on itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// Times that it went through all its ways.
    pub rounds: u64,
    /// Times that something failed.
    pub errors: u64,
    /// The last that did.
    pub last: Vec<String>,
    /// Values that were acknowledged; told at the end.
    #[serde(default)]
    pub written: u64,
    /// Those of them that are not there at the end.
    #[serde(default)]
    pub lost: Vec<String>,
}

/// A client in a process of its own.
pub struct Script {
    /// What a failure is to be told of.
    pub name: String,
    _process: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts a script of `tests/clients`.
    ///
    /// # Errors
    /// When its program is not there.
    pub fn start(name: &str, program: &Path, script: &str, args: &[String]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
        let mut process = Command::new(program)
            .arg(&script)
            .args(args)
            // Where Debian keeps the libraries of its packages.
            .env("NODE_PATH", "/usr/share/nodejs")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} {}: run scripts/setup", program.display(), script.display()))?;
        let orders = process.stdin.take().context("no standard input")?;
        let reports = BufReader::new(process.stdout.take().context("no standard output")?).lines();
        Ok(Self { name: name.to_owned(), _process: process, orders, reports })
    }

    /// Gives it a word, and waits for its report.
    ///
    /// # Errors
    /// When it does not answer, or has ended.
    pub async fn ask(&mut self, word: &str) -> Result<Report> {
        let ended = || format!("{} has ended; see its words above", self.name);
        self.orders.write_all(format!("{word}\n").as_bytes()).await.with_context(ended)?;
        let line =
            timeout(LIMIT, self.reports.next_line()).await.with_context(|| format!("{} is silent", self.name))??;
        let line = line.with_context(|| format!("{} has ended; see its words above", self.name))?;
        serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.name))
    }

    /// Waits until it is through some more rounds, and gives its word then.
    ///
    /// # Errors
    /// When it does not get on.
    pub async fn swing(&mut self) -> Result<Report> {
        let before = self.ask("report").await?;
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let now = self.ask("report").await?;
            if now.rounds >= before.rounds + ROUNDS {
                return Ok(now);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{} does not get on: {now:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until all of them are in full swing.
///
/// # Errors
/// When one does not get there.
pub async fn swing(scripts: &mut [Script]) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for script in scripts {
        reports.push(script.swing().await?);
    }
    Ok(reports)
}
