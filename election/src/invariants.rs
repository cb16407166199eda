//! What must never happen, one function each, named as in ARCHITECTURE.md. Run before every action of an agent, in
//! every test, and at every step of the simulation. They repeat nothing of `decide`: they say what it must not do.

use crate::certificate;
use crate::decision::{Action, EngineOp, Proposal};
use crate::documents::{CommandOp, Phase, Record};
use crate::policy::WithoutReplica;
use crate::snapshot::{Peer, Snapshot, Writing};
use crate::status::Status;

/// An action that breaks an invariant. The agent does not perform it, says so, and goes on deciding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {number} broken by `{action}`: {what}")]
pub struct Violation {
    /// Its number in ARCHITECTURE.md.
    pub number: u8,
    /// The action.
    pub action: String,
    /// What is wrong.
    pub what: &'static str,
}

type Check = fn(&Snapshot, &Action) -> Result<(), (u8, &'static str)>;

/// Every invariant that one agent can check by itself.
pub const CHECKS: [Check; 11] = [
    named_copies_are_kept,
    record_changes_on_the_index_that_was_read,
    only_named_copies_become_master,
    sealed_before_taking_over,
    unknown_outcomes_loosen_nothing,
    open_only_in_own_active_epoch,
    certified_only_when_complete,
    released_only_after_the_record,
    disks_keep_their_promise,
    nothing_older_than_the_memory,
    no_role_change_without_consul,
];

/// A copy that the record names is thrown away by nobody.
pub fn named_copies_are_kept(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Action::Engine(EngineOp::Reset) = action else { return Ok(()) };
    let before = |r: &Record| r.previous.as_ref().and_then(|p| p.master.as_ref()).is_some_and(|m| m.id == s.me.id);
    let spare = s
        .record()
        .is_some_and(|r| !r.is_master(&s.me.id) && !r.is_replica(&s.me.id) && (r.phase == Phase::Active || !before(r)));
    ensure(spare, 13, "throwing away a copy that the record names")
}

/// Runs them all.
///
/// # Errors
/// The first that is broken.
pub fn check(s: &Snapshot, action: &Action) -> Result<(), Violation> {
    for check in CHECKS {
        check(s, action).map_err(|(number, what)| Violation { number, action: action.name().to_owned(), what })?;
    }
    Ok(())
}

fn proposal(action: &Action) -> Option<&Proposal> {
    match action {
        Action::Submit(proposal) => Some(proposal),
        _ => None,
    }
}

fn ensure(holds: bool, number: u8, what: &'static str) -> Result<(), (u8, &'static str)> {
    if holds { Ok(()) } else { Err((number, what)) }
}

/// Invariant 1.
pub fn record_changes_on_the_index_that_was_read(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Some(p) = proposal(action) else {
        return Ok(());
    };
    ensure(p.index == s.view.index, 1, "decided on another index than the one that was read")?;
    let Some(old) = s.record() else {
        return ensure(p.index == 0, 1, "a first record needs index 0");
    };
    ensure(p.record.epoch >= old.epoch && p.record.epoch <= old.epoch + 1, 1, "the epoch falls or jumps")?;
    ensure(p.record.seq == old.seq + 1, 1, "seq does not grow by one")?;
    ensure(p.record.nonce != old.nonce, 1, "the nonce is not fresh: Consul would not give the write an index")?;
    ensure(p.record.uid == old.uid, 1, "the group's uid changes")
}

/// Invariant 3.
pub fn only_named_copies_become_master(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    if let Action::Engine(EngineOp::Promote) = action {
        let named = s.record().is_some_and(|r| {
            let run = s.status().map(|st| &st.incarnation);
            matches!(r.phase, Phase::Promoting | Phase::Bootstrapping)
                && r.is_master(&s.me.id)
                && r.master.as_ref().map(|m| &m.incarnation) == run
        });
        return ensure(named, 3, "promoting a run that the record does not name");
    }
    let Some(p) = proposal(action) else {
        return Ok(());
    };
    let Some(old) = s.record() else {
        let may = s.me.adopt || s.status().is_some_and(|st| st.empty);
        return ensure(may, 3, "a group is created from data nobody asked to adopt");
    };
    if p.record.epoch == old.epoch {
        return ensure(p.record.master == old.master, 3, "the master changes within an epoch");
    }
    ensure(p.record.is_master(&s.me.id), 3, "an agent makes another node master")?;
    let named = old.is_master(&s.me.id)
        || holds_certificate(s, old)
        || takes_back(s, old)
        || both_restarted(s, old)
        || forced(s, p);
    ensure(named, 3, "a copy that is not certified becomes master")
}

/// An operator names this node and accepts the loss; the request is consumed by it and the loss is recorded.
fn forced(s: &Snapshot, p: &Proposal) -> bool {
    let asked =
        s.view.command.as_ref().filter(|(c, _)| c.op == CommandOp::Failover && c.target.as_ref() == Some(&s.me.id));
    let recorded = p.record.previous.as_ref().is_some_and(|before| before.data_loss.is_some());
    recorded && asked.is_some_and(|(_, index)| p.consume == Some(*index))
}

/// The previous master, in the run it was then, while nothing has been acknowledged since.
fn takes_back(s: &Snapshot, record: &Record) -> bool {
    let before = record.previous.as_ref().and_then(|p| p.master.as_ref());
    let same_run =
        before.is_some_and(|m| m.id == s.me.id && s.status().is_some_and(|st| st.incarnation == m.incarnation));
    record.phase == Phase::Promoting && same_run
}

/// One of the two that held every write, after the other's run has ended too, or with all of them on its own disk.
fn both_restarted(s: &Snapshot, record: &Record) -> bool {
    let lost = |id, run| s.peers.get(id).is_some_and(|p: &Peer| p.beat.engine.has_lost(run));
    let Some(master) = &record.master else { return false };
    let before = record.previous.as_ref().and_then(|p| p.master.as_ref());
    let second = match record.phase {
        Phase::Promoting => before.is_some_and(|m| m.id == s.me.id),
        _ => record.is_replica(&s.me.id),
    };
    let on_disk = match record.phase {
        Phase::Promoting => record.previous.as_ref().is_some_and(|p| p.fsync),
        _ => record.replica.as_ref().is_some_and(|r| r.certificate.fsync),
    };
    second && (on_disk || lost(&master.id, &master.incarnation))
}

fn holds_certificate(s: &Snapshot, record: &Record) -> bool {
    let (Some(replica), Some(status)) = (&record.replica, s.status()) else {
        return false;
    };
    replica.id == s.me.id && certificate::check(record, replica, status).is_ok()
}

/// Invariant 4, first half.
pub fn sealed_before_taking_over(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let taking = proposal(action).is_some_and(|p| s.record().is_none_or(|old| p.record.epoch > old.epoch));
    let sealed = s.status().is_some_and(|st| st.is_sealed());
    ensure(!taking || sealed, 4, "a takeover by an instance that still receives")
}

/// Invariant 4, second half: while a write may still be applied, only the write that settles it is allowed.
pub fn unknown_outcomes_loosen_nothing(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let open = matches!(s.writing, Writing::Unknown { index } if s.view.index <= index);
    if !open {
        return Ok(());
    }
    let harmless = match action {
        Action::Wait | Action::Read | Action::Remember(_) => true,
        Action::Engine(op) => matches!(op, EngineOp::Start | EngineOp::Kill),
        Action::Submit(p) => s.record().is_none_or(|old| {
            p.record.epoch == old.epoch && p.record.replica == old.replica && p.record.phase == old.phase
        }),
        Action::Answer { .. } | Action::Nominate { .. } | Action::Abandon => false,
    };
    ensure(harmless, 4, "acting while the outcome of a write is unknown")
}

/// Invariant 5.
pub fn open_only_in_own_active_epoch(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Action::Engine(EngineOp::Open) = action else {
        return Ok(());
    };
    let open = s.record().zip(s.status()).is_some_and(|(r, st)| {
        r.phase == Phase::Active
            && r.master.as_ref().is_some_and(|m| m.id == s.me.id && m.incarnation == st.incarnation)
            && st.is_master()
    });
    ensure(open, 5, "opening an instance that is not master of an active epoch")
}

/// Invariants 6 and 8: named only when whole, alone on the channel, waited for, and the marker read back.
pub fn certified_only_when_complete(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Some(p) = proposal(action) else {
        return Ok(());
    };
    let Some(replica) = &p.record.replica else {
        return Ok(());
    };
    // What a certificate that is there already says of the disks is another matter, with a check of its own.
    let known = s.record().and_then(|old| old.replica.as_ref()).is_some_and(|old| {
        let mut old = old.clone();
        old.certificate.fsync = replica.certificate.fsync;
        old == *replica
    });
    if known {
        return Ok(());
    }
    let (Some(mine), Some(peer)) = (s.status(), s.peers.get(&replica.id)) else {
        return Err((8, "certifying a copy that is not heard"));
    };
    ensure(mine.guard && (mine.need || !s.policy.is_sync()), 8, "certifying a copy that nothing waits for")?;
    let alone = mine.replicas.len() == 1 && mine.replicas[0].address == peer.beat.database;
    ensure(alone, 8, "certifying a copy that is not alone on the channel")?;
    let Some(theirs) = peer.status() else {
        return Err((6, "certifying a copy that does not answer"));
    };
    let read_back =
        theirs.marker.as_ref().is_some_and(|m| m.nonce == replica.certificate.nonce && m.uid == p.record.uid);
    ensure(read_back, 8, "certifying a copy whose marker was not read back")?;
    ensure(theirs.persisted, 6, "certifying a copy whose disk would bring an older data set back")?;
    let holds = certificate::check(&p.record, replica, theirs).is_ok();
    ensure(holds, 6, "certifying a copy that does not meet its own certificate")
}

/// Invariant 8: nothing stops waiting for a copy that the record names, and the disk is ready before it is dropped.
pub fn released_only_after_the_record(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Some(record) = s.record() else {
        return Ok(());
    };
    if !s.policy.is_sync() {
        return Ok(()); // `async` promises nothing that a setting could release.
    }
    let waits = record.replica.is_some() || s.policy.without_replica == WithoutReplica::Block;
    // A promoted instance is closed until `align` has run, and nobody is attached who could acknowledge its marker.
    let opened = record.phase == Phase::Active || record.phase == Phase::Switching;
    match action {
        Action::Engine(EngineOp::Guard(false) | EngineOp::Need(false)) => ensure(
            !(waits && opened && record.is_master(&s.me.id)),
            8,
            "releasing writers while the record names a hot replica",
        ),
        Action::Engine(EngineOp::Channel { exclusive: true, .. }) => {
            ensure(record.replica.is_none(), 8, "giving out a certificate's password before the drop is confirmed")
        }
        Action::Engine(EngineOp::Fsync(false)) => {
            let others = record.replica.is_some() || !record.is_master(&s.me.id);
            ensure(others, 8, "trusting one disk that does not hold every write")
        }
        // Not when the record says so already: settling a write must be possible after the database has ended.
        Action::Submit(p)
            if p.record.replica.is_none()
                && p.record.phase == Phase::Active
                && (record.replica.is_some() || record.phase != Phase::Active) =>
        {
            let opens = matches!(record.phase, Phase::Promoting | Phase::Bootstrapping);
            let holds = |st: &Status| st.fsync && (st.persisted || record.is_proven() || !opens);
            ensure(s.status().is_some_and(holds), 8, "no hot replica, and the disk does not hold every write")
        }
        _ => Ok(()),
    }
}

/// Invariant 6 for `fsync`: a certificate speaks for a disk only when both have said so under the record that asks for
/// it, and no disk stops while the record does.
pub fn disks_keep_their_promise(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let Some(record) = s.record() else { return Ok(()) };
    if let Action::Engine(EngineOp::Fsync(false)) = action {
        return ensure(!record.fsync, 6, "a disk may lag although the record says that none does");
    }
    let Some(p) = proposal(action) else { return Ok(()) };
    let promises = |r: &Record| r.replica.as_ref().filter(|r| r.certificate.fsync).map(|r| r.certificate.nonce.clone());
    let Some(promised) = promises(&p.record) else { return Ok(()) };
    ensure(p.record.fsync, 6, "a certificate speaks for disks that nobody asks to keep up")?;
    if promises(record) == Some(promised) {
        return Ok(());
    }
    let peer = p.record.replica.as_ref().and_then(|r| s.peers.get(&r.id));
    let theirs = peer.and_then(Peer::status).is_some_and(|st| st.fsync && st.persisted);
    let heard = peer.is_some_and(|peer| peer.beat.stamp == record.stamp());
    let mine = s.status().is_some_and(|st| st.fsync && st.persisted);
    ensure(record.fsync && mine && theirs && heard, 6, "a certificate speaks for a disk that has not said so")
}

/// Invariant 10.
pub fn nothing_older_than_the_memory(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    if matches!(action, Action::Wait | Action::Read | Action::Engine(EngineOp::Start | EngineOp::Kill)) {
        return Ok(());
    }
    let Some(record) = s.record() else {
        return ensure(s.memory.uid.is_none(), 10, "acting without the record that this node remembers");
    };
    ensure(record.stamp() >= s.memory.stamp, 10, "acting on a record older than the one this node remembers")?;
    let known = matches!(action, Action::Remember(_)) || record.stamp() == s.memory.stamp;
    ensure(known, 10, "acting on a record that is not on this node's disk yet")
}

/// Invariant 11.
pub fn no_role_change_without_consul(s: &Snapshot, action: &Action) -> Result<(), (u8, &'static str)> {
    let changes = matches!(action, Action::Submit(_) | Action::Engine(EngineOp::Seal));
    ensure(!changes || s.view.reachable, 11, "changing a role while Consul does not answer")
}
