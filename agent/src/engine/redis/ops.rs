//! Each operation of the core as the commands that carry it out.

use std::fs;
use std::io;
use std::path::PathBuf;

use election::{Address, EngineOp, Marker, Nonce, Position, Secret};
use redis::{FromRedisValue, Pipeline, RedisError, Value};

use super::config::BLACK_HOLE;
use super::probe::Info;
use super::tear::Tear;
use super::{Redis, accounts, config, hold, marker};
use crate::engine::{EngineError, folder};

/// The files change under a rewrite while they are put on disk; one that ends takes far longer than one look.
const SYNC_TRIES: u32 = 20;

/// Does one thing to a running process.
pub(super) async fn apply(redis: &mut Redis, op: &EngineOp) -> Result<(), EngineError> {
    match op {
        // They concern the process, not the server in it: `Redis::apply` does them.
        EngineOp::Start | EngineOp::Kill | EngineOp::Stop | EngineOp::Reset => Ok(()),
        EngineOp::Keep { epoch } => keep(Op::of(redis, op), *epoch).await,
        EngineOp::Seal => Op::of(redis, op).run(&black_hole()).await.map(drop),
        EngineOp::Follow { source, channel, .. } => follow(Op::of(redis, op), source, channel.as_ref()).await,
        EngineOp::Promote => promote(Op::of(redis, op)).await,
        EngineOp::Open => Op::of(redis, op).run(&clients(true)).await.map(drop),
        EngineOp::Fence => fence(Op::of(redis, op)).await,
        EngineOp::Guard(on) => Op::of(redis, op).set("min-replicas-to-write", if *on { "1" } else { "0" }).await,
        EngineOp::Fsync(true) => fsync_always(Op::of(redis, op)).await,
        EngineOp::Fsync(false) => fsync_as_configured(Op::of(redis, op)).await,
        EngineOp::Need(need) => say_need(Op::of(redis, op), *need).await,
        EngineOp::Channel { name, secret, exclusive } => channel(Op::of(redis, op), name, secret, *exclusive).await,
        EngineOp::Expel { keep } => expel(Op::of(redis, op), keep).await,
        EngineOp::Mark(marker) => mark(Op::of(redis, op), marker).await,
        // Commands run one after another: nothing runs on once this is answered.
        EngineOp::Quiesce { .. } => quiesce(Op::of(redis, op)).await,
        EngineOp::Release => release(Op::of(redis, op)).await,
    }
}

/// An operation under way: whom it concerns, and what errors call it.
struct Op<'a> {
    redis: &'a mut Redis,
    name: &'static str,
}

impl<'a> Op<'a> {
    fn of(redis: &'a mut Redis, op: &EngineOp) -> Self {
        Self { redis, name: op.name() }
    }

    async fn run(&mut self, commands: &Pipeline) -> Result<Vec<Value>, EngineError> {
        let name = self.name;
        let link = self.redis.link().await.map_err(|e| fault(name, e))?;
        link.run(commands).await.map_err(|e| fault(name, e))
    }

    async fn set(&mut self, key: &str, value: &str) -> Result<(), EngineError> {
        let mut commands = redis::pipe();
        commands.cmd("CONFIG").arg("SET").arg(key).arg(value);
        self.run(&commands).await.map(drop)
    }

    fn refused(&self, answer: impl Into<String>) -> EngineError {
        EngineError::Refused { op: self.name, answer: answer.into() }
    }

    /// A held write would wait, and hold up this connection with it.
    fn must_not_be_held(&self) -> Result<(), EngineError> {
        if self.redis.memo.is_held() { Err(EngineError::Held { op: self.name }) } else { Ok(()) }
    }
}

async fn follow(mut op: Op<'_>, source: &Address, channel: Option<&(Nonce, Secret)>) -> Result<(), EngineError> {
    let mut commands = redis::pipe();
    commands.atomic();
    if let Some((name, secret)) = channel {
        commands.cmd("CONFIG").arg("SET").arg("masteruser").arg(accounts::REPLICATION).arg("masterauth");
        commands.arg(secret.reveal());
        if op.redis.memo.follows_with.as_ref() != Some(name) {
            // To follow the same source again is nothing to Redis: without this an old link would stay, logged in with
            // the old password. What is needed for a partial resync is kept.
            commands.cmd("REPLICAOF").arg(BLACK_HOLE.0).arg(BLACK_HOLE.1);
        }
    }
    commands.cmd("REPLICAOF").arg(&source.host).arg(source.port);
    op.run(&commands).await?;
    if let Some((name, _)) = channel {
        op.redis.memo.follows_with = Some(name.clone());
    }
    Ok(())
}

async fn promote(mut op: Op<'_>) -> Result<(), EngineError> {
    let mut commands = redis::pipe();
    commands.atomic();
    add_client_rules(&mut commands, false);
    commands.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0);
    commands.cmd("REPLICAOF").arg("NO").arg("ONE");
    op.run(&commands).await.map(drop)
}

