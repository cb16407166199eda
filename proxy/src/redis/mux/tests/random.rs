//! Chance: clients, servers and losses in any order, bytes cut anywhere, and what must hold whatever happens.
//!
//! Each request has a name of its own and each reply says which request it answers, in which epoch, and where in the
//! master's history of writes it stands. So every reply can be judged by itself when its client hears it.

use super::super::*;
use super::world::{HOLD, LOCAL, array, heading, prepare, words};
use crate::redis::scan::{FoundReply, FoundRequest, ReplyScan, RequestScan};
use config::ListenerRole;
use election::Secret;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SEEDS: u64 = 25;
const STEPS: usize = 1_000;
const CLIENTS: usize = 6;

/// A generator whose whole course follows from its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }
}

/// What a client must hear next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    /// The answer to the request of this name.
    Named(String),
    Queued,
    Ok,
    /// The answers to these, in one array.
    Executed(Vec<String>),
}

struct Person {
    id: ClientId,
    number: usize,
    to_say: Vec<u8>,
    due: VecDeque<Due>,
    heard: Vec<u8>,
    closed: Option<bool>,
}

/// One process that is or was master.
#[derive(Default)]
struct Master {
    /// Writes carried out.
    written: usize,
    /// Writes that the hot replica has.
    copied: usize,
}

struct Connection {
    id: LinkId,
    epoch: u64,
    open: bool,
    connected: bool,
    inbox: Vec<u8>,
    prepared: Vec<String>,
    ready: bool,
    replies: Vec<u8>,
    queue: Option<Vec<String>>,
    /// The master's history as of the connection's last command.
    seen: usize,
    /// Somebody waits here, from now on in vain.
    stuck: bool,
}

struct Chaos {
    seed: u64,
    chance: Chance,
    mux: Mux,
    now: Millis,
    epoch: u64,
    held: bool,
    people: Vec<Person>,
    next_person: usize,
    next_request: usize,
    connections: Vec<Connection>,
    masters: BTreeMap<u64, Master>,
    /// Names of all requests that were ever carried out.
    done: BTreeSet<String>,
    calm: bool,
    answers: usize,
    /// Commands that were ended for a switchover.
    ended: usize,
}

