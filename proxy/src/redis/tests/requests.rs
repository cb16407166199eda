//! Requests: limits, texts of errors, pieces, and another parser.

use super::cases;
use super::server::Server;
use crate::redis::fuzzing;
use crate::redis::inline::to_array;
use crate::redis::scan::{
    ARGUMENT_LIMIT, ARGUMENTS_LIMIT, COLLECT_LIMIT, FoundRequest, INLINE_LIMIT, Malformed, NAME_LIMIT, RequestScan,
};
use crate::redis::view::Request;
use proptest::prelude::*;
use redis_protocol::resp2::{decode::decode, types::OwnedFrame};

pub(super) fn array<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        request.extend_from_slice(format!("${}\r\n", argument.as_ref().len()).as_bytes());
        request.extend_from_slice(argument.as_ref());
        request.extend_from_slice(b"\r\n");
    }
    request
}

fn scan(bytes: &[u8]) -> Result<FoundRequest, Malformed> {
    RequestScan::default().scan(bytes)
}

#[test]
fn a_request_ends_where_redis_says() {
    let rows: &[(&str, Result<FoundRequest, Malformed>)] = &[
        ("", Ok(FoundRequest::Half)),
        ("*", Ok(FoundRequest::Half)),
        ("*1\r", Ok(FoundRequest::Half)),
        ("*1\r\n$4\r\nPING\r", Ok(FoundRequest::Half)),
        ("*1\r\n$4\r\nPING\r\n", Ok(FoundRequest::Whole(14))),
        ("*1\r\n$4\r\nPING\r\n*1\r\n", Ok(FoundRequest::Whole(14))),
        ("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", Ok(FoundRequest::Whole(19))),
        ("*0\r\n", Ok(FoundRequest::Empty(4))),
        ("*-1\r\nPING", Ok(FoundRequest::Empty(5))),
        ("PING\r\nPING\r\n", Ok(FoundRequest::Inline(6))),
        ("PING\n", Ok(FoundRequest::Inline(5))),
        ("\r\n", Ok(FoundRequest::Inline(2))),
        ("PING", Ok(FoundRequest::Half)),
        ("*1\n", Err(Malformed::Count)),
        ("*1\rX", Err(Malformed::Count)),
        ("*01\r\n", Err(Malformed::Count)),
        ("*+1\r\n", Err(Malformed::Count)),
        ("* 1\r\n", Err(Malformed::Count)),
        ("*-0\r\n", Err(Malformed::Count)),
        ("*\r\n", Err(Malformed::Count)),
        ("*-\r\n", Err(Malformed::Count)),
        ("*1\0\r\n", Err(Malformed::Count)),
        ("*1048577\r\n", Err(Malformed::Count)),
        ("*99999999999999999999", Err(Malformed::Count)),
        ("*1\r\n:4\r\n", Err(Malformed::Argument(b':'))),
        ("*1\r\n\r\n", Err(Malformed::Argument(b'\r'))),
        ("*1\r\n*1\r\n", Err(Malformed::Argument(b'*'))),
        ("*1\r\n$-1\r\n", Err(Malformed::Length)),
        ("*1\r\n$04\r\nPING\r\n", Err(Malformed::Length)),
        ("*1\r\n$65537\r\n", Err(Malformed::Length)),
        ("*2\r\n$3\r\nGET\r\n$536870913\r\n", Err(Malformed::Length)),
        ("*2\r\n$3\r\nGET\r\n$18446744073709551616\r\n", Err(Malformed::Length)),
        ("*1\r\n$4\r\nPINGXX", Err(Malformed::TextEnd)),
        ("*1\r\n$3\r\nPING\r\n", Err(Malformed::TextEnd)),
        ("*1\r\n$5\r\nPING\r\n*1", Err(Malformed::TextEnd)),
    ];
    for (bytes, found) in rows {
        assert_eq!(scan(bytes.as_bytes()), *found, "{bytes:?}");
    }
    assert_eq!((NAME_LIMIT, ARGUMENT_LIMIT, ARGUMENTS_LIMIT), (65536, 536_870_912, 1_048_576), "the rows above");
}

