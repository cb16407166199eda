//! How a new link proves itself: it logs in, and shows that the process at its other end is the recorded one.
//!
//! All of it is sent in one go. A process that was restarted keeps its port and has older data: only its run id tells.

use super::api::Login;
use crate::redis::commands::{Commands, TableError};
use crate::redis::view::Reply;
use election::Incarnation;
use std::collections::VecDeque;

/// What a link is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Who logs in.
    pub(super) login: Option<&'a Login>,
    /// The version of RESP, 2 or 3.
    pub(super) protocol: u8,
    /// The database selected.
    pub(super) database: u32,
    /// The connection's name in the server's client list.
    pub(super) name: &'a [u8],
    /// Whether the table of commands is asked for.
    pub(super) commands: bool,
    /// Whether the connection's number is asked for.
    pub(super) number: bool,
    /// Whether the server has to be open to writes of this login: a new master is so a moment after its record says that
    /// it is active.
    pub(super) open: bool,
}

/// The replies that are still to come, and what was learned.
#[derive(Debug)]
pub(super) struct Preparation {
    steps: VecDeque<Step>,
    incarnation: Option<Incarnation>,
    /// It refuses writes.
    closed: bool,
    learned: Learned,
}

/// What a link has told of its server.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// The server's version.
    pub(super) version: String,
    /// Its commands, if they were asked for.
    pub(super) commands: Option<Commands>,
    /// The connection's number there, if it was asked for.
    pub(super) number: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Login,
    Name,
    Select,
    Number,
    Open,
    Info,
    Commands,
}

/// What a reply has led to.
#[derive(Debug)]
pub(super) enum Prepared {
    /// More replies are to come.
    NotYet,
    /// The link may be used.
    Ready(Learned),
    /// The server refuses this login; its own words, without the kind of the reply.
    Refused(Vec<u8>),
    /// Not now: another process, one that is loading, or nonsense.
    Failed(Failure),
}

/// Why a link is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The process is not the one that the record names.
    #[error("another process answers there (run id {found}, recorded is {recorded})")]
    Incarnation {
        /// What it calls itself.
        found: String,
        /// What the record says.
        recorded: Incarnation,
    },
    /// Its agent has not opened it to clients yet.
    #[error("it is not open to writes yet")]
    Closed,
    /// It cannot serve now.
    #[error("it answers: {0}")]
    Answer(String),
    /// Its table of commands cannot be used.
    #[error("{0}")]
    Commands(String),
}

impl Preparation {
    /// What to send, and what to expect.
    pub(super) fn new(wanted: Wanted<'_>, incarnation: Option<Incarnation>, out: &mut Vec<u8>) -> Self {
        let mut steps = VecDeque::new();
        let mut say = |step: Step, words: &[&[u8]]| {
            request(out, words);
            steps.push_back(step);
        };
        match (wanted.protocol, wanted.login) {
            (3, None) => say(Step::Login, &[b"HELLO", b"3"]),
            (3, Some(Login { user, password })) => {
                let user = user.as_deref().unwrap_or(DEFAULT_USER);
                say(Step::Login, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), password.reveal().as_bytes()]);
            }
            (_, None) => {}
            // Servers without a password tell the two forms apart in their errors: the client's form is kept.
            (_, Some(Login { user: None, password })) => say(Step::Login, &[b"AUTH", password.reveal().as_bytes()]),
            (_, Some(Login { user: Some(user), password })) => {
                say(Step::Login, &[b"AUTH", user.as_bytes(), password.reveal().as_bytes()]);
            }
        }
        if !wanted.name.is_empty() {
            say(Step::Name, &[b"CLIENT", b"SETNAME", wanted.name]);
        }
        if wanted.database != 0 {
            say(Step::Select, &[b"SELECT", wanted.database.to_string().as_bytes()]);
        }
        if wanted.number {
            say(Step::Number, &[b"CLIENT", b"ID"]);
        }
        if wanted.open {
            say(Step::Open, &NO_WRITE);
        }
        say(Step::Info, &[b"INFO", b"server"]);
        if wanted.commands {
            say(Step::Commands, &[b"COMMAND"]);
        }
        Self { steps, incarnation, closed: false, learned: Learned::default() }
    }

    /// Takes in the next whole reply.
    pub(super) fn reply(&mut self, reply: Reply<'_>) -> Prepared {
        let Some(step) = self.steps.pop_front() else {
            return Prepared::Failed(Failure::Answer("more than was asked".to_owned()));
        };
        if reply.is_error() {
            let text = reply.text().unwrap_or_default();
            if is_passing(text) {
                return Prepared::Failed(Failure::Answer(String::from_utf8_lossy(text).into_owned()));
            }
            // A connection without a name does as well, and one whose number is not told nearly so.
            let needed = !matches!(step, Step::Name | Step::Number | Step::Open);
            if needed || text.starts_with(b"NOAUTH") {
                return Prepared::Refused(text.to_vec());
            }
        }
        match step {
            Step::Login | Step::Name | Step::Select => {}
            Step::Open => {
                self.closed = reply.is_error() && reply.text().is_some_and(|text| text.starts_with(b"NOPERM"))
            }
            Step::Number => self.learned.number = reply.integer().and_then(|number| u64::try_from(number).ok()),
            Step::Info => {
                if let Err(failure) = self.info(reply) {
                    return Prepared::Failed(failure);
                }
            }
            Step::Commands => match Commands::read(reply) {
                Ok(commands) => self.learned.commands = Some(commands),
                Err(error @ (TableError::Refused(_) | TableError::Shape(_))) => {
                    return Prepared::Failed(Failure::Commands(error.to_string()));
                }
            },
        }
        match (self.steps.is_empty(), self.closed) {
            (false, _) => Prepared::NotYet,
            (true, false) => Prepared::Ready(std::mem::take(&mut self.learned)),
            (true, true) => Prepared::Failed(Failure::Closed),
        }
    }

    fn info(&mut self, reply: Reply<'_>) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default());
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let found = value("run_id");
        if let Some(recorded) = &self.incarnation
            && recorded.as_str() != found
        {
            return Err(Failure::Incarnation { found, recorded: recorded.clone() });
        }
        self.learned.version = value("redis_version");
        Ok(())
    }
}