/// Nothing of a client's may come between these steps: held writes end with their connections, and are never carried
/// out; nobody is connected who could see that this is a replica now; who connects later is closed out.
async fn fence(mut op: Op<'_>) -> Result<(), EngineError> {
    let mut commands = redis::pipe();
    commands.atomic();
    add_client_rules(&mut commands, false);
    commands.cmd("CLIENT").arg("KILL").arg("USER").arg(accounts::CLIENTS);
    commands.cmd("REPLICAOF").arg(BLACK_HOLE.0).arg(BLACK_HOLE.1);
    commands.cmd("CLIENT").arg("UNPAUSE");
    op.run(&commands).await?;
    hold::forget(op.redis)
}

/// The marker may be refused at this moment (the guard), so that nothing can be learnt from a write of our own: once the
/// setting was answered, Redis has handed all earlier writes to the files (it writes its buffer before it answers, and
/// under this policy without delay), and the files are put on disk here.
async fn fsync_always(mut op: Op<'_>) -> Result<(), EngineError> {
    op.set("appendfsync", "always").await?;
    let mut commands = redis::pipe();
    commands.cmd("INFO").arg("persistence");
    let answer = op.run(&commands).await?;
    let text = answer.into_iter().next().and_then(|v| String::from_redis_value(v).ok()).unwrap_or_default();
    let info = Info::read(&text);
    if info.text("aof_enabled") != "1" || info.text("aof_last_write_status") != "ok" {
        return Err(op.refused("the append-only file is off, or its last write failed"));
    }
    if op.redis.memo.tear != Tear::Whole {
        return Err(op.refused("the append-only file is being rewritten after a failed write"));
    }
    let folder = op.redis.setup.aof_folder();
    let path = folder.clone();
    let done = tokio::task::spawn_blocking(move || sync_folder(&folder)).await;
    let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(EngineError::io("put on disk", &path))?;
    op.redis.memo.synced = true;
    Ok(())
}

/// The files of a sealed instance do not change, but they do once it follows another: a copy, not links.
async fn keep(op: Op<'_>, epoch: u64) -> Result<(), EngineError> {
    let (from, to) = (op.redis.setup.aof_folder(), op.redis.setup.kept_folder(epoch));
    let shown = to.clone();
    let done = tokio::task::spawn_blocking(move || folder::keep(&from, &to)).await;
    done.unwrap_or_else(|e| Err(EngineError::io("copy into", &shown)(io::Error::other(e))))?;
    op.redis.kept = Some(epoch);
    Ok(())
}

async fn fsync_as_configured(mut op: Op<'_>) -> Result<(), EngineError> {
    op.redis.memo.synced = false;
    let policy = config::fsync_policy(&op.redis.setup.settings).to_owned();
    op.set("appendfsync", &policy).await
}

async fn say_need(mut op: Op<'_>, need: bool) -> Result<(), EngineError> {
    op.must_not_be_held()?;
    let mut commands = redis::pipe();
    commands.add_command(marker::say_need(need));
    op.run(&commands).await.map(drop)
}

async fn channel(mut op: Op<'_>, name: &Nonce, secret: &Secret, exclusive: bool) -> Result<(), EngineError> {
    if exclusive {
        let mut commands = redis::pipe();
        commands.cmd("GET").arg(marker::NEED);
        let said = op.run(&commands).await?.into_iter().next();
        let said: Option<String> = said.and_then(|v| Option::from_redis_value(v).ok()).flatten();
        // The guard refuses the write, and where it is on this has been said already.
        if said.as_deref() != Some(marker::NEEDED) {
            op.must_not_be_held()?;
            let mut commands = redis::pipe();
            commands.add_command(marker::say_need(true));
            op.run(&commands).await?;
        }
    }
    let mut commands = redis::pipe();
    commands.atomic();
    commands.cmd("ACL").arg("SETUSER").arg(accounts::REPLICATION).arg("reset").arg("on");
    commands.arg(format!(">{}", secret.reveal())).arg(&accounts::REPLICATION_RULES);
    if exclusive {
        // By account, not by type: a link that is still being made is no replica yet.
        commands.cmd("CLIENT").arg("KILL").arg("USER").arg(accounts::REPLICATION);
    }
    op.run(&commands).await.map_err(|e| without(e, secret))?;
    op.redis.memo.channel = Some(name.clone());
    Ok(())
}

/// Redis tells what a replica announces in one list and who it is in another, both in the order in which replicas
/// attached (an unfinished handshake can swap two: then the wrong link ends, is made again at the end of both lists,
/// and the next try, which the core makes as long as there is more than one, finds the right one).
async fn expel(mut op: Op<'_>, keep: &Address) -> Result<(), EngineError> {
    let mut commands = redis::pipe();
    commands.atomic();
    commands.cmd("INFO").arg("replication");
    commands.cmd("CLIENT").arg("LIST").arg("TYPE").arg("replica");
    let mut answers = op.run(&commands).await?.into_iter().filter_map(|v| String::from_redis_value(v).ok());
    let (info, list) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
    let mut commands = redis::pipe();
    for id in strangers(&info, &list, keep) {
        commands.cmd("CLIENT").arg("KILL").arg("ID").arg(id);
    }
    if commands.is_empty() {
        return Ok(());
    }
    op.run(&commands).await.map(drop)
}

