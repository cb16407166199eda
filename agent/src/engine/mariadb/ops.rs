//! Each operation of the core as the statements that carry it out.

use std::collections::BTreeSet;
use std::time::Duration;

use election::{Address, EngineOp, Marker, Nonce, Position, Secret};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::probe::{Follows, Stuck};
use super::sql::{Answer, Link, literal};
use super::{Mariadb, accounts, gtid, marker, note};
use crate::engine::EngineError;

/// The marker's transaction waits for the hot replica like any other; after this it is left waiting, and the core is told
/// so. An acknowledgement takes a millisecond or a disk's fsync.
const MARK_LIMIT: Duration = Duration::from_secs(1);

/// How long a copy may take to apply what it has received before it is pointed elsewhere or promoted; it is tried again.
const APPLY_LIMIT: Duration = Duration::from_millis(3_500);

/// How often it is looked whether it has.
const APPLY_POLL: Duration = Duration::from_millis(3);

/// How long one order to hold writes waits for transactions that are under way: it is given again.
const DRAIN_SLICE: Duration = Duration::from_millis(50);

/// How long writes may take to come to rest once no new ones are let in; the clients' connections end then.
const REST_LIMIT: Duration = Duration::from_millis(250);

/// Closing a server to writes takes no time, unless commits wait for an acknowledgement that will not come.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// The thread that receives, while it has a connection and has not been killed.
const RECEIVING: &str = "SELECT id FROM information_schema.processlist WHERE command = 'Slave_IO'";

/// Does one thing to a running server.
pub(super) async fn apply(db: &mut Mariadb, op: &EngineOp) -> Result<(), EngineError> {
    let mut this = Op { db, name: op.name() };
    match op {
        // They concern the process, not the server in it: `Mariadb::apply` does them.
        EngineOp::Start | EngineOp::Kill | EngineOp::Stop | EngineOp::Reset | EngineOp::Keep { .. } => Ok(()),
        // Every write is on disk before it is answered, always.
        EngineOp::Fsync(_) => Ok(()),
        EngineOp::Seal => this.seal().await,
        EngineOp::Follow { source, channel, replace } => this.follow(source, channel.as_ref(), *replace).await,
        EngineOp::Promote => this.promote().await,
        EngineOp::Open => this.run("SET GLOBAL read_only = OFF").await,
        EngineOp::Fence => this.fence().await,
        EngineOp::Guard(true) => {
            this.db.memo.guard = true;
            Ok(())
        }
        EngineOp::Guard(false) => {
            this.db.memo.guard = false;
            this.wait_for_nobody().await
        }
        EngineOp::Need(true) => this.wait_for_replica().await,
        EngineOp::Need(false) => this.wait_for_nobody().await,
        EngineOp::Channel { name, secret, exclusive } => this.channel(name, secret, *exclusive).await,
        EngineOp::Expel { .. } => this.expel().await,
        EngineOp::Mark(marker) => this.mark(marker).await,
        EngineOp::Quiesce { end } => this.quiesce(*end).await,
        EngineOp::Release => {
            (this.db.memo.held, this.db.memo.draining) = (None, None);
            Ok(())
        }
    }
}

/// An operation under way: whom it concerns, and what errors call it.
struct Op<'a> {
    db: &'a mut Mariadb,
    name: &'static str,
}

