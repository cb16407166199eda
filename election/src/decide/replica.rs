//! The hot replica: follow the master, and go on in its place when it is gone.

use super::{both_lost, engine, submit};
use crate::certificate::{self, Flaw};
use crate::decision::{Action, Decision, EngineOp, Evidence, Reason};
use crate::documents::{Master, Phase, Record};
use crate::ids::{Millis, NodeId};
use crate::proposals;
use crate::snapshot::{Contact, Peer, Snapshot, Witness};
use crate::status::{EngineRole, Status};

/// Both the agent's and the database's port refuse connections for this long: nobody listens there any more. Long
/// enough for a second look, short against any detection by silence.
pub(super) const REFUSED_FOR_MS: u64 = 100;

/// How fresh a witness's answer from the master's database must be to stop a suspicion.
const WITNESS_FRESH_MS: u64 = 500;

/// Redis closes the guard when no acknowledgement is younger than two seconds, looks once a second, and counts in whole
/// seconds.
const GUARD_CLOSES_MS: u64 = 4_000;

/// While a switchover waits for the last bytes, look again this often.
const SWITCH_LOOK_MS: u64 = 5;

pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let (Some(master), Some(replica)) = (&record.master, &record.replica) else {
        return Decision::wait(Reason::Halted);
    };
    if status.is_master() {
        return engine(EngineOp::Fence, Reason::Deposed { master: master.id.0.clone(), epoch: record.epoch });
    }
    let flaw = certificate::check(record, replica, status).err();
    if let (None, Some(flaw)) = (&flaw, too_far_behind(s, record, status))
        && matches!(grounds(s, record, master, status), Grounds::Evidence(_))
    {
        return Decision::wait(Reason::NotPromotable { flaw });
    }
    match (grounds(s, record, master, status), flaw) {
        (Grounds::Evidence(evidence), None) => take_over(s, record, status, evidence),
        (Grounds::None(reason), None) => understudy(s, record, master, status, reason),
        // With the master's run gone as well, the two disks are compared; with the master silent, whoever looks is told
        // that the group waits for it.
        (Grounds::Evidence(evidence), Some(Flaw::Restarted { .. })) if is_loss(evidence) => {
            both_lost::decide(s, record, status)
        }
        // A void certificate is the master's business: it drops this node, which then follows as a spare.
        (_, Some(flaw)) => Decision::wait(Reason::NotPromotable { flaw: flaw.to_string() }),
    }
}

/// Nothing is heard of the master: its process ended, or nobody can tell.
fn is_loss(evidence: Evidence) -> bool {
    !matches!(evidence, Evidence::Switchover | Evidence::MasterDisk)
}

/// `async`: a copy is promoted only when it was near the master's position when that was last heard.
fn too_far_behind(s: &Snapshot, record: &Record, status: &Status) -> Option<String> {
    if s.policy.is_sync() {
        return None;
    }
    let Some(bytes) = async_lag(s, record, status) else {
        return Some("async group: how far behind the master it is has never been heard".to_owned());
    };
    let flaw = || format!("async group: it is {bytes} bytes behind the master, more than max_lag");
    (bytes > s.policy.max_lag).then(flaw)
}

/// Whether the hot replica may try, and if not, what it is waiting for.
enum Grounds {
    Evidence(Evidence),
    None(Reason),
}

/// Reads, seals, submits; each only after the one before has been seen to hold.
fn take_over(s: &Snapshot, record: &Record, status: &Status, evidence: Evidence) -> Decision {
    let read_since = s.taking.as_ref().is_some_and(|t| s.view.read_at.is_some_and(|at| at >= t.since));
    if !read_since {
        // A record read before the evidence may be older than the drop of this very copy.
        return Decision::new(Action::Read, Reason::Rereading { evidence });
    }
    if !status.is_sealed() {
        if !s.view.reachable || s.view.session.is_none() {
            return Decision::wait(Reason::ConsulAway);
        }
        return engine(EngineOp::Seal, Reason::Sealing { evidence });
    }
    if let Some(until) = guard_open_until(s, evidence) {
        return Decision::wait(Reason::GuardClosing { evidence }).revisit(until);
    }
    let loss = (!s.policy.is_sync() && !matches!(evidence, Evidence::Switchover | Evidence::MasterDisk))
        .then(|| async_loss(s, record, status));
    submit(s, proposals::takeover(s, record, status, evidence, loss), Reason::TakingOver { evidence })
}

/// `async`: until when the master's guard may still let writes through, if it may. A master that is only suspected may
/// be alive and acknowledging by itself; since this copy is sealed it acknowledges nothing, and the guard closes.
fn guard_open_until(s: &Snapshot, evidence: Evidence) -> Option<Millis> {
    let suspected = matches!(evidence, Evidence::NodeSilent | Evidence::SessionEnded);
    let closed = s.sealed_since.unwrap_or(s.now).plus(GUARD_CLOSES_MS);
    (suspected && !s.policy.is_sync() && s.now < closed).then_some(closed)
}

/// Bytes that the master had, when it was last heard, and this copy has not.
fn async_lag(s: &Snapshot, record: &Record, status: &Status) -> Option<u64> {
    let (lineage, position) = s.peers.get(&record.master.as_ref()?.id)?.mastered.as_ref()?;
    (*lineage == status.lineage).then(|| position.0.saturating_sub(status.position.0))
}

fn async_loss(s: &Snapshot, record: &Record, status: &Status) -> String {
    let known = async_lag(s, record, status).map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
    format!(
        "async group: {known} bytes that the former master had when it was last heard are not in the new one's data, nor \
         is what it acknowledged after that"
    )
}

