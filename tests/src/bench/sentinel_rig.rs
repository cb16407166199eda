//! Three nodes with a Redis and a Sentinel each, in a temporary folder on free ports. All end with their owner.

use anyhow::{Context, Result, bail};
use cli::rig::{Process, free_port, program, sweep};
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the Sentinels call it.
pub(crate) const MASTER_NAME: &str = "bench";

const NODES: usize = 3;

/// Until three Sentinels know each other and both replicas: they greet every two seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A client's patience with one Sentinel: a hung one must not hold it up while two others could answer.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(200);

/// A running set.
pub(crate) struct SentinelRig {
    // In this order: processes end before their folder goes.
    nodes: Vec<Node>,
    folder: TempDir,
    program: PathBuf,
}

struct Node {
    redis: Option<Process>,
    sentinel: Option<Process>,
    redis_port: u16,
    sentinel_port: u16,
    folder: PathBuf,
}

impl SentinelRig {
    /// Starts all, and waits until the Sentinels are able to fail over. Node 0 has the master.
    pub(crate) async fn start() -> Result<Self> {
        let program = program("redis-server").context("`redis-server` is not on PATH")?;
        let folder = tempfile::Builder::new().prefix("understudy-sentinel-").tempdir()?;
        let mut rig = Self { nodes: Vec::new(), folder, program };
        for index in 0..NODES {
            let node = rig.prepare(index)?;
            rig.nodes.push(node);
            rig.restart_redis(index)?;
        }
        rig.wait("two replicas", READY_WITHIN, async |rig| rig.replicas_online().await).await?;
        for index in 0..NODES {
            rig.restart_sentinel(index)?;
        }
        rig.wait("three Sentinels that know all", READY_WITHIN, async |rig| rig.sentinels_ready().await).await?;
        Ok(rig)
    }

    /// Where a node's Redis listens.
    pub(crate) fn redis_addr(&self, index: usize) -> SocketAddr {
        loopback(self.nodes[index].redis_port)
    }

