//! Replies on a link of one client's own, where each frame is looked at: pushes and messages answer no request, and some
//! replies change what the client is.

use super::Mux;
use super::client::Wait;
use super::ids::{ClientId, LinkId};
use super::link::{Kind, Purpose, Run};
use super::own_requests::ABORTED;
use super::session::Replies;
use super::subscriptions::Frame;
use crate::redis::commands::PubSub;
use crate::redis::scan::FoundReply;
use crate::redis::view::Reply;

/// A frame that is passed on in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passing {
    kind: Kind,
    /// Whether it answers a request.
    answers: bool,
}

impl Mux {
    /// Takes in frames of an own link; returns how many bytes were used.
    pub(super) fn own_frame(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let Some(link) = self.links.get_mut(id) else { return 0 };
        if link.passing.is_some() {
            return self.pass_on(id, bytes);
        }
        match link.scan.scan(bytes) {
            Ok(FoundReply::Whole(len)) => {
                self.whole_frame(id, &bytes[..len]);
                len
            }
            Ok(FoundReply::Half) => 0,
            Ok(FoundReply::Big) => self.begin_passing(id, bytes),
            Err(malformed) => {
                self.lose_link(id, &malformed.to_string());
                0
            }
        }
    }

    fn client_of(&self, id: LinkId) -> Option<ClientId> {
        match self.links.get(id)?.purpose {
            Purpose::Own(_, client) => client,
            Purpose::Shared(_) | Purpose::Control => None,
        }
    }

    fn whole_frame(&mut self, id: LinkId, frame: &[u8]) {
        let Some(client) = self.client_of(id) else {
            return self.lose_link(id, "it answers without having been asked");
        };
        let reply = Reply::new(frame);
        if let Some(kind) = self.unasked(id, client, reply) {
            let front = self.links.get(id).and_then(|link| link.pending.front());
            let known = front.is_some_and(|run| run.kind == Kind::Resubscribed) && kind != Frame::Message;
            if !known {
                self.hand_over(client, Kind::Free, frame);
            }
            if let Frame::Confirmation(verb) = kind {
                self.confirmed_subscription(id, client, verb, reply);
            }
            return;
        }
        let Some(run) = self.links.get(id).and_then(|link| link.pending.front().copied()) else {
            return if self.is_monitor(client) {
                self.hand_over(client, Kind::Free, frame);
            } else {
                self.lose_link(id, "it answers without having been asked");
            };
        };
        self.reply_on_own(id, run, frame);
    }

    /// Whether a frame answers no request, and what it is then.
    fn unasked(&self, id: LinkId, client: ClientId, reply: Reply<'_>) -> Option<Frame> {
        let frame = reply.published().and_then(|published| Frame::of(published.name));
        if reply.is_push() {
            // Whatever else is pushed (invalidations) is passed on like a message.
            return Some(frame.unwrap_or(Frame::Message));
        }
        let subscribing = self.links.get(id)?.pending.front().is_some_and(|run| run.kind.is_confirmation());
        let session = self.clients.get(client)?.session.as_ref()?;
        // In RESP3 an array is a reply. In RESP2 a subscribed client may ask for nothing that is answered with one of
        // these names.
        let protocol = self.lanes.get(self.clients.get(client)?.lane)?.key.protocol;
        frame.filter(|_| protocol == 2 && (subscribing || !session.own.subscriptions.is_empty()))
    }

    fn is_monitor(&self, id: ClientId) -> bool {
        let session = self.clients.get(id).and_then(|client| client.session.as_ref());
        session.is_some_and(|session| session.own.monitor)
    }

    /// A subscription was confirmed: one of the frames that a request brings.
    fn confirmed_subscription(&mut self, id: LinkId, client_id: ClientId, verb: PubSub, reply: Reply<'_>) {
        let channel = reply.published().and_then(|published| published.channel);
        if let Some(client) = self.clients.get_mut(client_id) {
            client.session().own.subscriptions.confirm(verb, channel);
        }
        if self.links.get(id).and_then(|link| link.pending.front()).is_some_and(|run| run.kind.is_confirmation()) {
            self.pop(id, 1);
        }
    }

    /// The oldest request is answered.
    fn reply_on_own(&mut self, id: LinkId, run: Run, frame: &[u8]) {
        let reply = Reply::new(frame);
        let kind = match run.kind {
            Kind::Free | Kind::Withheld | Kind::Dropped => run.kind,
            Kind::Queued { withheld } => withhold(withheld && frame != b"+QUEUED\r\n"),
            Kind::Exec { withheld } => {
                self.executed(run.client, reply);
                withhold(withheld)
            }
            Kind::Aborted => {
                self.hand_over(run.client, Kind::Free, ABORTED);
                Kind::Dropped
            }
            Kind::Blocked { withheld } => {
                self.unblocked(run.client);
                if self.waits_on(run.client, reply.is_null()) { Kind::Dropped } else { withhold(withheld) }
            }
            Kind::Enter => {
                self.entered(id, run.client, !reply.is_error());
                Kind::Free
            }
            // Instead of all confirmations there is one error.
            Kind::Confirm => {
                self.hand_over(run.client, Kind::Free, frame);
                return self.pop(id, run.count);
            }
            // The new master does not let it in: the client must not believe that it hears everything.
            Kind::Resubscribed => return self.reset_client(run.client, "it cannot be subscribed again"),
        };
        let muted = self.clients.get(run.client).and_then(|client| Some(client.session.as_ref()?.replies));
        let kind = if muted == Some(Replies::None) { Kind::Dropped } else { kind };
        self.hand_over(run.client, kind, frame);
        self.pop(id, 1);
    }

