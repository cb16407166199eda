//! The only functions that make a new version of the record. Each refuses nothing: whether it may be submitted is
//! decided in [`decide`](mod@crate::decide) and checked in [`invariants`](crate::invariants).

use crate::decision::{Evidence, Proposal, TakeLeader};
use crate::documents::{
    Certificate, Command, HistoryEntry, Identity, Master, Outcome, Phase, Previous, RECORD_VERSION, Record, Replica,
    SwitchoverRef, Writer,
};
use crate::ids::{NodeId, Position};
use crate::snapshot::{Certifying, Snapshot};
use crate::status::Status;

/// The first record of a new group.
pub(crate) fn bootstrap(s: &Snapshot, status: &Status) -> Proposal {
    let record = Record {
        v: RECORD_VERSION,
        group: s.me.group.clone(),
        uid: s.fresh.nonce.0.clone(),
        epoch: 1,
        active_epoch: 0,
        seq: 1,
        nonce: s.fresh.nonce.clone(),
        writer: writer(s),
        phase: Phase::Bootstrapping,
        master: Some(master(s, status)),
        replica: None,
        fsync: s.policy.fsync,
        previous: None,
        switchover: None,
    };
    Proposal { policy: Some(s.policy.clone()), ..plain(s, record, true) }
}

/// This node becomes master in the next epoch, in place of the recorded one: a hot replica that takes over, a master
/// that resumes from its own disk in a new run, or a previous master that takes the group back.
pub(crate) fn succeed(
    s: &Snapshot,
    record: &Record,
    status: &Status,
    reason: &str,
    data_loss: Option<String>,
) -> Proposal {
    let previous = Previous {
        epoch: record.epoch,
        master: record.master.as_ref().map(|m| Identity { id: m.id.clone(), incarnation: m.incarnation.clone() }),
        position: Some(status.position),
        reason: reason.to_owned(),
        fsync: match record.phase {
            // What its two copies held is what those of the epoch before held.
            Phase::Promoting => record.previous.as_ref().is_some_and(|before| before.fsync),
            _ => record.replica.as_ref().is_some_and(|replica| replica.certificate.fsync),
        },
        data_loss,
    };
    let phase = if record.active_epoch == 0 { Phase::Bootstrapping } else { Phase::Promoting };
    let next = Record {
        epoch: record.epoch + 1,
        phase,
        master: Some(master(s, status)),
        replica: None,
        previous: Some(previous),
        ..next(s, record)
    };
    plain(s, next, true)
}

/// [`succeed`] for a hot replica. A switchover to this very node is done by it, whatever the evidence was.
pub(crate) fn takeover(
    s: &Snapshot,
    record: &Record,
    status: &Status,
    evidence: Evidence,
    data_loss: Option<String>,
) -> Proposal {
    let mut proposal = succeed(s, record, status, &evidence.to_string(), data_loss);
    proposal.record.switchover = record.switchover.clone().filter(|switch| switch.target == s.me.id);
    proposal
}

/// An operator makes this node master although nothing proves its copy complete.
pub(crate) fn force(s: &Snapshot, record: &Record, status: &Status, command: &Command, index: u64) -> Proposal {
    let reason = format!("forced by {}", command.by);
    let mut proposal = succeed(s, record, status, &reason, Some(known_loss(record, status)));
    proposal.record.switchover =
        Some(SwitchoverRef { id: command.id.clone(), target: s.me.id.clone(), grace_ms: None });
    proposal.consume = Some(index);
    if let Some(previous) = &mut proposal.record.previous {
        previous.fsync = false; // Nothing is proven of this copy.
        // Another history's, or another run's: the former master, should it have to take the group back, is not behind it.
        previous.position = None;
    }
    proposal
}

/// What is known of the writes that a forced failover gives up.
fn known_loss(record: &Record, status: &Status) -> String {
    let marker = match &status.marker {
        Some(m) if m.uid == record.uid => {
            format!("its data carry the marker of epoch {}, count {}", m.epoch, m.counter)
        }
        Some(_) => "its data carry the marker of another group".to_owned(),
        None => "its data carry no marker".to_owned(),
    };
    let certified = record.replica.as_ref().map_or_else(String::new, |r| {
        format!("; {} was certified at {} of history {}", r.id, r.certificate.position, r.certificate.lineage)
    });
    format!(
        "acknowledged writes may be lost: {marker} and stand at {} of history {}, the group was in epoch {}{certified}",
        status.position, status.lineage, record.epoch
    )
}

/// The promoted instance carries the epoch's marker: proxies may send clients.
pub(crate) fn activate(s: &Snapshot, record: &Record) -> Proposal {
    let took_ms = s.taking.as_ref().map_or_else(|| s.now.since(s.phase_since), |t| s.now.since(t.since));
    let history = HistoryEntry {
        epoch: record.epoch,
        master: s.me.id.clone(),
        previous: record.previous.as_ref().and_then(|p| p.master.as_ref()).map(|m| m.id.clone()),
        reason: record.previous.as_ref().map_or_else(|| "new group".to_owned(), |p| p.reason.clone()),
        evidence: s.taking.as_ref().map(|t| t.evidence.clone()).unwrap_or_default(),
        position: record.previous.as_ref().and_then(|p| p.position),
        took_ms,
        data_loss: record.previous.as_ref().and_then(|p| p.data_loss.clone()),
        at: s.wall,
        by: s.me.id.clone(),
    };
    let result = record.switchover.as_ref().filter(|switch| !switch.id.is_empty()).map(|switch| Outcome {
        id: switch.id.clone(),
        done: true,
        epoch: record.epoch,
        message: format!("{} is master in epoch {}", s.me.id, record.epoch),
    });
    let next = Record { phase: Phase::Active, active_epoch: record.epoch, switchover: None, ..next(s, record) };
    Proposal { history: Some(history), result, ..plain(s, next, false) }
}

