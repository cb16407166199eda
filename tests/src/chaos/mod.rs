//! Real processes on machines that are cut off, killed, frozen and filled up, under a load that writes down every answer.
//!
//! [`Net`] makes the machines, [`Stage`] starts a group on them as [`Setup`] says, [`Load`] is the clients of a [`Store`],
//! [`Fault`] what befalls them, and [`run()`] draws all that from a seed and judges the history ([`crate::history`]).

mod client;
mod fault;
mod load;
mod net;
mod run;
mod sentinel;
mod setup;
mod sql;
mod stage;
mod store;
mod waits;

pub use client::{Connection, Reply};
pub use fault::Fault;
pub use load::Load;
pub use net::{Disk, Net};
pub use run::{Plan, Report, run};
pub use sentinel::Sentinels;
pub use setup::Setup;
pub use stage::{Stage, on_net, on_stage};
pub use store::Store;
pub use waits::EndOfWaits;
