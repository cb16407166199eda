//! A master without a hot replica makes one: a copy catches up, is left alone on an exclusive channel, carries the
//! certificate's marker, and only then enters the record.

use super::{disks, engine, next_marker, shared_channel, submit};
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::Record;
use crate::ids::{Address, NodeId};
use crate::policy::WithoutReplica;
use crate::proposals;
use crate::snapshot::{Certifying, Peer, Snapshot};
use crate::status::{EngineRole, Status};
use std::cmp::Reverse;

/// A candidate that is not copying has this long for each certification: the steps take milliseconds each, so longer
/// than this it is ill.
const CERTIFY_LIMIT_MS: u64 = 10_000;

/// A candidate this close, in bytes, is moved to the exclusive channel; the rest follows in one burst.
const NEAR_BYTES: u64 = 1_048_576;

pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let Some(certifying) = &s.certifying else {
        return match choose(s, record, status) {
            Some((id, peer)) => nominate(id, peer),
            None if s.policy.without_replica == WithoutReplica::Block => Decision::wait(Reason::BlockedAlone),
            None => Decision::wait(Reason::ServingAlone),
        };
    };
    match candidate(s, certifying) {
        Ok((_, theirs)) if on_exclusive_channel(s, status) && (status.guard || status.need) && is_copying(theirs) => {
            // It copies on the shared channel, where no write waits for it: a copy takes long, and one of MariaDB waits
            // for the commits that wait for it.
            abandon(certifying, "it copies the data anew".to_owned())
        }
        Ok((peer, theirs)) if on_exclusive_channel(s, status) => exclusive(s, record, status, certifying, peer, theirs),
        Ok((peer, theirs)) => join(s, status, certifying, peer, theirs),
        Err(why) => abandon(certifying, why),
    }
}

/// Whether the replication password in force is the certification's own.
pub(super) fn on_exclusive_channel(s: &Snapshot, status: &Status) -> bool {
    s.certifying.as_ref().is_some_and(|c| status.channel.as_ref() == Some(&c.nonce))
}

/// The best copy to be made hot replica: the one an operator asked for, else one that is attached, of this history,
/// in another zone, preferred, far ahead.
pub(super) fn choose<'a>(s: &'a Snapshot, record: &Record, status: &Status) -> Option<(&'a NodeId, &'a Peer)> {
    let wanted = s.view.command.as_ref().and_then(|(c, _)| c.target.as_ref());
    s.peers.iter().filter(|(id, _)| eligible(s, id).is_ok() && !record.is_replica(id)).max_by_key(|(id, peer)| {
        let attached = status.replicas.iter().any(|r| r.address == peer.beat.database && r.online);
        let ours = peer.status().filter(|t| t.lineage == status.lineage && t.is_whole());
        let apart = peer.beat.zone.is_none() || peer.beat.zone != s.me.zone;
        let position = ours.map(|t| t.position);
        (wanted == Some(id), attached, ours.is_some(), apart, peer.beat.priority, position, Reverse(*id))
    })
}

/// Whether a node can be made hot replica, and if not, why: a sentence for the operator who named it.
pub(super) fn eligible(s: &Snapshot, id: &NodeId) -> Result<(), String> {
    let Some(peer) = s.live_peer(id, s.policy.detect_after) else {
        return Err(format!("node {id}'s agent is not heard"));
    };
    if peer.refused_since.is_some() {
        // Heard a moment ago, and gone since: a dead node would be waited for until it counts as silent.
        return Err(format!("nobody listens at the address of node {id}'s agent"));
    }
    if peer.beat.priority == 0 {
        return Err(format!("node {id} has priority 0: it never becomes master"));
    }
    match peer.status() {
        Some(theirs) if !theirs.disk_ok => Err(format!("node {id}'s disk takes no writes")),
        Some(_) => Ok(()),
        None => Err(format!("node {id}'s database does not answer")),
    }
}

