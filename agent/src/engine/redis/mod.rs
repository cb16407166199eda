//! Redis and Valkey: one process, its folder, and what this agent has done to it.

mod accounts;
mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hold;
mod link;
mod marker;
mod ops;
mod probe;
mod program;
mod tear;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{EngineOp, Incarnation, Secret, Status};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use self::config::Plan;
use self::link::{Link, Target};
use self::probe::{Answers, Info, Memo};
use self::program::Program;
use self::tear::Tear;
use super::setup::Setup;
use super::supervise::{Life, Supervisor};
use super::{Engine, EngineError, KEPT, OP_LIMIT, PROBE_LIMIT, Site, folder, within};

/// How long an orderly end may take: the append-only file is put on disk in it.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often a starting server is asked whether it answers: it takes some 10 ms.
const START_POLL: Duration = Duration::from_millis(5);

/// The log, in the data folder.
const LOG: &str = "redis.log";

/// One Redis instance.
#[derive(Debug)]
pub struct Redis {
    setup: Setup,
    program: Program,
    supervisor: Supervisor,
    link: Option<Link>,
    target: Target,
    /// What was done to the run of the process that `heard_from` names.
    memo: Memo,
    /// The run that answered last; `None` before the process of now has answered.
    heard_from: Option<Incarnation>,
    /// When it did.
    heard: Option<Instant>,
    /// What it said.
    last: Option<Status>,
    version: String,
    /// The refused login has been told of.
    warned: bool,
    /// The last answer said that the append-only file is being rewritten.
    rewriting: bool,
    /// The newest epoch whose data set is kept in the folder.
    kept: Option<u64>,
}

impl Redis {
    /// See [`Database::open`](super::Database::open).
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn open(instance: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        let setup = Setup::new(instance, site, None)?;
        let program = Program::find(instance.bin.as_deref()).await?;
        setup.check()?;
        let target = Target {
            port: setup.port,
            database: config::marker_database(&setup.settings),
            password: setup.agent_password()?,
        };
        let mut supervisor = Supervisor::new(setup.own_file("run.json"));
        if supervisor.find(setup.port, |exe| program.is_server(exe))? {
            info!(group = setup.group, "found the database of an earlier run of this agent");
        }
        Ok(Self {
            rewriting: false,
            kept: folder::kept(&setup.data_dir, KEPT),
            version: program.version.clone(),
            setup,
            program,
            supervisor,
            link: None,
            target,
            memo: Memo::default(),
            heard_from: None,
            heard: None,
            last: None,
            warned: false,
        })
    }

    /// The link, made anew when there is none. Who answers may be another run than the one before.
    async fn link(&mut self) -> Result<&mut Link, redis::RedisError> {
        if self.link.is_none() {
            let link = Link::open(&self.target).await?;
            if self.heard_from.as_ref() != Some(&link.incarnation) {
                let held_until = hold::recall(&self.setup.own_file("held.json"), &link.incarnation);
                self.memo = Memo { held_until, ..Memo::default() };
                self.heard_from = Some(link.incarnation.clone());
            }
            self.link = Some(link);
        }
        self.link.as_mut().ok_or_else(|| redis::RedisError::from(io::Error::from(io::ErrorKind::NotConnected)))
    }

    /// One question, one answer.
    async fn look(&mut self) -> Result<Status, redis::RedisError> {
        // Looked for before and after: the rewrite may end in between. Not before while none was known of: this is asked
        // several times a second for years, and one that begins and ends within a look is seen to have failed in the next.
        let collecting = self.rewriting && self.setup.is_first_rewrite().await;
        let values = self.link().await?.ask(&probe::request()).await?;
        if is_busy(&values)
            && let Some(last) = self.last.clone().filter(|last| self.heard_from.as_ref() == Some(&last.incarnation))
        {
            // A script runs: the process lives, and nothing has changed but what the script has done.
            return Ok(last);
        }
        let no_info = || redis::RedisError::from(io::Error::other("the server did not answer INFO"));
        let answers = Answers::read(values).ok_or_else(no_info)?;
        let info = Info::read(&answers.info);
        self.rewriting = probe::is_rewriting(&info);
        self.memo.tear = self.memo.tear.after(&info);
        if self.memo.tear.wants_rewrite(&info) {
            let mut commands = redis::pipe();
            commands.cmd("BGREWRITEAOF");
            let asked = self.link().await?.run(&commands).await.is_ok();
            let now = Instant::now();
            self.memo.tear = if asked { Tear::Mending(now) } else { Tear::Torn(Some(now)) };
        }
        let first_rewrite = self.rewriting && (collecting || self.setup.is_first_rewrite().await);
        let status = probe::status(&answers, &info, &self.memo, self.target.database, first_rewrite);
        let status = Status { kept: self.kept, ..status };
        // Only where the data was never in one: after a copy that failed, what is on disk is the last whole data.
        if probe::lacks_append_only(&status, &info) && self.setup.has_snapshot_only() {
            let mut commands = redis::pipe();
            commands.cmd("CONFIG").arg("SET").arg("appendonly").arg("yes");
            self.link().await?.run(&commands).await?;
        }
        self.last = Some(status.clone());
        Ok(status)
    }