    /// A transaction was carried out: what it selected is selected.
    fn executed(&mut self, id: ClientId, reply: Reply<'_>) {
        let carried_out = !reply.is_error() && !reply.is_null();
        let Some(client) = self.clients.get_mut(id) else { return };
        let lane = client.lane;
        let Some(index) = client.session().own.selects.take().filter(|_| carried_out) else { return };
        if let Some(mut key) = self.lanes.get(lane).map(|lane| lane.key.clone()) {
            key.database = index;
            self.enter_with_link(id, &key);
        }
    }

    /// The server has judged what the client wants to become.
    fn entered(&mut self, _link: LinkId, id: ClientId, agreed: bool) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if let Some(key) = client.session().own.becomes.take().filter(|_| agreed) {
            self.enter_with_link(id, &key);
        }
    }

    /// The client moves to another lane and takes its own link along.
    fn enter_with_link(&mut self, id: ClientId, key: &super::lanes::Key) {
        let lane = self.lane_for(key);
        self.enter(id, lane);
        if let Some(link) = self.own_link(id).and_then(|link| self.links.get_mut(link)) {
            link.purpose = Purpose::Own(lane, Some(id));
        }
    }

    fn unblocked(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.session().own.blocked = false;
        }
    }

    /// So many replies of the oldest run have come.
    fn pop(&mut self, id: LinkId, count: u32) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(run) = link.pending.front_mut() else { return };
        let answered = Run { count, ..*run };
        run.count -= count;
        if run.count == 0 {
            link.pending.pop_front();
        }
        self.in_flight -= count as usize;
        self.answered(id, answered);
        self.return_own(answered.client);
    }

    /// A frame too big to be collected: what it is, its beginning tells.
    fn begin_passing(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let Some(client) = self.client_of(id) else {
            self.lose_link(id, "it answers without having been asked");
            return 0;
        };
        let subscribed = self.clients.get(client).and_then(|client| client.session.as_ref());
        let subscribed = subscribed.is_some_and(|session| !session.own.subscriptions.is_empty());
        let message = [&b"$7\r\nmessage\r\n"[..], b"$8\r\npmessage\r\n", b"$8\r\nsmessage\r\n"];
        let named = bytes.get(4..).is_some_and(|name| message.iter().any(|message| name.starts_with(message)));
        let front = self.links.get(id).and_then(|link| link.pending.front().copied());
        let passing = match front {
            _ if bytes.starts_with(b">") || (subscribed && named) => Passing { kind: Kind::Free, answers: false },
            Some(run) => Passing { kind: run.kind, answers: true },
            None => {
                self.lose_link(id, "it answers without having been asked");
                return 0;
            }
        };
        // What is to be done with its content is done at its beginning.
        let kind = match passing.kind {
            Kind::Queued { withheld } | Kind::Exec { withheld } | Kind::Blocked { withheld } => withhold(withheld),
            Kind::Free | Kind::Enter | Kind::Confirm | Kind::Aborted => Kind::Free,
            Kind::Withheld => Kind::Withheld,
            Kind::Dropped | Kind::Resubscribed => Kind::Dropped,
        };
        if passing.answers && matches!(passing.kind, Kind::Exec { .. }) {
            self.executed(client, Reply::new(bytes));
        }
        if passing.answers && matches!(passing.kind, Kind::Blocked { .. }) {
            self.unblocked(client);
            self.waits_on(client, false);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.passing = Some(Passing { kind, ..passing });
        }
        self.pass_on(id, bytes)
    }

    fn pass_on(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let Some(client) = self.client_of(id) else { return 0 };
        let Some(link) = self.links.get_mut(id) else { return 0 };
        let Some(passing) = link.passing else { return 0 };
        let piece = match link.scan.follow(bytes) {
            Ok(piece) => piece,
            Err(malformed) => {
                self.lose_link(id, &malformed.to_string());
                return 0;
            }
        };
        if piece.last {
            link.passing = None;
        }
        self.hand_over(client, passing.kind, &bytes[..piece.len]);
        if piece.last && passing.answers {
            self.pop(id, 1);
        } else if piece.last
            && let Some(waits) = self.clients.get(client)
            && waits.wait == Wait::Drained
        {
            self.wakes.push(client);
        }
        piece.len
    }
}

fn withhold(withheld: bool) -> Kind {
    if withheld { Kind::Withheld } else { Kind::Free }
}
