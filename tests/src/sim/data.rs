//! A data set as the simulation sees it: which of the clients' writes it holds, and what agents keep beside them; in
//! memory, and on a disk that may lag.

use super::history::Knot;
use election::{Marker, Nonce};

/// The replication stream's unit; each counts as one byte of position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Write(u32),
    Mark(Marker),
    Need(bool),
    /// A user's FLUSHALL. The users' own keys are written again by the same users at once; what stays away is what
    /// the agent keeps.
    Flush,
    Ping,
    /// The small write of a barrier for durable reads.
    Barrier,
    /// A new server of an SQL engine, which has nothing in common with any other.
    System,
    /// PostgreSQL: a copy was promoted here.
    Promote,
    /// MariaDB: somebody with the right to has written on a copy.
    Errant,
    /// A change of the agent's that is no data of users.
    Account,
}

/// How many accounts there are that money is moved between.
const ACCOUNTS: usize = 4;

/// A set of write numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Writes(Vec<u64>);

impl Writes {
    pub(crate) fn insert(&mut self, id: u32) {
        let word = usize::try_from(id / 64).unwrap_or_default();
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        let word = usize::try_from(id / 64).unwrap_or_default();
        self.0.get(word).is_some_and(|w| w & (1 << (id % 64)) != 0)
    }

    /// The lowest of these that `other` has not, and how many such there are.
    pub(crate) fn missing_in(&self, other: &Writes) -> Option<(u64, u32)> {
        let gap = |i: usize, word: u64| word & !other.0.get(i).copied().unwrap_or_default();
        let count = self.0.iter().enumerate().map(|(i, w)| gap(i, *w).count_ones()).sum();
        let (i, word) = self.0.iter().enumerate().map(|(i, w)| (i, gap(i, *w))).find(|(_, gap)| *gap != 0)?;
        Some((u64::try_from(i).unwrap_or_default() * 64 + u64::from(word.trailing_zeros()), count))
    }

    /// Forgets what `other` has not, and says how many that were.
    pub(crate) fn keep_only(&mut self, other: &Writes) -> u32 {
        let lost = self.missing_in(other).map_or(0, |(_, count)| count);
        self.0.iter_mut().enumerate().for_each(|(i, word)| *word &= other.0.get(i).copied().unwrap_or_default());
        lost
    }

    /// Half a copy: some of it is not there.
    pub(crate) fn tear(&mut self) {
        self.0.iter_mut().for_each(|word| *word &= !0x11);
    }

    /// Takes in what `other` has.
    pub(crate) fn add(&mut self, other: &Writes) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn each(&self) -> impl Iterator<Item = u32> {
        let words = self.0.iter().zip(0_u32..);
        words.flat_map(|(word, at)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * 64 + bit))
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

fn transfer(accounts: &mut [i64; ACCOUNTS], id: u32) {
    let at = |n: u32| usize::try_from(n).unwrap_or_default() % ACCOUNTS;
    let amount = i64::from(1 + id % 7);
    accounts[at(id)] -= amount;
    accounts[at(id / 3 + 1)] += amount;
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Data {
    pub(crate) writes: Writes,
    pub(crate) marker: Option<Marker>,
    pub(crate) need: Option<bool>,
    /// What the transfers have made of the accounts: each write inserts a row of its own, and moves money.
    accounts: [i64; ACCOUNTS],
}

impl Data {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Write(id) => {
                self.writes.insert(*id);
                transfer(&mut self.accounts, *id);
            }
            Entry::Mark(marker) => self.marker = Some(marker.clone()),
            Entry::Need(need) => self.need = Some(*need),
            Entry::Flush => (self.marker, self.need) = (None, None),
            Entry::Ping | Entry::Barrier => {}
            Entry::System | Entry::Promote | Entry::Errant | Entry::Account => {}
        }
    }

