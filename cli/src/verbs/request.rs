//! Asking the agents of a group for something by way of Consul, and waiting for what becomes of it.

use crate::exit::Failure;
use crate::store::{Group, Put, Store};
use election::{Command, CommandOp, NodeId, Outcome};
use std::env;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Often enough to tell the time taken, little enough for Consul.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An agent that took the request at the last moment has so long to say what became of it.
const GRACE: Duration = Duration::from_secs(5);

/// Results that nobody fetched, of operators who gave up: so many are left for those who may still be waiting.
const UNFETCHED: usize = 10;

/// What is asked for.
pub(crate) struct Wish {
    pub(crate) op: CommandOp,
    pub(crate) target: NodeId,
    /// The epoch the operator saw.
    pub(crate) epoch: u64,
    /// How long the request stands.
    pub(crate) limit: Duration,
    /// How long running transactions may go on in a switchover; `None`: a moment.
    pub(crate) grace: Option<Duration>,
}

/// What became of it.
pub(crate) struct Answered {
    pub(crate) outcome: Outcome,
    /// The instant before the request was put down.
    pub(crate) asked_at: Instant,
}

/// Puts a request down and waits for what becomes of it. One that nobody took in time is taken back.
pub(crate) async fn ask(store: &Store, group: &Group, wish: Wish) -> Result<Answered, Failure> {
    make_room(store, group).await?;
    sweep(store, group).await;
    let command = Command {
        id: uuid::Uuid::new_v4().to_string(),
        op: wish.op,
        target: Some(wish.target),
        expect_epoch: wish.epoch,
        expires_at: now() + millis(wish.limit),
        by: author(),
        grace_ms: wish.grace.map(millis),
    };
    let asked_at = Instant::now();
    if store.put_command(&group.name, &command).await? == Put::Taken {
        return Err(Failure::new(format!("another request to {} came first; try again when it is done", group.name)));
    }
    let outcome = wait(store, group, &command.id, wish.limit).await?;
    forget(store, group, &command.id).await;
    Ok(Answered { outcome, asked_at })
}

/// Takes an expired request away; one that stands is a failure.
async fn make_room(store: &Store, group: &Group) -> Result<(), Failure> {
    let Some((pending, index)) = &group.view.command else {
        return Ok(());
    };
    if pending.expires_at > now() {
        let seconds = (pending.expires_at - now()).div_ceil(1_000);
        return Err(Failure::new(format!(
            "another request to {} is pending, by {}; it is void in {seconds} s",
            group.name, pending.by
        )));
    }
    // Whoever took it away, it is gone.
    store.withdraw(&group.name, *index).await.map(drop)
}

/// Removes the older of the results that nobody fetched.
async fn sweep(store: &Store, group: &Group) {
    let (old, _) = group.unfetched.split_at(group.unfetched.len().saturating_sub(UNFETCHED));
    for id in old {
        forget(store, group, id).await;
    }
}

/// One that stays is swept up later.
async fn forget(store: &Store, group: &Group, id: &str) {
    if let Err(failure) = store.forget_outcome(&group.name, id).await {
        tracing::debug!(%failure, "the result stays in Consul");
    }
}

async fn wait(store: &Store, group: &Group, id: &str, limit: Duration) -> Result<Outcome, Failure> {
    let deadline = Instant::now() + limit;
    if let Some(outcome) = look_until(store, group, id, deadline).await? {
        return Ok(outcome);
    }
    let name = &group.name;
    if let Some((pending, index)) = store.command(name).await?
        && pending.id == id
        && store.withdraw(name, index).await?
    {
        let seconds = limit.as_secs();
        return Err(Failure::new(format!(
            "no agent of {name} took the request within {seconds} s; it is taken back and nothing has changed"
        )));
    }
    // It was taken: what became of it comes in the same transaction, or soon after.
    match look_until(store, group, id, Instant::now() + GRACE).await? {
        Some(outcome) => Ok(outcome),
        None => Err(Failure::new(format!(
            "the request was taken, but what became of it is not known; see `understudy status {name}`"
        ))),
    }
}

async fn look_until(store: &Store, group: &Group, id: &str, deadline: Instant) -> Result<Option<Outcome>, Failure> {
    loop {
        if let Some(outcome) = store.outcome(&group.name, id).await? {
            return Ok(Some(outcome));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// A limit of an hour, and the time of day, both fit by far.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `user@host`, for whoever wonders.
pub(crate) fn author() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}
