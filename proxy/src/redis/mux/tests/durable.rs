//! Withheld replies: nothing leaves before the hot replica has the write behind it.

use super::world::*;
use crate::redis::mux::*;
use config::ListenerRole;

/// A client whose links 0 (control) and 1 (shared) are there. The control link is asked for first.
fn world(acks: Acks) -> (World, ClientId) {
    let mut world = World::new(acks);
    let client = world.client();
    world.say(client, "PING\n");
    world.reply(1, "+PONG\n");
    world.heard(client);
    (world, client)
}

#[test]
fn the_question_is_asked_by_the_proxys_own_account_in_the_markers_database() {
    let (world, _) = world(LOCAL);
    let want = ["AUTH proxy-pw", "CLIENT SETNAME understudy:p1", "SELECT 16", "INFO server", "COMMAND"];
    assert_eq!(world.links[0].prepared, want);
    let probe = "SETRANGE understudy:open 0 ";
    assert_eq!(world.links[1].prepared[..3], ["CLIENT SETNAME understudy:p1", probe, "INFO server"]);
}

/// Guards the acknowledgement of what only the master has.
#[test]
fn a_writes_reply_is_withheld_until_one_copy_has_it() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    assert_eq!(world.asked(0), [""; 0]);
    world.reply(1, "+OK\n");
    assert_eq!((world.heard(a), world.mux.is_quiet()), (String::new(), false));
    assert_eq!(world.asked(0), ["PING", "WAIT 1 100"]);
    world.reply(0, "+PONG\n");
    assert_eq!(world.heard(a), "");
    world.reply(0, ":1\n");
    assert_eq!((world.heard(a), world.mux.is_quiet()), ("+OK|".into(), true));
}

#[test]
fn reads_do_not_wait_but_for_what_is_before_them() {
    let (mut world, a) = world(LOCAL);
    let b = world.client();
    world.say(a, "GET k\nSET k 1\nGET k\n");
    world.say(b, "GET k\n");
    world.reply(1, "$1\n0\n+OK\n$1\n1\n$1\n1\n");
    assert_eq!((world.heard(a), world.heard(b)), ("$1|0|".into(), "$1|1|".into()));
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(a), "+OK|$1|1|");
}

/// Guards this: the answer says nothing of what was read after the question was sent.
#[test]
fn what_is_read_after_the_question_waits_for_the_next() {
    let (mut world, a) = world(LOCAL);
    let b = world.client();
    world.say(a, "SET k 1\nSET k 2\n");
    world.say(b, "SET l 1\n");
    world.reply(1, "+OK\n");
    assert_eq!(world.asked(0), ["PING", "WAIT 1 100"]);
    world.reply(1, "+OK\n+OK\n");
    assert_eq!(world.asked(0).len(), 2, "one question at a time");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.heard(b)), ("+OK|".into(), String::new()));
    assert_eq!(world.asked(0), ["PING", "WAIT 1 100"]);
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.heard(b)), ("+OK|".into(), "+OK|".into()));
    assert_eq!(world.mux.counts().barriers, 2);
}

/// Guards this: what is not known to write nothing counts as a write.
#[test]
fn what_may_write_counts_as_a_write() {
    for request in ["EVAL x 0", "PUBLISH c m", "NEWCMD x", "LPUSH l 1"] {
        let (mut world, a) = world(LOCAL);
        world.say(a, &format!("{request}\n"));
        world.reply(1, ":1\n");
        assert_eq!(world.heard(a), "", "{request}");
        world.reply(0, "+PONG\n:1\n");
        assert_eq!(world.heard(a), ":1|");
    }
}