    /// Where the Sentinels listen.
    pub(crate) fn sentinels(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| loopback(node.sentinel_port)).collect()
    }

    pub(crate) fn kill_redis(&mut self, index: usize) {
        self.nodes[index].redis = None;
    }

    /// Both at once: the Sentinel first, which knows nothing of its Redis that the others do not.
    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].sentinel = None;
        self.nodes[index].redis = None;
    }

    pub(crate) fn freeze(&self, index: usize) {
        let node = &self.nodes[index];
        node.redis.iter().chain(&node.sentinel).for_each(Process::freeze);
    }

    pub(crate) fn thaw(&self, index: usize) {
        let node = &self.nodes[index];
        node.redis.iter().chain(&node.sentinel).for_each(Process::thaw);
    }

    pub(crate) fn restart_redis(&mut self, index: usize) -> Result<()> {
        let name = format!("redis{index}");
        let node = &mut self.nodes[index];
        let (file, log) = (node.folder.join("redis.conf"), node.folder.join("redis.log"));
        node.redis = Some(Process::start(&name, &self.program, [&file], &node.folder, &log)?);
        Ok(())
    }

    pub(crate) fn restart_sentinel(&mut self, index: usize) -> Result<()> {
        let name = format!("sentinel{index}");
        let node = &mut self.nodes[index];
        let (file, log) = (node.folder.join("sentinel.conf"), node.folder.join("sentinel.log"));
        let args = [file.as_path(), Path::new("--sentinel")];
        node.sentinel = Some(Process::start(&name, &self.program, args, &node.folder, &log)?);
        Ok(())
    }

    /// Sends a command to a node's Sentinel.
    pub(crate) async fn command(&self, index: usize, words: &[&str]) -> Result<()> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut connection = connect(loopback(self.nodes[index].sentinel_port)).await?;
        Ok(command.query_async(&mut connection).await?)
    }

    /// Waits until the Sentinels name another master than `old`, and `old` is a replica whose link stands.
    pub(crate) async fn wait_for_new_master(&self, old: SocketAddr, limit: Duration) -> Result<SocketAddr> {
        self.wait("the old master to follow the new one", limit, async |_| {
            let info = info(old).await?;
            Ok(info.contains("role:slave") && info.contains("master_link_status:up"))
        })
        .await?;
        let master = ask_master(loopback(self.nodes[1].sentinel_port))?;
        if master == old {
            bail!("the old master is a replica, and Sentinel names it as master");
        }
        Ok(master)
    }

    fn prepare(&self, index: usize) -> Result<Node> {
        let folder = self.folder.path().join(format!("node{index}"));
        fs::create_dir(&folder)?;
        let node = Node {
            redis: None,
            sentinel: None,
            redis_port: free_port()?,
            sentinel_port: free_port()?,
            folder: folder.clone(),
        };
        let master = self.nodes.first().map_or(node.redis_port, |first| first.redis_port);
        fs::write(folder.join("redis.conf"), redis_file(&node, master))?;
        fs::write(folder.join("sentinel.conf"), sentinel_file(&node, master))?;
        Ok(node)
    }

    async fn replicas_online(&self) -> Result<bool> {
        Ok(info(self.redis_addr(0)).await?.matches("state=online").count() == NODES - 1)
    }

    async fn sentinels_ready(&self) -> Result<bool> {
        for sentinel in self.sentinels() {
            let mut connection = connect(sentinel).await?;
            let state: HashMap<String, String> =
                redis::cmd("SENTINEL").arg(&["MASTER", MASTER_NAME]).query_async(&mut connection).await?;
            let is = |key: &str, value: &str| state.get(key).is_some_and(|found| found == value);
            if !(is("flags", "master") && is("num-slaves", "2") && is("num-other-sentinels", "2")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for a state; while it cannot be asked for, it does not hold.
    async fn wait(&self, what: &str, limit: Duration, holds: impl AsyncFn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = match holds(self).await {
                Ok(true) => return Ok(()),
                Ok(false) => "it does not hold".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("waited {} s in vain for {what}: {seen}", limit.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for SentinelRig {
    fn drop(&mut self) {
        self.nodes.clear();
        sweep(self.folder.path());
    }
}

/// The same persistence, and the same quick first copy, as Understudy gives its instances.
fn redis_file(node: &Node, master: u16) -> String {
    let mut text = format!(
        "port {}\nbind 127.0.0.1\nsave \"\"\nappendonly yes\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n",
        node.redis_port
    );
    if master != node.redis_port {
        text.push_str(&format!("replicaof 127.0.0.1 {master}\n"));
    }
    text
}

/// 500 ms is the shortest that Sentinel's users dare; its default is 30 s.
fn sentinel_file(node: &Node, master: u16) -> String {
    format!(
        "port {}\nbind 127.0.0.1\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER_NAME} 500\nsentinel failover-timeout {MASTER_NAME} 5000\n\
         sentinel parallel-syncs {MASTER_NAME} 1\n",
        node.sentinel_port
    )
}

async fn connect(server: SocketAddr) -> Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(format!("redis://{server}/"))?.get_multiplexed_async_connection().await?)
}

async fn info(server: SocketAddr) -> Result<String> {
    let mut connection = connect(server).await?;
    Ok(redis::cmd("INFO").arg("replication").query_async(&mut connection).await?)
}

/// Asks one Sentinel who is master. By hand, so that every wait in it is bounded.
pub(crate) fn ask_master(sentinel: SocketAddr) -> io::Result<SocketAddr> {
    let mut stream = TcpStream::connect_timeout(&sentinel, SENTINEL_PATIENCE)?;
    stream.set_read_timeout(Some(SENTINEL_PATIENCE))?;
    stream.write_all(format!("SENTINEL get-master-addr-by-name {MASTER_NAME}\r\n").as_bytes())?;
    let lines: Vec<String> = BufReader::new(stream).lines().take(5).collect::<io::Result<_>>()?;
    // `*2`, then length and text of host and port.
    match lines.as_slice() {
        [count, _, host, _, port] if count == "*2" => {
            format!("{host}:{port}").parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this Sentinel names no master")),
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
