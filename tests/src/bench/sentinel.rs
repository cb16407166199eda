//! One run of Redis Sentinel.

use super::sentinel_rig::{MASTER_NAME, SentinelRig, ask_master};
use super::{Fault, LIMIT, Sample, close, outage, warm};
use anyhow::Result;
use cli::rig::Writer;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Starts one master, two replicas and three Sentinels, lets the fault strike the master, and waits until the old one
/// follows the new.
pub(crate) async fn once(fault: Fault) -> Result<Sample> {
    let mut rig = SentinelRig::start().await?;
    // The master is the first node.
    let old = rig.redis_addr(0);
    let writer = Writer::start("bench", by_sentinel(rig.sentinels()));
    warm(&writer).await?;
    let at = strike(&mut rig, fault).await?;
    let outage = outage(&writer, at, |ack| ack.server != old).await?;
    match fault {
        Fault::Kill => rig.restart_redis(0)?,
        Fault::Node => {
            rig.restart_redis(0)?;
            rig.restart_sentinel(0)?;
        }
        Fault::Hang => rig.thaw(0),
        Fault::Switchover => {}
    }
    let master = rig.wait_for_new_master(old, LIMIT).await?;
    Ok(close(writer, outage, master).await?)
}

async fn strike(rig: &mut SentinelRig, fault: Fault) -> Result<Instant> {
    let at = Instant::now();
    match fault {
        Fault::Kill => rig.kill_redis(0),
        Fault::Node => rig.kill_node(0),
        Fault::Hang => rig.freeze(0),
        Fault::Switchover => rig.command(1, &["SENTINEL", "FAILOVER", MASTER_NAME]).await?,
    }
    Ok(at)
}

/// A client that asks the Sentinels in turn before every connection, so after every error, and only then.
pub(crate) fn by_sentinel(sentinels: Vec<SocketAddr>) -> cli::rig::Route {
    Box::new(move || {
        let unanswered = io::Error::new(io::ErrorKind::NotFound, "no Sentinel names a master");
        sentinels.iter().find_map(|sentinel| ask_master(*sentinel).ok()).ok_or(unanswered)
    })
}
