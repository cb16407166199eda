//! What an operator asks of one node: to drain it, or to clone its copy anew. The node itself acts, and remembers what
//! it has taken on.

use super::{engine, submit, switchover};
use crate::decision::{Action, Decision, EngineOp, Reason};
use crate::documents::{Command, CommandOp, Outcome, Phase, Record, Role};
use crate::proposals;
use crate::snapshot::{Duty, Snapshot};
use crate::status::Engine;

pub(super) fn decide(s: &Snapshot, record: &Record) -> Option<Decision> {
    match s.duty {
        Some(Duty::Drain { until }) => drain(s, record, s.now >= until),
        Some(Duty::Reinit) if spare(s, record).is_ok() => Some(engine(EngineOp::Reset, Reason::Reinitialising)),
        _ => take_on(s, record),
    }
}

/// A request that names this node: taken on, or refused.
fn take_on(s: &Snapshot, record: &Record) -> Option<Decision> {
    let (command, index) = s.view.command.as_ref()?;
    if command.target.as_ref() != Some(&s.me.id) {
        return None;
    }
    let (allowed, what) = match command.op {
        CommandOp::Switchover | CommandOp::Failover => return None,
        CommandOp::Drain => (Ok(()), "drain: it hands over, stops its databases and leaves"),
        CommandOp::Reinit => (spare(s, record), "its copy is thrown away and cloned anew"),
    };
    let expired = command.expires_at <= s.wall;
    let allowed = if expired { Err("the request has expired".to_owned()) } else { allowed };
    Some(match (allowed, command.op) {
        (Err(why), _) => switchover::refuse(command, *index, record, why),
        (Ok(()), CommandOp::Reinit) => reinit(s, record, accepted(command, record, what), *index, what),
        (Ok(()), _) => accept(accepted(command, record, what), *index, what),
    })
}

/// The copy may be on its way to be certified. A run that has ended cannot be, and a certification of it that is under
/// way was decided on an older index than the record has once this node has raised it.
fn reinit(s: &Snapshot, record: &Record, outcome: Outcome, index: u64, what: &str) -> Decision {
    let reason = Reason::TakingOn { what: what.to_owned() };
    match &s.engine {
        Engine::Down { .. } => submit(s, proposals::take_on(s, record, outcome, index), reason),
        Engine::Unknown => Decision::wait(Reason::EngineUnknown),
        _ if !s.view.reachable || s.view.session.is_none() => Decision::wait(Reason::ConsulAway),
        _ => engine(EngineOp::Kill, reason),
    }
}

fn accepted(command: &Command, record: &Record, what: &str) -> Outcome {
    let message = format!("node {} has taken it on: {what}", command.target.as_ref().map_or("", |t| t.as_str()));
    Outcome { id: command.id.clone(), done: true, epoch: record.epoch, message }
}

fn accept(outcome: Outcome, command_index: u64, what: &str) -> Decision {
    Decision::new(Action::Answer { outcome, command_index }, Reason::TakingOn { what: what.to_owned() })
}

/// A copy may be thrown away when nobody may need it: it is a spare's, and roles are settled.
fn spare(s: &Snapshot, record: &Record) -> Result<(), String> {
    let role = record.role_of(&s.me.id);
    if role != Role::Spare {
        return Err(format!("node {} is {}: switch over, or let another be certified first", s.me.id, role.as_str()));
    }
    if record.phase != Phase::Active {
        return Err("roles are changing at this moment".to_owned());
    }
    Ok(())
}

/// A master with a hot replica hands over (its agent asks for the switchover); one that is alone is given until the
/// limit to find somebody. Everybody else stops at once.
fn drain(s: &Snapshot, record: &Record, late: bool) -> Option<Decision> {
    match &s.engine {
        Engine::Down { .. } => return Some(Decision::wait(Reason::Drained)),
        Engine::Unknown | Engine::Foreign { .. } => return None,
        Engine::Silent { .. } | Engine::Up(_) => {}
    }
    // Until the next master is open, this one may have to take the group back.
    let before = record.previous.as_ref().and_then(|previous| previous.master.as_ref());
    let handing_over = record.phase == Phase::Promoting && before.is_some_and(|master| master.id == s.me.id);
    if (record.is_master(&s.me.id) || handing_over) && !late {
        return None;
    }
    Some(engine(EngineOp::Stop, Reason::DrainStopping))
}
