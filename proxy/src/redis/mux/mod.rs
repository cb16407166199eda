//! The multiplexer of one worker: whose request goes where, and which reply may leave.
//!
//! It knows clients, links (connections to a database) and the rules, but no socket and no clock: bytes and instants go
//! in, bytes and [`Event`]s come out. A client's way through it: [`requests`] finds what is asked and sends it over a
//! link of the client's lane ([`lanes`], [`links`]); [`replies`] brings the answer to the client's [`output`], which a
//! barrier may withhold.

mod api;
mod barrier;
mod buffers;
mod client;
mod clients;
mod course;
mod durable;
mod ids;
mod lanes;
mod link;
mod links;
mod local;
mod output;
mod own;
mod own_replies;
mod own_requests;
mod prepare;
mod replies;
mod requests;
mod session;
mod subscriptions;
mod switchover;
mod timers;
mod ways;

#[cfg(test)]
mod tests;

pub(crate) use api::{Acks, Counts, Destination, Event, Heading, Login, Settings};
pub(crate) use ids::{ClientId, LinkId};

use crate::redis::commands::Commands;
use buffers::Buffers;
use client::Client;
use course::{Kinds, Place};
use durable::Control;
use election::Millis;
use ids::Slab;
use lanes::Lanes;
use link::Link;
use std::collections::VecDeque;
use timers::{Timer, Timers};

/// See the module.
#[derive(Debug)]
pub(crate) struct Mux {
    settings: Settings,
    heading: Heading,
    /// What the heading makes of replies.
    kinds: Kinds,
    /// The destinations, by a number that stays theirs: of the master at most one, of replicas as many as take requests.
    places: Vec<Option<Place>>,
    /// What is known of commands before a server has told.
    built_in: Commands,
    /// Who was given the last place.
    turn: usize,
    clients: Slab<ClientId, Client>,
    links: Slab<LinkId, Link>,
    lanes: Lanes,
    events: VecDeque<Event>,
    /// Clients that may go on.
    wakes: Vec<ClientId>,
    /// Clients with a request and nowhere to go.
    stranded: Vec<ClientId>,
    /// Clients that are not read since their link has too much to send.
    choked: Vec<ClientId>,
    control: Control,
    timers: Timers,
    spare: Buffers,
    /// Replies that are still to come, those to clients that have gone included.
    in_flight: usize,
    counts: Counts,
    now: Millis,
}

impl Mux {
    pub(crate) fn new(settings: Settings) -> Self {
        let heading = Heading::default();
        Self {
            settings,
            kinds: Kinds::of(heading.acks),
            heading,
            places: Vec::new(),
            built_in: Commands::built_in(),
            turn: 0,
            clients: Slab::new(),
            links: Slab::new(),
            lanes: Lanes::new(),
            events: VecDeque::new(),
            wakes: Vec::new(),
            stranded: Vec::new(),
            choked: Vec::new(),
            control: Control::new(),
            timers: Timers::default(),
            spare: Buffers::default(),
            in_flight: 0,
            counts: Counts::default(),
            now: Millis(0),
        }
    }

    /// Obeys another heading; an equal one changes nothing.
    pub(crate) fn set_heading(&mut self, heading: Heading, now: Millis) {
        self.now = now;
        if heading != self.heading {
            self.head_for(heading);
        }
    }

    /// A client has connected.
    pub(crate) fn accept(&mut self, now: Millis) -> ClientId {
        self.now = now;
        if let Some(lane) = self.lanes.get_mut(lanes::FIRST) {
            lane.clients += 1;
        }
        self.clients.insert(Client::new())
    }

    /// Bytes of a client, only while [`Self::wants_input`].
    pub(crate) fn client_input(&mut self, id: ClientId, bytes: &[u8], now: Millis) {
        self.now = now;
        self.take_input(id, bytes);
    }

