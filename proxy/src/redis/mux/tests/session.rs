//! What clients say about their own connection.

use super::world::*;
use crate::redis::mux::*;

fn world() -> (World, ClientId) {
    let mut world = World::new(Acks::Master);
    let client = world.client();
    (world, client)
}

/// Guards this: passwords are judged by the server, by logging a link in.
#[test]
fn a_login_is_what_the_server_takes_it_for() {
    let mut world = World::of(config::ListenerRole::Master);
    world.password = Some("pw".into());
    world.head(heading(7, "a", Acks::Master));
    let a = world.client();
    world.say(a, "GET k\n");
    assert_eq!(world.heard(a), "-NOAUTH Authentication required.|");
    world.say(a, "AUTH wrong\n");
    assert_eq!(world.heard(a), "-WRONGPASS invalid|");
    world.say(a, "GET k\n");
    assert_eq!(world.heard(a), "-NOAUTH Authentication required.|");
    world.say(a, "AUTH pw\nGET k\n");
    let last = world.links.len() - 1;
    assert_eq!((world.heard(a), world.asked(last)), ("+OK|".into(), vec!["GET k"]));
    // An equal login that is known to be right is answered at once; another user is another login.
    let (b, c) = (world.client(), world.client());
    world.say(b, "AUTH pw\n");
    assert_eq!((world.heard(b), world.links.len()), ("+OK|".into(), last + 1));
    world.say(c, "AUTH joe pw\nGET k\n");
    assert_eq!((world.heard(c), world.asked(last + 1)), ("+OK|".into(), vec!["GET k"]));
    assert_eq!(world.links[last + 1].prepared[0], "AUTH joe pw");
}

#[test]
fn a_login_is_proved_anew_to_each_master() {
    let mut world = World::of(config::ListenerRole::Master);
    world.password = Some("pw".into());
    world.head(heading(7, "a", Acks::Master));
    let a = world.client();
    world.say(a, "AUTH pw\n");
    world.password = Some("other".into());
    world.head(heading(8, "b", Acks::Master));
    world.heard(a);
    world.say(a, "GET k\n");
    assert_eq!(world.heard(a), "-WRONGPASS invalid|");
    world.password = Some("pw".into());
    world.pass(1_000);
    world.say(a, "GET k\n");
    assert_eq!(world.asked(world.links.len() - 1), ["GET k"]);
}

#[test]
fn hello_answers_with_a_map_of_the_proxys_own() {
    let (mut world, a) = world();
    world.say(a, "HELLO 3 SETNAME me\nGET k\n");
    let heard = world.heard(a);
    assert!(heard.starts_with("%7|$6|server|$5|redis|$7|version|$6|7.0.15|$5|proto|:3|$2|id|:"), "{heard}");
    assert!(heard.ends_with("|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|"), "{heard}");
    let last = world.links.len() - 1;
    assert_eq!((world.asked(last), world.links[last].prepared[0].as_str()), (vec!["GET k"], "HELLO 3"));
    world.reply(last, "_\n");
    world.say(a, "CLIENT GETNAME\nHELLO\nHELLO 4\nHELLO x\nHELLO 3 WHAT\nHELLO 2\n");
    let heard = world.heard(a);
    assert!(heard.starts_with("_|$2|me|%7|"), "{heard}");
    assert!(
        heard.contains("|-NOPROTO unsupported protocol version|-ERR Protocol version is not an integer"),
        "{heard}"
    );
    assert!(heard.contains("|-ERR syntax error|*14|"), "{heard}");
}

#[test]
fn hello_without_a_login_says_what_redis_says() {
    let mut world = World::of(config::ListenerRole::Master);
    world.password = Some("pw".into());
    world.head(heading(7, "a", Acks::Master));
    let a = world.client();
    world.say(a, "HELLO 3\n");
    assert!(world.heard(a).starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
    world.say(a, "HELLO 3 AUTH default pw\n");
    assert!(world.heard(a).starts_with("%7|"));
}

#[test]
fn select_leads_to_another_link_and_not_to_the_agents_database() {
    let (mut world, a) = world();
    world.say(a, "GET k\nSELECT 3\nGET k\n");
    assert_eq!(world.links.len(), 1, "what is in flight is awaited first");
    world.reply(0, "$1\n1\n");
    assert_eq!((world.heard(a), world.asked(1)), ("$1|1|+OK|".into(), vec!["GET k"]));
    world.reply(1, "$-1\n");
    world.say(a, "SELECT 16\nSELECT -1\nSELECT x\nSELECT 0\nGET k\n");
    let heard = world.heard(a);
    let range = "-ERR DB index is out of range|";
    assert_eq!(heard, format!("$-1|{range}{range}-ERR value is not an integer or out of range|+OK|"));
    assert_eq!(world.asked(0), ["GET k"]);
}

#[test]
fn replies_that_are_not_wanted_are_dropped_and_the_rest_keeps_its_order() {
    let (mut world, a) = world();
    world.say(a, "CLIENT REPLY SKIP\nSET k 1\nGET k\n");
    world.reply(0, "+OK\n$1\n1\n");
    assert_eq!(world.heard(a), "$1|1|");
    world.say(a, "CLIENT REPLY OFF\nSET k 1\nSELECT 99\nSET k 2\n");
    world.reply(0, "+OK\n");
    world.say(a, "GET k\n");
    world.reply(0, "+OK\n$1\n2\n");
    assert_eq!(world.heard(a), "");
    world.say(a, "CLIENT REPLY ON\nGET k\n");
    world.reply(0, "$1\n2\n");
    assert_eq!(world.heard(a), "+OK|$1|2|");
}

#[test]
fn quit_is_answered_after_all_before_it() {
    let mut world = World::new(LOCAL);
    let a = world.client();
    world.say(a, "SET k 1\nQUIT\nGET k\n");
    world.reply(1, "+OK\n");
    assert_eq!((world.heard(a), world.closed(a)), (String::new(), None));
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.closed(a)), ("+OK|+OK|".into(), Some(false)));
    assert_eq!(world.asked(1), [""; 0]);
}

#[test]
fn reset_makes_a_client_as_new() {
    let (mut world, a) = world();
    world.say(a, "SELECT 3\nCLIENT SETNAME me\nRESET\nCLIENT GETNAME\nGET k\n");
    assert_eq!(world.heard(a), "+OK|+OK|+RESET|$-1|");
    assert_eq!(world.asked(0), ["GET k"]);
}

#[test]
fn a_browser_is_closed_without_a_word() {
    let (mut world, a) = world();
    world.say(a, "POST / HTTP/1.1\nHost: x\n\n");
    assert_eq!((world.heard(a), world.closed(a)), (String::new(), Some(false)));
}

#[test]
fn lanes_that_nobody_is_in_are_given_up() {
    let (mut world, a) = world();
    world.say(a, "SELECT 3\n");
    world.mux.client_gone(a, world.now);
    world.pass(59_999);
    assert!(world.links[1].open);
    world.pass(1);
    assert!(!world.links[1].open);
    assert!(world.links[0].open, "the first is kept");
}

#[test]
fn wrong_logins_leave_nothing_behind() {
    let mut world = World::of(config::ListenerRole::Master);
    let a = world.client();
    for n in 0..50 {
        world.say(a, &format!("AUTH wrong{n}\n"));
        world.pass(HOLD);
        assert!(world.heard(a).ends_with("the request was not carried out|"));
    }
    assert_eq!(world.mux.lanes.iter_mut().count(), 7, "those of the last minute");
    world.pass(120_000);
    assert_eq!(world.mux.lanes.iter_mut().count(), 1);
}
