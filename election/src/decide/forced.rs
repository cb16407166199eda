//! `failover --accept-data-loss`: an operator names the node that goes on although nothing proves its copy complete.
//! The node that is named acts, since nobody else may be left.

use super::{engine, submit, switchover};
use crate::decision::{Decision, EngineOp, Reason};
use crate::documents::{CommandOp, Phase, Record};
use crate::proposals;
use crate::snapshot::Snapshot;
use crate::status::Status;

pub(super) fn decide(s: &Snapshot, record: &Record, status: &Status) -> Option<Decision> {
    let (command, index) = s.view.command.as_ref()?;
    if command.op != CommandOp::Failover || command.target.as_ref() != Some(&s.me.id) {
        return None;
    }
    let refuse = |why: String| Some(switchover::refuse(command, *index, record, why));
    if command.expires_at <= s.wall {
        return refuse("the request has expired".to_owned());
    }
    if command.expect_epoch != record.epoch {
        return refuse(format!(
            "it was made for epoch {}, the group is in epoch {}",
            command.expect_epoch, record.epoch
        ));
    }
    if let Some(why) = needless(s, record, status) {
        return refuse(why);
    }
    if status.loading {
        return Some(Decision::wait(Reason::Loading));
    }
    if !s.view.reachable || s.view.session.is_none() {
        return Some(Decision::wait(Reason::ConsulAway)); // Not sealed for what cannot be submitted (invariant 11).
    }
    if status.is_master() {
        return Some(engine(EngineOp::Fence, Reason::Forcing { step: "fencing this instance first".to_owned() }));
    }
    if !status.is_sealed() {
        return Some(engine(EngineOp::Seal, Reason::Forcing { step: "sealing this copy".to_owned() }));
    }
    let proposal = proposals::force(s, record, status, command, *index);
    Some(submit(s, proposal, Reason::Forcing { step: "taking over, with the loss recorded".to_owned() }))
}

/// Why no force is needed: somebody is master and lives.
fn needless(s: &Snapshot, record: &Record, status: &Status) -> Option<String> {
    let master = record.master.as_ref()?;
    if master.id == s.me.id {
        // A hand-over that is under way ends by itself; to fence the master in it would leave the group without one.
        let settled = matches!(record.phase, Phase::Active | Phase::Switching);
        let serves = status.is_master() && status.incarnation == master.incarnation && settled;
        return serves.then(|| format!("node {} is master already", master.id));
    }
    let theirs = s.live_peer(&master.id, s.policy.detect_after)?.status()?;
    // One that was forced and never gets its copy on its disk serves nobody, and another may be taken instead.
    let serves = theirs.is_master() && theirs.incarnation == master.incarnation && record.phase != Phase::Promoting;
    serves.then(|| format!("node {} is master and lives: use `understudy switchover`", master.id))
}
