//! The master the record names: promote it, keep its settings in line with the record, let go of a lost hot replica
//! in the order that loses nothing.

use super::{both_lost, certify, disks, engine, next_marker, replica::REFUSED_FOR_MS, submit, switchover};
use crate::certificate;
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Master, Phase, Record, Replica};
use crate::ids::Address;
use crate::policy::WithoutReplica;
use crate::proposals;
use crate::snapshot::{Memory, Snapshot};
use crate::status::{Attached, Status};

/// The agent of the hot replica may be away this long (an upgrade, a restart) while its database still acknowledges.
const AGENT_GRACE_MS: u64 = 10_000;

/// How long an attached hot replica may acknowledge nothing, on top of `detect_after`: Redis replicas acknowledge once
/// a second and Redis reports the age in whole seconds, so up to two are normal.
const ACK_GRANULARITY_MS: u64 = 2_000;

/// The marker's counter tells an older data set from a newer one to this precision.
const MARK_EVERY_MS: u64 = 1_000;

/// The marker is remembered once in so many counts.
pub(super) const REMEMBER_MARKS: u64 = 10;

/// Redis's `everysec` may be two seconds late, so what was written three counts ago is on disk.
pub(super) const FSYNC_MARKS: u64 = 3;

pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let Some(master) = &record.master else {
        return Decision::wait(Reason::Halted);
    };
    if status.incarnation != master.incarnation {
        return restarted(s, record, master, status);
    }
    if !s.settled {
        return submit(s, proposals::renew(s, record, true), Reason::Renewing);
    }
    if s.view.reachable && s.view.session.is_some() && s.view.leader != s.view.session {
        return submit(s, proposals::renew(s, record, true), Reason::Relocking);
    }
    match record.phase {
        Phase::Bootstrapping | Phase::Promoting => promote(s, record, status),
        Phase::Switching => switchover::hold(s, record, status),
        Phase::Active => serve(s, record, status),
        Phase::Halted | Phase::Quarantine => Decision::wait(Reason::Halted),
    }
}

/// The run that the record names has ended, and this is another one, booted as a replica of a black hole.
fn restarted(s: &Snapshot, record: &Record, master: &Master, status: &Status) -> Decision {
    if status.is_master() {
        // Not started by an agent: nothing of ours boots a master.
        return engine(EngineOp::Fence, Reason::Deposed { master: master.id.0.clone(), epoch: record.epoch });
    }
    both_lost::decide(s, record, status)
}

/// Makes the named instance a master that carries the epoch's marker, then says so in the record.
fn promote(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let reason = || Reason::Promoting { epoch: record.epoch };
    if let Some(certifying) = &s.certifying {
        // The epoch's marker goes on with the nonce of the one before: it would be taken for one that commits waited for.
        let why = "another epoch begins".to_owned();
        let candidate = certifying.candidate.clone();
        return Decision::new(Action::Abandon, Reason::Abandoning { candidate, why });
    }
    if !status.persisted && !record.is_proven() {
        // Promoted first: Redis begins the file anew that a copy which was cut off has ended only then.
        return match status.is_master() {
            true => Decision::wait(Reason::Persisting { epoch: record.epoch }),
            false => engine(EngineOp::Promote, reason()),
        };
    }
    if !status.fsync && (s.policy.is_sync() || record.fsync) {
        // `active` will name no hot replica: from here on this disk alone has to hold every write (invariant 8).
        return engine(EngineOp::Fsync(true), reason());
    }
    if !status.is_master() {
        return engine(EngineOp::Promote, reason());
    }
    if status.guard {
        return engine(EngineOp::Guard(false), reason()); // Nobody is attached yet who could acknowledge the marker.
    }
    if status.quiesced {
        return engine(EngineOp::Release, reason()); // Left over from an earlier mastership: it would hold the marker too.
    }
    if !carries_marker(record, status) {
        let nonce = status.marker.as_ref().map(|m| m.nonce.clone()).unwrap_or_default();
        return engine(EngineOp::Mark(next_marker(s, record, status, nonce)), reason());
    }
    submit(s, proposals::activate(s, record), Reason::Activating { epoch: record.epoch })
}