/// A write that changes nothing, whatever stands under that key: an empty text is put nowhere.
const NO_WRITE: [&[u8]; 4] = [b"SETRANGE", b"understudy:open", b"0", b""];

/// The account that is meant when none is named.
pub(super) const DEFAULT_USER: &str = "default";

/// Whether an error tells of a state that ends by itself.
fn is_passing(text: &[u8]) -> bool {
    [&b"LOADING"[..], b"BUSY", b"MASTERDOWN", b"TRYAGAIN", b"ERR max number of clients"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// Writes one request.
pub(super) fn request(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(replies: &[&[u8]]) -> Prepared {
        let login = Login { user: None, password: election::Secret::new("pw") };
        let wanted = Wanted {
            login: Some(&login),
            protocol: 2,
            database: 3,
            name: b"n",
            commands: false,
            number: false,
            open: false,
        };
        let mut out = Vec::new();
        let mut preparation = Preparation::new(wanted, Some("run-1".into()), &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'*').count(), 4);
        let mut last = Prepared::NotYet;
        for reply in replies {
            assert!(matches!(last, Prepared::NotYet), "{last:?}");
            last = preparation.reply(Reply::new(reply));
        }
        last
    }

    #[test]
    fn a_link_is_ready_when_the_recorded_process_has_answered_all() {
        let info = b"$45\r\n# Server\r\nredis_version:7.0.15\r\nrun_id:run-1\r\n\r\n";
        let Prepared::Ready(learned) = prepare(&[b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", info]) else { panic!("ready") };
        assert_eq!(learned.version, "7.0.15");
    }

    /// Guards this: in a planned switchover requests must not reach the new master before its agent has opened it.
    #[test]
    fn a_master_that_is_not_open_yet_is_not_used() {
        let info = b"$45\r\n# Server\r\nredis_version:7.0.15\r\nrun_id:run-1\r\n\r\n";
        let wanted =
            Wanted { login: None, protocol: 2, database: 0, name: b"", commands: false, number: false, open: true };
        let ask = |answer: &[u8]| {
            let mut preparation = Preparation::new(wanted, Some("run-1".into()), &mut Vec::new());
            assert!(matches!(preparation.reply(Reply::new(answer)), Prepared::NotYet));
            preparation.reply(Reply::new(info))
        };
        assert!(matches!(ask(b"-NOPERM this user has no permissions\r\n"), Prepared::Failed(Failure::Closed)));
        for open in [&b":0\r\n"[..], b"-NOREPLICAS no\r\n", b"-MISCONF no\r\n", b"-WRONGTYPE no\r\n"] {
            assert!(matches!(ask(open), Prepared::Ready(_)), "{open:?}");
        }
    }

    /// Guards this: a restarted process keeps its port and has older data.
    #[test]
    fn another_process_is_not_used() {
        for info in [&b"$15\r\nrun_id:run-12\r\n\r\n"[..], b"$0\r\n\r\n", b"$6\r\nhello!\r\n"] {
            let last = prepare(&[b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", info]);
            assert!(matches!(last, Prepared::Failed(Failure::Incarnation { .. })), "{last:?}");
        }
    }

    #[test]
    fn a_login_that_is_refused_is_told_apart_from_a_server_that_is_not_ready() {
        assert!(matches!(prepare(&[b"-WRONGPASS no\r\n"]), Prepared::Refused(text) if text == b"WRONGPASS no"));
        assert!(matches!(prepare(&[b"+OK\r\n", b"-NOAUTH no\r\n"]), Prepared::Refused(_)));
        assert!(matches!(prepare(&[b"+OK\r\n", b"-NOPERM no\r\n"]), Prepared::NotYet));
        assert!(matches!(prepare(&[b"-LOADING wait\r\n"]), Prepared::Failed(Failure::Answer(_))));
    }
}