#[test]
fn errors_say_what_redis_says() {
    let rows = [
        (Malformed::Count, "Protocol error: invalid multibulk length"),
        (Malformed::Length, "Protocol error: invalid bulk length"),
        (Malformed::Argument(b'*'), "Protocol error: expected '$', got '*'"),
        (Malformed::Argument(b'\r'), "Protocol error: expected '$', got '\\r'"),
        (Malformed::TooLong, "Protocol error: too big inline request"),
        (Malformed::Quotes, "Protocol error: unbalanced quotes in request"),
    ];
    for (fault, text) in rows {
        assert_eq!(fault.to_string(), text);
    }
}

#[test]
fn an_inline_request_is_bounded() {
    let mut line = vec![b'a'; INLINE_LIMIT];
    line.push(b'\n');
    assert_eq!(scan(&line), Ok(FoundRequest::Inline(INLINE_LIMIT + 1)));
    line.insert(0, b'a');
    assert_eq!(scan(&line), Err(Malformed::TooLong));
    assert_eq!(scan(&line[..=INLINE_LIMIT]), Err(Malformed::TooLong));
}

#[test]
fn inline_requests_follow_the_rules_for_quotes() {
    type Words = &'static [&'static [u8]];
    let rows: &[(&str, Result<Words, Malformed>)] = &[
        ("PING\r\n", Ok(&[b"PING"])),
        ("  set  key\tvalue \r\n", Ok(&[b"set", b"key", b"value"])),
        ("set k \"a b\\n\\x41\\\"\\q\"\n", Ok(&[b"set", b"k", b"a b\nA\"q"])),
        ("set k 'a \\' \\n'\n", Ok(&[b"set", b"k", b"a ' \\n"])),
        ("set k \"\"\n", Ok(&[b"set", b"k", b""])),
        ("set pre\"fix\" v\n", Ok(&[b"set", b"prefix", b"v"])),
        ("set \"\\xzz\"\n", Ok(&[b"set", b"xzz"])),
        ("a\x0bb\n", Ok(&[b"a\x0bb"])),
        ("\x0bb\n", Ok(&[b"b"])),
        ("set k \"a\"b\n", Err(Malformed::Quotes)),
        ("set k \"a\n", Err(Malformed::Quotes)),
        ("set k 'a\n", Err(Malformed::Quotes)),
        ("set k \"a\\\"\n", Err(Malformed::Quotes)),
        ("set k\0 a\n", Err(Malformed::Nul)),
    ];
    for (line, words) in rows {
        assert_eq!(to_array(line.as_bytes()), words.map(|words| Some(array(words))), "{line:?}");
    }
    assert_eq!(to_array(b"\r\n"), Ok(None));
    assert_eq!(to_array(b" \t \r\n"), Ok(None));
}

#[test]
fn a_view_tells_name_and_arguments() {
    let bytes = array(&["SET", "key", ""]);
    let request = Request::new(&bytes);
    assert_eq!((request.count(), request.name()), (3, &b"SET"[..]));
    assert_eq!(request.arguments().collect::<Vec<_>>(), [&b"SET"[..], b"key", b""]);
    // Of a request that is passed on in pieces only what is here.
    let begun = Request::new(&bytes[..bytes.len() - 8]);
    assert_eq!(begun.arguments().collect::<Vec<_>>(), [&b"SET"[..], b"key"]);
}

#[test]
fn a_big_request_is_followed_to_its_end() {
    let value = vec![b'v'; 3 * COLLECT_LIMIT];
    let mut bytes = array(&[b"SET".as_slice(), b"key", &value]);
    let end = bytes.len();
    bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    let mut scan = RequestScan::default();
    assert_eq!(scan.scan(&bytes[..10]), Ok(FoundRequest::Half));
    // Its length says that it will be big before it is.
    assert_eq!(scan.scan(&bytes[..64]), Ok(FoundRequest::Big));
    assert_eq!(Request::new(&bytes[..64]).name(), b"SET");
    let mut taken = 0;
    for piece in (64..bytes.len() + 4096).step_by(4096) {
        let piece = scan.follow(&bytes[taken..piece.min(bytes.len())]).expect("well formed");
        taken += piece.len;
        assert_eq!(piece.last, taken == end);
        if piece.last {
            break;
        }
    }
    assert_eq!((taken, scan.is_fresh()), (end, true));
}