    /// Whether the client is to be read. After a `false`, [`Event::ReadClient`] says when it is again.
    pub(crate) fn wants_input(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| !client.flags.paused)
    }

    /// The client asks for nothing more, but hears the answers to what it has asked.
    pub(crate) fn client_ended(&mut self, id: ClientId, now: Millis) {
        self.now = now;
        self.end_of_input(id);
    }

    /// The client's connection is broken. No event follows.
    pub(crate) fn client_gone(&mut self, id: ClientId, now: Millis) {
        self.now = now;
        if self.forget_client(id) {
            self.clients.release(id);
        }
    }

    /// A dialled link is there.
    pub(crate) fn link_connected(&mut self, id: LinkId, now: Millis) {
        self.now = now;
        self.prepare_link(id);
    }

    /// A link could not be made. It is asked for again when it is time.
    pub(crate) fn link_failed(&mut self, id: LinkId, reason: String, now: Millis) {
        self.now = now;
        if self.drop_link(id, &reason) {
            self.links.release(id);
        }
    }

    /// Bytes of a database.
    pub(crate) fn link_input(&mut self, id: LinkId, bytes: &[u8], now: Millis) {
        self.now = now;
        self.take_replies(id, bytes);
    }

    /// A link has ended or is broken.
    pub(crate) fn link_gone(&mut self, id: LinkId, now: Millis) {
        self.now = now;
        if self.drop_link(id, "the server has closed the connection") {
            self.links.release(id);
        }
    }

    /// To be called once a turn, after all of its input.
    pub(crate) fn flush(&mut self, now: Millis) {
        self.now = now;
        self.wake();
        self.ask();
    }

    /// What is to be done next.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.wake();
        }
        let event = self.events.pop_front()?;
        match event {
            Event::CloseClient { client, .. } => self.clients.release(client),
            Event::CloseLink(link) => self.links.release(link),
            Event::Dial { .. } | Event::ClientOutput(_) | Event::LinkOutput(_) | Event::ReadClient(_) => {}
        }
        Some(event)
    }

    /// What may be sent to the client.
    #[inline]
    pub(crate) fn client_output(&self, id: ClientId) -> &[u8] {
        self.clients.get(id).map_or(&[], |client| client.output.ready())
    }

    /// So many bytes of it were sent.
    #[inline]
    pub(crate) fn client_sent(&mut self, id: ClientId, len: usize) {
        self.output_sent(id, len);
    }

    /// What is to be sent over the link.
    #[inline]
    pub(crate) fn link_output(&self, id: LinkId) -> &[u8] {
        self.links.get(id).map_or(&[], |link| link.output.ready())
    }

    /// So many bytes of it were sent.
    #[inline]
    pub(crate) fn link_sent(&mut self, id: LinkId, len: usize) {
        if let Some(link) = self.links.get_mut(id) {
            link.output.advance(len);
            if !self.choked.is_empty() && link.output.len() < links::CHOKED_BYTES {
                self.unchoke();
            }
        }
    }

    /// When [`Self::tick`] has something to do even if nothing happens.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// The deadline has come.
    pub(crate) fn tick(&mut self, now: Millis) {
        self.now = now;
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Expire(id) => self.expire(id),
                Timer::Retry(lane, place) => self.retry(lane, place),
                Timer::Control => self.retry_control(),
                Timer::Sweep => self.sweep(),
            }
        }
        self.wake();
    }

    /// Whether nothing of the present epoch is in flight or withheld. While the heading is held, nothing new is sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.counts.withheld == 0 && !self.is_in_transaction()
    }

    /// Totals since the start, and how things stand.
    pub(crate) fn counts(&self) -> Counts {
        Counts { clients: self.clients.len() as u64, links: self.links.len() as u64, ..self.counts }
    }

    /// Lets clients go on that may.
    fn wake(&mut self) {
        while let Some(id) = self.wakes.pop() {
            self.resume(id);
        }
    }
}
