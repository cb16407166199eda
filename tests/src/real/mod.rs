//! What the tests with real Consul, Redis, agents and proxies share: a rig that shows its logs when a test fails,
//! databases seen with one's own eyes, and the `understudy` program run as an operator runs it.

mod front;
mod gate;
mod lone;
mod mariadb;
mod postgres;
mod script;
mod servers;
mod sight;
mod worst;

pub use front::{Front, counted};
pub use gate::{Gate, Way};
pub use lone::{Lone, adopting, of, working_in};
pub use mariadb::{Sql, as_agent, as_client};
pub use postgres::{commit_waits, connect_postgres, execute, select, stop_sender};
pub use script::{ROUNDS, Report, Script, swing};
pub use servers::{Server, leader, servers};
pub use sight::{attached, connect, connect_as, info, info_number, services, until};
pub use worst::{contents, copy, send};

use anyhow::{Context, Result};
use cli::page::GroupStatus;
use cli::rig::{Builder, Rig, RigError, Writer, http, output, understudy_binary};
use config::Engine;
use election::HistoryEntry;
use redis::aio::MultiplexedConnection;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long any state may take: generous, since a loaded machine is slow and not wrong.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a program that is run to its end may take: longer than any of ours waits by itself.
pub const ENDED_WITHIN: Duration = Duration::from_secs(300);

/// Writes that make a client one in full swing: a second's worth.
pub const SWING: usize = 150;

/// Often enough to see a role that changes and changes back, seldom enough to leave the machine to the group.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A rig that shows its logs when the test fails.
pub struct Story {
    rig: Rig,
}

/// Begins a rig of the program under test.
///
/// # Errors
/// When the program was not built.
pub fn build() -> Result<Builder> {
    Ok(Rig::builder(understudy_binary()?))
}

/// Begins a rig of a small group whose faults may follow each other.
///
/// # Errors
/// The same.
pub fn quick(engine: Engine) -> Result<Builder> {
    let builder = build()?.engine(engine).policy("flap_pause", "\"1s\"");
    Ok(match engine {
        Engine::Mariadb => builder.setting("innodb_buffer_pool_size", "\"16M\""),
        _ => builder,
    })
}

/// The master of an `async` group dies under load: its hot replica goes on, and the history says what may be lost.
///
/// # Errors
/// When it is otherwise.
pub async fn async_master_dies(story: &Story) -> Result<()> {
    let before = story.cast().await?;
    let writer = story.client("async").await?;
    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    anyhow::ensure!(status.active_master() == Some(before.hot.as_str()), "{:?} took over", status.active_master());
    writes_go_on(&writer, died).await?;
    let last = story.history().await?.pop().context("no history")?;
    anyhow::ensure!(last.data_loss.is_some(), "the history does not say what may be lost");
    story.cast().await?;
    Ok(())
}

/// Waits until `writer` is in full swing again, counted from `since`.
///
/// # Errors
/// When its writes are not acknowledged.
pub async fn writes_go_on(writer: &Writer, since: Instant) -> Result<()> {
    Ok(writer.wait_for_acks(SWING, since, LIMIT).await?)
}

/// Starts a rig and waits until its group is whole.
///
/// # Errors
/// When it does not get there.
pub async fn start(builder: Builder) -> Result<Story> {
    Ok(Story { rig: builder.start().await? })
}

/// Starts a rig and waits only for Consul.
///
/// # Errors
/// When Consul or a process cannot be started.
pub async fn start_unready(builder: Builder) -> Result<Story> {
    Ok(Story { rig: builder.start_unready().await? })
}

/// Who plays what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The epoch.
    pub epoch: u64,
    /// The master.
    pub master: String,
    /// The certified hot replica.
    pub hot: String,
    /// All others, by name.
    pub spares: Vec<String>,
}

