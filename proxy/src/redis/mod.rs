//! The `redis` protocol: requests of many clients over few links to the master, and no reply before it may leave.
//!
//! Each listener has its own worker threads. A [`worker`] is a plain loop over epoll: it reads what has arrived, hands
//! it to its multiplexer ([`mux`]), which knows clients, links and the rules but no socket and no clock, and does what
//! that says. Nothing is shared between workers on the way of a byte: a new course, dialled links ([`dial`]) and the
//! order to stop come by [`mailbox`].
//!
//! Of the protocol, `scan` finds where requests and replies end, `view` looks into them, `commands` says what a request
//! is.

pub(crate) mod commands;
mod course;
mod crew;
mod dial;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod inline;
mod mailbox;
pub(crate) mod mux;
pub(crate) mod scan;
mod sockets;
mod tally;
pub(crate) mod view;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use course::Course;
pub(crate) use crew::Crew;
pub(crate) use mux::{Counts, Login};
pub(crate) use tally::Tallies;

use crate::group::Group;
use config::ListenerRole;
use std::sync::Arc;
use std::time::Duration;

/// What the workers of one listener share.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) group: Arc<Group>,
    pub(crate) role: ListenerRole,
    /// How long a request waits for somewhere to go.
    pub(crate) hold: Duration,
    /// The proxy's own account in the group.
    pub(crate) account: Option<Login>,
    /// The proxy's name.
    pub(crate) proxy: String,
}
