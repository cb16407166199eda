//! A group on machines of its own: three servers of Consul, the nodes, each with a small disk, and two proxies.

use super::load::Load;
use super::net::{Disk, Net};
use super::setup::{CONSULS, PROXIES, Setup};
use crate::history::{Promises, Verdict};
use crate::real::{Cast, cast_of};
use anyhow::{Context, Result};
use cli::page::GroupStatus;
use cli::rig::{Process, Rig, understudy_binary};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// How long a group may take to be whole after all faults are undone. The agent of a node that died waits up to 25 s for
/// its former session to end, and one whose Consul came back a while longer.
pub(super) const WHOLE_WITHIN: Duration = Duration::from_secs(120);

/// The running group.
#[derive(Debug)]
pub struct Stage<'a> {
    // In this order: what the clients asked for ends, then the processes, their disks, the folder.
    background: Vec<Process>,
    /// The processes.
    pub rig: Rig,
    disks: BTreeMap<String, Disk>,
    folder: Option<TempDir>,
    setup: Setup,
    /// The machines.
    pub net: &'a Net,
}

/// Makes the machines, starts a group on them and works with it from the clients' machine. Everything is gone after it.
///
/// # Errors
/// Those of `work`; where namespaces are refused; when the group does not become whole.
pub fn on_stage<T: Send>(setup: &Setup, work: impl AsyncFnOnce(&mut Stage) -> Result<T> + Send) -> Result<T> {
    on_net(&setup.machines(), async |net| work(&mut Stage::start(net, setup).await?).await)
}

/// Makes machines and works from the clients' one. Everything is gone after it.
///
/// # Errors
/// Those of `work`, and where namespaces are refused.
pub fn on_net<T: Send>(machines: &[String], work: impl AsyncFnOnce(&Net) -> Result<T> + Send) -> Result<T> {
    let net = Net::create(machines)?;
    net.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                done = work(&net) => done,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                _ = terminated.recv() => anyhow::bail!("terminated"),
            }
        })
    })
}

impl<'a> Stage<'a> {
    async fn start(net: &'a Net, setup: &Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("understudy-chaos-").tempdir()?;
        // Servers that do not run as root have to get through to their folders.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let mut disks = BTreeMap::new();
        for name in (1..=setup.nodes).map(|n| format!("db{n}")) {
            let at = folder.path().join(&name).join(setup.store.engine.as_str());
            disks.insert(name, Disk::mount(net, at, setup.disk_mib())?);
        }
        let mut builder = Rig::builder(understudy_binary()?)
            .engine(setup.store.engine)
            .folder(folder.path())
            .hosts(net.hosts().clone())
            .consuls(CONSULS)
            .nodes(setup.nodes)
            .proxies(PROXIES)
            .listener(&format!("protocol = \"{}\"", setup.protocol))
            .policy("flap_pause", "\"1s\"")
            .policy("hang_after", "\"2s\"");
        for (key, value) in setup.policy() {
            builder = builder.policy(key, value);
        }
        for (key, value) in setup.settings() {
            builder = builder.setting(key, value);
        }
        if let Some(password) = &setup.store.password {
            let file = folder.path().join("password");
            fs::write(&file, password)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            builder = builder.instance("password_file", &format!("\"{}\"", file.display()));
        }
        let rig = builder.start().await?;
        Ok(Self { background: Vec::new(), rig, disks, folder: Some(folder), setup: setup.clone(), net })
    }

    /// Starts clients, in turn at one of the proxies.
    ///
    /// # Errors
    /// When what they work on cannot be made.
    pub fn load(&self, clients: usize) -> Result<Load> {
        Load::start(&self.setup.store, clients, &self.rig.proxy_addrs())
    }

    /// The names of all machines but the clients'.
    pub fn machines(&self) -> Vec<&str> {
        self.net.hosts().keys().map(String::as_str).filter(|name| *name != super::net::CLIENTS).collect()
    }

    /// A node's disk.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn disk(&self, node: &str) -> Result<&Disk> {
        self.disks.get(node).with_context(|| format!("no node {node}"))
    }

    /// Asks for a planned switchover as an operator would, and does not wait for what becomes of it.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn ask_switchover(&mut self) -> Result<()> {
        let consul = self.rig.consul_address();
        let args = ["switchover", self.rig.group(), "--consul", &consul];
        let log = self.rig.folder().join("logs").join("switchover.log");
        let process = Process::start("switchover", &understudy_binary()?, args, self.rig.folder(), &log)?;
        self.background.retain_mut(|process| process.ended().is_none());
        self.background.push(process);
        Ok(())
    }

    /// Undoes every fault: the network is whole, disks have room, everyone is awake and who was killed is started.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn heal(&mut self) -> Result<()> {
        self.net.heal()?;
        self.disks.values().for_each(Disk::empty);
        self.rig.wake_all();
        self.rig.start_consul()?;
        Ok(self.rig.start_dead_agents()?)
    }

    /// Waits until the group is whole; who plays what then.
    ///
    /// # Errors
    /// When it is not within `limit`, or an agent or proxy has ended by itself.
    pub async fn whole(&self, limit: Duration) -> Result<Cast> {
        let status = self.rig.wait_whole(limit).await;
        if let Some(ended) = self.rig.first_ended() {
            return Err(ended.into());
        }
        self.cast_of(&status?)
    }

    /// Waits until another node than `old` is the active master; the group's status then.
    ///
    /// # Errors
    /// When nobody takes over within `limit`.
    pub async fn taken_over(&self, old: &str, limit: Duration) -> Result<GroupStatus> {
        let what = format!("another master than {old}");
        Ok(self.rig.wait_until(&what, limit, |s| s.active_master().is_some_and(|m| m != old)).await?)
    }

    /// Ends the load and judges it by what the master holds, asked without any proxy in between.
    ///
    /// # Errors
    /// When there is no master, or it does not give back what was written.
    pub async fn judge(&self, load: Load, promises: Promises) -> Result<Verdict> {
        // One that is not whole is judged as well, as long as somebody serves.
        let status = self.rig.wait_until("a master", WHOLE_WITHIN, |s| s.active_master().is_some()).await?;
        let master = self.rig.database_addr(status.active_master().context("no master")?)?;
        Ok(Verdict::of(&load.finish(master)?, promises))
    }

    fn cast_of(&self, status: &GroupStatus) -> Result<Cast> {
        cast_of(status).context("a whole group without a hot replica")
    }

    /// Leaves the folder with files, data and logs; where it is.
    pub fn keep(&mut self) -> Option<PathBuf> {
        let (folder, engine) = (self.folder.take()?.keep(), self.setup.store.engine.as_str());
        for node in self.disks.keys() {
            // The disk itself goes with the stage.
            let data = folder.join(node);
            let _ =
                Command::new("cp").arg("-a").arg(data.join(engine)).arg(data.join(format!("{engine}-kept"))).status();
        }
        Some(folder)
    }
}