#[test]
fn a_hundred_thousand_arguments_in_pieces_are_looked_at_once() {
    let arguments: Vec<String> = (0..100_000).map(|n| format!("k{n}")).collect();
    let bytes = array(&arguments);
    let (mut scan, mut calls) = (RequestScan::default(), 0);
    let mut found = FoundRequest::Half;
    for end in (0..bytes.len() + 16384).step_by(16384) {
        calls += 1;
        found = scan.scan(&bytes[..end.min(bytes.len())]).expect("well formed");
        // What has been counted is never counted again: the count says so, not a clock.
        assert!(found != FoundRequest::Half || scan.seen() + 16 > end.min(bytes.len()), "stopped at {}", scan.seen());
    }
    assert_eq!(found, FoundRequest::Whole(bytes.len()));
    assert!(calls > 50);
    assert!(std::mem::size_of::<RequestScan>() <= 16);
}

#[test]
fn a_real_server_refuses_with_the_same_words() {
    let mut server = Server::start();
    let long = "a".repeat(INLINE_LIMIT + 1);
    for bytes in [
        "*1\r\n:4\r\n",
        "*01\r\n",
        "*+1\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$04\r\nPING\r\n",
        "*2\r\n$3\r\nGET\r\n$536870913\r\n",
        long.as_str(),
    ] {
        server.connect_anew();
        let fault = scan(bytes.as_bytes()).expect_err(bytes);
        assert_eq!(server.last_words(bytes.as_bytes()), format!("-ERR {fault}\r\n"));
    }
}

#[test]
fn a_real_server_reads_the_same_words_from_a_line() {
    let mut server = Server::start();
    const PIECES: [&str; 14] =
        ["a", "\"", "'", "\\", " ", "\\x41", "\\x4", "\\n", "\t", "\x0b", "\x0c", "\r", "\u{e9}", "$1"];
    let (mut whole, mut refused) = (0, 0);
    // Every line of up to three pieces behind a word that says its arguments back.
    let lines = PIECES.iter().flat_map(|a| PIECES.iter().flat_map(move |b| PIECES.iter().map(move |c| [*a, *b, *c])));
    for line in lines.map(|pieces| format!("eval \"return ARGV\" 0 {}x\r\n", pieces.concat())) {
        match to_array(line.as_bytes()) {
            Ok(Some(request)) => {
                assert_eq!(server.ask(line.as_bytes()), server.ask(&request), "{line:?}");
                whole += 1;
            }
            Ok(None) => panic!("{line:?} has words"),
            Err(fault) => {
                assert_eq!(server.last_words(line.as_bytes()), format!("-ERR {fault}\r\n"), "{line:?}");
                server.connect_anew();
                refused += 1;
            }
        }
    }
    assert!(whole > 500 && refused > 500, "{whole} {refused}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn well_formed_requests_in_any_pieces(requests in prop::collection::vec(
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6), 1..5), cut in 0_usize..12) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|request| array(request)).collect();
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        fuzzing::requests(&bytes);
    }

    #[test]
    fn whatever_bytes_in_any_pieces(bytes in "([*$:+\r\n 0-9a-c\"'\\\\\0-]|\r\n|[*][1-3]\r\n|[$][0-3]\r\n){0,60}") {
        fuzzing::requests(bytes.as_bytes());
    }

    #[test]
    fn another_parser_finds_the_same_ends(bytes in "([*][1-3]\r\n([$][0-3]\r\n[a-c*$\r\n]{0,3}\r\n){1,3}){1,3}") {
        let bytes = bytes.as_bytes();
        match (scan(bytes), decode(bytes)) {
            (Ok(FoundRequest::Whole(len)), Ok(Some((OwnedFrame::Array(items), theirs)))) => {
                prop_assert_eq!(len, theirs);
                prop_assert_eq!(items.len(), Request::new(bytes).count());
            }
            (Ok(FoundRequest::Half), Ok(None)) | (Err(_), _) => {}
            (ours, theirs) => prop_assert!(false, "{:?}, but the other parser says {:?}", ours, theirs),
        }
    }
}
