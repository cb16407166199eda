//! A planned switchover, seen by clients that wait for something: they are not to notice it.
//!
//! A command that waits at the old master is ended there by `CLIENT UNBLOCK`. If it answers that it has got nothing, it
//! was certainly not carried out, and goes to the new master with what is left of its time. Subscriptions are made
//! again. All of this only while roles are changed by plan; otherwise the client learns that its connection is lost.

use super::ids::{ClientId, LinkId};
use super::link::{Kind, Purpose, Run};
use super::prepare::request;
use super::session::Own;
use super::ways::Way;
use super::{Event, Mux};
use crate::redis::scan::RequestScan;
use crate::redis::view::Request;
use election::Millis;

/// A request that waits at the server, kept so that it can be sent to another.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes: Box<[u8]>,
    /// When its time is up; absent when it has no limit, or one that is not known.
    until: Option<Millis>,
}

/// Where a command has its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The argument of this number, in seconds, with a fraction.
    Seconds(usize),
    /// In milliseconds.
    Milliseconds(usize),
}

/// What is left of a time limit that has passed while roles were changed: 0 would mean for ever.
const LEAST_MS: u64 = 1;

impl Mux {
    /// A request is sent that may wait; it may have waited before. Returns what to send.
    pub(super) fn note_waiting(&mut self, id: ClientId, bytes: &[u8]) -> Option<Vec<u8>> {
        let now = self.now;
        let own = &mut self.clients.get_mut(id)?.session().own;
        let limit = Limit::of(bytes);
        let again = own.again.take();
        let rewritten = match (again.and_then(|again| again.until), limit) {
            (Some(until), Some(limit)) => Some(limit.rewrite(bytes, Millis(until.since(now)))),
            _ => None,
        };
        let bytes = rewritten.as_deref().unwrap_or(bytes);
        let until = limit.and_then(|limit| limit.read(bytes)).filter(|left| left.0 > 0).map(|left| now.plus(left.0));
        own.waiting = Some(Waiting { bytes: bytes.into(), until });
        own.ended_for_plan = false;
        rewritten
    }

    /// Roles are being changed by plan: ends what waits at the old master.
    pub(super) fn end_waiting(&mut self) {
        let mut numbers = Vec::new();
        let links: Vec<LinkId> = self.links.ids().collect();
        for id in links {
            let Some(link) = self.links.get(id) else { continue };
            let (Purpose::Own(_, Some(client)), Some(number)) = (link.purpose, link.number) else { continue };
            let Some(client) = self.clients.get_mut(client) else { continue };
            let own = &mut client.session().own;
            // WAIT has an answer of its own for whoever does not wait any longer: it is left alone.
            if own.waiting.is_some() && !own.ended_for_plan {
                own.ended_for_plan = true;
                numbers.push(number);
            }
        }
        self.unblock(numbers);
    }

    /// The answer to a command that was ended for a switchover: whether it is sent again instead of being passed on.
    pub(super) fn waits_on(&mut self, id: ClientId, null: bool) -> bool {
        let now = self.now;
        let Some(client) = self.clients.get_mut(id) else { return false };
        let own = &mut client.session().own;
        let Some(waiting) = own.waiting.take() else { return false };
        let over = waiting.until.is_some_and(|until| until <= now);
        if !std::mem::take(&mut own.ended_for_plan) || !null || over {
            return false;
        }
        let behind = std::mem::take(&mut client.input);
        client.input = [&waiting.bytes, &behind[..]].concat();
        client.scan = RequestScan::default();
        client.session().own.again = Some(waiting);
        self.spare.give(behind);
        self.wakes.push(id);
        true
    }

