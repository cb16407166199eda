//! Three Redis with Sentinel, on machines that can be cut off: what the harness is to convict.

use super::client::{Connection, Reply};
use super::net::Net;
use anyhow::{Context, Result};
use cli::rig::{Process, program, sweep};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

const NODES: usize = 3;
const REDIS: u16 = 6379;
const SENTINEL: u16 = 26379;

/// A database on a machine beside answers in microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running set; the first machine has the master at first. Dropped, it is gone.
#[derive(Debug)]
pub struct Sentinels<'a> {
    // In this order: processes end before their folder goes.
    processes: Vec<Process>,
    folder: TempDir,
    net: &'a Net,
}

impl<'a> Sentinels<'a> {
    /// The machines it wants.
    pub fn machines() -> Vec<String> {
        (1..=NODES).map(|n| format!("redis{n}")).collect()
    }

    /// Starts all, and waits until they are able to fail over.
    ///
    /// # Errors
    /// When they do not get there.
    pub async fn start(net: &'a Net) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("understudy-sentinel-").tempdir()?;
        let mut all = Self { processes: Vec::new(), folder, net };
        for name in Self::machines() {
            all.launch(&name, "redis", &[])?;
        }
        crate::real::until("two replicas", async || {
            let attached = ask(all.redis("redis1")?, &["INFO", "replication"])?;
            Ok(attached.matches("state=online").nth(NODES - 2).map(drop))
        })
        .await?;
        for name in Self::machines() {
            all.launch(&name, "sentinel", &["--sentinel"])?;
        }
        crate::real::until("three Sentinels that know all", async || {
            for name in Self::machines() {
                let known = ask(all.at(&name, SENTINEL)?, &["INFO", "sentinel"])?;
                anyhow::ensure!(known.contains("status=ok") && known.contains("slaves=2,sentinels=3"), "{known}");
            }
            Ok(Some(()))
        })
        .await?;
        Ok(all)
    }

    /// Where a machine's database listens.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn redis(&self, name: &str) -> Result<SocketAddr> {
        self.at(name, REDIS)
    }

    /// Who is master, as a machine's Sentinel says.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn master(&self, name: &str) -> Result<SocketAddr> {
        let named = ask(self.at(name, SENTINEL)?, &["SENTINEL", "get-master-addr-by-name", "proof"])?;
        let host = named.split_whitespace().next().context("it names nobody")?;
        Ok(SocketAddr::new(host.parse()?, REDIS))
    }

    fn at(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let host = self.net.hosts().get(name).with_context(|| format!("no machine {name}"))?;
        Ok(SocketAddr::new(host.address, port))
    }

    fn launch(&mut self, name: &str, what: &str, args: &[&str]) -> Result<()> {
        let host = self.net.hosts().get(name).with_context(|| format!("no machine {name}"))?;
        let master = self.redis("redis1")?.ip();
        let mut text = "protected-mode no\n".to_owned();
        match what {
            "redis" if name == "redis1" => writeln!(text, "port {REDIS}\nappendonly yes")?,
            "redis" => writeln!(text, "port {REDIS}\nappendonly yes\nreplicaof {master} {REDIS}")?,
            // 500 ms is the shortest that Sentinel's users dare; its default is 30 s.
            _ => writeln!(
                text,
                "port {SENTINEL}\nsentinel monitor proof {master} {REDIS} 2\n\
                 sentinel down-after-milliseconds proof 500\nsentinel failover-timeout proof 5000"
            )?,
        }
        let folder = self.folder.path().join(format!("{name}-{what}"));
        fs::create_dir(&folder)?;
        let file = folder.join("file");
        fs::write(&file, text)?;
        let path = program("redis-server").context("`redis-server` is not on PATH")?;
        let args = [file.as_os_str()].into_iter().chain(args.iter().map(AsRef::as_ref));
        self.processes.push(Process::start_on(host, name, &path, args, &folder, &folder.join("log"))?);
        Ok(())
    }
}

impl Drop for Sentinels<'_> {
    fn drop(&mut self) {
        self.processes.clear();
        sweep(self.folder.path());
    }
}

fn ask(server: SocketAddr, words: &[&str]) -> Result<String> {
    match Connection::open(server, PATIENCE)?.ask(words)? {
        Reply::Bulk(Some(text)) | Reply::Text(text) => Ok(text),
        Reply::Array(parts) => {
            let texts = parts.into_iter().filter_map(|part| if let Reply::Bulk(text) = part { text } else { None });
            Ok(texts.collect::<Vec<_>>().join(" "))
        }
        other => anyhow::bail!("{other:?} in answer to {}", words.join(" ")),
    }
}
