//! PostgreSQL: one server, its folder, and what this agent has done to it.
//!
//! It always boots as a standby of nobody. What changes while it runs stands in two small files beside the server's own
//! folder, which are replaced and reloaded: who must have a commit (`synchronous_standby_names`), where it replicates
//! from, and who may connect.

mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod history;
mod link;
mod lsn;
mod marker;
mod ops;
mod probe;
mod program;
mod pursuit;
mod rebuild;
mod slots;
mod start;
#[cfg(test)]
mod tests;
mod turn;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{Address, EngineOp, Incarnation, Marker, Secret, Status};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use self::config::Gate;
pub(super) use self::link::{Link, Target};
use self::probe::{Answer, Around, Memo};
use self::program::Program;
use self::pursuit::Pursuit;
use self::slots::Slots;
use self::turn::Turns;
use super::account::{self, Account};
use super::asker::{Asker, Server};
use super::setup::Setup;
use super::supervise::{Life, Supervisor, end_stragglers};
use super::{Engine, EngineError, KEPT, OP_LIMIT, PROBE_LIMIT, Site, folder, within};

/// A start may have to make the server's folder first; a deposed master is ended and started again.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long an orderly end may take: everything is put on disk in it.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether commits wait for enough. The server goes through all of its settings for it.
const MIND_EVERY: Duration = Duration::from_secs(30);

/// The log, in the instance's folder.
const LOG: &str = "postgres.log";

/// The server's own folder, in the instance's.
const DATA: &str = "pgdata";

/// The file that says that the server's folder was made by the agent and never written to.
const FRESH: &str = "fresh";

/// The file that names the newest epoch whose tail is to be saved before anything is destroyed.
const KEEP: &str = "keep";

/// One PostgreSQL instance.
#[derive(Debug)]
pub struct Postgres {
    setup: Setup,
    program: Program,
    supervisor: Supervisor,
    /// For probes.
    link: Option<Link>,
    /// For operations: one that takes long delays no probe.
    work: Option<Link>,
    /// What was done to the run of the process that `heard_from` names.
    memo: Memo,
    gate: Gate,
    pursuit: Pursuit,
    slots: Slots,
    turns: Turns,
    /// The run that answered last; `None` before the process of now has answered.
    heard_from: Option<Incarnation>,
    /// When it did.
    heard: Option<Instant>,
    /// The password of the chain, where that is the one in force.
    chain: Option<Secret>,
    version: String,
    /// The newest epoch whose tail is kept, or is to be.
    kept: Option<u64>,
    /// The epoch that the copy's data were last seen to be of.
    data_epoch: u64,
    /// Whom the agent runs as.
    agent: String,
}

impl Postgres {
    /// See [`Database::open`](super::Database::open).
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn open(instance: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        let program = Program::find(instance.bin.as_deref()).await?;
        let account = Account::for_server("PostgreSQL", "postgres").await?;
        let setup = Setup::new(instance, site, account)?;
        check_address(&setup.address())?;
        setup.check_socket(&setup.data_dir.join(format!(".s.PGSQL.{}", setup.port)))?;
        setup.check()?;
        let mut supervisor = Supervisor::new(setup.own_file("run.json"));
        if supervisor.find(setup.port, Program::is_server)? {
            info!(group = setup.group, "found the database of an earlier run of this agent");
        }
        let gate = std::fs::read_to_string(setup.data_dir.join(config::HBA)).unwrap_or_default();
        Ok(Self {
            gate: Gate::read(&gate),
            kept: setup.kept(),
            data_epoch: 0,
            agent: account::own_name().await,
            version: program.version.clone(),
            setup,
            program,
            supervisor,
            link: None,
            work: None,
            memo: Memo::default(),
            pursuit: Pursuit::default(),
            slots: Slots::default(),
            turns: Turns::default(),
            heard_from: None,
            heard: None,
            chain: None,
        })
    }

    /// The run of the process that is there now.
    fn incarnation(&self) -> Incarnation {
        Incarnation(self.supervisor.run_id().unwrap_or_default())
    }

    /// What is known of another run says nothing of this one.
    fn meet(&mut self) {
        let run = self.incarnation();
        if self.heard_from.as_ref() != Some(&run) {
            self.memo = Memo::default();
            self.chain = None;
            self.pursuit.forget_run();
            self.heard_from = Some(run);
        }
    }

    /// Gives both connections up.
    fn hang_up(&mut self) {
        (self.link, self.work) = (None, None);
    }

