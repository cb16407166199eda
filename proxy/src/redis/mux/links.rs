//! How links are made, proved, and lost.

use super::api::Login;
use super::client::Wait;
use super::ids::{ClientId, LinkId};
use super::lanes::{EMPTY_MS, FIRST, Key, LaneId, REFUSED_MS, Shared};
use super::link::{Link, Purpose, Stage};
use super::prepare::{DEFAULT_USER, Failure, Learned, Preparation, Prepared, Wanted};
use super::timers::Timer;
use super::{Event, Mux};
use crate::redis::scan::FoundReply;
use crate::redis::view::Reply;
use config::ListenerRole;
use std::rc::Rc;
use tracing::{debug, warn};

/// While a link has more than this to send, its clients are not read.
pub(super) const CHOKED_BYTES: usize = 1024 * 1024;

/// What a server may answer while a link is prepared; its table of commands is the most of it.
const PREPARATION_BYTES: usize = 16 * 1024 * 1024;

/// Whether a login is that of the account that the agent closes and opens.
fn is_default(login: Option<&Login>) -> bool {
    login.and_then(|login| login.user.as_deref()).is_none_or(|user| user == DEFAULT_USER)
}

impl Mux {
    /// Begins to make the link that a lane's clients share, unless there is one.
    pub(super) fn make_shared(&mut self, lane: LaneId, place: usize) {
        let Some(Some(to)) = self.places.get(place) else { return };
        let endpoint = to.destination.endpoint.clone();
        let Some(track) = self.lanes.track(lane, place).filter(|track| track.shared == Shared::None) else { return };
        let link = self.links.insert(Link::new(place, Purpose::Shared(lane)));
        track.shared = Shared::Making(link);
        self.events.push_back(Event::Dial { link, endpoint });
    }

