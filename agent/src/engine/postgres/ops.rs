//! Each operation of the core as what carries it out on a running server.

use std::time::{Duration, Instant};
use tracing::warn;

use election::{Address, EngineOp, Marker, Nonce, Position, Secret};
use serde::Deserialize;
use tokio::time::sleep;

use super::config::{self, Gate, HOT, Live, NOBODY, SUPERUSER};
use super::link::{self, ASKER, Link};
use super::{FRESH, KEEP, Postgres, marker, probe};
use crate::engine::{EngineError, folder};

/// How often it is looked whether what was told has taken effect.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How long one order to hold writes waits for what still runs: it is given again.
const DRAIN_SLICE: Duration = Duration::from_millis(50);

/// When a promoted instance is made to take a checkpoint.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// Every connection of a client's that the server has. Nobody but the agent gets to the socket, which has no address.
fn clients() -> String {
    format!(
        "FROM pg_stat_activity WHERE backend_type = 'client backend' \
         AND NOT (client_addr IS NULL AND application_name = '{ASKER}')"
    )
}

/// Does one thing to a running server.
pub(super) async fn apply(pg: &mut Postgres, op: &EngineOp) -> Result<(), EngineError> {
    let name = op.name();
    match op {
        // They concern the process: `Postgres::carry_out` does them.
        EngineOp::Start
        | EngineOp::Kill
        | EngineOp::Stop
        | EngineOp::Reset
        | EngineOp::Fence
        | EngineOp::Follow { .. } => Ok(()),
        EngineOp::Keep { epoch } => keep(pg, *epoch),
        EngineOp::Seal => seal(pg, name).await,
        EngineOp::Promote => promote(pg, name).await,
        EngineOp::Open => open(pg, name).await,
        EngineOp::Guard(true) | EngineOp::Need(true) => wait_for_copy(pg, name).await,
        EngineOp::Guard(false) => wait_for_nobody(pg, name, false).await,
        EngineOp::Need(false) => wait_for_nobody(pg, name, true).await,
        EngineOp::Fsync(on) => {
            pg.memo.lax = !on;
            Ok(())
        }
        EngineOp::Channel { name: channel, secret, exclusive: true } => exclusive(pg, name, channel, secret).await,
        EngineOp::Channel { name: channel, exclusive: false, .. } => shared(pg, name, channel).await,
        EngineOp::Expel { keep } => expel(pg, name, keep).await,
        EngineOp::Mark(marker) => mark(pg, name, marker).await,
        EngineOp::Quiesce { end } => quiesce(pg, name, *end).await,
        EngineOp::Release => {
            pg.memo.quiesced = false;
            Ok(())
        }
    }
}

impl Postgres {
    /// The connection for operations.
    async fn work(&mut self, op: &'static str) -> Result<&mut Link, EngineError> {
        if self.work.is_none() {
            let link = Link::open(&self.setup.target()).await.map_err(EngineError::sql(op))?;
            self.meet();
            self.work = Some(link);
        }
        self.work.as_mut().ok_or_else(|| EngineError::sql(op)(sqlx::Error::WorkerCrashed))
    }

    /// Statements of the agent's, once more when an old connection has ended. What they do may be repeated.
    async fn run(&mut self, op: &'static str, sql: &str) -> Result<(), EngineError> {
        let old = self.work.is_some();
        let done = self.work(op).await?.run(sql).await;
        let done = match done {
            Err(error) if old && error.as_database_error().is_none() => {
                self.work = None;
                self.work(op).await?.run(sql).await
            }
            done => done,
        };
        self.memo.disk_full = done.as_ref().err().is_some_and(link::is_disk_full);
        done.map_err(EngineError::sql(op))
    }

    async fn text(&mut self, op: &'static str, sql: &str) -> Result<Option<String>, EngineError> {
        let old = self.work.is_some();
        match self.work(op).await?.text(sql).await {
            Err(error) if old && error.as_database_error().is_none() => {
                self.work = None;
                self.work(op).await?.text(sql).await.map_err(EngineError::sql(op))
            }
            said => said.map_err(EngineError::sql(op)),
        }
    }

