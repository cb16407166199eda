//! From a client's bytes to requests on a link.
//!
//! The straight path ([`Mux::forward`]) takes what is read at once: whole requests go on as one piece. Whatever is not
//! as simple is taken one by one.

use super::client::Wait;
use super::ids::{ClientId, LinkId};
use super::link::{Kind, Purpose, Run};
use super::session::Replies;
use super::ways::Way;
use super::{Event, Mux};
use crate::redis::commands::{Class, Effect, Session, Transaction};
use crate::redis::inline;
use crate::redis::scan::{FoundRequest, Malformed};
use crate::redis::view::Request;
use config::ListenerRole;

/// Replies that one client may wait for.
pub(super) const IN_FLIGHT: u32 = 1_024;

/// A client that has waited for room goes on when so few are left that it can send many again.
pub(super) const RESUMED_BELOW: u32 = IN_FLIGHT / 2;

/// A replica may have been made master a moment ago: it would carry a write out, and nobody would wait for its copy.
const READ_ONLY: &[u8] = b"-READONLY You can't write against a read only replica. (understudy: this listener carries \
    commands that only read; scripts as EVAL_RO and FCALL_RO)\r\n";

/// Where the straight path has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Straight {
    /// There is no other whole request.
    Half,
    /// What comes next needs another look.
    Other,
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is sent or answered.
    Yes,
    /// It has to be shown again: [`Client::wait`] says when.
    NotYet,
}

impl Mux {
    pub(super) fn take_input(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.flags.closing {
            return;
        }
        if !client.input.is_empty() || client.resubscribes() {
            client.input.extend_from_slice(bytes);
            return self.resume(id);
        }
        let used = self.pump(id, bytes);
        if let Some(client) = self.clients.get_mut(id)
            && !client.flags.closing
            && let Some(rest @ [_, ..]) = bytes.get(used..)
        {
            client.input = self.spare.take();
            client.input.extend_from_slice(rest);
        }
        self.settle(id);
    }

    /// Goes on with what a client has asked before.
    pub(super) fn resume(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.wait = Wait::Nothing;
        if !self.resubscribe(id) {
            return self.settle(id);
        }
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut input = std::mem::take(&mut client.input);
        let used = self.pump(id, &input);
        match self.clients.get_mut(id) {
            Some(client) if !client.flags.closing && used < input.len() => {
                input.drain(..used);
                client.input = input;
            }
            _ => self.spare.give(input),
        }
        self.settle(id);
    }

    /// What holds after a client's bytes were looked at.
    #[inline]
    fn settle(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.wait == Wait::Nothing {
            client.flags.expired = false;
            if client.flags.ended && !client.flags.closing {
                return self.finish(id);
            }
        }
        self.weigh(id);
    }