fn carries_marker(record: &Record, status: &Status) -> bool {
    status.marker.as_ref().is_some_and(|m| m.uid == record.uid && m.epoch == record.epoch)
}

fn serve(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    if !status.is_master() {
        return Decision::wait(Reason::RoleLost);
    }
    if let Some(decision) = let_go(s, record, status) {
        return decision;
    }
    if let Some(decision) = switchover::flee(s, record, status) {
        return decision;
    }
    if let Some(op) = align(s, record, status) {
        return engine(op, Reason::Aligning);
    }
    if !status.open {
        return engine(EngineOp::Open, Reason::Opening { epoch: record.epoch });
    }
    if let Some(decision) = disks::agree(s, record, status) {
        return decision;
    }
    if let Some(decision) = switchover::command(s, record, status) {
        return decision;
    }
    let decision = match &record.replica {
        Some(replica) => attended(s, replica, status),
        None => certify::decide(s, record, status),
    };
    if matches!(decision.action, crate::decision::Action::Wait) { tick(s, record, status, decision) } else { decision }
}

/// Drops a hot replica that is lost or has to make room: every write on disk first, then the record, and only then the
/// guard (in `align`, which would undo the first step and so comes later).
fn let_go(s: &Snapshot, record: &Record, status: &Status) -> Option<Decision> {
    let replica = record.replica.as_ref()?;
    let why = loss(s, record, replica, status).or_else(|| switchover::makes_room(s, record))?;
    Some(drop_from_record(s, record, status, replica, why))
}

/// The order of invariant 8, for every reason to drop a hot replica.
fn drop_from_record(s: &Snapshot, record: &Record, status: &Status, replica: &Replica, why: String) -> Decision {
    let reason = Reason::Dropping { replica: replica.id.clone(), why };
    if !status.fsync && s.policy.is_sync() {
        return engine(EngineOp::Fsync(true), reason);
    }
    submit(s, proposals::drop_replica(s, record), reason)
}

/// Why the hot replica is lost, if it is.
fn loss(s: &Snapshot, record: &Record, replica: &Replica, status: &Status) -> Option<String> {
    let limit = s.policy.detect_after;
    let peer = s.peers.get(&replica.id);
    if let Some(live) = s.live_peer(&replica.id, limit) {
        if live.beat.engine.has_lost(&replica.certificate.incarnation) {
            return Some("its database ended".to_owned());
        }
        if let Some(flaw) = live.status().and_then(|st| certificate::check(record, replica, st).err()) {
            return Some(flaw.to_string());
        }
        if live.status().is_some_and(|st| !st.disk_ok) {
            return Some("its disk takes no writes".to_owned());
        }
        if live.beat.silent_ms.is_some_and(|ms| ms >= limit) {
            return Some("its database hangs".to_owned());
        }
    }
    let silent = s.silence(s.replica_acked);
    if link(s, replica, status).is_none() {
        let refused = peer.and_then(|p| p.refused_since).is_some_and(|at| s.now.since(at) >= REFUSED_FOR_MS);
        if refused {
            return Some("its link is down and its agent is gone".to_owned());
        }
        return (silent >= limit).then(|| format!("its link has been down for {silent} ms"));
    }
    if silent >= limit + ACK_GRANULARITY_MS {
        return Some(format!("it has acknowledged nothing for {silent} ms"));
    }
    let agent_silent = s.silence(peer.map(|p| p.heard));
    let other = certify::choose(s, record, status).is_some();
    (agent_silent >= AGENT_GRACE_MS && other).then(|| format!("its agent has been silent for {agent_silent} ms"))
}

/// The hot replica among the instance's replication clients.
fn link<'a>(s: &Snapshot, replica: &Replica, status: &'a Status) -> Option<&'a Attached> {
    let address = address_of(s, replica);
    status.replicas.iter().find(|r| r.online && address.as_ref().is_none_or(|a| *a == r.address))
}

fn address_of(s: &Snapshot, replica: &Replica) -> Option<Address> {
    let member = || s.view.members.get(&replica.id).map(|m| Address::new(m.address.clone(), m.port));
    s.peers.get(&replica.id).map(|p| p.beat.database.clone()).or_else(member)
}

