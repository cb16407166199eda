//! Many clients, each on a thread of its own, that write down every request and its answer.

use super::client::Connection;
use crate::history::{Action, History, Operation, Outcome};
use crate::sim::rng::Rng;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two requests of a client, at most: each draws its own pause.
const PAUSE: Duration = Duration::from_millis(16);

/// After an error, so that a closed door is not hammered at.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// What an ordinary client waits.
const SHORT: Duration = Duration::from_secs(1);

/// What one waits that stays attached to a master while it sleeps.
const LONG: Duration = Duration::from_secs(15);

/// How many registers there are at a time.
const REGISTERS: u64 = 4;

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Keys read back in one request.
const BATCH: usize = 500;

/// How long reading back goes on trying.
const READ_BACK: Duration = Duration::from_secs(60);

/// What the clients of a load do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Keys that nobody else writes.
    Writer,
    /// The same, by a script that says who did it.
    Tagged,
    /// Writes and reads of a few keys that others write and read as well.
    Register,
}

/// The running clients. Dropped, they end.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Operation>>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    /// Registers are left behind for fresh ones from time to time, so that no history of one grows long.
    generation: AtomicU64,
    /// Writes acknowledged so far, by the place of the server that the client is at.
    acknowledged: Vec<AtomicU64>,
    /// When the last write was acknowledged, in microseconds.
    last: AtomicU64,
    /// The longest time without an acknowledgement, in microseconds.
    gap: AtomicU64,
}

