//! Many clients, each on a thread of its own, that write down every request and its answer.

use super::store::{ACCOUNTS, Closed, Session, Store};
use crate::history::{Action, History, Operation, Outcome, Sum, Transfer};
use crate::sim::rng::Rng;
use anyhow::Result;
use std::collections::BTreeSet;
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

/// How long making the tables, and reading back at the end, go on trying.
const IN_THE_END: Duration = Duration::from_secs(60);

/// What the clients of a load do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Keys that nobody else writes.
    Writer,
    /// The same, by a script or transaction that says who did it.
    Tagged,
    /// Writes and reads of a few keys that others write and read as well.
    Register,
    /// Transfers between accounts, and sums of them all.
    Bank,
}

/// What a client was told.
#[derive(Debug, Default)]
struct Told {
    operations: Vec<Operation>,
    sums: Vec<Sum>,
}

/// The running clients. Dropped, they end.
#[derive(Debug)]
pub struct Load {
    store: Store,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Told>>,
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
    /// Starts `clients` clients, in turn at one of `servers`: of eight, one says who did it, two work on registers, two
    /// keep the accounts where the store has some, all others write. Every third is patient.
    ///
    /// # Errors
    /// When what they work on cannot be made.
    pub fn start(store: &Store, clients: usize, servers: &[SocketAddr]) -> Result<Self> {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            acknowledged: servers.iter().map(|_| AtomicU64::new(0)).collect(),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
        });
        if let Some(first) = servers.first() {
            store.prepare(*first, IN_THE_END)?;
        }
        let start = |(index, server): (usize, &SocketAddr)| {
            let part = match index / servers.len() % 8 {
                0 => Part::Tagged,
                1 | 2 => Part::Register,
                3 | 4 if store.has_bank() => Part::Bank,
                _ => Part::Writer,
            };
            let client = Client {
                index,
                part,
                place: index % servers.len(),
                server: *server,
                patience: if index % 3 == 0 { LONG } else { SHORT },
                store: store.clone(),
                shared: shared.clone(),
                session: None,
                number: 0,
            };
            thread::spawn(move || client.work())
        };
        let clients = (0..clients).zip(servers.iter().cycle()).map(start).collect();
        Ok(Self { store: store.clone(), shared, clients })
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
        let mut all = Told::default();
        for client in self.clients.drain(..) {
            let told = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.operations.extend(told.operations);
            all.sums.extend(told.sums);
        }
        let keys: BTreeSet<&str> = all.operations.iter().map(|operation| operation.key.as_str()).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut found = self.store.read_back(&keys, server, IN_THE_END)?;
        if let Some(bank) = &mut found.bank {
            bank.sums = all.sums;
        }
        Ok(History { operations: all.operations, last: found.last, bank: found.bank })
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
    store: Store,
    shared: Arc<Shared>,
    session: Option<Box<dyn Session>>,
    number: u64,
}

impl Client {
    fn work(mut self) -> Told {
        let mut rng = Rng::new(self.index as u64);
        let mut told = Told::default();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.number += 1;
            // What was never sent is no operation.
            let answered = self.connect() && self.one(&mut rng, &mut told);
            let most = if answered { rng.range(0, PAUSE.as_millis() as u64) } else { AFTER_ERROR.as_millis() as u64 };
            thread::sleep(Duration::from_millis(most));
        }
        told
    }

    fn connect(&mut self) -> bool {
        if self.session.is_none() {
            self.session = self.store.open(self.server, self.patience).ok();
        }
        self.session.is_some()
    }

    /// One request; whether it was done.
    fn one(&mut self, rng: &mut Rng, told: &mut Told) -> bool {
        if self.part == Part::Bank && rng.chance(250) {
            return self.add_up(told);
        }
        let value = ((self.index as u64 + 1) << 40) | self.number;
        let key = match self.part {
            Part::Writer => format!("w:{}:{}", self.index, self.number),
            Part::Tagged => format!("t:{}:{}", self.index, self.number),
            Part::Bank => format!("x:{}:{}", self.index, self.number),
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
        if let Err(Closed(outcome)) = self.request(&mut done, rng) {
            done.outcome = outcome;
            self.session = None;
        }
        done.end = self.shared.now();
        let acknowledged = done.outcome == Outcome::Acknowledged;
        if acknowledged && !reads {
            self.shared.acknowledge(self.place, done.end);
        }
        told.operations.push(done);
        acknowledged
    }

    fn request(&mut self, done: &mut Operation, rng: &mut Rng) -> Result<(), Closed> {
        let session = self.session.as_mut().ok_or(Closed(Outcome::Refused))?;
        match done.action {
            Action::Read(_) => match session.get(&done.key)? {
                Some(value) => (done.action, done.outcome) = (Action::Read(value), Outcome::Acknowledged),
                None => done.outcome = Outcome::Refused,
            },
            Action::Write(value) => match self.part {
                Part::Tagged => (done.outcome, done.server) = session.insert_tagged(&done.key, value)?,
                Part::Bank => done.outcome = session.transfer(&done.key, value, transfer(rng))?,
                Part::Register => done.outcome = session.set(&done.key, value)?,
                Part::Writer => done.outcome = session.insert(&done.key, value)?,
            },
        }
        Ok(())
    }

    fn add_up(&mut self, told: &mut Told) -> bool {
        let begin = self.shared.now();
        let asked = self.session.as_mut().map_or(Err(Closed(Outcome::Refused)), |session| session.sum());
        match asked {
            Ok(Some(total)) => {
                told.sums.push(Sum { client: self.index, begin, end: self.shared.now(), total });
                true
            }
            Ok(None) => false,
            Err(Closed(_)) => {
                self.session = None;
                false
            }
        }
    }
}

/// From one account to another.
fn transfer(rng: &mut Rng) -> Transfer {
    let from = rng.index(ACCOUNTS);
    let to = (from + 1 + rng.index(ACCOUNTS - 1)) % ACCOUNTS;
    Transfer { from, to, amount: rng.range(1, 100) as i64 }
}
