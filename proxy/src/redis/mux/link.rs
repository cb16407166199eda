//! One connection to a database: whose replies it brings, in their order.

use super::ids::ClientId;
use super::lanes::LaneId;
use super::own_replies::Passing;
use super::prepare::Preparation;
use crate::redis::scan::ReplyScan;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    /// Which destination it leads to.
    pub(super) place: usize,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    /// The destination takes no new requests: the link ends with its last reply.
    pub(super) retired: bool,
    pub(super) scan: ReplyScan,
    /// The start of what was not whole.
    pub(super) input: Vec<u8>,
    pub(super) output: Outgoing,
    /// Whose replies come next, as runs.
    pub(super) pending: VecDeque<Run>,
    /// The connection's name at the server, if a client gave it one.
    pub(super) name: Vec<u8>,
    /// It has something about it that the next client must not get.
    pub(super) dirty: bool,
    /// The frame that is passed on in pieces.
    pub(super) passing: Option<Passing>,
    /// The connection's number at the server, if it was asked for.
    pub(super) number: Option<u64>,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All clients of a lane.
    Shared(LaneId),
    /// One client of a lane, or none for the moment.
    Own(LaneId, Option<ClientId>),
    /// The question whether writes are durable.
    Control,
}

/// How far a link has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Not connected.
    Dialling,
    /// Connected, not proved.
    Preparing(Box<Preparation>),
    /// It may be used.
    Ready,
}

/// Consecutive replies to one client that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) client: ClientId,
    pub(super) count: u32,
    pub(super) kind: Kind,
}

/// What is done with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Passed on.
    Free,
    /// Passed on behind a barrier.
    Withheld,
    /// Read and thrown away: the client wants none.
    Dropped,
    /// Within a transaction: `+QUEUED` is passed on; anything else may be the outcome of a write.
    Queued { withheld: bool },
    /// The outcome of a transaction.
    Exec { withheld: bool },
    /// The end of a transaction that was spoiled here: the client is told so.
    Aborted,
    /// From a command that may wait at the server.
    Blocked { withheld: bool },
    /// The server agrees to what the client wants to become, or does not.
    Enter,
    /// One of the frames that confirm subscriptions.
    Confirm,
    /// The same, for subscriptions that the client knows of.
    Resubscribed,
}

impl Kind {
    /// Whether frames of this kind confirm subscriptions.
    pub(super) fn is_confirmation(self) -> bool {
        matches!(self, Self::Confirm | Self::Resubscribed)
    }
}

impl Link {
    pub(super) fn new(place: usize, purpose: Purpose) -> Self {
        Self {
            place,
            purpose,
            stage: Stage::Dialling,
            retired: false,
            scan: ReplyScan::default(),
            input: Vec::new(),
            output: Outgoing::default(),
            pending: VecDeque::new(),
            name: Vec::new(),
            dirty: false,
            passing: None,
            number: None,
        }
    }

    /// Whether requests may be sent over it.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Ready) && !self.retired
    }

    /// Notes whose replies come after those that are expected already.
    #[inline]
    pub(super) fn expect(&mut self, run: Run) {
        match self.pending.back_mut() {
            _ if run.count == 0 => {}
            // The confirmations of one request are refused by one error.
            Some(last) if last.client == run.client && last.kind == run.kind && !run.kind.is_confirmation() => {
                last.count += run.count;
            }
            _ => self.pending.push_back(run),
        }
    }

    /// Replies that are still to come.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.iter().map(|run| run.count as usize).sum()
    }
}

/// What goes to a server.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Whether the world outside knows that there is something.
    told: bool,
}

/// A busy link keeps a buffer of up to this.
const KEPT_BYTES: usize = 512 * 1024;

impl Outgoing {
    #[inline]
    pub(super) fn ready(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Where more is to be written.
    #[inline]
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// True once for each time that there is something after there was nothing.
    #[inline]
    pub(super) fn news(&mut self) -> bool {
        let news = !self.told && self.len() > 0;
        self.told |= news;
        news
    }

    #[inline]
    pub(super) fn advance(&mut self, len: usize) {
        self.sent = (self.sent + len).min(self.bytes.len());
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.sent = 0;
            self.told = false;
        } else if self.sent > KEPT_BYTES && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives the buffer back, if it is empty.
    pub(super) fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}
