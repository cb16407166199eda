//! One group, and what stands before its master: our proxy in each mode, and the peers.

use super::super::sql;
use super::super::usage::Usage;
use super::case::{LARGE_BYTES, LARGE_KEY};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use cli::rig::{Process, Rig, free_port, program, understudy_binary};
use cli::store::Put;
use config::Engine;
use election::{Durability, Policy};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GROUP: &str = "bench";

/// The one above the user's, where the agent says whether replies need the hot replica.
const MARKER_DATABASE: u32 = 16;

/// Any state that is waited for.
const LIMIT: Duration = Duration::from_secs(90);

/// A proxy that lets a request wait longer than this does not serve it.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What stands between the client and the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Front {
    /// Nothing.
    Direct,
    Peer(Peer),
    Understudy(Mode),
}

/// Somebody else's proxy, with one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// HAProxy in TCP mode.
    Haproxy,
    /// nutcracker before one server.
    Twemproxy,
}

/// What our proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Mode {
    /// Carries bytes.
    Tcp,
    /// Understands requests; the group's policy is `async` meanwhile.
    Redis,
    /// The same while the policy is `sync`: replies wait for the hot replica.
    RedisDurable,
    /// Reads a PostgreSQL's messages just enough to keep its promises.
    Postgres,
}

impl Peer {
    /// Whether it can stand before this engine.
    pub(crate) fn carries(self, engine: Engine) -> bool {
        self == Peer::Haproxy || engine == Engine::Redis
    }
}

impl Mode {
    /// Whether it can stand before this engine.
    pub(crate) fn carries(self, engine: Engine) -> bool {
        match self {
            Mode::Tcp => true,
            Mode::Redis | Mode::RedisDurable => engine == Engine::Redis,
            Mode::Postgres => engine == Engine::Postgres,
        }
    }
}

impl Front {
    pub(crate) fn system(self) -> &'static str {
        match self {
            Front::Direct => "direct",
            Front::Peer(Peer::Haproxy) => "haproxy",
            Front::Peer(Peer::Twemproxy) => "twemproxy",
            Front::Understudy(_) => "understudy",
        }
    }

    pub(crate) fn mode(self) -> &'static str {
        match self {
            Front::Direct | Front::Peer(Peer::Haproxy) | Front::Understudy(Mode::Tcp) => "tcp",
            Front::Peer(Peer::Twemproxy) | Front::Understudy(Mode::Redis) => "redis",
            Front::Understudy(Mode::RedisDurable) => "redis-durable",
            Front::Understudy(Mode::Postgres) => "postgres",
        }
    }

    fn durability(self) -> Durability {
        if self == Front::Understudy(Mode::Redis) { Durability::Async } else { Durability::Sync }
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.system(), self.mode())
    }
}

/// A group of two nodes: the second one's database is the hot replica.
pub(super) struct Stage {
    engine: Engine,
    rig: Rig,
    master: SocketAddr,
    databases: Vec<SocketAddr>,
    started: u32,
    /// The policy in force.
    durability: Durability,
}

/// What clients connect to: the master itself, or a proxy before it.
pub(super) struct Server {
    port: u16,
    process: Option<Process>,
}

impl Server {
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// What the proxy has used so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.process.as_ref().context("nothing stands before the master")?.pid())
    }
}

impl Stage {
    pub(super) async fn start(engine: Engine) -> Result<Self> {
        let mut builder = Rig::builder(understudy_binary()?).engine(engine).group(GROUP).nodes(2).proxies(0);
        if engine == Engine::Redis {
            // That one is started in the middle of a measurement must not happen; they are asked for in between.
            builder = builder.setting("auto-aof-rewrite-percentage", "0");
        }
        let rig = builder.start().await?;
        let status = rig.wait_whole(LIMIT).await?;
        let master = rig.database_addr(status.active_master().context("a whole group has a master")?)?;
        let databases = rig.node_names().iter().map(|node| rig.database_addr(node)).collect::<Result<_, _>>()?;
        let stage = Self { engine, rig, master, databases, started: 0, durability: Durability::Sync };
        if engine == Engine::Redis {
            let mut connection = connect(stage.master).await?;
            redis::cmd("SET").arg(LARGE_KEY).arg(vec![b'x'; LARGE_BYTES]).query_async::<()>(&mut connection).await?;
        }
        Ok(stage)
    }

    /// Where the master listens.
    pub(super) fn master(&self) -> SocketAddr {
        self.master
    }

