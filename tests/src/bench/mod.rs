//! What is measured, and of whom. Every run starts its system anew and alone, so that none carries over to the next.

pub(crate) mod figures;
pub(crate) mod numbers;
pub(crate) mod patroni;
pub(crate) mod patroni_rig;
pub(crate) mod sentinel;
pub(crate) mod sentinel_rig;
pub(crate) mod sql;
pub(crate) mod understudy;

use clap::ValueEnum;
use cli::rig::{Ack, RigError, Writer};
use config::Engine;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Writes acknowledged before the fault: a second's worth, so that it strikes a client in full swing.
const WARM: usize = 200;

/// Writes acknowledged by the new master before the client ends, a second's worth.
const AFTER: usize = 200;

/// Longer than any takeover: Sentinel's planned one is noticed by its client after about 11 s, a hang under Patroni
/// after more than 20.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// What happens to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of its database.
    Kill,
    /// SIGKILL of its database and of the agent, Sentinel or Patroni, beside it.
    Node,
    /// SIGSTOP of both, and SIGCONT when the client writes again.
    Hang,
    /// An operator asks for another.
    Switchover,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Node => "node",
            Fault::Hang => "hang",
            Fault::Switchover => "switchover",
        }
    }
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Three agents, one proxy, one Consul; `sync` group with its defaults.
    Understudy,
    /// Three Sentinels, two replicas.
    Sentinel,
    /// Three Patronis with their PostgreSQL, one HAProxy, one Consul; synchronous mode.
    Patroni,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Understudy => "understudy",
            System::Sentinel => "sentinel",
            System::Patroni => "patroni",
        }
    }

    /// Whether it looks after this engine.
    pub(crate) fn runs(self, engine: Engine) -> bool {
        match self {
            System::Understudy => true,
            System::Sentinel => engine == Engine::Redis,
            System::Patroni => engine == Engine::Postgres,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From the fault to the first write that the new master acknowledged.
    pub(crate) outage: Duration,
    /// Writes acknowledged.
    pub(crate) acked: usize,
    /// Those of them that are not there at the end.
    pub(crate) lost: usize,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outage = self.outage.as_secs_f64() * 1_000.0;
        write!(f, "{outage:.1} ms, {} acknowledged, {} lost", self.acked, self.lost)
    }
}

/// Waits until the client is in full swing.
pub(crate) async fn warm(writer: &Writer) -> Result<(), RigError> {
    writer.wait_for_acks(WARM, Instant::now(), LIMIT).await
}

/// Waits for the new master's acknowledgements and tells the time to the first. The client goes on writing.
async fn outage(writer: &Writer, fault: Instant, is_new: impl Fn(&Ack) -> bool) -> Result<Duration, RigError> {
    writer.wait_for(AFTER, fault, LIMIT, &is_new).await?;
    Ok(writer.first_ack(fault, is_new).unwrap_or(LIMIT))
}

/// Ends the client and reads everything back that was acknowledged.
async fn close(mut writer: Writer, outage: Duration, server: SocketAddr) -> Result<Sample, RigError> {
    writer.stop();
    let lost = writer.missing(server).await?.len();
    Ok(Sample { outage, acked: writer.acked(), lost })
}
