//! Copies of a running server, streamed from its agent to the agent of a node that needs one.
//!
//! The source's agent streams `mariadb-backup` to whoever proves that it was given the password to replicate with. The
//! other unpacks the stream beside its own data and makes it whole; only then, in one rename, does it get the name under
//! which it is taken for data. Whatever has another name is half a copy, and is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use election::{Nonce, Secret};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::files;
use crate::engine::account::Account;
use crate::engine::folder::remove_tree;
use crate::engine::progress::Progress;

/// The header by which an agent proves that it was given the channel's password.
pub(crate) const PROOF_HEADER: &str = "x-understudy-copy";

/// The header that says about how many bytes a copy will be.
pub(crate) const SIZE_HEADER: &str = "x-understudy-copy-size";

/// What is read from the tool, and sent, at once.
const PIECE: usize = 256 * 1024;

/// Pieces that may wait for a slow network.
const PIECES: usize = 8;

/// How often the log says how far a copy is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A receiver that takes nothing for this long is gone, or frozen: towards its end the tool keeps commits waiting, and they
/// must not wait for another machine.
const TAKES_NOTHING: Duration = Duration::from_secs(15);

/// A source that sends nothing for this long is gone. The tool is silent while it waits for a lock.
const SILENT: Duration = Duration::from_secs(60);

/// The folder of a copy under construction, and of a whole one that is to take the data's place, in the data folder.
pub(super) const UNDER_WAY: &str = "mysql-data.copy";
pub(super) const WHOLE: &str = "mysql-data.whole";

/// Where the source's binary log stood when it was copied: the file's names through the versions.
const POSITION_FILES: [&str; 2] = ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"];

/// Serves copies of the server on this node.
#[derive(Debug, Clone)]
pub struct Copies(Arc<Source>);

#[derive(Debug)]
struct Source {
    group: String,
    tool: PathBuf,
    settings: PathBuf,
    folder: PathBuf,
    account: Option<Account>,
    channel: Mutex<Option<(Nonce, Secret)>>,
}

/// The bytes of a copy. It is whole only if the stream ends without an error.
pub(crate) type Stream = mpsc::Receiver<io::Result<Bytes>>;

impl Copies {
    pub(super) fn new(group: &str, tool: &Path, settings: &Path, folder: &Path, account: Option<&Account>) -> Self {
        Self(Arc::new(Source {
            group: group.to_owned(),
            tool: tool.to_owned(),
            settings: settings.to_owned(),
            folder: folder.to_owned(),
            account: account.cloned(),
            channel: Mutex::new(None),
        }))
    }

