//! What clients were told, and what each kind of proxy promises by it.
//!
//! `redis` mode: an acknowledged write stays, and so does everything that a durable read has shown, which is never
//! older than what was acknowledged before it was asked. `tcp` mode: the master answers alone; lost may be what it
//! answered before a takeover that nobody planned, for as long as its guard can be open.

use super::checks::acknowledged_on_every_named_copy;
use super::data::Writes;
use super::process::LINK_TIMEOUT_US;
use super::world::{World, index_of};
use election::Record;
use std::collections::BTreeMap;

/// How long a guard can be open while nothing reaches the replica: as long as that acknowledges what it had (until it
/// gives up a silent link), and then for three seconds (Redis counts whole ones) and a look, which is made once a second.
const GUARD_OPEN_US: u64 = LINK_TIMEOUT_US + 5_000_000;

/// A process that was stopped looks at its replicas again this long after it wakes.
const GUARD_WAKES_US: u64 = 1_250_000;

/// A write that only the master answered for.
struct Answered {
    write: u32,
    at: u64,
    by: (usize, u64),
    /// That its marker named: one process may be master several times.
    epoch: u64,
    /// How long the process had been awake.
    awake_us: u64,
}

/// A master that was replaced.
struct Deposed {
    who: (usize, u64),
    planned: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tcp {
    answered: Vec<Answered>,
    deposed: Vec<Deposed>,
}

impl World {
    /// A client may be told that its write will stay.
    pub(crate) fn acknowledge_write(&mut self, n: usize, run: u64, write: u32) {
        let now = self.now;
        self.story.note(now, &[4, n as u64, u64::from(write)]);
        if self.ledger.is_disowned(n, run) {
            return;
        }
        self.ledger.acked.insert(write);
        self.ledger.acknowledged += 1;
        self.ledger.last_ack = now;
        // A copy's marker is its master's: what it answers late was written in an epoch before.
        let master = self.database(n, run).filter(|p| p.is_master());
        let one = match master.and_then(|p| p.data.marker.as_ref().map(|m| m.epoch)) {
            Some(epoch) => self.ledger.one_instance_acknowledges(n, run, epoch),
            None => Ok(()),
        };
        let everywhere = match self.consul.truth() {
            Some(record) => acknowledged_on_every_named_copy(&self.nodes, record, write, self.sync()),
            None => Err("a write is acknowledged before there is a group".to_owned()),
        };
        self.check(one.and(everywhere));
    }

    /// A durable read is answered.
    pub(crate) fn answer_read(&mut self, n: usize, run: u64, shows: &Writes, before: &Writes) {
        self.story.note(self.now, &[6, n as u64, u64::from(shows.count())]);
        if self.ledger.is_disowned(n, run) || !self.sync() {
            return;
        }
        // What was declared lost meanwhile is forgiven here too.
        let mut due = before.clone();
        due.keep_only(&self.ledger.acked);
        if let Some((write, _)) = due.missing_in(shows) {
            return self.fail(format!("a durable read does not show write {write}, acknowledged before it was asked"));
        }
        self.ledger.acked.add(shows);
    }

    /// In `tcp` mode the master's own answer goes through.
    pub(crate) fn answered_by_tcp(&mut self, n: usize, run: u64, write: u32) {
        let now = self.now;
        self.story.note(now, &[7, n as u64, u64::from(write)]);
        if self.ledger.is_disowned(n, run) || !self.sync() {
            return;
        }
        let p = self.database(n, run);
        let awake_us = p.as_ref().map_or(0, |p| now - p.awake_since);
        let epoch = p.and_then(|p| p.data.marker.as_ref().map(|m| m.epoch)).unwrap_or_default();
        self.ledger.tcp.answered.push(Answered { write, at: now, by: (n, run), epoch, awake_us });
    }

    /// Keeps in mind who was replaced, and why.
    pub(crate) fn note_deposed(&mut self, before: Option<&Record>, record: &Record) {
        let Some(old) = before.filter(|b| b.epoch < record.epoch).and_then(|b| b.master.as_ref()) else { return };
        let Some(n) = index_of(&old.id) else { return };
        let planned = record.previous.as_ref().is_some_and(|p| p.reason == "planned switchover");
        let Some(run) = old.incarnation.as_str().rsplit("-run").next().and_then(|run| run.parse().ok()) else { return };
        self.ledger.tcp.deposed.push(Deposed { who: (n, run), planned });
    }

    /// A loss that the history declares covers what the master before it answered.
    pub(crate) fn forgive_tcp(&mut self, kept: &Writes) {
        self.ledger.tcp.answered.retain(|a| kept.contains(a.write));
    }

    /// What the master alone has answered is there as well, but for one stretch before a takeover that nobody planned.
    pub(crate) fn tcp_keeps_its_promise(&self, kept: &Writes) -> Result<(), String> {
        let mut began = BTreeMap::new();
        for a in self.ledger.tcp.answered.iter().filter(|a| !kept.contains(a.write)) {
            let taken = self.ledger.tcp.deposed.iter().any(|d| d.who == a.by && !d.planned);
            let first = *began.entry((a.by, a.epoch)).or_insert(a.at);
            if !taken || (a.at > first + GUARD_OPEN_US && a.awake_us > GUARD_WAKES_US) {
                let (write, at, first) = (a.write, a.at / 1_000, first / 1_000);
                return Err(format!(
                    "write {write} was answered in tcp mode at {at} ms and is lost (the first at {first} ms)"
                ));
            }
        }
        Ok(())
    }
}
