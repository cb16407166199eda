//! Clients of an SQL engine: each transaction inserts a row of its own and moves money, begins, and some time later
//! commits. Some clients are impatient: a commit that takes too long is cancelled.
//!
//! Success means that master and hot replica have it, but for what the documents except, which is told apart here: a
//! cancelled wait behind a listener that only carries bytes (PostgreSQL), and a commit that the server itself let through
//! (MariaDB). Even these are promised from the moment on at which a copy has acknowledged anything later.

use super::bugs::Bug;
use super::client::Call;
use super::data::Entry;
use super::quiet::Manners;
use super::sql::{Commit, Told, Waits, Who};
use super::world::World;

/// A transaction that does more than one statement.
const LONG_US: (u64, u64) = (20_000, 1_500_000);

/// How long an impatient client waits for its commit.
const IMPATIENCE_US: (u64, u64) = (20_000, 1_500_000);

/// A server whose disk is full tries again.
const ROOM_AGAIN_US: u64 = 200_000;

impl World {
    /// A client's transaction has come to the server.
    pub(crate) fn begin_transaction(&mut self, call: Call, write: u32) {
        let long = self.rng.chance(30);
        let lasts = if long { self.rng.range(LONG_US.0, LONG_US.1) } else { self.rng.range(0, 1_500) };
        let Some(p) = self.database(call.node, call.run).filter(|p| p.clients == call.clients) else { return };
        if !p.is_master() || !p.open {
            return self.refused(call, write); // Read-only, or it is not let in.
        }
        if let Some(sql) = &mut p.sql {
            sql.running.push(write);
        }
        self.after(lasts, move |w| w.at_database(call.node, call.run, move |w| w.end_transaction(call, write)));
    }

    fn end_transaction(&mut self, call: Call, write: u32) {
        let (node, run) = (call.node, call.run);
        let full = self.nodes[node].disk.bad;
        let Some(p) = self.database(node, run) else { return };
        let holds = p.quiesced && !p.sql.as_ref().is_some_and(super::sql::Sql::postgres);
        let Some(sql) = p.sql.as_mut().filter(|sql| sql.running.contains(&write)) else { return };
        if holds {
            // `FLUSH TABLES WITH READ LOCK`: it waits, and goes on when the lock goes.
            p.held.push(Box::new(move |w| w.end_transaction(call, write)));
            return;
        }
        if full {
            return self.no_room(call, write);
        }
        sql.running.retain(|running| *running != write);
        if self.database(node, run).is_some_and(|p| p.data.writes.contains(write)) {
            return self.fail(format!("write {write} is carried out twice"));
        }
        let Some((at, offset)) = self.write_log(node, run, Entry::Write(write)) else { return };
        self.wait_or_answer(node, run, Commit { who: Who::Client(call, write), at, offset });
    }

    /// MariaDB waits for room. PostgreSQL refuses what needs a new page, and ends when its log cannot be written.
    fn no_room(&mut self, call: Call, write: u32) {
        let postgres = self.database(call.node, call.run).and_then(|p| p.sql.as_ref()).is_some_and(|s| s.postgres());
        if !postgres {
            return self.after(ROOM_AGAIN_US, move |w| {
                w.at_database(call.node, call.run, move |w| w.end_transaction(call, write));
            });
        }
        if self.rng.chance(500) {
            return self.kill_database(call.node, "its log cannot be written");
        }
        if let Some(sql) = self.database(call.node, call.run).and_then(|p| p.sql.as_mut()) {
            sql.running.retain(|running| *running != write);
        }
        self.refused(call, write);
    }

    /// Its wait is over, and the answer is on its way.
    pub(crate) fn tell_client(&mut self, call: Call, write: u32, offset: u64, told: Told) {
        self.answer(call, move |w| w.hear_of_commit(call, write, offset, told));
    }

    fn hear_of_commit(&mut self, call: Call, write: u32, offset: u64, told: Told) {
        let passes_on = self.bug == Some(Bug::CancelPassedOn);
        let (reads_frames, now) = (self.mix.proxies[call.proxy] == Manners::Postgres, self.now);
        if told == Told::Warned && reads_frames && !passes_on {
            // The listener has read the warning: its client learns that nobody knows.
            return self.hang_up(call.proxy);
        }
        let Some(link) = self.link(call) else { return };
        link.heard = now;
        link.answered(write);
        if told == Told::Success || passes_on && reads_frames {
            return self.acknowledge_write(call.node, call.run, write);
        }
        self.ledger.except(call.node, call.run, write, offset);
    }

