//! `understudy switchover`: asks the agents of a group to make another node master, and waits for what becomes of it.

use crate::args::SwitchoverArgs;
use crate::ask::{self, Answers};
use crate::exit::Failure;
use crate::out::{Paint, print};
use crate::store::{Group, Store};
use crate::verbs::request::{self, Answered, Wish};
use election::{CommandOp, Member, NodeId, Phase, Record};
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The group.
    pub group: String,
    /// The node that is to be master; the hot replica when not said.
    pub to: Option<String>,
    /// How long the request stands.
    pub limit: Duration,
    /// How long running transactions may go on before they are ended; `None`: a moment.
    pub grace: Option<Duration>,
}

/// A switchover that was done.
#[derive(Debug, Clone)]
pub struct Done {
    /// The node that is master now.
    pub master: NodeId,
    /// Its epoch.
    pub epoch: u64,
    /// The instant before the request was put down.
    pub asked_at: Instant,
    /// From then until the result was read.
    pub took: Duration,
}

/// Asks, and prints what became of it.
pub(crate) async fn run(store: &Store, options: &SwitchoverArgs) -> Result<(), Failure> {
    let limit = Duration::from_secs(options.timeout);
    let request = Request { group: options.group.clone(), to: options.to.clone(), limit, grace: options.grace };
    let done = ask(store, &request).await?;
    let paint = Paint::for_stdout();
    let master = paint.green(done.master.as_str());
    let (group, epoch, took) = (&request.group, done.epoch, done.took.as_millis());
    print(&format!("{master} is master of {group} in epoch {epoch}, {took} ms after the request\n"))
}

/// Checks that the request makes sense, puts it down and waits for what becomes of it. A request that nobody took in
/// time is taken back.
pub async fn ask(store: &Store, request: &Request) -> Result<Done, Failure> {
    let group = store.group(&request.group).await?;
    let members: Vec<Member> = group.view.members.values().cloned().collect();
    let answers = ask::agents(&ask::client(), &request.group, &members).await;
    let (target, epoch) = check(&group, request.to.as_deref(), &answers)?;
    let wish =
        Wish { op: CommandOp::Switchover, target: target.clone(), epoch, limit: request.limit, grace: request.grace };
    let Answered { outcome, asked_at } = request::ask(store, &group, wish).await?;
    let took = asked_at.elapsed();
    if !outcome.done {
        return Err(Failure::new(format!("the switchover of {} was refused: {}", group.name, outcome.message)));
    }
    Ok(Done { master: target, epoch: outcome.epoch, asked_at, took })
}

/// The target and the epoch to expect, or why the request makes no sense.
fn check(group: &Group, to: Option<&str>, answers: &Answers) -> Result<(NodeId, u64), Failure> {
    let name = &group.name;
    let Some((record, _)) = &group.view.record else {
        let why = group.view.record_fault.clone();
        return Err(Failure::new(why.unwrap_or_else(|| format!("{name} has no master yet, so nothing to switch"))));
    };
    if record.phase != Phase::Active {
        return Err(Failure::new(match record.phase {
            Phase::Halted => format!("{name} is halted: `understudy explain {name}` says what it waits for"),
            Phase::Quarantine => format!("{name} is in quarantine: its record cannot be trusted"),
            _ => format!("{name} is just changing its master (epoch {}); try again when it is active", record.epoch),
        }));
    }
    let target = match (to, &record.replica) {
        (Some(to), _) => NodeId::from(to),
        (None, Some(replica)) => replica.id.clone(),
        (None, None) => return Err(Failure::new(format!("{name} has no hot replica, so nobody could take over"))),
    };
    match hindrance(group, record, &target, answers) {
        None => Ok((target, record.epoch)),
        Some(why) => {
            Err(Failure::new(format!("{target} cannot be the target: {why}; {}", who_can(group, record, answers))))
        }
    }
}

/// Why a node cannot be made master by a switchover, if so.
fn hindrance(group: &Group, record: &Record, target: &NodeId, answers: &Answers) -> Option<String> {
    if record.is_master(target) {
        return Some(format!("it is the master of {} already", group.name));
    }
    let Some(member) = group.view.members.get(target) else {
        let known = record.is_replica(target) || group.history.iter().any(|story| &story.master == target);
        let gone = "its agent has no session in Consul".to_owned();
        return Some(if known { gone } else { format!("{} has no node of that name", group.name) });
    };
    if member.priority == 0 {
        return Some("its priority is 0, so it is never master".to_owned());
    }
    match answers.get(target) {
        Some(Ok(instance)) if instance.healthy => None,
        Some(Ok(instance)) => Some(format!("it is not healthy ({})", instance.reason)),
        Some(Err(why)) => Some(why.clone()),
        None => Some("its agent was not asked".to_owned()),
    }
}

fn who_can(group: &Group, record: &Record, answers: &Answers) -> String {
    let able: Vec<&str> = group
        .view
        .members
        .keys()
        .filter(|id| hindrance(group, record, id, answers).is_none())
        .map(NodeId::as_str)
        .collect();
    if able.is_empty() { "no other node can either".to_owned() } else { format!("these can: {}", able.join(", ")) }
}
