//! One run of Patroni, with Consul and HAProxy.

use super::patroni_rig::PatroniRig;
use super::{Fault, Sample, close, outage, warm};
use anyhow::Result;
use cli::rig::{Writer, fixed};
use config::Engine;
use std::time::Duration;

/// A killed node's key ends after its TTL of 20 s, and its server may have to be rewound then.
const WHOLE_AGAIN: Duration = Duration::from_secs(120);

/// Starts a cluster, lets the fault strike its master, and waits until it is whole again.
pub(crate) async fn once(fault: Fault) -> Result<Sample> {
    let mut rig = PatroniRig::start().await?;
    let master = rig.master().await?;
    let writer = Writer::start_for(Engine::Postgres, "bench", fixed(rig.proxy_addr()));
    warm(&writer).await?;
    let (at, asked) = match fault {
        Fault::Kill => (rig.kill_database(master)?, None),
        Fault::Node => (rig.kill_node(master)?, None),
        Fault::Hang => (rig.stop_node(master)?, None),
        Fault::Switchover => {
            let (at, answer) = rig.switchover(master).await?;
            (at, Some(answer))
        }
    };
    // After a kill the same server may come back as master: what counts is a connection that was made after the fault,
    // which none of these servers could take and answer before it was master again.
    let outage = outage(&writer, at, |ack| ack.connected_at > at).await?;
    match fault {
        Fault::Node => rig.start_patroni(master)?,
        Fault::Hang => rig.cont_node(master)?,
        Fault::Kill | Fault::Switchover => {}
    }
    if let Some(answer) = asked {
        answer.await??;
    }
    rig.wait_whole(WHOLE_AGAIN).await?;
    Ok(close(writer, outage, rig.proxy_addr()).await?)
}
