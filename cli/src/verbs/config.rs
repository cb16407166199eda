//! `understudy config`: shows and changes a group's policy. Agents and proxies take a change over at once.

use super::pause::changed_meanwhile;
use crate::args::{ConfigAction, ConfigArgs};
use crate::ask;
use crate::exit::Failure;
use crate::out::{print, print_json};
use crate::store::{Group, Put, Store};
use config::{Faults, parse_policy, parse_policy_settings, policy_text};
use election::{Member, Policy};
use serde::Serialize;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Present on every system that follows POSIX.
const LAST_EDITOR: &str = "vi";

#[derive(Serialize)]
struct Page<'a> {
    group: &'a str,
    policy: &'a Policy,
}

/// The policy that a group goes by.
pub(super) struct InForce {
    pub(super) policy: Policy,
    /// Its index in Consul, 0 when it is not there.
    pub(super) index: u64,
    /// What a person should know of where it comes from: a line, or nothing.
    pub(super) note: String,
}

/// Does what is asked for.
pub(crate) async fn run(store: &Store, options: &ConfigArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    let found = in_force(&group).await?;
    match options.action.as_ref().unwrap_or(&ConfigAction::Show { json: false }) {
        ConfigAction::Show { json: true } => print_json(&Page { group: &options.group, policy: &found.policy }),
        ConfigAction::Show { json: false } => show(&group, &found),
        ConfigAction::Set { settings } => set(store, &group, &found, settings).await,
        ConfigAction::Edit => edit(store, &group, &found).await,
    }
}

/// The policy in Consul; where Consul has none, what the agents go by.
pub(super) async fn in_force(group: &Group) -> Result<InForce, Failure> {
    if let Some((policy, index)) = &group.view.policy {
        return Ok(InForce { policy: policy.clone(), index: *index, note: String::new() });
    }
    let name = &group.name;
    if let Some(fault) = &group.policy_fault {
        return Err(Failure::new(format!(
            "{fault}; put it right in Consul, or delete that key: the agents go on by the policy they last saw"
        )));
    }
    if group.view.record_index == 0 {
        return Err(Failure::new(format!(
            "{name} has neither record nor policy in Consul: it has not begun, or both are lost"
        )));
    }
    let members: Vec<Member> = group.view.members.values().cloned().collect();
    let answers = ask::agents(&ask::client(), name.as_str(), &members).await;
    let mut policies = answers.values().flatten().map(|instance| &instance.policy);
    let Some(policy) = policies.next() else {
        return Err(Failure::new(format!("{name} has no policy in Consul, and no agent answers that could tell it")));
    };
    if policies.any(|other| other != policy) {
        return Err(Failure::new(format!(
            "{name} has no policy in Consul, and its agents go by different ones: restart them with the same [group.{name}]"
        )));
    }
    let note = "Consul has lost the policy; this is what the agents go by\n".to_owned();
    Ok(InForce { policy: policy.clone(), index: 0, note })
}

fn show(group: &Group, found: &InForce) -> Result<(), Failure> {
    let name = &group.name;
    let note = if found.note.is_empty() { String::new() } else { format!("# {}", found.note) };
    let paused =
        if found.policy.paused { format!("# paused, until `understudy resume {name}`\n") } else { String::new() };
    print(&format!("[group.{name}]\n{note}{paused}{}", policy_text(&found.policy)))
}

async fn set(store: &Store, group: &Group, found: &InForce, settings: &[(String, String)]) -> Result<(), Failure> {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let wanted =
        parse_policy_settings(group.name.as_str(), &settings, &found.policy).map_err(|f| faulty(group, &f, ""))?;
    write(store, group, found, &wanted).await
}

async fn edit(store: &Store, group: &Group, found: &InForce) -> Result<(), Failure> {
    let name = &group.name;
    let head = format!(
        "# The policy of {name}, as a file's [group.{name}] writes it. What is left out stays as it is.\n\
         # It is in force as soon as you save it and leave the editor.\n"
    );
    let file = tempfile::Builder::new().prefix(&format!("{name}-")).suffix(".toml").tempfile();
    let file = file.map_err(|error| Failure::of(&error))?;
    fs::write(file.path(), head + &policy_text(&found.policy)).map_err(|error| Failure::of(&error))?;
    open_editor(file.path())?;
    let text = fs::read_to_string(file.path()).map_err(|error| Failure::of(&error))?;
    let result = match parse_policy(&file.path().display().to_string(), &text, &found.policy) {
        Ok(wanted) => write(store, group, found, &wanted).await,
        Err(faults) => Err(faulty(group, &faults, "; your text is kept")),
    };
    if result.is_err() {
        let (_, path) = file.keep().map_err(|error| Failure::of(&error))?;
        tracing::warn!(path = %path.display(), "nothing was written; your text is kept");
    }
    result
}

/// Editors are set with their options, as in `code --wait`: the shell takes them apart.
fn open_editor(file: &Path) -> Result<(), Failure> {
    let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| LAST_EDITOR.to_owned());
    let script = format!("{editor} \"$1\"");
    let ended = Command::new("sh").args(["-c", &script, "sh"]).arg(file).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("the editor `{editor}` ended with {status}; nothing was written"))),
        Err(error) => Err(Failure::new(format!("the editor `{editor}` cannot be started: {error}"))),
    }
}

async fn write(store: &Store, group: &Group, found: &InForce, wanted: &Policy) -> Result<(), Failure> {
    let name = &group.name;
    let lost = found.index == 0;
    if *wanted == found.policy && !lost {
        return print(&format!("the policy of {name} is so already; nothing was written\n"));
    }
    match store.put_policy(name, wanted, found.index).await? {
        Put::Taken => Err(changed_meanwhile(group)),
        Put::Done => {
            let changed = changes(&found.policy, wanted);
            print(&format!("{}{changed}the policy of {name} is in force\n", found.note))
        }
    }
}

/// A line for each setting that changed.
fn changes(before: &Policy, after: &Policy) -> String {
    let (before, after) = (policy_text(before), policy_text(after));
    let pairs = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    pairs
        .map(|(before, after)| {
            let was = before.split_once(" = ").map_or(before, |(_, value)| value);
            format!("{after}  (was {was})\n")
        })
        .collect()
}

/// Faults stand on lines of their own, as those of a file do.
fn faulty(group: &Group, faults: &Faults, kept: &str) -> Failure {
    Failure::config(format!("the policy of {} stays as it is{kept}\n{faults}", group.name))
}
