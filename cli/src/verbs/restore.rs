//! `understudy resume --restore-record`: puts back the record that Consul has lost, when the nodes that it concerns all
//! remember the very same one. Where they still run what it names, it begins an epoch of its own; else it is put back as
//! it was, and the agents go by the rules for a database that was restarted.

use super::request::{author, now};
use crate::ask::{self, Answers};
use crate::exit::Failure;
use crate::out::print;
use crate::store::{Group, Put, Store};
use agent::api::InstanceStatus;
use election::decision::Proposal;
use election::documents::{RECORD_VERSION, Writer};
use election::{HistoryEntry, Identity, Incarnation, Member, NodeId, Nonce, Phase, Policy, Previous, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The record reaches the agents within milliseconds; what they then do to their databases takes tens of them.
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// Each look asks every agent.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The writer's name in a record that no agent wrote.
const WRITER: &str = "cli";

/// What each node remembers, by its own word.
type Remembered<'a> = BTreeMap<&'a NodeId, &'a Record>;

/// Restores it, or says what is missing.
pub(crate) async fn run(store: &Store, group: &Group) -> Result<(), Failure> {
    let name = &group.name;
    let refuse = |why: String| Failure::new(format!("the record of {name} is not restored: {why}"));
    let answers = everyone(group).await;
    let (newest, holders) = newest(group, &answers).map_err(refuse)?;
    compare(group, newest).map_err(refuse)?;
    let ended = ended(newest, &answers);
    let (proposal, note) = proposal(group, newest, &answers, &holders, ended.is_empty()).map_err(refuse)?;
    let note = ended.iter().fold(note, |note, one| note + one + ": the agents decide who holds every write\n");
    let stamp = proposal.record.stamp();
    if store.propose(name, &proposal).await? == Put::Taken {
        return Err(refuse("somebody else has just written one; look with `understudy status` first".to_owned()));
    }
    let master = newest.master.as_ref().map_or("nobody", |master| master.id.as_str());
    let replica = newest.replica.as_ref().map_or("nobody", |replica| replica.id.as_str());
    print(&format!(
        "{note}the record of {name} is restored as {stamp}: {master} is master, {replica} hot replica, in epoch {}\n",
        stamp.epoch
    ))?;
    if proposal.record.phase == Phase::Active && ended.is_empty() { wait(store, group).await } else { Ok(()) }
}

async fn everyone(group: &Group) -> Answers {
    let members: Vec<Member> = group.view.members.values().cloned().collect();
    ask::agents(&ask::client(), group.name.as_str(), &members).await
}

/// The newest record that any node remembers. A node that does not answer may remember a newer one, so all have to:
/// those in Consul, and those that the others' records name.
fn newest<'a>(group: &Group, answers: &'a Answers) -> Result<(&'a Record, Vec<&'a NodeId>), String> {
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    let mut remembered = Remembered::new();
    for (id, answer) in answers {
        match answer {
            Err(why) => drop(missing.insert(id.to_string(), why.clone())),
            Ok(instance) => remembered.extend(instance.remembered.as_ref().map(|record| (id, record))),
        }
    }
    for id in remembered.values().flat_map(|record| named(record)) {
        let forgotten = group.forgotten.iter().any(|word| word.node == *id);
        if !group.view.members.contains_key(id) && !forgotten {
            let why = format!(
                "it has no session in Consul: start its agent, or say `understudy reinit {} {id} --forget` if it will \
                 not return",
                group.name
            );
            missing.insert(id.to_string(), why);
        }
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().map(|(id, why)| format!("{id} ({why})")).collect();
        return Err(format!("every node has to say what it remembers; missing: {}", missing.join(", ")));
    }
    let Some(newest) = remembered.values().copied().max_by_key(|record| record.stamp()) else {
        return Err("no node remembers one".to_owned());
    };
    if let Some((id, other)) = remembered.iter().find(|(_, record)| record.uid != newest.uid) {
        return Err(format!("{id} belongs to another group of that name (uid {}, not {})", other.uid, newest.uid));
    }
    let holders: Vec<&NodeId> = remembered.iter().filter(|(_, record)| **record == newest).map(|(id, _)| *id).collect();
    let concerned = [newest.master.as_ref().map(|m| &m.id), newest.replica.as_ref().map(|r| &r.id)];
    if let Some(id) = concerned.into_iter().flatten().find(|id| !holders.contains(id)) {
        return Err(format!(
            "the newest one remembered ({}) names {id}, which does not remember the same: nobody knows what came between",
            newest.stamp()
        ));
    }
    Ok((newest, holders))
}

