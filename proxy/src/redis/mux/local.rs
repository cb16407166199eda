//! The answers that the proxy gives in the server's place: what a client says about its own connection.
//!
//! A client that logs in, selects a database or changes the protocol moves to another lane. It is in it once the server
//! has let the lane's link in, so that no password is ever judged here.

use super::api::Login;
use super::ids::ClientId;
use super::lanes::{FIRST, Key, LaneId};
use super::link::Kind;
use super::prepare::request;
use super::requests::Taken;
use super::session::{Replies, Session};
use super::ways::Way;
use super::{Mux, api};
use crate::redis::commands::Session as Verb;
use crate::redis::view::Request;
use config::ListenerRole;
use election::Secret;
use std::rc::Rc;

const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
const BAD_NAME: &[u8] = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
const NO_PROTOCOL: &[u8] = b"-NOPROTO unsupported protocol version\r\n";
const NO_TEXT: &[u8] = b"-ERR understudy: a user and a password have to be UTF-8\r\n";
const NO_DATABASE: &[u8] = b"-ERR DB index is out of range\r\n";
const NO_NUMBER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
const HELLO_FIRST: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
    <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
    the same time\r\n";

/// What a `HELLO` asks for.
#[derive(Debug, Default)]
struct Hello<'a> {
    protocol: Option<u8>,
    login: Option<Login>,
    name: Option<&'a [u8]>,
}

impl Mux {
    /// Answers a request about the client's own connection, when it is its turn.
    pub(super) fn about_itself(&mut self, id: ClientId, bytes: &[u8], verb: Verb) -> Taken {
        if !self.is_drained(id) {
            return Taken::NotYet;
        }
        let words: Vec<&[u8]> = Request::new(bytes).arguments().collect();
        match (verb, &words[..]) {
            (Verb::Auth, _) => match login(&words[1..]) {
                Ok(login) => self.change(id, bytes, |key| key.login = Some(Rc::new(login))),
                Err(error) => self.local(id, error),
            },
            (Verb::Select, [_, index]) => match self.database(id, index) {
                Ok(index) => self.change(id, bytes, |key| key.database = index),
                Err(error) => self.local(id, error),
            },
            (Verb::Hello, _) => self.hello(id, bytes, &words[1..]),
            (Verb::Reset, _) => self.reset(id),
            (Verb::Quit, _) => {
                self.local(id, b"+OK\r\n");
                self.finish(id);
                Taken::NotYet
            }
            (Verb::ClientSetname, [.., name]) => self.set_name(id, bytes, name),
            (Verb::ClientGetname, _) => {
                let name = self.session(id).map(|session| session.name.clone()).unwrap_or_default();
                let text = if name.is_empty() { self.null(id).to_vec() } else { bulk(&name) };
                self.local(id, &text)
            }
            (Verb::ClientSetinfo, [_, _, what, _]) => {
                let known = [&b"lib-name"[..], b"lib-ver"].iter().any(|known| what.eq_ignore_ascii_case(known));
                self.local(id, if known { b"+OK\r\n" } else { SYNTAX })
            }
            (Verb::ClientReply, [.., mode]) => self.set_replies(id, mode),
            _ => self.local(id, SYNTAX),
        }
    }

    fn session(&self, id: ClientId) -> Option<&Session> {
        self.clients.get(id)?.session.as_deref()
    }

    fn key_of(&self, id: ClientId) -> Option<&Key> {
        Some(&self.lanes.get(self.clients.get(id)?.lane)?.key)
    }

