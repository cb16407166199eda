//! A data set as the simulation sees it: which of the clients' writes it holds, and what agents keep beside them; in
//! memory, and on a disk that may lag.

use election::Marker;

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
}

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

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Data {
    pub(crate) writes: Writes,
    pub(crate) marker: Option<Marker>,
    pub(crate) need: Option<bool>,
}

impl Data {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Write(id) => self.writes.insert(*id),
            Entry::Mark(marker) => self.marker = Some(marker.clone()),
            Entry::Need(need) => self.need = Some(*need),
            Entry::Flush => (self.marker, self.need) = (None, None),
            Entry::Ping | Entry::Barrier => {}
        }
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
    }

    fn sync_until(&mut self, at: u64) {
        let kept = self.tail.iter().take_while(|(written, _)| *written <= at).count();
        for (_, entry) in self.tail.drain(..kept) {
            self.durable.apply(&entry);
        }
    }
}
