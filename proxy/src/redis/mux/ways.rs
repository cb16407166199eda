//! Which link a client's next request may go over, and how it waits for one.

use super::Mux;
use super::client::Wait;
use super::ids::{ClientId, LinkId};
use super::lanes::{LaneId, Shared};
use super::timers::Timer;

/// Whether a request may go over a link of a lane.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Open(LinkId),
    /// The client waits, and is woken.
    Waits,
    /// The answer in the server's place, an error.
    Refused(Vec<u8>),
}

impl Mux {
    /// Finds the client's shared link.
    pub(super) fn way(&mut self, id: ClientId) -> Way {
        let Some(client) = self.clients.get_mut(id) else { return Way::Waits };
        if let Some(link) = client.link {
            if self.links.get(link).is_some_and(|link| link.is_open()) && !self.heading.held {
                return Way::Open(link);
            }
            if client.in_flight > 0 && !self.heading.held {
                // The rest of its replies comes over a link that takes no more.
                client.wait = Wait::Drained;
                return Way::Waits;
            }
        }
        let lane = client.lane;
        let way = self.way_in(id, lane);
        if let (Way::Open(link), Some(client)) = (&way, self.clients.get_mut(id)) {
            client.link = Some(*link);
        }
        way
    }

    /// Finds the shared link of a lane for a client, or has the client wait for it.
    pub(super) fn way_in(&mut self, id: ClientId, lane: LaneId) -> Way {
        let place = if self.heading.held { None } else { self.place_of(id) };
        let Some(place) = place else {
            return self.wait_for_link(id, None);
        };
        let now = self.now;
        let Some(track) = self.lanes.track(lane, place) else { return Way::Waits };
        if let Shared::Ready(link) = track.shared {
            return Way::Open(link);
        }
        if let Some(error) = track.refused.as_ref().filter(|_| !track.retry.is_due(now)) {
            return Way::Refused([b"-", &error[..], b"\r\n"].concat());
        }
        if track.shared == Shared::None && track.retry.is_due(now) {
            self.make_shared(lane, place);
        }
        self.wait_for_link(id, Some((lane, place)))
    }

    /// The client waits for a link of a lane, or for somewhere to go, until `hold` has passed.
    pub(super) fn wait_for_link(&mut self, id: ClientId, lane: Option<(LaneId, usize)>) -> Way {
        let Some(client) = self.clients.get_mut(id) else { return Way::Waits };
        if client.flags.expired {
            self.counts.expired += 1;
            return Way::Refused(self.expired_text(lane));
        }
        client.wait = Wait::Link;
        if client.since.is_none() {
            client.since = Some(self.now);
            self.counts.held += 1;
            self.timers.set(self.now.plus(self.settings.hold.0), Timer::Expire(id));
        }
        let list = match lane.and_then(|(lane, place)| self.lanes.track(lane, place)) {
            Some(track) => &mut track.waiting,
            None => &mut self.stranded,
        };
        list.push(id);
        // Those whose time was up stand in it more than once.
        if list.len() > 2 * self.clients.len() + 64 {
            list.sort_unstable();
            list.dedup();
        }
        Way::Waits
    }

    /// A request was sent, or refused: the next one waits anew.
    pub(super) fn not_held(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.since.take().is_some()
        {
            self.counts.held -= 1;
        }
    }
}
