//! Whether the hot replica has what the master had when it was asked: a question on a connection of the proxy's own.
//!
//! `PING` and `WAIT 1`, sent after replies were read, answer for all writes behind those replies: `WAIT` takes the
//! master's offset as of that connection's last command. (Where reads wait too, a small write stands in `PING`'s place,
//! or an old acknowledgement would do.) Only the answer 1 counts: 2 is a replication client that nobody certified. With
//! 0 the master itself is asked whether it has to wait at all; it says no only while no record names a hot replica.
//!
//! The machine knows no clients: whoever asks keeps what was read before apart from what is read after.

use super::prepare::request;
use crate::redis::view::Reply;
use std::collections::VecDeque;

/// How long one `WAIT` lasts before the master is asked whether to go on.
const WAIT_MS: &[u8] = b"100";

/// Where the master says whether its writes have to wait for a hot replica.
const NEED: &[u8] = b"understudy:need";

/// The small write, where memory is full: Redis 7 and newer let such a script through.
const SET_THOUGH_FULL: &[u8] = b"#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])";

/// One small write in so many is a plain one, however full the master was.
const PLAIN_EVERY: u64 = 1_000;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// What reads have shown is asked about as well.
    pub(super) reads: bool,
    /// Both disks are asked about.
    pub(super) disks: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The key of the small write.
    key: Vec<u8>,
    writes: u64,
    /// Answers that are still to come.
    asked: VecDeque<Asked>,
    /// The master has said that it is alone: it is asked for that first.
    alone: bool,
    /// Too many confirmed: from then on one confirmation may be the stranger's, until the server says that it has one
    /// replication client.
    strange: bool,
    /// The small write of this round was refused: what `WAIT` says is of an older one.
    unwritten: bool,
    /// The master's memory is full: the small write, which replaces one of the same size, is let through by a script.
    full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Mark,
    Wait,
    WaitAof,
    Need,
    Role,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another answer is to come.
    NotYet,
    /// Whatever was read before the question was sent may leave.
    Passed,
    /// It may not; ask again.
    Again,
    /// It may not; ask again after a pause, since the answer came at once.
    Later,
    /// It may not: so many replication clients confirm, where there may be one. Ask again after a pause.
    Strangers(i64),
    /// It may not, and the connection is of no use.
    Broken(String),
}

impl Barrier {
    pub(super) fn new(proxy: &str) -> Self {
        let key = format!("understudy:barrier:{proxy}").into_bytes();
        Self { key, writes: 0, asked: VecDeque::new(), alone: false, strange: false, unwritten: false, full: false }
    }

    /// Whether a full master is asked by a script. Now and then it is not: it may have room again.
    fn is_scripted(&self) -> bool {
        !self.writes.is_multiple_of(PLAIN_EVERY)
    }

    /// Whether a question is being answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Asks. Everything that is read from here on is not covered by the answer.
    pub(super) fn ask(&mut self, question: Question, out: &mut Vec<u8>) {
        self.unwritten = false;
        if self.alone {
            return self.ask_need(out);
        }
        if question.reads {
            self.writes += 1;
            let number = self.writes.to_string();
            if self.full && self.is_scripted() {
                request(out, &[b"EVAL", SET_THOUGH_FULL, b"1", &self.key, number.as_bytes()]);
            } else {
                request(out, &[b"SET", &self.key, number.as_bytes()]);
            }
        } else {
            request(out, &[b"PING"]);
        }
        self.asked.push_back(Asked::Mark);
        if question.disks {
            request(out, &[b"WAITAOF", b"1", b"1", WAIT_MS]);
            self.asked.push_back(Asked::WaitAof);
        } else {
            request(out, &[b"WAIT", b"1", WAIT_MS]);
            self.asked.push_back(Asked::Wait);
        }
    }

