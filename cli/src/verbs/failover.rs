//! `understudy failover`: an operator names the node that goes on although nothing proves its copy complete. What is
//! known of the loss is shown first, from what every agent says of its data.

use super::request::{self, Answered, Wish};
use crate::args::FailoverArgs;
use crate::ask::{self, Answers};
use crate::exit::Failure;
use crate::out::{Paint, lines, print, print_json, table};
use crate::store::{Group, Store};
use election::{
    CommandOp, Durability, Engine, Lineage, Marker, Member, NodeId, Outcome, Phase, Position, Record, Role, Status,
    certificate,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Serialize)]
struct Page {
    group: String,
    epoch: u64,
    phase: Phase,
    target: NodeId,
    nodes: Vec<Node>,
    /// What became of it; null when it was not asked for.
    outcome: Option<Outcome>,
    /// What the history says of the loss, once it was done.
    data_loss: Option<String>,
}

/// What is known of one node's data.
#[derive(Serialize)]
struct Node {
    id: NodeId,
    role: Role,
    marker: Option<Marker>,
    position: Option<Position>,
    lineage: Option<Lineage>,
    /// What that says, a sentence.
    finding: String,
}

/// Shows what is at stake, and with the flag does it.
pub(crate) async fn run(store: &Store, options: &FailoverArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    let target = NodeId::from(options.to.as_str());
    let members: Vec<Member> = group.view.members.values().cloned().collect();
    let answers = ask::agents(&ask::client(), &options.group, &members).await;
    let record = check(&group, &target, &answers)?;
    let mut page = Page {
        group: options.group.clone(),
        epoch: record.epoch,
        phase: record.phase,
        target: target.clone(),
        nodes: nodes(&group, record, &answers),
        outcome: None,
        data_loss: None,
    };
    if !options.json {
        print(&text(&page, Paint::for_stdout()))?;
    }
    if !options.accept_data_loss {
        if options.json {
            print_json(&page)?;
        }
        return Err(Failure::new(format!(
            "nothing was done: with {target} as master, writes that were acknowledged may be lost for ever; start the \
             nodes that are missing if that is possible, else say it again with --accept-data-loss"
        )));
    }
    let limit = Duration::from_secs(options.timeout);
    let wish = Wish { op: CommandOp::Failover, target: target.clone(), epoch: record.epoch, limit, grace: None };
    let Answered { outcome, asked_at } = request::ask(store, &group, wish).await?;
    let took = asked_at.elapsed().as_millis();
    if !outcome.done {
        return Err(Failure::new(format!("the failover of {} was refused: {}", group.name, outcome.message)));
    }
    let story = store.history(&group.name).await?.into_iter().find(|story| story.epoch == outcome.epoch);
    page.data_loss = story.and_then(|story| story.data_loss);
    if options.json {
        page.outcome = Some(outcome);
        return print_json(&page);
    }
    let paint = Paint::for_stdout();
    let (name, epoch, master) = (&group.name, outcome.epoch, paint.green(target.as_str()));
    let loss = page.data_loss.as_deref().unwrap_or("the history has no entry of it");
    print(&format!("\n{master} is master of {name} in epoch {epoch}, {took} ms after the request\n{loss}\n"))
}

/// The record, or why a forced failover makes no sense.
fn check<'g>(group: &'g Group, target: &NodeId, answers: &Answers) -> Result<&'g Record, Failure> {
    let name = &group.name;
    let Some((record, _)) = &group.view.record else {
        let why = group.view.record_fault.clone().unwrap_or_else(|| format!("{name} has no record in Consul"));
        return Err(Failure::new(format!("{why}; `understudy resume {name} --restore-record` may bring it back")));
    };
    let master = record.master.as_ref().map(|master| &master.id);
    if let Some(master) = master.filter(|id| answers.get(id).is_some_and(|a| a.as_ref().is_ok_and(|i| i.healthy))) {
        return Err(Failure::new(format!(
            "{master} is master of {name} and lives: `understudy switchover {name} --to {target}` loses nothing"
        )));
    }
    let why = match answers.get(target) {
        Some(Ok(instance)) => match &instance.database {
            Engine::Foreign { why } => why.clone(),
            _ => return Ok(record),
        },
        Some(Err(why)) => why.clone(),
        None => format!("{name} has no living node of that name"),
    };
    Err(Failure::new(format!("{target} cannot be the target: {why}")))
}

