//! The multiplexer of one worker: whose request goes where, and which reply may leave.
//!
//! It knows clients, links (connections to a database) and the rules, but no socket and no clock: bytes and instants go
//! in, bytes and [`Event`]s come out.

mod api;
mod ids;

pub(crate) use api::{Acks, Counts, Destination, Event, Heading, Login, Settings};
pub(crate) use ids::{ClientId, LinkId};

use election::Millis;
use ids::Slab;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mux {
    settings: Settings,
    heading: Heading,
    clients: Slab<ClientId, Client>,
    events: VecDeque<Event>,
}

#[derive(Debug, Default)]
struct Client {
    output: Vec<u8>,
}

impl Mux {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, heading: Heading::default(), clients: Slab::new(), events: VecDeque::new() }
    }

    /// Obeys another heading; an equal one changes nothing.
    pub(crate) fn set_heading(&mut self, heading: Heading, _now: Millis) {
        self.heading = heading;
    }

    /// A client has connected.
    pub(crate) fn accept(&mut self, _now: Millis) -> ClientId {
        self.clients.insert(Client::default())
    }

    /// Bytes of a client, only while [`Self::wants_input`].
    pub(crate) fn client_input(&mut self, id: ClientId, _bytes: &[u8], _now: Millis) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let text = format!("-ERR understudy: group \"{}\" cannot be served yet\r\n", self.settings.group);
        client.output.extend_from_slice(text.as_bytes());
        self.events.push_back(Event::ClientOutput(id));
    }

    /// Whether the client is to be read. After a `false`, [`Event::ReadClient`] says when it is again.
    pub(crate) fn wants_input(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some()
    }

    /// The client takes part no more than to hear the answers to what it has asked.
    pub(crate) fn client_ended(&mut self, id: ClientId, _now: Millis) {
        if self.clients.get(id).is_some() {
            self.events.push_back(Event::CloseClient { client: id, reset: false });
        }
    }

    /// The client's connection is broken. No event follows.
    pub(crate) fn client_gone(&mut self, id: ClientId, _now: Millis) {
        if self.clients.remove(id).is_some() {
            self.clients.release(id);
        }
    }

    /// A dialled link is there.
    pub(crate) fn link_connected(&mut self, _id: LinkId, _now: Millis) {}

    /// A link could not be made. It is asked for again when it is time.
    pub(crate) fn link_failed(&mut self, _id: LinkId, _reason: String, _now: Millis) {}

    /// Bytes of a database.
    pub(crate) fn link_input(&mut self, _id: LinkId, _bytes: &[u8], _now: Millis) {}

    /// A link has ended or is broken.
    pub(crate) fn link_gone(&mut self, _id: LinkId, _now: Millis) {}

    /// To be called once a turn, after all of its input.
    pub(crate) fn flush(&mut self, _now: Millis) {}

    /// What is to be done next.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::CloseClient { client, .. } = event
            && self.clients.remove(client).is_some()
        {
            self.clients.release(client);
        }
        Some(event)
    }

    /// What may be sent to the client.
    pub(crate) fn client_output(&self, id: ClientId) -> &[u8] {
        self.clients.get(id).map_or(&[], |client| &client.output)
    }

    /// So many bytes of it were sent.
    pub(crate) fn client_sent(&mut self, id: ClientId, len: usize) {
        if let Some(client) = self.clients.get_mut(id) {
            client.output.drain(..len);
        }
    }

    /// What is to be sent over the link.
    pub(crate) fn link_output(&self, _id: LinkId) -> &[u8] {
        &[]
    }

    /// So many bytes of it were sent.
    pub(crate) fn link_sent(&mut self, _id: LinkId, _len: usize) {}

    /// When [`Self::tick`] has something to do even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        None
    }

    /// The deadline has come.
    pub(crate) fn tick(&mut self, _now: Millis) {}

    /// Whether nothing of the present epoch is in flight or withheld, and nothing new is sent.
    pub(crate) fn is_quiet(&self) -> bool {
        true
    }

    /// Totals since the start, and how things stand.
    pub(crate) fn counts(&self) -> Counts {
        Counts { clients: self.clients.len() as u64, ..Counts::default() }
    }
}