fn nominate(id: &NodeId, peer: &Peer) -> Decision {
    let Some(theirs) = peer.status() else {
        return Decision::wait(Reason::ServingAlone);
    };
    let action = Action::Nominate { candidate: id.clone(), incarnation: theirs.incarnation.clone() };
    Decision::new(action, Reason::Choosing { candidate: id.clone() })
}

fn abandon(certifying: &Certifying, why: String) -> Decision {
    Decision::new(Action::Abandon, Reason::Abandoning { candidate: certifying.candidate.clone(), why })
}

/// The candidate as it is now, or why it is none any more.
fn candidate<'a>(s: &'a Snapshot, c: &Certifying) -> Result<(&'a Peer, &'a Status), String> {
    eligible(s, &c.candidate)?;
    let gone = || "its database does not answer".to_owned();
    let peer = s.peers.get(&c.candidate).ok_or_else(gone)?;
    let theirs = peer.status().ok_or_else(gone)?;
    if theirs.incarnation != c.incarnation {
        return Err("its database was restarted".to_owned());
    }
    let busy = is_copying(theirs) || theirs.loading || !theirs.persisted;
    if !busy && s.now.since(c.since) >= CERTIFY_LIMIT_MS {
        return Err(format!("it was not certified within {CERTIFY_LIMIT_MS} ms"));
    }
    Ok((peer, theirs))
}

fn is_copying(theirs: &Status) -> bool {
    matches!(theirs.role, EngineRole::Follows { syncing: true, .. })
}

/// The candidate follows this master under the password in force and catches up.
fn join(s: &Snapshot, status: &Status, c: &Certifying, peer: &Peer, theirs: &Status) -> Decision {
    let candidate = c.candidate.clone();
    if s.channel.is_none() || status.channel.is_none() {
        return engine(shared_channel(s), Reason::CatchingUp { candidate });
    }
    if !caught_up(s, status, theirs) || attached(status, &peer.beat.database).is_none() {
        return Decision::wait(Reason::CatchingUp { candidate });
    }
    let channel = EngineOp::Channel { name: c.nonce.clone(), secret: s.fresh.secret.clone(), exclusive: true };
    engine(channel, Reason::CertifyingCopy { candidate })
}

fn caught_up(s: &Snapshot, status: &Status, theirs: &Status) -> bool {
    theirs.follows(&s.me.database)
        && theirs.is_whole()
        && theirs.persisted
        && theirs.lineage == status.lineage
        && status.position.0.saturating_sub(theirs.position.0) <= NEAR_BYTES
}

fn attached<'a>(status: &'a Status, address: &Address) -> Option<&'a crate::status::Attached> {
    status.replicas.iter().find(|r| r.online && r.address == *address)
}

/// The candidate is alone on the channel: guard, marker, marker read back, record; in this order.
fn exclusive(s: &Snapshot, record: &Record, status: &Status, c: &Certifying, peer: &Peer, theirs: &Status) -> Decision {
    let reason = || Reason::CertifyingCopy { candidate: c.candidate.clone() };
    let address = &peer.beat.database;
    if let Some(other) = status.replicas.iter().find(|r| r.address != *address) {
        let intruder = Reason::Intruder { address: other.address.to_string() };
        return engine(EngineOp::Expel { keep: address.clone() }, intruder);
    }
    if attached(status, address).is_none() {
        return Decision::wait(reason());
    }
    if !status.guard {
        return engine(EngineOp::Guard(true), reason());
    }
    let marked = status.marker.as_ref().is_some_and(|m| m.nonce == c.nonce && m.epoch == record.epoch);
    let Some(at) = status.marked_at.filter(|_| marked) else {
        return engine(EngineOp::Mark(next_marker(s, record, status, c.nonce.clone())), reason());
    };
    let read_back = theirs.marker.as_ref().is_some_and(|m| m.nonce == c.nonce && m.uid == record.uid);
    if !read_back || theirs.position < at || !caught_up(s, status, theirs) || !disks::allow(s, record, status, peer) {
        return Decision::wait(reason());
    }
    submit(s, proposals::certify(s, record, status, c, at), reason())
}
