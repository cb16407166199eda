//! A process that outlives the agent: started in a group of its own, found again by its run file, watched to its end.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::account::Account;
use super::{EngineError, folder};

/// Whether a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It does not.
    Down {
        /// How it ended, a sentence.
        why: String,
    },
    /// It does.
    Running {
        /// Its process id.
        pid: u32,
        /// When it was started, or found.
        since: Instant,
    },
}

impl Life {
    /// How it ended, when it has.
    pub fn ended(&self) -> Option<&str> {
        match self {
            Life::Down { why } => Some(why),
            Life::Running { .. } => None,
        }
    }
}

/// A log larger than this is set aside at the next start, so that two starts' worth of it are kept at most.
const LOG_LIMIT: u64 = 16 << 20;

/// So many of the log's last lines tell why a process did not start: Redis's own messages take up to four.
const LAST_LINES: usize = 4;

/// They are looked for in so many bytes at the end.
const TAIL_BYTES: u64 = 64 * 1024;

/// What may stand in the agent's environment and concerns no database: its way into Consul.
const SECRETS: [&str; 2] = ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH"];

/// A killed process frees its memory before it is gone: some 0.1 s a gigabyte.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A connection ends a moment before its process counts as ended; so long a probe waits for the second after the first.
const DEATH_LAG: Duration = Duration::from_millis(20);

/// How often it is looked whether killed stragglers are gone.
const STRAGGLER_POLL: Duration = Duration::from_millis(2);

/// What is written down of a running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RunFile {
    pid: i32,
    /// In clock ticks since the machine's start: tells the process from a later one with the same id.
    start_time: u64,
    port: u16,
}

/// Starts, finds, watches and ends one process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    run_file: PathBuf,
    life: Arc<watch::Sender<Life>>,
    process: Option<Process>,
}

/// The process at hand. Dropping it ends the watching, not the process.
#[derive(Debug)]
struct Process {
    // A pidfd names one process for ever, whatever becomes of its number.
    pidfd: Arc<OwnedFd>,
    watcher: Watcher,
}

/// Who waits for the end of the process.
#[derive(Debug)]
enum Watcher {
    Task(JoinHandle<()>),
    /// Ends when this is closed.
    Thread {
        _keep: OwnedFd,
    },
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Watcher::Task(task) = &self.watcher {
            task.abort();
        }
    }
}

impl Supervisor {
    /// A supervisor whose process has not been looked for yet.
    pub(crate) fn new(run_file: PathBuf) -> Self {
        let (life, _) = watch::channel(Life::Down { why: "not started yet".to_owned() });
        Self { run_file, life: Arc::new(life), process: None }
    }

    /// Whether the process runs, as of now.
    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// The same, whenever it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// The same, for a probe that had no answer. `broken`: its connection ended, and so may the process in this moment.
    pub(crate) async fn life_after(&self, broken: bool) -> Life {
        if broken {
            self.ended_within(DEATH_LAG).await;
        }
        self.life()
    }

