//! A spare: fence what is no longer master, follow the hot replica, or the master when it calls.

use super::{both_lost, engine, submit};
use crate::decision::{Decision, EngineOp, Reason};
use crate::documents::{Master, Phase, Record};
use crate::ids::NodeId;
use crate::proposals;
use crate::snapshot::{Offer, Purpose, Snapshot};
use crate::status::{EngineRole, Status};

pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    if status.is_master() {
        let master = record.master.as_ref().map_or("nobody", |m| m.id.as_str()).to_owned();
        return engine(EngineOp::Fence, Reason::Deposed { master, epoch: record.epoch });
    }
    if !matches!(record.phase, Phase::Active | Phase::Switching) {
        // What the previous master holds must stay as it is: it may yet take the group back.
        return retake(s, record, status);
    }
    if let Some(marker) = status.marker.as_ref().filter(|marker| marker.uid != record.uid) {
        // To follow would be to overwrite them.
        return Decision::wait(Reason::OtherData { ours: record.uid.clone(), theirs: marker.uid.clone() });
    }
    if let Some(epoch) = diverged(s, record, status) {
        return engine(EngineOp::Keep { epoch }, Reason::Keeping { epoch });
    }
    let Some(source_node) = source(s, record) else {
        return Decision::wait(Reason::WaitingForReplica);
    };
    match s.peers.get(&source_node).and_then(|p| p.beat.offer.as_ref()).filter(|o| o.stamp == record.stamp()) {
        Some(offer) => follow(status, offer, source_node),
        None => behind(s, status, source_node),
    }
}

/// In `promoting` nothing has been acknowledged in the new epoch. When its master is lost, the previous one has every
/// write, if it is the same run and has replicated from nobody since: fenced, it is sealed, and follows only in `active`.
fn retake(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let waiting = Decision::wait(Reason::WaitingForActive { epoch: record.epoch });
    let (Some(master), Some(before)) = (&record.master, &record.previous) else { return waiting };
    let Some(mine) = before.master.as_ref().filter(|m| m.id == s.me.id) else { return waiting };
    if record.active_epoch == 0 || !is_lost(s, master) {
        return waiting;
    }
    if status.incarnation != mine.incarnation {
        return both_lost::decide(s, record, status);
    }
    if !status.is_sealed() || !status.is_whole() || before.position.is_some_and(|at| status.position < at) {
        return waiting;
    }
    let reason = Reason::Retaking { master: master.id.clone(), epoch: record.epoch };
    let why = "the new master was lost before it was open; the previous one took the group back";
    let mut proposal = proposals::succeed(s, record, status, why, before.data_loss.clone());
    if let Some(previous) = &mut proposal.record.previous {
        // Every acknowledged write lies before this; what this instance has beyond it, its successor need not have to
        // take the group back in its turn.
        previous.position = before.position;
    }
    submit(s, proposal, reason)
}

/// Whether the new master's run is gone, as its own agent says, or nothing was heard of that agent for a while.
fn is_lost(s: &Snapshot, master: &Master) -> bool {
    match s.live_peer(&master.id, s.policy.detect_after) {
        Some(peer) => peer.beat.engine.has_lost(&master.incarnation),
        None => s.silence(s.peers.get(&master.id).map(|p| p.heard)) >= s.policy.detect_after,
    }
}

/// A master that was restarted and is another's spare now may hold writes that it never could acknowledge, and that
/// nobody else has: positions cannot be compared after a restart. They are kept once, for the operator.
fn diverged(s: &Snapshot, record: &Record, status: &Status) -> Option<u64> {
    let (epoch, run) = s.memory.mastered.as_ref()?;
    let own = status.marker.as_ref().is_some_and(|m| m.uid == record.uid && m.epoch == *epoch);
    let restarted = status.incarnation != *run;
    (own && restarted && *epoch < record.epoch && status.kept.is_none_or(|kept| kept < *epoch)).then_some(*epoch)
}

/// Whom to follow: the hot replica; without one, the master, once it has called this node.
fn source(s: &Snapshot, record: &Record) -> Option<NodeId> {
    if let Some(replica) = &record.replica {
        return Some(replica.id.clone());
    }
    let master = &record.master.as_ref()?.id;
    let called = s.peers.get(master)?.beat.offer.as_ref().is_some_and(|o| o.stamp == record.stamp());
    called.then(|| master.clone())
}

/// Carries an offer out. Only an offer of the record's own stamp comes here: one made under an older record could
/// replace a copy that has been certified since.
fn follow(status: &Status, offer: &Offer, source_node: NodeId) -> Decision {
    let channel = Some((offer.channel.clone(), offer.secret.clone()));
    let order = EngineOp::Follow { source: offer.source.clone(), channel, replace: true };
    let EngineRole::Follows { source, link_up, syncing, channel } = &status.role else {
        return engine(order, Reason::Following { source_node });
    };
    let same_channel = channel.as_ref() == Some(&offer.channel);
    let exclusive = offer.purpose == Purpose::Certify;
    if *source != offer.source || (!same_channel && (exclusive || !link_up)) {
        return engine(order, Reason::Following { source_node });
    }
    Decision::wait(match (syncing, link_up) {
        (true, _) => Reason::Copying { source_node },
        (false, true) => Reason::Spare { source_node },
        (false, false) => Reason::Connecting { source_node },
    })
}

/// No valid offer at this moment: go on as it is.
fn behind(s: &Snapshot, status: &Status, source_node: NodeId) -> Decision {
    let database = s.peers.get(&source_node).map(|p| &p.beat.database);
    match &status.role {
        EngineRole::Follows { source, link_up: true, .. } if Some(source) == database => {
            Decision::wait(Reason::Spare { source_node })
        }
        _ => Decision::wait(Reason::WaitingForOffer { source_node }),
    }
}
