//! Links that belong to one client for a while: made or taken from the idle ones, and given back clean.

use super::ids::{ClientId, LinkId};
use super::lanes::LaneId;
use super::link::{Kind, Link, Purpose, Run, Stage};
use super::local::name_request;
use super::requests::Taken;
use super::ways::Way;
use super::{Event, Mux};
use crate::redis::commands::Class;

/// Idle links that a lane keeps: enough for a few workers that block in turn.
const IDLE: usize = 8;

impl Mux {
    /// The link that is the client's own, if it has one.
    #[inline]
    pub(super) fn own_link(&self, id: ClientId) -> Option<LinkId> {
        let client = self.clients.get(id)?;
        client.session.as_ref().filter(|session| session.own.attached)?;
        client.link
    }

    /// Takes a request that needs a link of the client's own.
    pub(super) fn on_own(&mut self, id: ClientId, bytes: &[u8], class: Class) -> Taken {
        match self.get_own(id) {
            Way::Waits => Taken::NotYet,
            Way::Refused(error) => self.local(id, &error),
            Way::Open(link) => self.own_request(id, link, bytes, class),
        }
    }

    /// Sees that the client has a link of its own.
    pub(super) fn get_own(&mut self, id: ClientId) -> Way {
        if let Some(link) = self.own_link(id) {
            return Way::Open(link);
        }
        if !self.is_drained(id) {
            return Way::Waits;
        }
        let Some(lane) = self.clients.get(id).map(|client| client.lane) else { return Way::Waits };
        let place = if self.heading.held { None } else { self.place_of(id) };
        let Some(place) = place else { return self.wait_for_link(id, None) };
        if let Some(link) = self.idle_link(lane, place) {
            self.attach(id, link);
            return Way::Open(link);
        }
        let now = self.now;
        let Some(track) = self.lanes.track(lane, place) else { return Way::Waits };
        if let Some(error) = track.refused.as_ref().filter(|_| !track.retry.is_due(now)) {
            return Way::Refused([b"-", &error[..], b"\r\n"].concat());
        }
        if track.retry.is_due(now) {
            self.make_own(id, lane, place);
        }
        self.wait_for_link(id, Some((lane, place)))
    }

    fn idle_link(&mut self, lane: LaneId, place: usize) -> Option<LinkId> {
        let Self { lanes, links, .. } = self;
        let idle = &mut lanes.track(lane, place)?.idle;
        std::iter::from_fn(|| idle.pop()).find(|link| links.get(*link).is_some_and(|link| link.is_open()))
    }

    /// Begins to make a link for the client, unless one is being made.
    fn make_own(&mut self, id: ClientId, lane: LaneId, place: usize) {
        let (Some(client), Some(Some(to))) = (self.clients.get_mut(id), self.places.get(place)) else { return };
        let making = client.session().own.making.and_then(|link| self.links.get(link));
        if making.is_some_and(|link| !matches!(link.stage, Stage::Ready)) {
            return;
        }
        let link = self.links.insert(Link::new(place, Purpose::Own(lane, None)));
        client.session().own.making = Some(link);
        self.events.push_back(Event::Dial { link, endpoint: to.destination.endpoint.clone() });
    }

    /// The link is the client's from now on; its name at the server is the client's.
    fn attach(&mut self, id: ClientId, link_id: LinkId) {
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return };
        link.purpose = Purpose::Own(client.lane, Some(id));
        client.link = Some(link_id);
        let session = client.session();
        session.own.attached = true;
        session.own.making = None;
        if session.name != link.name {
            link.name.clone_from(&session.name);
            name_request(link.output.buffer(), &session.name);
            self.swallow(id, link_id);
        }
    }

    /// A reply is to come that the client knows nothing of.
    pub(super) fn swallow(&mut self, id: ClientId, link_id: LinkId) {
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return };
        link.expect(Run { client: id, count: 1, kind: Kind::Dropped });
        client.in_flight += 1;
        self.in_flight += 1;
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(link_id));
        }
    }

    /// Gives the client's own link back when nothing binds it any more.
    pub(super) fn return_own(&mut self, id: ClientId) {
        let Some(link_id) = self.own_link(id) else { return };
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.in_flight > 0 || client.session().own.is_needed() {
            return;
        }
        client.session().own.attached = false;
        client.link = None;
        let lane = client.lane;
        let Some(link) = self.links.get_mut(link_id) else { return };
        link.purpose = Purpose::Own(lane, None);
        let (place, dirty) = (link.place, link.dirty || link.retired);
        match self.lanes.track(lane, place) {
            Some(track) if !dirty && track.idle.len() < IDLE => {
                link.output.shrink();
                track.idle.push(link_id);
                // Somebody may wait for just such a one.
                self.wakes.append(&mut track.waiting);
            }
            _ => self.discard_link(link_id),
        }
    }

    /// Ends the client's own link, and what bound the client to it.
    pub(super) fn end_own(&mut self, id: ClientId) {
        let Some(link) = self.own_link(id) else { return };
        if let Some(client) = self.clients.get_mut(id) {
            client.session().own = super::session::Own::default();
            client.link = None;
        }
        self.discard_link(link);
    }

    /// A link for one client is ready: whoever waits takes it.
    pub(super) fn own_ready(&mut self, id: LinkId, lane: LaneId, place: usize) {
        if let Some(track) = self.lanes.track(lane, place) {
            track.idle.push(id);
            self.wakes.append(&mut track.waiting);
        }
    }

    /// Whether some client's transaction has begun: it is seen through before roles change.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.links.ids().filter_map(|link| self.links.get(link)).any(|link| match link.purpose {
            Purpose::Own(_, Some(client)) => {
                let session = self.clients.get(client).and_then(|client| client.session.as_deref());
                session.is_some_and(|session| session.own.is_in_transaction() || session.own.streaming)
            }
            Purpose::Own(_, None) | Purpose::Shared(_) | Purpose::Control => false,
        })
    }

    /// Whether the bytes of a frame are on their way to the client, so that nothing may be put between.
    pub(super) fn is_amid_frame(&self, id: ClientId) -> bool {
        self.own_link(id).and_then(|link| self.links.get(link)).is_some_and(|link| link.passing.is_some())
    }
}