/// What a run of the program left behind.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Story {
    /// Waits until the group is whole and says who plays what.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn cast(&self) -> Result<Cast> {
        let status = self.rig.wait_whole(LIMIT).await?;
        cast_of(&status).context("a whole group without a hot replica")
    }

    /// Waits until another node than `old` is the active master, and gives the status then.
    ///
    /// # Errors
    /// When nobody takes over.
    pub async fn taken_over(&self, old: &str) -> Result<GroupStatus> {
        let what = format!("another master than {old}");
        Ok(self.rig.wait_until(&what, LIMIT, |s| s.active_master().is_some_and(|m| m != old)).await?)
    }

    /// Waits until the chain of design holds with one's own eyes: the master feeds the hot replica and nobody else,
    /// the hot replica feeds all the spares.
    ///
    /// # Errors
    /// When it does not come about.
    pub async fn chain(&self, cast: &Cast) -> Result<()> {
        let port = |node: &String| self.rig.database_addr(node).map(|a| a.port());
        let hot = vec![port(&cast.hot)?];
        let mut spares = cast.spares.iter().map(port).collect::<Result<Vec<_>, RigError>>()?;
        spares.sort_unstable();
        until(&format!("the chain {cast:?}"), async || {
            let behind_master = self.fed_by(&cast.master).await?;
            let behind_hot = self.fed_by(&cast.hot).await?;
            anyhow::ensure!(behind_master == hot, "behind the master: {behind_master:?}, not {hot:?}");
            anyhow::ensure!(behind_hot == spares, "behind the hot replica: {behind_hot:?}, not {spares:?}");
            Ok(Some(()))
        })
        .await
    }

    /// The ports of the copies that a node's database feeds, in order.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn fed_by(&self, node: &str) -> Result<Vec<u16>> {
        let address = self.rig.database_addr(node)?;
        let ports = match self.rig.engine() {
            Engine::Redis => return attached(address).await,
            Engine::Postgres => {
                let sql = "SELECT split_part(split_part(application_name, '/', 1), ':', 2) FROM pg_stat_replication
                           WHERE state = 'streaming'";
                select(address, sql).await?
            }
            Engine::Mariadb => as_agent(self, node).await?.column("SHOW SLAVE HOSTS", "Port").await?,
        };
        let mut ports = ports.iter().map(|port| port.parse()).collect::<Result<Vec<u16>, _>>()?;
        ports.sort_unstable();
        Ok(ports)
    }

    /// A client in full swing through the proxy.
    ///
    /// # Errors
    /// When its writes are not acknowledged.
    pub async fn client(&self, prefix: &str) -> Result<Writer> {
        let writer = self.rig.writer(prefix);
        writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
        Ok(writer)
    }

    /// Waits until `writer` is in full swing again, ends it, and gives how many of its acknowledged writes the group
    /// does not have.
    ///
    /// # Errors
    /// When writes do not go on, or cannot be read back.
    pub async fn lost(&self, writer: &mut Writer) -> Result<usize> {
        writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
        writer.stop();
        Ok(writer.missing(self.rig.proxy_addr()).await?.len())
    }

    /// The stories of the group's epochs, the oldest first.
    ///
    /// # Errors
    /// When Consul does not give them.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>> {
        Ok(self.rig.store()?.group(self.rig.group()).await?.history)
    }

    /// What the agent of a node says of its instance.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn agent(&self, node: &str) -> Result<agent::api::InstanceStatus> {
        let url = format!("http://{}/status", self.rig.agent_http(node)?);
        let page: agent::api::AgentStatus = http().get(url).send().await?.error_for_status()?.json().await?;
        page.instances.into_iter().next().context("an agent without an instance")
    }

    /// A connection to a node's running database, as its agent makes it: it may do what clients may not.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn as_agent(&self, node: &str) -> Result<MultiplexedConnection> {
        let file = self.rig.folder().join(node).join("agent").join(format!("{}.secret", self.rig.group()));
        let password = std::fs::read_to_string(&file)?;
        connect_as(self.rig.database_addr(node)?, "understudy", password.trim()).await
    }

    /// A setting of a node's running database, asked for as its agent would: clients may not see settings.
    ///
    /// # Errors
    /// When it does not answer, or has no such setting.
    pub async fn setting(&self, node: &str, key: &str) -> Result<String> {
        let mut agent = self.as_agent(node).await?;
        let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(key).query_async(&mut agent).await?;
        pair.into_iter().nth(1).with_context(|| format!("no setting {key}"))
    }

    /// For `time`, at every look, the databases that answer have the roles of `cast`.
    ///
    /// # Errors
    /// When something changed.
    pub async fn nothing_changes(&self, cast: &Cast, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for node in self.rig.node_names() {
                let Ok(info) = info(self.rig.database_addr(&node)?, "replication").await else { continue };
                let role = info.get("role").map(String::as_str);
                let wanted = if node == cast.master { "master" } else { "slave" };
                anyhow::ensure!(role == Some(wanted), "{node} is {role:?}, not {wanted}\n{}", self.rig.logs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Runs `understudy` as an operator of this rig's group would.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn understudy(&self, args: &[&str]) -> Result<Said> {
        let consul = self.rig.consul_address();
        run(&[args, &["--consul", consul.as_str()]].concat())
    }

    /// Rewrites a node's file by replacing `from` with `to`; takes effect when its agent is started again.
    ///
    /// # Errors
    /// When `from` does not stand in it.
    pub fn edit(&self, node: &str, from: &str, to: &str) -> Result<()> {
        let file = self.file(node);
        let text = std::fs::read_to_string(&file)?;
        anyhow::ensure!(text.contains(from), "{from} does not stand in {}", file.display());
        Ok(std::fs::write(&file, text.replace(from, to))?)
    }

    /// A node's file.
    pub fn file(&self, node: &str) -> PathBuf {
        self.rig.folder().join(node).join("agent.toml")
    }

    /// A process's whole log.
    ///
    /// # Errors
    /// When there is none.
    pub fn log(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.rig.folder().join("logs").join(format!("{name}.log")))?)
    }
}

