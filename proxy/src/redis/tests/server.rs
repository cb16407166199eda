//! A real Redis for the tests of this folder.

use crate::redis::scan::{FoundReply, ReplyScan};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than a server takes to start on a machine with everything else to do.
const LIMIT: Duration = Duration::from_secs(30);

/// A redis-server, and a connection to it.
pub(super) struct Server {
    child: Child,
    port: u16,
    stream: TcpStream,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is on PATH");
        let asked = Instant::now();
        let stream = loop {
            match connect(port) {
                Ok(stream) => break stream,
                Err(error) if asked.elapsed() > LIMIT => {
                    let _ = child.kill();
                    panic!("redis-server does not answer: {error}");
                }
                Err(_) => sleep(Duration::from_millis(20)),
            }
        };
        Self { child, port, stream, _folder: folder }
    }

    /// Another connection in place of the present one.
    pub(super) fn connect_anew(&mut self) {
        self.stream = connect(self.port).expect("the server listens");
    }

    /// What it says until it closes the connection.
    pub(super) fn last_words(&mut self, bytes: &[u8]) -> String {
        self.stream.write_all(bytes).expect("the server reads");
        let mut said = Vec::new();
        self.stream.read_to_end(&mut said).expect("the server closes the connection");
        String::from_utf8(said).expect("text")
    }

    /// The bytes of the answer to one request.
    pub(super) fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.write_all(request).expect("the server reads");
        let (mut scan, mut answer, mut piece) = (ReplyScan::default(), Vec::new(), [0; 4096]);
        loop {
            let len = self.stream.read(&mut piece).expect("the server answers");
            assert!(len > 0, "the server closed the connection");
            answer.extend_from_slice(&piece[..len]);
            if let FoundReply::Whole(len) = scan.scan(&answer).expect("well formed") {
                assert_eq!(len, answer.len());
                return answer;
            }
        }
    }
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}