    /// The same, and once more on a new connection when an old one has ended: a client may have ended it.
    async fn look_again(&mut self) -> Result<Status, redis::RedisError> {
        let old = self.link.is_some();
        match self.look().await {
            Err(_) if old => {
                self.link = None;
                self.look().await
            }
            seen => seen,
        }
    }

    /// Makes the process run, and waits until it answers.
    async fn start(&mut self) -> Result<(), EngineError> {
        if self.supervisor.life().ended().is_some() && !self.adopt_by_port().await? {
            self.launch()?;
        }
        loop {
            match self.link().await {
                Ok(_) => return Ok(()),
                // The agent's own account is in the generated file: whoever refuses it is not the process started here,
                // which will find the port taken and end.
                Err(e) => tracing::trace!(group = self.setup.group, error = %e, "not answering yet"),
            }
            self.supervisor.still_runs(START_POLL).await?;
        }
    }

    /// Takes over a process that runs with this agent's password on this instance's port and folder, although there is
    /// no run file: the agent before this one may have ended between starting it and writing that down.
    async fn adopt_by_port(&mut self) -> Result<bool, EngineError> {
        let Ok(Ok(mut link)) = timeout(PROBE_LIMIT, Link::open(&self.target)).await else { return Ok(false) };
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg("GET").arg("dir");
        let Ok(Ok(values)) = timeout(PROBE_LIMIT, link.run(&commands)).await else { return Ok(false) };
        let dir: Vec<String> =
            values.into_iter().next().and_then(|v| redis::from_redis_value(v).ok()).unwrap_or_default();
        let same = dir.last().is_some_and(|dir| {
            let real = |path: &Path| path.canonicalize().ok();
            real(Path::new(dir)).is_some_and(|d| real(&self.setup.data_dir) == Some(d))
        });
        Ok(same && self.supervisor.adopt(link.pid, self.setup.port)?)
    }

    /// Starts a new process.
    fn launch(&mut self) -> Result<(), EngineError> {
        let setup = &self.setup;
        setup.claim(|| Ok(()))?;
        let clients = setup.client_password()?;
        let file = setup.own_file("redis.conf");
        let text = config::generate(&Plan {
            address: &setup.site.address,
            port: setup.port,
            data_dir: &setup.data_dir,
            settings: &setup.settings,
            clients: clients.as_ref().map(Secret::reveal),
            agent: self.target.password.reveal(),
            from_snapshot: setup.has_snapshot_only(),
        });
        folder::write_private(&file, text.as_bytes())?;
        self.link = None;
        self.memo = Memo::default();
        self.heard = None;
        self.heard_from = None;
        let mut command = Command::new(&self.program.path);
        command.arg(&file).current_dir(&setup.data_dir);
        self.supervisor.spawn(command, None, &setup.data_dir.join(LOG), setup.port)
    }

    /// Ends the process in an orderly way; one that takes too long, or does not listen, is killed.
    async fn stop(&mut self) -> Result<(), EngineError> {
        if self.supervisor.life().ended().is_some() {
            return Ok(());
        }
        // Its answer is that the connection ends.
        let mut commands = redis::pipe();
        commands.cmd("SHUTDOWN").arg("NOW").arg("FORCE");
        if let Ok(link) = self.link().await {
            let _ = timeout(PROBE_LIMIT, link.run(&commands)).await;
        }
        self.link = None;
        self.supervisor.end_within(STOP_LIMIT).await
    }

