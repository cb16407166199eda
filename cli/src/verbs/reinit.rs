//! `understudy reinit`: has a node's copy cloned anew, or forgets a node that will not return.

use super::request::{self, Answered, Wish, author, now};
use super::status::known;
use crate::args::ReinitArgs;
use crate::ask;
use crate::exit::Failure;
use crate::out::print;
use crate::store::{Group, Store};
use agent::api::InstanceStatus;
use consul::Forgotten;
use election::{CommandOp, Incarnation, Member, NodeId, Role};
use std::time::{Duration, Instant};

/// An agent answers within milliseconds whether it takes a request on.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A clone takes seconds at the least.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Does what is asked for.
pub(crate) async fn run(store: &Store, options: &ReinitArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    let node = NodeId::from(options.node.as_str());
    if options.forget {
        return forget(store, &group, &node).await;
    }
    let Some((record, _)) = &group.view.record else {
        let why = group.view.record_fault.clone();
        return Err(Failure::new(
            why.unwrap_or_else(|| format!("{} has no record: nothing can be cloned", group.name)),
        ));
    };
    let before =
        look(&group, &node).await.map_err(|why| Failure::new(format!("{node} cannot be cloned anew: {why}")))?;
    let wish =
        Wish { op: CommandOp::Reinit, target: node.clone(), epoch: record.epoch, limit: TAKEN_WITHIN, grace: None };
    let Answered { outcome, asked_at } = request::ask(store, &group, wish).await?;
    if !outcome.done {
        return Err(Failure::new(format!("{node} is not cloned anew: {}", outcome.message)));
    }
    let limit = Duration::from_secs(options.timeout);
    let after = wait(&group, &node, run_of(&before), asked_at + limit).await?;
    let role = after.role.map_or("spare", Role::as_str);
    let (name, seconds) = (&group.name, asked_at.elapsed().as_secs_f64());
    print(&format!("{node} has a new copy of {name} and is a healthy {role} again, after {seconds:.1} s\n"))
}

async fn wait(
    group: &Group,
    node: &NodeId,
    before: Option<Incarnation>,
    deadline: Instant,
) -> Result<InstanceStatus, Failure> {
    loop {
        let doing = match look(group, node).await {
            Ok(status) if status.healthy && run_of(&status) != before => return Ok(status),
            Ok(status) => status.reason,
            Err(why) => why,
        };
        if Instant::now() > deadline {
            let name = &group.name;
            return Err(Failure::new(format!(
                "{node} has thrown its copy of {name} away and is not healthy yet ({doing}); it goes on, see `understudy status {name}`"
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the node's agent says, or why it says nothing.
async fn look(group: &Group, node: &NodeId) -> Result<InstanceStatus, String> {
    let Some(member) = group.view.members.get(node) else { return Err(absence(group, node)) };
    let members: [Member; 1] = [member.clone()];
    let mut answers = ask::agents(&ask::client(), group.name.as_str(), &members).await;
    answers.remove(node).unwrap_or_else(|| Err("its agent was not asked".to_owned()))
}

fn run_of(status: &InstanceStatus) -> Option<Incarnation> {
    status.database.status().map(|status| status.incarnation.clone())
}

fn absence(group: &Group, node: &NodeId) -> String {
    let record = group.view.record.as_ref().map(|(record, _)| record);
    let known = known(group, record).contains(node);
    let gone = || "its agent has no session in Consul".to_owned();
    if known { gone() } else { format!("{} has no node of that name", group.name) }
}

/// Whether a node may be called so; anything else would name other keys.
fn could_be_node(node: &NodeId) -> bool {
    let name = node.as_str();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Leaves word that a node will not return.
async fn forget(store: &Store, group: &Group, node: &NodeId) -> Result<(), Failure> {
    let name = &group.name;
    let refuse = |why: String| Err(Failure::new(format!("{node} is not forgotten: {why}")));
    if group.view.members.contains_key(node) {
        return refuse("it has a session in Consul, so it is there; drain it first".to_owned());
    }
    if !could_be_node(node) {
        return refuse(format!("{name} lists no node of that name"));
    }
    let record = group.view.record.as_ref().map(|(record, _)| record);
    match record.map(|record| record.role_of(node)) {
        Some(Role::Master) => {
            return refuse(format!("the record of {name} names it master; another has to be that first"));
        }
        Some(Role::Replica) => return refuse(format!("the record of {name} names it hot replica")),
        Some(Role::Spare) | None => {}
    }
    let known = known(group, record).contains(node);
    if record.is_some() && !known {
        return refuse(format!("{name} lists no node of that name"));
    }
    let told = group.history.last().map_or(0, |story| story.epoch);
    let epoch = record.map_or(0, |record| record.epoch).max(told);
    store.forget_node(name, &Forgotten { node: node.clone(), epoch, by: author(), at: now() }).await?;
    print(&format!("{node} is no longer listed in {name}; should it return, it is shown again\n"))
}