    /// An impatient client has waited long enough.
    pub(crate) fn lose_patience(&mut self, call: Call, write: u32) {
        if !self.rng.chance(self.mix.impatient) {
            return;
        }
        let patience = self.rng.range(IMPATIENCE_US.0, IMPATIENCE_US.1);
        let end = self.proxy_end(call.proxy);
        self.after(patience, move |w| {
            if w.link(call).is_some_and(|link| link.waits_for(write)) {
                w.send(end, call.node, move |w| {
                    w.at_database(call.node, call.run, move |w| w.cancel(call.node, call.run, write));
                });
            }
        });
    }

    /// A request to cancel, or `KILL QUERY`. The server ends the wait, and answers with success.
    fn cancel(&mut self, n: usize, run: u64, write: u32) {
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) else { return };
        let found = sql.commits.iter().position(|c| matches!(c.who, Who::Client(_, waits) if waits == write));
        let Some(found) = found else { return };
        let commit = sql.commits.remove(found);
        let told = if sql.postgres() { Told::Warned } else { Told::Leaked };
        sql.no_tx += u64::from(told == Told::Leaked);
        self.tell(|| format!("a client of n{} cancels the wait of write {write}", n + 1));
        self.end_commit(n, run, commit, told);
    }

    /// Everybody's connection ends. What waited stays written, and nobody is told.
    pub(crate) fn end_transactions(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        p.end_clients();
        let Some(sql) = &mut p.sql else { return };
        let (clients, agents) =
            std::mem::take(&mut sql.commits).into_iter().partition(|c| matches!(c.who, Who::Client(..)));
        sql.commits = agents;
        let clients: Vec<Commit> = clients;
        if let Some(last) = clients.last().map(|commit| commit.at) {
            self.commit(n, run, last);
        }
    }

    /// What nothing of ours can prevent: a superuser's setting, semi-synchronous replication that gives up by itself, a
    /// write on a copy.
    pub(crate) fn meddle(&mut self) {
        let (n, spare) = (self.master(), self.some_node());
        let errant = self.rng.chance(200);
        if errant {
            return self.write_on_a_copy(spare);
        }
        let Some((run, needs, postgres)) = self.nodes[n]
            .database
            .as_ref()
            .filter(|p| p.is_master() && !p.paused)
            .and_then(|p| p.sql.as_ref().map(|sql| (p.run, sql.needs(), sql.postgres())))
        else {
            return;
        };
        if !needs || postgres {
            return;
        }
        self.tell(|| format!("n{}'s semi-synchronous replication switches itself off", n + 1));
        if let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_mut()) {
            (sql.gave_up, sql.no_tx) = (true, sql.no_tx + 1);
        }
        self.release_commits(n, run);
    }

    /// MariaDB: a transaction that nobody else has, on a copy that the record does not name.
    fn write_on_a_copy(&mut self, n: usize) {
        let id = super::world::name(n);
        let named = self.consul.truth().is_none_or(|r| r.is_master(&id) || r.is_replica(&id));
        let copy = |p: &&super::process::Process| !p.is_master() && !p.loading && !p.paused;
        let Some(run) = self.nodes[n].database.as_ref().filter(copy).map(|p| p.run) else { return };
        let applied = self
            .database(n, run)
            .and_then(|p| p.sql.as_ref())
            .filter(|s| !s.postgres() && s.tip == s.applied)
            .map(|s| s.applied);
        let Some(applied) = applied.filter(|_| !named) else { return };
        self.tell(|| format!("somebody writes on n{}, which is a copy", n + 1));
        let at = self.histories.add(applied, Entry::Errant);
        let (offset, data) = (self.histories.depth(at), self.histories.data(at));
        let node = &mut self.nodes[n];
        (node.disk.log.received, node.disk.log.written, node.disk.log.applied) = (at, at, at);
        let Some(p) = node.database.as_mut() else { return };
        (p.offset, p.data) = (offset, data);
        if let Some(sql) = &mut p.sql {
            (sql.tip, sql.applied) = (at, at);
        }
    }

    /// Whether a server's own counters say that it let commits through, and the record names a copy none the less.
    pub(crate) fn leaks_unnoticed(&self) -> bool {
        let master = self.nodes[self.master()].database.as_ref().filter(|p| p.is_master());
        let attended = self.consul.truth().is_some_and(|r| r.replica.is_some());
        attended && master.and_then(|p| p.sql.as_ref()).is_some_and(|sql| sql.gave_up && sql.waits == Waits::Anybody)
    }
}
