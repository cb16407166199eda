//! The straight path: shared links, order, holding, epochs, losses.

use super::world::*;
use crate::redis::mux::*;
use config::ListenerRole;

#[test]
fn requests_of_many_share_a_link_and_replies_find_their_clients() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.say_bytes(a, &[array(&["SET", "k", "1"]), array(&["GET", "k"])].concat());
    world.say_bytes(b, &array(&["GET", "x"]));
    world.say_bytes(a, &array(&["GET", "y"]));
    assert_eq!(world.asked(0), ["SET k 1", "GET k", "GET x", "GET y"]);
    assert_eq!(world.links.len(), 1, "one link for all");
    // Cut wherever it hurts.
    for piece in ["+OK\n$1\n1\n$", "2\nbb", "\n$-1", "\n"] {
        world.reply(0, piece);
    }
    assert_eq!((world.heard(a), world.heard(b)), ("+OK|$1|1|$-1|".into(), "$2|bb|".into()));
    assert!(world.mux.is_quiet());
}

#[test]
fn half_a_request_waits_for_its_other_half() {
    let mut world = World::new(Acks::Master);
    let a = world.client();
    for byte in [array(&["SET", "k", "1"]), wire("GET k\n\n*0\nPING\n")].concat() {
        world.say_bytes(a, &[byte]);
    }
    assert_eq!(world.asked(0), ["SET k 1", "GET k", "PING"]);
    world.reply(0, "+OK\n$1\n1\n+PONG\n");
    assert_eq!(world.heard(a), "+OK|$1|1|+PONG|");
}

#[test]
fn requests_wait_for_a_master_and_go_to_it_once() {
    let mut world = World::of(ListenerRole::Master);
    let a = world.client();
    world.say(a, "GET k\nGET l\n");
    assert!(!world.mux.wants_input(a), "one that waits is not read");
    assert_eq!(world.mux.counts().held, 1);
    world.head(heading(7, "a", Acks::Master));
    assert_eq!(world.asked(0), ["GET k", "GET l"]);
    assert_eq!((world.reads.as_slice(), world.mux.counts().held), (&[a][..], 0));
    // The timer of the first wait rings for nobody.
    world.pass(2 * HOLD);
    assert_eq!(world.heard(a), "");
}

#[test]
fn after_hold_the_client_learns_that_nothing_was_carried_out() {
    let mut world = World::of(ListenerRole::Master);
    let a = world.client();
    world.say(a, "SET k 1\nGET k\n");
    world.pass(HOLD - 1);
    assert_eq!(world.heard(a), "");
    world.pass(1);
    let error = "-ERR understudy: group \"g\" has had no open master for 10s; the request was not carried out|";
    assert_eq!(world.heard(a), error.repeat(2));
    // The next request waits anew.
    world.say(a, "GET m\n");
    world.pass(HOLD - 1);
    assert_eq!(world.heard(a), "");
    world.head(heading(7, "a", Acks::Master));
    assert_eq!(world.asked(0), ["GET m"], "what was refused is not sent");
}

#[test]
fn a_master_that_refuses_is_tried_again() {
    let mut world = World::of(ListenerRole::Master);
    world.up = false;
    let a = world.client();
    world.head(heading(7, "a", Acks::Master));
    world.say(a, "GET k\n");
    world.pass(1_000);
    assert!((5..15).contains(&world.links.len()), "{} attempts in a second", world.links.len());
    world.up = true;
    world.pass(300);
    let last = world.links.len() - 1;
    assert_eq!(world.asked(last), ["GET k"]);
    world.reply(last, "$-1\n");
    assert_eq!(world.heard(a), "$-1|");
}

#[test]
fn nothing_new_is_sent_while_roles_change() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.say(a, "SET k 1\n");
    let held = Heading { held: true, ..heading(7, "a", Acks::Master) };
    world.head(held);
    world.say(a, "SET k 2\n");
    world.say(b, "GET k\n");
    assert_eq!(world.asked(0), ["SET k 1"]);
    assert!(!world.mux.is_quiet());
    world.reply(0, "+OK\n");
    assert_eq!(world.heard(a), "+OK|", "what is in flight is answered");
    assert!(world.mux.is_quiet());
    assert_eq!(world.asked(0), [""; 0]);
    world.head(heading(8, "b", Acks::Master));
    assert!(!world.links[0].open);
    let mut asked = world.asked(1);
    asked.sort_unstable();
    assert_eq!(asked, ["GET k", "SET k 2"]);
    assert_eq!((world.closed(a), world.closed(b)), (None, None), "nobody is disturbed by a planned switchover");
}

