//! What every client did and was told, and whether a store that keeps its promises could have answered so.
//!
//! Pure: a [`History`] goes in, a [`Verdict`] comes out.

mod bank;
mod register;
mod verdict;

pub use bank::{Account, Bank, Sum, Transfer};
pub use verdict::{Promises, Verdict};

use std::collections::BTreeMap;

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To set the key to a value that nobody else ever writes to it.
    Write(u64),
    /// To read the key; what was read, if the answer came.
    Read(Option<u64>),
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Acknowledged,
    /// It was refused: it was not done, and never will be.
    Refused,
    /// No answer came: it was done, or will be, or never.
    Unknown,
}

/// Who carried out a write, as seen by the database itself while it did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// The epoch of the data's marker.
    pub epoch: u64,
    /// The process.
    pub run_id: String,
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub client: usize,
    /// On which key.
    pub key: String,
    /// What was asked for.
    pub action: Action,
    /// When it was sent, in microseconds since the history began.
    pub begin: u64,
    /// When the answer came, or when the client gave up.
    pub end: u64,
    /// What came.
    pub outcome: Outcome,
    /// Who did it, where the client asked for that.
    pub server: Option<Server>,
}

/// Everything that was done, and what was there at the end.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every request of every client, in any order.
    pub operations: Vec<Operation>,
    /// Everything that was found under every key when all was over: more than one value only where a store can hold one
    /// insert twice.
    pub last: BTreeMap<String, Vec<u64>>,
    /// The accounts, where the clients kept some. Each transfer is an operation as well, a write of its own key.
    pub bank: Option<Bank>,
}

impl Operation {
    fn is_acknowledged(&self) -> bool {
        self.outcome == Outcome::Acknowledged
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (begin, end) = (self.begin / 1_000, self.end / 1_000);
        write!(f, "client {} {}: {:?} {:?}, {begin} to {end} ms", self.client, self.key, self.action, self.outcome)?;
        match &self.server {
            Some(server) => write!(f, ", by {} in epoch {}", server.run_id, server.epoch),
            None => Ok(()),
        }
    }
}