fn nodes(group: &Group, record: &Record, answers: &Answers) -> Vec<Node> {
    let mut ids: BTreeSet<NodeId> = group.view.members.keys().cloned().collect();
    ids.extend(record.master.as_ref().map(|master| master.id.clone()));
    ids.extend(record.replica.as_ref().map(|replica| replica.id.clone()));
    let data = |id: &NodeId| answers.get(id)?.as_ref().ok()?.database.status();
    let newest = ids.iter().filter_map(|id| Some((marker_of(record, data(id)?)?, id))).max_by_key(|(m, _)| age(m));
    let durability = group.view.policy.as_ref().map(|(policy, _)| policy.durability).unwrap_or_default();
    ids.iter()
        .map(|id| {
            let finding = match (answers.get(id), data(id)) {
                (None, _) => "its agent has no session in Consul: nobody knows what it holds".to_owned(),
                (Some(Err(why)), _) => format!("{why}: nobody knows what it holds"),
                (Some(Ok(instance)), None) => format!("its database does not answer ({})", instance.reason),
                (Some(Ok(_)), Some(status)) => finding(record, durability, id, status, newest),
            };
            Node {
                id: id.clone(),
                role: record.role_of(id),
                marker: data(id).and_then(|status| status.marker.clone()),
                position: data(id).map(|status| status.position),
                lineage: data(id).map(|status| status.lineage.clone()),
                finding,
            }
        })
        .collect()
}

/// The group's own marker in a copy.
fn marker_of<'s>(record: &Record, status: &'s Status) -> Option<&'s Marker> {
    status.marker.as_ref().filter(|marker| marker.uid == record.uid)
}

/// The counter is raised once a second, in every epoch.
fn age(marker: &Marker) -> (u64, u64) {
    (marker.epoch, marker.counter)
}

/// What a copy's marker, run and history say of it.
fn finding(
    record: &Record,
    durability: Durability,
    id: &NodeId,
    status: &Status,
    newest: Option<(&Marker, &NodeId)>,
) -> String {
    if status.loading {
        return "it is loading its data".to_owned();
    }
    if record.master.as_ref().is_some_and(|m| m.id == *id && m.incarnation == status.incarnation) {
        return "it is the run that the record names master: it holds every write".to_owned();
    }
    if record.replica.as_ref().is_some_and(|r| r.id == *id && certificate::check(record, r, status).is_ok()) {
        return match durability {
            Durability::Sync => "its certificate holds: it has every acknowledged write",
            Durability::Async => "its certificate holds: in an async group it may lack the last writes",
        }
        .to_owned();
    }
    let (Some(marker), Some((best, holder))) = (marker_of(record, status), newest) else {
        return "no marker of this group: it is empty, or holds other data".to_owned();
    };
    if marker.epoch < best.epoch {
        return format!("it is of epoch {}, older than that of {holder} ({})", marker.epoch, best.epoch);
    }
    let behind = best.counter.saturating_sub(marker.counter);
    let among = if behind == 0 {
        "the newest of the copies that answer".to_owned()
    } else {
        format!("about {behind} s behind {holder}, the newest that answers")
    };
    let epoch = if marker.epoch < record.active_epoch {
        format!("; it is of epoch {}, the group was last active in {}", marker.epoch, record.active_epoch)
    } else {
        String::new()
    };
    format!("{among}{epoch}")
}

fn text(page: &Page, paint: Paint) -> String {
    let mut rows = table(&["NODE", "ROLE", "MARKER", "POSITION", "HISTORY", "WHAT IS KNOWN OF ITS DATA"]);
    for node in &page.nodes {
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        rows.add_row([
            node.id.to_string(),
            node.role.as_str().to_owned(),
            known(node.marker.as_ref().map(|marker| format!("epoch {}, {} s", marker.epoch, marker.counter))),
            known(node.position.map(|position| position.to_string())),
            // Enough to tell two histories apart by eye.
            known(node.lineage.as_ref().map(|lineage| lineage.as_str().chars().take(8).collect())),
            node.finding.clone(),
        ]);
    }
    format!("{}  epoch {}\n{}", paint.bold(&page.group), page.epoch, lines(rows))
}
