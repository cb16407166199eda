//! The libraries that people use, on the proxy's Redis protocol: the master is killed and replaced as planned while each
//! uses pipelines, transactions, scripts, blocking pops and pub/sub. A killed master may cost them a connection; a
//! planned switchover costs nothing, at a patience of one second; and nothing acknowledged is ever lost.

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ProtocolVersion, RedisResult};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use understudy_tests::real::{LIMIT, Story, build, start, until};

/// How many rounds of all its ways make a client one in full swing.
const ROUNDS: u64 = 5;

/// Patience of a client over a planned switchover.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client's word on itself.
#[derive(Debug, Clone, Deserialize)]
struct Report {
    /// Times that it went through all its ways without an error.
    rounds: u64,
    /// Times that something failed.
    errors: u64,
    /// The last that did.
    last: Vec<String>,
    /// Values that were acknowledged; told at the end.
    #[serde(default)]
    written: u64,
    /// Those of them that are not there at the end.
    #[serde(default)]
    lost: Vec<String>,
}

/// A client in a process of its own.
struct Client {
    name: String,
    _process: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(name: &str, program: &Path, script: &str, address: SocketAddr, protocol: Option<u8>) -> Result<Self> {
        let script = folder().join(script);
        let mut process = Command::new(program)
            .arg(&script)
            .args([address.ip().to_string(), address.port().to_string()])
            .args(protocol.map(|p| p.to_string()))
            // Where Debian keeps the libraries of its packages.
            .env("NODE_PATH", "/usr/share/nodejs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} {}: run scripts/setup", program.display(), script.display()))?;
        let orders = process.stdin.take().context("no standard input")?;
        let reports = BufReader::new(process.stdout.take().context("no standard output")?).lines();
        Ok(Self { name: name.to_owned(), _process: process, orders, reports })
    }

    async fn ask(&mut self, word: &str) -> Result<Report> {
        self.orders.write_all(format!("{word}\n").as_bytes()).await.with_context(|| self.name.clone())?;
        let line =
            timeout(LIMIT, self.reports.next_line()).await.with_context(|| format!("{} is silent", self.name))??;
        let line = line.with_context(|| format!("{} has ended; see its words above", self.name))?;
        serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.name))
    }

    /// Waits until it is through some more rounds, and gives its word then.
    async fn swing(&mut self) -> Result<Report> {
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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn all(address: SocketAddr) -> Result<Vec<Client>> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/clients/bin/python");
    let node = Path::new("node");
    Ok(vec![
        Client::start("redis-py, RESP2", &python, "redis_py.py", address, Some(2))?,
        Client::start("redis-py, RESP3", &python, "redis_py.py", address, Some(3))?,
        Client::start("redis-py with asyncio, RESP2", &python, "redis_py_asyncio.py", address, Some(2))?,
        Client::start("redis-py with asyncio, RESP3", &python, "redis_py_asyncio.py", address, Some(3))?,
        Client::start("node-redis", node, "node_redis.js", address, None)?,
    ])
}

async fn swing(clients: &mut [Client]) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for client in clients {
        reports.push(client.swing().await?);
    }
    Ok(reports)
}

async fn group() -> Result<Story> {
    start(build()?.nodes(3).listener("protocol = \"redis\"").policy("flap_pause", "\"1s\"")).await
}

#[tokio::test]
async fn libraries_survive_a_killed_master_and_do_not_notice_a_switchover() -> Result<()> {
    let story = group().await?;
    let mut clients = all(story.proxy_addr())?;
    swing(&mut clients).await?;

    let before = story.cast().await?;
    story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    swing(&mut clients).await?;

    let whole = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let before = swing(&mut clients).await?;
    let said = story.understudy(&["switchover", story.group()])?;
    ensure!(said.code == 0, "{said:?}");
    story.taken_over(&whole.master).await?;
    let after = swing(&mut clients).await?;
    for ((client, before), after) in clients.iter().zip(&before).zip(&after) {
        assert_eq!(before.errors, after.errors, "{} noticed the switchover: {:?}", client.name, after.last);
    }
    for client in &mut clients {
        let end = client.ask("stop").await?;
        assert!(end.written > 0 && end.lost.is_empty(), "{}: {end:?}", client.name);
    }
    Ok(())
}

async fn rust_client(address: SocketAddr, protocol: ProtocolVersion) -> Result<MultiplexedConnection> {
    until("a connection of the redis crate", async || {
        let settings = redis::RedisConnectionInfo::default().set_protocol(protocol);
        let address = redis::ConnectionAddr::Tcp(address.ip().to_string(), address.port());
        let info = redis::IntoConnectionInfo::into_connection_info(address)?.set_redis_settings(settings);
        let mut client = redis::Client::open(info)?.get_multiplexed_async_connection().await?;
        client.set_response_timeout(PATIENCE);
        Ok(Some(client))
    })
    .await
}

/// Goes through the ways of the `redis` crate once.
async fn round(client: &mut MultiplexedConnection, key: &str, number: u64) -> RedisResult<()> {
    let () = client.set(key, number).await?;
    let got: (u64, u64) = redis::pipe().atomic().incr(key, 1).incr(key, 1).query_async(client).await?;
    assert_eq!(got, (number + 1, number + 2));
    let got: Vec<u64> = redis::pipe().get(key).cmd("ECHO").arg(7).get(key).query_async(client).await?;
    assert_eq!(got, [number + 2, 7, number + 2]);
    let got: u64 = redis::Script::new("return redis.call('INCR', KEYS[1])").key(key).invoke_async(client).await?;
    assert_eq!(got, number + 3);
    let queue = format!("{key}:queue");
    let () = client.rpush(&queue, number).await?;
    let got: (String, u64) = client.blpop(&queue, 0.5).await?;
    assert_eq!(got, (queue, number));
    Ok(())
}

#[tokio::test]
async fn the_redis_crate_speaks_both_protocols_over_a_failover() -> Result<()> {
    let story = group().await?;
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let mut client = rust_client(story.proxy_addr(), protocol).await?;
        for number in 0..ROUNDS {
            round(&mut client, &format!("{protocol:?}:before:{number}"), number).await?;
        }
        let before = story.cast().await?;
        story.wait_calm(LIMIT).await?;
        story.kill_database(&before.master)?;
        story.taken_over(&before.master).await?;
        // Its connection was free when the master died, so that it may well go on; if it does not, a new one does.
        let mut number = 0;
        until("rounds after the failover", async || {
            number += 1;
            let mut client = rust_client(story.proxy_addr(), protocol).await?;
            Ok(Some(round(&mut client, &format!("{protocol:?}:after:{number}"), number).await?))
        })
        .await?;
        for number in 0..ROUNDS {
            let mut client = rust_client(story.proxy_addr(), protocol).await?;
            let kept: u64 = client.get(format!("{protocol:?}:before:{number}")).await?;
            assert_eq!(kept, number + 3, "{protocol:?}");
        }
        story.cast().await?;
    }
    Ok(())
}