    async fn ask(&mut self) -> Result<(Answer, Option<Marker>), sqlx::Error> {
        if self.link.is_none() {
            self.link = Some(Link::open(&self.setup.target()).await?);
            self.meet();
        }
        let Some(link) = &mut self.link else { return Err(sqlx::Error::WorkerCrashed) };
        let answer: Answer = link.json(probe::question()).await?.ok_or(sqlx::Error::RowNotFound)?;
        let marker = if answer.marked { link.json(marker::READ).await } else { Ok(None) };
        match marker {
            Err(error) if !link::is_missing(&error) => Err(error),
            marker => Ok((answer, marker.unwrap_or_default())),
        }
    }

    /// Tells, once, when commits wait for too little unless their session says more: a superuser may have changed that.
    async fn mind_commits(&mut self) -> Result<(), sqlx::Error> {
        if self.memo.commits_minded.is_some_and(|at| at.elapsed() < MIND_EVERY) {
            return Ok(());
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        let sql = "SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'";
        let level = link.text(sql).await?.unwrap_or_default();
        let lax = ::config::check_postgres("synchronous_commit", &level).is_err();
        if lax && !self.memo.lax_commits {
            let group = &self.setup.group;
            warn!(
                group,
                level,
                "commits may be acknowledged that the hot replica does not have on its disk: undo the ALTER SYSTEM, \
                 DATABASE or ROLE that set `synchronous_commit`"
            );
        }
        (self.memo.commits_minded, self.memo.lax_commits) = (Some(Instant::now()), lax);
        Ok(())
    }

    async fn look(&mut self) -> Result<Status, sqlx::Error> {
        let (answer, marker) = self.ask().await?;
        self.pursuit.has_come_back();
        self.pursue(&answer, marker.as_ref()).await;
        self.tend_slots().await;
        self.mind_commits().await?;
        let fresh = self.setup.data_dir.join(FRESH).exists();
        let mut status = answer.status(Around {
            incarnation: self.incarnation(),
            version: &self.program.version,
            memo: &self.memo,
            gate: self.gate,
            follows: self.pursuit.follows(),
            marker,
            fresh,
            kept: self.kept,
        });
        status.disk_ok &= self.setup.has_room();
        Ok(status)
    }

    /// The same, and once more on a new connection when an old one has ended: a client may have ended it.
    async fn look_again(&mut self) -> Result<Status, sqlx::Error> {
        let old = self.link.is_some();
        match self.look().await {
            Err(_) if old => {
                self.link = None;
                self.look().await
            }
            seen => seen,
        }
    }

    /// What is said while the server cannot be asked, though nothing is wrong.
    fn unready(&self) -> election::Engine {
        let copying = self.pursuit.copying();
        let run = if copying.is_some() { Incarnation::from("rebuilding") } else { self.incarnation() };
        let follows = self.pursuit.follows();
        election::Engine::Up(Box::new(probe::unready(run, &self.version, follows, copying, self.kept)))
    }

    /// What an answer that did not come makes of the instance.
    async fn unanswered(&mut self, broken: bool) -> election::Engine {
        self.link = None;
        match self.supervisor.life_after(broken).await {
            Life::Down { why } => self.setup.at_rest(why),
            Life::Running { since, .. } => self.setup.silent(self.heard, since, Some(self.incarnation())),
        }
    }

    /// Kills the server and everything it has started.
    async fn kill(&mut self) -> Result<(), EngineError> {
        self.hang_up();
        self.pursuit.give_up();
        self.supervisor.kill().await?;
        self.end_stragglers().await;
        Ok(())
    }

    /// The server's processes outlive a killed one by a moment, or for as long as they are frozen.
    async fn end_stragglers(&self) {
        let folder = self.setup.data_dir.clone();
        let _ = tokio::task::spawn_blocking(move || end_stragglers(&folder, Program::is_ours)).await;
    }

    /// Ends the process in an orderly way; one that takes too long is killed.
    async fn stop(&mut self) -> Result<(), EngineError> {
        self.hang_up();
        self.pursuit.give_up();
        if let Some(mut handle) = self.supervisor.handle() {
            handle.end(rustix::process::Signal::INT, STOP_LIMIT).await;
        }
        self.kill().await
    }

    /// Ends the process and removes everything in the folder but what says that it is ours.
    async fn reset(&mut self) -> Result<(), EngineError> {
        self.kill().await?;
        let _turn = self.turns.next().await;
        let done = self.setup.clear(LOG).await;
        self.kept = self.setup.kept();
        done
    }

    async fn carry_out(&mut self, op: &EngineOp) -> Result<(), EngineError> {
        match op {
            EngineOp::Kill => self.kill().await,
            EngineOp::Stop => self.stop().await,
            EngineOp::Reset => self.reset().await,
            EngineOp::Start => self.start().await,
            EngineOp::Fence => self.fence().await,
            EngineOp::Follow { source, channel, replace } => self.follow(source, channel.as_ref(), *replace).await,
            _ => match self.supervisor.life() {
                Life::Down { why } => Err(EngineError::NotRunning { op: op.name(), why }),
                Life::Running { .. } => ops::apply(self, op).await,
            },
        }
    }
}

impl Engine for Postgres {
    async fn probe(&mut self) -> election::Engine {
        self.advance().await;
        if self.pursuit.is_rebuilding() && !self.pursuit.is_starting() {
            return self.unready();
        }
        if let Life::Down { why } = self.supervisor.life() {
            self.hang_up();
            return self.setup.at_rest(why);
        }
        match timeout(PROBE_LIMIT, self.look_again()).await {
            Ok(Ok(status)) => {
                self.heard = Some(Instant::now());
                // The server that was wound back or cloned may turn out, in this very look, to have parted again.
                if self.pursuit.is_rebuilding() { self.unready() } else { election::Engine::Up(Box::new(status)) }
            }
            Ok(Err(error)) if link::is_not_ready(&error) => {
                self.link = None;
                self.heard = Some(Instant::now());
                self.unready()
            }
            Ok(Err(error)) => {
                if link::is_crowded(&error) {
                    self.heard = Some(Instant::now());
                }
                if self.pursuit.is_starting() {
                    self.link = None;
                    return self.unready();
                }
                tracing::debug!(group = self.setup.group, %error, "the database gives no answer");
                self.unanswered(true).await
            }
            Err(_) => self.unanswered(false).await,
        }
    }