    /// Takes in the next answer; may ask more.
    pub(super) fn answer(&mut self, reply: Reply<'_>, out: &mut Vec<u8>) -> Verdict {
        let asked = self.asked.pop_front();
        if asked == Some(Asked::Mark) {
            let error = reply.text().filter(|_| reply.is_error());
            let full = error.is_some_and(|text| text.starts_with(b"OOM"));
            let by_script = self.full && self.is_scripted();
            // A server that does not let the script through (a right that is missing, a Redis before 7) is asked the usual
            // way again.
            self.full = full || (by_script && error.is_none());
            if error.is_some_and(|text| by_script || full || passes(text)) {
                self.unwritten = true;
                return Verdict::NotYet;
            }
        }
        if reply.is_error() {
            return Verdict::Broken(String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned());
        }
        match asked {
            Some(Asked::Mark) => Verdict::NotYet,
            Some(Asked::Wait) => self.confirmed(reply.integer(), out),
            Some(Asked::WaitAof) => {
                let mut disks = reply.items().map(Reply::integer);
                let (own, copies) = (disks.next().flatten(), disks.next().flatten());
                // A write that is not on the master's own disk is confirmed by nobody.
                self.confirmed(copies.map(|copies| if own >= Some(1) { copies } else { 0 }), out)
            }
            Some(Asked::Need) => self.needed(reply),
            Some(Asked::Role) => self.counted(reply),
            None => Verdict::Broken("it answers more than was asked".to_owned()),
        }
    }

    fn confirmed(&mut self, copies: Option<i64>, out: &mut Vec<u8>) -> Verdict {
        match copies {
            _ if self.unwritten => Verdict::Later,
            Some(1) if self.strange => {
                request(out, &[b"ROLE"]);
                self.asked.push_back(Asked::Role);
                Verdict::NotYet
            }
            Some(1) => Verdict::Passed,
            Some(0) => {
                self.ask_need(out);
                Verdict::NotYet
            }
            Some(more @ 2..) => {
                self.strange = true;
                Verdict::Strangers(more)
            }
            Some(_) | None => Verdict::Broken("it answers WAIT with no number of copies".to_owned()),
        }
    }

    /// How many replication clients the master has, now that one of them has confirmed.
    fn counted(&mut self, reply: Reply<'_>) -> Verdict {
        let mut items = reply.items();
        let role = items.next().and_then(Reply::text);
        let copies = items.nth(1).map(|copies| copies.items().count());
        match (role, copies) {
            (Some(b"master"), Some(1)) => {
                self.strange = false;
                Verdict::Passed
            }
            (Some(b"master"), Some(0)) => Verdict::Later,
            (Some(b"master"), Some(more)) => Verdict::Strangers(i64::try_from(more).unwrap_or(i64::MAX)),
            _ => Verdict::Broken("it answers ROLE with no number of copies".to_owned()),
        }
    }

    /// Missing and unreadable mean needed.
    fn needed(&mut self, reply: Reply<'_>) -> Verdict {
        self.alone = reply.text() == Some(b"0");
        if self.alone { Verdict::Passed } else { Verdict::Again }
    }

    fn ask_need(&mut self, out: &mut Vec<u8>) {
        request(out, &[b"GET", NEED]);
        self.asked.push_back(Asked::Need);
    }
}

