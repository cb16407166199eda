//! Machines that are only network namespaces: each with an address of its own, all on one bridge that nothing else is on,
//! so that any of them can be cut off from any other.

use anyhow::{Context, Result, ensure};
use cli::rig::Host;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Where the system keeps the namespaces that have names.
const NAMESPACES: &str = "/run/netns";

/// Begins the name of everything of ours; then follow the owner's process id and a number.
const OURS: &str = "understudy-";

/// The machine that the clients, and whoever looks on, work from. It is never cut off.
pub(super) const CLIENTS: &str = "clients";

/// The bridge has a namespace to itself.
const SWITCH: &str = "switch";

/// Of the next net of this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A private network. Dropped, it is gone; so is, with the next one made on this machine, that of a process which was
/// killed.
#[derive(Debug)]
pub struct Net {
    id: String,
    hosts: BTreeMap<String, Host>,
}

impl Net {
    /// Makes a machine for each name, and one for the clients.
    ///
    /// # Errors
    /// Where namespaces are refused, or a tool is missing: says what is needed.
    pub fn create(names: &[String]) -> Result<Self> {
        for tool in ["ip", "iptables", "nsenter"] {
            cli::rig::program(tool)
                .with_context(|| format!("`{tool}` is not on PATH; `scripts/setup tests` installs it"))?;
        }
        sweep_dead();
        let id = format!("{OURS}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Named before it is made, so that a half made one is removed as well.
        let mut net = Self { id, hosts: BTreeMap::new() };
        net.namespace(SWITCH).context(
            "faults between machines need network namespaces: run this as root, on a Linux that allows `ip netns add`",
        )?;
        let switch = net.space(SWITCH);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        for (index, name) in names.iter().map(String::as_str).chain([CLIENTS]).enumerate() {
            net.machine(name, index)?;
        }
        Ok(net)
    }

    fn namespace(&self, name: &str) -> Result<()> {
        ip(&["netns", "add", &self.space(name)])
    }

    fn machine(&mut self, name: &str, index: usize) -> Result<()> {
        let (space, switch) = (self.space(name), self.space(SWITCH));
        let address = Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1)?);
        self.namespace(name)?;
        ip(&["-n", &switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
        ip(&["-n", &switch, "link", "set", name, "master", "bridge", "up"])?;
        ip(&["-n", &space, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        let namespace = Some(Path::new(NAMESPACES).join(&space));
        self.hosts.insert(name.to_owned(), Host { address: IpAddr::V4(address), namespace });
        Ok(())
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// The machines, by their names.
    pub fn hosts(&self) -> &BTreeMap<String, Host> {
        &self.hosts
    }

    /// What this net is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Works on the clients' machine: on a thread of its own, and so do the threads and processes that it starts.
    ///
    /// # Errors
    /// Those of `work`, or when the machine cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(Path::new(NAMESPACES).join(self.space(CLIENTS)))?;
        let entered = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// From now on nothing that `from` sends reaches `to`.
    ///
    /// # Errors
    /// When there is no such machine, or the system refuses.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let from = self.hosts.get(from).with_context(|| format!("no machine {from}"))?;
        let address = from.address.to_string();
        run("ip", &["netns", "exec", &self.space(to), "iptables", "-w", "-A", "INPUT", "-s", &address, "-j", "DROP"])
    }

    /// From now on nothing passes between the two sides.
    ///
    /// # Errors
    /// When there is no such machine, or the system refuses.
    pub fn cut(&self, one: &[&str], other: &[&str]) -> Result<()> {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut_one_way(a, b)?;
            self.cut_one_way(b, a)?;
        }
        Ok(())
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn heal(&self) -> Result<()> {
        for name in self.hosts.keys() {
            run("ip", &["netns", "exec", &self.space(name), "iptables", "-w", "-F", "INPUT"])?;
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove(&format!("{}-", self.id));
    }
}

/// A small disk of memory. Dropped, it is gone.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Puts one of `mib` MiB at a folder, which is made.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn mount(net: &Net, at: PathBuf, mib: u32) -> Result<Self> {
        fs::create_dir_all(&at)?;
        let (size, folder) = (format!("size={mib}m,mode=700"), at.display().to_string());
        run("mount", &["-t", "tmpfs", "-o", &size, net.id(), &folder])?;
        Ok(Self { at })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// When nothing can be written at all.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = File::create(self.filler())?;
        let some = vec![0_u8; 64 * 1024];
        while file.write_all(&some).is_ok() {}
        Ok(())
    }

    /// Makes room again.
    pub fn empty(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that has just been killed may still hold a file on it.
        let _ = run("umount", &["-l", &self.at.display().to_string()]);
    }
}

/// Removes what processes that are gone have left behind.
fn sweep_dead() {
    for name in names() {
        let Some(owner) = name.strip_prefix(OURS).and_then(|rest| rest.split('-').next()) else { continue };
        if owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists() {
            unmount(&name);
            remove(&name);
        }
    }
}

/// Ends whatever runs in the namespaces whose names begin so, and removes them.
fn remove(prefix: &str) {
    for name in names().iter().filter(|name| name.starts_with(prefix)) {
        let pids = Command::new("ip").args(["netns", "pids", name]).output();
        let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for pid in pids.split_whitespace().filter(|pid| *pid != std::process::id().to_string()) {
            let _ = run("kill", &["-9", pid]);
        }
        let _ = ip(&["netns", "delete", name]);
    }
}

/// The disks of the net that a namespace belongs to.
fn unmount(namespace: &str) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(at)) = (fields.next(), fields.next()) else { continue };
        if source.starts_with(OURS) && namespace.starts_with(&format!("{source}-")) {
            let _ = run("umount", &["-l", at]);
        }
    }
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(OURS)).collect()
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("{program} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}` failed: {}", args.join(" "), said.trim_end());
    Ok(())
}
