//! Three nodes with a Patroni and its PostgreSQL each, one Consul, and an HAProxy that asks the Patronis who is master.
//! In a temporary folder on free ports. All end with their owner.

use anyhow::{Context, Result, ensure};
use cli::rig::{
    Process, Rig, family, free_port, http, output, program, server_program, signal_all, sweep, understudy_binary,
};
use config::Engine;
use rustix::process::Signal;
use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const NODES: usize = 3;

/// The user that Debian's package makes for the server, which refuses to run as root.
const USER: &str = "postgres";

/// An initdb and two base backups.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A state is asked for again this soon.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What only looks something up, or gives a folder away.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A running cluster.
pub(crate) struct PatroniRig {
    // In this order: Patronis end first, since they would start their servers again, and Consul and the folder last.
    nodes: Vec<Node>,
    haproxy: Option<Process>,
    proxy_port: u16,
    base: Rig,
}

struct Node {
    name: String,
    folder: PathBuf,
    patroni: Option<Process>,
    rest: u16,
    port: u16,
}

/// What a Patroni says of the cluster.
#[derive(Debug, Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
    state: String,
}

impl PatroniRig {
    /// Starts all, and waits until there is a synchronous standby and the client's way leads to the master.
    pub(crate) async fn start() -> Result<Self> {
        // A rig without nodes is a Consul in a folder.
        let base = Rig::builder(understudy_binary()?).nodes(0).proxies(0).start_unready().await?;
        let mut rig = Self { nodes: Vec::new(), haproxy: None, proxy_port: free_port()?, base };
        for index in 0..NODES {
            let node = rig.prepare(index)?;
            rig.nodes.push(node);
            rig.start_patroni(index)?;
        }
        rig.start_haproxy()?;
        rig.wait_whole(READY_WITHIN).await?;
        Ok(rig)
    }

    /// Where clients connect.
    pub(crate) fn proxy_addr(&self) -> SocketAddr {
        loopback(self.proxy_port)
    }

    /// The node with the master.
    pub(crate) async fn master(&self) -> Result<usize> {
        let cluster = self.cluster().await?;
        let leader = cluster.named("leader").context("nobody leads")?;
        self.nodes.iter().position(|node| node.name == leader).with_context(|| format!("{leader} is no node"))
    }

    /// SIGKILL of a node's database. Gives the instant before it.
    pub(crate) fn kill_database(&self, index: usize) -> Result<Instant> {
        let server = self.nodes[index].server()?;
        let at = Instant::now();
        signal_all(&server, Signal::KILL);
        Ok(at)
    }

    /// SIGKILL of a node's Patroni and database. Gives the instant before it.
    pub(crate) fn kill_node(&mut self, index: usize) -> Result<Instant> {
        let all = self.nodes[index].processes()?;
        let at = Instant::now();
        signal_all(&all, Signal::KILL);
        self.nodes[index].patroni = None;
        Ok(at)
    }

    /// SIGSTOP of both. Gives the instant before it.
    pub(crate) fn stop_node(&self, index: usize) -> Result<Instant> {
        let all = self.nodes[index].processes()?;
        let at = Instant::now();
        signal_all(&all, Signal::STOP);
        Ok(at)
    }

    /// SIGCONT after [`PatroniRig::stop_node`].
    pub(crate) fn cont_node(&self, index: usize) -> Result<()> {
        signal_all(&self.nodes[index].processes()?, Signal::CONT);
        Ok(())
    }

    /// Starts a node's Patroni, which starts its database.
    pub(crate) fn start_patroni(&mut self, index: usize) -> Result<()> {
        let patroni = need("patroni")?;
        let node = &mut self.nodes[index];
        let (file, log) = (node.folder.join("patroni.yml"), node.folder.join("patroni.log"));
        let (path, words) = as_server_user(&patroni, &file)?;
        node.patroni = Some(Process::start(&node.name, &path, &words, &node.folder, &log)?);
        Ok(())
    }

