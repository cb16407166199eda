//! Real processes on machines that are cut off, killed, frozen and filled up, under a load that writes down every answer.
//!
//! [`Net`] makes the machines, [`Stage`] starts a group on them, [`Load`] is the clients, [`Fault`] what befalls them, and
//! [`run()`] draws all that from a seed and judges the history ([`crate::history`]).

mod client;
mod fault;
mod load;
mod net;
mod run;
mod sentinel;
mod stage;

pub use client::{Connection, Reply};
pub use fault::Fault;
pub use load::Load;
pub use net::{Disk, Net};
pub use run::{Plan, Report, run};
pub use sentinel::Sentinels;
pub use stage::{Setup, Stage, on_net, on_stage};
