//! A whole group on this machine, for the demo, the tests that start real processes, and the benchmarks.
//!
//! [`Rig::builder`] starts one Consul, agents with their Redis and proxies, each a process of its own, in a temporary
//! folder on free ports. The rig injects faults ([`Rig::kill_database`], [`Rig::stop_node`], …), waits for states
//! ([`Rig::wait_until`]) and measures what a client notices ([`Writer`]). Dropping it ends every process that it, or
//! an agent of it, has started.
//!
//! A rig is to be started, and its processes restarted, on a thread that outlives it: where `setpriv` is there, the
//! kernel kills agents, proxies and Consul when the thread that started them ends.

mod builder;
mod consul;
mod error;
mod files;
mod host;
mod ports;
mod proc;
mod process;
mod resp;
mod running;
mod server;
mod sql;
mod waits;
mod writer;

pub use builder::Builder;
pub use error::RigError;
pub use files::{program, understudy_binary};
pub use host::Host;
pub use ports::free_port;
pub use proc::{family, signal_all, sweep};
pub use process::{Process, output, wait};
pub use running::Rig;
pub use server::find as server_program;
pub use writer::{Ack, Route, Writer, fixed};

use std::time::Duration;

/// How long whoever is asked over HTTP may take to answer: three times the longest query that waits for a change.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// An HTTP client none of whose requests waits for ever; reqwest's own has no limit.
pub fn http() -> reqwest::Client {
    // Where this one cannot be made, the one in its place cannot either, and says why.
    reqwest::Client::builder().timeout(ANSWERED_WITHIN).build().unwrap_or_default()
}
