//! Whether a node may be promoted, rule by rule, without doing anything: what `understudy explain` prints.

use crate::certificate::{self, Flaw};
use crate::documents::{Record, Role};
use crate::ids::NodeId;
use crate::status::{Engine, Status};
use serde::Serialize;

/// The answer for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Every rule holds.
    pub promotable: bool,
    /// The rules, in the order they are checked.
    pub rules: Vec<RuleLine>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleLine {
    /// What is asked.
    pub rule: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// Says whether `node` may be promoted under `record`, given what its agent says of its database (`None`: the agent
/// does not answer).
pub fn explain(record: &Record, node: &NodeId, engine: Option<&Engine>) -> Verdict {
    let mut rules = vec![named(record, node), answers(engine)];
    if let Some(status) = engine.and_then(Engine::status) {
        match record.role_of(node) {
            Role::Master => rules.push(same_run(record, status)),
            Role::Replica => rules.extend(certified(record, status)),
            Role::Spare => {}
        }
    }
    Verdict { promotable: rules.iter().all(|line| line.ok), rules }
}

fn line(rule: &'static str, ok: bool, detail: impl Into<String>) -> RuleLine {
    RuleLine { rule, ok, detail: detail.into() }
}

fn named(record: &Record, node: &NodeId) -> RuleLine {
    let rule = "the record names it master or hot replica";
    match record.role_of(node) {
        Role::Master => line(rule, true, format!("it is the master of epoch {}", record.epoch)),
        Role::Replica => line(rule, true, "it is the certified hot replica"),
        Role::Spare => line(rule, false, "it is a spare: nothing proves that its copy is complete"),
    }
}

fn answers(engine: Option<&Engine>) -> RuleLine {
    let rule = "its database answers";
    match engine {
        None => line(rule, false, "its agent does not answer"),
        Some(Engine::Up(_)) => line(rule, true, "it does"),
        Some(Engine::Down { why }) => line(rule, false, format!("it is down ({why})")),
        Some(Engine::Silent { .. }) => line(rule, false, "it gives no answer"),
        Some(Engine::Foreign { why }) => line(rule, false, why.clone()),
        Some(Engine::Unknown) => line(rule, false, "its agent has not asked it yet"),
    }
}

fn same_run(record: &Record, status: &Status) -> RuleLine {
    let rule = "it is the run that was promoted";
    let named = record.master.as_ref().map(|m| &m.incarnation);
    let ok = named == Some(&status.incarnation);
    line(rule, ok, if ok { "it is" } else { "its database was restarted since" })
}

/// The certificate's rules, as far as they were checked: the first that fails ends the list.
fn certified(record: &Record, status: &Status) -> Vec<RuleLine> {
    let Some(replica) = &record.replica else {
        return Vec::new();
    };
    let rules = [
        "same run as certified",
        "its data set is whole",
        "same history as certified",
        "not behind its certificate",
        "its marker is the certificate's",
    ];
    let failed = certificate::check(record, replica, status).err();
    let at = failed.as_ref().map_or(rules.len(), |flaw| match flaw {
        Flaw::Restarted { .. } => 0,
        Flaw::NotWhole => 1,
        Flaw::OtherLineage { .. } => 2,
        Flaw::Behind { .. } => 3,
        Flaw::OtherMarker => 4,
    });
    let held = rules.iter().take(at).map(|rule| line(rule, true, "it is"));
    let broken = failed.map(|flaw| line(rules[at], false, flaw.to_string()));
    held.chain(broken).collect()
}