/// The ids of all replica links but one. When one address has several, the last made is the living one.
pub(super) fn strangers(info: &str, list: &str, keep: &Address) -> Vec<u64> {
    let addresses: Vec<Address> = Info::read(info).replicas().into_iter().map(|r| r.address).collect();
    let ids: Vec<u64> = list.lines().filter_map(client_id).collect();
    let kept = (addresses.len() == ids.len()).then(|| addresses.iter().rposition(|a| a == keep)).flatten();
    ids.into_iter().enumerate().filter(|(n, _)| Some(*n) != kept).map(|(_, id)| id).collect()
}

fn client_id(line: &str) -> Option<u64> {
    line.split(' ').find_map(|field| field.strip_prefix("id="))?.parse().ok()
}

/// The position is asked for behind the write in the same request: other writes may come between, so that it is never
/// too low.
async fn mark(mut op: Op<'_>, marker: &Marker) -> Result<(), EngineError> {
    op.must_not_be_held()?;
    let mut commands = redis::pipe();
    commands.add_command(marker::write(marker));
    commands.cmd("INFO").arg("replication");
    let text = op.run(&commands).await?.into_iter().nth(1).and_then(|v| String::from_redis_value(v).ok());
    let text = text.ok_or_else(|| op.refused("no INFO"))?;
    let position = u64::try_from(Info::read(&text).number("master_repl_offset")).unwrap_or_default();
    op.redis.memo.marked = Some((marker.clone(), Position(position)));
    Ok(())
}

async fn quiesce(mut op: Op<'_>) -> Result<(), EngineError> {
    op.redis.link().await.map_err(|e| fault(op.name, e))?;
    // Before the request: when its answer is lost, writes may be held.
    hold::note(op.redis)?;
    let mut commands = redis::pipe();
    commands.cmd("CLIENT").arg("PAUSE").arg(hold::LIMIT.as_millis() as u64).arg("WRITE");
    op.run(&commands).await.map(drop)
}

async fn release(mut op: Op<'_>) -> Result<(), EngineError> {
    let mut commands = redis::pipe();
    commands.cmd("CLIENT").arg("UNPAUSE");
    op.run(&commands).await?;
    hold::forget(op.redis)
}

fn black_hole() -> Pipeline {
    let mut commands = redis::pipe();
    commands.cmd("REPLICAOF").arg(BLACK_HOLE.0).arg(BLACK_HOLE.1);
    commands
}

fn clients(open: bool) -> Pipeline {
    let mut commands = redis::pipe();
    add_client_rules(&mut commands, open);
    commands
}

fn add_client_rules(commands: &mut Pipeline, open: bool) {
    commands.cmd("ACL").arg("SETUSER").arg(accounts::CLIENTS).arg(accounts::client_rules(open));
}

/// Puts a folder and every file in it on disk.
fn sync_folder(folder: &PathBuf) -> io::Result<()> {
    for _ in 1..SYNC_TRIES {
        match sync_once(folder) {
            // A rewrite removed a file between the look and the sync, and has put another list in its place.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    sync_once(folder)
}

fn sync_once(folder: &PathBuf) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(folder)?.sync_all()
}

fn fault(op: &'static str, error: RedisError) -> EngineError {
    let Some(answers) = error.clone().into_server_errors() else {
        return EngineError::Connection { op, source: error };
    };
    // The first to fail is why the others did.
    let Some((_, first)) = answers.first() else { return EngineError::Connection { op, source: error } };
    match (first.code(), first.details().unwrap_or_default()) {
        ("NOREPLICAS", _) => EngineError::NoReplicas { op },
        (code, "") => EngineError::Refused { op, answer: code.to_owned() },
        (code, details) => EngineError::Refused { op, answer: format!("{code} {details}") },
    }
}

/// The same error, should the server have repeated the password in its words.
fn without(error: EngineError, secret: &Secret) -> EngineError {
    match error {
        EngineError::Refused { op, answer } => {
            EngineError::Refused { op, answer: answer.replace(secret.reveal(), "[secret]") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_links_but_one_are_strangers() {
        let info = "slave0:ip=a,port=1,state=online,offset=1,lag=0\r\nslave1:ip=b,port=1,state=online,offset=1,lag=0\r\n\
                    slave2:ip=a,port=1,state=online,offset=1,lag=0\r\n";
        let list = "id=5 addr=x\nid=6 addr=x\nid=9 addr=x\n";
        assert_eq!(strangers(info, list, &Address::new("b", 1)), [5, 9]);
        assert_eq!(strangers(info, list, &Address::new("a", 1)), [5, 6]);
        assert_eq!(strangers(info, list, &Address::new("c", 1)), [5, 6, 9]);
        assert_eq!(strangers(info, "id=5 addr=x\n", &Address::new("a", 1)), [5], "lists that do not match name nobody");
        assert_eq!(strangers("", "", &Address::new("a", 1)), [0_u64; 0]);
    }
}
