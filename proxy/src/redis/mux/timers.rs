//! What is to be looked at when. A timer whose reason has gone is harmless: its handler looks again.

use super::ids::ClientId;
use super::lanes::LaneId;
use election::Millis;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What has come due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A client's request has waited for `hold`.
    Expire(ClientId),
    /// A lane may try again to get a link to a place.
    Retry(LaneId, usize),
    /// The control link may be tried again, or the barrier asked again.
    Control,
    /// A lane may have been without clients for long.
    Sweep,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Millis, Timer)>>);

impl Timers {
    pub(super) fn set(&mut self, at: Millis, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The first that is due, if one is.
    pub(super) fn due(&mut self, now: Millis) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }
}