    /// Whoever knows this channel's password may have a copy.
    pub(super) fn allow(&self, name: Nonce, secret: Secret) {
        *self.0.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, secret));
    }

    /// Nobody may have one.
    pub(super) fn forbid(&self) {
        *self.0.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// About how many bytes a copy is: what the server has besides its logs.
    pub(crate) async fn size(&self) -> u64 {
        let folder = self.0.folder.join(files::SERVER);
        tokio::task::spawn_blocking(move || size_of(&folder)).await.unwrap_or_default()
    }

    /// Starts a copy, if `proof` is one of the channel in force.
    ///
    /// # Errors
    /// Why there is none: a sentence for the agent that asked.
    pub(crate) fn stream(&self, proof: &str) -> Result<Stream, String> {
        let source = &self.0;
        let channel = source.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = channel.is_some_and(|(name, secret)| self::proof(&source.group, &name, &secret) == proof);
        if !known {
            return Err("the proof is not one of the replication password in force".to_owned());
        }
        let mut command = Command::new(&source.tool);
        command
            .arg(format!("--defaults-file={}", source.settings.display()))
            .args(["--backup", "--stream=mbstream"])
            .arg(format!("--target-dir={}", source.folder.display()))
            .current_dir(&source.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(account) = &source.account {
            account.run(&mut command);
        }
        let child = command.spawn().map_err(|e| format!("{} does not run: {e}", source.tool.display()))?;
        let (pieces, stream) = mpsc::channel(PIECES);
        let group = source.group.clone();
        tokio::spawn(async move { send(group, child, pieces, TAKES_NOTHING).await });
        Ok(stream)
    }
}

/// The bytes of the files in a folder and below, but for logs. What comes and goes meanwhile does not matter.
fn size_of(folder: &Path) -> u64 {
    let is_log = |name: &str| ["binlog.", "relay."].iter().any(|start| name.starts_with(start));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| !entry.file_name().to_str().is_some_and(is_log));
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// What both sides derive from the channel's password.
fn proof(group: &str, channel: &Nonce, secret: &Secret) -> String {
    let mut hash = Sha256::new();
    for part in ["understudy copy", group, channel.as_str(), secret.reveal()] {
        hash.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn send(group: String, mut child: Child, pieces: mpsc::Sender<io::Result<Bytes>>, patience: Duration) {
    info!(group, "a copy of this server is being sent");
    let words = tokio::spawn(last_words(child.stderr.take()));
    let mut sent = 0_u64;
    if let Some(mut out) = child.stdout.take() {
        let mut buffer = vec![0; PIECE];
        loop {
            match out.read(&mut buffer).await {
                Ok(0) => break,
                Ok(n) => {
                    sent += n as u64;
                    let piece = Ok(Bytes::copy_from_slice(&buffer[..n]));
                    if !matches!(timeout(patience, pieces.send(piece)).await, Ok(Ok(()))) {
                        warn!(group, sent, "whoever asked for the copy is gone, or takes nothing any more");
                        return; // The tool is killed with its handle.
                    }
                }
                Err(e) => {
                    let _ = pieces.send(Err(e)).await;
                    return;
                }
            }
        }
    }
    let whole = child.wait().await.is_ok_and(|status| status.success());
    if whole {
        info!(group, sent, "the copy is sent");
        return;
    }
    let words = words.await.unwrap_or_default();
    warn!(group, sent, "the copy failed: {words}");
    // The stream must not look as if it had ended.
    let _ = pieces.send(Err(io::Error::other("the copy failed at its source"))).await;
}

/// The last line of what a tool says.
async fn last_words(out: Option<impl AsyncReadExt + Unpin>) -> String {
    let Some(mut out) = out else { return String::new() };
    let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
    while let Ok(n @ 1..) = out.read(&mut buffer).await {
        all.extend_from_slice(&buffer[..n]);
        // Only the end is of interest; the tool says a line for every table.
        if all.len() > 64 * 1024 {
            all.drain(..32 * 1024);
        }
    }
    let text = String::from_utf8_lossy(&all);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// What it takes to fetch a copy.
#[derive(Debug, Clone)]
pub(super) struct Fetch {
    pub(super) group: String,
    pub(super) agent: String,
    pub(super) channel: Nonce,
    pub(super) secret: Secret,
    pub(super) unpack: PathBuf,
    pub(super) backup: PathBuf,
    pub(super) account: Option<Account>,
    /// The instance's data folder.
    pub(super) folder: PathBuf,
    pub(super) progress: Progress,
    pub(super) wanted: Wanted,
}

/// Whether a copy is still wanted. What runs on a thread of its own goes on when the task that waits for it is ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(Arc<Mutex<Option<GivenUp>>>);

#[derive(Debug)]
struct GivenUp;

impl Wanted {
    /// From here on nothing is done to the data folder any more.
    pub(super) fn give_up(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(GivenUp);
    }

    /// Does something that must not happen, nor be under way, once the copy has been given up.
    fn unless_given_up(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given_up.is_some() { Err(io::Error::other("it was given up meanwhile")) } else { act() }
    }
}

impl Fetch {
    /// Fetches a copy and makes it whole. Nothing is left of one that fails.
    pub(super) async fn run(self) -> Result<(), String> {
        let under_way = self.folder.join(UNDER_WAY);
        let done = self.fetch(&under_way).await;
        if done.is_err() {
            let _ = tokio::fs::remove_dir_all(&under_way).await;
        }
        done
    }

    async fn fetch(&self, under_way: &Path) -> Result<(), String> {
        let began = Instant::now();
        info!(group = self.group, agent = self.agent, "copying the data of another node");
        let (fetch, folder) = (self.clone(), under_way.to_owned());
        let made = tokio::task::spawn_blocking(move || fetch.wanted.unless_given_up(|| fetch.make(&folder))).await;
        made.map_err(|e| e.to_string())?.map_err(|e| format!("cannot make {}: {e}", under_way.display()))?;
        self.receive(under_way).await?;
        info!(group = self.group, bytes = self.progress.now().bytes, "copied; making the copy whole");
        self.prepare(under_way).await?;
        if copied_at(under_way).is_none() {
            return Err("the copy does not say where its source stood".to_owned());
        }
        let (from, to, wanted) = (under_way.to_owned(), self.folder.join(WHOLE), self.wanted.clone());
        let named = tokio::task::spawn_blocking(move || name_whole(&from, &to, &wanted)).await;
        named.map_err(|e| e.to_string())?.map_err(|e| format!("cannot put the copy on disk: {e}"))?;
        let bytes = self.progress.now().bytes;
        info!(group = self.group, bytes, elapsed_ms = began.elapsed().as_millis() as u64, "the copy is whole");
        Ok(())
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        remove_tree(folder)?;
        fs::create_dir(folder)?;
        match &self.account {
            Some(account) => account.own(folder).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn receive(&self, folder: &Path) -> Result<(), String> {
        let url = format!("http://{}/{}/copy", self.agent, self.group);
        let request =
            reqwest::Client::new().post(url).header(PROOF_HEADER, proof(&self.group, &self.channel, &self.secret));
        let mut response = request.send().await.map_err(|e| format!("{} does not answer: {e}", self.agent))?;
        if !response.status().is_success() {
            let status = response.status();
            let words = response.text().await.unwrap_or_default();
            return Err(format!("{} refuses ({status}): {}", self.agent, words.trim()));
        }
        let size = response.headers().get(SIZE_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        self.progress.expect(size.unwrap_or_default());
        let mut child = self.tool(&self.unpack, &["-x", "-C"], folder, Stdio::piped())?;
        let mut input = child.stdin.take().ok_or("no way into the tool that unpacks")?;
        let words = tokio::spawn(last_words(child.stderr.take()));
        let mut told = Instant::now();
        loop {
            let next = timeout(SILENT, response.chunk()).await;
            let piece =
                next.map_err(|_| "its source fell silent".to_owned())?.map_err(|e| format!("the stream broke: {e}"))?;
            let Some(piece) = piece else { break };
            if let Err(e) = input.write_all(&piece).await {
                return Err(format!("it cannot be unpacked ({e}): {}", words.await.unwrap_or_default()));
            }
            let bytes = self.progress.add(piece.len() as u64);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                info!(group = self.group, bytes, "copying");
            }
        }
        drop(input);
        ended_well(child, words).await.map_err(|why| format!("it cannot be unpacked: {why}"))
    }

    async fn prepare(&self, folder: &Path) -> Result<(), String> {
        let target = format!("--target-dir={}", folder.display());
        let mut child = self.tool(&self.backup, &["--no-defaults", "--prepare", &target], folder, Stdio::null())?;
        let words = tokio::spawn(last_words(child.stderr.take()));
        ended_well(child, words).await.map_err(|why| format!("it cannot be made whole: {why}"))
    }

    fn tool(&self, program: &Path, args: &[&str], folder: &Path, input: Stdio) -> Result<Child, String> {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        if args.last() == Some(&"-C") {
            command.arg(folder);
        }
        if let Some(account) = &self.account {
            account.run(&mut command);
        }
        command.kill_on_drop(true).spawn().map_err(|e| format!("{} does not run: {e}", program.display()))
    }
}

async fn ended_well(mut child: Child, words: tokio::task::JoinHandle<String>) -> Result<(), String> {
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}, {}", words.await.unwrap_or_default())),
        Err(e) => Err(e.to_string()),
    }
}

/// Puts the copy on disk and gives it its name.
fn name_whole(from: &Path, to: &Path, wanted: &Wanted) -> io::Result<()> {
    // Large data take long to be written out, and the folder's name may belong to the next copy by then.
    rustix::fs::syncfs(fs::File::open(from)?)?;
    wanted.unless_given_up(|| {
        remove_tree(to)?;
        fs::rename(from, to)
    })?;
    to.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

/// Where the source's binary log stood when `folder` was copied from it. It may have written nothing yet.
pub(super) fn copied_at(folder: &Path) -> Option<String> {
    let text = POSITION_FILES.iter().find_map(|name| fs::read_to_string(folder.join(name)).ok())?;
    Some(text.split_whitespace().nth(2).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_depends_on_all_it_proves() {
        let one = |group: &str, name: &str, secret: &str| proof(group, &Nonce::from(name), &Secret::new(secret));
        let proof = one("g", "n", "hunter2");
        assert!(!proof.contains("hunter2"));
        for other in [one("h", "n", "hunter2"), one("g", "m", "hunter2"), one("g", "n", "hunter3")] {
            assert_ne!(proof, other);
        }
    }

    #[tokio::test]
    async fn nobody_gets_a_copy_without_a_proof() {
        let copies = Copies::new("g", Path::new("/bin/false"), Path::new("/x"), Path::new("/"), None);
        assert!(copies.stream("").is_err());
        copies.allow(Nonce::from("n"), Secret::new("s"));
        assert!(copies.stream("x").is_err());
        let mut stream = copies.stream(&proof("g", &Nonce::from("n"), &Secret::new("s"))).unwrap();
        assert!(stream.recv().await.unwrap().is_err(), "a copy that failed must not look whole");
        copies.forbid();
        assert!(copies.stream(&proof("g", &Nonce::from("n"), &Secret::new("s"))).is_err());
    }

    #[test]
    fn a_copy_that_was_given_up_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = [UNDER_WAY, WHOLE].map(|name| dir.path().join(name));
        fs::create_dir(&from).unwrap();
        let wanted = Wanted::default();
        wanted.give_up();
        assert!(name_whole(&from, &to, &wanted).is_err());
        assert!(from.exists() && !to.exists());
        name_whole(&from, &to, &Wanted::default()).unwrap();
        assert!(to.exists());
    }

    #[tokio::test]
    async fn who_takes_nothing_holds_nothing_up() {
        let mut command = Command::new("/bin/cat");
        command.arg("/dev/zero").stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        let (pieces, _stream) = mpsc::channel(1);
        send("g".to_owned(), child, pieces, Duration::from_millis(50)).await;
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await; // It was killed, and ends in a moment.
        }
    }

    #[test]
    fn logs_are_no_part_of_a_copys_size() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("app")).unwrap();
        for (name, bytes) in [("ibdata1", 100), ("app/t.ibd", 20), ("binlog.000001", 5_000), ("relay.000001", 5_000)] {
            fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(size_of(dir.path()), 120);
        assert_eq!(size_of(&dir.path().join("nowhere")), 0);
    }

    #[test]
    fn the_position_is_the_third_word() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(copied_at(dir.path()), None);
        fs::write(dir.path().join("xtrabackup_binlog_info"), "binlog.000002\t331\t0-1-17\n").unwrap();
        assert_eq!(copied_at(dir.path()).as_deref(), Some("0-1-17"));
        fs::write(dir.path().join("xtrabackup_binlog_info"), "binlog.000001\t328\t\n").unwrap();
        assert_eq!(copied_at(dir.path()).as_deref(), Some(""));
    }
}
