//! One process of the rig: its log, its signals, its end.

use super::error::RigError;
use super::files::program;
use super::host::Host;
use super::proc;
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in `folder`, its output appended to `log`. In a process group of its own, so that ctrl-c in a
    /// terminal reaches only us; killed by the kernel when the thread that calls this ends, where `setpriv` is there.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        path: &Path,
        args: impl IntoIterator<Item = A>,
        folder: &Path,
        log: &Path,
    ) -> Result<Self, RigError> {
        Self::start_on(&Host::loopback(), name, path, args, folder, log)
    }

    /// The same, in the network of `host`.
    pub fn start_on<A: AsRef<OsStr>>(
        host: &Host,
        name: &str,
        path: &Path,
        args: impl IntoIterator<Item = A>,
        folder: &Path,
        log: &Path,
    ) -> Result<Self, RigError> {
        let failed = |source| RigError::Start { name: name.to_owned(), program: path.to_owned(), source };
        if !path.is_file() {
            // Started by way of `setpriv`, it would be missed only in the log.
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        }
        let output = append(log)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = guarded(path, host)
            .args(args)
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// What it is to the rig.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops it in its tracks, as a hung machine would.
    pub fn freeze(&self) {
        proc::signal(self.pid(), Signal::STOP);
    }

    /// Wakes it from [`Process::freeze`].
    pub fn thaw(&self) {
        proc::signal(self.pid(), Signal::CONT);
    }

    /// SIGKILL, and collects it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits; what is still there at the limit is killed, and the answer is `None`.
    pub async fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.end_by(Signal::TERM, limit).await
    }

    /// SIGINT, and the same.
    pub async fn interrupt(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.end_by(Signal::INT, limit).await
    }

    async fn end_by(&mut self, signal: Signal, limit: Duration) -> Option<ExitStatus> {
        proc::signal(self.pid(), signal);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.kill();
        None
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        proc::is_zombie(self.pid())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end and gives what it said. Unlike the standard library's own call it does not wait for ever:
/// not for the command, which is killed at the limit, and not for those that it left behind with its output in hand.
///
/// # Errors
/// When it cannot be started, or has not ended within `limit`: the error has what it said until then.
pub fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).spawn()?;
    let status = wait(&mut child, limit)?;
    let (stdout, stderr) = (all(&mut out)?, all(&mut err)?);
    let Some(status) = status else {
        let said = [&stdout[..], &stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let why = format!("{command:?} was killed after {} s; it said: {said}", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    };
    Ok(Output { status, stdout, stderr })
}

/// Waits for the end of a child; one that is still there at the limit is killed, and the answer is `None`.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_AGAIN);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn all(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A command that dies with the thread that starts it, when `setpriv` is there to arrange that: a test that is itself
/// killed then leaves nothing behind but databases.
///
/// Both helpers put the program in their own place, so that the process keeps its id.
fn guarded(path: &Path, host: &Host) -> Command {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(setpriv) = program("setpriv") {
        words.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    if let Some(namespace) = &host.namespace {
        let mut net = OsString::from("--net=");
        net.push(namespace);
        words.extend(["nsenter".into(), net, "--".into()]);
    }
    words.push(path.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn append(log: &Path) -> Result<File, RigError> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.map_err(|source| RigError::File { path: log.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Process {
        Process::start("sleeper", Path::new("/bin/sleep"), ["600"], folder, &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn an_ended_process_says_how() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(folder.path());
        assert!(process.ended().is_none());
        let status = process.end(Duration::from_secs(10)).await.unwrap();
        assert!(!status.success());
    }

    #[tokio::test]
    async fn a_frozen_process_does_not_heed_sigterm_and_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(folder.path());
        process.freeze();
        // Of two signals that wait together the kernel may deliver the later one first.
        while !std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap().contains(") T ") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        assert!(process.end(Duration::from_millis(100)).await.is_none());
        assert!(process.ended().is_some());
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_and_told_of() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo so far; exec sleep 600"]);
        let error = output(&mut command, Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("so far"), "{error}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let said = output(&mut command, Duration::from_secs(60)).unwrap();
        assert_eq!((said.status.code(), &said.stdout[..], &said.stderr[..]), (Some(3), &b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        let pid = process.pid();
        drop(process);
        assert!(!proc::works_in(pid, &folder.path().canonicalize().unwrap()));
    }
}