/// The nodes that a record names.
fn named(record: &Record) -> BTreeSet<&NodeId> {
    let before = record.previous.as_ref().and_then(|previous| previous.master.as_ref()).map(|master| &master.id);
    let (master, replica) = (record.master.as_ref(), record.replica.as_ref());
    [master.map(|m| &m.id), replica.map(|r| &r.id), before].into_iter().flatten().collect()
}

/// Whether what stands in Consul may be replaced.
fn compare(group: &Group, newest: &Record) -> Result<(), String> {
    if let Some(form) = group.record_form.filter(|form| *form > RECORD_VERSION) {
        return Err(format!(
            "the one in Consul has form {form}, of a newer version of understudy: it is not lost, upgrade this node"
        ));
    }
    let Some((record, _)) = &group.view.record else { return Ok(()) };
    if record.uid != newest.uid {
        return Err(format!(
            "the one in Consul belongs to another group of that name (uid {}, the nodes remember {}): give one of them \
             another name or prefix",
            record.uid, newest.uid
        ));
    }
    if record.stamp() >= newest.stamp() {
        return Err(format!("the one in Consul ({}) is as new as what the nodes remember", record.stamp()));
    }
    Ok(())
}

/// The databases that do not run any more as the record names them, a sentence each.
fn ended(record: &Record, answers: &Answers) -> Vec<String> {
    let master = record.master.as_ref().map(|m| (&m.id, &m.incarnation, "master"));
    let replica = record.replica.as_ref().map(|r| (&r.id, &r.certificate.incarnation, "hot replica"));
    let named = [master, replica].into_iter().flatten();
    let ended = named.filter_map(|(id, run, role)| match running(answers, id) {
        Some(now) if now == run => None,
        Some(_) => Some(format!("the database of {id}, the {role}, was restarted since")),
        None => Some(format!("the database of {id}, the {role}, does not answer")),
    });
    ended.collect()
}

fn running<'a>(answers: &'a Answers, id: &NodeId) -> Option<&'a Incarnation> {
    let instance = answers.get(id)?.as_ref().ok()?;
    instance.database.status().map(|status| &status.incarnation)
}

/// The transaction that restores it, and what a person should know of it: a line, or nothing.
fn proposal(
    group: &Group,
    newest: &Record,
    answers: &Answers,
    holders: &[&NodeId],
    unbroken: bool,
) -> Result<(Proposal, String), String> {
    let reason = format!("record restored by {}", author());
    // The marker on a restarted database's disk is compared with the record's epoch, which therefore has to stay.
    let record = if unbroken { restored(newest, &reason) } else { renewed(newest) };
    let (policy, note) = lost_policy(group, newest, answers)?;
    let history = newest.master.as_ref().map(|master| HistoryEntry {
        epoch: record.epoch,
        master: master.id.clone(),
        previous: Some(master.id.clone()),
        reason,
        evidence: evidence(group, newest, holders),
        position: None,
        took_ms: 0,
        data_loss: None,
        at: now(),
        by: NodeId(author()),
    });
    // An epoch that was never opened gets its story when it is.
    let history = history.filter(|_| record.phase == Phase::Active && record.epoch > newest.epoch);
    let index = group.view.record_index;
    Ok((Proposal { record, index, take_leader: None, policy, history, result: None, consume: None }, note))
}

