//! Master and hot replica both lost: who may go on, and from which disk.
//!
//! After a restart a copy is what its disk brought back, which its fsync policy may have shortened. Two copies together
//! hold every acknowledged write (each write was in both memories), so the one whose marker is the newer goes on; with
//! one of them silent nobody knows, and the group waits. A spare never goes on by itself.

use super::{engine, submit};
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Phase, Record};
use crate::ids::{Incarnation, NodeId, Nonce, Position};
use crate::proposals;
use crate::snapshot::{Peer, Snapshot};
use crate::status::{Engine, Marker, Status};
use std::ops::RangeInclusive;

/// The two nodes that held every write of the last active epoch, and the marker that proves it of a disk.
struct Pair<'a> {
    first: (&'a NodeId, &'a Incarnation),
    second: Option<(&'a NodeId, &'a Incarnation)>,
    /// The position without which the second, in its run of then, does not take the group back.
    least: Option<Position>,
    epochs: RangeInclusive<u64>,
    nonce: Option<&'a Nonce>,
    /// Each of the two has every acknowledged write on its disk.
    fsync: bool,
}

/// The run that the record names on this node has ended, and this is another one, sealed since its boot.
pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Decision {
    let Some(pair) = pair(s, record) else { return Decision::wait(Reason::Halted) };
    if status.loading {
        return Decision::wait(Reason::Loading);
    }
    let first = *pair.first.0 == s.me.id;
    let other = if first { pair.second } else { Some(pair.first) };
    let mine = standing(&pair, status).filter(|found| s.memory.marker.is_none_or(|known| *found >= known));
    let Some((id, run)) = other.filter(|(id, _)| **id != s.me.id) else {
        return alone(s, record, status, mine);
    };
    let theirs = match report(s, &pair, id, run) {
        Ok(theirs) => theirs,
        Err(Reason::WaitingForOther { .. }) if pair.fsync && mine.is_some() => {
            let why = "master and hot replica were both lost; this one's disk holds every acknowledged write (fsync)";
            return resume(s, record, status, why, None);
        }
        Err(reason) => return Decision::wait(reason),
    };
    let Some(own) = mine else { return Decision::wait(refusal(status)) };
    let ahead = theirs.is_none_or(|theirs| if first { own >= theirs } else { own > theirs });
    if !ahead {
        return Decision::wait(Reason::OtherResumes { node: id.clone() });
    }
    let why = "master and hot replica were both restarted; the newer of the two data sets goes on";
    let loss = (!pair.fsync).then(|| {
        "writes acknowledged in the last moments before both databases ended may be lost, as far as neither disk had \
         them (appendfsync everysec: up to two seconds)"
            .to_owned()
    });
    resume(s, record, status, why, loss)
}

/// What booted sealed may have followed another since, under a record that has been taken back.
fn resume(s: &Snapshot, record: &Record, status: &Status, why: &str, loss: Option<String>) -> Decision {
    let decision = submit(s, proposals::succeed(s, record, status, why, loss), Reason::Resuming);
    match decision.action {
        Action::Submit(_) if !status.is_sealed() => engine(EngineOp::Seal, Reason::Resuming),
        // Once the record says so, nobody else is asked: what it goes on from has to outlast the next power cut.
        Action::Submit(_) if s.policy.is_sync() && !status.fsync => engine(EngineOp::Fsync(true), Reason::Resuming),
        _ => decision,
    }
}

/// Nobody else held the writes: this master was alone, and every write was on its disk before it was answered.
fn alone(s: &Snapshot, record: &Record, status: &Status, mine: Option<(u64, u64)>) -> Decision {
    // In a group that was never active nothing was acknowledged, and no marker written.
    if mine.is_none() && record.active_epoch != 0 {
        return Decision::wait(refusal(status));
    }
    let why = "master process died; it resumed from its own disk, no hot replica was recorded";
    // An `async` master acknowledges before its disk has the write, alone as well.
    let loss = (!s.policy.is_sync() && !record.fsync).then(|| {
        "async group: writes acknowledged in the last moments before the database ended may be lost, as far as its disk \
         did not have them (appendfsync everysec: up to two seconds)"
            .to_owned()
    });
    resume(s, record, status, why, loss)
}

/// What the other one's disk brought back; an error while that cannot be known, or when it need not be asked.
fn report(s: &Snapshot, pair: &Pair, id: &NodeId, run: &Incarnation) -> Result<Option<(u64, u64)>, Reason> {
    let wait = |why: &str| Reason::WaitingForOther { node: id.clone(), why: why.to_owned() };
    let Some(Peer { beat, .. }) = s.live_peer(id, s.policy.detect_after) else {
        return Err(wait("its agent is silent"));
    };
    match &beat.engine {
        Engine::Up(theirs) if theirs.incarnation == *run => match pair.least {
            // It may not take the group back, since less was taken over from it: it would be waited for without an end.
            // What its successor had then is on that one's disk.
            Some(at) if theirs.position < at => Ok(None),
            _ => Err(Reason::HandingOver { replica: id.clone() }),
        },
        Engine::Up(theirs) if theirs.loading => Err(wait("it is loading its data")),
        Engine::Up(theirs) => Ok(standing(pair, theirs)),
        Engine::Silent { .. } | Engine::Unknown => Err(wait("its database gives no answer")),
        Engine::Down { why } | Engine::Foreign { why } => Err(wait(why)),
    }
}

/// The marker's (epoch, counter), when it is one that proves the data set to be of the last active epoch.
fn standing(pair: &Pair, status: &Status) -> Option<(u64, u64)> {
    let holds = |m: &&Marker| pair.epochs.contains(&m.epoch) && pair.nonce.is_none_or(|nonce| *nonce == m.nonce);
    status.marker.as_ref().filter(holds).map(|m| (m.epoch, m.counter))
}

fn refusal(status: &Status) -> Reason {
    let why = match &status.marker {
        None => "its data carries no marker: it is empty, or not this group's",
        Some(_) => "its data is older than what this node, or the record, knows of",
    };
    Reason::MayNotResume { why: why.to_owned() }
}

fn pair<'a>(s: &Snapshot, record: &'a Record) -> Option<Pair<'a>> {
    let master = record.master.as_ref()?;
    let first = (&master.id, &master.incarnation);
    let replica = record.replica.as_ref();
    Some(match record.phase {
        // Nothing was acknowledged since the last active epoch: who held its writes still does, and who carries the
        // marker of an epoch that came between was found to.
        Phase::Promoting | Phase::Bootstrapping => Pair {
            first,
            second: record.previous.as_ref().and_then(|p| p.master.as_ref()).map(|m| (&m.id, &m.incarnation)),
            least: record.previous.as_ref().and_then(|before| before.position),
            epochs: record.active_epoch..=record.epoch,
            nonce: None,
            fsync: s.policy.is_sync() && record.previous.as_ref().is_some_and(|before| before.fsync),
        },
        _ => Pair {
            first,
            second: replica.map(|r| (&r.id, &r.certificate.incarnation)),
            least: None,
            // An operator who restores the record gives the same run another epoch, and it may end before its marker says so.
            epochs: record.active_epoch..=record.epoch,
            nonce: replica.map(|r| &r.certificate.nonce),
            fsync: s.policy.is_sync() && replica.is_some_and(|r| r.certificate.fsync),
        },
    })
}