impl Load {
    /// Starts `clients` clients, in turn at one of `servers`: of eight, five write, one says who did it, two work on
    /// registers. Every third is patient.
    pub fn start(clients: usize, servers: &[SocketAddr]) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            acknowledged: servers.iter().map(|_| AtomicU64::new(0)).collect(),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
        });
        let start = |(index, server): (usize, &SocketAddr)| {
            let part = match index / servers.len() % 8 {
                0 => Part::Tagged,
                1 | 2 => Part::Register,
                _ => Part::Writer,
            };
            let patience = if index % 3 == 0 { LONG } else { SHORT };
            let shared = shared.clone();
            let client = Client {
                index,
                part,
                place: index % servers.len(),
                server: *server,
                patience,
                shared,
                connection: None,
                number: 0,
            };
            thread::spawn(move || client.work())
        };
        let clients = (0..clients).zip(servers.iter().cycle()).map(start).collect();
        Self { shared, clients }
    }

    /// Writes acknowledged so far, by server.
    fn acknowledged(&self) -> Vec<u64> {
        self.shared.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The longest time in which no write at all was acknowledged, since this was last asked; and fresh registers.
    pub fn turn(&self) -> Duration {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
        let last = self.shared.last.load(Ordering::Relaxed);
        let open = self.shared.now().saturating_sub(last);
        Duration::from_micros(self.shared.gap.swap(0, Ordering::Relaxed).max(open))
    }

    /// Waits until `count` more writes are acknowledged at each server.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn wait_for(&self, count: u64, limit: Duration) -> Result<()> {
        self.wait(limit, |got| got.iter().all(|got| *got >= count)).await
    }

    /// Waits until `count` more writes are acknowledged at the server of this place.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn wait_at(&self, place: usize, count: u64, limit: Duration) -> Result<()> {
        self.wait(limit, |got| got.get(place).is_some_and(|got| *got >= count)).await
    }

    async fn wait(&self, limit: Duration, enough: impl Fn(&[u64]) -> bool) -> Result<()> {
        let (from, deadline) = (self.acknowledged(), Instant::now() + limit);
        loop {
            let got: Vec<u64> = self.acknowledged().iter().zip(&from).map(|(now, from)| now - from).collect();
            if enough(&got) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "writes acknowledged in {} s: {got:?}", limit.as_secs());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends the clients, reads back every key at the database `server`, and gives the whole history.
    ///
    /// # Errors
    /// When the keys cannot be read back.
    pub fn finish(mut self, server: SocketAddr) -> Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut operations = Vec::new();
        for client in self.clients.drain(..) {
            operations.extend(client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        let last = read_back(&operations, server)?;
        Ok(History { operations, last })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

/// What every key holds at the end. Asks again until there is an answer: only an answer says that a key is not there.
fn read_back(operations: &[Operation], server: SocketAddr) -> Result<BTreeMap<String, Option<u64>>> {
    let keys: BTreeSet<&str> = operations.iter().map(|operation| operation.key.as_str()).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    let deadline = Instant::now() + READ_BACK;
    let mut last = BTreeMap::new();
    for batch in keys.chunks(BATCH) {
        let values = loop {
            match read(batch, server) {
                Ok(values) => break values,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("what was written cannot be read back");
                }
                Err(_) => thread::sleep(AFTER_ERROR),
            }
        };
        last.extend(batch.iter().map(|key| (*key).to_owned()).zip(values));
    }
    Ok(last)
}

fn read(keys: &[&str], server: SocketAddr) -> Result<Vec<Option<u64>>> {
    let mut connection = Connection::open(server, LONG)?;
    let words: Vec<&str> = ["MGET"].iter().chain(keys).copied().collect();
    match connection.ask(&words)? {
        super::client::Reply::Array(values) if values.len() == keys.len() => values
            .into_iter()
            .map(|value| match value {
                super::client::Reply::Bulk(value) => Ok(value.map(|value| value.parse()).transpose()?),
                other => anyhow::bail!("{other:?} in the answer to MGET"),
            })
            .collect(),
        other => anyhow::bail!("{other:?} in answer to MGET"),
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn acknowledge(&self, place: usize, at: u64) {
        self.acknowledged[place].fetch_add(1, Ordering::Relaxed);
        let before = self.last.fetch_max(at, Ordering::Relaxed);
        self.gap.fetch_max(at.saturating_sub(before), Ordering::Relaxed);
    }
}

struct Client {
    index: usize,
    part: Part,
    place: usize,
    server: SocketAddr,
    patience: Duration,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    number: u64,
}

impl Client {
    fn work(mut self) -> Vec<Operation> {
        let mut rng = Rng::new(self.index as u64);
        let mut operations = Vec::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.number += 1;
            let connected = self.connection.is_some() || self.connect();
            // What was never sent is no operation.
            let done = connected.then(|| self.one(&mut rng));
            let pause = match &done {
                Some(done) if done.outcome == Outcome::Acknowledged => rng.range(0, PAUSE.as_millis() as u64),
                _ => AFTER_ERROR.as_millis() as u64,
            };
            operations.extend(done);
            thread::sleep(Duration::from_millis(pause));
        }
        operations
    }

    fn connect(&mut self) -> bool {
        self.connection = Connection::open(self.server, self.patience).ok();
        self.connection.is_some()
    }

    fn one(&mut self, rng: &mut Rng) -> Operation {
        let value = ((self.index as u64 + 1) << 40) | self.number;
        let key = match self.part {
            Part::Writer => format!("w:{}:{}", self.index, self.number),
            Part::Tagged => format!("t:{}:{}", self.index, self.number),
            Part::Register => {
                let generation = self.shared.generation.load(Ordering::Relaxed);
                format!("r:{generation}:{}", rng.range(0, REGISTERS))
            }
        };
        let reads = self.part == Part::Register && rng.chance(500);
        let action = if reads { Action::Read(None) } else { Action::Write(value) };
        let begin = self.shared.now();
        let mut done =
            Operation { client: self.index, key, action, begin, end: begin, outcome: Outcome::Unknown, server: None };
        let answered = self.request(&mut done);
        done.end = self.shared.now();
        if answered.is_err() {
            self.connection = None;
        } else if done.outcome == Outcome::Acknowledged && !reads {
            self.shared.acknowledge(self.place, done.end);
        }
        done
    }

    fn request(&mut self, done: &mut Operation) -> std::io::Result<()> {
        let connection = self.connection.as_mut().ok_or(std::io::ErrorKind::NotConnected)?;
        match done.action {
            Action::Read(_) => match connection.get(&done.key)? {
                Some(value) => (done.action, done.outcome) = (Action::Read(value), Outcome::Acknowledged),
                None => done.outcome = Outcome::Refused,
            },
            Action::Write(value) if self.part == Part::Tagged => {
                (done.outcome, done.server) = connection.set_tagged(&done.key, value)?;
            }
            Action::Write(value) => done.outcome = connection.set(&done.key, value)?,
        }
        Ok(())
    }
}
