//! From a link's bytes to the clients whose replies they are.

use super::Mux;
use super::client::Wait;
use super::ids::LinkId;
use super::link::{Purpose, Run, Stage};
use super::requests::RESUMED_BELOW;

impl Mux {
    pub(super) fn take_replies(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.input.is_empty() {
            let used = self.distribute(id, bytes);
            if let Some(link) = self.links.get_mut(id)
                && let Some(rest @ [_, ..]) = bytes.get(used..)
            {
                link.input = self.spare.take();
                link.input.extend_from_slice(rest);
            }
            return;
        }
        let mut input = std::mem::take(&mut link.input);
        input.extend_from_slice(bytes);
        let used = self.distribute(id, &input);
        match self.links.get_mut(id) {
            Some(link) if used < input.len() => {
                input.drain(..used);
                link.input = input;
            }
            _ => self.spare.give(input),
        }
    }

    /// Hands replies over as far as they are whole, or the beginning of a longer one; returns how many bytes were used.
    fn distribute(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some(link) = self.links.get_mut(id) else { return at };
            match link.stage {
                Stage::Dialling => return bytes.len(),
                Stage::Preparing(_) => {
                    let used = self.prepared(id, &bytes[at..]);
                    if used == 0 {
                        return at;
                    }
                    at += used;
                }
                Stage::Ready => {
                    let used = match link.purpose {
                        Purpose::Control => self.control_answers(id, &bytes[at..]),
                        Purpose::Shared(_) => self.next_run(id, &bytes[at..]),
                        Purpose::Own(..) => self.own_frame(id, &bytes[at..]),
                    };
                    if used == 0 {
                        return at;
                    }
                    at += used;
                }
            }
        }
        at
    }

    /// Hands over what the bytes hold of the replies of one run, as one piece.
    #[inline]
    fn next_run(&mut self, id: LinkId, bytes: &[u8]) -> usize {
        let Some(link) = self.links.get_mut(id) else { return 0 };
        let Some(run) = link.pending.front_mut() else {
            self.lose_link(id, "it answers without having been asked");
            return 0;
        };
        let (mut at, mut whole) = (0, 0);
        let failed = loop {
            if whole == run.count || at == bytes.len() {
                break None;
            }
            match link.scan.follow(&bytes[at..]) {
                Ok(piece) => {
                    at += piece.len;
                    if !piece.last {
                        break None;
                    }
                    whole += 1;
                }
                Err(malformed) => break Some(malformed),
            }
        };
        let Run { client, kind, .. } = *run;
        run.count -= whole;
        if run.count == 0 {
            link.pending.pop_front();
        }
        self.in_flight -= whole as usize;
        self.hand_over(client, kind, &bytes[..at]);
        if whole > 0 {
            self.answered(id, Run { client, count: whole, kind });
        }
        if let Some(malformed) = failed {
            self.lose_link(id, &malformed.to_string());
            return 0;
        }
        at
    }

    /// So many replies have come whole.
    #[inline]
    pub(super) fn answered(&mut self, id: LinkId, run: Run) {
        if let Some(client) = self.clients.get_mut(run.client) {
            client.in_flight -= run.count;
            match client.wait {
                Wait::Drained if client.in_flight == 0 => self.wakes.push(run.client),
                Wait::Room if client.in_flight < RESUMED_BELOW => self.wakes.push(run.client),
                Wait::Nothing if client.flags.closing => self.close_if_done(run.client),
                Wait::Nothing | Wait::Drained | Wait::Room | Wait::Link => {}
            }
        }
        if self.links.get(id).is_some_and(|link| link.retired) {
            self.end_if_done(id);
        }
    }
}
