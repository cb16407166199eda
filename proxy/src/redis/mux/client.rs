//! One client: small, since there may be thousands that ask for nothing. What few of them need is boxed.

use super::ids::LinkId;
use super::lanes::{FIRST, LaneId};
use super::output::Output;
use super::session::Session;
use crate::redis::scan::RequestScan;
use election::Millis;

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    /// Bytes that could not be taken yet: half a request, or requests that wait.
    pub(super) input: Vec<u8>,
    pub(super) scan: RequestScan,
    pub(super) output: Output,
    /// What it has said about itself, if it has.
    pub(super) session: Option<Box<Session>>,
    /// The link its replies in flight come over, or the next would.
    pub(super) link: Option<LinkId>,
    pub(super) lane: LaneId,
    /// The destination it was given; `None` before it was given one.
    pub(super) place: Option<u32>,
    /// Replies that are still to come.
    pub(super) in_flight: u32,
    pub(super) wait: Wait,
    /// Since when its first request waits for a link.
    pub(super) since: Option<Millis>,
    pub(super) flags: Flags,
}

/// What a client's next request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: there is no whole request.
    Nothing,
    /// All replies in flight.
    Drained,
    /// Fewer replies in flight.
    Room,
    /// A link.
    Link,
}

/// What is so of a client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// The world outside knows that there is output.
    pub(super) told: bool,
    /// It is not to be read.
    pub(super) paused: bool,
    /// It stands among those that are looked at again when a link has sent what it had too much of.
    pub(super) listed: bool,
    /// It asks for nothing more, and is closed when all is answered and sent.
    pub(super) closing: bool,
    /// Its side of the connection has ended.
    pub(super) ended: bool,
    /// Half of a request is sent, the rest follows.
    pub(super) streaming: bool,
    /// Its requests have waited for too long.
    pub(super) expired: bool,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            input: Vec::new(),
            scan: RequestScan::default(),
            output: Output::default(),
            session: None,
            link: None,
            lane: FIRST,
            place: None,
            in_flight: 0,
            wait: Wait::Nothing,
            since: None,
            flags: Flags::default(),
        }
    }

    /// Whether its requests may be sent on without another look at what it has said before.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.since.is_none() && !self.flags.closing && self.session.as_ref().is_none_or(|session| session.is_plain())
    }

    /// Whether it believes to be subscribed and is not yet.
    pub(super) fn resubscribes(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.own.resubscribes)
    }

    /// The boxed part, there from now on.
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_idle_clients_cost_little() {
        assert!(size_of::<Client>() <= 256, "{}", size_of::<Client>());
    }
}
