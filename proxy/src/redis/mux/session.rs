//! What a client has said about itself, and what binds it to a link of its own.

use super::ids::LinkId;
use super::lanes::Key;
use super::subscriptions::Subscriptions;
use super::switchover::Waiting;

/// See the module. Most clients never have one.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// As `CLIENT SETNAME` has it.
    pub(super) name: Vec<u8>,
    pub(super) replies: Replies,
    pub(super) own: Own,
}

/// Which replies the client wants (`CLIENT REPLY`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Replies {
    #[default]
    All,
    None,
    /// All but the next.
    ButNext,
}

/// What binds a client to a link of its own.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The client has one, or is about to use it.
    pub(super) attached: bool,
    /// The link that is being made for it.
    pub(super) making: Option<LinkId>,
    /// `MULTI` was sent, neither `EXEC` nor `DISCARD`.
    pub(super) multi: bool,
    /// Something within the transaction was refused here: it must not be carried out.
    pub(super) spoiled: bool,
    /// `WATCH` was sent.
    pub(super) watching: bool,
    /// The database that the transaction selects.
    pub(super) selects: Option<u32>,
    /// Bound until the client ends, or says `RESET`.
    pub(super) pinned: bool,
    /// It sees what all others do.
    pub(super) monitor: bool,
    /// Half of a request is sent.
    pub(super) streaming: bool,
    /// A command is in flight that may wait at the server.
    pub(super) blocked: bool,
    /// That command, unless it is never sent again.
    pub(super) waiting: Option<Waiting>,
    /// It was ended since roles are changed.
    pub(super) ended_for_plan: bool,
    /// The command that is sent next has waited before.
    pub(super) again: Option<Waiting>,
    /// The subscriptions are still to be made at the new master.
    pub(super) resubscribes: bool,
    pub(super) subscriptions: Subscriptions,
    /// What the client becomes when the server agrees.
    pub(super) becomes: Option<Key>,
}

impl Own {
    /// Whether the link has to stay the client's when nothing is in flight.
    pub(super) fn is_needed(&self) -> bool {
        self.is_in_transaction() || self.pinned || self.streaming || !self.subscriptions.is_empty()
    }

    /// Whether a transaction has begun.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.multi || self.watching
    }
}

impl Session {
    /// Whether requests may be sent on as they are, over the lane's shared link.
    pub(super) fn is_plain(&self) -> bool {
        self.replies == Replies::All && !self.own.attached
    }

    /// Whether the client does not want the next reply.
    pub(super) fn is_muted(&self) -> bool {
        self.replies != Replies::All
    }
}
