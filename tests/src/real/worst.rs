//! What the stories of the worst morning need: power cuts, agents stopped in their tracks, folders and keys changed by
//! hand.

use super::{Story, info, until};
use anyhow::{Context, Result};
use cli::rig::http;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Often enough to see a role that changes and changes back.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Story {
    /// SIGKILL of the agents and databases of `nodes`. All are stopped first, so that none sees another die.
    ///
    /// # Errors
    /// When one of them does not run.
    pub fn power_cut(&mut self, nodes: &[&String]) -> Result<Instant> {
        let at = Instant::now();
        for node in nodes {
            self.stop_node(node)?;
        }
        for node in nodes {
            self.kill_node(node)?;
        }
        Ok(at)
    }

    /// Stops a node's agent in its tracks; its database goes on. Gives the instant before it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze_agent(&self, node: &str) -> Result<Instant> {
        let at = Instant::now();
        send(self.agent_pid(node)?, Signal::STOP)?;
        Ok(at)
    }

    /// Wakes it again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw_agent(&self, node: &str) -> Result<()> {
        send(self.agent_pid(node)?, Signal::CONT)
    }

    /// The process whose command line has the node's file.
    fn agent_pid(&self, node: &str) -> Result<u32> {
        let file = self.file(node);
        let wanted = file.as_os_str().as_bytes();
        let pids = std::fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let names = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).any(|word| word == wanted)
        };
        pids.into_iter().find(names).with_context(|| format!("no agent of {node}"))
    }

    /// Waits until the agent of `node` gives `code` as its reason, and gives the sentence.
    ///
    /// # Errors
    /// When it does not.
    pub async fn says(&self, node: &str, code: &str) -> Result<String> {
        until(&format!("{code} at {node}"), async || {
            let said = self.agent(node).await?;
            anyhow::ensure!(said.reason_code == code, "{}: {}", said.reason_code, said.reason);
            Ok(Some(said.reason))
        })
        .await
    }

    /// For `time`, at every look, no database of the group is a master.
    ///
    /// # Errors
    /// When one is.
    pub async fn nobody_is_master(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for node in self.node_names() {
                let Ok(info) = info(self.database_addr(&node)?, "replication").await else { continue };
                let role = info.get("role").map(String::as_str);
                anyhow::ensure!(role != Some("master"), "{node} is a master\n{}", self.logs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The folder of a node's data.
    pub fn data(&self, node: &str) -> PathBuf {
        self.folder().join(node).join(self.engine().as_str())
    }

    /// The folder of what a node's agent remembers.
    pub fn memory(&self, node: &str) -> PathBuf {
        self.folder().join(node).join("agent")
    }

    /// Throws a node's data away and leaves the note that the folder is ours: what a broken disk may bring back.
    ///
    /// # Errors
    /// When the folder cannot be changed.
    pub fn empty(&self, node: &str) -> Result<()> {
        for entry in std::fs::read_dir(self.data(node))? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "understudy.json") {
                continue;
            }
            if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        }
        Ok(())
    }

    /// The group's document `name` as it stands in Consul, byte for byte; nothing when there is none.
    ///
    /// # Errors
    /// When Consul does not answer.
    pub async fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let answer = http().get(format!("{}?raw&consistent", self.key(name))).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.bytes().await?.to_vec()))
    }

    /// Writes a document as somebody does who knows nothing of check-and-set; nothing: deletes it.
    ///
    /// # Errors
    /// When Consul refuses.
    pub async fn by_hand(&self, name: &str, text: Option<&[u8]>) -> Result<()> {
        let http = http();
        let request = match text {
            Some(text) => http.put(self.key(name)).body(text.to_vec()),
            None => http.delete(self.key(name)),
        };
        request.send().await?.error_for_status()?;
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}/v1/kv/understudy/{}/{name}", self.consul_address(), self.group())
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When it is gone.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process has this number")?;
    Ok(kill_process(pid, signal)?)
}

/// Every file below a folder, byte for byte.
///
/// # Errors
/// When it cannot be read.
pub fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let inside = if path.is_dir() { contents(&path)? } else { BTreeMap::new() };
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path)? };
        found.extend(inside);
        found.insert(path, bytes);
    }
    Ok(found)
}

/// Copies a folder with all that is in it.
///
/// # Errors
/// When one cannot be read, or the other not be written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file without a name")?);
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
