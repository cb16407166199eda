//! A connection of a client that writes down what it was told: enough of RESP for the requests of a load.

use super::store::{Closed, Session};
use crate::history::{Outcome, Server, Transfer};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Sets a key and says who did it: process and epoch, of the same instant as the write.
const TAGGED: &str = "redis.call('SET', KEYS[1], ARGV[1]) \
                      redis.call('SELECT', ARGV[2]) \
                      local epoch = redis.call('HGET', 'understudy:marker', 'epoch') \
                      redis.call('SELECT', 0) \
                      local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') \
                      return {epoch, run_id}";

/// The marker's database: one above the sixteen of Redis' default.
const MARKERS: &str = "16";

/// Keys read back in one request.
const BATCH: usize = 500;

/// Nothing that a load asks for answers more.
const MOST: usize = 64 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+…` or `:…`.
    Text(String),
    /// `-…`.
    Error(String),
    /// `$…`; nothing where there is none.
    Bulk(Option<String>),
    /// `*…`.
    Array(Vec<Reply>),
}

/// One connection. After an error of input or output it is of no use.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects; no read, write or connect waits longer than `patience`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn open(server: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// When no answer comes: whether the request was carried out is then unknown.
    pub fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.0.get_mut().write_all(request.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let length = || rest.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            "$" => self.bulk(usize::try_from(length()?).ok()).map(Reply::Bulk),
            "*" => (0..length()?).map(|_| self.reply()).collect::<io::Result<_>>().map(Reply::Array),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn bulk(&mut self, length: Option<usize>) -> io::Result<Option<String>> {
        let Some(length) = length.filter(|length| *length <= MOST) else { return Ok(None) };
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// What every key holds.
    pub(super) fn get_all(&mut self, keys: &[&str]) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
        let mut all = BTreeMap::new();
        for batch in keys.chunks(BATCH) {
            let words: Vec<&str> = ["MGET"].iter().chain(batch).copied().collect();
            let values = match self.ask(&words)? {
                Reply::Array(values) if values.len() == batch.len() => values,
                other => anyhow::bail!("{other:?} in answer to MGET"),
            };
            for (key, value) in batch.iter().zip(values) {
                match value {
                    Reply::Bulk(Some(value)) => drop(all.insert((*key).to_owned(), vec![value.parse()?])),
                    Reply::Bulk(None) => {}
                    other => anyhow::bail!("{other:?} in the answer to MGET"),
                }
            }
        }
        Ok(all)
    }
}

impl Session for Connection {
    fn insert(&mut self, key: &str, value: u64) -> Result<Outcome, Closed> {
        self.set(key, value)
    }

    fn insert_tagged(&mut self, key: &str, value: u64) -> Result<(Outcome, Option<Server>), Closed> {
        let reply = self.ask(&["EVAL", TAGGED, "1", key, &value.to_string(), MARKERS])?;
        Ok(match &reply {
            // A script may have failed after its write.
            Reply::Error(why) if why.contains("script") => (Outcome::Unknown, None),
            Reply::Error(_) => (Outcome::Refused, None),
            Reply::Array(parts) => (Outcome::Acknowledged, server(parts)),
            _ => (Outcome::Acknowledged, None),
        })
    }

    fn set(&mut self, key: &str, value: u64) -> Result<Outcome, Closed> {
        Ok(match self.ask(&["SET", key, &value.to_string()])? {
            Reply::Error(_) => Outcome::Refused,
            _ => Outcome::Acknowledged,
        })
    }

    fn get(&mut self, key: &str) -> Result<Option<Option<u64>>, Closed> {
        Ok(match self.ask(&["GET", key])? {
            Reply::Bulk(value) => Some(value.and_then(|value| value.parse().ok())),
            _ => None,
        })
    }

    /// A Redis keeps no accounts.
    fn transfer(&mut self, _key: &str, _value: u64, _transfer: Transfer) -> Result<Outcome, Closed> {
        Ok(Outcome::Refused)
    }

    fn sum(&mut self) -> Result<Option<i64>, Closed> {
        Ok(None)
    }
}

fn server(parts: &[Reply]) -> Option<Server> {
    match parts {
        [Reply::Bulk(Some(epoch)), Reply::Bulk(Some(run_id))] => {
            Some(Server { epoch: epoch.parse().ok()?, run_id: run_id.clone() })
        }
        _ => None,
    }
}
