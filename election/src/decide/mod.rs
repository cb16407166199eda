//! How a node chooses what to do: first what holds for everyone, then by its role in the record.
//!
//! The order of the tests is the order of their weight: what is not trusted decides nothing; a record is on disk before
//! anybody acts on it; what may still be in flight is settled before anything else is begun.

mod both_lost;
mod certify;
mod disks;
mod duty;
mod forced;
mod master;
mod pause;
mod replica;
mod spare;
mod switchover;
mod vacant;

use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Phase, RECORD_VERSION, Record, Role};
use crate::ids::Incarnation;
use crate::proposals;
use crate::snapshot::{Memory, Snapshot, Writing};
use crate::status::{Engine, Status};

/// A record that is not trusted is read again this often.
const DOUBT_AGAIN_MS: u64 = 2_000;

/// Decides what this node should do now. Same snapshot, same decision.
pub fn decide(s: &Snapshot) -> Decision {
    if let Engine::Foreign { why } = &s.engine {
        return Decision::wait(Reason::ForeignData { why: why.clone() });
    }
    if let Some(untouched) = untouched(s) {
        return untouched;
    }
    if !s.view.seen {
        return run_engine(s).unwrap_or_else(|| Decision::wait(Reason::ConsulUnseen));
    }
    if let Some(distrust) = distrust(s) {
        return run_engine(s).unwrap_or_else(|| doubt(s, distrust));
    }
    if let Some(record) = s.record().filter(|record| record.stamp() > s.memory.stamp || s.memory.uid.is_none()) {
        return remember(s, record);
    }
    if let Some(settle) = settle(s) {
        return settle;
    }
    let Some(record) = s.record() else {
        return run_engine(s).unwrap_or_else(|| vacant::decide(s));
    };
    if let Some(decision) = duty::decide(s, record) {
        return decision;
    }
    if let Some(decision) = run_engine(s) {
        return decision;
    }
    let Engine::Up(status) = &s.engine else {
        return Decision::wait(Reason::EngineUnknown);
    };
    if let Some(decision) = forced::decide(s, record, status) {
        return decision;
    }
    if matches!(record.phase, Phase::Halted | Phase::Quarantine) {
        return Decision::wait(Reason::Halted);
    }
    let decision = match record.role_of(&s.me.id) {
        Role::Master => master::decide(s, record, status),
        Role::Replica => disks::keep(record, status, replica::decide(s, record, status)),
        Role::Spare => disks::keep(record, status, spare::decide(s, record, status)),
    };
    pause::hold(s, record, decision)
}

/// Data that is to be adopted is not touched, and no database started on it, before it is known that there is no group.
fn untouched(s: &Snapshot) -> Option<Decision> {
    if !s.me.adopt || s.memory.uid.is_some() {
        return None;
    }
    if !s.view.seen {
        return Some(Decision::wait(Reason::ConsulUnseen));
    }
    if let Some(distrust) = distrust(s) {
        return Some(doubt(s, distrust));
    }
    let Some(record) = s.record() else {
        return vacant::vanished(s);
    };
    (!record.is_master(&s.me.id)).then(|| Decision::wait(Reason::AdoptTooLate))
}

/// Why the record in Consul must not be acted on, if it must not. It never leads to a new group.
fn distrust(s: &Snapshot) -> Option<Reason> {
    // A disk that does not take the record makes no older one true.
    let remembered = s.memory.stamp.max(s.newest);
    if let Some(fault) = &s.view.fault {
        return Some(Reason::RecordUnreadable { fault: fault.clone() });
    }
    let Some(record) = s.record() else {
        return s.memory.uid.is_some().then(|| Reason::RecordWentBack { remembered: remembered.to_string() });
    };
    if record.v > RECORD_VERSION {
        return Some(Reason::RecordTooNew { v: record.v });
    }
    match &s.memory.uid {
        Some(uid) if *uid != record.uid => Some(Reason::OtherGroup { ours: uid.clone(), theirs: record.uid.clone() }),
        Some(_) if record.stamp() < remembered => Some(Reason::RecordWentBack { remembered: remembered.to_string() }),
        _ => None,
    }
}

/// What is not trusted may be a late answer, or may have been put right: it is read again now and then.
fn doubt(s: &Snapshot, distrust: Reason) -> Decision {
    if !s.view.reachable {
        return Decision::wait(distrust);
    }
    let due = s.view.read_at.unwrap_or_default().plus(DOUBT_AGAIN_MS);
    if s.now >= due {
        return Decision::new(Action::Read, distrust);
    }
    Decision::wait(distrust).revisit(due)
}