    fn null(&self, id: ClientId) -> &'static [u8] {
        if self.key_of(id).is_some_and(|key| key.protocol == 3) { b"_\r\n" } else { b"$-1\r\n" }
    }

    /// The index of a database that clients may have.
    pub(super) fn database(&mut self, id: ClientId, index: &[u8]) -> Result<u32, &'static [u8]> {
        let text = std::str::from_utf8(index).map_err(|_| NO_NUMBER)?;
        let index: i32 = text.parse().map_err(|_| NO_NUMBER)?;
        if index.to_string() != text {
            return Err(NO_NUMBER); // As Redis has it: `03` and `+3` are none.
        }
        let place = self.place_of(id).and_then(|at| self.places.get(at)?.as_ref());
        // Before it is known how many there are, only the first is certainly not the agents'.
        let count = place.map_or(Some(u32::MAX), |place| place.destination.databases).unwrap_or(1);
        u32::try_from(index).ok().filter(|index| *index < count).ok_or(NO_DATABASE)
    }

    /// Moves the client to the lane that a change of its key leads to, once that has a link.
    fn change(&mut self, id: ClientId, bytes: &[u8], change: impl FnOnce(&mut Key)) -> Taken {
        let Some(mut key) = self.key_of(id).cloned() else { return Taken::NotYet };
        change(&mut key);
        if self.own_link(id).is_some() {
            return self.change_own(id, bytes, key);
        }
        let lane = self.lane_for(&key);
        match self.way_in(id, lane) {
            Way::Waits => Taken::NotYet,
            Way::Refused(error) => self.local(id, &error),
            Way::Open(_) => {
                self.enter(id, lane);
                self.local(id, b"+OK\r\n")
            }
        }
    }

    /// A client whose link is its own says it there: the server's answer decides.
    fn change_own(&mut self, id: ClientId, bytes: &[u8], key: Key) -> Taken {
        let (Some(link), Some(client)) = (self.own_link(id), self.clients.get_mut(id)) else { return Taken::NotYet };
        client.session().own.becomes = Some(key);
        self.send(id, link, bytes, Kind::Enter);
        Taken::Yes
    }

    /// The client is in another lane from now on.
    pub(super) fn enter(&mut self, id: ClientId, to: LaneId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let from = std::mem::replace(&mut client.lane, to);
        if self.own_link(id).is_none()
            && let Some(client) = self.clients.get_mut(id)
        {
            client.link = None;
        }
        if let Some(lane) = self.lanes.get_mut(to) {
            lane.clients += 1;
        }
        self.leave_lane(from);
    }

    fn hello(&mut self, id: ClientId, bytes: &[u8], words: &[&[u8]]) -> Taken {
        let hello = match Hello::read(words) {
            Ok(hello) => hello,
            Err(error) => return self.local(id, error),
        };
        let Some(mut key) = self.key_of(id).cloned() else { return Taken::NotYet };
        key.protocol = hello.protocol.unwrap_or(key.protocol);
        if let Some(login) = hello.login {
            key.login = Some(Rc::new(login));
        }
        let name = hello.name.map(<[u8]>::to_vec);
        if self.own_link(id).is_some() {
            let taken = self.change_own(id, bytes, key);
            self.note_name(id, name);
            return taken;
        }
        let lane = self.lane_for(&key);
        match self.way_in(id, lane) {
            Way::Waits => Taken::NotYet,
            Way::Refused(error) if error.starts_with(b"-NOAUTH") => self.local(id, HELLO_FIRST),
            Way::Refused(error) => self.local(id, &error),
            Way::Open(_) => {
                self.enter(id, lane);
                self.note_name(id, name);
                let text = self.greeting(id, key.protocol);
                self.local(id, &text)
            }
        }
    }

    fn note_name(&mut self, id: ClientId, name: Option<Vec<u8>>) {
        if let (Some(name), Some(client)) = (name, self.clients.get_mut(id)) {
            client.session().name = name;
        }
    }

    /// What `HELLO` answers: the server as the client is to see it.
    fn greeting(&mut self, id: ClientId, protocol: u8) -> Vec<u8> {
        let place = self.place_of(id).and_then(|at| self.places.get(at)?.as_ref());
        let version = place.map(|place| place.version.clone()).unwrap_or_default();
        let role: &[u8] = match self.settings.role {
            ListenerRole::Master => b"master",
            ListenerRole::Replica => b"replica",
        };
        // Its number here: unlike that of any other client of this worker.
        let number = u64::from(id.generation()) << 32 | u64::from(id.slot());
        let mut text = if protocol == 3 { b"%7\r\n".to_vec() } else { b"*14\r\n".to_vec() };
        let mut pair = |key: &[u8], value: &[u8]| {
            text.extend_from_slice(&bulk(key));
            text.extend_from_slice(value);
        };
        pair(b"server", &bulk(b"redis"));
        pair(b"version", &bulk(version.as_bytes()));
        pair(b"proto", format!(":{protocol}\r\n").as_bytes());
        pair(b"id", format!(":{number}\r\n").as_bytes());
        pair(b"mode", &bulk(b"standalone"));
        pair(b"role", &bulk(role));
        pair(b"modules", b"*0\r\n");
        text
    }

    /// The client is as new.
    fn reset(&mut self, id: ClientId) -> Taken {
        self.end_own(id);
        if let Some(client) = self.clients.get_mut(id) {
            client.session = None;
        }
        self.enter(id, FIRST);
        self.local(id, b"+RESET\r\n")
    }

    fn set_name(&mut self, id: ClientId, bytes: &[u8], name: &[u8]) -> Taken {
        if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            return self.local(id, BAD_NAME);
        }
        self.note_name(id, Some(name.to_vec()));
        match self.own_link(id) {
            Some(link) => {
                if let Some(link) = self.links.get_mut(link) {
                    link.name = name.to_vec();
                }
                self.send(id, link, bytes, Kind::Free);
                Taken::Yes
            }
            None => self.local(id, b"+OK\r\n"),
        }
    }

    fn set_replies(&mut self, id: ClientId, mode: &[u8]) -> Taken {
        let Some(client) = self.clients.get_mut(id) else { return Taken::NotYet };
        let replies = match &mode.to_ascii_lowercase()[..] {
            b"on" => Replies::All,
            b"off" => Replies::None,
            // Whoever wants none gets no more for it.
            b"skip" if client.session().replies == Replies::None => Replies::None,
            b"skip" => Replies::ButNext,
            _ => return self.local(id, SYNTAX),
        };
        client.session().replies = replies;
        self.local(id, b"+OK\r\n")
    }
}

