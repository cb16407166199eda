//! Links of a client's own: transactions, commands that block, subscriptions, big requests.

use super::world::*;
use crate::redis::mux::*;
use config::ListenerRole;

/// A client that shares link 0; the next link is 1.
fn world() -> (World, ClientId) {
    shared(Acks::Master)
}

fn shared(acks: Acks) -> (World, ClientId) {
    let mut world = World::new(acks);
    let client = world.client();
    (world, client)
}

/// A world whose control link is 0 and shared link is 1.
fn durable() -> (World, ClientId) {
    shared(LOCAL)
}

#[test]
fn a_command_that_blocks_gets_a_link_of_its_own_and_gives_it_back() {
    let (mut world, a) = world();
    let b = world.client();
    world.say(a, "GET k\nBLPOP l 0\nGET k\n");
    assert_eq!(world.asked(0), ["GET k"], "what comes before is answered first");
    world.reply(0, "$1\n1\n");
    assert_eq!(world.asked(1), ["BLPOP l 0"]);
    world.say(b, "GET k\n");
    world.reply(0, "$1\n2\n");
    assert_eq!(world.heard(b), "$1|2|", "nobody waits for somebody else's BLPOP");
    world.reply(1, "*2\n$1\nl\n$1\nx\n");
    world.reply(0, "$1\n1\n");
    assert_eq!(world.heard(a), "$1|1|*2|$1|l|$1|x|$1|1|");
    world.say(a, "GET k\n");
    assert_eq!((world.asked(0), world.asked(1)), (vec!["GET k"], vec![]));
    world.say(b, "BLPOP l 0\n");
    assert_eq!((world.asked(1), world.links.len()), (vec!["BLPOP l 0"], 2), "the link is used again");
}

#[test]
fn clients_that_block_at_once_have_a_link_each() {
    let (mut world, a) = world();
    let b = world.client();
    world.say(a, "BLPOP l 0\n");
    world.say(b, "BLPOP m 0\n");
    assert_eq!((world.asked(1), world.asked(2)), (vec!["BLPOP l 0"], vec!["BLPOP m 0"]));
    world.reply(2, "*2\n$1\nm\n$1\nx\n");
    assert_eq!((world.heard(a), world.heard(b)), (String::new(), "*2|$1|m|$1|x|".into()));
    // Nothing may be popped for somebody who has gone.
    world.mux.client_ended(a, world.now);
    world.settle();
    assert!(!world.links[1].open);
    assert_eq!(world.closed(a), Some(false));
}

/// Guards this: EXEC is a write like any other, +QUEUED is none.
#[test]
fn the_outcome_of_a_transaction_is_withheld_and_queueing_is_not() {
    let (mut world, a) = durable();
    world.say(a, "MULTI\nSET k 1\nGET k\nEXEC\nGET k\n");
    let own = world.links.len() - 1;
    assert_eq!(world.asked(own), ["MULTI", "SET k 1", "GET k", "EXEC", "GET k"]);
    world.reply(own, "+OK\n+QUEUED\n+QUEUED\n");
    assert_eq!(world.heard(a), "+OK|+QUEUED|+QUEUED|");
    world.reply(own, "*2\n+OK\n$1\n1\n$1\n1\n");
    assert_eq!(world.heard(a), "");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(a), "*2|+OK|$1|1|$1|1|");
}

/// Guards this: where MULTI was refused, what follows is carried out at once.
#[test]
fn what_is_not_queued_after_all_is_withheld_as_what_it_is() {
    let (mut world, a) = durable();
    world.say(a, "MULTI\nSET k 1\nGET k\n");
    let own = world.links.len() - 1;
    world.reply(own, "-NOPERM no\n+OK\n$1\n1\n");
    assert_eq!(world.heard(a), "-NOPERM no|");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(a), "+OK|$1|1|");
}

#[test]
fn watch_holds_the_link_until_the_transaction_ends() {
    let (mut world, a) = world();
    world.say(a, "WATCH k\n");
    assert_eq!(world.asked(1), ["WATCH k"]);
    world.reply(1, "+OK\n");
    assert!(!world.mux.is_quiet());
    world.say(a, "GET k\nMULTI\nSET k 2\nEXEC\n");
    world.reply(1, "$1\n1\n+OK\n+QUEUED\n*1\n+OK\n");
    assert!(world.mux.is_quiet());
    world.say(a, "WATCH k\n");
    world.reply(1, "+OK\n");
    world.say(a, "UNWATCH\n");
    world.reply(1, "+OK\n");
    world.say(a, "GET k\n");
    assert_eq!((world.asked(0), world.asked(1)), (vec!["GET k"], vec![]));
}

