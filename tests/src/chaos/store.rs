//! What the clients of a load talk to: the kind of database, how they log in, and what they ask of it.

use super::client::Connection;
use super::sql;
use crate::history::{Bank, Outcome, Server, Transfer};
use anyhow::{Context, Result};
use config::Engine;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts at what has to succeed in the end.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// What one attempt may take: longer than any of a client's.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many accounts a load keeps: so few that transfers meet.
pub(super) const ACCOUNTS: usize = 8;

/// What each holds at first.
pub(super) const OPENING: i64 = 1_000;

/// A kind of database, and how clients log in.
#[derive(Debug, Clone)]
pub struct Store {
    /// The kind.
    pub engine: Engine,
    /// The administrator's password.
    pub password: Option<String>,
    /// What every session of a client says first.
    pub greeting: Option<String>,
}

/// The connection is of no use any more. What is known of the request all the same: mostly nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed(pub(super) Outcome);

/// A connection of a client. An answer that is not `Closed` is what the server said.
pub(super) trait Session: Send {
    /// Writes a key of its own.
    fn insert(&mut self, key: &str, value: u64) -> Result<Outcome, Closed>;

    /// The same, and learns who did it.
    fn insert_tagged(&mut self, key: &str, value: u64) -> Result<(Outcome, Option<Server>), Closed>;

    /// Sets a register.
    fn set(&mut self, key: &str, value: u64) -> Result<Outcome, Closed>;

    /// Reads a register; nothing when the server answers with an error.
    fn get(&mut self, key: &str) -> Result<Option<Option<u64>>, Closed>;

    /// Moves money, and leaves a row that says so.
    fn transfer(&mut self, key: &str, value: u64, transfer: Transfer) -> Result<Outcome, Closed>;

    /// What all accounts hold; nothing when the server answers with an error.
    fn sum(&mut self) -> Result<Option<i64>, Closed>;
}

/// What is there when all is over.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) last: BTreeMap<String, Vec<u64>>,
    pub(super) bank: Option<Bank>,
}

impl Store {
    /// A Redis that everybody may use.
    pub fn redis() -> Self {
        Self { engine: Engine::Redis, password: None, greeting: None }
    }

    /// Whether its clients keep accounts.
    pub(super) fn has_bank(&self) -> bool {
        self.engine != Engine::Redis
    }

    /// Connects; nothing that is asked of the session takes longer than `patience`.
    pub(super) fn open(&self, server: SocketAddr, patience: Duration) -> io::Result<Box<dyn Session>> {
        Ok(match self.engine {
            Engine::Redis => Box::new(Connection::open(server, patience)?),
            Engine::Postgres | Engine::Mariadb => Box::new(sql::Client::open(self, server, patience)?),
        })
    }

    /// Makes what the clients work on.
    ///
    /// # Errors
    /// When it cannot be made within `limit`.
    pub(super) fn prepare(&self, server: SocketAddr, limit: Duration) -> Result<()> {
        if self.engine == Engine::Redis {
            return Ok(());
        }
        let attempt = || sql::Client::open(self, server, PATIENCE)?.prepare();
        in_the_end(limit, attempt).context("the tables of the load cannot be made")
    }

    /// What each of the keys, and the bank, holds. Asks again until there is an answer: only an answer says that
    /// something is not there.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub(super) fn read_back(&self, keys: &[&str], server: SocketAddr, limit: Duration) -> Result<Found> {
        let attempt = || match self.engine {
            Engine::Redis => {
                let last = Connection::open(server, PATIENCE)?.get_all(keys)?;
                Ok(Found { last, bank: None })
            }
            Engine::Postgres | Engine::Mariadb => sql::Client::open(self, server, PATIENCE)?.read_back(),
        };
        in_the_end(limit, attempt).context("what was written cannot be read back")
    }
}

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self(Outcome::Unknown)
    }
}

/// On a thread of its own, since a client brings a runtime of its own.
fn in_the_end<T: Send>(limit: Duration, attempt: impl Fn() -> Result<T> + Send) -> Result<T> {
    let deadline = Instant::now() + limit;
    let tries = move || loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(TRY_AGAIN),
            done => return done,
        }
    };
    thread::scope(|scope| scope.spawn(tries).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