    /// Takes requests as long as that is possible; returns how many bytes were used.
    fn pump(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            if self.clients.get(id).is_some_and(|client| client.flags.streaming) {
                let used = self.stream(id, &bytes[at..]);
                at += used;
                if used == 0 || at == bytes.len() {
                    return at;
                }
                continue;
            }
            let (used, end) = self.forward(id, &bytes[at..]);
            at += used;
            if end == Straight::Half || at == bytes.len() {
                return at;
            }
            match self.special(id, &bytes[at..]) {
                Some(used) => at += used,
                None => return at,
            }
        }
    }

    /// Sends what may go over the lane's shared link as it stands.
    #[inline]
    fn forward(&mut self, id: ClientId, bytes: &[u8]) -> (usize, Straight) {
        let Self { clients, links, places, kinds, .. } = self;
        let Some(client) = clients.get_mut(id) else { return (0, Straight::Other) };
        let Some(link_id) = client.link else { return (0, Straight::Other) };
        let Some(link) = links.get_mut(link_id).filter(|link| link.is_open()) else { return (0, Straight::Other) };
        let Some(Some(place)) = places.get_mut(link.place) else { return (0, Straight::Other) };
        let Some(commands) = &mut place.commands else { return (0, Straight::Other) };
        if self.heading.held
            || self.control.refused.is_some()
            || !client.is_plain()
            || !matches!(link.purpose, Purpose::Shared(_))
        {
            return (0, Straight::Other);
        }
        let databases = place.destination.databases;
        let readers = self.settings.role == ListenerRole::Replica;
        let room = IN_FLIGHT.saturating_sub(client.in_flight);
        let mut run = Run { client: id, count: 0, kind: Kind::Free };
        let (mut at, mut total) = (0, 0);
        let end = loop {
            if total == room {
                break Straight::Other;
            }
            let len = match client.scan.scan(&bytes[at..]) {
                Ok(FoundRequest::Whole(len)) => len,
                Ok(FoundRequest::Half) => break Straight::Half,
                _ => break Straight::Other,
            };
            let kind = match commands.class(Request::new(&bytes[at..at + len]), databases) {
                Class::Read => kinds.read,
                Class::Write if !readers => kinds.write,
                Class::Harmless => Kind::Free,
                _ => break Straight::Other,
            };
            if kind != run.kind {
                link.expect(run);
                run = Run { client: id, count: 0, kind };
            }
            run.count += 1;
            total += 1;
            at += len;
        };
        if total > 0 {
            link.expect(run);
            link.output.buffer().extend_from_slice(&bytes[..at]);
            client.in_flight += total;
            self.in_flight += total as usize;
            self.counts.requests += u64::from(total);
            if link.output.news() {
                self.events.push_back(Event::LinkOutput(link_id));
            }
        }
        (at, end)
    }

    /// Takes one request that is not simply sent on; `None` when it has to be shown again.
    fn special(&mut self, id: ClientId, bytes: &[u8]) -> Option<usize> {
        let client = self.clients.get_mut(id).filter(|client| !client.flags.closing)?;
        match client.scan.scan(bytes) {
            Ok(FoundRequest::Half) => None,
            Ok(FoundRequest::Empty(len)) => Some(len),
            Ok(FoundRequest::Whole(len)) => self.request(id, &bytes[..len]).then_used(len),
            Ok(FoundRequest::Inline(len)) => match inline::to_array(&bytes[..len]) {
                Ok(Some(array)) => self.request(id, &array).then_used(len),
                Ok(None) => Some(len),
                Err(malformed) => self.malformed(id, malformed),
            },
            Ok(FoundRequest::Big) => self.begin_big(id, bytes).then_used(0),
            Err(malformed) => self.malformed(id, malformed),
        }
    }

    /// What follows cannot be understood: the client is told so, in its turn, and closed.
    fn malformed(&mut self, id: ClientId, malformed: Malformed) -> Option<usize> {
        if self.is_drained(id) {
            self.answer(id, format!("-ERR {malformed}\r\n").as_bytes());
            self.finish(id);
        }
        None
    }

    /// Takes one whole request.
    fn request(&mut self, id: ClientId, bytes: &[u8]) -> Taken {
        let class = self.class(id, bytes);
        let skips = self.clients.get(id).and_then(|client| Some(client.session.as_ref()?.replies == Replies::ButNext));
        let taken = match self.own_link(id) {
            Some(link) => self.own_request(id, link, bytes, class),
            None => self.route(id, bytes, class),
        };
        if taken == Taken::Yes
            && skips == Some(true)
            && class != Class::Session(Session::ClientReply)
            && let Some(client) = self.clients.get_mut(id)
        {
            client.session().replies = Replies::All;
        }
        taken
    }

    /// Takes one request of a client that shares its link.
    fn route(&mut self, id: ClientId, bytes: &[u8], class: Class) -> Taken {
        match class {
            Class::Read | Class::Write | Class::Harmless => self.share(id, bytes, class),
            // The server says what is wrong with it, or that it is fine.
            Class::Transaction(Transaction::Exec | Transaction::Discard | Transaction::Unwatch) => {
                self.share(id, bytes, class)
            }
            Class::Refused(refusal) => {
                self.counts.refused += 1;
                self.local(id, format!("-ERR {refusal}\r\n").as_bytes())
            }
            Class::Hostile => {
                self.close_client(id);
                Taken::NotYet
            }
            Class::Session(verb) => self.about_itself(id, bytes, verb),
            Class::Blocking(_) | Class::Transaction(_) | Class::PubSub(_) | Class::Pinning => {
                self.on_own(id, bytes, class)
            }
        }
    }

    /// What a request is, as far as its destination has told.
    pub(super) fn class(&mut self, id: ClientId, bytes: &[u8]) -> Class {
        let place = self.place_of(id).and_then(|at| self.places.get_mut(at)?.as_mut());
        let request = Request::new(bytes);
        match place {
            Some(place) => {
                let databases = place.destination.databases;
                place.commands.as_mut().unwrap_or(&mut self.built_in).class(request, databases)
            }
            // It is looked at again when there is one.
            None => self.built_in.class(request, Some(u32::MAX)),
        }
    }

    /// Why a request is not sent that may write: nobody could acknowledge what it does.
    pub(super) fn refusal(&mut self, id: ClientId, class: Class) -> Option<Vec<u8>> {
        let writes = matches!(class, Class::Write | Class::Blocking(Effect::Write));
        if writes && self.settings.role == ListenerRole::Replica && self.knows_commands(id) {
            return Some(READ_ONLY.to_vec());
        }
        self.control_text().filter(|_| self.kind_of(class) == Kind::Withheld)
    }

    /// Whether the server has told what its commands do. Before, everything seems to write, and nothing is sent.
    fn knows_commands(&mut self, id: ClientId) -> bool {
        let place = self.place_of(id).and_then(|at| self.places.get(at)?.as_ref());
        place.is_some_and(|place| place.commands.is_some())
    }

    /// Sends one request over the lane's shared link.
    fn share(&mut self, id: ClientId, bytes: &[u8], class: Class) -> Taken {
        let kind = self.kind_of(class);
        let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
        if client.in_flight >= IN_FLIGHT {
            client.wait = Wait::Room;
            return Taken::NotYet;
        }
        if let Some(error) = self.refusal(id, class) {
            self.counts.refused += 1;
            return self.local(id, &error);
        }
        match self.way(id) {
            Way::Waits => Taken::NotYet,
            Way::Refused(error) => self.local(id, &error),
            Way::Open(link) => {
                self.send(id, link, bytes, kind);
                Taken::Yes
            }
        }
    }

    /// Sends one request.
    pub(super) fn send(&mut self, id: ClientId, link_id: LinkId, bytes: &[u8], kind: Kind) {
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return };
        let muted = client.session.as_ref().is_some_and(|session| session.is_muted());
        let kind = if muted && matches!(kind, Kind::Free | Kind::Withheld) { Kind::Dropped } else { kind };
        link.output.buffer().extend_from_slice(bytes);
        link.expect(Run { client: id, count: 1, kind });
        client.in_flight += 1;
        self.in_flight += 1;
        self.counts.requests += 1;
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(link_id));
        }
        self.not_held(id);
    }

    /// An answer in the server's place, when it is its turn.
    pub(super) fn local(&mut self, id: ClientId, bytes: &[u8]) -> Taken {
        if !self.is_drained(id) {
            return Taken::NotYet;
        }
        self.not_held(id);
        let session = self.clients.get(id).and_then(|client| client.session.as_ref());
        if !session.is_some_and(|session| session.is_muted()) {
            self.answer(id, bytes);
        }
        Taken::Yes
    }

    /// Whether nothing of the client is in flight; if something is, it waits for the end of that.
    pub(super) fn is_drained(&mut self, id: ClientId) -> bool {
        let amid_frame = self.is_amid_frame(id);
        let Some(client) = self.clients.get_mut(id) else { return false };
        let drained = client.in_flight == 0 && !amid_frame;
        if !drained {
            client.wait = Wait::Drained;
        }
        drained
    }
}

impl Taken {
    fn then_used(self, len: usize) -> Option<usize> {
        (self == Taken::Yes).then_some(len)
    }
}