/// A write whose outcome is unknown may still be applied. Until the record's index has moved, both outcomes are
/// possible: nothing is loosened or begun, and a write of one's own at the same index settles it.
fn settle(s: &Snapshot) -> Option<Decision> {
    let Writing::Unknown { index } = s.writing else {
        return None;
    };
    if s.view.index > index {
        return None;
    }
    if !s.view.reachable {
        return Some(Decision::wait(Reason::ConsulAway));
    }
    let record = s.record()?; // A bootstrap of unknown outcome is settled by the next bootstrap: one of them is first.
    Some(Decision::new(Action::Submit(Box::new(proposals::renew(s, record, false))), Reason::Settling))
}

fn remember(s: &Snapshot, record: &Record) -> Decision {
    let memory = Memory {
        uid: Some(record.uid.clone()),
        stamp: record.stamp(),
        // Another node's data set will replace this one: what is known of the old one's marker says nothing of it.
        marker: s.memory.marker.filter(|_| record.is_master(&s.me.id) || record.phase != Phase::Active),
        mastered: mastered(s, record),
        record: Some(Box::new(record.clone())),
    };
    Decision::new(Action::Remember(memory), Reason::Remembering { stamp: record.stamp().to_string() })
}

fn mastered(s: &Snapshot, record: &Record) -> Option<(u64, Incarnation)> {
    let active = record.phase == Phase::Active && record.is_master(&s.me.id);
    let now = record.master.as_ref().filter(|_| active).map(|m| (record.epoch, m.incarnation.clone()));
    now.or_else(|| s.memory.mastered.clone())
}

/// What the local process itself needs, whatever its role: it always boots harmless.
fn run_engine(s: &Snapshot) -> Option<Decision> {
    match &s.engine {
        Engine::Unknown => Some(Decision::wait(Reason::EngineUnknown)),
        Engine::Down { why } if s.now < s.start_after => {
            Some(Decision::wait(Reason::StartBackoff { why: why.clone() }).revisit(s.start_after))
        }
        Engine::Down { .. } | Engine::Silent { .. } if s.policy.paused => {
            let instead = "looking after the database, which does not answer".to_owned();
            Some(Decision::wait(Reason::Paused { instead }))
        }
        Engine::Down { why } => {
            Some(Decision::new(Action::Engine(EngineOp::Start), Reason::Starting { why: why.clone() }))
        }
        Engine::Silent { since, .. } => {
            let ms = s.silence(Some(*since));
            if ms >= s.policy.hang_after {
                return Some(Decision::new(Action::Engine(EngineOp::Kill), Reason::EngineHung { ms }));
            }
            let at = s.now.plus(s.policy.hang_after - ms);
            Some(Decision::wait(Reason::EngineSilent { ms }).revisit(at))
        }
        Engine::Up(_) | Engine::Foreign { .. } => None,
    }
}

/// Submits, or says why it cannot.
fn submit(s: &Snapshot, proposal: crate::decision::Proposal, reason: Reason) -> Decision {
    if !s.view.reachable {
        return Decision::wait(Reason::ConsulAway);
    }
    if s.view.session.is_none() {
        return Decision::wait(Reason::NoSession);
    }
    Decision::new(Action::Submit(Box::new(proposal)), reason)
}

/// Does something to the local database.
fn engine(op: EngineOp, reason: Reason) -> Decision {
    Decision::new(Action::Engine(op), reason)
}

/// The marker that this epoch's master has to carry, raised by one. Where a user's FLUSHALL took it away, it goes on
/// above every counter it can have had: a lower one would make this data set look older than it is.
fn next_marker(s: &Snapshot, record: &Record, status: &Status, nonce: crate::ids::Nonce) -> crate::status::Marker {
    let known = s.memory.marker.filter(|(epoch, _)| *epoch == record.epoch).map_or(0, |(_, counter)| counter);
    let last = status.marker.as_ref().map_or(known + 2 * (master::REMEMBER_MARKS + master::FSYNC_MARKS), |m| m.counter);
    crate::status::Marker { uid: record.uid.clone(), epoch: record.epoch, nonce, counter: last + 1 }
}

/// Sets a replication password that any spare may be given.
fn shared_channel(s: &Snapshot) -> EngineOp {
    EngineOp::Channel { name: s.fresh.nonce.clone(), secret: s.fresh.secret.clone(), exclusive: false }
}
