//! No record: a new group, or one whose record was lost.

use super::submit;
use crate::decision::{Decision, Reason};
use crate::proposals;
use crate::snapshot::Snapshot;

/// Nodes without an identity race to create the record at index 0; Consul lets one of them win.
pub(super) fn decide(s: &Snapshot) -> Decision {
    if let Some(vanished) = vanished(s) {
        return vanished;
    }
    let Some(status) = s.status() else {
        return Decision::wait(Reason::EngineUnknown);
    };
    if status.loading {
        return Decision::wait(Reason::Loading);
    }
    if s.me.priority == 0 {
        return Decision::wait(Reason::NotEligible);
    }
    if let Some(node) = s.view.members.values().find(|m| m.adopt && m.id != s.me.id) {
        return Decision::wait(Reason::WaitingForAdoption { node: node.id.clone() });
    }
    if !status.empty && !s.me.adopt {
        return Decision::wait(Reason::NotEmpty);
    }
    submit(s, proposals::bootstrap(s, status), Reason::Bootstrapping)
}

/// A node with an identity belongs to a group that there was.
pub(super) fn vanished(s: &Snapshot) -> Option<Decision> {
    let node = s.view.members.values().find(|m| m.uid.is_some())?;
    Some(Decision::wait(Reason::RecordVanished { node: node.id.clone() }))
}