/// The candidate's copy is complete.
pub(crate) fn certify(s: &Snapshot, record: &Record, mine: &Status, certifying: &Certifying, at: Position) -> Proposal {
    let replica = Replica {
        id: certifying.candidate.clone(),
        complete: true,
        certificate: Certificate {
            nonce: certifying.nonce.clone(),
            incarnation: certifying.incarnation.clone(),
            lineage: mine.lineage.clone(),
            position: at,
            fsync: record.fsync && s.policy.is_sync(),
        },
    };
    plain(s, Record { replica: Some(replica), ..next(s, record) }, false)
}

/// The policy's `fsync` as every node carries it out from now on. What is asked of nobody is proven by nothing.
pub(crate) fn ask_of_disks(s: &Snapshot, record: &Record) -> Proposal {
    let fsync = s.policy.fsync;
    let mut replica = record.replica.clone();
    if let Some(replica) = &mut replica {
        replica.certificate.fsync &= fsync && s.policy.is_sync();
    }
    plain(s, Record { fsync, replica, ..next(s, record) }, false)
}

/// Both disks hold every write.
pub(crate) fn prove_disks(s: &Snapshot, record: &Record, replica: &Replica) -> Proposal {
    let certificate = Certificate { fsync: true, ..replica.certificate.clone() };
    plain(s, Record { replica: Some(Replica { certificate, ..replica.clone() }), ..next(s, record) }, false)
}

/// The hot replica may not be promoted any more.
pub(crate) fn drop_replica(s: &Snapshot, record: &Record) -> Proposal {
    plain(s, Record { replica: None, ..next(s, record) }, false)
}

/// The master begins to hold writes for `target`; the operator's request is consumed.
pub(crate) fn switching(
    s: &Snapshot,
    record: &Record,
    command: &Command,
    target: &NodeId,
    command_index: u64,
) -> Proposal {
    let switchover = Some(SwitchoverRef { id: command.id.clone(), target: target.clone(), grace_ms: command.grace_ms });
    let next = Record { phase: Phase::Switching, switchover, ..next(s, record) };
    Proposal { consume: Some(command_index), ..plain(s, next, false) }
}

/// The same without a request: the master's disk takes no writes.
pub(crate) fn fleeing(s: &Snapshot, record: &Record, target: &NodeId) -> Proposal {
    let switchover = Some(SwitchoverRef { id: String::new(), target: target.clone(), grace_ms: None });
    plain(s, Record { phase: Phase::Switching, switchover, ..next(s, record) }, false)
}

/// The master goes on after a switchover that did not come about.
pub(crate) fn switch_back(s: &Snapshot, record: &Record, why: &str) -> Proposal {
    let result = record.switchover.as_ref().filter(|switch| !switch.id.is_empty()).map(|switch| Outcome {
        id: switch.id.clone(),
        done: false,
        epoch: record.epoch,
        message: why.to_owned(),
    });
    let next = Record { phase: Phase::Active, switchover: None, ..next(s, record) };
    Proposal { result, ..plain(s, next, false) }
}

/// The same record under a higher seq: whatever was in flight on the old index is dead.
pub(crate) fn renew(s: &Snapshot, record: &Record, take_leader: bool) -> Proposal {
    plain(s, next(s, record), take_leader)
}

/// A node takes on what an operator asked of it, and raises the record's seq by it: nothing that was decided before is
/// applied after.
pub(crate) fn take_on(s: &Snapshot, record: &Record, outcome: Outcome, command_index: u64) -> Proposal {
    Proposal { result: Some(outcome), consume: Some(command_index), ..renew(s, record, false) }
}

fn plain(s: &Snapshot, record: Record, take_leader: bool) -> Proposal {
    let take_leader = match (&s.view.session, take_leader) {
        (Some(session), true) if s.view.leader.as_ref() != Some(session) => {
            Some(TakeLeader { from: s.view.leader.clone(), to: session.clone() })
        }
        _ => None,
    };
    Proposal { record, index: s.view.index, take_leader, policy: None, history: None, result: None, consume: None }
}

fn next(s: &Snapshot, record: &Record) -> Record {
    Record { seq: record.seq + 1, nonce: s.fresh.nonce.clone(), writer: writer(s), ..record.clone() }
}

fn writer(s: &Snapshot) -> Writer {
    Writer { node: s.me.id.clone(), boot: s.me.boot.clone() }
}

fn master(s: &Snapshot, status: &Status) -> Master {
    Master {
        id: s.me.id.clone(),
        address: s.me.database.host.clone(),
        port: s.me.database.port,
        incarnation: status.incarnation.clone(),
    }
}