    /// At the end of an epoch: whether a client that loses its own link is subscribed again at the new master.
    pub(super) fn survives(&mut self, id: ClientId, planned: bool) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let own = std::mem::take(&mut client.session().own);
        let only_subscribed = planned
            && !own.subscriptions.is_empty()
            && !(own.is_in_transaction() || own.pinned || own.streaming)
            && client.in_flight == 0
            && client.output.is_empty();
        if only_subscribed {
            client.session().own = Own { subscriptions: own.subscriptions, resubscribes: true, ..Own::default() };
            self.wakes.push(id);
        }
        only_subscribed
    }

    /// Subscribes a client again, as far as that is to be done; false when it still waits for a link.
    pub(super) fn resubscribe(&mut self, id: ClientId) -> bool {
        if !self.clients.get(id).is_some_and(super::Client::resubscribes) {
            return true;
        }
        match self.get_own(id) {
            Way::Waits => false,
            // It cannot be told that it hears nothing but by the end of its connection.
            Way::Refused(_) => {
                self.reset_client(id, "it cannot be subscribed again in time");
                false
            }
            Way::Open(link) => {
                self.send_subscriptions(id, link);
                true
            }
        }
    }

    fn send_subscriptions(&mut self, id: ClientId, link_id: LinkId) {
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return };
        let own = &mut client.session().own;
        own.resubscribes = false;
        let (requests, confirmations) = own.subscriptions.again();
        for words in requests {
            request(link.output.buffer(), &words);
        }
        let count = u32::try_from(confirmations).unwrap_or(u32::MAX);
        link.dirty = true;
        link.expect(Run { client: id, count, kind: Kind::Resubscribed });
        client.in_flight += count;
        self.in_flight += count as usize;
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(link_id));
        }
        self.not_held(id);
    }
}

impl Limit {
    fn of(bytes: &[u8]) -> Option<Self> {
        let request = Request::new(bytes);
        let name = request.name().to_ascii_lowercase();
        match &name[..] {
            b"blpop" | b"brpop" | b"brpoplpush" | b"blmove" | b"bzpopmin" | b"bzpopmax" => {
                Some(Self::Seconds(request.count().checked_sub(1)?))
            }
            b"blmpop" | b"bzmpop" => Some(Self::Seconds(1)),
            b"xread" | b"xreadgroup" => {
                let block = request.arguments().position(|word| word.eq_ignore_ascii_case(b"block"))?;
                Some(Self::Milliseconds(block + 1))
            }
            _ => None,
        }
    }

    /// The limit, 0 for none; absent when it cannot be understood.
    fn read(self, bytes: &[u8]) -> Option<Millis> {
        let argument = |at| std::str::from_utf8(Request::new(bytes).arguments().nth(at)?).ok();
        match self {
            Self::Seconds(at) => {
                let seconds: f64 = argument(at)?.parse().ok()?;
                let limit = std::time::Duration::try_from_secs_f64(seconds).ok()?;
                u64::try_from(limit.as_millis()).ok().map(Millis)
            }
            Self::Milliseconds(at) => argument(at)?.parse().ok().map(Millis),
        }
    }

    /// The request with another limit.
    fn rewrite(self, bytes: &[u8], left: Millis) -> Vec<u8> {
        let ms = left.0.max(LEAST_MS);
        let (at, text) = match self {
            Self::Seconds(at) => (at, format!("{}.{:03}", ms / 1_000, ms % 1_000)),
            Self::Milliseconds(at) => (at, ms.to_string()),
        };
        let mut words: Vec<&[u8]> = Request::new(bytes).arguments().collect();
        if let Some(word) = words.get_mut(at) {
            *word = text.as_bytes();
        }
        let mut rewritten = Vec::new();
        request(&mut rewritten, &words);
        rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::array;
    use super::*;

    #[test]
    fn limits_are_found_and_rewritten() {
        let rows: [(&[&str], Option<u64>, &[&str]); 6] = [
            (&["BLPOP", "a", "b", "1.5"], Some(1_500), &["BLPOP", "a", "b", "0.250"]),
            (&["blmpop", "3", "1", "k", "LEFT"], Some(3_000), &["blmpop", "0.250", "1", "k", "LEFT"]),
            (&["XREAD", "Block", "70", "STREAMS", "s", "$"], Some(70), &["XREAD", "Block", "250", "STREAMS", "s", "$"]),
            (&["BRPOP", "a", "0"], Some(0), &["BRPOP", "a", "0.250"]),
            (&["BRPOP", "a", "-1"], None, &["BRPOP", "a", "0.250"]),
            (&["BRPOP", "a", "x"], None, &["BRPOP", "a", "0.250"]),
        ];
        for (request, limit, rewritten) in rows {
            let bytes = array(request);
            let found = Limit::of(&bytes).expect("a command with a limit");
            assert_eq!(found.read(&bytes), limit.map(Millis), "{request:?}");
            assert_eq!(found.rewrite(&bytes, Millis(250)), array(rewritten));
        }
        assert_eq!(Limit::of(&array(&["MYBLOCK", "1"])), None);
        assert_eq!(Limit::of(&array(&["XREAD", "STREAMS", "s", "0"])), None);
    }
}
