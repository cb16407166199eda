//! Between the step's words and Consul's: views in, transactions out, and what the rest of the world sees of an
//! instance there (its member record, its service).

use crate::instance::role;
use crate::step::{Event, Step, Written};
use consul::{Consul, GroupView, answer_ops, proposal_ops};
use election::{Engine, GroupName, Member, Millis, Outcome, Proposal, Role, View};

/// The view of the watch, as an event.
pub(crate) fn watched(view: &GroupView) -> Event {
    if view.reachable { Event::Watched(Box::new(translate(view, None))) } else { Event::ConsulLost }
}

/// A consistent read that begins at `now`; nothing when Consul does not answer.
pub(crate) async fn read(consul: &Consul, group: &GroupName, now: Millis) -> Option<Box<View>> {
    match consul.read_group(group).await {
        Ok(view) => Some(Box::new(translate(&view, Some(now)))),
        Err(error) => {
            tracing::warn!(%group, "cannot read the group: {}", crate::error_chain(&error));
            None
        }
    }
}

/// Submits a transaction of the core.
pub(crate) async fn submit(consul: &Consul, group: &GroupName, proposal: &Proposal) -> Written {
    outcome(group, consul.transact(proposal_ops(consul.layout(), proposal)).await)
}

/// Answers an operator's request.
pub(crate) async fn answer(consul: &Consul, group: &GroupName, result: &Outcome, command_index: u64) -> Written {
    outcome(group, consul.transact(answer_ops(consul.layout(), group, result, command_index)).await)
}

fn outcome(group: &GroupName, written: Result<consul::Written, consul::Error>) -> Written {
    match written {
        Ok(consul::Written::Applied { index }) => Written::Applied { index },
        Ok(consul::Written::Refused { why }) => {
            tracing::info!(%group, "Consul refused a transaction: {why}");
            Written::Refused
        }
        Ok(consul::Written::Unknown { why }) => {
            tracing::warn!(%group, "nobody knows whether a transaction was applied: {why}");
            Written::Unknown
        }
        // An error means that it was certainly not applied.
        Err(error) => {
            tracing::warn!(%group, "a transaction did not reach Consul: {}", crate::error_chain(&error));
            Written::Refused
        }
    }
}

fn translate(view: &GroupView, read_at: Option<Millis>) -> View {
    View {
        seen: view.seen,
        reachable: view.reachable,
        record: view.record.as_ref().map(|(record, _)| record.clone()),
        fault: view.record_fault.clone(),
        index: view.record_index,
        leader: view.leader.clone(),
        session: None, // The session is this agent's own business, not the group's.
        members: view.members.clone(),
        policy: view.policy.as_ref().map(|(policy, _)| policy.clone()),
        command: view.command.clone(),
        read_at,
    }
}

/// The node's member record as it is now. Written on change, so nothing in it changes all the time.
pub(crate) fn member(step: &Step, agent: &str, engine: &'static str, databases: Option<u32>) -> Member {
    let me = step.me();
    let (version, incarnation) = match step.engine() {
        Engine::Up(status) => (status.version.clone(), Some(status.incarnation.clone())),
        _ => (String::new(), None),
    };
    Member {
        id: me.id.clone(),
        address: me.database.host.clone(),
        port: me.database.port,
        agent: agent.to_owned(),
        engine: engine.to_owned(),
        version,
        databases,
        zone: me.zone.clone(),
        role: role(step).unwrap_or(Role::Spare),
        incarnation,
        priority: me.priority,
        adopt: me.adopt && step.memory().uid.is_none(),
        uid: step.memory().uid.clone(),
        boot: me.boot.clone(),
    }
}