/// The same roles in an epoch of its own, so that nothing decided before can be mistaken for a later word. A switchover
/// that was under way is over.
fn restored(newest: &Record, reason: &str) -> Record {
    let epoch = newest.epoch + 1;
    let active = matches!(newest.phase, Phase::Active | Phase::Switching);
    let same = newest.master.as_ref().map(|m| Identity { id: m.id.clone(), incarnation: m.incarnation.clone() });
    let fresh = Previous {
        epoch: newest.epoch,
        master: same,
        position: None,
        reason: String::new(),
        fsync: false,
        data_loss: None,
    };
    // Whoever may take back an epoch that was not opened stands in `previous`.
    let previous = if active { fresh } else { newest.previous.clone().unwrap_or(fresh) };
    Record {
        epoch,
        seq: newest.seq + 1,
        nonce: Nonce(uuid::Uuid::new_v4().simple().to_string()),
        writer: Writer { node: NodeId::from(WRITER), boot: uuid::Uuid::new_v4().simple().to_string() },
        phase: if active { Phase::Active } else { newest.phase },
        previous: Some(Previous { reason: reason.to_owned(), ..previous }),
        switchover: newest.switchover.clone().filter(|_| !active),
        ..newest.clone()
    }
}

/// The same record, one write later.
fn renewed(newest: &Record) -> Record {
    Record {
        seq: newest.seq + 1,
        nonce: Nonce(uuid::Uuid::new_v4().simple().to_string()),
        writer: Writer { node: NodeId::from(WRITER), boot: uuid::Uuid::new_v4().simple().to_string() },
        ..newest.clone()
    }
}

/// The policy, when Consul has lost that too: what the agents go by, the master's word first.
fn lost_policy(group: &Group, newest: &Record, answers: &Answers) -> Result<(Option<Policy>, String), String> {
    if group.view.policy.is_some() {
        return Ok((None, String::new()));
    }
    let of = |id: &NodeId| answers.get(id).and_then(|answer| answer.as_ref().ok());
    let master: Option<&InstanceStatus> = newest.master.as_ref().and_then(|master| of(&master.id));
    let Some(told) = master.or_else(|| answers.values().flatten().next()) else {
        return Err("no agent tells the policy, which is lost too".to_owned());
    };
    let note =
        "Consul had lost the policy too: restored from what the master's agent goes by, see `understudy config`\n";
    Ok((Some(told.policy.clone()), note.to_owned()))
}

fn evidence(group: &Group, newest: &Record, holders: &[&NodeId]) -> Vec<String> {
    let found = match (&group.view.record, &group.view.record_fault) {
        (Some((record, _)), _) => format!("Consul had {}", record.stamp()),
        (None, Some(fault)) => fault.clone(),
        (None, None) => "Consul had none".to_owned(),
    };
    let holders: Vec<&str> = holders.iter().map(|id| id.as_str()).collect();
    vec![found, format!("{} remembered {}", holders.join(", "), newest.stamp())]
}

/// Waits until the agents have taken it over.
async fn wait(store: &Store, group: &Group) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVES_WITHIN;
    loop {
        let found = store.group(group.name.as_str()).await?;
        let answers = everyone(&found).await;
        let master = found.view.record.as_ref().and_then(|(record, _)| record.master.as_ref());
        let answer = master.and_then(|master| answers.get(&master.id));
        match answer {
            Some(Ok(instance)) if instance.healthy => return Ok(()),
            _ if Instant::now() <= deadline => tokio::time::sleep(LOOK_AGAIN).await,
            _ => {
                let name = &group.name;
                return Err(Failure::new(format!(
                    "the record is restored, but the master of {name} is not healthy yet; see `understudy explain {name}`"
                )));
            }
        }
    }
}