#[test]
fn a_refusal_within_a_transaction_spoils_it() {
    let (mut world, a) = world();
    world.say(a, "MULTI\nSET k 1\nCONFIG GET x\nSET k 2\nEXEC\nGET k\n");
    world.reply(1, "+OK\n+QUEUED\n");
    assert_eq!(world.asked(1), ["SET k 2", "DISCARD", "GET k"]);
    world.reply(1, "+QUEUED\n+OK\n$-1\n");
    let heard = world.heard(a);
    assert!(heard.starts_with("+OK|+QUEUED|-ERR understudy: CONFIG is refused"), "{heard}");
    assert!(heard.ends_with("|+QUEUED|-EXECABORT Transaction discarded because of previous errors.|$-1|"), "{heard}");
}

#[test]
fn what_has_begun_is_seen_through_while_roles_change() {
    let (mut world, a) = world();
    world.say(a, "MULTI\nSET k 1\n");
    world.reply(1, "+OK\n+QUEUED\n");
    world.head(Heading { held: true, ..heading(7, "a", Acks::Master) });
    assert!(!world.mux.is_quiet());
    world.say(a, "EXEC\nGET k\n");
    assert_eq!(world.asked(1), ["EXEC"]);
    world.reply(1, "*1\n+OK\n");
    assert_eq!(world.heard(a), "+OK|+QUEUED|*1|+OK|");
    assert!(world.mux.is_quiet());
    world.head(heading(8, "b", Acks::Master));
    assert_eq!(world.closed(a), None);
    assert_eq!(world.links.iter().filter(|link| link.open).count(), 1);
    let last = world.links.len() - 1;
    assert_eq!(world.asked(last), ["GET k"]);
}

#[test]
fn a_transaction_ends_with_its_epoch() {
    let (mut world, a) = world();
    world.say(a, "MULTI\n");
    world.reply(1, "+OK\n");
    world.head(heading(8, "b", Acks::Master));
    assert_eq!((world.heard(a), world.closed(a)), ("+OK|".into(), Some(true)));
}

#[test]
fn a_database_selected_within_a_transaction_is_the_clients_afterwards() {
    for (exec, selected) in [("*1\n+OK\n", true), ("*-1\n", false), ("-EXECABORT no\n", false)] {
        let (mut world, a) = world();
        world.say(a, "MULTI\nSELECT 3\nEXEC\n");
        world.reply(1, &format!("+OK\n+QUEUED\n{exec}"));
        world.say(a, "GET k\n");
        let last = world.links.len() - 1;
        let shared = if selected { last } else { 0 };
        assert_eq!(world.asked(shared), ["GET k"], "{exec}");
        assert_eq!(world.links[shared].prepared.contains(&"SELECT 3".to_owned()), selected);
    }
    let (mut world, a) = world();
    world.say(a, "MULTI\nSELECT 16\nEXEC\n");
    world.reply(1, "+OK\n");
    assert_eq!(world.asked(1), ["DISCARD"], "the agents' database is not for clients");
}

#[test]
fn subscriptions_bind_until_the_last_ends() {
    let (mut world, a) = world();
    world.say(a, "SUBSCRIBE c d\n");
    assert_eq!(world.asked(1), ["SUBSCRIBE c d"]);
    world.reply(1, "*3\n$9\nsubscribe\n$1\nc\n:1\n*3\n$9\nsubscribe\n$1\nd\n:2\n");
    assert_eq!(world.heard(a), "*3|$9|subscribe|$1|c|:1|*3|$9|subscribe|$1|d|:2|");
    assert!(world.mux.is_quiet(), "a subscription is nothing in flight");
    world.reply(1, "*3\n$7\nmessage\n$1\nc\n$2\nhi\n");
    assert_eq!(world.heard(a), "*3|$7|message|$1|c|$2|hi|");
    // An answer between messages.
    world.say(a, "PING\n");
    world.reply(1, "*3\n$7\nmessage\n$1\nc\n$2\nho\n*2\n$4\npong\n$0\n\n");
    assert_eq!(world.heard(a), "*3|$7|message|$1|c|$2|ho|*2|$4|pong|$0||");
    world.say(a, "UNSUBSCRIBE\nGET k\n");
    assert_eq!(world.asked(1), ["UNSUBSCRIBE", "GET k"]);
    world.reply(1, "*3\n$11\nunsubscribe\n$1\nc\n:1\n*3\n$11\nunsubscribe\n$1\nd\n:0\n$-1\n");
    assert!(world.heard(a).ends_with(":0|$-1|"));
    assert!(!world.links[1].open, "a link that was subscribed is not used again");
    world.say(a, "GET k\n");
    assert_eq!(world.asked(0), ["GET k"]);
}

