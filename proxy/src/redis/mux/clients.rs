//! How clients are read, written, and closed.

use super::client::Wait;
use super::ids::ClientId;
use super::link::Kind;
use super::{Event, Mux, links};
use tracing::debug;

/// A client with more output than this is not read: it does not take what it asks for.
const UNREAD_BYTES: usize = 1024 * 1024;

/// A client with more output than this is closed: the rest of a reply cannot be held back from the link.
const OVERFLOW_BYTES: usize = 64 * 1024 * 1024;

impl Mux {
    /// Bytes for a client that the proxy itself has written. They keep their order behind what is withheld.
    pub(super) fn answer(&mut self, id: ClientId, bytes: &[u8]) {
        self.hand_over(id, Kind::Free, bytes);
    }

    /// Puts a reply, or a part of one, where the client gets it.
    #[inline]
    pub(super) fn hand_over(&mut self, id: ClientId, kind: Kind, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(id).filter(|_| !bytes.is_empty()) else { return };
        match kind {
            Kind::Free => client.output.push(bytes, &mut self.spare),
            Kind::Withheld => {
                if !client.output.is_withheld() {
                    self.counts.withheld += 1;
                }
                let before = client.output.needs_barrier();
                client.output.push_withheld(bytes, &mut self.spare);
                if !before {
                    self.control.wanted_by(id);
                }
            }
            _ => return,
        }
        if !client.flags.told && !client.output.ready().is_empty() {
            client.flags.told = true;
            self.events.push_back(Event::ClientOutput(id));
        }
        if client.output.len() <= UNREAD_BYTES {
            return;
        }
        client.flags.paused = true;
        if client.output.len() > OVERFLOW_BYTES {
            self.reset_client(id, "it does not take what it has asked for");
        }
    }

    /// Tells the world outside that there is output, once.
    #[inline]
    pub(super) fn tell(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && !client.flags.told
            && !client.output.ready().is_empty()
        {
            client.flags.told = true;
            self.events.push_back(Event::ClientOutput(id));
        }
    }

    pub(super) fn output_sent(&mut self, id: ClientId, len: usize) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.output.advance(len, &mut self.spare);
        if client.output.ready().is_empty() {
            client.flags.told = false;
        }
        if client.flags.closing {
            self.close_if_done(id);
        } else if client.flags.paused {
            self.weigh(id);
        }
    }

    /// Decides whether a client is to be read.
    #[inline]
    pub(super) fn weigh(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let over = client.flags.closing || client.flags.ended;
        let busy = client.wait != Wait::Nothing || client.output.len() > UNREAD_BYTES;
        let link = client.link.and_then(|link| self.links.get(link));
        let choked = link.is_some_and(|link| link.output.len() > links::CHOKED_BYTES);
        let paused = over || busy || choked;
        if paused && choked && !client.flags.listed {
            client.flags.listed = true;
            self.choked.push(id);
        }
        if client.flags.paused && !paused {
            self.events.push_back(Event::ReadClient(id));
        }
        client.flags.paused = paused;
    }

    /// A link has sent what it had too much of. Whose own still has is listed again.
    pub(super) fn unchoke(&mut self) {
        for id in std::mem::take(&mut self.choked) {
            if let Some(client) = self.clients.get_mut(id) {
                client.flags.listed = false;
            }
            self.weigh(id);
        }
    }

    pub(super) fn end_of_input(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.flags.ended = true;
        client.flags.paused = true;
        // What waits at the server for somebody who has gone must not be carried out for nobody; half a request never is.
        let session = client.session.as_ref();
        if client.flags.streaming || session.is_some_and(|session| session.own.blocked) {
            self.close_client(id);
        } else if client.wait == Wait::Nothing {
            self.finish(id);
        }
    }

    /// Takes no more requests: the client is closed when it has been answered.
    pub(super) fn finish(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.flags.closing = true;
        client.flags.paused = true;
        client.wait = Wait::Nothing;
        self.spare.give(std::mem::take(&mut client.input));
        self.close_if_done(id);
    }

    pub(super) fn close_if_done(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        if client.flags.closing && client.in_flight == 0 && client.output.is_empty() {
            self.close_client(id);
        }
    }

    /// Closes a client now.
    pub(super) fn close_client(&mut self, id: ClientId) {
        if self.forget_client(id) {
            self.events.push_back(Event::CloseClient { client: id, reset: false });
        }
    }

    /// Closes a client now, and shows it that something is lost.
    pub(super) fn reset_client(&mut self, id: ClientId, why: &'static str) {
        let Some(client) = self.clients.get(id) else { return };
        debug!(
            group = %self.settings.group, in_flight = client.in_flight, unsent = client.output.len(), why,
            "a client's connection is reset"
        );
        self.counts.unknown += u64::from(client.in_flight > 0 || !client.output.is_empty());
        self.forget_client(id);
        self.events.push_back(Event::CloseClient { client: id, reset: true });
    }

    /// Takes a client out of the books. Replies that it will not hear are still awaited.
    pub(super) fn forget_client(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.remove(id) else { return false };
        self.counts.withheld -= u64::from(client.output.is_withheld());
        self.counts.held -= u64::from(client.since.is_some());
        self.spare.give(client.input);
        self.leave_lane(client.lane);
        if let (Some(link), Some(true)) = (client.link, client.session.map(|session| session.own.attached)) {
            self.discard_link(link);
        }
        true
    }

    /// A request of the client has waited for `hold`.
    pub(super) fn expire(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let due = client.since.is_some_and(|since| since.plus(self.settings.hold.0) <= self.now);
        if due {
            client.flags.expired = true;
            self.resume(id);
        }
    }
}
