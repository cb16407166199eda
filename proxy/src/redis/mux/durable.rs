//! Replies that wait until the hot replica has the writes behind them, and the link over which that is asked.
//!
//! One question at a time answers for everything that was read before it was sent; what is read meanwhile goes with the
//! next. Nothing is released by any other way than a barrier that was passed in the same epoch, or an operator's change
//! of the group's policy.

use super::api::Acks;
use super::barrier::{Barrier, Question, Verdict};
use super::ids::{ClientId, LinkId};
use super::lanes::{REFUSED_MS, Retry};
use super::link::{Link, Purpose};
use super::prepare::request;
use super::timers::Timer;
use super::{Event, Mux};
use crate::redis::scan::FoundReply;
use crate::redis::view::Reply;
use election::Reads;
use tracing::warn;

/// Before a question is repeated that was answered at once.
const PAUSE_MS: u64 = 10;

/// Since this version a server can be asked about disks.
const WAITAOF_SINCE: (u32, u32) = (7, 2);

/// See the module.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) link: Option<LinkId>,
    /// There once the link may be used.
    barrier: Option<Barrier>,
    /// Whether its server can be asked about disks.
    knows_disks: bool,
    /// When to dial, or to ask, again.
    retry: Retry,
    /// Why the server does not let the proxy's own account in.
    pub(super) refused: Option<String>,
    /// Clients with replies that the question being answered does not cover.
    fresh: Vec<ClientId>,
    /// Clients with replies that it covers.
    covered: Vec<ClientId>,
    /// More than one replication client confirms, and that has been said.
    strangers: bool,
    /// Connections whose waiting commands are to be ended, by their numbers at the server.
    pub(super) to_unblock: Vec<u64>,
    /// Answers to that which are still to come, before any other.
    unblocking: usize,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            link: None,
            barrier: None,
            knows_disks: false,
            retry: Retry::default(),
            refused: None,
            fresh: Vec::new(),
            covered: Vec::new(),
            strangers: false,
            to_unblock: Vec::new(),
            unblocking: 0,
        }
    }

    /// A client has a reply that the question being answered does not cover.
    #[inline]
    pub(super) fn wanted_by(&mut self, id: ClientId) {
        self.fresh.push(id);
    }
}

impl Mux {
    /// Whether replies wait for a hot replica.
    fn question(&self) -> Option<Question> {
        match self.heading.acks {
            Acks::Master => None,
            Acks::Replica { reads, fsync } => {
                Some(Question { reads: reads == Reads::Durable, disks: fsync && self.control.knows_disks })
            }
        }
    }

    /// A new master, or none: what was asked of the old one is void.
    pub(super) fn new_control(&mut self) {
        self.control = Control::new();
        if self.question().is_some() {
            self.make_control();
        }
    }

    /// The policy has changed: what does not have to wait any more leaves.
    pub(super) fn new_acks(&mut self) {
        if self.question().is_some() {
            self.make_control();
        } else {
            self.cover();
            self.release();
        }
    }

    /// It is time to dial, or to ask, again.
    pub(super) fn retry_control(&mut self) {
        if self.question().is_some() {
            self.make_control();
        }
        self.ask();
    }

    pub(super) fn make_control(&mut self) {
        let Some(Some(to)) = self.places.first() else { return };
        if self.control.link.is_some() || !self.control.retry.is_due(self.now) {
            return;
        }
        let endpoint = to.destination.endpoint.clone();
        let link = self.links.insert(Link::new(0, Purpose::Control));
        self.control.link = Some(link);
        self.events.push_back(Event::Dial { link, endpoint });
    }

    pub(super) fn control_ready(&mut self, version: &str) {
        self.control.barrier = Some(Barrier::new(&self.settings.name));
        self.control.knows_disks = is_since(version, WAITAOF_SINCE);
        self.control.refused = None;
        self.control.retry.succeeded();
    }

    pub(super) fn control_refused(&mut self, error: &[u8]) {
        let error = String::from_utf8_lossy(error).into_owned();
        if self.control.refused.as_ref() != Some(&error) {
            warn!(group = %self.settings.group, error, "the master does not let the proxy's own account in");
        }
        self.control.refused = Some(error);
        let at = self.control.retry.wait(REFUSED_MS, self.now);
        self.timers.set(at, Timer::Control);
    }

    pub(super) fn control_lost(&mut self) {
        self.control.link = None;
        self.control.barrier = None;
        self.control.unblocking = 0;
        self.control.to_unblock.clear();
        let at = self.control.retry.failed(self.now);
        self.timers.set(at, Timer::Control);
    }

    /// What a client is told whose write could never be acknowledged.
    pub(super) fn control_text(&self) -> Option<Vec<u8>> {
        let refused = self.control.refused.as_ref()?;
        let group = &self.settings.group;
        let text = format!(
            "-ERR understudy: the proxy cannot log in to group \"{group}\" ({refused}); set user and password_file in \
             [group.{group}] of the proxy's file; the request was not carried out\r\n"
        );
        Some(text.into_bytes())
    }