    /// Asks the master's Patroni to hand over to the synchronous standby. Gives the instant before it was asked, and what
    /// becomes of it: Patroni answers when it is done.
    pub(crate) async fn switchover(&self, index: usize) -> Result<(Instant, tokio::task::JoinHandle<Result<()>>)> {
        let cluster = self.cluster().await?;
        let standby = cluster.named("sync_standby").context("there is no synchronous standby")?;
        let request = serde_json::json!({ "leader": self.nodes[index].name, "candidate": standby });
        let url = format!("http://{}/switchover", loopback(self.nodes[index].rest));
        let at = Instant::now();
        let answer = tokio::spawn(async move {
            let answer = http().post(url).json(&request).send().await?;
            let (status, said) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "Patroni refused the switchover ({status}): {said}");
            Ok(())
        });
        Ok((at, answer))
    }

    /// Waits until there are a master, a synchronous standby and no node that does not run, and the proxy leads there.
    pub(crate) async fn wait_whole(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = match self.cluster().await {
                Ok(cluster) if cluster.is_whole() => {
                    match super::sql::answers(Engine::Postgres, self.proxy_addr()).await {
                        Ok(()) => return Ok(()),
                        Err(error) => format!("no way through HAProxy: {error:#}"),
                    }
                }
                Ok(cluster) => format!("{cluster:?}"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                Instant::now() < deadline,
                "Patroni's cluster is not whole within {} s: {seen}\n{}",
                limit.as_secs(),
                self.logs()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What the first Patroni that answers says of the cluster.
    async fn cluster(&self) -> Result<Cluster> {
        let mut last = None;
        for node in &self.nodes {
            let url = format!("http://{}/cluster", loopback(node.rest));
            let asked = http().get(url).timeout(AT_ONCE / 20).send();
            match async { asked.await?.json::<Cluster>().await }.await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no nodes")?.into())
    }

    fn prepare(&self, index: usize) -> Result<Node> {
        let name = format!("node{index}");
        let folder = self.base.folder().join(&name);
        fs::create_dir(&folder)?;
        let node = Node { name, folder, patroni: None, rest: free_port()?, port: free_port()? };
        fs::write(node.folder.join("patroni.yml"), self.patroni_file(&node)?)?;
        if rustix::process::geteuid().is_root() {
            let given = output(Command::new("chown").arg(format!("{USER}:")).arg(&node.folder), AT_ONCE)?;
            ensure!(given.status.success(), "chown: {}", String::from_utf8_lossy(&given.stderr));
        }
        Ok(node)
    }

    /// Tuned to the shortest that Patroni allows: a TTL of 20 s, one round a second.
    fn patroni_file(&self, node: &Node) -> Result<String> {
        // On PATH there may be no more than a link to it, without the tools beside it.
        let server = server_program(Engine::Postgres)?.canonicalize()?;
        let bin = server.parent().context("the server's program is in no folder")?;
        let consul = self.base.consul_address();
        let consul = consul.trim_start_matches("http://");
        Ok(format!(
            "scope: bench\nname: {name}\n\
             restapi:\n  listen: 127.0.0.1:{rest}\n  connect_address: 127.0.0.1:{rest}\n\
             consul:\n  host: {consul}\n\
             bootstrap:\n  dcs:\n    ttl: 20\n    loop_wait: 1\n    retry_timeout: 9\n    synchronous_mode: true\n    \
             postgresql:\n      use_pg_rewind: true\n      use_slots: true\n  \
             initdb:\n  - encoding: UTF8\n  - auth: trust\n\
             postgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 127.0.0.1:{port}\n  \
             data_dir: {folder}/pgdata\n  bin_dir: {bin}\n  pgpass: {folder}/pgpass\n  \
             authentication:\n    superuser:\n      username: postgres\n    replication:\n      username: replicator\n  \
             parameters:\n    unix_socket_directories: {folder}\n  \
             pg_hba:\n  - host all all 127.0.0.1/32 trust\n  - host replication all 127.0.0.1/32 trust\n  \
             basebackup:\n  - checkpoint: fast\n",
            name = node.name,
            rest = node.rest,
            port = node.port,
            folder = node.folder.display(),
            bin = bin.display(),
        ))
    }

    /// As in Patroni's own example, but it looks six times as often and believes the second failure.
    fn start_haproxy(&mut self) -> Result<()> {
        let mut text = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  retries 2\n  timeout client 30m\n  timeout connect 1s\n  \
             timeout server 30m\n  timeout check 1s\nlisten master\n  bind 127.0.0.1:{}\n  \
             option httpchk OPTIONS /primary\n  http-check expect status 200\n  \
             default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n",
            self.proxy_port
        );
        for node in &self.nodes {
            text.push_str(&format!("  server {} 127.0.0.1:{} check port {}\n", node.name, node.port, node.rest));
        }
        let folder = self.base.folder().join("haproxy");
        fs::create_dir(&folder)?;
        let file = folder.join("haproxy.cfg");
        fs::write(&file, text)?;
        let args = [Path::new("-db"), Path::new("-f"), &file];
        self.haproxy = Some(Process::start("haproxy", &need("haproxy")?, args, &folder, &folder.join("log"))?);
        Ok(())
    }

    fn logs(&self) -> String {
        let last =
            |text: String| text.lines().rev().take(15).fold(String::new(), |after, line| format!("{line}\n{after}"));
        let one = |node: &Node| {
            let text = fs::read_to_string(node.folder.join("patroni.log")).unwrap_or_default();
            format!("-- {}\n{}", node.name, last(text))
        };
        self.nodes.iter().map(one).collect()
    }
}

impl Drop for PatroniRig {
    fn drop(&mut self) {
        self.nodes.clear();
        self.haproxy = None;
        // The servers are nobody's children.
        sweep(self.base.folder());
    }
}

impl Node {
    /// The server and all that it has started.
    fn server(&self) -> Result<Vec<u32>> {
        let file = self.folder.join("pgdata/postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        Ok(family(pid.with_context(|| format!("{} names no process", file.display()))?))
    }

    /// Patroni first, which would see its server's end, then the server.
    fn processes(&self) -> Result<Vec<u32>> {
        let patroni = self.patroni.as_ref().with_context(|| format!("{} runs no Patroni", self.name))?;
        Ok([family(patroni.pid()), self.server()?].concat())
    }
}

impl Cluster {
    fn named(&self, role: &str) -> Option<&str> {
        self.members.iter().find(|member| member.role == role).map(|member| member.name.as_str())
    }

    fn is_whole(&self) -> bool {
        // Newer versions call a copy that is fed "streaming".
        let runs = |member: &Member| matches!(member.state.as_str(), "running" | "streaming");
        self.members.len() == NODES
            && self.members.iter().all(runs)
            && self.named("leader").is_some()
            && self.named("sync_standby").is_some()
    }
}

/// How Patroni is started: not as root.
fn as_server_user(patroni: &Path, file: &Path) -> Result<(PathBuf, Vec<String>)> {
    let file = file.display().to_string();
    if !rustix::process::geteuid().is_root() {
        return Ok((patroni.to_owned(), vec![file]));
    }
    // The kernel forgets who is to die with whom when the user changes.
    let words = ["--reuid", USER, "--regid", USER, "--init-groups", "--pdeathsig", "KILL", "--"].map(str::to_owned);
    Ok((need("setpriv")?, words.into_iter().chain([patroni.display().to_string(), file]).collect()))
}

fn need(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("`{name}` is not on PATH; `scripts/setup bench` installs it"))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
