//! Clients, servers and the shell between them, all in memory.

use super::super::*;
use crate::redis::scan::{FoundRequest, RequestScan};
use crate::redis::view::Request;
use crate::routes::Endpoint;
use config::ListenerRole;
use election::{Reads, Secret};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(super) const LOCAL: Acks = Acks::Replica { reads: Reads::Local, fsync: false };
pub(super) const DURABLE: Acks = Acks::Replica { reads: Reads::Durable, fsync: false };
pub(super) const HOLD: u64 = 10_000;

/// See the module.
pub(super) struct World {
    pub(super) mux: Mux,
    pub(super) now: Millis,
    /// Whether connecting succeeds.
    pub(super) up: bool,
    /// What servers say they are.
    pub(super) run_id: String,
    /// The password without which a server serves nobody.
    pub(super) password: Option<String>,
    /// Links by the order in which they were dialled, closed ones included.
    pub(super) links: Vec<Server>,
    heard: BTreeMap<ClientId, Vec<u8>>,
    closed: BTreeMap<ClientId, bool>,
    /// Clients that take nothing.
    pub(super) deaf: Vec<ClientId>,
    pub(super) reads: Vec<ClientId>,
    /// Links whose servers take nothing.
    pub(super) stuffed: Vec<LinkId>,
}

/// The server's end of a link.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: LinkId,
    pub(super) to: Arc<Endpoint>,
    pub(super) open: bool,
    inbox: Vec<u8>,
    /// Requests that it has not answered, their words joined by spaces.
    pub(super) asked: VecDeque<String>,
    /// How links were prepared.
    pub(super) prepared: Vec<String>,
    ready: bool,
}

pub(super) fn endpoint(id: &str) -> Arc<Endpoint> {
    Arc::new(Endpoint { id: id.into(), address: "127.0.0.1".into(), port: 1 })
}

pub(super) fn to(id: &str) -> Destination {
    Destination { endpoint: endpoint(id), incarnation: Some(format!("run-{id}").as_str().into()), databases: Some(16) }
}

pub(super) fn heading(epoch: u64, master: &str, acks: Acks) -> Heading {
    Heading { epoch, to: vec![to(master)], held: false, acks }
}

impl World {
    pub(super) fn of(role: ListenerRole) -> Self {
        let settings = Settings {
            group: "g".into(),
            hold: Millis(HOLD),
            account: Some(Login { user: None, password: Secret::new("proxy-pw") }),
            role,
            name: "p1".into(),
        };
        Self {
            mux: Mux::new(settings),
            now: Millis(1_000),
            up: true,
            run_id: "run-a".into(),
            password: None,
            links: Vec::new(),
            heard: BTreeMap::new(),
            closed: BTreeMap::new(),
            deaf: Vec::new(),
            reads: Vec::new(),
            stuffed: Vec::new(),
        }
    }

    /// Master "a" in epoch 7.
    pub(super) fn new(acks: Acks) -> Self {
        let mut world = Self::of(ListenerRole::Master);
        world.head(heading(7, "a", acks));
        world
    }

    pub(super) fn head(&mut self, heading: Heading) {
        if let Some(to) = heading.to.first() {
            self.run_id = format!("run-{}", to.endpoint.id);
        }
        self.mux.set_heading(heading, self.now);
        self.settle();
    }

    pub(super) fn client(&mut self) -> ClientId {
        let id = self.mux.accept(self.now);
        self.heard.insert(id, Vec::new());
        id
    }

    /// A client sends bytes, `\n` standing for a line's end; whatever follows happens.
    pub(super) fn say(&mut self, client: ClientId, text: &str) {
        self.say_bytes(client, &wire(text));
    }

    pub(super) fn say_bytes(&mut self, client: ClientId, bytes: &[u8]) {
        self.mux.client_input(client, bytes, self.now);
        self.settle();
    }

    /// The requests that a link's server has not answered.
    pub(super) fn asked(&self, link: usize) -> Vec<&str> {
        self.links[link].asked.iter().map(String::as_str).collect()
    }

    /// The server of a link answers its oldest requests.
    pub(super) fn reply(&mut self, link: usize, text: &str) {
        self.reply_bytes(link, &wire(text));
    }

    pub(super) fn reply_bytes(&mut self, link: usize, bytes: &[u8]) {
        let server = &mut self.links[link];
        assert!(server.open, "link {link} is closed");
        server.asked.clear();
        self.mux.link_input(server.id, bytes, self.now);
        self.settle();
    }

    pub(super) fn lose(&mut self, link: usize) {
        self.links[link].open = false;
        self.mux.link_gone(self.links[link].id, self.now);
        self.settle();
    }

    /// What a client has heard since the last time, `\r\n` shown as `|`.
    pub(super) fn heard(&mut self, client: ClientId) -> String {
        let bytes = std::mem::take(self.heard.get_mut(&client).expect("a client of this world"));
        String::from_utf8_lossy(&bytes).replace("\r\n", "|")
    }

    /// Whether a client was closed, and whether by a reset.
    pub(super) fn closed(&self, client: ClientId) -> Option<bool> {
        self.closed.get(&client).copied()
    }