    /// Waits for the end of the process; whether it has ended.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        let mut life = self.life.subscribe();
        tokio::time::timeout(limit, life.wait_for(|l| l.ended().is_some())).await.is_ok()
    }

    /// Waits a moment for a process that starts.
    ///
    /// # Errors
    /// When it ended: how.
    pub(crate) async fn still_runs(&self, moment: Duration) -> Result<(), EngineError> {
        self.ended_within(moment).await;
        match self.life() {
            Life::Down { why } => Err(EngineError::StartFailed { why }),
            Life::Running { .. } => Ok(()),
        }
    }

    /// Waits for a process that was asked to end; at the limit it is killed.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> Result<(), EngineError> {
        if self.ended_within(limit).await { Ok(()) } else { self.kill().await }
    }

    /// Takes over the process of the run file, if it still runs and its program passes `is_server`.
    pub(crate) fn find(&mut self, port: u16, is_server: impl Fn(&Path) -> bool) -> Result<bool, EngineError> {
        let bytes = match fs::read(&self.run_file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(EngineError::io("read", &self.run_file)(e)),
        };
        // A run file that says nothing points at nothing; if a process does run, it is found by its port.
        let Ok(run) = serde_json::from_slice::<RunFile>(&bytes) else { return Ok(false) };
        let Some((pid, pidfd)) = open_process(run.pid) else { return Ok(false) };
        let same = start_time(run.pid) == Some(run.start_time);
        let server = fs::read_link(format!("/proc/{}/exe", run.pid)).is_ok_and(|exe| is_server(&exe));
        if !same || !server {
            return Ok(false);
        }
        if run.port != port {
            return Err(EngineError::PortChanged { pid: run.pid.unsigned_abs(), runs: run.port, wanted: port });
        }
        self.take_over(pid, pidfd)?;
        Ok(true)
    }

    /// Takes over a running process by its id, which the caller has made sure of.
    pub(crate) fn adopt(&mut self, pid: i32, port: u16) -> Result<bool, EngineError> {
        let Some((pid, pidfd)) = open_process(pid) else { return Ok(false) };
        self.write_run_file(pid, port)?;
        self.take_over(pid, pidfd)?;
        Ok(true)
    }

    /// Starts the process: its output goes to `log`, and it stays when the agent ends. It runs as `user` where one is
    /// given, else as the agent does.
    pub(crate) fn spawn(
        &mut self,
        mut command: Command,
        user: Option<&Account>,
        log: &Path,
        port: u16,
    ) -> Result<(), EngineError> {
        let (out, offset) = open_log(log)?;
        if let Some(user) = user {
            user.run(&mut command);
        }
        let err = out.try_clone().map_err(EngineError::io("open", log))?;
        // Its own process group: a Ctrl-C at the agent's terminal is not for the database.
        for secret in SECRETS {
            command.env_remove(secret); // Its own users may read its environment.
        }
        command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(false);
        let program = PathBuf::from(command.as_std().get_program());
        let child = command.spawn().map_err(EngineError::io("run", &program))?;
        let opened = child.id().and_then(|id| i32::try_from(id).ok()).and_then(open_process);
        let Some((pid, pidfd)) = opened else {
            return Err(EngineError::StartFailed { why: format!("it ended at once; {}", tail(log, offset)) });
        };
        self.write_run_file(pid, port)?;
        self.take(pid, pidfd, child, log.to_owned(), offset);
        Ok(())
    }

    /// What names this run of the process for ever: no other run on this machine has the same.
    pub(crate) fn run_id(&self) -> Option<String> {
        let Life::Running { pid, .. } = self.life() else { return None };
        let started = start_time(pid.cast_signed())?;
        // Process ids and times since the start begin anew with every start of the machine.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Some(format!("{}-{pid}-{started}", boot.get(..8).unwrap_or_default()))
    }

    /// A handle by which the process can be signalled and waited for from elsewhere.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let process = self.process.as_ref()?;
        Some(Handle { pidfd: Arc::clone(&process.pidfd), life: self.life.subscribe() })
    }

    /// Kills the process and waits for its end.
    pub(crate) async fn kill(&mut self) -> Result<(), EngineError> {
        let Some(process) = &self.process else { return Ok(()) };
        // An error says that it has ended already.
        let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
        if self.ended_within(KILL_LIMIT).await {
            return Ok(());
        }
        Err(EngineError::Timeout { op: "kill", ms: KILL_LIMIT.as_millis() as u64 })
    }

    fn write_run_file(&self, pid: Pid, port: u16) -> Result<(), EngineError> {
        let pid = pid.as_raw_nonzero().get();
        let run = RunFile { pid, start_time: start_time(pid).unwrap_or_default(), port };
        let bytes = serde_json::to_vec(&run).unwrap_or_default();
        folder::write_private(&self.run_file, &bytes)
    }

    /// Watches a process that another run of the agent has started.
    fn take_over(&mut self, pid: Pid, pidfd: OwnedFd) -> Result<(), EngineError> {
        let path = self.run_file.clone();
        let failed = |source: io::Error| EngineError::Io { doing: "watch the process of", path: path.clone(), source };
        let pidfd = Arc::new(pidfd);
        let (given_up, keep) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let id = self.say_running(pid);
        let (watched, life) = (Arc::clone(&pidfd), Arc::clone(&self.life));
        thread::Builder::new()
            .name(format!("watch-{id}"))
            .spawn(move || watch_adopted(watched, given_up, life, id))
            .map_err(failed)?;
        self.process = Some(Process { pidfd, watcher: Watcher::Thread { _keep: keep } });
        Ok(())
    }

    /// Watches our own child, and takes leave of it when it has ended.
    fn take(&mut self, pid: Pid, pidfd: OwnedFd, child: Child, log: PathBuf, offset: u64) {
        self.say_running(pid);
        let life = Arc::clone(&self.life);
        let task = tokio::spawn(async move {
            let why = child_end(child, &log, offset).await;
            life.send_replace(Life::Down { why });
        });
        self.process = Some(Process { pidfd: Arc::new(pidfd), watcher: Watcher::Task(task) });
    }

    /// Said before anybody watches, or the end could be overwritten.
    fn say_running(&mut self, pid: Pid) -> u32 {
        // Whoever watched the process before must not speak of this one.
        self.process = None;
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        self.life.send_replace(Life::Running { pid, since: Instant::now() });
        pid
    }
}

