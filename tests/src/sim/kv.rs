//! A model of Consul's keys and sessions, as the server answers that leads: transactions by index, locks that protect
//! nothing, keys that go with their session, the index of a folder by which it is watched.
//!
//! The simulation stands on it, and `tests/tests/model_consul.rs` holds it against a real Consul.

use consul::TxnOp;
use std::collections::{BTreeMap, BTreeSet};

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The value.
    pub value: Vec<u8>,
    /// The index of its last change.
    pub modified: u64,
    /// How often it was locked, as far as Consul remembers: a plain write forgets it.
    pub locked: u64,
    /// The session that holds it.
    pub session: Option<String>,
}

/// The server.
#[derive(Debug, Clone, Default)]
pub struct Kv {
    index: u64,
    /// The index of the last change of any key.
    changed: u64,
    keys: BTreeMap<String, Pair>,
    /// When keys that are gone went: a folder's index must not fall.
    graves: BTreeMap<String, u64>,
    sessions: BTreeSet<String>,
}

/// What a transaction has changed, to be put back where one of its conditions does not hold.
type Before = Vec<(String, Option<Pair>)>;

impl Kv {
    /// One transaction, all of it at one index: the new index of each key that was written, in the order of `ops`.
    ///
    /// # Errors
    /// The places in `ops` of those that were refused. Each is tried, also after one that was; nothing is changed.
    pub fn transact(&mut self, ops: &[TxnOp]) -> Result<Vec<(String, u64)>, Vec<usize>> {
        self.index += 1;
        let (mut written, mut refused, mut before) = (Vec::new(), Vec::new(), Before::new());
        for (place, op) in ops.iter().enumerate() {
            if !self.execute(op, &mut before) {
                refused.push(place);
            }
            written.extend(self.keys.get(op.key()).map(|pair| (op.key().to_owned(), pair.modified)));
        }
        if refused.is_empty() {
            self.bury(&before);
            return Ok(written);
        }
        for (key, pair) in before.into_iter().rev() {
            match pair {
                Some(pair) => drop(self.keys.insert(key, pair)),
                None => drop(self.keys.remove(&key)),
            }
        }
        Err(refused)
    }

    /// False: refused.
    fn execute(&mut self, op: &TxnOp, before: &mut Before) -> bool {
        let stands = self.keys.get(op.key()).cloned();
        let modified = stands.as_ref().map_or(0, |pair| pair.modified);
        let holder = stands.as_ref().and_then(|pair| pair.session.clone());
        let locked = stands.as_ref().map_or(0, |pair| pair.locked);
        match op {
            // Whoever holds the key, and Consul forgets how often it was locked.
            TxnOp::Set { value, .. } => self.put(op.key(), value, 0, holder, before),
            TxnOp::Cas { value, index, .. } if *index == modified => self.put(op.key(), value, 0, holder, before),
            TxnOp::Lock { value, session, .. } if self.sessions.contains(session) => match holder {
                Some(other) if other != *session => return false,
                Some(_) => self.put(op.key(), value, locked, holder, before),
                None => self.put(op.key(), value, locked + 1, Some(session.clone()), before),
            },
            // The text is compared, not who asks.
            TxnOp::Unlock { value, session, .. } if holder.as_ref() == Some(session) => {
                self.put(op.key(), value, locked, None, before);
            }
            TxnOp::Delete { .. } => self.remove(op.key(), before),
            // What is not there has been deleted.
            TxnOp::DeleteCas { index, .. } if stands.is_none() || *index == modified => {
                self.remove(op.key(), before);
            }
            TxnOp::CheckSession { session, .. } if holder.as_ref() == Some(session) => {}
            TxnOp::CheckIndex { index, .. } if stands.is_some() && *index == modified => {}
            TxnOp::CheckNotExists { .. } if stands.is_none() => {}
            _ => return false,
        }
        true
    }

    /// A value that is the same gets no new index.
    fn put(&mut self, key: &str, value: &[u8], locked: u64, session: Option<String>, before: &mut Before) {
        let stands = self.keys.get(key);
        if stands.is_some_and(|pair| pair.value == value && pair.locked == locked && pair.session == session) {
            return;
        }
        let pair = Pair { value: value.to_vec(), modified: self.index, locked, session };
        before.push((key.to_owned(), self.keys.insert(key.to_owned(), pair)));
    }

    fn remove(&mut self, key: &str, before: &mut Before) {
        if let Some(pair) = self.keys.remove(key) {
            before.push((key.to_owned(), Some(pair)));
        }
    }

    fn bury(&mut self, before: &Before) {
        if !before.is_empty() {
            self.changed = self.index;
        }
        for (key, was) in before {
            if was.is_some() && !self.keys.contains_key(key) {
                self.graves.insert(key.clone(), self.index);
            }
        }
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Pair> {
        self.keys.get(key)
    }

    /// Everything in a folder, and the index by which it is watched: that of the last change in it, also when that was
    /// a key's end; of any change where nothing ever stood in it.
    pub fn list<'a>(&'a self, folder: &'a str) -> (u64, impl Iterator<Item = (&'a String, &'a Pair)>) {
        fn within<'a, T>(all: &'a BTreeMap<String, T>, folder: &'a str) -> impl Iterator<Item = (&'a String, &'a T)> {
            all.range(folder.to_owned()..).take_while(move |(key, _)| key.starts_with(folder))
        }
        let living = within(&self.keys, folder).map(|(_, pair)| pair.modified);
        let index = living.chain(within(&self.graves, folder).map(|(_, index)| *index)).max();
        (index.unwrap_or(self.changed), within(&self.keys, folder))
    }

    /// A session that deletes its keys when it ends, with no delay for the next lock.
    pub fn create_session(&mut self, id: &str) {
        self.index += 1;
        self.sessions.insert(id.to_owned());
    }

    /// Whether there is such a session.
    pub fn has_session(&self, id: &str) -> bool {
        self.sessions.contains(id)
    }

    /// Ends a session: its keys go, all at one index. Nothing happens where there is none.
    pub fn end_session(&mut self, id: &str) {
        self.index += 1;
        if !self.sessions.remove(id) {
            return;
        }
        let held = self.keys.iter().filter(|(_, pair)| pair.session.as_deref() == Some(id));
        let held: Vec<String> = held.map(|(key, _)| key.clone()).collect();
        let mut before = Before::new();
        held.iter().for_each(|key| self.remove(key, &mut before));
        self.bury(&before);
    }
}
