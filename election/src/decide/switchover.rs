//! A planned switchover: the master holds its writes, the hot replica reaches its position and takes over.

use super::{certify, engine, submit};
use crate::certificate;
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Command, CommandOp, Outcome, Record};
use crate::ids::NodeId;
use crate::proposals;
use crate::snapshot::{Snapshot, busy_proxy};
use crate::status::Status;

/// Writes are held this long at the most. The hand-over takes some tens of milliseconds; a client that waits a second
/// for an answer should not notice one that fails either.
const HOLD_LIMIT_MS: u64 = 700;

/// Proxies that speak the database's protocol send nothing new once they know of the switchover, and what they have sent
/// is answered within milliseconds: then no client notices anything. A slow command is not waited for longer than this,
/// so that the hand-over itself still fits into [`HOLD_LIMIT_MS`].
const QUIET_LIMIT_MS: u64 = 400;

/// How long running transactions may go on before they are ended, unless the request says.
const GRACE_MS: u64 = 200;

/// What the hand-over needs of the time that writes are held, once nothing runs any more.
const HAND_OVER_MS: u64 = 500;

/// Between two attempts of a master with a failing disk to hand over.
const FLEE_AGAIN_MS: u64 = 2_000;

/// Acts on an operator's request, if there is one.
pub(super) fn command(s: &Snapshot, record: &Record, status: &Status) -> Option<Decision> {
    let (command, index) = s.view.command.as_ref()?;
    if command.op != CommandOp::Switchover {
        return None; // The target of a forced failover acts, not the master.
    }
    if command.expires_at <= s.wall {
        return Some(refuse(command, *index, record, "the request has expired".to_owned()));
    }
    if command.expect_epoch != record.epoch {
        let why = format!("it was made for epoch {}, the group is in epoch {}", command.expect_epoch, record.epoch);
        return Some(refuse(command, *index, record, why));
    }
    match target(s, record, command) {
        Err(why) => Some(refuse(command, *index, record, why)),
        Ok(target) if record.is_replica(&target) => begin(s, record, status, command, *index, &target),
        Ok(target) => prepare(s, target),
    }
}

fn target(s: &Snapshot, record: &Record, command: &Command) -> Result<NodeId, String> {
    let replica = record.replica.as_ref().map(|r| r.id.clone());
    let Some(target) = command.target.clone().or_else(|| replica.clone()) else {
        return Err("the group has no hot replica, and the request names no node".to_owned());
    };
    if target == s.me.id {
        return Err(format!("node {target} is master already"));
    }
    if replica.as_ref() != Some(&target) {
        certify::eligible(s, &target)?;
    }
    Ok(target)
}

/// The target is the hot replica: begin, as soon as it is attached and heard.
fn begin(s: &Snapshot, record: &Record, status: &Status, c: &Command, index: u64, target: &NodeId) -> Option<Decision> {
    let peer = s.live_peer(target, s.policy.detect_after)?;
    let link = status.replicas.iter().find(|r| r.online && r.address == peer.beat.database)?;
    if s.certifying.is_some() || status.position.0.saturating_sub(link.position.0) > s.policy.max_lag {
        return None;
    }
    let proposal = proposals::switching(s, record, c, target, index);
    Some(submit(s, proposal, Reason::SwitchingTo { target: target.clone() }))
}

/// Why the present hot replica has to make room, if so: an operator wants a spare to be master, which is made hot
/// replica first. Dropping the present one is the same as losing it.
pub(super) fn makes_room(s: &Snapshot, record: &Record) -> Option<String> {
    let (command, _) = s.view.command.as_ref()?;
    if command.op != CommandOp::Switchover || command.expires_at <= s.wall || command.expect_epoch != record.epoch {
        return None; // `command` refuses it.
    }
    let target = target(s, record, command).ok()?;
    (!record.is_replica(&target)).then(|| format!("an operator wants {target} in its place"))
}

/// The target is a spare, and nobody is hot replica any more: it becomes that next.
fn prepare(s: &Snapshot, target: NodeId) -> Option<Decision> {
    match &s.certifying {
        Some(other) if other.candidate != target => {
            let why = format!("an operator wants {target} in its place");
            Some(Decision::new(Action::Abandon, Reason::Abandoning { candidate: other.candidate.clone(), why }))
        }
        _ => None, // `certify` prefers the node that was asked for.
    }
}

/// A master whose disk takes no writes hands over, if its hot replica's does: as planned, but nobody has asked for it.
pub(super) fn flee(s: &Snapshot, record: &Record, status: &Status) -> Option<Decision> {
    let replica = record.replica.as_ref().filter(|_| !status.disk_ok && !s.policy.paused)?;
    let peer = s.live_peer(&replica.id, s.policy.detect_after)?;
    let well = peer.status().is_some_and(|st| st.disk_ok && certificate::check(record, replica, st).is_ok());
    // After an attempt that failed, writes go on (or fail) here for a moment before the next.
    let rested = s.now.since(s.phase_since) >= FLEE_AGAIN_MS;
    let attached = status.replicas.iter().any(|r| r.online && r.address == peer.beat.database);
    if !well || !rested || !attached {
        return None;
    }
    let proposal = proposals::fleeing(s, record, &replica.id);
    Some(submit(s, proposal, Reason::DiskFailed { target: replica.id.clone() }))
}

/// Phase `switching`: hold the writes until the target has taken over, or give up.
pub(super) fn hold(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let Some(switch) = &record.switchover else {
        return give_up(s, record, status, "no request is recorded");
    };
    let target = switch.target.clone();
    let grace = switch.grace_ms.unwrap_or(GRACE_MS);
    let limit = HOLD_LIMIT_MS.max(grace.saturating_add(HAND_OVER_MS));
    if !record.is_replica(&target) {
        return give_up(s, record, status, "the target is not the hot replica");
    }
    if s.now.since(s.phase_since) >= limit {
        return give_up(s, record, status, "the target did not take over in time; writes go on here");
    }
    if !status.quiesced {
        let until = s.phase_since.plus(QUIET_LIMIT_MS);
        if let Some(proxy) = busy_proxy(&s.proxies, record).filter(|_| s.now < until) {
            return Decision::wait(Reason::Quieting { proxy: proxy.to_owned() }).revisit(until);
        }
        let end = s.now.since(s.phase_since) >= grace;
        return engine(EngineOp::Quiesce { end }, Reason::Holding { target });
    }
    Decision::wait(Reason::Holding { target }).revisit(s.phase_since.plus(limit))
}

fn give_up(s: &Snapshot, record: &Record, status: &Status, why: &str) -> Decision {
    let reason = Reason::SwitchGivenUp { why: why.to_owned() };
    if record.replica.is_none() && !status.fsync && s.policy.is_sync() {
        return engine(EngineOp::Fsync(true), reason); // It goes on alone (invariant 8).
    }
    submit(s, proposals::switch_back(s, record, why), reason)
}

pub(super) fn refuse(command: &Command, command_index: u64, record: &Record, why: String) -> Decision {
    let outcome = Outcome { id: command.id.clone(), done: false, epoch: record.epoch, message: why.clone() };
    Decision::new(Action::Answer { outcome, command_index }, Reason::Refusing { why })
}