    /// Asks, if there is something to ask about and nothing is being answered.
    #[inline]
    pub(super) fn ask(&mut self) {
        if !self.control.to_unblock.is_empty() {
            self.send_unblock();
        }
        if self.control.fresh.is_empty() && self.control.covered.is_empty() {
            return;
        }
        let Some(question) = self.question() else { return self.new_acks() };
        let Some(id) = self.control.link else { return self.make_control() };
        let idle = self.control.unblocking == 0 && self.control.barrier.as_ref().is_some_and(|b| !b.is_busy());
        if !idle || !self.control.retry.is_due(self.now) {
            return;
        }
        self.cover();
        let (Some(barrier), Some(link)) = (&mut self.control.barrier, self.links.get_mut(id)) else { return };
        barrier.ask(question, link.output.buffer());
        self.counts.barriers += 1;
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(id));
        }
    }

    /// Ends the waiting commands of connections, when the control link is free for it.
    pub(super) fn unblock(&mut self, mut numbers: Vec<u64>) {
        self.control.to_unblock.append(&mut numbers);
        if !self.control.to_unblock.is_empty() {
            self.make_control();
        }
    }

    fn send_unblock(&mut self) {
        let Self { control, links, .. } = self;
        let Some(id) = control.link else { return };
        if control.barrier.as_ref().is_none_or(Barrier::is_busy) {
            return;
        }
        let Some(link) = links.get_mut(id) else { return };
        for number in control.to_unblock.drain(..) {
            request(link.output.buffer(), &[b"CLIENT", b"UNBLOCK", number.to_string().as_bytes()]);
            control.unblocking += 1;
        }
        if link.output.news() {
            self.events.push_back(Event::LinkOutput(id));
        }
    }

    /// What has been read so far is what the next answer is about.
    fn cover(&mut self) {
        let Self { control, clients, .. } = self;
        let repeated = !control.covered.is_empty();
        control.covered.append(&mut control.fresh);
        if repeated {
            control.covered.sort_unstable();
            control.covered.dedup();
        }
        for id in &control.covered {
            if let Some(client) = clients.get_mut(*id) {
                client.output.cover();
            }
        }
    }

    /// Lets go what the answer was about.
    fn release(&mut self) {
        let mut covered = std::mem::take(&mut self.control.covered);
        for id in covered.drain(..) {
            let Some(client) = self.clients.get_mut(id) else { continue };
            if client.output.is_withheld() {
                client.output.release();
                self.counts.withheld -= u64::from(!client.output.is_withheld());
            }
            self.tell(id);
        }
        // The list keeps its room.
        self.control.covered = covered;
    }

    /// Takes in answers over the control link; returns how many bytes were used.
    pub(super) fn control_answers(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(link) = self.links.get_mut(id) else { return at };
            let reply = match link.scan.scan(&bytes[at..]) {
                Ok(FoundReply::Whole(len)) => &bytes[at..at + len],
                Ok(FoundReply::Half) => return at,
                Ok(FoundReply::Big) => return self.control_broken(id, "it says too much"),
                Err(malformed) => return self.control_broken(id, &malformed.to_string()),
            };
            at += reply.len();
            if self.control.unblocking > 0 {
                // Whatever it says: the command's own answer tells.
                self.control.unblocking -= 1;
                continue;
            }
            let Some(barrier) = &mut self.control.barrier else { return at };
            let verdict = barrier.answer(Reply::new(reply), link.output.buffer());
            if link.output.news() {
                self.events.push_back(Event::LinkOutput(id));
            }
            self.judge(id, verdict);
        }
    }

    fn judge(&mut self, id: LinkId, verdict: Verdict) {
        if !matches!(verdict, Verdict::NotYet | Verdict::Passed) {
            self.counts.barriers_repeated += 1;
        }
        match verdict {
            Verdict::NotYet | Verdict::Again => {}
            Verdict::Passed => {
                self.control.strangers = false;
                self.release();
            }
            Verdict::Later => self.ask_later(),
            Verdict::Strangers(copies) => {
                self.counts.strangers += 1;
                if !self.control.strangers {
                    self.control.strangers = true;
                    warn!(
                        group = %self.settings.group, copies,
                        "more than one replication client of the master confirms writes: no write is acknowledged"
                    );
                }
                self.ask_later();
            }
            Verdict::Broken(reason) => {
                self.control_broken(id, &reason);
            }
        }
    }

    fn ask_later(&mut self) {
        let at = self.control.retry.wait(PAUSE_MS, self.now);
        self.timers.set(at, Timer::Control);
    }

    fn control_broken(&mut self, id: LinkId, reason: &str) -> usize {
        self.lose_link(id, reason);
        0
    }
}

/// Whether a version such as `7.0.15` is at least this.
fn is_since(version: &str, since: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let rows =
            [("7.2.0", true), ("7.0.15", false), ("10.0.1", true), ("8.0", true), ("6.2.14", false), ("", false)];
        for (version, since) in rows {
            assert_eq!(is_since(version, WAITAOF_SINCE), since, "{version}");
        }
    }
}
