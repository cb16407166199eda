//! Paused: an operator has the group in hand. Whatever would change a role by itself is not done, and said.

use crate::decision::{Action, Decision, Reason};
use crate::documents::{Phase, Record};
use crate::snapshot::Snapshot;

/// Lets through what a pause does not stop: what an operator asked for, what was begun, what only keeps promises
/// (fencing a deposed master, following, and in `continue` letting go of a lost hot replica, or writes would stop).
pub(super) fn hold(s: &Snapshot, record: &Record, decision: Decision) -> Decision {
    if !s.policy.paused {
        return decision;
    }
    let changes = match &decision.action {
        Action::Submit(p) if p.record.epoch > record.epoch => !asked_for(record),
        // A takeover seals before it submits: what is not submitted is not sealed for either.
        _ => is_takeover(&decision.reason) && !asked_for(record) || matches!(decision.action, Action::Nominate { .. }),
    };
    if !changes {
        return decision;
    }
    Decision::wait(Reason::Paused { instead: decision.reason.to_string() })
}

fn asked_for(record: &Record) -> bool {
    record.phase == Phase::Switching && record.switchover.is_some()
}

fn is_takeover(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Rereading { .. } | Reason::Sealing { .. } | Reason::TakingOver { .. } | Reason::GuardClosing { .. }
    )
}