/// A process seen from elsewhere than its [`Supervisor`].
#[derive(Debug)]
pub(crate) struct Handle {
    pidfd: Arc<OwnedFd>,
    life: watch::Receiver<Life>,
}

impl Handle {
    /// Sends a signal. That the process has ended already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Sends a signal and waits for the end; at the limit the process is killed. Whether it has ended.
    pub(crate) async fn end(&mut self, signal: Signal, limit: Duration) -> bool {
        self.signal(signal);
        if tokio::time::timeout(limit, self.life.wait_for(|l| l.ended().is_some())).await.is_ok() {
            return true;
        }
        self.signal(Signal::KILL);
        tokio::time::timeout(KILL_LIMIT, self.life.wait_for(|l| l.ended().is_some())).await.is_ok()
    }
}

/// Kills every process that works in `folder` or below it and passes `is_ours`, and waits until they are gone: what a
/// killed server leaves of its helpers, and what a killed agent leaves of its tools.
pub(crate) fn end_stragglers(folder: &Path, is_ours: impl Fn(&Path) -> bool) {
    let deadline = Instant::now() + KILL_LIMIT;
    while Instant::now() < deadline {
        let found: Vec<Pid> = stragglers(folder, &is_ours).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            // An error says that it has ended already.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        thread::sleep(STRAGGLER_POLL);
    }
}

fn stragglers(folder: &Path, is_ours: &impl Fn(&Path) -> bool) -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(move |pid| {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
        let inside = link("cwd").is_some_and(|cwd| cwd.starts_with(folder));
        inside && link("exe").is_some_and(|exe| is_ours(&exe)) && start_time(*pid).is_some()
    })
    .filter_map(Pid::from_raw)
}

/// Waits for the end of our own child and says how it was.
async fn child_end(mut child: Child, log: &Path, offset: u64) -> String {
    match child.wait().await {
        Ok(status) => describe(status, log, offset),
        Err(e) => format!("it ended, how is unknown ({e})"),
    }
}

/// Waits for the end of somebody else's child, in a thread of its own: there is no safe way to hand a pidfd to the
/// runtime. The thread ends with the process, or when the other end of `given_up` is closed.
fn watch_adopted(pidfd: Arc<OwnedFd>, given_up: OwnedFd, life: Arc<watch::Sender<Life>>, pid: u32) {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&given_up, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => {
                life.send_replace(Life::Down { why: format!("process {pid} ended") });
                return;
            }
            Ok(_) => return,
            // Interrupted by a signal, the only way for this call to fail with valid descriptors.
            Err(_) => {}
        }
    }
}

