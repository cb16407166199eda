//! A real Redis on a free port.

use super::super::world::{LIMIT, limited, until};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Another process may take a free port before ours does.
const TRIES: usize = 5;

/// Gone with the value.
pub(super) struct Database {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) run_id: String,
    /// Where its agent answers; nobody does there unless a test says so.
    pub(super) agent: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        // It may have been killed before; then there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Database {
    pub(super) async fn start(name: &'static str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// With more of the program's arguments.
    pub(super) async fn start_with(name: &'static str, arguments: &[&str]) -> Self {
        for _ in 0..TRIES {
            let port =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|port| port.local_addr()).expect("a free port");
            if let Some(database) = Self::try_start(name, port, arguments).await {
                return database;
            }
        }
        panic!("redis-server did not start {TRIES} times");
    }

    async fn try_start(name: &'static str, address: SocketAddr, arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Command::new("redis-server")
            .current_dir(folder.path())
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
            .args(["--databases", &(super::DATABASES + 1).to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is on PATH");
        let mut database =
            Self { name, address, run_id: String::new(), agent: ([127, 0, 0, 1], 1).into(), process, _folder: folder };
        let start = std::time::Instant::now();
        while start.elapsed() < LIMIT {
            if database.process.try_wait().expect("our child").is_some() {
                return None;
            }
            if TcpStream::connect(address).await.is_ok() {
                let info = database.ask("INFO server").await;
                let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
                database.run_id = line.unwrap_or_else(|| panic!("no run id in {info}")).to_owned();
                return Some(database);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        None
    }

    /// Asks it directly, and gives all it says.
    pub(super) async fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).await.expect("sent");
        let mut said = String::new();
        limited(stream.read_to_string(&mut said)).await.expect("answered");
        said.strip_suffix("+OK\r\n").unwrap_or(&said).to_owned()
    }

    /// It answers nothing until it is woken; what is sent to it waits.
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().expect("our child");
        self.process.wait().expect("our child");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("our child lives");
    }

    /// Makes it a copy of another, and waits until it is.
    pub(super) async fn follow(&self, master: &Database) {
        let at = master.address;
        assert_eq!(self.ask(&format!("REPLICAOF {} {}", at.ip(), at.port())).await, "+OK\r\n");
        until("the copy follows", async || self.ask("INFO replication").await.contains("master_link_status:up")).await;
    }
}