#[test]
fn without_a_copy_the_master_decides_and_only_its_plain_no_counts() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    for need in ["$1\n1\n", "$-1\n", "$1\n1\n"] {
        world.reply(0, "+PONG\n:0\n");
        assert_eq!(world.asked(0), ["GET understudy:need"]);
        world.reply(0, need);
        assert_eq!((world.heard(a), world.asked(0)), (String::new(), vec!["PING", "WAIT 1 100"]));
    }
    world.reply(0, "+PONG\n:0\n");
    world.reply(0, "$1\n0\n");
    assert_eq!(world.heard(a), "+OK|");
    // From now on it is asked for that first, and waited for once it changes.
    world.say(a, "SET k 2\n");
    world.reply(1, "+OK\n");
    assert_eq!(world.asked(0), ["GET understudy:need"]);
    world.reply(0, "$1\n1\n");
    assert_eq!((world.heard(a), world.asked(0)), (String::new(), vec!["PING", "WAIT 1 100"]));
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.mux.counts().barriers_repeated), ("+OK|".into(), 4));
}

/// Guards this: a second replication client satisfies WAIT with what the hot replica may not have.
#[test]
fn two_copies_release_nothing_until_there_is_one_again() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    world.reply(0, "+PONG\n:2\n");
    assert_eq!((world.heard(a), world.asked(0)), (String::new(), vec![]));
    world.pass(9);
    assert_eq!(world.asked(0), [""; 0], "not at once again");
    world.pass(1);
    assert_eq!(world.asked(0), ["PING", "WAIT 1 100"]);
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.asked(0)), (String::new(), vec!["ROLE"]));
    world.reply(0, "*3\n$6\nmaster\n:5\n*1\n*3\n$1\na\n$1\n1\n$1\n5\n");
    assert_eq!((world.heard(a), world.mux.counts().strangers), ("+OK|".into(), 1));
}

#[test]
fn a_repeated_question_covers_what_was_read_meanwhile() {
    let (mut world, a) = world(LOCAL);
    let b = world.client();
    world.say(a, "SET k 1\nSET k 2\n");
    world.say(b, "SET l 1\n");
    world.reply(1, "+OK\n");
    world.reply(1, "+OK\n+OK\n");
    world.reply(0, "+PONG\n:0\n");
    world.reply(0, "$-1\n");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.heard(b)), ("+OK|+OK|".into(), "+OK|".into()));
}

/// Guards this: a lost control link answers nothing; it is made again and asked again.
#[test]
fn a_lost_control_link_is_made_again_and_asked_again() {
    for lost in [false, true] {
        let (mut world, a) = world(LOCAL);
        world.say(a, "SET k 1\n");
        world.reply(1, "+OK\n");
        world.reply(0, "+PONG\n");
        if lost {
            world.lose(0);
        } else {
            world.reply(0, "-UNBLOCKED client unblocked via CLIENT UNBLOCK\n");
            assert!(!world.links[0].open);
        }
        assert_eq!((world.heard(a), world.closed(a)), (String::new(), None));
        world.pass(20);
        assert_eq!(world.asked(2), ["PING", "WAIT 1 100"]);
        world.reply(2, "+PONG\n:1\n");
        assert_eq!(world.heard(a), "+OK|");
    }
}

/// Guards against the wrong process: a restarted process answers WAIT for data that it has lost.
#[test]
fn another_process_is_not_asked() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    world.run_id = "run-other".into();
    world.lose(0);
    world.pass(1_000);
    assert!(world.links[2..].iter().all(|link| link.asked.is_empty() && !link.open));
    assert_eq!((world.heard(a), world.closed(a)), (String::new(), None));
}

/// Guards this: a reply that has not left when the epoch ends never does.
#[test]
fn withheld_replies_end_with_their_epoch() {
    let (mut world, a) = world(LOCAL);
    let b = world.client();
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    let old = world.links[0].id;
    world.head(heading(8, "b", LOCAL));
    world.mux.link_input(old, b"+PONG\r\n:1\r\n", world.now);
    world.settle();
    assert_eq!((world.heard(a), world.closed(a), world.closed(b)), (String::new(), Some(true), None));
    world.say(b, "SET k 2\n");
    let (control, shared) = (2, 3);
    world.reply(shared, "+OK\n");
    assert_eq!((world.heard(b), world.asked(control)), (String::new(), vec!["PING", "WAIT 1 100"]));
}