    /// Time passes; timers ring when they are due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while let Some(at) = self.mux.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.mux.tick(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// One turn after the other until nothing more happens.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            self.mux.flush(self.now);
            let mut quiet = true;
            while let Some(event) = self.mux.next_event() {
                quiet = false;
                self.carry_out(event);
            }
            quiet &= !self.serve();
            if quiet {
                return;
            }
        }
        panic!("the multiplexer never comes to rest");
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::Dial { link, endpoint } => {
                self.links.push(Server {
                    id: link,
                    to: endpoint,
                    open: self.up,
                    inbox: Vec::new(),
                    asked: VecDeque::new(),
                    prepared: Vec::new(),
                    ready: false,
                });
                if self.up {
                    self.mux.link_connected(link, self.now);
                } else {
                    self.mux.link_failed(link, "connection refused".to_owned(), self.now);
                }
            }
            Event::CloseLink(id) => self.server(id).open = false,
            Event::CloseClient { client, reset } => {
                assert!(self.closed.insert(client, reset).is_none(), "closed twice");
            }
            Event::ClientOutput(id) if !self.deaf.contains(&id) => self.listen(id),
            Event::ClientOutput(_) => {}
            Event::LinkOutput(id) if !self.stuffed.contains(&id) => self.take(id),
            Event::LinkOutput(_) => {}
            Event::ReadClient(id) => self.reads.push(id),
        }
    }

    /// A server takes what there is for it.
    pub(super) fn take(&mut self, id: LinkId) {
        let bytes = self.mux.link_output(id).to_vec();
        self.mux.link_sent(id, bytes.len());
        self.server(id).inbox.extend_from_slice(&bytes);
    }

    /// A client takes what there is for it.
    pub(super) fn listen(&mut self, id: ClientId) {
        let bytes = self.mux.client_output(id).to_vec();
        self.mux.client_sent(id, bytes.len());
        self.heard.entry(id).or_default().extend_from_slice(&bytes);
    }

    fn server(&mut self, id: LinkId) -> &mut Server {
        self.links.iter_mut().rev().find(|server| server.id == id).expect("a link that was dialled")
    }

    /// Servers take requests in, and answer those that prepare a link.
    fn serve(&mut self) -> bool {
        let mut answers = Vec::new();
        for server in self.links.iter_mut().filter(|server| server.open) {
            let inbox = std::mem::take(&mut server.inbox);
            let mut at = 0;
            let mut answer = Vec::new();
            while let Ok(FoundRequest::Whole(len)) = RequestScan::default().scan(&inbox[at..]) {
                let words = words(&inbox[at..at + len]);
                at += len;
                if server.ready {
                    server.asked.push_back(words);
                } else {
                    server.ready = words.starts_with("COMMAND") || (words.starts_with("INFO") && at == inbox.len());
                    answer.extend(prepare(&words, &self.run_id, self.password.as_deref(), &server.prepared));
                    server.prepared.push(words);
                }
            }
            server.inbox = inbox[at..].to_vec();
            if !answer.is_empty() {
                answers.push((server.id, answer));
            }
        }
        let any = !answers.is_empty();
        for (id, answer) in answers {
            self.mux.link_input(id, &answer, self.now);
        }
        any
    }
}

/// `\n` stands for a line's end.
pub(super) fn wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// A request, written as an array.
pub(in super::super) fn array(words: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prepare::request(&mut bytes, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    bytes
}

pub(super) fn words(request: &[u8]) -> String {
    let words: Vec<_> = Request::new(request).arguments().map(String::from_utf8_lossy).collect();
    words.join(" ")
}

/// What a server answers while a link is prepared.
pub(super) fn prepare(words: &str, run_id: &str, password: Option<&str>, before: &[String]) -> Vec<u8> {
    let login = |words: &str| words.split_once("AUTH ").map(|(_, login)| login.to_owned());
    let known =
        before.iter().filter_map(|words| login(words)).any(|login| password.is_some_and(|pw| login.ends_with(pw)));
    let text = match (words, login(words), password) {
        (_, Some(login), Some(password)) if !login.ends_with(password) => "-WRONGPASS invalid\n".to_owned(),
        (_, None, Some(_)) if !known => "-NOAUTH Authentication required.\n".to_owned(),
        ("HELLO 3", ..) => "%1\n+proto\n:3\n".to_owned(),
        ("CLIENT ID", ..) => ":77\n".to_owned(),
        ("INFO server", ..) => {
            let info = format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{run_id}\r\n");
            return format!("${}\r\n{info}\r\n", info.len()).into_bytes();
        }
        ("COMMAND", ..) => return table(),
        _ => "+OK\n".to_owned(),
    };
    wire(&text)
}

/// A table of commands with what the tests use.
fn table() -> Vec<u8> {
    let commands = [
        ("get", "readonly"),
        ("mget", "readonly"),
        ("set", "write"),
        ("lpush", "write"),
        ("eval", "noscript"),
        ("publish", "pubsub"),
        ("blpop", "blocking"),
    ];
    let mut text = format!("*{}\n", commands.len());
    for (name, flag) in commands {
        text += &format!("*6\n${}\n{name}\n:-2\n*1\n+{flag}\n:1\n:1\n:1\n", name.len());
    }
    wire(&text)
}