/// Guards this: what is in flight when the epoch ends has no known outcome; whatever arrives late is not passed on.
#[test]
fn a_new_epoch_closes_whom_the_old_one_owes_an_answer() {
    let mut world = World::new(Acks::Master);
    let (busy, idle, deaf) = (world.client(), world.client(), world.client());
    world.deaf.push(deaf);
    world.say(deaf, "GET k\n");
    world.reply(0, "$1\n1\n");
    world.say(idle, "PING\n");
    world.reply(0, "+PONG\n");
    world.say(busy, "SET k 1\n");
    let old = world.links[0].id;
    world.head(heading(8, "b", Acks::Master));
    world.mux.link_input(old, b"+OK\r\n", world.now);
    world.settle();
    assert_eq!((world.closed(busy), world.heard(busy)), (Some(true), String::new()));
    assert_eq!(world.closed(deaf), Some(true), "a reply of the old epoch does not leave in the new one");
    assert_eq!((world.closed(idle), world.heard(idle)), (None, "+PONG|".into()));
    world.say(idle, "GET k\n");
    assert_eq!(world.asked(1), ["GET k"], "only what was asked in the new epoch is sent to its master");
    assert_eq!(world.mux.counts().unknown, 2);
}

#[test]
fn a_lost_link_closes_only_those_who_wait_for_it() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.say(a, "SET k 1\nSET k 2\n");
    world.reply(0, "+OK\n");
    world.lose(0);
    assert_eq!((world.heard(a), world.closed(a), world.closed(b)), ("+OK|".into(), Some(true), None));
    world.pass(20);
    world.say(b, "GET k\n");
    assert_eq!(world.asked(1), ["GET k"], "nothing is sent twice");
}

/// Guards this: a master that was restarted keeps its port and has older data.
#[test]
fn another_process_at_the_masters_address_is_not_used() {
    let mut world = World::of(ListenerRole::Master);
    let a = world.client();
    world.head(heading(7, "a", Acks::Master));
    world.head(Heading { to: vec![], ..heading(7, "a", Acks::Master) });
    world.mux.set_heading(heading(7, "a", Acks::Master), world.now);
    world.run_id = "run-other".into();
    world.settle();
    world.say(a, "GET k\n");
    world.pass(1_000);
    assert!(world.links.iter().all(|server| server.asked.is_empty()));
    assert!(world.mux.counts().wrong_incarnation > 3);
    world.pass(HOLD);
    assert!(world.heard(a).contains("could not be reached for 10s (a (127.0.0.1:1): another process answers there"));
    world.run_id = "run-a".into();
    world.say(a, "GET k\n");
    world.pass(300);
    assert_eq!(world.asked(world.links.len() - 1), ["GET k"]);
}

#[test]
fn replies_to_a_client_that_has_gone_are_read_and_dropped() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.say(a, "GET k\n");
    world.say(b, "GET l\n");
    world.mux.client_gone(a, world.now);
    let c = world.client();
    assert_eq!(c.slot(), a.slot(), "its slot has another tenant");
    assert!(!world.mux.is_quiet(), "what was sent for it is still in flight");
    world.reply(0, "$1\na\n$1\nb\n");
    assert_eq!((world.heard(c), world.heard(b)), (String::new(), "$1|b|".into()));
}

#[test]
fn at_most_1024_requests_of_one_client_are_in_flight() {
    let mut world = World::new(Acks::Master);
    let a = world.client();
    world.say(a, &"GET k\n".repeat(3));
    world.say_bytes(a, &array(&["GET", "k"]).repeat(1_022));
    assert_eq!(world.asked(0).len(), 1_024);
    assert!(!world.mux.wants_input(a));
    world.reply(0, &"$-1\n".repeat(512));
    assert_eq!(world.asked(0).len(), 0);
    world.reply(0, "$-1\n");
    assert_eq!(world.asked(0).len(), 1);
    assert!(world.mux.wants_input(a));
    world.reply(0, &"$-1\n".repeat(512));
    assert_eq!(world.heard(a).len(), 1_025 * "$-1|".len());
}

#[test]
fn a_client_that_never_reads_is_stopped_and_then_closed() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.deaf.push(a);
    let big = format!("${}\r\n{}\r\n", 300_000, "x".repeat(300_000)).into_bytes();
    for n in 0..220 {
        if !world.mux.wants_input(a) {
            assert_eq!(n, 4);
            break;
        }
        world.say(a, "GET k\n");
        world.reply_bytes(0, &big);
    }
    assert!(!world.mux.wants_input(a));
    world.say(b, "PING\n");
    world.reply(0, "+PONG\n");
    assert_eq!(world.heard(b), "+PONG|", "nobody else is disturbed");
    world.deaf.clear();
    world.reads.clear();
    world.listen(a);
    world.settle();
    assert_eq!(world.reads.as_slice(), [a], "one that reads again is read again");
    world.deaf.push(a);
    world.say_bytes(a, &array(&["GET", "k"]).repeat(300));
    for _ in 0..300 {
        world.reply_bytes(0, &big);
        if world.closed(a).is_some() {
            break;
        }
    }
    assert_eq!(world.closed(a), Some(true));
}

