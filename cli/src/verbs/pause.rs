//! `understudy pause`: an operator takes a group into his hands, and gives it back.

use super::config::{InForce, in_force};
use crate::exit::Failure;
use crate::out::print;
use crate::store::{Group, Put, Store};
use election::Policy;

/// Pauses a group.
pub(crate) async fn run(store: &Store, group: &str) -> Result<(), Failure> {
    let group = store.group(group).await?;
    let name = &group.name;
    let done = format!(
        "{name} is paused: no takeover, no new hot replica, no database started or killed, until `understudy resume \
         {name}`\n"
    );
    set(store, &group, true, &done, &format!("{name} is paused already\n")).await
}

/// Writes whether a group is paused, and says so.
pub(super) async fn set(store: &Store, group: &Group, paused: bool, done: &str, already: &str) -> Result<(), Failure> {
    let InForce { policy, index, note } = in_force(group).await?;
    if policy.paused == paused {
        return print(already);
    }
    match store.put_policy(&group.name, &Policy { paused, ..policy }, index).await? {
        Put::Done => print(&format!("{note}{done}")),
        Put::Taken => Err(changed_meanwhile(group)),
    }
}

/// Somebody else was faster.
pub(super) fn changed_meanwhile(group: &Group) -> Failure {
    let name = &group.name;
    Failure::new(format!("somebody else has just changed the policy of {name}; nothing was written, try again"))
}
