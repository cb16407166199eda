//! MariaDB: one server, its folder, and what this agent has done to it.

mod accounts;
mod boot;
mod config;
pub(crate) mod copy;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gtid;
mod marker;
mod note;
mod ops;
mod probe;
mod program;
mod relay;
mod sql;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{Address, EngineOp, Incarnation, Nonce, Secret, Status};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

pub use self::boot::{Boot, judge as judge_boot};
use self::config::{Plan, quote};
use self::copy::{Copies, Fetch, Wanted};
use self::files::Fetched;
use self::ops::Marking;
use self::probe::{Answers, Follows, Memo, Stuck};
use self::program::Program;
use self::relay::Rest;
pub(super) use self::sql::{Link, Target};
use super::account::Account;
use super::asker::{Asker, Server};
use super::progress::Progress;
use super::setup::Setup;
use super::supervise::{Life, Supervisor};
use super::{Engine, EngineError, KEPT, OP_LIMIT, PROBE_LIMIT, Site, folder, within};

/// What the operating system calls a server that must not run as root.
const USER: &str = "mysql";

/// Making a new data folder takes seconds; on a slow disk, many.
const START_LIMIT: Duration = Duration::from_secs(120);

/// So long a start waits for the first answer. A server that recovers from a crash takes longer, and counts as loading.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// To follow may mean to start a copy that was fetched.
const FOLLOW_LIMIT: Duration = Duration::from_secs(30);

/// How often a starting server is asked whether it answers.
const START_POLL: Duration = Duration::from_millis(10);

/// How long an orderly end may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// After a copy that failed, the next is begun this late.
const COPY_AGAIN: Duration = Duration::from_secs(3);

/// The log, in the data folder.
const LOG: &str = "mariadb.log";

/// The server's socket, in the data folder.
const SOCKET: &str = "mariadb.sock";

/// One MariaDB instance.
#[derive(Debug)]
pub struct Mariadb {
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
    version: String,
    /// The newest epoch whose last writes are kept in the folder.
    kept: Option<u64>,
    /// Copies for others.
    copies: Copies,
    /// The copy that is being fetched.
    copying: Option<Copying>,
    /// Since when it is waited for the group's word on how a crashed master is to be started.
    undecided_since: Option<Instant>,
    /// Why it is not started yet.
    waiting: Option<String>,
    /// The last start was to roll back what nobody acknowledged.
    rolled_back: bool,
    /// Such a start failed: the tail holds what cannot be rolled back.
    keep_tail: bool,
    /// The marker that is being written.
    marking: Option<Marking>,
    /// The connection that markers are written over.
    marker_link: Option<Link>,
    /// What the log was last told of a copy that cannot go on.
    told: Option<Stuck>,
}

