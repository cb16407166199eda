//! The one request the writing client makes, spoken by hand: every wait in it is bounded, also while connecting.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that sets keys.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; no read, write or connect waits longer than `limit`.
    pub(super) fn open(server: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream: BufReader::with_capacity(512, stream) })
    }

    /// Sets a key and waits for the acknowledgement. After an error the connection is of no use: a late answer would
    /// be taken for another request's.
    pub(super) fn set(&mut self, key: &str, value: &str) -> io::Result<()> {
        let request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut reply = String::new();
        self.stream.read_line(&mut reply)?;
        match reply.as_str() {
            "+OK\r\n" => Ok(()),
            "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            other => Err(io::Error::other(other.trim_end().to_owned())),
        }
    }
}