/// No grounds: be behind the master.
fn understudy(s: &Snapshot, record: &Record, master: &Master, status: &Status, reason: Reason) -> Decision {
    if !status.follows(&master.endpoint()) {
        if !s.settled {
            // Sealed by an earlier run of this agent, whose takeover may be in flight (invariant 4).
            return submit(s, proposals::renew(s, record, false), Reason::Renewing);
        }
        let order = EngineOp::Follow { source: master.endpoint(), channel: None, replace: false };
        return engine(order, Reason::Unsealing { master: master.id.clone() });
    }
    if let Some(offer) = s.peers.get(&master.id).and_then(|p| p.beat.offer.as_ref()) {
        // The link broke and the password this process was given is not the one in force any more.
        let EngineRole::Follows { link_up: false, channel, .. } = &status.role else {
            return spares(s, status, reason);
        };
        if offer.stamp == record.stamp() && channel.as_ref() != Some(&offer.channel) {
            let channel = Some((offer.channel.clone(), offer.secret.clone()));
            let order = EngineOp::Follow { source: offer.source.clone(), channel, replace: false };
            return engine(order, Reason::Following { source_node: master.id.clone() });
        }
    }
    spares(s, status, reason)
}

/// The spares replicate from the hot replica, under a password of its own.
fn spares(s: &Snapshot, status: &Status, reason: Reason) -> Decision {
    if s.channel.is_none() || status.channel.is_none() {
        return engine(super::shared_channel(s), Reason::OpeningChannel);
    }
    let soon = matches!(reason, Reason::Reaching { .. }).then(|| s.now.plus(SWITCH_LOOK_MS));
    let decision = Decision::wait(reason);
    soon.map_or(decision.clone(), |at| decision.revisit(at))
}

/// Why this node may try to take over now. Everything here only starts an attempt: the record, the seal and the
/// certificate make it safe.
fn grounds(s: &Snapshot, record: &Record, master: &Master, status: &Status) -> Grounds {
    let peer = s.peers.get(&master.id);
    let fresh = s.live_peer(&master.id, s.policy.detect_after);
    if fresh.is_some_and(|p| p.beat.engine.has_lost(&master.incarnation)) {
        return Grounds::Evidence(Evidence::ProcessDied);
    }
    if record.phase == Phase::Switching
        && let Some(found) = switch(s, record, fresh, status)
    {
        return found;
    }
    if gone(s, peer, &s.master_db, status) {
        return suspicion(s, master, Evidence::NodeGone);
    }
    let silence = s.silence(peer.map(|p| p.heard)).min(s.silence(s.link_heard)).min(s.silence(s.master_db.heard));
    if silence < s.policy.detect_after {
        return Grounds::None(Reason::Understudying { master: master.id.clone() });
    }
    if s.view.reachable && s.view.leader.is_none() {
        return Grounds::Evidence(Evidence::SessionEnded); // The slow path is always open, whatever witnesses say.
    }
    suspicion(s, master, Evidence::NodeSilent)
}

/// Whether connections to the master's agent and database are refused and the link is down.
fn gone(s: &Snapshot, peer: Option<&Peer>, database: &Contact, status: &Status) -> bool {
    let refused = |since: Option<Millis>| since.is_some_and(|at| s.now.since(at) >= REFUSED_FOR_MS);
    let link_down = !matches!(status.role, EngineRole::Follows { link_up: true, .. });
    link_down && refused(database.refused_since) && refused(peer.and_then(|p| p.refused_since))
}

/// A suspicion is stopped by a witness, and by a takeover that was a moment ago.
fn suspicion(s: &Snapshot, master: &Master, evidence: Evidence) -> Grounds {
    if let Some(witness) = witness(s, master) {
        return Grounds::None(Reason::Witnessed { master: master.id.clone(), witness });
    }
    if s.now.since(s.epoch_since) < s.policy.flap_pause {
        return Grounds::None(Reason::FlapPause { master: master.id.clone() });
    }
    Grounds::Evidence(evidence)
}

/// Somebody who had an answer from the master's database a moment ago: another node, or a proxy.
fn witness(s: &Snapshot, master: &Master) -> Option<NodeId> {
    let epoch = s.record()?.epoch;
    let others = s.peers.iter().filter(|(id, _)| **id != master.id);
    let node = others.filter(|(_, peer)| peer.beat.stamp.epoch == epoch).find(|(_, peer)| {
        let age = peer.beat.reached_master_ms.map(|ms| ms.saturating_add(s.now.since(peer.heard)));
        age.is_some_and(|ms| ms < WITNESS_FRESH_MS)
    });
    let fresh = |w: &Witness| w.epoch == epoch && s.now.since(w.reached) < WITNESS_FRESH_MS;
    let proxy = || s.witnesses.iter().find(|(_, w)| fresh(w)).map(|(name, _)| NodeId::from(name.as_str()));
    node.map(|(id, _)| id.clone()).or_else(proxy)
}

/// A planned switchover: the master holds its writes and this copy has them all.
fn switch(s: &Snapshot, record: &Record, master: Option<&Peer>, status: &Status) -> Option<Grounds> {
    let switch = record.switchover.as_ref().filter(|switch| switch.target == s.me.id)?;
    let beat = &master?.beat;
    let held = beat.quiesced_at.filter(|_| beat.stamp == record.stamp())?;
    if status.position >= held {
        let asked = !switch.id.is_empty();
        return Some(Grounds::Evidence(if asked { Evidence::Switchover } else { Evidence::MasterDisk }));
    }
    Some(Grounds::None(Reason::Reaching { position: held, has: status.position }))
}