    async fn apply(&mut self, op: &EngineOp) -> Result<(), EngineError> {
        let limit = match op {
            EngineOp::Start | EngineOp::Fence | EngineOp::Stop | EngineOp::Reset => START_LIMIT,
            _ => OP_LIMIT,
        };
        let done = within(limit, op.name(), self.carry_out(op)).await;
        if let Err(EngineError::Timeout { .. } | EngineError::Sql { .. }) = done {
            // A request that waits would hold up all that come after it on this connection.
            self.work = None;
        }
        done
    }

    fn secret_in_force(&self) -> Option<Secret> {
        self.chain.clone()
    }

    fn exited(&self) -> watch::Receiver<Life> {
        self.supervisor.watch()
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn databases(&self) -> Option<u32> {
        None
    }

    fn asker(&self) -> Option<Asker> {
        Some(Asker::new(Server::Postgres(self.setup.target())))
    }
}

impl Setup {
    /// The server's own folder.
    fn data(&self) -> PathBuf {
        self.data_dir.join(DATA)
    }

    fn target(&self) -> Target {
        Target { folder: self.data_dir.clone(), port: self.port }
    }

    /// Replaces a file of the instance's folder that has to be there after a power cut.
    fn note(&self, name: &str, text: &str) -> Result<(), EngineError> {
        folder::write_private(&self.data_dir.join(name), text.as_bytes())
    }

    /// Replaces a file that the server reads, and that is written anew before every start of it. Clients may wait for
    /// this, and no disk is waited for.
    fn write(&self, path: &Path, text: &str) -> Result<(), EngineError> {
        folder::write_passing(path, text.as_bytes())?;
        self.own(path)
    }

    /// Removes a file of the instance's folder for good, if it is there.
    fn remove(&self, name: &str) -> Result<(), EngineError> {
        let path = self.data_dir.join(name);
        folder::remove_for_good(&path).map_err(EngineError::io("remove", &path))
    }

    fn write_gate(&self, gate: Gate) -> Result<(), EngineError> {
        self.write(&self.data_dir.join(config::HBA), &gate.text(self.password_file.is_some()))
    }

    /// The newest epoch whose tail is kept, or noted to be.
    fn kept(&self) -> Option<u64> {
        let noted = std::fs::read_to_string(self.data_dir.join(KEEP)).ok().and_then(|text| text.trim().parse().ok());
        noted.max(folder::kept(&self.data_dir, KEPT))
    }
}

/// An address has to fit into a standby's name.
fn check_address(address: &Address) -> Result<(), EngineError> {
    if config::fits(address) {
        return Ok(());
    }
    let why = format!(
        "the address {address} is too long to be part of a standby's name: use an IP address or a shorter host name as \
         `node.address`"
    );
    Err(EngineError::Foreign { why })
}
