//! `understudy drain`: has a node hand over, stop its databases and leave, and waits until it is gone.

use super::request::{self, Answered, Wish};
use crate::args::DrainArgs;
use crate::exit::Failure;
use crate::out::print;
use crate::store::{Group, Store};
use consul::service_id;
use election::{CommandOp, GroupName, NodeId, Phase};
use std::time::{Duration, Instant};

/// An agent answers within milliseconds whether it takes a request on.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Handing over and stopping take about a second.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Becoming master takes some tens of milliseconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Does it.
pub(crate) async fn run(store: &Store, options: &DrainArgs) -> Result<(), Failure> {
    let node = NodeId::from(options.node.as_str());
    let groups = groups_of(store, &node).await?;
    // Its agent drains the whole node, whichever group it was asked in; it answers where roles are settled.
    let asked = groups.iter().find_map(|group| Some((group, group.view.record.as_ref()?)));
    let Some((group, (record, _))) = asked else {
        let names = names(&groups);
        return Err(Failure::new(format!(
            "no group of {node} ({names}) has a record that can be read, so nobody could take over; to stop its \
             databases all the same, send its agent SIGINT"
        )));
    };
    let wish =
        Wish { op: CommandOp::Drain, target: node.clone(), epoch: record.epoch, limit: TAKEN_WITHIN, grace: None };
    let Answered { outcome, asked_at } = request::ask(store, group, wish).await?;
    if !outcome.done {
        return Err(Failure::new(format!("{node} is not drained: {}", outcome.message)));
    }
    let left = wait(store, &node, &groups, asked_at + Duration::from_secs(options.timeout)).await?;
    let mut text =
        format!("{node} is drained after {:.1} s: its databases are stopped\n", asked_at.elapsed().as_secs_f64());
    for group in &left {
        text.push_str(&format!("{}\n", who_is_master(group)));
    }
    print(&text)
}

/// The groups that the node is a living member of.
async fn groups_of(store: &Store, node: &NodeId) -> Result<Vec<Group>, Failure> {
    let (mut groups, mut living) = (Vec::new(), std::collections::BTreeSet::new());
    for name in store.groups().await? {
        let group = store.group(name.as_str()).await?;
        living.extend(group.view.members.keys().map(|id| id.to_string()));
        if group.view.members.contains_key(node) {
            groups.push(group);
        }
    }
    if !groups.is_empty() {
        return Ok(groups);
    }
    let living: Vec<String> = living.into_iter().collect();
    Err(Failure::new(match living.len() {
        0 => format!("no node of the name {node} has a session in Consul, nor has any other"),
        _ => format!("no node of the name {node} has a session in Consul; these have: {}", living.join(", ")),
    }))
}

/// Waits until Consul shows nothing of the node any more, and gives the groups as they are then.
async fn wait(store: &Store, node: &NodeId, groups: &[Group], deadline: Instant) -> Result<Vec<Group>, Failure> {
    loop {
        let Some(remains) = remains(store, node, groups).await? else { break };
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{node} is draining and not gone yet: {remains}; it goes on")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut left = Vec::new();
    for group in groups {
        left.push(settled(store, group).await?);
    }
    Ok(left)
}

/// The group, once no change of its master is under way; at the limit as it is.
async fn settled(store: &Store, group: &Group) -> Result<Group, Failure> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let found = store.group(group.name.as_str()).await?;
        let phase = found.view.record.as_ref().map(|(record, _)| record.phase);
        if !matches!(phase, Some(Phase::Promoting | Phase::Switching)) || Instant::now() > deadline {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What of the node is still in Consul, if anything is.
async fn remains(store: &Store, node: &NodeId, groups: &[Group]) -> Result<Option<String>, Failure> {
    for GroupName(name) in groups.iter().map(|group| &group.name) {
        let group = store.group(name).await?;
        if group.view.members.contains_key(node) {
            return Ok(Some(format!("it is a member of {name}")));
        }
        let id = service_id(&group.name, node);
        if store.service_ids(&group.name).await?.contains(&id) {
            return Ok(Some(format!("its service {id} is registered")));
        }
    }
    Ok(None)
}

fn who_is_master(group: &Group) -> String {
    let name = &group.name;
    let Some((record, _)) = &group.view.record else { return format!("{name} has no record that can be read") };
    match &record.master {
        Some(master) if record.phase == Phase::Active && group.view.members.contains_key(&master.id) => {
            format!("{} is master of {name} in epoch {}", master.id, record.epoch)
        }
        _ => format!("{name} has no master now: no node was there to take over"),
    }
}

fn names(groups: &[Group]) -> String {
    groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ")
}
