//! Replies: every kind of both protocols, pieces, another parser, and what would hurt a recursive one.

use super::cases;
use crate::redis::fuzzing;
use crate::redis::scan::{COLLECT_LIMIT, FoundReply, Malformed, ReplyScan};
use crate::redis::view::{Published, Reply};
use proptest::prelude::*;
use redis_protocol::resp3::decode::complete::decode;

fn scan(bytes: &[u8]) -> Result<FoundReply, Malformed> {
    ReplyScan::default().scan(bytes)
}

#[test]
fn every_kind_ends_at_its_end() {
    let whole = [
        "+OK\r\n",
        "+\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        "$0\r\n\r\n",
        "$2\r\n\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
        "_\r\n",
        "#t\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
        "~1\r\n_\r\n",
        ">3\r\n+message\r\n+c\r\n+x\r\n",
        "|1\r\n+ttl\r\n:1\r\n+OK\r\n",
        "|1\r\n+a\r\n*1\r\n:1\r\n|1\r\n+b\r\n:2\r\n*1\r\n|1\r\n+c\r\n:3\r\n:4\r\n",
    ];
    for bytes in whole {
        assert_eq!(scan(bytes.as_bytes()), Ok(FoundReply::Whole(bytes.len())), "{bytes:?}");
        assert_eq!(scan(format!("{bytes}+").as_bytes()), Ok(FoundReply::Whole(bytes.len())), "{bytes:?}");
        for end in 0..bytes.len() {
            assert_eq!(scan(&bytes.as_bytes()[..end]), Ok(FoundReply::Half), "{bytes:?} up to {end}");
        }
        fuzzing::replies(bytes.as_bytes());
    }
}

#[test]
fn what_no_server_sends_is_malformed() {
    let rows = [
        ("hello\r\n", Malformed::Kind(b'h')),
        ("\r\n", Malformed::Kind(b'\r')),
        ("$?\r\n", Malformed::Length),
        ("$-2\r\n", Malformed::Length),
        ("!-1\r\n", Malformed::Length),
        ("$9223372036854775808\r\n", Malformed::Length),
        ("*?\r\n", Malformed::Count),
        ("~-1\r\n", Malformed::Count),
        ("*4294967296\r\n", Malformed::Count),
        ("%2147483648\r\n", Malformed::Count),
        ("*4294967295\r\n*4294967295\r\n", Malformed::Count),
        ("+a\rb\r\n", Malformed::LineEnd),
        ("$1\r\nab\r\n", Malformed::TextEnd),
        ("*1\r\n$2\r\na\r\n\r\n", Malformed::TextEnd),
    ];
    for (bytes, fault) in rows {
        assert_eq!(scan(bytes.as_bytes()), Err(fault), "{bytes:?}");
    }
    assert_eq!(scan(b"$9223372036854775807\r\n"), Ok(FoundReply::Big), "no length of a text can overflow");
}

#[test]
fn depth_costs_nothing() {
    let nested = b"*1\r\n".repeat(10 * 1024 * 1024 / 4);
    let mut scan = ReplyScan::default();
    assert_eq!(scan.scan(&nested[..COLLECT_LIMIT]), Ok(FoundReply::Half));
    assert_eq!(scan.scan(&nested), Ok(FoundReply::Big));
    let piece = scan.follow(&nested).expect("well formed");
    assert_eq!((piece.len, piece.last), (nested.len(), false));
    let end = scan.follow(b":1\r\n+").expect("well formed");
    assert_eq!((end.len, end.last), (4, true));
    assert!(std::mem::size_of::<ReplyScan>() <= 16);
    // Looking into one goes a single level down.
    let mut whole = nested;
    whole.extend_from_slice(b":1\r\n");
    let reply = Reply::new(&whole);
    assert_eq!(reply.items().count(), 1);
    assert_eq!(reply.published(), None);
}

#[test]
fn a_view_tells_what_is_said() {
    let reply = |bytes: &'static str| Reply::new(bytes.as_bytes());
    assert!(reply("-ERR x\r\n").is_error() && reply("!3\r\nERR\r\n").is_error() && !reply("+ERR\r\n").is_error());
    assert_eq!(reply("-ERR x\r\n").text(), Some(&b"ERR x"[..]));
    assert_eq!(reply("+QUEUED\r\n").text(), Some(&b"QUEUED"[..]));
    assert_eq!(reply("$3\r\na\r\n\r\n").text(), Some(&b"a\r\n"[..]));
    assert_eq!(reply(":-7\r\n").integer(), Some(-7));
    assert_eq!(reply("$1\r\n7\r\n").integer(), None);
    assert!(reply("$-1\r\n").is_null() && reply("*-1\r\n").is_null() && reply("_\r\n").is_null());
    assert_eq!(reply("$-1\r\n").text(), None);
    assert!(reply(">1\r\n+x\r\n").is_push());
    let behind = reply("|1\r\n+a\r\n:1\r\n-ERR x\r\n");
    assert!(behind.is_error(), "an attribute belongs to what follows it");
    let items: Vec<i64> =
        reply("*3\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n*0\r\n").items().filter_map(Reply::integer).collect();
    assert_eq!(items, [1, 2]);
    assert_eq!(reply("%1\r\n+a\r\n:1\r\n").items().count(), 2);
}

