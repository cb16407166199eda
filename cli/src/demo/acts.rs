//! The three acts: a fault each, under load, measured by the client.

use super::Stop;
use super::story::Story;
use crate::page::GroupStatus;
use crate::rig::{Rig, Writer};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Writes acknowledged before the fault, a second's worth: the fault strikes a client in full swing.
const WARM: usize = 200;

/// Writes acknowledged by the new master before the act is over.
const AFTER: usize = 200;

/// A takeover takes a second or two. Far more, so that a slow machine is shown as slow and not as failed.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(30);

/// A node that comes back waits up to 25 s for the end of the session that it had before.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// What a client noticed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Act {
    pub(super) fault: &'static str,
    /// Milliseconds.
    pub(super) outage_ms: f64,
    /// Writes acknowledged over the whole act.
    pub(super) acked: usize,
    /// Those of them that were not there at the end.
    pub(super) lost: usize,
}

/// The master's database dies.
pub(super) async fn kill(rig: &mut Rig, story: &Story, number: usize) -> Result<Act, Stop> {
    let database = story.database();
    story.act(number, &format!("the master's {database} is killed"))?;
    let (before, master) = cast(rig, story, number).await?;
    let mut writer = writing(rig, number).await?;
    let pid = rig.database_pid(&master)?;
    let at = rig.kill_database(&master)?;
    story.strike(&format!("SIGKILL to the {database} of {master}, process {pid}, in the middle of writing."))?;
    let after = taken_over(rig, &before).await?;
    story.taken_over(after.active_master().unwrap_or("nobody"), after.epoch)?;
    let act = measure(rig, "kill", &mut writer, at).await?;
    story.noticed(&act)?;
    story.say(&format!("The agent of {master} starts its {database} again; it becomes a spare."))?;
    Ok(act)
}

/// A whole node dies: its agent and its database.
pub(super) async fn node(rig: &mut Rig, story: &Story, number: usize) -> Result<Act, Stop> {
    story.act(number, "a whole node dies")?;
    let (before, master) = cast(rig, story, number).await?;
    let mut writer = writing(rig, number).await?;
    let at = rig.kill_node(&master)?;
    story.strike(&format!(
        "SIGKILL to the agent and the {} of {master}, as if its power had failed.",
        story.database()
    ))?;
    story.say("Nobody is left to say that it died: the others notice its silence.")?;
    let after = taken_over(rig, &before).await?;
    story.taken_over(after.active_master().unwrap_or("nobody"), after.epoch)?;
    let act = measure(rig, "node", &mut writer, at).await?;
    story.noticed(&act)?;
    rig.restart_agent(&master)?;
    story.say(&format!("The power of {master} is back: its agent starts, and waits for its old session to end."))?;
    Ok(act)
}

/// An operator asks for another master.
pub(super) async fn switchover(rig: &mut Rig, story: &Story, number: usize) -> Result<Act, Stop> {
    story.act(number, "a planned switchover")?;
    let (_, master) = cast(rig, story, number).await?;
    let mut writer = writing(rig, number).await?;
    story.strike(&format!("understudy switchover {}: {master} is to be serviced.", rig.group()))?;
    let done = rig.switchover(None).await?;
    story.taken_over(done.master.as_str(), done.epoch)?;
    let act = measure(rig, "switchover", &mut writer, done.asked_at).await?;
    story.noticed(&act)?;
    Ok(act)
}

/// Waits until the stage is set again, and says who plays whom.
async fn cast(rig: &Rig, story: &Story, number: usize) -> Result<(GroupStatus, String), Stop> {
    if number > 1 {
        story.waiting("Waiting until three nodes are well and the pause after a takeover is over …")?;
    }
    rig.wait_whole(WHOLE_WITHIN).await?;
    rig.wait_calm(WHOLE_WITHIN).await?;
    let status = rig.wait_whole(WHOLE_WITHIN).await?;
    story.cast(&status)?;
    let master = status.active_master().unwrap_or_default().to_owned();
    Ok((status, master))
}

async fn writing(rig: &Rig, number: usize) -> Result<Writer, Stop> {
    let started = Instant::now();
    let writer = rig.writer(&format!("act{number}"));
    writer.wait_for_acks(WARM, started, TAKEOVER_WITHIN).await?;
    Ok(writer)
}

async fn taken_over(rig: &Rig, before: &GroupStatus) -> Result<GroupStatus, Stop> {
    let (epoch, master) = (before.epoch, before.active_master());
    let changed =
        |now: &GroupStatus| now.epoch > epoch && now.active_master().is_some() && now.active_master() != master;
    Ok(rig.wait_until("another master", TAKEOVER_WITHIN, changed).await?)
}

/// The new master is known by now: what is acknowledged from here on, it has acknowledged.
async fn measure(rig: &Rig, fault: &'static str, writer: &mut Writer, at: Instant) -> Result<Act, Stop> {
    writer.wait_for_acks(AFTER, Instant::now(), TAKEOVER_WITHIN).await?;
    writer.stop();
    let gap = writer.longest_gap(at).unwrap_or_default();
    let lost = writer.missing(rig.proxy_addr()).await?.len();
    Ok(Act { fault, outage_ms: (gap.as_secs_f64() * 10_000.0).round() / 10.0, acked: writer.acked(), lost })
}