    /// Ends the process and removes everything in the folder but what says that it is ours.
    async fn reset(&mut self) -> Result<(), EngineError> {
        self.link = None;
        self.supervisor.kill().await?;
        self.setup.clear(LOG).await
    }

    /// What an answer that did not come makes of the instance.
    async fn unanswered(&mut self, broken: bool) -> election::Engine {
        self.link = None;
        let life = self.supervisor.life_after(broken).await;
        if broken && life.ended().is_none() && link::is_crowded(self.setup.port).await {
            // An answer, though not one that says much: it is no reason to kill the process.
            self.heard = Some(Instant::now());
        }
        match life {
            Life::Down { why } => self.setup.at_rest(why),
            Life::Running { since, .. } => {
                self.setup.silent(self.heard, since, self.heard.and(self.heard_from.clone()))
            }
        }
    }
}

impl Engine for Redis {
    async fn probe(&mut self) -> election::Engine {
        if let Life::Down { why } = self.supervisor.life() {
            self.link = None;
            return self.setup.at_rest(why);
        }
        match timeout(PROBE_LIMIT, self.look_again()).await {
            Ok(Ok(status)) => {
                self.heard = Some(Instant::now());
                self.warned = false;
                self.version.clone_from(&status.version);
                election::Engine::Up(Box::new(status))
            }
            Ok(Err(error)) => {
                if is_login_refused(&error) && !self.warned {
                    self.warned = true;
                    warn!(
                        group = self.setup.group,
                        file = %self.setup.own_file("secret").display(),
                        "the running database refuses this agent's password: the file was lost or changed"
                    );
                }
                self.unanswered(true).await
            }
            Err(_) => self.unanswered(false).await,
        }
    }

    async fn apply(&mut self, op: &EngineOp) -> Result<(), EngineError> {
        match op {
            EngineOp::Kill => {
                self.link = None;
                return self.supervisor.kill().await;
            }
            EngineOp::Stop => return self.stop().await,
            EngineOp::Reset => return self.reset().await,
            _ => {}
        }
        if let (Life::Down { why }, false) = (self.supervisor.life(), matches!(op, EngineOp::Start)) {
            return Err(EngineError::NotRunning { op: op.name(), why });
        }
        let done = within(OP_LIMIT, op.name(), async {
            if matches!(op, EngineOp::Start) { self.start().await } else { ops::apply(self, op).await }
        })
        .await;
        if let Err(EngineError::Timeout { .. } | EngineError::Connection { .. }) = done {
            // A request that waits would hold up all that come after it on this connection.
            self.link = None;
        }
        done
    }

    fn exited(&self) -> watch::Receiver<Life> {
        self.supervisor.watch()
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn databases(&self) -> Option<u32> {
        Some(self.target.database)
    }
}

impl Setup {
    /// A folder that was adopted with a snapshot and no append-only file. A Redis that is started with the append-only
    /// file on would come up empty there.
    fn has_snapshot_only(&self) -> bool {
        let there = |name: &str| self.data_dir.join(name).exists();
        let append_only = there(config::OLD_AOF) || self.aof_folder().join(config::AOF_MANIFEST).exists();
        there(config::SNAPSHOT) && !append_only
    }

    fn kept_folder(&self, epoch: u64) -> PathBuf {
        self.data_dir.join(format!("{KEPT}{epoch}"))
    }

    fn aof_folder(&self) -> PathBuf {
        self.data_dir.join(config::AOF_FOLDER)
    }

    /// Whether the append-only file is being written for the first time since a copy: Redis collects the new writes in
    /// a file under a name of its own until then (tried with 7.0), and in the usual place during a routine rewrite.
    async fn is_first_rewrite(&self) -> bool {
        let temporary = self.aof_folder().join(format!("temp-{}.incr", config::OLD_AOF));
        // What cannot be looked at is not known to be safe.
        tokio::fs::try_exists(&temporary).await.unwrap_or(true)
    }
}

/// Whether the server says that a script keeps it from answering.
fn is_busy(values: &[redis::Value]) -> bool {
    values.iter().any(|value| matches!(value, redis::Value::ServerError(error) if error.code() == "BUSY"))
}

fn is_login_refused(error: &redis::RedisError) -> bool {
    matches!(error.kind(), redis::ErrorKind::AuthenticationFailed) || error.code() == Some("WRONGPASS")
}