#[test]
fn what_subscribers_are_told_is_recognised() {
    let confirmed = "3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n";
    for kind in ["*", ">"] {
        let bytes = format!("{kind}{confirmed}");
        let told = Reply::new(bytes.as_bytes()).published();
        assert_eq!(told, Some(Published { name: b"subscribe", channel: Some(b"ch"), count: Some(1) }));
    }
    let nothing = Reply::new(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").published();
    assert_eq!(nothing, Some(Published { name: b"unsubscribe", channel: None, count: Some(0) }));
    let message = Reply::new(b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$1\r\nx\r\n").published();
    assert_eq!(message, Some(Published { name: b"pmessage", channel: Some(b"*"), count: None }));
    assert_eq!(Reply::new(b"+PONG\r\n").published(), None);
    assert_eq!(Reply::new(b"*0\r\n").published(), None);
}

/// A random reply of one value.
fn single() -> impl Strategy<Value = Vec<u8>> + Clone {
    let with_length =
        |kind: char, text: Vec<u8>| [format!("{kind}{}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
    prop_oneof![
        "[a-zA-Z ]{0,12}".prop_map(|line| format!("+{line}\r\n").into_bytes()),
        "ERR [a-zA-Z ]{0,12}".prop_map(|line| format!("-{line}\r\n").into_bytes()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        "-?[1-9][0-9]{0,40}".prop_map(|number| format!("({number}\r\n").into_bytes()),
        (-1e9..1e9_f64).prop_map(|number| format!(",{number}\r\n").into_bytes()),
        prop::sample::select(vec!["#t\r\n", "#f\r\n", "_\r\n", ",inf\r\n", ",-inf\r\n", "$-1\r\n"])
            .prop_map(|constant| constant.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(move |text| with_length('$', text)),
        "[a-zA-Z ]{0,12}".prop_map(move |text| with_length('!', text.into_bytes())),
        "[a-zA-Z ]{0,12}".prop_map(move |text| with_length('=', format!("txt:{text}").into_bytes())),
    ]
    .boxed()
}

/// Some values in one, of one of the kinds.
fn holding(kinds: &str, inner: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> + use<> {
    let kinds: Vec<char> = kinds.chars().collect();
    (prop::sample::select(kinds), prop::collection::vec(inner, 0..6)).prop_map(|(kind, mut items)| {
        let each = if kind == '%' { 2 } else { 1 };
        items.truncate(items.len() / each * each);
        [format!("{kind}{}\r\n", items.len() / each).into_bytes(), items.concat()].concat()
    })
}

/// Any random reply of a few levels.
fn value() -> impl Strategy<Value = Vec<u8>> {
    single().prop_recursive(4, 40, 6, |inner| holding("*~%", inner))
}

/// What the other parser can hold: few levels, since it is recursive, and no arrays or nulls in its hash tables,
/// and in RESP3 no null of RESP2.
fn plain_value() -> impl Strategy<Value = Vec<u8>> {
    let single = single().prop_filter("a null of RESP2", |bytes| bytes != b"$-1\r\n");
    let hashed = single.clone().prop_filter("a null", |bytes| bytes != b"_\r\n");
    prop_oneof![single, holding("~%", hashed.boxed())].prop_recursive(3, 40, 6, |inner| holding("*", inner))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn well_formed_replies_in_any_pieces(replies in prop::collection::vec(value(), 1..4), cut in 0_usize..12) {
        let ends: Vec<usize> = replies.iter().scan(0, |end, reply| { *end += reply.len(); Some(*end) }).collect();
        let mut bytes = replies.concat();
        let mut start = 0;
        for end in ends {
            prop_assert_eq!(scan(&bytes[start..]), Ok(FoundReply::Whole(end - start)));
            start = end;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        fuzzing::replies(&bytes);
    }

    #[test]
    fn whatever_bytes_in_any_pieces(bytes in "([-*$:+~%>|!=_#,(\r\n 0-9a-c?]|\r\n|[*~>%|][0-3]\r\n|[$!=][0-3]\r\n|:1\r\n){0,60}") {
        fuzzing::replies(bytes.as_bytes());
    }

    #[test]
    fn another_parser_finds_the_same_ends(bytes in plain_value()) {
        match decode(&bytes) {
            Ok(Some((_, theirs))) => prop_assert_eq!(scan(&bytes), Ok(FoundReply::Whole(theirs))),
            other => prop_assert!(false, "the other parser says {:?} of {:?}", other, String::from_utf8_lossy(&bytes)),
        }
    }

    #[test]
    fn what_another_parser_takes_for_a_reply_is_one(bytes in "([-+:(,][0-9a-c]{1,3}\r\n|[*~%|][0-2]\r\n|[$!][0-3]\r\n[a-c\r\n:]{0,3}\r\n|=4\r\ntxt:\r\n|[#][tf]\r\n|_\r\n){1,8}") {
        let ours = scan(bytes.as_bytes());
        match decode(bytes.as_bytes()) {
            // To it an attribute is a frame of its own.
            Ok(Some(_)) if bytes.contains('|') => {}
            // It takes lengths with leading zeros, and more than one `\r` at the end of a line.
            Ok(Some((_, theirs))) => prop_assert!(
                ours == Ok(FoundReply::Whole(theirs)) || ours.is_err(), "{:?}: {:?}, but {}", bytes, ours, theirs),
            Ok(None) => prop_assert!(!matches!(ours, Ok(FoundReply::Whole(_))), "{:?}: {:?}", bytes, ours),
            Err(_) => {}
        }
    }
}
