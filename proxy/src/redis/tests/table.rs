//! The table of commands: what is fixed, and what a real server says of all of its commands.

use super::requests::array;
use super::server::Server;
use crate::redis::commands::{Class, Commands, Effect, PubSub, Refusal, Session, TableError, Transaction};
use crate::redis::view::{Reply, Request};

/// How many databases the clients of these tests have.
const DATABASES: Option<u32> = Some(16);

fn class(commands: &mut Commands, request: &str) -> Class {
    let words: Vec<&str> = request.split(' ').collect();
    commands.class(Request::new(&array(&words)), DATABASES)
}

fn text(class: Class) -> String {
    match class {
        Class::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What holds before a server was asked as well as after.
fn fixed(commands: &mut Commands) {
    let rows = [
        ("PING", Class::Harmless),
        ("ping hello", Class::Harmless),
        ("Echo x", Class::Harmless),
        ("COMMAND DOCS", Class::Harmless),
        ("MULTI", Class::Transaction(Transaction::Multi)),
        ("watch a b", Class::Transaction(Transaction::Watch)),
        ("SUBSCRIBE a", Class::PubSub(PubSub::Subscribe)),
        ("unsubscribe", Class::PubSub(PubSub::Unsubscribe)),
        ("AUTH a b", Class::Session(Session::Auth)),
        ("HELLO", Class::Session(Session::Hello)),
        ("HELLO 3 AUTH a b SETNAME c", Class::Session(Session::Hello)),
        ("SELECT 3", Class::Session(Session::Select)),
        ("CLIENT setname a", Class::Session(Session::ClientSetname)),
        ("client REPLY off", Class::Session(Session::ClientReply)),
        ("CLIENT LIST", Class::Harmless),
        ("CLIENT ID", Class::Pinning),
        ("CLIENT TRACKING on", Class::Pinning),
        ("CLIENT TRACKING on BCAST", Class::Pinning),
        ("CLIENT NO-EVICT on", Class::Pinning),
        ("CLIENT", Class::Pinning),
        ("MONITOR", Class::Pinning),
        ("WAIT 1 0", Class::Blocking(Effect::None)),
        ("WAITAOF 1 1 0", Class::Blocking(Effect::None)),
        ("XREAD STREAMS a 0", Class::Read),
        ("XREAD block 0 STREAMS a 0", Class::Blocking(Effect::Read)),
        ("XREADGROUP GROUP g c STREAMS a >", Class::Write),
        ("XREADGROUP GROUP streams c BLOCK 0 STREAMS a >", Class::Blocking(Effect::Write)),
        ("CONFIG RESETSTAT", Class::Harmless),
        ("ACL WHOAMI", Class::Harmless),
        ("POST / HTTP/1.1", Class::Hostile),
        ("Host: x", Class::Hostile),
        ("NOSUCHCOMMAND a", Class::Write),
        ("COPY a b", Class::Write),
        ("COPY a b DB 15 REPLACE", Class::Write),
        ("COPY db b DB 16", Class::Refused(Refusal::Database)),
        ("COPY a b REPLACE db 16", Class::Refused(Refusal::Database)),
        ("COPY a b DB 0 DB 16", Class::Refused(Refusal::Database)),
        ("COPY a b DB DB 16", Class::Refused(Refusal::Database)),
        ("MOVE a 15", Class::Write),
        ("MOVE a 16", Class::Refused(Refusal::Database)),
        ("MOVE a", Class::Write),
        ("SELECT", Class::Refused(Refusal::Arguments("select"))),
        ("MULTI now", Class::Refused(Refusal::Arguments("multi"))),
        ("CLIENT SETNAME", Class::Refused(Refusal::Arguments("client|setname"))),
        ("WATCH", Class::Refused(Refusal::Arguments("watch"))),
    ];
    for (request, expected) in rows {
        assert_eq!(class(commands, request), expected, "{request}");
        assert_eq!(class(commands, request), expected, "{request} the second time");
    }
}

/// What belongs to the agents is refused with a sentence, whatever the server says of it.
fn refused(commands: &mut Commands) {
    for request in [
        "REPLICAOF a 1",
        "slaveof no one",
        "PSYNC ? -1",
        "SYNC",
        "REPLCONF ack 1",
        "SHUTDOWN",
        "DEBUG sleep 1",
        "FAILOVER",
        "CLUSTER INFO",
        "MODULE LIST",
        "SWAPDB 0 1",
        "CONFIG GET *",
        "CONFIG SET a b",
        "CONFIG REWRITE",
        "CONFIG",
        "ACL SETUSER a",
        "ACL LIST",
        "CLIENT KILL a",
        "CLIENT PAUSE 1",
        "CLIENT UNPAUSE",
        "CLIENT UNBLOCK 1",
    ] {
        let words: Vec<&str> = request.split(' ').collect();
        let text = text(class(commands, request));
        let name = text.strip_prefix("understudy: ").and_then(|text| text.split_once(" is refused: "));
        let (name, why) = name.unwrap_or_else(|| panic!("{request}: {text}"));
        assert!(words.join(" ").to_ascii_uppercase().starts_with(name) && !why.is_empty(), "{request}: {text}");
        assert!(!text.contains(['\r', '\n']), "{request}: {text}");
    }
}

#[test]
fn what_is_fixed_needs_no_server() {
    fixed(&mut Commands::built_in());
    refused(&mut Commands::built_in());
}

#[test]
fn before_it_is_known_how_many_databases_there_are_only_the_first_is_the_clients() {
    let refused = Class::Refused(Refusal::Database);
    let rows = [("0", None, Class::Write), ("1", None, refused), ("16", Some(u32::MAX), Class::Write)];
    for (index, databases, expected) in rows {
        let request = array(&["MOVE", "a", index]);
        assert_eq!(Commands::built_in().class(Request::new(&request), databases), expected, "{index}");
    }
}

#[test]
fn a_real_server_says_the_rest_in_both_protocols() {
    let mut server = Server::start();
    for protocol in ["2", "3"] {
        server.ask(&array(&["HELLO", protocol]));
        let answer = server.ask(&array(&["COMMAND"]));
        let mut commands = Commands::read(Reply::new(&answer)).expect("a table");
        fixed(&mut commands);
        refused(&mut commands);
        let rows = [
            ("GET a", Class::Read),
            ("gEt a", Class::Read),
            ("MGET a b", Class::Read),
            ("SET a b", Class::Write),
            ("EVAL x 0", Class::Write),
            ("EVAL_RO x 0", Class::Read),
            ("FCALL x 0", Class::Write),
            ("PUBLISH a b", Class::Write),
            ("FLUSHALL", Class::Write),
            ("BLPOP a 0", Class::Blocking(Effect::Write)),
            ("BLMPOP 0 1 a LEFT", Class::Blocking(Effect::Write)),
            ("XGROUP CREATE a g $", Class::Write),
            ("XINFO STREAM a", Class::Read),
            ("OBJECT FREQ a", Class::Read),
            ("object freq a", Class::Read),
            ("OBJECT NOSUCH a", Class::Write),
            ("OBJECT", Class::Write),
            ("MEMORY USAGE a", Class::Read),
            ("SCRIPT LOAD x", Class::Write),
            ("GEORADIUSBYMEMBER_RO a b 1 m", Class::Read),
        ];
        for (request, expected) in rows {
            assert_eq!(class(&mut commands, request), expected, "{request} in protocol {protocol}");
        }
        every_flag_is_heeded(Reply::new(&answer), &mut commands);
    }
}

/// By the server's own flags: what writes is never taken for less, what blocks never for what does not.
fn every_flag_is_heeded(answer: Reply<'_>, commands: &mut Commands) {
    let mut seen = 0;
    for entry in answer.items() {
        let mut parts = vec![entry];
        parts.extend(entry.items().nth(9).into_iter().flat_map(Reply::items));
        for part in parts {
            let name =
                String::from_utf8(part.items().next().and_then(Reply::text).expect("a name").to_vec()).expect("text");
            let flags: Vec<&[u8]> = part.items().nth(2).expect("flags").items().filter_map(Reply::text).collect();
            let has = |flag: &str| flags.contains(&flag.as_bytes());
            let class = class(commands, &name.replace('|', " ").to_ascii_uppercase());
            assert!(
                !has("write") || matches!(class, Class::Write | Class::Blocking(Effect::Write)) || is_refused(class),
                "{name}: {class:?}"
            );
            let stream = name == "xread" || name == "xreadgroup";
            assert!(!has("blocking") || stream || matches!(class, Class::Blocking(_)), "{name}: {class:?}");
            assert!(!matches!(class, Class::Read) || has("readonly"), "{name}: {class:?}");
            seen += 1;
        }
    }
    assert!(seen > 300, "only {seen} commands");
}

fn is_refused(class: Class) -> bool {
    matches!(class, Class::Refused(_))
}

#[test]
fn an_answer_that_is_no_table_says_so() {
    let error = Commands::read(Reply::new(b"-NOPERM no\r\n")).expect_err("an error");
    assert_eq!(error.to_string(), "the server answers COMMAND with an error: NOPERM no");
    for bytes in ["+OK\r\n", "*0\r\n", "*1\r\n*1\r\n$3\r\nget\r\n", "*1\r\n:1\r\n"] {
        assert!(matches!(Commands::read(Reply::new(bytes.as_bytes())), Err(TableError::Shape(0))), "{bytes:?}");
    }
}

#[test]
fn the_last_name_is_remembered_as_it_was_written_only() {
    let table = "*2\r\n*6\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*6\r\n$3\r\nset\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n";
    let mut commands = Commands::read(Reply::new(table.as_bytes())).expect("as of Redis 6");
    for (request, expected) in [
        ("GET a", Class::Read),
        ("GET b", Class::Read),
        ("SET a b", Class::Write),
        ("get a", Class::Read),
        ("GE", Class::Write),
        ("GET a", Class::Read),
    ] {
        assert_eq!(class(&mut commands, request), expected, "{request}");
    }
    let long = "x".repeat(100);
    assert_eq!(class(&mut commands, &long), Class::Write);
    assert_eq!(class(&mut commands, &format!("OBJECT {long}")), Class::Write);
    assert_eq!(class(&mut commands, &format!("CLIENT {long}")), Class::Pinning);
    let nothing = array(&["", ""]);
    assert_eq!(commands.class(Request::new(&nothing), None), Class::Write);
}
