//! A planned switchover: clients that wait for something do not notice it.

use super::world::*;
use crate::redis::mux::*;

fn held(acks: Acks) -> Heading {
    Heading { held: true, ..heading(7, "a", acks) }
}

/// A client that waits in a command on link 2; link 0 is the control link, link 1 the shared one.
fn blocked(request: &str) -> (World, ClientId) {
    let mut world = World::new(LOCAL);
    let client = world.client();
    world.say(client, request);
    (world, client)
}

#[test]
fn a_command_that_waits_goes_on_waiting_at_the_new_master() {
    let (mut world, a) = blocked("BLPOP l 5\nGET k\n");
    assert_eq!(world.asked(2), ["BLPOP l 5"]);
    world.pass(1_000);
    world.head(held(LOCAL));
    assert_eq!(world.asked(0), ["CLIENT UNBLOCK 77"]);
    assert!(!world.mux.is_quiet());
    world.reply(0, ":1\n");
    world.reply(2, "*-1\n");
    assert!(world.mux.is_quiet(), "it waits here now");
    assert_eq!(world.heard(a), "");
    world.pass(500);
    world.head(heading(8, "b", LOCAL));
    let own = world.links.len() - 1;
    assert_eq!((world.asked(own), world.closed(a)), (vec!["BLPOP l 3.500"], None));
    world.reply(own, "*2\n$1\nl\n$1\nx\n");
    let control = world.links.iter().position(|link| link.open && !link.asked.is_empty() && link.asked[0] == "PING");
    world.reply(control.expect("a barrier is asked for"), "+PONG\n:1\n");
    assert_eq!(world.heard(a), "*2|$1|l|$1|x|");
}

/// Guards this: what was carried out is answered, and not sent again.
#[test]
fn a_command_that_got_something_after_all_is_answered_and_not_repeated() {
    let (mut world, a) = blocked("BLPOP l 0\n");
    world.head(held(LOCAL));
    world.reply(0, ":0\n");
    world.reply(2, "*2\n$1\nl\n$1\nx\n");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!((world.heard(a), world.mux.is_quiet()), ("*2|$1|l|$1|x|".into(), true));
    world.head(heading(8, "b", LOCAL));
    assert!(world.links[3..].iter().all(|link| link.asked.is_empty()));
}

#[test]
fn a_command_whose_time_is_up_is_answered_so() {
    let (mut world, a) = blocked("BLPOP l 1\n");
    world.pass(1_000);
    world.head(held(LOCAL));
    world.reply(0, ":0\n");
    world.reply(2, "*-1\n");
    world.reply(0, "+PONG\n:1\n");
    assert_eq!(world.heard(a), "*-1|");
}

#[test]
fn an_unplanned_end_closes_whom_it_leaves_waiting() {
    let (mut world, a) = blocked("BLPOP l 0\n");
    world.head(heading(8, "b", LOCAL));
    assert_eq!(world.closed(a), Some(true));
}

#[test]
fn a_switchover_that_is_called_off_lets_it_wait_where_it_was() {
    let (mut world, a) = blocked("XREAD BLOCK 9000 STREAMS s $\n");
    world.head(held(Acks::Master));
    world.reply(0, ":1\n");
    world.reply(2, "*-1\n");
    world.head(heading(7, "a", LOCAL));
    assert_eq!((world.asked(2), world.closed(a)), (vec!["XREAD BLOCK 9000 STREAMS s $"], None));
}

#[test]
fn subscriptions_are_made_again_and_their_confirmations_swallowed() {
    for protocol in ["2", "3"] {
        let mut world = World::new(LOCAL);
        let a = world.client();
        world.say(a, &format!("HELLO {protocol}\nSUBSCRIBE c d\nPSUBSCRIBE p*\n"));
        let own = world.links.len() - 1;
        let kind = if protocol == "2" { "*" } else { ">" };
        let confirm =
            |verb: &str, name: &str| format!("{kind}3\n${}\n{verb}\n${}\n{name}\n:1\n", verb.len(), name.len());
        let all = confirm("subscribe", "c") + &confirm("subscribe", "d") + &confirm("psubscribe", "p*");
        world.reply(own, &all);
        world.heard(a);
        world.head(held(LOCAL));
        assert!(world.mux.is_quiet());
        world.head(heading(8, "b", LOCAL));
        let own = world.links.len() - 1;
        assert_eq!((world.asked(own), world.closed(a)), (vec!["SUBSCRIBE c d", "PSUBSCRIBE p*"], None));
        let message = format!("{kind}3\n$7\nmessage\n$1\nc\n$1\nx\n");
        world.reply(own, &format!("{}{message}{}", confirm("subscribe", "c"), confirm("subscribe", "d")));
        world.reply(own, &confirm("psubscribe", "p*"));
        assert_eq!(world.heard(a), message.replace('\n', "|"));
        assert!(world.mux.is_quiet());
        world.say(a, "UNSUBSCRIBE\n");
        assert_eq!(world.asked(own), ["UNSUBSCRIBE"]);
        world.reply(own, &(confirm("unsubscribe", "c") + &confirm("unsubscribe", "d")));
        assert!(world.links[own].open, "the pattern is left");
    }
}

#[test]
fn a_subscriber_whose_link_ends_before_the_new_record_is_seen_does_not_notice() {
    let mut world = World::new(LOCAL);
    let a = world.client();
    world.say(a, "SUBSCRIBE c\n");
    world.reply(2, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    world.heard(a);
    world.head(held(LOCAL));
    world.lose(2);
    assert_eq!(world.closed(a), None);
    world.head(heading(8, "b", LOCAL));
    let own = world.links.len() - 1;
    assert_eq!((world.asked(own), world.closed(a)), (vec!["SUBSCRIBE c"], None));
    world.reply(own, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    world.reply(own, "*3\n$7\nmessage\n$1\nc\n$1\nx\n");
    assert_eq!(world.heard(a), "*3|$7|message|$1|c|$1|x|");

    let mut world = World::new(LOCAL);
    let a = world.client();
    world.say(a, "SUBSCRIBE c\n");
    world.reply(2, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    world.lose(2);
    assert_eq!(world.closed(a), Some(true), "nobody has planned that");
}

#[test]
fn a_subscriber_that_cannot_be_subscribed_again_is_closed() {
    let mut world = World::new(LOCAL);
    let a = world.client();
    world.say(a, "SUBSCRIBE c\n");
    world.reply(2, "*3\n$9\nsubscribe\n$1\nc\n:1\n");
    world.head(held(LOCAL));
    world.head(Heading { to: vec![], ..heading(8, "b", LOCAL) });
    assert_eq!(world.closed(a), None);
    world.pass(HOLD);
    assert_eq!(world.closed(a), Some(true), "it must not believe that it hears everything");
}
