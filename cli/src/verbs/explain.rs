//! `understudy explain`: may a node be promoted, and if not, by which rule.

use crate::args::GroupArgs;
use crate::ask::{self, Answers};
use crate::exit::Failure;
use crate::out::{Paint, print, print_json};
use crate::store::{Group, Store};
use election::explain::{RuleLine, explain};
use election::{Member, NodeId, Phase, Record, Role};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

#[derive(Serialize)]
struct Page {
    group: String,
    epoch: u64,
    phase: Phase,
    /// An operator has the group in hand: nobody is promoted before `resume`.
    paused: bool,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    id: NodeId,
    role: Role,
    promotable: bool,
    rules: Vec<RuleLine>,
    /// What its agent is doing.
    reason: String,
}

/// Says it for every node of a group.
pub(crate) async fn run(store: &Store, options: &GroupArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    let Some((record, _)) = &group.view.record else {
        return Err(no_record(&group));
    };
    let members: Vec<Member> = group.view.members.values().cloned().collect();
    let answers = ask::agents(&ask::client(), &options.group, &members).await;
    let page = Page {
        group: options.group.clone(),
        epoch: record.epoch,
        phase: record.phase,
        paused: group.view.policy.as_ref().is_some_and(|(policy, _)| policy.paused),
        nodes: ids(&group, record).into_iter().map(|id| node(record, id, &answers)).collect(),
    };
    if options.json { print_json(&page) } else { print(&text(&page, Paint::for_stdout())) }
}

fn no_record(group: &Group) -> Failure {
    match &group.view.record_fault {
        Some(fault) => Failure::new(fault.clone()),
        None => Failure::new(format!(
            "{} has no record yet: none of its nodes has begun it, so there is nobody to promote",
            group.name
        )),
    }
}

fn ids(group: &Group, record: &Record) -> BTreeSet<NodeId> {
    let named = record.master.iter().map(|master| &master.id).chain(record.replica.iter().map(|r| &r.id));
    named.chain(group.view.members.keys()).cloned().collect()
}

fn node(record: &Record, id: NodeId, answers: &Answers) -> Node {
    let answer = answers.get(&id);
    let instance = answer.and_then(|answer| answer.as_ref().ok());
    let verdict = explain(record, &id, instance.map(|instance| &instance.database));
    let reason = match answer {
        Some(Ok(instance)) => instance.reason.clone(),
        Some(Err(why)) => why.clone(),
        None => "its agent has no session in Consul".to_owned(),
    };
    Node { role: record.role_of(&id), promotable: verdict.promotable, rules: verdict.rules, reason, id }
}

fn text(page: &Page, paint: Paint) -> String {
    let mut text = format!("{}  epoch {}\n", paint.bold(&page.group), page.epoch);
    if page.paused {
        let resume = format!("understudy resume {}", page.group);
        let _ = writeln!(text, "{}: nobody takes over by itself before `{resume}`", paint.yellow("paused"));
    }
    for node in &page.nodes {
        let verdict = match (node.role, node.promotable) {
            (Role::Master, true) => paint.green("is the master"),
            (_, true) => paint.green("may be promoted"),
            (_, false) => paint.red("may not be promoted"),
        };
        let _ =
            writeln!(text, "\n{} ({}) {verdict}: {}", paint.bold(node.id.as_str()), node.role.as_str(), node.reason);
        for rule in &node.rules {
            let mark = if rule.ok { paint.green("yes") } else { paint.red("no ") };
            let _ = writeln!(text, "  {mark}  {}: {}", rule.rule, rule.detail);
        }
    }
    text
}
