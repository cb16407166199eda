//! What follows when the heading changes: whose connection ends, and who goes on elsewhere.

use super::api::{Acks, Destination, Heading};
use super::ids::{ClientId, LinkId};
use super::lanes::FIRST;
use super::link::Kind;
use super::{Event, Mux};
use crate::redis::commands::Commands;
use config::ListenerRole;
use election::Reads;

/// A destination, and what its links have learned of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) destination: Destination,
    /// The table of the process that answers there; absent before one was asked.
    pub(super) commands: Option<Commands>,
    pub(super) version: String,
    /// It has been told that links to it are lost.
    pub(super) mourned: bool,
}

impl Place {
    fn new(destination: Destination) -> Self {
        Self { destination, commands: None, version: String::new(), mourned: false }
    }
}

/// What becomes of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) read: Kind,
    pub(super) write: Kind,
}

impl Kinds {
    pub(super) fn of(acks: Acks) -> Self {
        match acks {
            Acks::Master => Self { read: Kind::Free, write: Kind::Free },
            Acks::Replica { reads: Reads::Local, .. } => Self { read: Kind::Free, write: Kind::Withheld },
            Acks::Replica { reads: Reads::Durable, .. } => Self { read: Kind::Withheld, write: Kind::Withheld },
        }
    }
}

impl Mux {
    pub(super) fn head_for(&mut self, heading: Heading) {
        let before = std::mem::replace(&mut self.heading, heading);
        self.kinds = Kinds::of(self.heading.acks);
        if !self.heading.held {
            self.control.to_unblock.clear();
        }
        match self.settings.role {
            ListenerRole::Master => {
                if before.epoch != self.heading.epoch || !same(&before.to, &self.heading.to) {
                    self.new_master(before.held);
                } else if let (Some(Some(place)), Some(to)) = (self.places.first_mut(), self.heading.to.first()) {
                    let moved = place.destination.databases != to.databases;
                    place.destination = to.clone();
                    self.new_acks();
                    if moved && let Some(link) = self.control.link {
                        // It has another database selected than that of the marker.
                        self.discard_link(link);
                        self.control_lost();
                    }
                    if self.heading.held {
                        self.end_waiting();
                    }
                }
            }
            ListenerRole::Replica => self.new_replicas(),
        }
        self.wakes.append(&mut self.stranded);
    }

    /// No byte of the old epoch is sent or passed on from here on. Whose request is in flight, or whose reply has not
    /// left yet, learns that its outcome is unknown; the others do not notice.
    fn new_master(&mut self, planned: bool) {
        let ids: Vec<ClientId> = self.clients.ids().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(id) else { continue };
            let attached = client.session.as_ref().is_some_and(|session| session.own.attached);
            // Half a frame can be followed by nothing but its end.
            let amid =
                client.link.take().and_then(|link| self.links.get(link)).is_some_and(|link| link.passing.is_some());
            let lost = attached && !self.survives(id, planned && !amid);
            let Some(client) = self.clients.get_mut(id) else { continue };
            if lost || client.in_flight > 0 || !client.output.is_empty() {
                self.reset_client(id, "its request, or what bound it to its connection, ended with the epoch");
            }
        }
        let links: Vec<LinkId> = self.links.ids().collect();
        for id in links {
            self.links.remove(id);
            self.events.push_back(Event::CloseLink(id));
        }
        self.in_flight = 0;
        self.places = self.heading.to.first().cloned().map(|to| Some(Place::new(to))).into_iter().collect();
        let mut lanes = Vec::new();
        for (id, lane) in self.lanes.iter_mut() {
            for mut track in std::mem::take(&mut lane.tracks) {
                self.wakes.append(&mut track.waiting);
            }
            lanes.extend((lane.clients > 0 || id == FIRST).then_some(id));
        }
        self.new_control();
        if !self.places.is_empty() {
            for lane in lanes {
                self.make_shared(lane, 0);
            }
        }
    }

    /// Replicas that are not to take requests any more answer those they have; the others go on.
    fn new_replicas(&mut self) {
        for at in 0..self.places.len() {
            let gone = self.places[at]
                .as_ref()
                .is_some_and(|place| !self.heading.to.iter().any(|to| to.endpoint == place.destination.endpoint));
            if gone {
                self.places[at] = None;
                self.retire(at);
            }
        }
        for to in self.heading.to.clone() {
            let known = |place: &Place| place.destination.endpoint == to.endpoint;
            if let Some(place) = self.places.iter_mut().flatten().find(|place| known(place)) {
                place.destination = to;
                continue;
            }
            // A link that still answers for a former place must not be taken for one of the new.
            let busy = |at: usize| self.links.ids().any(|id| self.links.get(id).is_some_and(|link| link.place == at));
            match (0..self.places.len()).find(|at| self.places[*at].is_none() && !busy(*at)) {
                Some(at) => self.places[at] = Some(Place::new(to)),
                None => self.places.push(Some(Place::new(to))),
            }
        }
    }

    /// Takes a place out of use: its links end with their last reply, its waiting clients are sent elsewhere.
    fn retire(&mut self, at: usize) {
        for (_, lane) in self.lanes.iter_mut() {
            if let Some(track) = lane.tracks.get_mut(at) {
                self.wakes.append(&mut std::mem::take(track).waiting);
            }
        }
        let links: Vec<LinkId> = self.links.ids().collect();
        for id in links {
            let Some(link) = self.links.get_mut(id).filter(|link| link.place == at) else { continue };
            link.retired = true;
            self.end_if_done(id);
        }
    }

    /// The place that a client's requests go to, if there is one.
    pub(super) fn place_of(&mut self, id: ClientId) -> Option<usize> {
        let client = self.clients.get_mut(id)?;
        let present = client.place.map(|place| place as usize);
        if let Some(at) = present
            && self.places.get(at).is_some_and(Option::is_some)
        {
            return Some(at);
        }
        let count = self.places.len();
        let next = (1..=count).map(|step| (self.turn + step) % count).find(|at| self.places[*at].is_some())?;
        self.turn = next;
        client.place = u32::try_from(next).ok();
        Some(next)
    }
}

/// Whether links to the one may serve for the other. How many databases there are is learned late, and no reason to
/// begin anew.
fn same(before: &[Destination], now: &[Destination]) -> bool {
    let process = |to: &Destination| (to.endpoint.clone(), to.incarnation.clone());
    before.iter().map(process).eq(now.iter().map(process))
}
