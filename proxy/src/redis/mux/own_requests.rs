//! Requests on a link of the client's own: transactions, commands that block, subscriptions, and what is too big to be
//! collected.

use super::Mux;
use super::client::Wait;
use super::course::Kinds;
use super::ids::{ClientId, LinkId};
use super::link::{Kind, Run};
use super::requests::{IN_FLIGHT, Taken};
use super::ways::Way;
use crate::redis::commands::{Class, Effect, PubSub, Session as Verb, Transaction};
use crate::redis::view::Request;

/// What a transaction is told whose part was refused here.
pub(super) const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

const NOT_IN_MULTI: &[u8] = b"-ERR understudy: this command is not carried inside a transaction\r\n";
const MONITORING: &[u8] = b"-ERR understudy: a connection that monitors can only say RESET or QUIT\r\n";

impl Mux {
    /// Takes a request of a client whose link is its own.
    pub(super) fn own_request(&mut self, id: ClientId, link: LinkId, bytes: &[u8], class: Class) -> Taken {
        let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
        if client.in_flight >= IN_FLIGHT {
            client.wait = Wait::Room;
            return Taken::NotYet;
        }
        let own = &client.session().own;
        let (multi, monitor, begun) = (own.multi, own.monitor, own.is_in_transaction());
        if own.blocked {
            // It may have to wait elsewhere: nothing is sent behind it.
            client.wait = Wait::Drained;
            return Taken::NotYet;
        }
        if let Class::Session(verb @ (Verb::Reset | Verb::Quit)) = class {
            return self.about_itself(id, bytes, verb);
        }
        if monitor {
            return self.local(id, MONITORING);
        }
        let refused = match class {
            // Its outcome would wait for ever.
            Class::Transaction(Transaction::Multi) if self.kinds.write == Kind::Withheld => self.control_text(),
            _ => self.refusal(id, class),
        };
        if let Some(error) = refused {
            self.counts.refused += 1;
            return if multi { self.spoil(id, &error) } else { self.local(id, &error) };
        }
        // What has begun is seen through; nothing else is sent while roles change.
        if self.heading.held && !begun {
            return match self.wait_for_link(id, None) {
                Way::Refused(error) => self.local(id, &error),
                Way::Waits | Way::Open(_) => Taken::NotYet,
            };
        }
        if multi { self.in_multi(id, link, bytes, class) } else { self.bound(id, link, bytes, class) }
    }

    /// Within a transaction everything is queued by the server, which has the last word on it.
    fn in_multi(&mut self, id: ClientId, link: LinkId, bytes: &[u8], class: Class) -> Taken {
        let kinds = self.kinds;
        match class {
            Class::Transaction(Transaction::Exec) => {
                let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
                let own = &mut client.session().own;
                (own.multi, own.watching) = (false, false);
                if std::mem::take(&mut own.spoiled) {
                    own.selects = None;
                    self.send(id, link, b"*1\r\n$7\r\nDISCARD\r\n", Kind::Aborted);
                } else {
                    self.send(id, link, bytes, Kind::Exec { withheld: kinds.write == Kind::Withheld });
                }
                Taken::Yes
            }
            Class::Transaction(Transaction::Discard) => {
                let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
                let own = &mut client.session().own;
                (own.multi, own.watching, own.spoiled, own.selects) = (false, false, false, None);
                self.send(id, link, bytes, Kind::Free);
                Taken::Yes
            }
            Class::Session(Verb::Select) => self.select_in_multi(id, link, bytes),
            Class::Refused(refusal) => {
                self.counts.refused += 1;
                self.spoil(id, format!("-ERR {refusal}\r\n").as_bytes())
            }
            Class::Session(_) | Class::PubSub(_) | Class::Pinning => self.spoil(id, NOT_IN_MULTI),
            Class::Hostile => {
                self.close_client(id);
                Taken::NotYet
            }
            Class::Read
            | Class::Write
            | Class::Harmless
            | Class::Blocking(_)
            | Class::Transaction(Transaction::Multi | Transaction::Watch | Transaction::Unwatch) => {
                let kind = Kind::Queued { withheld: self.kind_of(class) == Kind::Withheld };
                self.send(id, link, bytes, kind);
                Taken::Yes
            }
        }
    }