#[test]
fn a_subscription_that_is_refused_has_one_answer() {
    let (mut world, a) = world();
    world.say(a, "SUBSCRIBE c d\nUNSUBSCRIBE\n");
    world.reply(1, "-NOPERM no\n");
    assert_eq!(world.asked(2), ["UNSUBSCRIBE"]);
    world.reply(2, "*3\n$11\nunsubscribe\n$-1\n:0\n");
    assert_eq!(world.heard(a), "-NOPERM no|*3|$11|unsubscribe|$-1|:0|");
    assert!(!world.links[1].open && !world.links[2].open);
}

#[test]
fn in_resp3_pushes_answer_nothing_and_replies_go_on() {
    let (mut world, a) = world();
    world.say(a, "HELLO 3\nSUBSCRIBE c\nGET k\n");
    world.heard(a);
    let own = world.links.len() - 1;
    assert_eq!(world.links[own].prepared[0], "HELLO 3");
    world.reply(own, ">3\n$9\nsubscribe\n$1\nc\n:1\n>3\n$7\nmessage\n$1\nc\n$1\nx\n*3\n$7\nmessage\n$1\nc\n$1\nx\n");
    let message = "3|$7|message|$1|c|$1|x|";
    assert_eq!(world.heard(a), format!(">3|$9|subscribe|$1|c|:1|>{message}*{message}"));
    assert!(world.mux.is_quiet());
}

#[test]
fn tracking_binds_until_reset() {
    let (mut world, a) = world();
    world.say(a, "CLIENT TRACKING ON\nGET k\n");
    assert_eq!(world.asked(1), ["CLIENT TRACKING ON", "GET k"]);
    world.reply(1, "+OK\n$1\n1\n>2\n$10\ninvalidate\n*1\n$1\nk\n");
    assert_eq!(world.heard(a), "+OK|$1|1|>2|$10|invalidate|*1|$1|k|");
    world.say(a, "SELECT 2\n");
    assert_eq!(world.asked(1), ["SELECT 2"], "the server is told where the link is the client's own");
    world.reply(1, "+OK\n");
    world.say(a, "RESET\nGET k\n");
    assert_eq!((world.heard(a), world.links[1].open), ("+OK|+RESET|".into(), false));
    assert_eq!(world.asked(0), ["GET k"]);
}

#[test]
fn a_monitor_hears_all_and_may_leave() {
    let (mut world, a) = world();
    world.say(a, "MONITOR\n");
    world.reply(1, "+OK\n+1700000000.1 [0 127.0.0.1:1] \"SET\" \"k\"\n");
    world.reply(1, "+1700000000.2 [0 127.0.0.1:1] \"GET\" \"k\"\n");
    assert_eq!(world.heard(a).matches('|').count(), 3);
    world.say(a, "GET k\nRESET\nGET k\n");
    assert!(world.heard(a).starts_with("-ERR understudy: a connection that monitors"));
    assert_eq!(world.asked(0), ["GET k"]);
}

#[test]
fn a_link_of_its_own_has_the_clients_name() {
    let (mut world, a) = world();
    world.say(a, "CLIENT SETNAME worker\nBLPOP l 0\n");
    assert_eq!(world.heard(a), "+OK|");
    assert_eq!(world.asked(1), ["CLIENT SETNAME worker", "BLPOP l 0"]);
    world.reply(1, "+OK\n*-1\n");
    assert_eq!(world.heard(a), "*-1|");
}

#[test]
fn wait_answers_for_what_was_written_elsewhere() {
    let (mut world, a) = world();
    world.say(a, "WAIT 1 0\n");
    assert_eq!(world.asked(1), ["PING", "WAIT 1 0"]);
    world.reply(1, "+PONG\n:1\n");
    assert_eq!(world.heard(a), ":1|");
}

#[test]
fn a_lost_own_link_closes_its_client_only() {
    let (mut world, a) = world();
    let b = world.client();
    world.say(b, "GET k\n");
    world.say(a, "SUBSCRIBE c\n");
    world.reply(1, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    world.lose(1);
    assert_eq!((world.closed(a), world.closed(b)), (Some(true), None));
}

#[test]
fn a_big_request_streams_through_a_link_of_its_own() {
    let (mut world, a) = durable();
    let b = world.client();
    let size = 5_000_000;
    let mut request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n").into_bytes();
    request.resize(request.len() + size, b'x');
    request.extend_from_slice(b"\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    for piece in request.chunks(100_000) {
        assert!(world.mux.wants_input(a));
        world.say_bytes(a, piece);
        world.say(b, "PING\n");
        let shared = 1;
        world.reply(shared, "+PONG\n");
    }
    let own = world.links.len() - 1;
    assert_eq!(world.asked(own).len(), 2);
    assert_eq!(world.asked(own)[0].len(), size + 6);
    world.reply(own, "+OK\n$1\nx\n");
    assert_eq!(world.heard(a), "");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(a), "+OK|$1|x|");
    assert_eq!(world.heard(b), "+PONG|".repeat(request.len().div_ceil(100_000)));
}