    /// A link is connected: it says who it is and asks who is there, in one go.
    pub(super) fn prepare_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(Some(place)) = self.places.get(link.place) else { return };
        let lane = match link.purpose {
            Purpose::Shared(lane) | Purpose::Own(lane, _) => self.lanes.get(lane).map(|lane| &lane.key),
            Purpose::Control => None,
        };
        let name = format!("understudy:{}", self.settings.name);
        let wanted = Wanted {
            login: match lane {
                Some(key) => key.login.as_deref(),
                None => self.settings.account.as_ref(),
            },
            protocol: lane.map_or(2, |key| key.protocol),
            // The marker's database is behind the clients'.
            database: lane.map_or(place.destination.databases.unwrap_or(0), |key| key.database),
            name: name.as_bytes(),
            commands: place.commands.is_none(),
            number: matches!(link.purpose, Purpose::Own(..)),
            // Other accounts are not the agent's to close, and may lack the right for good.
            open: self.settings.role == ListenerRole::Master
                && lane.is_some_and(|key| is_default(key.login.as_deref())),
        };
        let incarnation = place.destination.incarnation.clone();
        link.stage = Stage::Preparing(Box::new(Preparation::new(wanted, incarnation, link.output.buffer())));
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(id));
        }
    }

    /// Takes in what a server answers while a link is prepared; returns how many bytes were used.
    pub(super) fn prepared(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(link) = self.links.get_mut(id) else { return at };
            let Stage::Preparing(preparation) = &mut link.stage else { return at };
            let reply = match link.scan.scan(&bytes[at..]) {
                Ok(FoundReply::Whole(len)) => &bytes[at..at + len],
                Ok(FoundReply::Half | FoundReply::Big) if bytes.len() - at <= PREPARATION_BYTES => return at,
                Ok(_) => {
                    self.lose_link(id, "it says too much");
                    return at;
                }
                Err(malformed) => {
                    self.lose_link(id, &malformed.to_string());
                    return at;
                }
            };
            at += reply.len();
            match preparation.reply(Reply::new(reply)) {
                Prepared::NotYet => {}
                Prepared::Ready(learned) => self.link_ready(id, learned),
                Prepared::Refused(error) => self.link_refused(id, &error),
                Prepared::Failed(failure) => {
                    if matches!(failure, Failure::Incarnation { .. }) {
                        self.counts.wrong_incarnation += 1;
                    }
                    self.lose_link(id, &failure.to_string());
                }
            }
        }
    }

    fn link_ready(&mut self, id: LinkId, learned: Learned) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.stage = Stage::Ready;
        link.number = learned.number;
        let (at, purpose) = (link.place, link.purpose);
        if purpose == Purpose::Control {
            self.control_ready(&learned.version);
        }
        if let Some(Some(place)) = self.places.get_mut(at) {
            place.version = learned.version;
            if learned.commands.is_some() {
                place.commands = learned.commands;
            }
        }
        match purpose {
            Purpose::Shared(lane) | Purpose::Own(lane, _) => {
                let Some(track) = self.lanes.track(lane, at) else { return };
                track.retry.succeeded();
                track.refused = None;
                track.trouble = None;
                if matches!(purpose, Purpose::Own(..)) {
                    return self.own_ready(id, lane, at);
                }
                track.shared = Shared::Ready(id);
                self.wakes.append(&mut track.waiting);
            }
            Purpose::Control => {}
        }
    }

    /// The server does not let the lane's clients in. Its word stands for a moment, then it is asked again.
    fn link_refused(&mut self, id: LinkId, error: &[u8]) {
        let Some(link) = self.links.get(id) else { return };
        let (place, purpose) = (link.place, link.purpose);
        if let Purpose::Shared(lane) | Purpose::Own(lane, _) = purpose
            && let Some(track) = self.lanes.track(lane, place)
        {
            track.refused = Some(Rc::from(error));
            track.retry.wait(REFUSED_MS, self.now);
            self.wakes.append(&mut track.waiting);
            self.timers.set(self.now.plus(REFUSED_MS), Timer::Sweep);
        } else if purpose == Purpose::Control {
            self.control_refused(error);
        }
        self.discard_link(id);
    }

    /// A link is of no use: closes it, and all who waited for an answer over it.
    pub(super) fn lose_link(&mut self, id: LinkId, reason: &str) {
        if self.drop_link(id, reason) {
            self.events.push_back(Event::CloseLink(id));
        }
    }

    /// Closes a link over which nobody waits for anything.
    pub(super) fn discard_link(&mut self, id: LinkId) {
        if self.unlist_link(id).is_some() {
            self.events.push_back(Event::CloseLink(id));
        }
    }

    /// Takes a link out of the books that was lost, or could not be made. Whose requests were in flight learns that
    /// their outcome is unknown; nobody else is disturbed.
    pub(super) fn drop_link(&mut self, id: LinkId, reason: &str) -> bool {
        let Some(link) = self.unlist_link(id) else { return false };
        self.counts.links_lost += 1;
        let endpoint = self.note_loss(&link, reason);
        for run in &link.pending {
            self.reset_client(run.client, "the link that its reply was to come over is lost");
        }
        if let Purpose::Own(_, Some(client)) = link.purpose {
            // The old master ends its connections in a planned switchover, which may be heard of before the new record.
            // Half a frame can be followed by nothing but its end.
            let planned = self.heading.held && link.pending.is_empty() && link.passing.is_none();
            if let Some(client) = self.clients.get_mut(client) {
                client.link = None;
            }
            if !self.survives(client, planned) {
                // What bound the client to the link is gone with it.
                self.reset_client(client, "the link that it was bound to is lost");
            }
        }
        match link.purpose {
            Purpose::Shared(lane) | Purpose::Own(lane, _) if !link.retired => {
                let Some(track) = self.lanes.track(lane, link.place) else { return true };
                let at = track.retry.failed(self.now);
                track.trouble = Some(Rc::from(format!("{endpoint}: {reason}")));
                self.timers.set(at, Timer::Retry(lane, link.place));
            }
            Purpose::Shared(_) | Purpose::Own(..) => {}
            Purpose::Control => self.control_lost(),
        }
        true
    }

    /// Tells that a link is lost, once for each database and mastership: they are seldom lost alone. Gives the database's
    /// name.
    fn note_loss(&mut self, link: &Link, reason: &str) -> String {
        let group = &self.settings.group;
        let Some(place) = self.places.get_mut(link.place).and_then(Option::as_mut) else {
            return "a former destination".to_owned();
        };
        let endpoint = place.destination.endpoint.to_string();
        if !matches!(link.stage, Stage::Ready) {
            debug!(%group, instance = endpoint, reason, "a link could not be made");
        } else if !std::mem::replace(&mut place.mourned, true) {
            warn!(%group, instance = endpoint, reason, "links to a database are lost");
        }
        endpoint
    }

    /// Takes a link out of the lists it stands in.
    fn unlist_link(&mut self, id: LinkId) -> Option<Link> {
        let mut link = self.links.remove(id)?;
        self.in_flight -= link.in_flight();
        self.spare.give(std::mem::take(&mut link.input));
        if self.control.link == Some(id) {
            self.control.link = None;
        }
        if let Purpose::Shared(lane) | Purpose::Own(lane, _) = link.purpose
            && let Some(track) = self.lanes.track(lane, link.place)
        {
            if [Shared::Making(id), Shared::Ready(id)].contains(&track.shared) {
                track.shared = Shared::None;
            }
            track.idle.retain(|idle| *idle != id);
        }
        Some(link)
    }

    /// Ends a link that takes no new requests and has answered those it had.
    pub(super) fn end_if_done(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id).filter(|link| link.retired && link.pending.is_empty()) else { return };
        let bound = match link.purpose {
            Purpose::Own(_, client) => client.and_then(|client| self.clients.get(client)?.session.as_deref()),
            Purpose::Shared(_) | Purpose::Control => None,
        };
        if bound.is_some_and(|session| session.own.is_needed()) {
            // It is to learn that it is subscribed to nothing any more, or that its transaction is over.
            self.lose_link(id, "its destination takes no more requests");
        } else {
            self.discard_link(id);
        }
    }

    /// The clients that wait for a link of a lane look again, the first of them makes one.
    pub(super) fn retry(&mut self, lane: LaneId, place: usize) {
        if let Some(track) = self.lanes.track(lane, place) {
            self.wakes.append(&mut track.waiting);
        }
    }

    /// The lane of a key. A new one is given up if nobody comes to be in it.
    pub(super) fn lane_for(&mut self, key: &Key) -> LaneId {
        let id = self.lanes.find_or_add(key);
        if let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.clients == 0) {
            lane.empty_since = self.now;
            self.timers.set(self.now.plus(EMPTY_MS), Timer::Sweep);
        }
        id
    }

    /// A client has gone from a lane.
    pub(super) fn leave_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.clients -= 1;
        if lane.clients == 0 && id != FIRST {
            lane.empty_since = self.now;
            self.timers.set(self.now.plus(EMPTY_MS), Timer::Sweep);
        }
    }

    /// Gives up lanes that nobody has used for long, or that the server lets nobody into.
    pub(super) fn sweep(&mut self) {
        let Self { lanes, clients, timers, now, .. } = self;
        let now = *now;
        let mut gone = Vec::new();
        for (id, lane) in lanes.iter_mut() {
            let refused = lane.tracks.iter().any(|track| track.refused.is_some());
            let waits = |id: &ClientId| clients.get(*id).is_some_and(|client| client.wait == Wait::Link);
            let waited = lane.clients == 0 && lane.tracks.iter().any(|track| track.waiting.iter().any(waits));
            if waited {
                timers.set(now.plus(EMPTY_MS), Timer::Sweep);
            }
            let old = now.since(lane.empty_since) >= if refused { REFUSED_MS } else { EMPTY_MS };
            if id != FIRST && lane.clients == 0 && !waited && old {
                gone.push(id);
            }
        }
        for id in gone {
            let ours = |purpose| matches!(purpose, Purpose::Shared(lane) | Purpose::Own(lane, _) if lane == id);
            let links: Vec<LinkId> = self.links.ids().collect();
            for link in links {
                if let Some(found) = self.links.get_mut(link).filter(|link| ours(link.purpose)) {
                    // Requests of clients that have gone since may still be in flight.
                    found.retired = true;
                    self.end_if_done(link);
                }
            }
            self.lanes.remove(id);
        }
    }

    /// What a client is told whose request could not be sent within `hold`.
    pub(super) fn expired_text(&mut self, lane: Option<(LaneId, usize)>) -> Vec<u8> {
        let Self { settings, lanes, .. } = self;
        let trouble = lane.and_then(|(lane, place)| lanes.track(lane, place)?.trouble.clone());
        let seconds = settings.hold.0.div_ceil(1_000);
        let what = match (&trouble, settings.role) {
            (Some(trouble), _) => format!("could not be reached for {seconds}s ({trouble})"),
            (None, config::ListenerRole::Master) => format!("has had no open master for {seconds}s"),
            (None, config::ListenerRole::Replica) => format!("has had no replica within its lag for {seconds}s"),
        };
        let text = format!("-ERR understudy: group \"{}\" {what}; the request was not carried out\r\n", settings.group);
        text.into_bytes()
    }
}