    fn select_in_multi(&mut self, id: ClientId, link: LinkId, bytes: &[u8]) -> Taken {
        let index = Request::new(bytes).arguments().nth(1).unwrap_or_default();
        match self.database(id, index) {
            Err(error) => self.spoil(id, error),
            Ok(index) => {
                if let Some(client) = self.clients.get_mut(id) {
                    client.session().own.selects = Some(index);
                }
                // Which database it is left in is the server's to say.
                if let Some(link) = self.links.get_mut(link) {
                    link.dirty = true;
                }
                self.send(id, link, bytes, Kind::Queued { withheld: false });
                Taken::Yes
            }
        }
    }

    /// Something is refused within a transaction: as at the server, none of it is carried out.
    fn spoil(&mut self, id: ClientId, error: &[u8]) -> Taken {
        let taken = self.local(id, error);
        if taken == Taken::Yes
            && let Some(client) = self.clients.get_mut(id)
        {
            client.session().own.spoiled = true;
        }
        taken
    }

    /// A request outside of a transaction.
    fn bound(&mut self, id: ClientId, link: LinkId, bytes: &[u8], class: Class) -> Taken {
        match class {
            Class::Read | Class::Write | Class::Harmless => {}
            Class::Transaction(verb) => self.note_transaction(id, verb),
            Class::Blocking(effect) => {
                if effect == Effect::None {
                    // WAIT answers for what this connection has done, and it may never have done anything: after this
                    // it answers for all that was done before.
                    if let Some(link) = self.links.get_mut(link) {
                        link.output.buffer().extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                    }
                    self.swallow(id, link);
                }
                let rewritten = if effect == Effect::None { None } else { self.note_waiting(id, bytes) };
                if let Some(client) = self.clients.get_mut(id) {
                    client.session().own.blocked = true;
                }
                let kind = Kind::Blocked { withheld: self.kind_of(class) == Kind::Withheld };
                self.send(id, link, rewritten.as_deref().unwrap_or(bytes), kind);
                return Taken::Yes;
            }
            Class::PubSub(verb) => return self.subscribe(id, link, bytes, verb),
            Class::Pinning => self.pin(id, bytes),
            Class::Session(verb) => return self.about_itself(id, bytes, verb),
            Class::Refused(refusal) => {
                self.counts.refused += 1;
                return self.local(id, format!("-ERR {refusal}\r\n").as_bytes());
            }
            Class::Hostile => {
                self.close_client(id);
                return Taken::NotYet;
            }
        }
        let kind = self.kind_of(class);
        self.send(id, link, bytes, kind);
        Taken::Yes
    }