#[test]
fn half_a_big_request_ends_with_its_client_or_its_epoch() {
    for by_epoch in [false, true] {
        let (mut world, a) = world();
        let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000000\r\n".to_vec();
        request.resize(2_000_000, b'x');
        world.say_bytes(a, &request);
        assert!(!world.mux.is_quiet());
        if by_epoch {
            world.head(heading(8, "b", Acks::Master));
        } else {
            world.mux.client_ended(a, world.now);
            world.settle();
        }
        assert_eq!(world.closed(a), Some(by_epoch));
        assert!(!world.links[1].open);
        assert!(world.mux.is_quiet());
    }
}

#[test]
fn a_big_reply_on_an_own_link_is_passed_on_in_pieces() {
    let (mut world, a) = durable();
    world.say(a, "WATCH k\nGET k\n");
    let own = world.links.len() - 1;
    let size = 3_000_000;
    world.reply(own, &format!("+OK\n${size}\n"));
    for _ in 0..3 {
        world.reply_bytes(own, &vec![b'x'; size / 3]);
    }
    assert!(world.heard(a).len() > size / 2, "not collected");
    world.say(a, "CLIENT GETNAME\n");
    assert!(!world.heard(a).contains("-1"), "nothing is put into the middle of a frame");
    world.reply(own, "\n");
    assert_eq!(world.heard(a), "|$-1|");
}

/// Another link that has sent all it had says nothing of the one that a client waits for.
#[test]
fn a_client_whose_link_is_choked_is_read_again_when_that_link_has_sent() {
    let (mut world, a) = world();
    let b = world.client();
    world.say(a, "GET k\n");
    world.say(b, "BLPOP l 0\n");
    world.reply(0, "$-1\n");
    let shared = world.links[0].id;
    world.stuffed.push(shared);
    world.say_bytes(a, &array(&["SET", "k", &"x".repeat(2 << 20)]));
    assert!(!world.mux.wants_input(a));
    world.reply(1, "*2\n$1\nl\n$1\nx\n");
    world.say(b, "BLPOP l 0\n");
    assert_eq!(world.asked(1), ["BLPOP l 0"], "another link sends");
    assert!(!world.mux.wants_input(a));
    world.stuffed.clear();
    world.take(shared);
    world.settle();
    assert!(world.mux.wants_input(a) && world.reads.contains(&a), "nobody looks at it any more");
    world.reply(0, "+OK\n");
    assert_eq!(world.heard(a), "$-1|+OK|");
}

/// A replica that leaves takes what was bound to it along: whoever is subscribed there must not wait for ever.
#[test]
fn whoever_is_bound_to_a_replica_that_leaves_learns_of_it() {
    let mut world = World::of(ListenerRole::Replica);
    let replica = |id| Destination { incarnation: None, ..to(id) };
    let one = Heading { to: vec![replica("b")], ..heading(7, "a", Acks::Master) };
    world.head(one.clone());
    let (subscribed, idle) = (world.client(), world.client());
    world.say(subscribed, "SUBSCRIBE c\n");
    let at = world.links.len() - 1;
    world.reply(at, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    assert_eq!(world.heard(subscribed), "*3|$9|subscribe|$1|c|:1|");
    world.head(Heading { to: vec![replica("c")], ..one });
    assert_eq!((world.closed(subscribed), world.closed(idle)), (Some(true), None));
    assert!(!world.links[at].open);
}

/// What the server makes of the number decides which database the connection is in: it is not used again.
#[test]
fn a_link_that_selected_within_a_transaction_is_nobody_elses() {
    let (mut world, a) = world();
    world.say(a, "MULTI\nSELECT 03\nSELECT +3\nEXEC\n");
    assert_eq!(world.asked(1), ["MULTI"]);
    world.reply(1, "+OK\n");
    assert_eq!(world.asked(1), ["DISCARD"]);
    world.reply(1, "+OK\n");
    let heard = world.heard(a);
    let told = ["-ERR value is not an integer", "-EXECABORT "].map(|word| heard.matches(word).count());
    assert_eq!(told, [2, 1], "{heard}");

    let b = world.client();
    world.say(b, "MULTI\nSELECT 3\nEXEC\n");
    let at = world.links.iter().rposition(|link| link.open).expect("a link");
    world.reply(at, "+OK\n+QUEUED\n*1\n+OK\n");
    assert!(!world.links[at].open, "its database was changed by what only the server has understood");
}