/// Whether a write is refused for a reason that ends by itself: too few replicas, or a disk that takes no writes.
fn passes(text: &[u8]) -> bool {
    text.starts_with(b"NOREPLICAS") || text.starts_with(b"MISCONF")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITES: Question = Question { reads: false, disks: false };
    const PING_WAIT: &str = "*1|$4|PING|*3|$4|WAIT|$1|1|$3|100|";
    const GET_NEED: &str = "*2|$3|GET|$15|understudy:need|";

    /// A barrier, and what it has asked since the last look.
    struct Talk(Barrier, Vec<u8>);

    impl Talk {
        fn new() -> Self {
            Self(Barrier::new("p1"), Vec::new())
        }

        fn asks(&mut self, question: Question) -> String {
            self.0.ask(question, &mut self.1);
            self.asked()
        }

        fn asked(&mut self) -> String {
            String::from_utf8(std::mem::take(&mut self.1)).expect("text").replace("\r\n", "|")
        }

        fn hears(&mut self, reply: &str) -> Verdict {
            self.0.answer(Reply::new(format!("{reply}\r\n").as_bytes()), &mut self.1)
        }
    }

    #[test]
    fn one_copy_passes() {
        let mut talk = Talk::new();
        assert_eq!(talk.asks(WRITES), PING_WAIT);
        assert_eq!(talk.hears("+PONG"), Verdict::NotYet);
        assert!(talk.0.is_busy());
        assert_eq!(talk.hears(":1"), Verdict::Passed);
        assert!(!talk.0.is_busy());
        assert_eq!(talk.asks(WRITES), PING_WAIT);
    }

    /// Guards this: no copy, and the master does not say that it needs none.
    #[test]
    fn no_copy_passes_only_when_the_master_says_that_it_is_alone() {
        for (need, verdict) in [
            ("$1\r\n0", Verdict::Passed),
            ("$1\r\n1", Verdict::Again),
            ("$-1", Verdict::Again),
            ("_", Verdict::Again),
            ("$2\r\n00", Verdict::Again),
            ("$0\r\n", Verdict::Again),
            ("*0", Verdict::Again),
            ("-NOPERM no", Verdict::Broken("NOPERM no".into())),
        ] {
            let mut talk = Talk::new();
            talk.asks(WRITES);
            talk.hears("+PONG");
            assert_eq!((talk.hears(":0"), talk.asked().as_str()), (Verdict::NotYet, GET_NEED));
            assert_eq!(talk.hears(need), verdict, "{need:?}");
        }
    }

    /// Guards this: a second replication client acknowledges what the hot replica may not have.
    #[test]
    fn more_than_one_copy_never_passes() {
        for (answer, verdict) in [
            (":2", Verdict::Strangers(2)),
            (":7", Verdict::Strangers(7)),
            (":-1", Verdict::Broken("it answers WAIT with no number of copies".into())),
            ("+OK", Verdict::Broken("it answers WAIT with no number of copies".into())),
            ("-UNBLOCKED client unblocked", Verdict::Broken("UNBLOCKED client unblocked".into())),
            ("-ERR WAIT cannot be used with replica", Verdict::Broken("ERR WAIT cannot be used with replica".into())),
        ] {
            let mut talk = Talk::new();
            talk.asks(WRITES);
            talk.hears("+PONG");
            assert_eq!((talk.hears(answer), talk.asked().as_str()), (verdict, ""));
        }
    }

    #[test]
    fn a_master_that_is_alone_is_asked_for_that_first_and_waited_for_once_it_changes() {
        let mut talk = Talk::new();
        talk.asks(WRITES);
        talk.hears("+PONG");
        talk.hears(":0");
        talk.hears("$1\r\n0");
        talk.asked();
        assert_eq!(talk.asks(WRITES), GET_NEED);
        assert_eq!(talk.hears("$1\r\n0"), Verdict::Passed);
        assert_eq!(talk.asks(WRITES), GET_NEED);
        assert_eq!(talk.hears("$1\r\n1"), Verdict::Again);
        assert_eq!(talk.asks(WRITES), PING_WAIT);
    }

    /// Guards this: a read is durable only behind a write made after it, or an old acknowledgement satisfies WAIT.
    #[test]
    fn durable_reads_are_asked_about_with_a_write() {
        let mut talk = Talk::new();
        let reads = Question { reads: true, ..WRITES };
        assert!(talk.asks(reads).starts_with("*3|$3|SET|$21|understudy:barrier:p1|$1|1|*3|$4|WAIT|"));
        talk.hears("+OK");
        assert_eq!(talk.hears(":1"), Verdict::Passed);
        assert!(talk.asks(reads).contains("|$1|2|*3|"), "each round writes anew");
        assert_eq!(talk.hears("-NOREPLICAS Not enough good replicas to write."), Verdict::NotYet);
        assert_eq!(talk.hears(":1"), Verdict::Later, "nothing was written: the copy has confirmed something older");
        talk.asks(reads);
        assert_eq!(talk.hears("-READONLY no"), Verdict::Broken("READONLY no".into()));
    }

    /// What reads is not to stand still until memory is freed.
    #[test]
    fn a_master_whose_memory_is_full_is_asked_by_a_script() {
        let mut talk = Talk::new();
        let reads = Question { reads: true, ..WRITES };
        talk.asks(reads);
        assert_eq!(talk.hears("-OOM command not allowed when used memory > 'maxmemory'."), Verdict::NotYet);
        assert_eq!(talk.hears(":1"), Verdict::Later, "nothing was written");
        assert!(talk.asks(reads).starts_with("*5|$4|EVAL|"));
        talk.hears("+OK");
        assert_eq!(talk.hears(":1"), Verdict::Passed);
        // It may not be let through.
        assert!(talk.asks(reads).starts_with("*5|$4|EVAL|"));
        assert_eq!(talk.hears("-NOPERM no"), Verdict::NotYet);
        assert_eq!(talk.hears(":1"), Verdict::Later);
        assert!(talk.asks(reads).starts_with("*3|$3|SET|"));
        talk.hears("+OK");
        assert_eq!(talk.hears(":1"), Verdict::Passed);
        talk.asks(reads);
        assert_eq!(talk.hears("-MISCONF Errors writing to the AOF file"), Verdict::NotYet);
    }

    #[test]
    fn both_disks_are_asked_about_where_that_is_wanted() {
        for (answer, verdict) in [
            ("*2\r\n:1\r\n:1", Verdict::Passed),
            ("*2\r\n:0\r\n:1", Verdict::NotYet),
            ("*2\r\n:1\r\n:0", Verdict::NotYet),
            ("*2\r\n:1\r\n:2", Verdict::Strangers(2)),
            (":1", Verdict::Broken("it answers WAIT with no number of copies".into())),
        ] {
            let mut talk = Talk::new();
            assert!(talk.asks(Question { reads: false, disks: true }).ends_with("|*4|$7|WAITAOF|$1|1|$1|1|$3|100|"));
            talk.hears("+PONG");
            assert_eq!(talk.hears(answer), verdict, "{answer}");
        }
    }

    /// Guards this: with two copies WAIT answers 1 as soon as one of them has confirmed, whichever it is.
    #[test]
    fn after_too_many_one_passes_only_when_the_server_has_one() {
        let copy = "*3\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n$1\r\n5\r\n";
        let role = |copies: usize| format!("*3\r\n$6\r\nmaster\r\n:5\r\n*{copies}\r\n{}", copy.repeat(copies));
        let mut talk = Talk::new();
        talk.asks(WRITES);
        talk.hears("+PONG");
        assert_eq!(talk.hears(":2"), Verdict::Strangers(2));
        for (role, verdict) in [(role(2), Verdict::Strangers(2)), (role(0), Verdict::Later), (role(1), Verdict::Passed)]
        {
            assert_eq!(talk.asks(WRITES), PING_WAIT);
            talk.hears("+PONG");
            assert_eq!((talk.hears(":1"), talk.asked().as_str()), (Verdict::NotYet, "*1|$4|ROLE|"));
            assert_eq!(talk.hears(role.trim_end()), verdict);
        }
        talk.asks(WRITES);
        talk.hears("+PONG");
        assert_eq!(talk.hears(":1"), Verdict::Passed, "the stranger is gone and forgotten");
        talk.asks(WRITES);
        talk.hears("+PONG");
        talk.hears(":3");
        talk.asks(WRITES);
        talk.hears("+PONG");
        talk.hears(":1");
        assert!(matches!(talk.hears("*1\r\n$5\r\nslave"), Verdict::Broken(_)));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_breaks_the_connection() {
        assert!(matches!(Talk::new().hears(":1"), Verdict::Broken(_)));
    }
}