/// Brings the settings that decide about acknowledgements in line with the record. Loosening comes only with a record
/// that is confirmed to name no hot replica; tightening before anybody is certified.
fn align(s: &Snapshot, record: &Record, status: &Status) -> Option<EngineOp> {
    if status.quiesced {
        return Some(EngineOp::Release); // First: what is set beside the marker would be held too.
    }
    let sync = s.policy.is_sync();
    let attended = record.replica.is_some();
    let waits = attended || (sync && s.policy.without_replica == WithoutReplica::Block);
    let certifying = certify::on_exclusive_channel(s, status);
    // `async`: the guard stands, so that a master that is cut off stops soon; no acknowledgement waits.
    let (guard, need) = (waits, waits && sync);
    if need && !status.need {
        return Some(EngineOp::Need(true));
    }
    if guard && !status.guard {
        return Some(EngineOp::Guard(true));
    }
    if !guard && status.guard && !certifying {
        return Some(EngineOp::Guard(false));
    }
    if !need && status.need && !certifying {
        return Some(EngineOp::Need(false));
    }
    let on_disk = (sync && !attended) || record.fsync || s.policy.fsync;
    (status.fsync != on_disk).then_some(EngineOp::Fsync(on_disk))
}

/// A master with its hot replica.
fn attended(s: &Snapshot, replica: &Replica, status: &Status) -> Decision {
    if s.certifying.is_some() {
        // The memory of the certification has served.
        return Decision::new(Action::Abandon, Reason::Certified { replica: replica.id.clone() });
    }
    let id = replica.id.clone();
    let known = address_of(s, replica);
    if let (Some(keep), Some(other)) = (&known, status.replicas.iter().find(|r| known.as_ref() != Some(&r.address))) {
        let address = other.address.to_string();
        return engine(EngineOp::Expel { keep: keep.clone() }, Reason::Intruder { address });
    }
    let ms = s.silence(s.replica_acked);
    if link(s, replica, status).is_none() {
        return Decision::wait(Reason::ReplicaUnseen { replica: id, ms });
    }
    if s.live_peer(&id, s.policy.detect_after).is_none() {
        return Decision::wait(Reason::ServingReplicaAgentSilent { replica: id });
    }
    Decision::wait(Reason::Serving { replica: id })
}

/// Raises the marker when it is due, or writes it again when a user's FLUSHALL removed it.
fn tick(s: &Snapshot, record: &Record, status: &Status, decision: Decision) -> Decision {
    let refused = status.guard && !status.replicas.iter().any(|r| r.online);
    if refused || status.quiesced {
        return decision;
    }
    let nonce = match (&record.replica, &status.marker) {
        (Some(replica), _) => replica.certificate.nonce.clone(),
        (None, Some(marker)) => marker.nonce.clone(),
        (None, None) => crate::ids::Nonce::default(),
    };
    let stands = carries_marker(record, status) && status.marker.as_ref().is_some_and(|m| m.nonce == nonce);
    let due = s.marked.is_none_or(|at| s.now.since(at) >= MARK_EVERY_MS);
    if !stands || due {
        return engine(EngineOp::Mark(next_marker(s, record, status, nonce)), decision.reason);
    }
    if let Some(memory) = durable_marker(s, status) {
        return Decision::new(Action::Remember(memory), decision.reason);
    }
    let at = s.marked.unwrap_or_default().plus(MARK_EVERY_MS);
    decision.revisit(at)
}

/// What is worth remembering of the marker: a counter that has been on the instance's disk for a while, so that an
/// older data set is told from this one after a restart. Written every so often: each is a write to the node's disk.
fn durable_marker(s: &Snapshot, status: &Status) -> Option<Memory> {
    let marker = status.marker.as_ref()?;
    let known = s.memory.marker.filter(|(epoch, _)| *epoch == marker.epoch).map_or(0, |(_, counter)| counter);
    if marker.counter < known + REMEMBER_MARKS + FSYNC_MARKS {
        return None;
    }
    Some(Memory { marker: Some((marker.epoch, marker.counter - FSYNC_MARKS)), ..s.memory.clone() })
}