#[test]
fn whatever_happens_replies_keep_their_order_their_epoch_and_their_barrier() {
    let (mut answers, mut ended) = (0, 0);
    for seed in 1..=SEEDS {
        let chaos = Chaos::new(seed).run();
        answers += chaos.answers;
        ended += chaos.ended;
    }
    // Chance that answers nobody, or ends no waiting, would prove nothing.
    assert!(answers > SEEDS as usize * 100 && ended > 5, "{answers} answers, {ended} ended");
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            group: "g".into(),
            hold: Millis(HOLD),
            account: Some(Login { user: None, password: Secret::new("pw") }),
            role: ListenerRole::Master,
            name: "p1".into(),
        };
        let mut chaos = Self {
            seed,
            chance: Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            mux: Mux::new(settings),
            now: Millis(1),
            epoch: 0,
            held: false,
            people: Vec::new(),
            next_person: 0,
            next_request: 0,
            connections: Vec::new(),
            masters: BTreeMap::new(),
            done: BTreeSet::new(),
            calm: false,
            answers: 0,
            ended: 0,
        };
        for _ in 0..CLIENTS {
            chaos.come();
        }
        chaos
    }

    fn run(mut self) -> Self {
        for _ in 0..STEPS {
            self.step();
            self.turn();
        }
        self.calm = true;
        self.elect();
        for _ in 0..400 {
            self.step();
            self.turn();
        }
        for at in 0..self.people.len() {
            let person = &self.people[at];
            assert!(
                person.closed.is_some() || person.due.is_empty(),
                "seed {}: client {} still waits for {:?}",
                self.seed,
                person.number,
                person.due
            );
        }
        self
    }

    fn step(&mut self) {
        self.now = self.now.plus(self.chance.below(20) as u64);
        if self.mux.deadline().is_some_and(|at| at <= self.now) {
            self.mux.tick(self.now);
        }
        for at in 0..self.connections.len() {
            self.serve(at);
            self.deliver(at);
        }
        for at in 0..self.people.len() {
            self.speak(at);
        }
        if self.calm {
            return;
        }
        // Whoever was closed comes again after a while.
        if let Some(at) = self.people.iter().position(|person| person.closed.is_some())
            && self.chance.one_in(10)
        {
            self.leave(at);
        }
        match self.chance.below(60) {
            0 => self.elect(),
            1 => self.hold(),
            2 | 3 => self.lose_a_link(),
            4 => {
                let at = self.chance.below(self.people.len());
                self.leave(at);
            }
            5..=9 => self.copy(),
            _ => {}
        }
    }

    /// A client comes.
    fn come(&mut self) {
        let id = self.mux.accept(self.now);
        let number = self.next_person;
        self.next_person += 1;
        self.people.push(Person {
            id,
            number,
            to_say: Vec::new(),
            due: VecDeque::new(),
            heard: Vec::new(),
            closed: None,
        });
    }

    /// A client goes without a word, another comes.
    fn leave(&mut self, at: usize) {
        if self.people[at].closed.is_none() {
            self.mux.client_gone(self.people[at].id, self.now);
        }
        self.people.remove(at);
        self.come();
    }

    fn elect(&mut self) {
        self.epoch += 1;
        self.held = false;
        self.masters.insert(self.epoch, Master::default());
        self.mux.set_heading(heading(self.epoch, &format!("m{}", self.epoch), LOCAL), self.now);
    }

    fn hold(&mut self) {
        if self.epoch > 0 {
            self.held = !self.held;
            let heading = heading(self.epoch, &format!("m{}", self.epoch), LOCAL);
            self.mux.set_heading(Heading { held: self.held, ..heading }, self.now);
        }
    }

    fn copy(&mut self) {
        if let Some(master) = self.masters.get_mut(&self.epoch) {
            master.copied = master.written;
        }
    }

    fn lose_a_link(&mut self) {
        let open: Vec<usize> = (0..self.connections.len()).filter(|at| self.connections[*at].open).collect();
        if open.is_empty() {
            return;
        }
        let at = open[self.chance.below(open.len())];
        self.connections[at].open = false;
        self.mux.link_gone(self.connections[at].id, self.now);
    }

    /// What the shell does in a turn.
    fn turn(&mut self) {
        self.mux.flush(self.now);
        while let Some(event) = self.mux.next_event() {
            match event {
                Event::Dial { link, .. } => self.connections.push(Connection {
                    id: link,
                    epoch: self.epoch,
                    open: true,
                    connected: false,
                    inbox: Vec::new(),
                    prepared: Vec::new(),
                    ready: false,
                    replies: Vec::new(),
                    queue: None,
                    seen: 0,
                    stuck: false,
                }),
                Event::CloseLink(id) => {
                    let connection = self.connections.iter_mut().rfind(|connection| connection.id == id);
                    connection.expect("a link that was dialled").open = false;
                }
                Event::CloseClient { client, reset } => {
                    if let Some(person) = self.people.iter_mut().find(|person| person.id == client) {
                        assert!(person.closed.is_none(), "seed {}: closed twice", self.seed);
                        assert!(reset, "seed {}: nobody has said QUIT", self.seed);
                        person.closed = Some(reset);
                    }
                }
                Event::ClientOutput(_) | Event::LinkOutput(_) | Event::ReadClient(_) => {}
            }
        }
        for at in 0..self.people.len() {
            self.hear(at);
        }
        for at in 0..self.connections.len() {
            let connection = &mut self.connections[at];
            if connection.open && connection.connected {
                let output = self.mux.link_output(connection.id);
                let len = if output.is_empty() { 0 } else { self.chance.below(output.len()) + 1 };
                connection.inbox.extend_from_slice(&output[..len]);
                self.mux.link_sent(connection.id, len);
            }
        }
    }

    /// A client asks something, or says more of it.
    fn speak(&mut self, at: usize) {
        if self.people[at].closed.is_some() {
            return;
        }
        if self.people[at].to_say.is_empty() && self.people[at].due.len() < 8 && !self.calm && self.chance.one_in(3) {
            self.ask(at);
        }
        let person = &mut self.people[at];
        if person.to_say.is_empty() || !self.mux.wants_input(person.id) {
            return;
        }
        let len = self.chance.below(person.to_say.len()) + 1;
        let bytes: Vec<u8> = person.to_say.drain(..len).collect();
        self.mux.client_input(person.id, &bytes, self.now);
    }

    fn ask(&mut self, at: usize) {
        for _ in 0..=self.chance.below(4) {
            self.next_request += 1;
            let name = format!("r{}", self.next_request);
            let person = &mut self.people[at];
            let mut say = |words: &[&str], due: Due| {
                person.to_say.extend_from_slice(&array(words));
                person.due.push_back(due);
            };
            match self.chance.below(9) {
                0 => say(&["PING", &name], Due::Named(name.clone())),
                1 | 2 => say(&["GET", &name], Due::Named(name.clone())),
                3..=5 => say(&["SET", &name, "x"], Due::Named(name.clone())),
                6 => say(&["BLPOP", &name, "0"], Due::Named(name.clone())),
                7 => say(&["SELECT", &self.chance.below(3).to_string()], Due::Ok),
                _ => {
                    say(&["MULTI"], Due::Ok);
                    say(&["SET", &name, "x"], Due::Queued);
                    say(&["GET", &format!("{name}b")], Due::Queued);
                    say(&["EXEC"], Due::Executed(vec![name.clone(), format!("{name}b")]));
                }
            }
        }
    }

    /// A client takes some of what there is for it, and judges it.
    fn hear(&mut self, at: usize) {
        let person = &mut self.people[at];
        let output = self.mux.client_output(person.id);
        if output.is_empty() || person.closed.is_some() {
            return;
        }
        let len = self.chance.below(output.len()) + 1;
        person.heard.extend_from_slice(&output[..len]);
        self.mux.client_sent(person.id, len);
        let heard = std::mem::take(&mut person.heard);
        let mut from = 0;
        while let Ok(FoundReply::Whole(len)) = ReplyScan::default().scan(&heard[from..]) {
            self.judge(at, &heard[from..from + len]);
            from += len;
        }
        self.people[at].heard = heard[from..].to_vec();
    }

    fn judge(&mut self, at: usize, frame: &[u8]) {
        let text = String::from_utf8_lossy(frame).replace("\r\n", "|");
        let seed = self.seed;
        let due = self.people[at].due.pop_front();
        self.answers += 1;
        // One that could not be sent for so long was not carried out.
        if text.ends_with("the request was not carried out|") {
            return;
        }
        let names = match due {
            Some(Due::Ok) => return assert_eq!(text, "+OK|", "seed {seed}"),
            Some(Due::Queued) => return assert_eq!(text, "+QUEUED|", "seed {seed}"),
            Some(Due::Named(name)) => vec![name],
            Some(Due::Executed(names)) => names,
            None => panic!("seed {seed}: {text} was not asked for"),
        };
        let parts: Vec<&str> = text.split('|').filter(|part| part.starts_with('+')).collect();
        assert_eq!(parts.len(), names.len(), "seed {seed}: {text} for {names:?}");
        for (part, name) in parts.iter().zip(names) {
            let fields: Vec<&str> = part[1..].split(' ').collect();
            let (epoch, written) =
                (fields[1].parse::<u64>().expect("epoch"), fields[2].parse::<usize>().expect("count"));
            assert_eq!(fields[0], name, "seed {seed}: an answer to another request");
            assert_eq!(epoch, self.epoch, "seed {seed}: an answer of an older epoch is heard");
            assert!(written <= self.masters[&epoch].copied, "seed {seed}: {name} is acknowledged and not copied");
        }
    }

    /// A server takes requests in and answers some.
    fn serve(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.open {
            return;
        }
        if !connection.connected {
            if self.chance.one_in(3) {
                connection.connected = true;
                self.mux.link_connected(connection.id, self.now);
            } else if !self.calm && self.chance.one_in(12) {
                connection.open = false;
                self.mux.link_failed(connection.id, "refused".to_owned(), self.now);
            }
            return;
        }
        let inbox = std::mem::take(&mut self.connections[at].inbox);
        let mut from = 0;
        while self.chance.below(4) > 0
            && let Ok(FoundRequest::Whole(len)) = RequestScan::default().scan(&inbox[from..])
        {
            let words = words(&inbox[from..from + len]);
            if !self.carry_out(at, &words) {
                break;
            }
            from += len;
        }
        self.connections[at].inbox = inbox[from..].to_vec();
    }

    /// Carries one request out; false when it waits.
    fn carry_out(&mut self, at: usize, words: &str) -> bool {
        let connection = &mut self.connections[at];
        let epoch = connection.epoch;
        let words_of: Vec<&str> = words.split(' ').collect();
        if !connection.ready && !matches!(words_of[0], "PING" | "GET" | "SET" | "BLPOP" | "MULTI" | "ROLE") {
            let run_id = format!("run-m{epoch}");
            let answer = match words {
                "CLIENT ID" => format!(":{at}\r\n").into_bytes(),
                _ => prepare(words, &run_id, None, &connection.prepared),
            };
            connection.replies.extend_from_slice(&answer);
            connection.prepared.push(words.to_owned());
            return true;
        }
        connection.ready = true;
        if let ["CLIENT", "UNBLOCK", number] = words_of[..] {
            self.unblock(at, number.parse().expect("a number"));
            return true;
        }
        let master = self.masters.get_mut(&epoch).expect("a master of this epoch");
        if words_of[0] == "WAIT" {
            let copies = if master.copied >= connection.seen {
                // Now and then a stranger confirms too.
                if !self.calm && self.chance.one_in(20) { 2 } else { 1 }
            } else {
                if self.calm {
                    master.copied = master.written;
                }
                0
            };
            connection.replies.extend_from_slice(format!(":{copies}\r\n").as_bytes());
            return true;
        }
        if words == "ROLE" {
            connection.replies.extend_from_slice(b"*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n+copy\r\n");
            return true;
        }
        connection.seen = master.written;
        if words == "GET understudy:need" {
            connection.replies.extend_from_slice(b"$1\r\n1\r\n");
            return true;
        }
        match (words_of[0], connection.queue.take()) {
            ("MULTI", _) => {
                connection.queue = Some(Vec::new());
                connection.replies.extend_from_slice(b"+OK\r\n");
            }
            ("EXEC", Some(queued)) => {
                let replies: Vec<u8> = queued.iter().flat_map(|words| self.execute(at, words)).collect();
                let connection = &mut self.connections[at];
                connection.replies.extend_from_slice(format!("*{}\r\n", queued.len()).as_bytes());
                connection.replies.extend_from_slice(&replies);
            }
            (_, Some(mut queued)) => {
                queued.push(words.to_owned());
                connection.queue = Some(queued);
                connection.replies.extend_from_slice(b"+QUEUED\r\n");
            }
            ("BLPOP", None) if connection.stuck && !self.calm => return false,
            (_, None) => {
                let reply = self.execute(at, words);
                self.connections[at].replies.extend_from_slice(&reply);
            }
        }
        let stuck = self.chance.one_in(10);
        self.connections[at].stuck = stuck;
        true
    }

    /// Ends the command that waits on a connection: it answers that it has got nothing.
    fn unblock(&mut self, by: usize, number: usize) {
        let epoch = self.connections[by].epoch;
        let waits = &mut self.connections[number];
        let first = RequestScan::default().scan(&waits.inbox);
        let ended = match first {
            Ok(FoundRequest::Whole(len))
                if waits.stuck && waits.open && words(&waits.inbox[..len]).starts_with("BLPOP") =>
            {
                assert_eq!(waits.epoch, epoch, "seed {}: only where roles are changed", self.seed);
                waits.inbox.drain(..len);
                waits.replies.extend_from_slice(b"*-1\r\n");
                waits.stuck = false;
                self.ended += 1;
                1
            }
            _ => 0,
        };
        self.connections[by].replies.extend_from_slice(format!(":{ended}\r\n").as_bytes());
    }

    fn execute(&mut self, at: usize, words: &str) -> Vec<u8> {
        let connection = &mut self.connections[at];
        let master = self.masters.get_mut(&connection.epoch).expect("a master of this epoch");
        let mut words = words.split(' ');
        let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if verb == "PING" && name.is_empty() {
            return b"+PONG\r\n".to_vec();
        }
        assert!(self.done.insert(name.to_owned()), "seed {}: {verb} {name} is carried out twice", self.seed);
        let written = if matches!(verb, "SET" | "BLPOP") {
            master.written += 1;
            connection.seen = master.written;
            master.written
        } else {
            0
        };
        format!("+{name} {} {written}\r\n", connection.epoch).into_bytes()
    }

    /// Some of what a server has answered arrives.
    fn deliver(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.open || connection.replies.is_empty() {
            return;
        }
        let len = if self.calm { connection.replies.len() } else { self.chance.below(connection.replies.len()) + 1 };
        let bytes: Vec<u8> = connection.replies.drain(..len).collect();
        let id = connection.id;
        self.mux.link_input(id, &bytes, self.now);
    }
}
