//! One run of Understudy.

use super::{Fault, LIMIT, Sample, close, outage, warm};
use anyhow::{Context, Result};
use cli::rig::{Rig, understudy_binary};
use config::Engine;
use std::time::Instant;

/// Starts a group, lets the fault strike its master, and waits until the group is whole again.
pub(crate) async fn once(engine: Engine, fault: Fault) -> Result<Sample> {
    let mut rig = Rig::builder(understudy_binary()?).engine(engine).group("bench").start().await?;
    if matches!(fault, Fault::Node | Fault::Hang) {
        // The first election counts as a takeover: for `flap_pause` suspicion starts no other.
        rig.wait_calm(LIMIT).await?;
    }
    let status = rig.wait_whole(LIMIT).await?;
    let master = status.active_master().context("a whole group has a master")?.to_owned();
    let writer = rig.writer("bench");
    warm(&writer).await?;
    let at = strike(&mut rig, fault, &master).await?;
    // The proxy ends every connection of the old epoch, and carries new ones to the new master only.
    let outage = outage(&writer, at, |ack| ack.connected_at > at).await.with_context(|| rig.logs())?;
    match fault {
        Fault::Node => rig.restart_agent(&master)?,
        Fault::Hang => rig.cont_node(&master)?,
        Fault::Kill | Fault::Switchover => {}
    }
    rig.wait_whole(LIMIT).await?;
    Ok(close(writer, outage, rig.proxy_addr()).await?)
}

async fn strike(rig: &mut Rig, fault: Fault, master: &str) -> Result<Instant> {
    Ok(match fault {
        Fault::Kill => rig.kill_database(master)?,
        Fault::Node => rig.kill_node(master)?,
        Fault::Hang => rig.stop_node(master)?,
        Fault::Switchover => rig.switchover(None).await?.asked_at,
    })
}