/// A copy that is being fetched, or could not be.
#[derive(Debug)]
struct Copying {
    source: Address,
    task: Option<JoinHandle<Result<(), String>>>,
    failed: Option<Instant>,
    progress: Progress,
    wanted: Wanted,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.wanted.give_up();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Mariadb {
    /// See [`Database::open`](super::Database::open).
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn open(instance: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        let program = Program::find(instance.bin.as_deref()).await?;
        let setup = Setup::new(instance, site, Account::for_server("mariadbd", USER).await?)?;
        let socket = setup.data_dir.join(SOCKET);
        setup.check_socket(&socket)?;
        setup.check()?;
        let target = Target { socket, password: setup.agent_password()? };
        let mut supervisor = Supervisor::new(setup.own_file("run.json"));
        if supervisor.find(setup.port, |exe| program.is_server(exe))? {
            info!(group = setup.group, "found the database of an earlier run of this agent");
        }
        let copies = Copies::new(
            &setup.group,
            &program.backup,
            &setup.data_dir.join(files::BACKUP_SETTINGS),
            &setup.data_dir,
            setup.account.as_ref(),
        );
        Ok(Self {
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
            copies,
            copying: None,
            undecided_since: None,
            waiting: None,
            rolled_back: false,
            keep_tail: false,
            marking: None,
            marker_link: None,
            told: None,
        })
    }

    /// The link, made anew when there is none. Who answers may be another run than the one before.
    async fn link(&mut self) -> Result<&mut Link, sqlx::Error> {
        if self.link.is_none() {
            let link = Link::open(&self.target).await?;
            let run = Incarnation(self.supervisor.run_id().unwrap_or_default());
            if self.heard_from.as_ref() != Some(&run) {
                let master = note::is_master(&self.setup.own_file("role.json"), &run);
                self.memo = Memo { master, ..Memo::default() };
                self.heard_from = Some(run);
            }
            self.link = Some(link);
        }
        self.link.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    }

    async fn answers(&mut self) -> Result<Answers, sqlx::Error> {
        Answers::ask(self.link().await?).await
    }

    async fn follows(&mut self) -> Result<Option<Follows>, sqlx::Error> {
        let link = self.link().await?;
        Ok(link.ask("SHOW SLAVE STATUS").await?.first().map(Follows::from_row))
    }

    /// One question, one answer.
    async fn look(&mut self) -> Result<Status, sqlx::Error> {
        if let Some(held) = &mut self.memo.held
            && held.run("DO 1").await.is_err()
        {
            // The lock went with its connection.
            self.memo.held = None;
        }
        self.link().await?;
        self.begin_run().await?;
        let answers = self.answers().await?;
        if self.memo.master && answers.follows.as_ref().is_some_and(Follows::can_be_forgotten) {
            self.link().await?.run("RESET SLAVE ALL").await?;
        }
        let has_room = self.setup.has_room();
        // On a full disk it is the copy's own log that takes nothing.
        if has_room && self.memo.asks_again(answers.follows.as_ref()) {
            warn!(group = self.setup.group, "an event that was received is broken; asking for it again");
            self.link().await?.run("START SLAVE IO_THREAD").await?;
        }
        let incarnation = self.heard_from.clone().unwrap_or_default();
        let copying = self.copying.as_ref().map(|copying| &copying.source);
        let status = probe::status(&answers, &mut self.memo, incarnation, copying, self.kept);
        self.tell_stuck();
        self.memo.out_of_room |= self.memo.master && !has_room;
        let mut status = Status { disk_ok: has_room && !self.memo.out_of_room, ..status };
        status.shown.log = files::log_end(&self.setup.server_folder());
        status.shown.copying = self.copying.as_ref().map(|copying| copying.progress.now());
        Ok(status)
    }

    /// The same, and once more on a new connection when an old one has ended: a client may have ended it.
    async fn look_again(&mut self) -> Result<Status, sqlx::Error> {
        let had_link = self.link.is_some();
        match self.look().await {
            Err(e) if had_link && sql::code(&e).is_none() => {
                self.link = None;
                self.look().await
            }
            seen => seen,
        }
    }

    /// A line for a copy that cannot go on, once.
    fn tell_stuck(&mut self) {
        if self.told == self.memo.stuck {
            return;
        }
        self.told.clone_from(&self.memo.stuck);
        let group = &self.setup.group;
        match &self.told {
            Some(Stuck::Replaceable(why)) => warn!(group, "this copy cannot go on and is made anew: {why}"),
            Some(Stuck::Errant(why)) => tracing::error!(
                group,
                "this copy holds transactions that its source does not have, or cannot apply what it receives: it takes no \
                 further part until `understudy reinit {group} {}` makes it anew ({why})",
                self.setup.site.node
            ),
            None => {}
        }
    }

    /// What the folder makes of an instance that does not run.
    fn at_rest(&self, why: String) -> election::Engine {
        self.setup.at_rest(self.waiting.clone().unwrap_or(why))
    }

    /// Makes the process run, and waits a while for its first answer.
    async fn start(&mut self) -> Result<(), EngineError> {
        if self.supervisor.life().ended().is_some() && !self.adopt_by_socket().await? {
            match boot::decide(&self.setup, self.undecided_since) {
                Boot::Undecided(why) if !self.keep_tail => {
                    self.undecided_since.get_or_insert_with(Instant::now);
                    self.waiting = Some(why);
                    return Ok(());
                }
                Boot::RollBack { epoch } if !self.keep_tail => self.launch_now(Some(epoch)).await?,
                _ => self.launch_now(None).await?,
            }
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            if self.link().await.is_ok() {
                return self.begin_run().await.map_err(EngineError::sql("start"));
            }
            if let Err(ended) = self.supervisor.still_runs(START_POLL).await {
                // What cannot be rolled back (a change of a schema, say) keeps the server from starting.
                self.keep_tail |= self.rolled_back;
                return Err(ended);
            }
            if Instant::now() >= deadline {
                return Ok(()); // It recovers, and is seen to load.
            }
        }
    }

    /// The same as [`launch`](Self::launch), and nothing is waited for any more, whatever comes of it.
    async fn launch_now(&mut self, roll_back: Option<u64>) -> Result<(), EngineError> {
        self.waiting = None;
        self.launch(roll_back, Fetched::Waits).await
    }

    /// The first thing a new run is asked, by each agent that looks after it: to apply what an earlier one had received.
    async fn begin_run(&mut self) -> Result<(), sqlx::Error> {
        if self.memo.begun {
            return Ok(());
        }
        let follows = self.follows().await?;
        let link = self.link().await?;
        let rest = match &follows {
            Some(follows) => relay::apply_rest(link, follows).await,
            None => Ok(Rest::Nothing),
        };
        match rest {
            Ok(Rest::Applies { parallel_threads }) => {
                info!(group = self.setup.group, "applying what was received before the restart");
                (self.memo.resting, self.memo.parallel_threads) = (true, parallel_threads);
            }
            Ok(Rest::Nothing) => {}
            Ok(Rest::Lacks(gap)) => {
                warn!(group = self.setup.group, "the relay log of the run before goes on after a gap: {gap}");
                self.memo.untrusted = true;
            }
            Err(error) if sql::code(&error).is_none() => return Err(error),
            Err(error) => {
                // It may lack what was acknowledged: it proves nothing, and is made anew when it may follow.
                warn!(group = self.setup.group, %error, "the relay log of the run before cannot be read");
                self.memo.untrusted = true;
            }
        }
        self.memo.begun = true;
        if let Err(error) = self.setup.forget_start() {
            warn!(group = self.setup.group, %error, "what the server was started with stays");
        }
        Ok(())
    }

    /// Takes over a process that runs with this agent's password on this instance's socket and folder, although there is
    /// no run file: the agent before this one may have ended between starting it and writing that down.
    async fn adopt_by_socket(&mut self) -> Result<bool, EngineError> {
        let Ok(Ok(mut link)) = timeout(PROBE_LIMIT, Link::open(&self.target)).await else { return Ok(false) };
        let asked = timeout(PROBE_LIMIT, link.ask_one("SELECT @@pid_file AS file, @@datadir AS folder")).await;
        let Ok(Ok(row)) = asked else { return Ok(false) };
        let real = |path: &Path| path.canonicalize().ok();
        let folder = row.get("folder").and_then(|path| real(Path::new(path)));
        if folder.is_none() || folder != real(&self.setup.server_folder()) {
            return Ok(false);
        }
        let pid = row.get("file").and_then(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        match pid {
            Some(pid) => self.supervisor.adopt(pid, self.setup.port),
            None => Ok(false),
        }
    }

    /// Starts a new process. `roll_back`: what nobody acknowledged of the epoch that this node was master of is kept as a
    /// copy of the log, and rolled back.
    async fn launch(&mut self, roll_back: Option<u64>, copy: Fetched) -> Result<(), EngineError> {
        self.drop_copy();
        self.setup.claim(|| self.setup.begin_adoption())?;
        self.setup.settle(&self.program, copy).await?;
        if !self.setup.server_folder().exists() {
            self.setup.install(&self.program).await?;
        }
        self.setup.account_reaches()?;
        self.setup.check_owner(&self.setup.server_folder())?;
        if let Some(epoch) = roll_back {
            self.keep(epoch).await?;
        }
        self.rolled_back = roll_back.is_some();
        (self.undecided_since, self.waiting) = (None, None);
        let settings = self.setup.write_settings(&self.program, &self.target)?;
        self.forget_run();
        let mut command = Command::new(&self.program.server);
        command.arg(format!("--defaults-file={}", settings.display()));
        command.arg(format!("--init-rpl-role={}", if roll_back.is_some() { "SLAVE" } else { "MASTER" }));
        command.current_dir(self.setup.server_folder());
        let log = self.setup.data_dir.join(LOG);
        self.supervisor.spawn(command, self.setup.account.as_ref(), &log, self.setup.port)
    }

    /// What is known of a run ends with it.
    fn forget_run(&mut self) {
        self.memo = Memo::default();
        (self.link, self.marker_link, self.marking) = (None, None, None);
        (self.heard, self.heard_from) = (None, None);
        self.copies.forbid();
    }

    async fn kill(&mut self) -> Result<(), EngineError> {
        (self.link, self.marker_link, self.marking) = (None, None, None);
        self.supervisor.kill().await
    }

    /// Ends the process in an orderly way; one that takes too long, or whose commits wait for an acknowledgement, is
    /// killed: an orderly end would let them through.
    async fn stop(&mut self) -> Result<(), EngineError> {
        self.drop_copy();
        if self.supervisor.life().ended().is_some() {
            return Ok(());
        }
        let waiting = match timeout(PROBE_LIMIT, self.answers()).await {
            Ok(Ok(answers)) => answers.semi_sync.enabled && answers.semi_sync.waiting > 0,
            _ => true,
        };
        if waiting {
            return self.kill().await;
        }
        if let Ok(link) = self.link().await {
            let _ = timeout(PROBE_LIMIT, link.run("SHUTDOWN")).await;
        }
        (self.link, self.marker_link, self.marking) = (None, None, None);
        self.memo.held = None;
        self.supervisor.end_within(STOP_LIMIT).await
    }

    /// Ends the process and removes everything in the folder but what says that it is ours.
    async fn reset(&mut self) -> Result<(), EngineError> {
        self.drop_copy();
        self.kill().await?;
        let done = self.setup.clear(LOG).await;
        self.kept = folder::kept(&self.setup.data_dir, KEPT);
        done
    }

    /// Keeps the end of the binary log as that of this epoch.
    async fn keep(&mut self, epoch: u64) -> Result<(), EngineError> {
        if self.kept.is_some_and(|kept| kept >= epoch) {
            return Ok(());
        }
        let (folder, to) = (self.setup.data_dir.clone(), self.setup.data_dir.join(format!("{KEPT}{epoch}")));
        let done = tokio::task::spawn_blocking(move || files::keep_log(&folder, &to)).await;
        done.unwrap_or_else(|e| Err(EngineError::io("copy in", &self.setup.data_dir)(io::Error::other(e))))?;
        self.kept = Some(epoch);
        Ok(())
    }

    fn is_copying_from(&self, source: &Address) -> bool {
        self.copying.as_ref().is_some_and(|copying| copying.source == *source)
    }

    fn drop_copy(&mut self) {
        self.copying = None;
    }

    /// Who becomes master keeps the data it has: the next start would put a copy that was fetched before in their place.
    fn discard_copy(&mut self) -> Result<(), EngineError> {
        self.drop_copy();
        let (whole, old) = (self.setup.data_dir.join(copy::WHOLE), self.setup.data_dir.join(files::OLD));
        if !whole.exists() {
            return Ok(());
        }
        let set_aside = || -> std::io::Result<()> {
            folder::remove_tree(&old)?;
            std::fs::rename(&whole, &old)?;
            std::fs::File::open(&self.setup.data_dir)?.sync_all()
        };
        set_aside().map_err(EngineError::io("set aside", &whole))?;
        // Large data take a while; what is left of them goes at the next start.
        drop(tokio::task::spawn_blocking(move || folder::remove_tree(&old)));
        Ok(())
    }

    /// Begins to fetch a copy in the background. Until it is whole, the data here stays as it is.
    async fn begin_copy(&mut self, source: &Address, channel: Nonce, secret: Secret) -> Result<(), EngineError> {
        let agent = self.setup.site.agents.borrow().get(source).cloned();
        let Some(agent) = agent else {
            let answer = format!("the agent of the node whose database listens at {source} is not known yet");
            return Err(EngineError::Refused { op: "follow", answer });
        };
        let (progress, wanted) = (Progress::default(), Wanted::default());
        let fetch = Fetch {
            group: self.setup.group.clone(),
            agent,
            channel: channel.clone(),
            secret: secret.clone(),
            unpack: self.program.unpack.clone(),
            backup: self.program.backup.clone(),
            account: self.setup.account.clone(),
            folder: self.setup.data_dir.clone(),
            progress: progress.clone(),
            wanted: wanted.clone(),
        };
        // What it receives until then is of no use, and would be in the way.
        let link = self.link().await.map_err(EngineError::sql("follow"))?;
        link.run("STOP SLAVE").await.map_err(EngineError::sql("follow"))?;
        let task = Some(tokio::spawn(fetch.run()));
        self.copying = Some(Copying { source: source.clone(), task, failed: None, progress, wanted });
        self.memo.follows_with = Some((channel, secret));
        Ok(())
    }

    /// Takes notice of the end of a copy. When this forgets it, the instance says that it follows nobody, and is told to
    /// follow again: then the copy takes the data's place.
    async fn tend_copy(&mut self) {
        let Some(copying) = &mut self.copying else { return };
        if let Some(task) = copying.task.take_if(|task| task.is_finished()) {
            match task.await {
                Ok(Ok(())) => {
                    self.copying = None;
                    return;
                }
                Ok(Err(why)) => {
                    warn!(group = self.setup.group, "the copy failed, and is begun again in a moment: {why}")
                }
                Err(_) => {}
            }
            copying.failed = Some(Instant::now());
        }
        if copying.failed.is_some_and(|at| at.elapsed() >= COPY_AGAIN) {
            self.copying = None;
        }
    }

    /// Puts a copy that was fetched in the place of the data, and starts it.
    async fn take_copy(&mut self) -> Result<(), EngineError> {
        if !self.setup.data_dir.join(copy::WHOLE).exists() {
            return Ok(());
        }
        self.kill().await?;
        self.launch(None, Fetched::Replaces).await?;
        let deadline = Instant::now() + FOLLOW_LIMIT;
        while self.link().await.is_err() {
            self.supervisor.still_runs(START_POLL).await?;
            if Instant::now() >= deadline {
                let ms = u64::try_from(FOLLOW_LIMIT.as_millis()).unwrap_or(u64::MAX);
                return Err(EngineError::Timeout { op: "follow", ms });
            }
        }
        Ok(())
    }

    /// What an answer that did not come makes of the instance.
    async fn unanswered(&mut self, broken: bool) -> election::Engine {
        self.link = None;
        match self.supervisor.life_after(broken).await {
            Life::Down { why } => self.at_rest(why),
            // It has not answered since it was started: it recovers from a crash.
            Life::Running { .. } if self.heard.is_none() && self.heard_from.is_none() => {
                election::Engine::Up(Box::new(self.recovering()))
            }
            Life::Running { since, .. } => {
                self.setup.silent(self.heard, since, self.heard.and(self.heard_from.clone()))
            }
        }
    }

    /// What is known of a server that does not answer yet.
    fn recovering(&self) -> Status {
        let incarnation = Incarnation(self.supervisor.run_id().unwrap_or_default());
        let nothing = Answers { read_only: true, has_schemas: true, ..Answers::default() };
        let status = probe::status(&nothing, &mut Memo::default(), incarnation, None, self.kept);
        Status { loading: true, version: self.version.clone(), ..status }
    }
}

impl Engine for Mariadb {
    async fn probe(&mut self) -> election::Engine {
        self.tend_copy().await;
        if let Life::Down { why } = self.supervisor.life() {
            (self.link, self.marker_link, self.marking) = (None, None, None);
            return self.at_rest(why);
        }
        match timeout(PROBE_LIMIT, self.look_again()).await {
            Ok(Ok(status)) => {
                self.heard = Some(Instant::now());
                self.version.clone_from(&status.version);
                election::Engine::Up(Box::new(status))
            }
            Ok(Err(error)) => {
                if sql::is_crowded(&error) {
                    // An answer, though not one that says much: it is no reason to kill the process.
                    self.heard = Some(Instant::now());
                }
                tracing::debug!(group = self.setup.group, %error, "no answer");
                self.unanswered(true).await
            }
            Err(_) => self.unanswered(false).await,
        }
    }

    async fn apply(&mut self, op: &EngineOp) -> Result<(), EngineError> {
        match op {
            EngineOp::Kill => return self.kill().await,
            EngineOp::Stop => return self.stop().await,
            EngineOp::Reset => return self.reset().await,
            EngineOp::Keep { epoch } => return self.keep(*epoch).await,
            _ => {}
        }
        if let (Life::Down { why }, false) = (self.supervisor.life(), matches!(op, EngineOp::Start)) {
            return Err(EngineError::NotRunning { op: op.name(), why });
        }
        let limit = match op {
            EngineOp::Start => START_LIMIT,
            EngineOp::Follow { .. } => FOLLOW_LIMIT,
            _ => OP_LIMIT,
        };
        let done = within(limit, op.name(), async {
            if matches!(op, EngineOp::Start) { self.start().await } else { ops::apply(self, op).await }
        })
        .await;
        if let Err(EngineError::Timeout { .. } | EngineError::Sql { .. }) = done {
            // A statement that waits would hold up all that come after it on this connection.
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
        None
    }

    fn copies(&self) -> Option<Copies> {
        Some(self.copies.clone())
    }

    fn asker(&self) -> Option<Asker> {
        Some(Asker::new(Server::Mariadb(self.target.clone())))
    }
}

impl Setup {
    /// The server's own folder. Its name is one that no schema can have, in a folder that was adopted either.
    fn server_folder(&self) -> PathBuf {
        self.data_dir.join(files::SERVER)
    }

    fn account_reaches(&self) -> Result<(), EngineError> {
        self.account.as_ref().map_or(Ok(()), |account| account.reaches(&self.server_folder()))
    }

    /// Where the source stood when this data was copied from it; nothing when it was not.
    fn copied_at(&self) -> String {
        copy::copied_at(&self.server_folder()).unwrap_or_default()
    }

    /// Writes what the server and the tool that copies it are started with.
    fn write_settings(&self, program: &Program, target: &Target) -> Result<PathBuf, EngineError> {
        let [settings, init, backup] =
            [files::SETTINGS, files::INIT, files::BACKUP_SETTINGS].map(|name| self.data_dir.join(name));
        let clients = self.client_password()?;
        let fresh = self.data_dir.join(files::FRESH).exists();
        let text = config::generate(&Plan {
            address: &self.site.address,
            port: self.port,
            several: program.series().is_some_and(|series| series >= (10, 11)),
            server_folder: &self.server_folder(),
            socket: &target.socket,
            init_file: &init,
            // Another for each run: a server skips what it finds under its own, and must not skip what an earlier run
            // wrote and rolled back.
            server_id: uuid::Uuid::new_v4().as_fields().0.max(1),
            settings: &self.settings,
        });
        let login = format!(
            "[mariadb-backup]\nuser = {}\npassword = {}\nsocket = {}\n[mariadbd]\ndatadir = {}\n",
            accounts::AGENT,
            target.password.reveal(),
            quote(&target.socket.to_string_lossy()),
            quote(&self.server_folder().to_string_lossy())
        );
        for (path, text) in [
            (&settings, text),
            (&init, accounts::init_file(&target.password, clients.as_ref(), fresh)),
            (&backup, login),
        ] {
            folder::write_private(path, text.as_bytes())?;
            self.own(path)?;
        }
        Ok(settings)
    }
}
