//! Lanes: clients that log in alike, speak the same protocol and have the same database selected share links.

use super::api::Login;
use super::ids::{ClientId, LinkId};
use election::Millis;
use std::rc::Rc;

/// The index of a lane.
pub(super) type LaneId = u32;

/// The lane of a client that has just connected.
pub(super) const FIRST: LaneId = 0;

/// What the clients of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) login: Option<Rc<Login>>,
    /// The version of RESP, 2 or 3.
    pub(super) protocol: u8,
    pub(super) database: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: Key,
    /// Clients that are in it, or want to be.
    pub(super) clients: u32,
    /// Since when there is none.
    pub(super) empty_since: Millis,
    /// By place.
    pub(super) tracks: Vec<Track>,
}

/// A lane's links to one destination.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) shared: Shared,
    /// Links of their own that nobody needs at the moment, clean.
    pub(super) idle: Vec<LinkId>,
    /// Clients that cannot go on before a link is there.
    pub(super) waiting: Vec<ClientId>,
    pub(super) retry: Retry,
    /// Why the server lets nobody in by this login, as it said itself.
    pub(super) refused: Option<Rc<[u8]>>,
    /// Why there is no link.
    pub(super) trouble: Option<Rc<str>>,
}

/// The link that a lane's clients share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shared {
    #[default]
    None,
    Making(LinkId),
    Ready(LinkId),
}

/// When to try again, sooner at first.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// Not before.
    pub(super) at: Option<Millis>,
    pause: u64,
}

/// An instance that refuses is being replaced or is starting.
const RETRY_FIRST_MS: u64 = 10;
const RETRY_LONGEST_MS: u64 = 250;

/// How long a server's "no" to a login stands before it is asked again.
pub(super) const REFUSED_MS: u64 = 1_000;

/// A lane that nobody uses is kept for clients that connect for each request.
pub(super) const EMPTY_MS: u64 = 60_000;

impl Retry {
    /// It has failed: not before a while, which is returned.
    pub(super) fn failed(&mut self, now: Millis) -> Millis {
        self.pause = (self.pause * 2).clamp(RETRY_FIRST_MS, RETRY_LONGEST_MS);
        self.wait(self.pause, now)
    }

    /// Not before so many milliseconds.
    pub(super) fn wait(&mut self, ms: u64, now: Millis) -> Millis {
        let at = now.plus(ms);
        self.at = Some(at);
        at
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// All lanes. There are few: logins times protocols times databases.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Option<Lane>>);

impl Lanes {
    pub(super) fn new() -> Self {
        let mut lanes = Self(Vec::new());
        lanes.find_or_add(&Key { login: None, protocol: 2, database: 0 });
        lanes
    }

    #[inline]
    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.0.get(id as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.0.get_mut(id as usize)?.as_mut()
    }

    /// The lane's links to a destination.
    pub(super) fn track(&mut self, id: LaneId, place: usize) -> Option<&mut Track> {
        let tracks = &mut self.get_mut(id)?.tracks;
        if tracks.len() <= place {
            tracks.resize_with(place + 1, Track::default);
        }
        tracks.get_mut(place)
    }

    pub(super) fn find_or_add(&mut self, key: &Key) -> LaneId {
        let found = self.0.iter().position(|lane| lane.as_ref().is_some_and(|lane| lane.key.is(key)));
        let free = || self.0.iter().position(Option::is_none);
        let at = found.or_else(free).unwrap_or(self.0.len());
        if found.is_none() {
            let lane = Lane { key: key.clone(), clients: 0, empty_since: Millis(0), tracks: Vec::new() };
            if let Some(place) = self.0.get_mut(at) {
                *place = Some(lane);
            } else {
                self.0.push(Some(lane));
            }
        }
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, id: LaneId) {
        if let Some(place) = self.0.get_mut(id as usize) {
            *place = None;
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LaneId, &mut Lane)> {
        self.0.iter_mut().zip(0..).filter_map(|(lane, id)| Some((id, lane.as_mut()?)))
    }
}

impl Key {
    fn is(&self, other: &Key) -> bool {
        let login = match (&self.login, &other.login) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.user == theirs.user && alike(ours, theirs),
            _ => false,
        };
        login && (self.protocol, self.database) == (other.protocol, other.database)
    }
}

/// Takes as long for a nearly right password as for a wrong one.
fn alike(ours: &Login, theirs: &Login) -> bool {
    let (ours, theirs) = (ours.password.reveal().as_bytes(), theirs.password.reveal().as_bytes());
    ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |unlike, (a, b)| unlike | (a ^ b)) == 0
}