    /// Starts a proxy anew, and waits until a request passes through it.
    pub(super) async fn put_up(&mut self, front: Front) -> Result<Server> {
        let port = free_port()?;
        let server = match front {
            Front::Direct => Server { port: self.master.port(), process: None },
            Front::Peer(Peer::Haproxy) => Server { port, process: Some(self.haproxy(port)?) },
            Front::Peer(Peer::Twemproxy) => Server { port, process: Some(self.twemproxy(port)?) },
            Front::Understudy(Mode::Tcp) => Server { port, process: Some(self.understudy("tcp", port)?) },
            Front::Understudy(Mode::Postgres) => Server { port, process: Some(self.understudy("postgres", port)?) },
            Front::Understudy(Mode::Redis | Mode::RedisDurable) => {
                Server { port, process: Some(self.understudy("redis", port)?) }
            }
        };
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = self.passes(server.address()).await {
            if Instant::now() > deadline || server.process.as_ref().is_some_and(Process::has_ended) {
                let log = server.process.as_ref().map(|p| fs::read_to_string(p.log()).unwrap_or_default());
                bail!("{front} carries no request to the master ({error:#}): {}", log.unwrap_or_default());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(server)
    }

    /// Whether a request reaches the master and its answer comes back.
    async fn passes(&self, address: SocketAddr) -> Result<()> {
        match self.engine {
            Engine::Redis => connect_through(address).map(drop),
            engine => sql::answers(engine, address).await,
        }
    }

    /// Writes Redis' append-only files anew, so that every measurement begins with the same ones. The others' cases write
    /// nothing.
    pub(super) async fn tidy_up(&self) -> Result<()> {
        if self.engine != Engine::Redis {
            return Ok(());
        }
        for database in &self.databases {
            let mut connection = connect(*database).await?;
            redis::cmd("BGREWRITEAOF").query_async::<()>(&mut connection).await?;
        }
        let deadline = Instant::now() + LIMIT;
        for database in &self.databases {
            let mut connection = connect(*database).await?;
            loop {
                let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await?;
                if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
                    break;
                }
                ensure!(Instant::now() < deadline, "an append-only file is not written anew: {info}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Gives the group the policy that belongs to a front, and waits until its agent has put it into force. The replica
    /// stays attached either way: only what replies wait for differs.
    pub(super) async fn prepare(&mut self, front: Front) -> Result<()> {
        let wanted = front.durability();
        if self.durability == wanted {
            return Ok(());
        }
        let store = self.rig.store()?;
        let group = store.group(GROUP).await?;
        let (policy, index) = group.view.policy.context("a group has a policy")?;
        let policy = Policy { durability: wanted, ..policy };
        ensure!(
            store.put_policy(&GROUP.into(), &policy, index).await? == Put::Done,
            "somebody else changes the policy"
        );
        let need = if policy.is_sync() { "1" } else { "0" };
        let mut connection = connect(self.master).await?;
        redis::cmd("SELECT").arg(MARKER_DATABASE).query_async::<()>(&mut connection).await?;
        let deadline = Instant::now() + LIMIT;
        while redis::cmd("GET").arg("understudy:need").query_async::<String>(&mut connection).await? != need {
            ensure!(Instant::now() < deadline, "the policy `{wanted:?}` does not come into force: {}", self.rig.logs());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.rig.wait_whole(LIMIT).await?;
        self.durability = wanted;
        Ok(())
    }

    fn haproxy(&mut self, port: u16) -> Result<Process> {
        // As many connections as an idle case needs; a client costs two descriptors.
        let text = format!(
            "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\nlisten database\n  bind 127.0.0.1:{port}\n  server master {}\n",
            self.master
        );
        let (folder, file) = self.file("haproxy", "haproxy.cfg", &text)?;
        self.process("haproxy", &need("haproxy")?, &["-db", "-f", &file], &folder)
    }

    fn twemproxy(&mut self, port: u16) -> Result<Process> {
        let text = format!(
            "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  \
             preconnect: true\n  backlog: 1024\n  servers:\n   - {}:1\n",
            self.master
        );
        let (folder, file) = self.file("twemproxy", "nutcracker.yml", &text)?;
        let statistics = free_port()?.to_string();
        self.process("twemproxy", &need("nutcracker")?, &["-c", &file, "-a", "127.0.0.1", "-s", &statistics], &folder)
    }

    fn understudy(&mut self, protocol: &str, port: u16) -> Result<Process> {
        let text = format!(
            "[proxy]\nname = \"{protocol}{}\"\naddress = \"127.0.0.1\"\n\n[consul]\naddresses = [\"{}\"]\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\n\
             groups = [\"{GROUP}\"]\nrole = \"master\"\nprotocol = \"{protocol}\"\n",
            self.started,
            self.rig.consul_address(),
            free_port()?
        );
        let (folder, file) = self.file(protocol, "proxy.toml", &text)?;
        self.process(protocol, &understudy_binary()?, &["proxy", "--config", &file], &folder)
    }

    /// A folder of its own and a file in it.
    fn file(&mut self, who: &str, name: &str, text: &str) -> Result<(PathBuf, String)> {
        self.started += 1;
        let folder = self.rig.folder().join(format!("{who}-{}", self.started));
        fs::create_dir(&folder)?;
        let file = folder.join(name);
        fs::write(&file, text)?;
        Ok((folder, file.to_string_lossy().into_owned()))
    }

    fn process(&self, name: &str, program: &Path, args: &[&str], folder: &Path) -> Result<Process> {
        Ok(Process::start(name, program, args, folder, &folder.join("log"))?)
    }
}

/// The path of a program that only this benchmark needs.
pub(super) fn need(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("`{name}` is not on PATH; `scripts/setup bench` installs it"))
}

/// A connection that has been carried to the database: its answer has come back. By hand, since client libraries begin
/// with commands that twemproxy does not know, and answers by closing.
pub(super) fn connect_through(server: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"*2\r\n$3\r\nGET\r\n$10\r\nbench:none\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"$-1\r\n", "an unexpected answer: {:?}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

async fn connect(server: SocketAddr) -> Result<redis::aio::MultiplexedConnection> {
    // Writing a value of 1 MiB on a busy machine takes longer than the library's own limit allows.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT));
    let client = redis::Client::open(format!("redis://{server}/"))?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