#[test]
fn malformed_bytes_get_redis_own_words_in_their_turn() {
    let mut world = World::new(Acks::Master);
    let a = world.client();
    world.say(a, "GET k\n*x\n");
    assert_eq!(world.heard(a), "");
    world.reply(0, "$1\n1\n");
    assert_eq!(world.heard(a), "$1|1|-ERR Protocol error: invalid multibulk length|");
    assert_eq!(world.closed(a), Some(false));
}

#[test]
fn what_belongs_to_the_agents_is_refused_with_a_reason() {
    let mut world = World::new(Acks::Master);
    let a = world.client();
    world.say(a, "GET k\nREPLICAOF NO ONE\nGET l\n");
    assert_eq!(world.asked(0), ["GET k"], "answers keep their order");
    world.reply(0, "$1\n1\n");
    assert!(world.heard(a).starts_with("$1|1|-ERR understudy: REPLICAOF is refused: roles belong to the agents"));
    assert_eq!(world.asked(0), ["GET l"]);
}

#[test]
fn a_client_that_has_ended_its_side_is_answered_first() {
    let mut world = World::new(Acks::Master);
    let (a, b) = (world.client(), world.client());
    world.say(a, "GET k\n");
    world.mux.client_ended(a, world.now);
    world.mux.client_ended(b, world.now);
    world.settle();
    assert_eq!((world.closed(a), world.closed(b)), (None, Some(false)));
    world.reply(0, "$1\n1\n");
    assert_eq!((world.heard(a), world.closed(a)), ("$1|1|".into(), Some(false)));
}

#[test]
fn readers_take_turns_and_a_replica_that_leaves_answers_what_it_has() {
    let mut world = World::of(ListenerRole::Replica);
    let replica = |id| Destination { incarnation: None, ..to(id) };
    let two = Heading { to: vec![replica("b"), replica("c")], ..heading(7, "a", Acks::Master) };
    world.head(two.clone());
    let clients = [world.client(), world.client(), world.client()];
    for client in clients {
        world.say(client, "GET k\n");
    }
    let at = |world: &World, id| world.links.iter().rposition(|link| link.to.id.as_str() == id).expect("a link");
    let (b, c) = (at(&world, "b"), at(&world, "c"));
    assert_eq!(world.asked(b).len() + world.asked(c).len(), 3);
    assert!(world.asked(b).len().abs_diff(world.asked(c).len()) == 1);
    // Another epoch means nothing to them; a replica that lags takes no new requests.
    world.head(Heading { epoch: 8, to: vec![replica("c")], ..two });
    assert!(clients.iter().all(|client| world.closed(*client).is_none()));
    let of_b = world.asked(b).len();
    world.reply(b, &"$1\nb\n".repeat(of_b));
    assert!(!world.links[b].open);
    let of_c = world.asked(c).len();
    world.reply(c, &"$1\nc\n".repeat(of_c));
    for client in clients {
        assert_eq!(world.heard(client).len(), 5);
        world.say(client, "GET l\n");
    }
    assert_eq!(world.asked(c).len(), 3);
}

/// Guards this: a replica that was promoted a moment ago would acknowledge a write that nobody has copied.
#[test]
fn a_listener_for_readers_sends_nothing_that_may_write() {
    let mut world = World::of(ListenerRole::Replica);
    let replica = Destination { incarnation: None, ..to("b") };
    world.head(Heading { to: vec![replica], ..heading(7, "a", Acks::Master) });
    let a = world.client();
    world.say(a, "GET k\nSET k 1\nBLPOP l 0\nMULTI\nSET k 1\nEXEC\n");
    assert_eq!(world.asked(0), ["GET k"]);
    world.reply(0, "$-1\n");
    assert!(world.links[1..].iter().all(|link| link.asked.iter().all(|asked| asked == "MULTI")));
    world.reply(1, "+OK\n");
    assert_eq!(world.asked(1), ["DISCARD"]);
    world.reply(1, "+OK\n");
    let heard = world.heard(a);
    assert_eq!((heard.matches("-READONLY ").count(), heard.matches("-EXECABORT ").count()), (3, 1), "{heard}");
}