fn describe(status: ExitStatus, log: &Path, offset: u64) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "it was shut down".to_owned(),
        (Some(code), _) => format!("it ended with exit code {code}; {}", tail(log, offset)),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// The last lines that were written to a log since `offset`.
fn tail(log: &Path, offset: u64) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(log).and_then(|mut file| {
        // A server that ran for months may have said very much.
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.max(end.saturating_sub(TAIL_BYTES))))?;
        file.take(TAIL_BYTES).read_to_end(&mut text)
    });
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let path = log.display();
    match (read, lines.is_empty()) {
        (Err(e), _) => format!("its log {path} cannot be read ({e})"),
        (Ok(_), true) => format!("its log {path} says nothing"),
        (Ok(_), false) => {
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ");
            format!("its log {path} ends with: {last}")
        }
    }
}

/// Opens a log for appending and says how long it is.
fn open_log(log: &Path) -> Result<(fs::File, u64), EngineError> {
    if fs::metadata(log).is_ok_and(|m| m.len() > LOG_LIMIT) {
        let mut old = log.as_os_str().to_owned();
        old.push(".1");
        fs::rename(log, old).map_err(EngineError::io("set aside", log))?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    let file = file.map_err(EngineError::io("open", log))?;
    let length = file.metadata().map_err(EngineError::io("read", log))?.len();
    Ok((file, length))
}

/// A handle on a process that has not ended.
fn open_process(pid: i32) -> Option<(Pid, OwnedFd)> {
    let pid = Pid::from_raw(pid)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    Some((pid, pidfd))
}

/// When a process was started, in clock ticks since the machine's start; `None` when it has ended.
fn start_time(pid: i32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/<pid>/stat`. The name in parentheses may itself hold blanks and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie has a number, and no life.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 1 1";
        assert_eq!(parse_start_time(&format!("1 (redis) S {rest}")), Some(98765));
        assert_eq!(parse_start_time(&format!("1 (a ) S 2) S {rest}")), Some(98765));
        assert_eq!(parse_start_time(&format!("1 (redis) Z {rest}")), None);
        assert_eq!(parse_start_time("1 (redis) S 1"), None);
        assert!(start_time(std::process::id().cast_signed()).is_some());
    }

    #[test]
    fn the_tail_begins_where_the_run_began() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old\n").unwrap();
        assert!(tail(&log, 4).ends_with("says nothing"));
        fs::write(&log, "old\none\n\ntwo\n").unwrap();
        assert!(tail(&log, 4).ends_with("one | two"));
    }

    #[tokio::test]
    async fn a_process_is_seen_to_end_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut supervisor = Supervisor::new(dir.path().join("run.json"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo the reason; exit 3"]);
        supervisor.spawn(command, None, &dir.path().join("log"), 1).unwrap();
        let mut life = supervisor.watch();
        let ended = life.wait_for(|l| l.ended().is_some()).await.unwrap().clone();
        let why = ended.ended().unwrap();
        assert!(why.contains("exit code 3") && why.ends_with("the reason"), "{why}");
    }

    #[tokio::test]
    async fn a_process_is_found_again_and_only_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run.json");
        let mut first = Supervisor::new(run.clone());
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        first.spawn(command, None, &dir.path().join("log"), 7).unwrap();
        drop(first);

        let mut second = Supervisor::new(run.clone());
        assert!(!second.find(7, |_| false).unwrap(), "another program must not be taken over");
        assert!(matches!(second.find(8, |_| true), Err(EngineError::PortChanged { .. })));
        assert!(second.find(7, |exe| exe.ends_with("sleep") || exe.ends_with("coreutils")).unwrap());
        assert!(matches!(second.life(), Life::Running { .. }));
        second.kill().await.unwrap();
        assert!(second.life().ended().is_some());

        let mut third = Supervisor::new(run);
        assert!(!third.find(7, |_| true).unwrap(), "a process that ended must not be found");
    }
}