impl Deref for Story {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl DerefMut for Story {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.rig.logs());
        }
    }
}

impl Said {
    /// Whether it failed as a command should: with `code`, nothing on standard output, and one sentence that holds
    /// all of `words`. The text says what is wrong otherwise.
    ///
    /// # Errors
    /// When it did not.
    pub fn refused(&self, code: i32, words: &[&str]) -> Result<()> {
        anyhow::ensure!(self.code == code, "exit code {}, not {code}: {self:?}", self.code);
        anyhow::ensure!(self.out.is_empty(), "something on standard output: {self:?}");
        anyhow::ensure!(self.err.trim_end().lines().count() == 1, "not one sentence: {self:?}");
        self.holds(words)
    }

    /// Whether all of `words` were said.
    ///
    /// # Errors
    /// When one was not.
    pub fn holds(&self, words: &[&str]) -> Result<()> {
        for word in words {
            anyhow::ensure!(self.out.contains(word) || self.err.contains(word), "`{word}` is missing: {self:?}");
        }
        Ok(())
    }
}

/// Runs `understudy` and waits for its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(args: &[&str]) -> Result<Said> {
    let mut command = Command::new(understudy_binary()?);
    said(command.args(args))
}

/// Runs any command and waits for its end.
///
/// # Errors
/// When it cannot be started.
pub fn said(command: &mut Command) -> Result<Said> {
    let output = output(command, ENDED_WITHIN).with_context(|| format!("{command:?}"))?;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Who plays what by a status; nothing when master or hot replica is missing.
pub fn cast_of(status: &GroupStatus) -> Option<Cast> {
    let (master, hot) = (status.active_master()?.to_owned(), status.hot_replica()?.to_owned());
    let others = status.members.iter().map(|m| m.id.to_string()).filter(|id| *id != master && *id != hot);
    Some(Cast { epoch: status.epoch, spares: others.collect(), master, hot })
}