    async fn holds(&mut self, op: &'static str, condition: &str) -> Result<bool, EngineError> {
        Ok(self.text(op, &format!("SELECT ({condition})::text")).await?.as_deref() == Some("true"))
    }

    /// Returns when the condition holds. The caller bounds it.
    async fn until(&mut self, op: &'static str, condition: &str) -> Result<(), EngineError> {
        while !self.holds(op, condition).await? {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Puts these settings in force.
    async fn live(&mut self, op: &'static str, live: &Live) -> Result<(), EngineError> {
        self.setup.write(&self.setup.data_dir.join(config::LIVE), &live.text())?;
        self.text(op, "SELECT pg_reload_conf()::text").await?;
        let names = link::literal(&live.names);
        let source = link::literal(&live.source);
        let in_force = format!(
            "current_setting('synchronous_standby_names') = {names} AND current_setting('primary_conninfo') = {source}"
        );
        self.until(op, &in_force).await
    }

    /// Lets these in from now on.
    async fn let_in(&mut self, op: &'static str, gate: Gate) -> Result<(), EngineError> {
        self.setup.write_gate(gate)?;
        // Until the server has read it, either may be in force.
        let old = self.gate;
        self.gate = Gate { clients: old.clients && gate.clients, exclusive: old.exclusive || gate.exclusive };
        let before = self.text(op, "SELECT pg_conf_load_time()::text").await?.unwrap_or_default();
        self.text(op, "SELECT pg_reload_conf()::text").await?;
        self.until(op, &format!("pg_conf_load_time() > {}::timestamptz", link::literal(&before))).await?;
        self.gate = gate;
        Ok(())
    }

    /// Ends the clients' connections, those for which `which` holds.
    async fn end_clients(&mut self, op: &'static str, which: &str) -> Result<(), EngineError> {
        let own = self.own_processes();
        let sql =
            format!("SELECT count(pg_terminate_backend(pid))::text {} AND pid NOT IN ({own}) AND {which}", clients());
        self.text(op, &sql).await.map(drop)
    }

    /// The server's processes that serve this agent, as a list in SQL.
    fn own_processes(&self) -> String {
        let pids = self.link.iter().chain(&self.work).map(|link| link.pid.to_string());
        pids.chain(["pg_backend_pid()".to_owned()]).collect::<Vec<_>>().join(", ")
    }
}

/// The tail can be told from the rest only when it is known whom to follow: it is saved then, before anything is
/// destroyed.
fn keep(pg: &mut Postgres, epoch: u64) -> Result<(), EngineError> {
    pg.setup.note(KEEP, &epoch.to_string())?;
    pg.kept = pg.kept.max(Some(epoch));
    Ok(())
}

async fn seal(pg: &mut Postgres, op: &'static str) -> Result<(), EngineError> {
    if pg.pursuit.is_rebuilding() {
        return Err(EngineError::Refused { op, answer: "the copy is being made anew".to_owned() });
    }
    pg.pursuit.give_up();
    pg.live(op, &Live::sealed()).await?;
    // Its end does not wait for a replay that waits for a reader.
    pg.text(op, "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_wal_receiver WHERE pid IS NOT NULL")
        .await?;
    pg.until(op, "NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL)").await
}

/// Nobody may have a connection from when this was a copy that clients could read: they could write over it.
async fn promote(pg: &mut Postgres, op: &'static str) -> Result<(), EngineError> {
    pg.let_in(op, Gate { clients: false, exclusive: false }).await?;
    pg.end_clients(op, "true").await?;
    if pg.holds(op, "pg_is_in_recovery()").await? {
        pg.text(op, "SELECT pg_promote(false)::text").await?;
        pg.until(op, "NOT pg_is_in_recovery()").await?;
    }
    pg.end_clients(op, "true").await?;
    pg.setup.remove(FRESH)?;
    pg.boot_as_standby()?;
    if !pg.holds(op, marker::IS_THERE).await? {
        pg.run(op, &marker::create()).await?;
    }
    pg.pursuit.give_up();
    checkpoint(pg);
    Ok(())
}

/// Whoever has to be wound back to this history can tell it from its own only after a checkpoint. It waits until clients
/// have gone on: it keeps the disk busy.
fn checkpoint(pg: &Postgres) {
    let (target, group) = (pg.setup.target(), pg.setup.group.clone());
    tokio::spawn(async move {
        sleep(CHECKPOINT_AFTER).await;
        let done = async { Link::open(&target).await?.run("CHECKPOINT").await };
        if let Err(error) = done.await {
            tracing::debug!(group, %error, "no checkpoint after the promotion");
        }
    });
}

async fn open(pg: &mut Postgres, op: &'static str) -> Result<(), EngineError> {
    if let Some(password) = folder::password(pg.setup.password_file.as_deref())? {
        pg.run(op, &marker::set_password(SUPERUSER, &password)).await?;
    }
    if !pg.memo.opened && !pg.gate.clients {
        // Who was at the door of the copy that this was has come in since.
        pg.end_clients(op, "true").await?;
    }
    let gate = Gate { clients: true, ..pg.gate };
    pg.let_in(op, gate).await?;
    pg.memo.opened = true;
    Ok(())
}

/// The settings in force, as far as they change while the server runs.
async fn names_in_force(pg: &mut Postgres, op: &'static str) -> Result<String, EngineError> {
    Ok(pg.text(op, "SELECT current_setting('synchronous_standby_names')").await?.unwrap_or_default())
}

/// Commits wait from now on: for the copy on the certificate's channel, or, while there is none, for ever.
///
/// That a setting was read again does not say that commits wait: another process of the server tells them, in its own
/// time. So a commit of the agent's is seen to wait first, for nobody.
async fn wait_for_copy(pg: &mut Postgres, op: &'static str) -> Result<(), EngineError> {
    let certified = match pg.ask().await {
        Ok((answer, _)) => answer.certified(&pg.memo).map(str::to_owned),
        Err(error) => return Err(EngineError::sql(op)(error)),
    };
    let wanted = config::only(certified.as_deref().unwrap_or(NOBODY));
    if !pg.memo.waits {
        pg.live(op, &Live::sealed()).await?;
        see_a_commit_wait(pg, op).await?;
        pg.memo.waits = true;
    }
    pg.memo.unneeded = false;
    if names_in_force(pg, op).await? != wanted {
        pg.live(op, &Live { names: wanted, ..Live::default() }).await?;
    }
    Ok(())
}

async fn see_a_commit_wait(pg: &mut Postgres, op: &'static str) -> Result<(), EngineError> {
    let mut trial = Link::open(&pg.setup.target()).await.map_err(EngineError::sql(op))?;
    trial.run("SET synchronous_commit = on").await.map_err(EngineError::sql(op))?;
    let pid = trial.pid;
    loop {
        let mut commit = std::pin::pin!(trial.run("SELECT pg_logical_emit_message(true, 'understudy', '')"));
        let waits = format!("EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep')");
        let seen = tokio::select! {
            biased;
            // It did not wait: not yet in force.
            done = &mut commit => { done.map_err(EngineError::sql(op))?; false }
            seen = pg.until(op, &waits) => { seen?; true }
        };
        if seen {
            // It stays waiting until it is released or its connection ends; nobody is told anything by it.
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// `guarded`: the guard is to stay as it is. PostgreSQL has none besides what commits wait for; in an `async` group that
/// is nothing, and it is only said to stand.
async fn wait_for_nobody(pg: &mut Postgres, op: &'static str, guarded: bool) -> Result<(), EngineError> {
    pg.memo.waits = false;
    if !pg.gate.clients {
        // Closed, and still somebody may have got in just before: an acknowledgement would come too early.
        pg.end_clients(op, "true").await?;
    }
    pg.live(op, &Live::default()).await?;
    pg.memo.unneeded = guarded;
    Ok(())
}

async fn exclusive(pg: &mut Postgres, op: &'static str, channel: &Nonce, secret: &Secret) -> Result<(), EngineError> {
    // Should this not come to its end, it is ordered again.
    pg.memo.channel = None;
    pg.run(op, &marker::set_password(HOT, secret)).await.map_err(|e| e.without(secret))?;
    let gate = Gate { exclusive: true, ..pg.gate };
    pg.let_in(op, gate).await?;
    pg.text(op, "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE backend_type = 'walsender'")
        .await?;
    pg.memo.channel = Some((channel.clone(), true));
    pg.chain = None;
    Ok(())
}

async fn shared(pg: &mut Postgres, op: &'static str, channel: &Nonce) -> Result<(), EngineError> {
    let none = || EngineError::Refused { op, answer: "there is no password of the chain in the data yet".to_owned() };
    if !pg.holds(op, marker::IS_THERE).await? {
        return Err(none());
    }
    let secret = pg.text(op, marker::READ_CHAIN).await?.ok_or_else(none)?;
    if pg.gate.exclusive {
        let gate = Gate { exclusive: false, ..pg.gate };
        pg.let_in(op, gate).await?;
    }
    pg.memo.channel = Some((channel.clone(), false));
    pg.chain = Some(Secret::new(secret));
    Ok(())
}

/// A replication client and the server's process for it.
#[derive(Debug, Deserialize)]
struct Sender {
    pid: i32,
    name: String,
}

/// When one address has several links, the last made is the living one.
async fn expel(pg: &mut Postgres, op: &'static str, keep: &Address) -> Result<(), EngineError> {
    let sql = "SELECT coalesce(json_agg(json_build_object('pid', pid, 'name', application_name)
               ORDER BY backend_start), '[]')::text FROM pg_stat_replication";
    let text = pg.text(op, sql).await?.unwrap_or_default();
    let senders: Vec<Sender> = serde_json::from_str(&text).unwrap_or_default();
    let address = |sender: &Sender| config::read_standby_name(&sender.name).map(|(address, _)| address);
    let kept = senders.iter().rposition(|sender| address(sender).as_ref() == Some(keep));
    for (_, sender) in senders.iter().enumerate().filter(|(n, s)| Some(*n) != kept && address(s).is_some()) {
        pg.text(op, &format!("SELECT pg_terminate_backend({})::text", sender.pid)).await?;
    }
    Ok(())
}

/// The position is asked for behind the write: other writes may come between, so that it is never too low.
async fn mark(pg: &mut Postgres, op: &'static str, marker: &Marker) -> Result<(), EngineError> {
    pg.run(op, &marker::write(marker)).await?;
    let position = pg.text(op, &format!("SELECT {}", probe::POSITION)).await?;
    let position = position.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    pg.memo.marked = Some((marker.clone(), Position(position)));
    Ok(())
}

/// Nobody is let in, idle clients are sent away, the others once their transaction has ended or `end` says so.
async fn quiesce(pg: &mut Postgres, op: &'static str, end: bool) -> Result<(), EngineError> {
    let gate = Gate { clients: false, ..pg.gate };
    if let Err(error) = pg.let_in(op, gate).await {
        if pg.setup.has_room() {
            return Err(error);
        }
        // Who is let in cannot be written either. What was answered the hot replica has, and the end hands over as well.
        warn!(group = pg.setup.group, "ending the server: its disk is full, and it cannot be closed: {error}");
        return pg.kill().await;
    }
    let until = Instant::now() + DRAIN_SLICE;
    loop {
        pg.end_clients(op, if end { "true" } else { "state = 'idle'" }).await?;
        let own = pg.own_processes();
        pg.memo.quiesced = pg.holds(op, &format!("NOT EXISTS (SELECT {} AND pid NOT IN ({own}))", clients())).await?;
        if pg.memo.quiesced || Instant::now() >= until {
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
}