impl<'a> Hello<'a> {
    fn read(mut words: &[&'a [u8]]) -> Result<Self, &'static [u8]> {
        let mut hello = Self::default();
        if let [protocol, rest @ ..] = words {
            hello.protocol = match *protocol {
                b"2" => Some(2),
                b"3" => Some(3),
                other if other.iter().all(u8::is_ascii_digit) => return Err(NO_PROTOCOL),
                _ => return Err(b"-ERR Protocol version is not an integer or out of range\r\n"),
            };
            words = rest;
        }
        loop {
            match words {
                [] => return Ok(hello),
                [auth, user, password, rest @ ..] if auth.eq_ignore_ascii_case(b"auth") => {
                    hello.login = Some(login(&[user, password])?);
                    words = rest;
                }
                [setname, name, rest @ ..] if setname.eq_ignore_ascii_case(b"setname") => {
                    if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
                        return Err(BAD_NAME);
                    }
                    hello.name = Some(name);
                    words = rest;
                }
                _ => return Err(SYNTAX),
            }
        }
    }
}

/// A login from the words behind `AUTH`.
fn login(words: &[&[u8]]) -> Result<Login, &'static [u8]> {
    let text = |word: &[u8]| String::from_utf8(word.to_vec()).map_err(|_| NO_TEXT);
    match words {
        [password] => Ok(api::Login { user: None, password: Secret::new(text(password)?) }),
        [user, password] => Ok(api::Login { user: Some(text(user)?), password: Secret::new(text(password)?) }),
        _ => Err(SYNTAX),
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// Writes the request that gives a link its client's name.
pub(super) fn name_request(out: &mut Vec<u8>, name: &[u8]) {
    request(out, &[b"CLIENT", b"SETNAME", name]);
}
