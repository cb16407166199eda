//! `understudy status`: groups, nodes and their state.

use crate::args::StatusArgs;
use crate::ask::{self, Answers};
use crate::exit::{Exit, Failure};
use crate::out::{Paint, lines, print, print_json, table};
use crate::page::{GroupStatus, MasterStatus, MemberStatus, Page, ReplicaStatus};
use crate::store::{Group, Store};
use agent::api::InstanceStatus;
use election::{Copying, Member, NodeId, Phase, Record, Role};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

/// The pace of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

/// Top left, and everything below gone.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it once, or every second.
pub(crate) async fn run(store: &Store, options: &StatusArgs) -> Result<(), Failure> {
    show(store, options).await?;
    if !options.watch {
        return Ok(());
    }
    tokio::select! {
        failure = watch(store, options) => Err(failure),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Goes on when Consul is away for a while: whoever watches wants to see it come back.
async fn watch(store: &Store, options: &StatusArgs) -> Failure {
    loop {
        tokio::time::sleep(AGAIN).await;
        match show(store, options).await {
            Err(failure) if failure.exit == Exit::NoConsul => tracing::warn!("{failure}"),
            Err(failure) => return failure,
            Ok(()) => {}
        }
    }
}

/// The status of one group, or of all.
pub async fn collect(store: &Store, group: Option<&str>) -> Result<Page, Failure> {
    let http = ask::client();
    let names = match group {
        Some(name) => vec![name.to_owned()],
        None => store.groups().await?.into_iter().map(|name| name.0).collect(),
    };
    let mut groups = Vec::new();
    for name in names {
        let found = store.group(&name).await?;
        let members: Vec<Member> = found.view.members.values().cloned().collect();
        let answers = ask::agents(&http, &name, &members).await;
        groups.push(group_status(&found, &answers));
    }
    Ok(Page { groups })
}

async fn show(store: &Store, options: &StatusArgs) -> Result<(), Failure> {
    let page = collect(store, options.group.as_deref()).await?;
    if options.json {
        return print_json(&page);
    }
    let paint = Paint::for_stdout();
    let text = if page.groups.is_empty() { "there are no groups\n".to_owned() } else { text(&page, paint) };
    if options.watch { print(&format!("{CLEAR}{text}")) } else { print(&text) }
}

/// The page for people.
pub(crate) fn text(page: &Page, paint: Paint) -> String {
    let groups: Vec<String> = page.groups.iter().map(|group| group_text(group, paint)).collect();
    groups.join("\n")
}

fn group_text(group: &GroupStatus, paint: Paint) -> String {
    let phase = group.phase.map_or_else(|| "no record yet".to_owned(), word);
    let shown = if group.phase == Some(Phase::Active) { paint.green(&phase) } else { paint.yellow(&phase) };
    let mut text = format!("{}  epoch {}  {shown}  {}", paint.bold(&group.group), group.epoch, word(group.durability));
    text.push_str(if group.paused { "  paused\n" } else { "\n" });
    let mut rows = table(&["NODE", "ROLE", "STATE", "ADDRESS", "POSITION", "LAG", "ZONE", "ENGINE", "DOING"]);
    for member in &group.members {
        rows.add_row(row(member, group));
    }
    text.push_str(&lines(rows));
    for warning in &group.warnings {
        let _ = writeln!(text, "{} {warning}", paint.yellow("!"));
    }
    text
}

fn row(member: &MemberStatus, group: &GroupStatus) -> [String; 9] {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let address = member.address.as_ref().zip(member.port).map(|(host, port)| format!("{host}:{port}"));
    let engine = member.engine.as_ref().map(|engine| {
        let version = member.version.as_deref().unwrap_or_default();
        format!("{engine} {version}").trim_end().to_owned()
    });
    let role = match member.role {
        Role::Replica if group.hot_replica() == Some(member.id.as_str()) => "hot replica",
        role => role.as_str(),
    };
    [
        member.id.to_string(),
        role.to_owned(),
        if member.healthy { "healthy" } else { "ILL" }.to_owned(),
        known(address),
        known(position(member)),
        known(lag(member)),
        known(member.zone.clone()),
        known(engine),
        doing(member),
    ]
}

/// In the engine's own terms, and in bytes where those are another number.
fn position(member: &MemberStatus) -> Option<String> {
    let number = member.position.map(|position| position.to_string());
    match (&member.place, number) {
        (Some(place), Some(bytes)) if *place != bytes && !counts_transactions(member) => {
            Some(format!("{place} ({bytes})"))
        }
        (Some(place), _) => Some(place.clone()),
        (None, number) => number,
    }
}

/// Whether its positions are numbers of transactions, and not of bytes.
fn counts_transactions(member: &MemberStatus) -> bool {
    member.engine.as_deref() == Some(config::Engine::Mariadb.as_str())
}

/// In bytes; of an engine that numbers transactions, in those, and in bytes where they are known.
fn lag(member: &MemberStatus) -> Option<String> {
    let bytes = member.behind_bytes.or(member.lag_bytes);
    match (member.behind_transactions, member.behind_bytes) {
        (None, _) => bytes.map(|bytes| bytes.to_string()),
        (Some(count), None) => Some(format!("{count} tx")),
        (Some(count), Some(bytes)) => Some(format!("{count} tx, {bytes}")),
    }
}

fn doing(member: &MemberStatus) -> String {
    let Some(Copying { bytes, of }) = member.copying else { return member.reason.clone() };
    match of {
        Some(of) => format!("{}; copied {bytes} of about {of} bytes", member.reason),
        None => format!("{}; copied {bytes} bytes", member.reason),
    }
}

/// An enum's word in JSON.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn group_status(group: &Group, answers: &Answers) -> GroupStatus {
    let record = group.view.record.as_ref().map(|(record, _)| record);
    GroupStatus {
        group: group.name.to_string(),
        epoch: record.map_or(0, |record| record.epoch),
        phase: phase(record, answers),
        durability: group.view.policy.as_ref().map(|(policy, _)| policy.durability).unwrap_or_default(),
        paused: group.view.policy.as_ref().is_some_and(|(policy, _)| policy.paused),
        master: record.and_then(|record| record.master.as_ref()).map(|master| MasterStatus {
            id: master.id.clone(),
            address: master.address.clone(),
            port: master.port,
        }),
        replica: record
            .and_then(|record| record.replica.as_ref())
            .map(|replica| ReplicaStatus { id: replica.id.clone(), complete: replica.complete }),
        members: members(group, record, answers),
        warnings: warnings(group, answers),
    }
}

/// The record's phase, or what the agents make of it: a record that cannot be trusted, or a group that nobody may be
/// master of, has no phase of its own in Consul, since nobody writes there then.
fn phase(record: Option<&Record>, answers: &Answers) -> Option<Phase> {
    let said = |standing| answers.values().flatten().any(|instance| instance.standing == Some(standing));
    let open = answers.values().flatten().any(|a| a.role == Some(Role::Master) && a.healthy);
    if said(Phase::Quarantine) {
        return Some(Phase::Quarantine);
    }
    if said(Phase::Halted) && !open {
        return Some(Phase::Halted);
    }
    record.map(|record| record.phase)
}

fn members(group: &Group, record: Option<&Record>, answers: &Answers) -> Vec<MemberStatus> {
    let living = group.view.members.values().map(|member| living(member, record, answers));
    let gone = known(group, record).into_iter().filter(|id| !group.view.members.contains_key(id));
    let gone = gone.filter(|id| !is_forgotten(group, record, id)).map(|id| departed(group, id, record));
    let mut members: Vec<MemberStatus> = living.chain(gone).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    members
}

/// A node whose agent has a session.
fn living(member: &Member, record: Option<&Record>, answers: &Answers) -> MemberStatus {
    let answer = answers.get(&member.id);
    let instance = answer.and_then(|answer| answer.as_ref().ok());
    let silence = || match answer {
        Some(Err(why)) => why.clone(),
        _ => "its agent was not asked".to_owned(),
    };
    let version = instance.map_or(&member.version, |instance| &instance.version);
    MemberStatus {
        id: member.id.clone(),
        role: record.map_or(member.role, |record| record.role_of(&member.id)),
        engine: Some(member.engine.clone()),
        version: Some(version.clone()).filter(|version| !version.is_empty()),
        zone: member.zone.clone(),
        address: Some(member.address.clone()),
        port: Some(member.port),
        position: instance.and_then(|instance| instance.position),
        lag_bytes: instance.and_then(|instance| instance.lag_bytes),
        place: instance.and_then(|instance| instance.place.clone()),
        behind_bytes: instance.and_then(|instance| instance.behind_bytes),
        behind_transactions: instance.and_then(|instance| instance.behind_transactions),
        copying: instance.and_then(|instance| instance.copying),
        healthy: instance.is_some_and(|instance| instance.healthy),
        reason: instance.map_or_else(silence, |instance| instance.reason.clone()),
    }
}

/// A node without a session, in the role last recorded, as it was when it left.
fn departed(group: &Group, id: NodeId, record: Option<&Record>) -> MemberStatus {
    let master = record.and_then(|record| record.master.as_ref()).filter(|master| master.id == id);
    let last = group.nodes.iter().find(|member| member.id == id);
    MemberStatus {
        role: record.map_or(Role::Spare, |record| record.role_of(&id)),
        engine: last.map(|member| member.engine.clone()),
        version: last.map(|member| member.version.clone()).filter(|version| !version.is_empty()),
        zone: last.and_then(|member| member.zone.clone()),
        address: master.map(|master| &master.address).or(last.map(|member| &member.address)).cloned(),
        port: master.map(|master| master.port).or(last.map(|member| member.port)),
        position: None,
        lag_bytes: None,
        place: None,
        behind_bytes: None,
        behind_transactions: None,
        copying: None,
        healthy: false,
        reason: "its agent has no session in Consul".to_owned(),
        id,
    }
}

/// An operator has said that the node will not return, and nothing tells that it did.
fn is_forgotten(group: &Group, record: Option<&Record>, id: &NodeId) -> bool {
    let Some(word) = group.forgotten.iter().find(|word| word.node == *id) else { return false };
    if group.nodes.iter().any(|member| member.id == *id) {
        return false; // It was struck off then, and has been back since.
    }
    let named = record.is_some_and(|record| record.role_of(id) != Role::Spare);
    !named && !group.history.iter().any(|story| story.epoch > word.epoch && story.master == *id)
}

/// The nodes that belong to the group, and those that the record and the stories name.
pub(crate) fn known(group: &Group, record: Option<&Record>) -> BTreeSet<NodeId> {
    let mut nodes: BTreeSet<NodeId> = group.nodes.iter().map(|member| member.id.clone()).collect();
    if let Some(record) = record {
        nodes.extend(record.master.as_ref().map(|master| master.id.clone()));
        nodes.extend(record.replica.as_ref().map(|replica| replica.id.clone()));
        let before = record.previous.as_ref().and_then(|previous| previous.master.as_ref());
        nodes.extend(before.map(|master| master.id.clone()));
    }
    for story in &group.history {
        nodes.insert(story.master.clone());
        nodes.extend(story.previous.clone());
    }
    nodes
}

fn warnings(group: &Group, answers: &Answers) -> Vec<String> {
    let said: BTreeSet<String> = answers.values().flatten().flat_map(caveats).collect();
    let cut_off = answers.iter().filter(|(_, answer)| answer.as_ref().is_ok_and(|a| !a.consul_reachable));
    let cut_off = cut_off.map(|(id, _)| format!("the agent of {id} does not reach Consul: it changes no roles"));
    group.view.record_fault.iter().chain(&group.view.faults).cloned().chain(cut_off).chain(said).collect()
}

fn caveats(instance: &InstanceStatus) -> impl Iterator<Item = String> {
    instance.caveats.iter().cloned()
}