impl Op<'_> {
    async fn run(&mut self, statement: impl Into<String>) -> Result<(), EngineError> {
        let name = self.name;
        let link = self.db.link().await.map_err(EngineError::sql(name))?;
        link.run(statement).await.map_err(EngineError::sql(name))
    }

    async fn ask(&mut self, statement: &str) -> Result<Vec<Answer>, EngineError> {
        let name = self.name;
        let link = self.db.link().await.map_err(EngineError::sql(name))?;
        link.ask(statement).await.map_err(EngineError::sql(name))
    }

    fn refused(&self, answer: impl Into<String>) -> EngineError {
        EngineError::Refused { op: self.name, answer: answer.into() }
    }

    async fn follows(&mut self) -> Result<Option<Follows>, EngineError> {
        let name = self.name;
        self.db.follows().await.map_err(EngineError::sql(name))
    }

    async fn seal(&mut self) -> Result<(), EngineError> {
        self.db.memo.follows = None;
        self.db.drop_copy();
        self.cut_off().await
    }

    /// Ends the thread that receives, and does not wait for its end. A thread that has been killed has no connection any
    /// more, makes none and acknowledges nothing; what it had acknowledged before is in what is now said to be received.
    /// But before it ends, it tells the source to forget the link, and waits a second for one that is frozen or gone
    /// (`rpl_semi_sync_slave_kill_conn_timeout`; seen with 10.11).
    async fn cut_off(&mut self) -> Result<(), EngineError> {
        if self.ask(RECEIVING).await?.is_empty() {
            if !self.db.memo.cut {
                self.run("STOP SLAVE IO_THREAD").await?; // It has no connection, if there is such a thread at all.
            }
        } else {
            self.end(RECEIVING).await?;
            if !self.ask(RECEIVING).await?.is_empty() {
                return Err(self.refused("its thread that receives does not end; it is tried again"));
            }
        }
        self.db.memo.cut = true;
        Ok(())
    }

    /// The same, and waits for its end: before it is pointed elsewhere.
    async fn stop_receiving(&mut self) -> Result<(), EngineError> {
        self.cut_off().await?;
        self.run("STOP SLAVE IO_THREAD").await
    }

    /// Starts what receives, by all its threads what applies.
    async fn start_following(&mut self) -> Result<(), EngineError> {
        if let Some(threads) = &self.db.memo.parallel_threads {
            let threads = format!("SET GLOBAL slave_parallel_threads = {threads}");
            self.run(threads).await?;
            self.db.memo.parallel_threads = None;
        }
        self.db.memo.cut = false;
        self.run("START SLAVE").await
    }

    /// Waits until everything that was received is applied: what was acknowledged may be in the relay log alone, and the
    /// server deletes that log when both of its threads are started anew.
    async fn apply_all(&mut self) -> Result<(), EngineError> {
        let deadline = Instant::now() + APPLY_LIMIT;
        loop {
            let Some(follows) = self.follows().await? else { return Ok(()) };
            let applied = self.ask("SELECT @@global.gtid_slave_pos AS pos").await?;
            let applied = applied.first().and_then(|row| row.get("pos")).map_or(0, |pos| gtid::sequence(pos));
            let received = gtid::sequence(&follows.received);
            // Several threads may still be applying what the one that hands it out has read.
            let all = if follows.by_gtid { applied >= received } else { follows.all_applied };
            if all {
                return Ok(());
            }
            if !follows.applying {
                // Stopped by a restart, nothing is left of what was received then, once that was applied at the start.
                let left = follows.by_gtid || self.db.memo.resting;
                return if left { Err(self.stopped_early(&follows)) } else { Ok(()) };
            }
            if Instant::now() >= deadline {
                return Err(self.refused(format!("applied up to {applied}, received up to {received}")));
            }
            sleep(APPLY_POLL).await;
        }
    }

    fn stopped_early(&self, follows: &Follows) -> EngineError {
        let (group, node) = (&self.db.setup.group, &self.db.setup.site.node);
        self.refused(format!(
            "its SQL thread stopped before everything was applied ({}); `understudy reinit {group} {node}` makes the copy \
             anew",
            follows.apply_error()
        ))
    }

    async fn follow(
        &mut self,
        source: &Address,
        channel: Option<&(Nonce, Secret)>,
        may_replace: bool,
    ) -> Result<(), EngineError> {
        if self.db.is_copying_from(source) {
            if let Some(channel) = channel {
                self.db.memo.follows_with = Some(channel.clone());
            }
            return Ok(());
        }
        self.db.drop_copy();
        let known = self.db.memo.follows_with.clone();
        if may_replace {
            self.db.take_copy().await?;
        }
        let name = self.name;
        let answers = self.db.answers().await.map_err(EngineError::sql(name))?;
        let (channel, secret) = match channel.cloned().or(known.clone()) {
            Some(channel) => channel,
            // The agent was restarted: the server has the password, and knows whom to use it with.
            None if answers.follows.as_ref().is_some_and(|f| f.source == *source) => {
                self.db.memo.follows = Some(source.clone());
                return self.receive().await;
            }
            None => return Err(self.refused(format!("no password to follow {source} with is known"))),
        };
        let worthless = !answers.has_schemas && answers.marker.is_none();
        if worthless || self.db.memo.untrusted || matches!(self.db.memo.stuck, Some(Stuck::Replaceable(_))) {
            if !may_replace {
                return Err(self.refused("it cannot go on from where it is, and its data stay while it is hot replica"));
            }
            self.db.memo.stuck = None;
            return self.db.begin_copy(source, channel, secret).await;
        }
        self.db.memo.stuck = None;
        let same = answers.follows.as_ref().is_some_and(|f| f.source == *source && f.logs_in_by(&channel));
        if same && known.as_ref().is_some_and(|(_, had)| *had == secret) {
            self.db.memo.follows = Some(source.clone());
            return self.receive().await;
        }
        self.stop_receiving().await?;
        self.apply_all().await?;
        self.run("STOP SLAVE").await?;
        self.set_position().await?;
        self.run(format!(
            "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
             MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = 0.5",
            literal(&source.host),
            source.port,
            literal(&accounts::replica(&channel)),
            literal(secret.reveal()),
        ))
        .await
        .map_err(|e| e.without(&secret))?;
        self.start_following().await?;
        let memo = &mut self.db.memo;
        (memo.follows, memo.follows_with) = (Some(source.clone()), Some((channel, secret)));
        Ok(())
    }

    /// Goes on receiving from the same source. The thread that applies must run: else the server would delete what was
    /// received and not applied.
    async fn receive(&mut self) -> Result<(), EngineError> {
        if self.db.memo.cut {
            self.run("STOP SLAVE IO_THREAD").await?; // It may not have ended yet.
        }
        let Some(follows) = self.follows().await? else { return Err(self.refused("it has no source")) };
        if follows.is_receiving() && follows.applying {
            return Ok(());
        }
        if !follows.applying {
            self.stop_receiving().await?;
            self.apply_all().await?;
            self.set_position().await?;
            return self.start_following().await;
        }
        self.db.memo.cut = false;
        self.run("START SLAVE IO_THREAD").await
    }

    /// Where to go on: what this server wrote as a master counts as well, and so does where a copy of another was made.
    async fn set_position(&mut self) -> Result<(), EngineError> {
        let copied = self.db.setup.copied_at();
        let row = self.ask("SELECT @@global.gtid_binlog_pos AS written, @@global.gtid_slave_pos AS applied").await?;
        let text = |key: &str| row.first().and_then(|row| row.get(key)).cloned().unwrap_or_default();
        let (written, applied) = (text("written"), text("applied"));
        let at = gtid::furthest([written.as_str(), applied.as_str(), copied.as_str()]);
        if at == applied {
            return Ok(());
        }
        self.run(format!("SET GLOBAL gtid_slave_pos = {}", literal(&at))).await
    }

    async fn promote(&mut self) -> Result<(), EngineError> {
        self.db.memo.follows = None;
        self.db.discard_copy()?;
        self.cut_off().await?;
        self.apply_all().await?;
        self.db.say_master(true)?;
        // What is left of the link is forgotten as soon as the thread that received has ended; see `Mariadb::look`.
        self.run("STOP SLAVE SQL_THREAD").await?;
        // The record that named a hot replica is not this epoch's: nobody is there who could acknowledge the marker.
        self.wait_for_nobody().await?;
        self.db.memo.guard = false;
        self.db.memo.held = None;
        Ok(())
    }

    /// A server whose commits wait for an acknowledgement cannot be closed without letting them through: it is killed, and
    /// what nobody acknowledged is rolled back when it is started again. One that has let some through, as when those that
    /// waited were disconnected to hold writes, goes the same way: its end is kept, and what cannot be rolled back is
    /// copied anew.
    async fn fence(&mut self) -> Result<(), EngineError> {
        if self.has_leaked().await? {
            return self.kill("it holds commits that nobody acknowledged").await;
        }
        if self.db.memo.held.is_none() && self.has_waiting_commits().await? {
            return self.kill("commits wait for an acknowledgement that will not come").await;
        }
        let closed = match self.db.memo.held.take() {
            // It holds the lock that keeps writes out, so that none comes between.
            Some(mut link) => {
                let closed = timeout(CLOSE_LIMIT, link.run("SET GLOBAL read_only = ON")).await;
                self.end_clients().await?;
                drop(link);
                closed.map_err(drop).and_then(|done| done.map_err(drop))
            }
            None => timeout(CLOSE_LIMIT, self.run("SET GLOBAL read_only = ON"))
                .await
                .map_err(drop)
                .and_then(|done| done.map_err(drop)),
        };
        if closed.is_err() {
            return self.kill("it cannot be closed to writes").await;
        }
        self.end_clients().await?;
        if self.has_waiting_commits().await? || self.has_leaked().await? {
            return self.kill("commits wait for an acknowledgement that will not come").await;
        }
        self.lock_replicas_out(None).await?;
        self.wait_for_nobody().await?;
        self.db.say_master(false)
    }

    async fn kill(&mut self, why: &str) -> Result<(), EngineError> {
        warn!(group = self.db.setup.group, "ending the server: {why}");
        self.db.kill().await
    }

    async fn has_waiting_commits(&mut self) -> Result<bool, EngineError> {
        let name = self.name;
        let asked = self.db.answers().await.map_err(EngineError::sql(name))?;
        Ok(asked.semi_sync.enabled && asked.semi_sync.waiting > 0)
    }

    async fn has_leaked(&mut self) -> Result<bool, EngineError> {
        let name = self.name;
        let asked = self.db.answers().await.map_err(EngineError::sql(name))?;
        Ok(self.db.memo.acks.has_leaked(&asked))
    }

    async fn end_clients(&mut self) -> Result<(), EngineError> {
        let clients = format!(
            "SELECT id FROM information_schema.processlist WHERE user NOT IN ({}, 'system user', 'event_scheduler') AND \
             user NOT LIKE 'understudy\\_%'",
            literal(accounts::AGENT)
        );
        self.end(&clients).await
    }

    /// Ends the connections that a query names; one that has ended by itself is none to complain about.
    async fn end(&mut self, query: &str) -> Result<(), EngineError> {
        let ids: Vec<String> = self.ask(query).await?.into_iter().filter_map(|row| row.get("id").cloned()).collect();
        for id in ids {
            let _ = self.run(format!("KILL HARD CONNECTION {id}")).await;
        }
        Ok(())
    }

    async fn wait_for_replica(&mut self) -> Result<(), EngineError> {
        let name = self.name;
        let sync = self.db.answers().await.map_err(EngineError::sql(name))?.semi_sync;
        if sync.enabled && !sync.active {
            self.run("SET GLOBAL rpl_semi_sync_master_enabled = OFF").await?;
        }
        self.run("SET GLOBAL rpl_semi_sync_master_enabled = ON").await
    }

    async fn wait_for_nobody(&mut self) -> Result<(), EngineError> {
        self.run("SET GLOBAL rpl_semi_sync_master_enabled = OFF").await
    }

    async fn channel(&mut self, name: &Nonce, secret: &Secret, exclusive: bool) -> Result<(), EngineError> {
        if exclusive {
            // In this order: what a link of before is sent while commits wait already is never acknowledged, and not sent
            // again either, since its receiver has it.
            self.lock_replicas_out(None).await?;
            self.links_ended().await?;
            self.wait_for_replica().await?;
            self.db.memo.acks.begin();
        }
        for statement in accounts::open_channel(name, secret) {
            self.run(statement).await.map_err(|e| e.without(secret))?;
        }
        if !exclusive {
            self.drop_accounts(Some(name)).await?;
        }
        self.db.memo.channel = Some(name.clone());
        self.db.copies.allow(name.clone(), secret.clone());
        Ok(())
    }

    async fn drop_accounts(&mut self, but: Option<&Nonce>) -> Result<(), EngineError> {
        let kept = but.map(accounts::replica);
        let rows = self.ask("SELECT DISTINCT user AS name FROM mysql.user WHERE user LIKE 'understudy\\_%'").await?;
        for user in rows.iter().filter_map(|row| row.get("name")).filter(|user| Some(*user) != kept.as_ref()) {
            self.run(accounts::close_channel(user)).await?;
        }
        Ok(())
    }

    /// Removes the accounts of all channels but one, and ends every link that was made with them.
    async fn lock_replicas_out(&mut self, but: Option<&Nonce>) -> Result<(), EngineError> {
        self.drop_accounts(but).await?;
        if but.is_none() {
            self.db.memo.channel = None;
            self.db.copies.forbid();
        }
        let kept = but.map(accounts::replica).unwrap_or_default();
        let strangers = format!(
            "SELECT id FROM information_schema.processlist WHERE user LIKE 'understudy\\_%' AND user <> {}",
            literal(&kept)
        );
        self.end(&strangers).await
    }

    /// Waits until the links that were told to end have ended.
    async fn links_ended(&mut self) -> Result<(), EngineError> {
        let links = "SELECT id FROM information_schema.processlist WHERE user LIKE 'understudy\\_%' LIMIT 1";
        while !self.ask(links).await?.is_empty() {
            sleep(APPLY_POLL).await; // The operation has a limit of its own.
        }
        Ok(())
    }

    /// A link tells by its account under which password it was made, and the exclusive one was given to one node. When
    /// none of another channel is there, what the server still lists is a link that broke without its notice.
    async fn expel(&mut self) -> Result<(), EngineError> {
        // After an agent's restart nobody knows who was given which: all are ended, and whoever may come again does.
        if let Some(channel) = self.db.memo.channel.clone() {
            self.lock_replicas_out(Some(&channel)).await?;
        }
        self.end("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'").await
    }

    async fn mark(&mut self, marker: &Marker) -> Result<(), EngineError> {
        if self.db.memo.held.is_some() {
            return Err(EngineError::Held { op: self.name });
        }
        // One that still waits would only be waited for by the next.
        if let Some(before) = self.db.marking.take() {
            self.finish_mark(before).await?;
        }
        let (target, wanted) = (self.db.target.clone(), marker.clone());
        let idle = self.db.marker_link.take();
        let task = tokio::spawn(async move {
            let mut link = match idle {
                Some(link) => link,
                None => Link::open(&target).await?,
            };
            let at = marker::write(&mut link, &wanted).await?;
            Ok((link, wanted, Position(gtid::sequence(&at))))
        });
        self.finish_mark(task).await?;
        self.db.memo.out_of_room = false;
        Ok(())
    }

    async fn finish_mark(&mut self, mut task: Marking) -> Result<(), EngineError> {
        match timeout(MARK_LIMIT, &mut task).await {
            Ok(Ok(Ok((link, marker, at)))) => {
                self.db.marker_link = Some(link);
                self.db.memo.marked = Some((marker, at));
                Ok(())
            }
            Ok(Ok(Err(e))) => Err(EngineError::sql(self.name)(e)),
            Ok(Err(_)) => Err(self.refused("the task that writes the marker ended")),
            Err(_) => {
                self.db.marking = Some(task);
                Err(EngineError::NoReplicas { op: self.name })
            }
        }
    }

    /// Holds writes back instead of refusing them: a client whose connection ends in the hand-over sees no error that is
    /// not the truth.
    async fn quiesce(&mut self, end: bool) -> Result<(), EngineError> {
        if self.db.memo.held.is_some() {
            return Ok(());
        }
        if !end && !self.transactions_ended().await? {
            return Ok(());
        }
        let name = self.name;
        let target = self.db.target.clone();
        let mut link = Link::open(&target).await.map_err(EngineError::sql(name))?;
        let held = {
            let hold = link.run("FLUSH TABLES WITH READ LOCK");
            tokio::pin!(hold);
            match timeout(REST_LIMIT, &mut hold).await {
                Ok(done) => Some(done),
                // To end its client ends a write that waits for room, but leaves half an event in the log, which no copy
                // gets past. What it has not written, nobody acknowledged.
                Err(_) if self.db.memo.out_of_room => {
                    return self.kill("its disk is full, and its writes do not come to rest").await;
                }
                Err(_) => {
                    self.end_clients().await?;
                    timeout(REST_LIMIT, hold).await.ok()
                }
            }
        };
        let held = held.ok_or_else(|| self.refused("writes do not come to rest"))?;
        held.map_err(EngineError::sql(name))?;
        self.db.memo.held = Some(link);
        Ok(())
    }

    /// Whether the transactions that ran when writes were first to be held have ended; waits a moment for it. New ones
    /// that come meanwhile are not waited for.
    async fn transactions_ended(&mut self) -> Result<bool, EngineError> {
        let until = Instant::now() + DRAIN_SLICE;
        let old = "SELECT trx_id AS id FROM information_schema.innodb_trx WHERE trx_rows_modified > 0";
        loop {
            let now: BTreeSet<String> =
                self.ask(old).await?.into_iter().filter_map(|row| row.get("id").cloned()).collect();
            let first = self.db.memo.draining.get_or_insert_with(|| now.clone());
            if first.is_disjoint(&now) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(APPLY_POLL).await;
        }
    }
}

/// A marker on its way: the connection it is written over, and where it came to stand.
pub(super) type Marking = JoinHandle<Result<(Link, Marker, Position), sqlx::Error>>;

impl Mariadb {
    /// Says what this run is, on disk and in memory.
    fn say_master(&mut self, master: bool) -> Result<(), EngineError> {
        let incarnation = self.heard_from.clone().unwrap_or_default();
        note::set(&self.setup.own_file("role.json"), &incarnation, master)?;
        self.memo.master = master;
        Ok(())
    }
}