    /// Whether the accounts are what the rows that are there make them: no transfer is missing whose row is there, none
    /// was made twice, and no money came or went.
    pub(crate) fn books_balance(&self) -> bool {
        let mut due = [0; ACCOUNTS];
        self.writes.each().for_each(|id| transfer(&mut due, id));
        due == self.accounts && self.accounts.iter().sum::<i64>() == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.marker.is_none()
    }
}

/// `everysec` writes to the disk at most this much later.
pub(crate) const FSYNC_LAG_US: u64 = 2_000_000;

/// The append-only file: what a power cut leaves, and what only the kernel has yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    durable: Data,
    tail: Vec<(u64, Entry)>,
    /// It is full, or takes no writes for another reason.
    pub(crate) bad: bool,
    /// A power cut has taken something away.
    pub(crate) shortened: bool,
    /// What an SQL engine has in its place.
    pub(crate) log: LogDisk,
}

/// An SQL engine's folder. What is in it is on disk, always.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogDisk {
    /// There is a server's folder.
    pub(crate) made: bool,
    /// It was made by the agent, and nothing of a group was ever in it.
    pub(crate) fresh: bool,
    /// The end of what was received. MariaDB: of the relay log.
    pub(crate) received: Knot,
    /// MariaDB: the end of the binary log.
    pub(crate) written: Knot,
    /// MariaDB: what is committed.
    pub(crate) applied: Knot,
    /// PostgreSQL: a copy under construction; a start throws it away.
    pub(crate) incomplete: bool,
    /// MariaDB: a copy that is whole, and waits to take the data's place.
    pub(crate) whole: Option<Knot>,
    /// It does so at the next start: the instance was told to follow.
    pub(crate) replaces: bool,
    /// The planted bug's: half a copy.
    pub(crate) torn: bool,
    /// The epoch whose tail is kept.
    pub(crate) kept: Option<u64>,
    /// MariaDB: its last run did not close the log.
    pub(crate) ended_badly: bool,
    /// MariaDB: whom it was told to follow.
    pub(crate) source: Option<Source>,
    /// The planted bug's: what only the kernel has, and since when.
    pub(crate) unsynced: Vec<(u64, Knot)>,
}

/// Whom a copy is told to follow, as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    pub(crate) node: usize,
    pub(crate) channel: Nonce,
    pub(crate) secret: String,
}

impl Disk {
    pub(crate) fn append(&mut self, now: u64, entry: &Entry, always: bool) {
        if matches!(entry, Entry::Ping | Entry::Barrier) {
            return;
        }
        self.tail.push((now, entry.clone()));
        if always {
            self.sync();
        } else if self.tail.len() > 256 {
            self.sync_until(now.saturating_sub(FSYNC_LAG_US));
        }
    }

    pub(crate) fn sync(&mut self) {
        self.sync_until(u64::MAX);
    }

    /// The file is rewritten from memory.
    pub(crate) fn replace(&mut self, data: &Data) {
        self.durable = data.clone();
        self.tail.clear();
    }

    /// What a process that starts now reads.
    pub(crate) fn content(&self) -> Data {
        let mut data = self.durable.clone();
        self.tail.iter().for_each(|(_, entry)| data.apply(entry));
        data
    }

    /// Power is cut, and `lag` microseconds of writes had not reached the disk.
    pub(crate) fn lose_power(&mut self, now: u64, lag: u64) {
        self.sync_until(now.saturating_sub(lag));
        self.shortened |= !self.tail.is_empty();
        self.tail.clear();
        // The planted bug's: the first that had not been put on disk, and all after it.
        let gone = self.log.unsynced.iter().position(|(written, _)| *written > now.saturating_sub(lag));
        if let Some((_, before)) = gone.and_then(|gone| self.log.unsynced.get(gone)) {
            self.log.received = *before;
        }
        self.log.unsynced.clear();
    }

    fn sync_until(&mut self, at: u64) {
        let kept = self.tail.iter().take_while(|(written, _)| *written <= at).count();
        for (_, entry) in self.tail.drain(..kept) {
            self.durable.apply(&entry);
        }
    }
}