#[test]
fn durable_reads_wait_for_a_write_made_after_them() {
    let (mut world, a) = world(DURABLE);
    world.say(a, "GET k\n");
    world.reply(1, "$1\n1\n");
    assert_eq!((world.heard(a), world.asked(0)), (String::new(), vec!["SET understudy:barrier:p1 1", "WAIT 1 100"]));
    world.reply(0, "-NOREPLICAS Not enough good replicas to write.\n:1\n");
    assert_eq!(world.heard(a), "");
    world.pass(10);
    world.reply(0, "+OK\n:1\n");
    assert_eq!(world.heard(a), "$1|1|");
    // What tells nothing of the data does not wait.
    world.say(a, "PING\n");
    world.reply(1, "+PONG\n");
    assert_eq!(world.heard(a), "+PONG|");
}

#[test]
fn an_async_group_waits_for_nobody_and_a_policy_may_change() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    world.reply(0, "+PONG\n:0\n");
    world.head(heading(7, "a", Acks::Master));
    assert_eq!((world.heard(a), world.closed(a)), ("+OK|".into(), None));
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    assert_eq!(world.heard(a), "+OK|");
    world.head(heading(7, "a", LOCAL));
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    assert_eq!(world.heard(a), "");
}

#[test]
fn without_the_proxys_own_login_writes_are_refused_and_say_what_to_do() {
    let mut world = World::of(config::ListenerRole::Master);
    world.password = Some("secret".into());
    world.head(heading(7, "a", LOCAL));
    assert_eq!(world.links[0].prepared[0], "AUTH proxy-pw");
    let a = world.client();
    world.say(a, "SET k 1\n");
    let heard = world.heard(a);
    assert!(heard.contains("set user and password_file in [group.g] of the proxy's file"), "{heard}");
    assert!(!heard.contains("proxy-pw"));
}

#[test]
fn a_client_that_leaves_takes_its_withheld_replies_along() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "SET k 1\n");
    world.reply(1, "+OK\n");
    world.mux.client_gone(a, world.now);
    assert!(world.mux.is_quiet());
    let b = world.client();
    assert_eq!(b.slot(), a.slot());
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(b), "");
}

/// A read may end within the first line of a reply.
#[test]
fn a_reply_that_comes_by_halves_is_counted_once() {
    let (mut world, a) = world(LOCAL);
    world.say(a, "EVAL x 0\n");
    world.reply_bytes(1, b"$12\r");
    assert_eq!(world.mux.counts().withheld, 0);
    world.reply_bytes(1, b"\nabcdef");
    world.reply_bytes(1, b"ghijkl\r\n");
    assert_eq!(world.mux.counts().withheld, 1);
    world.reply(0, "+PONG\n:1\n");
    while !world.asked(0).is_empty() {
        world.reply(0, "+PONG\n:1\n");
    }
    assert_eq!(world.heard(a), "$12|abcdefghijkl|");
    assert!(world.mux.counts().withheld == 0 && world.mux.is_quiet());
}

/// The marker is in the database behind the clients': in another the question whether to wait is answered wrongly.
#[test]
fn the_question_is_asked_anew_when_it_is_learned_how_many_databases_there_are() {
    let mut world = World::of(ListenerRole::Master);
    let mut before = heading(7, "a", LOCAL);
    before.to[0].databases = None;
    world.head(before);
    assert!(world.links[0].prepared.iter().all(|words| !words.starts_with("SELECT")), "{:?}", world.links[0].prepared);
    world.head(heading(7, "a", LOCAL));
    world.pass(1_000);
    let open = world.links.iter().filter(|link| link.open);
    assert_eq!(open.filter(|link| link.prepared.iter().any(|words| words == "SELECT 16")).count(), 1);
    assert!(!world.links[0].open);
}