    fn note_transaction(&mut self, id: ClientId, verb: Transaction) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let own = &mut client.session().own;
        match verb {
            Transaction::Multi => (own.multi, own.spoiled, own.selects) = (true, false, None),
            Transaction::Watch => own.watching = true,
            Transaction::Unwatch => own.watching = false,
            // Without MULTI the server answers both with an error.
            Transaction::Exec | Transaction::Discard => {}
        }
    }

    fn pin(&mut self, id: ClientId, bytes: &[u8]) {
        let monitor = Request::new(bytes).name().eq_ignore_ascii_case(b"monitor");
        if let Some(client) = self.clients.get_mut(id) {
            let own = &mut client.session().own;
            own.pinned = true;
            own.monitor |= monitor;
        }
        self.soil(id);
    }

    /// The link has something about it that the next client must not get.
    fn soil(&mut self, id: ClientId) {
        if let Some(link) = self.own_link(id).and_then(|link| self.links.get_mut(link)) {
            link.dirty = true;
        }
    }

    /// Each channel or pattern is confirmed by a frame of its own.
    fn subscribe(&mut self, id: ClientId, link: LinkId, bytes: &[u8], verb: PubSub) -> Taken {
        let named = Request::new(bytes).count().saturating_sub(1);
        // How many frames end all subscriptions is known when all before has been confirmed.
        if named == 0 && !self.is_drained(id) {
            return Taken::NotYet;
        }
        let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
        let count = client.session().own.subscriptions.confirmations(verb, named);
        self.soil(id);
        self.send_many(id, link, bytes, Kind::Confirm, u32::try_from(count).unwrap_or(u32::MAX));
        Taken::Yes
    }

    /// What is done with the reply to a request of a class.
    pub(super) fn kind_of(&self, class: Class) -> Kind {
        let Kinds { read, write } = self.kinds;
        match class {
            Class::Read | Class::Blocking(Effect::Read) => read,
            Class::Write | Class::Blocking(Effect::Write) | Class::Transaction(Transaction::Exec) => write,
            Class::Harmless
            | Class::Blocking(Effect::None)
            | Class::Transaction(_)
            | Class::PubSub(_)
            | Class::Session(_)
            | Class::Refused(_)
            | Class::Hostile => Kind::Free,
            // What a command of an unknown kind has done is not known.
            Class::Pinning => Kind::Free,
        }
    }

    /// Begins to pass on a request that is too big to be collected.
    pub(super) fn begin_big(&mut self, id: ClientId, head: &[u8]) -> Taken {
        let class = self.class(id, head);
        // What would lead into the agents' database stands at the end of these, and is not here yet.
        let name = Request::new(head).name();
        let elsewhere = [&b"copy"[..], b"move"].iter().any(|other| name.eq_ignore_ascii_case(other));
        let carried = matches!(class, Class::Read | Class::Write | Class::Harmless | Class::Transaction(_));
        if !carried || elsewhere {
            let taken = self.local(id, b"-ERR understudy: this command is not carried in this size\r\n");
            if taken == Taken::Yes {
                self.finish(id);
            }
            return Taken::NotYet;
        }
        let before = self.counts.requests;
        if self.on_own(id, &[], class) == Taken::NotYet {
            return Taken::NotYet;
        }
        if self.counts.requests == before {
            // It was refused, and what is still to come of it cannot be told from requests.
            self.finish(id);
            return Taken::NotYet;
        }
        if let Some(client) = self.clients.get_mut(id) {
            client.session().own.streaming = true;
            client.flags.streaming = true;
        }
        Taken::Yes
    }

    /// Passes on what is here of a big request; returns how many bytes were used.
    pub(super) fn stream(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let Some(link_id) = self.own_link(id) else { return 0 };
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return 0 };
        let Ok(piece) = client.scan.follow(bytes) else {
            // Half of it is at the server: there is no answer to come to.
            self.reset_client(id, "half of its request is sent and the rest is malformed");
            return 0;
        };
        link.output.buffer().extend_from_slice(&bytes[..piece.len]);
        if link.output.news() {
            self.events.push_back(super::Event::LinkOutput(link_id));
        }
        if piece.last {
            client.session().own.streaming = false;
            client.flags.streaming = false;
        }
        piece.len
    }

    /// Sends one request that brings so many replies.
    fn send_many(&mut self, id: ClientId, link_id: LinkId, bytes: &[u8], kind: Kind, count: u32) {
        let (Some(client), Some(link)) = (self.clients.get_mut(id), self.links.get_mut(link_id)) else { return };
        link.output.buffer().extend_from_slice(bytes);
        link.expect(Run { client: id, count, kind });
        client.in_flight += count;
        self.in_flight += count as usize;
        self.counts.requests += 1;
        if link.output.news() {
            self.events.push_back(super::Event::LinkOutput(link_id));
        }
        self.not_held(id);
    }
}
