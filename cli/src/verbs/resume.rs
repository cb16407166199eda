//! `understudy resume`: ends a pause, or restores the record of a group in quarantine.

use super::{pause, restore};
use crate::args::ResumeArgs;
use crate::exit::Failure;
use crate::store::Store;

/// Does what is asked for.
pub(crate) async fn run(store: &Store, options: &ResumeArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    if options.restore_record {
        return restore::run(store, &group).await;
    }
    let name = &group.name;
    let done = format!("{name} goes on by itself again\n");
    pause::set(store, &group, false, &done, &format!("{name} is not paused\n")).await
}
