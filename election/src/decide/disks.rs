//! `fsync`: what the disks of a group promise, and in which order the promise is made and taken back.
//!
//! The record leads, since it alone is total in order: first it asks every node to put each write on its disk before it
//! acknowledges it ([`Record::fsync`]), then the certificate says that both disks that matter do
//! ([`Certificate::fsync`](crate::documents::Certificate::fsync)). A node stops only under a record that asks for it no
//! more, and such a record proves nothing of its disk.

use super::{engine, submit};
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Phase, Record};
use crate::proposals;
use crate::snapshot::{Peer, Snapshot};
use crate::status::Status;

/// What the policy, the record and the certificate of the master's group still have to agree on.
pub(super) fn agree(s: &Snapshot, record: &Record, status: &Status) -> Option<Decision> {
    if !s.view.reachable || s.view.session.is_none() {
        return None; // It changes nothing that could not wait.
    }
    let reason = |step: &str| Reason::AgreeingOnDisks { step: step.to_owned() };
    let certificate = record.replica.as_ref().map(|r| r.certificate.fsync);
    let promises = s.policy.fsync && s.policy.is_sync();
    // The master's own disk is ready before the record says anything (`align`).
    if s.policy.fsync && !record.fsync && status.fsync {
        return Some(submit(s, proposals::ask_of_disks(s, record), reason("every node puts its writes on disk")));
    }
    if !s.policy.fsync && record.fsync || !promises && certificate == Some(true) {
        return Some(submit(s, proposals::ask_of_disks(s, record), reason("the disks promise less from now on")));
    }
    let replica = record.replica.as_ref().filter(|r| promises && record.fsync && !r.certificate.fsync)?;
    let proven = s.peers.get(&replica.id).is_some_and(|peer| is_proven(record, status, peer));
    proven.then(|| submit(s, proposals::prove_disks(s, record, replica), reason("both disks hold every write")))
}

/// Whether every write is on both disks before it is acknowledged, and all earlier ones are too. Only a word given under
/// this very record counts: who gave it goes on doing so until another record lets it stop.
pub(super) fn is_proven(record: &Record, status: &Status, peer: &Peer) -> bool {
    let theirs = peer.status().is_some_and(|st| st.fsync && st.persisted);
    status.fsync && status.persisted && theirs && peer.beat.stamp == record.stamp()
}

/// Whether a certificate may be written as far as the disks are concerned.
pub(super) fn allow(s: &Snapshot, record: &Record, status: &Status, peer: &Peer) -> bool {
    !record.fsync || !s.policy.is_sync() || is_proven(record, status, peer)
}

/// A hot replica or a spare does what the record asks of its disk, when it has nothing else to do.
pub(super) fn keep(record: &Record, status: &Status, decision: Decision) -> Decision {
    let settled = matches!(record.phase, Phase::Active | Phase::Switching) && !status.is_master();
    // While the data set is replaced there is no file that could be put on disk.
    let able = status.is_whole() && status.persisted;
    if !settled || !able || status.fsync == record.fsync || decision.action != Action::Wait {
        return decision;
    }
    engine(EngineOp::Fsync(record.fsync), decision.reason)
}
