//! What a node decides: the ordinary world, one thing changed in each row.

#![allow(clippy::expect_used, reason = "a panic is a failed test")]

mod world;

use election::*;
use world::*;

/// `title: change => action, reason`.
#[track_caller]
fn row(title: &str, me: &str, change: impl FnOnce(&mut Snapshot), action: &str, reason: &str) {
    let mut s = world(me);
    change(&mut s);
    assert_eq!(decided(&s), (action.to_owned(), reason.to_owned()), "{title}");
}

#[test]
fn all_is_well() {
    row("the master serves", "a", |_| {}, "wait", "serving");
    row("the hot replica is behind it", "b", |_| {}, "wait", "understudying");
    row("the spare is behind the hot replica", "c", |_| {}, "wait", "spare");
}

#[test]
fn nothing_is_done_on_what_cannot_be_trusted() {
    row("Consul has not answered yet", "a", |s| s.view.seen = false, "wait", "consul_unseen");
    row("the record vanished", "a", |s| s.view.record = None, "read", "record_went_back");
    row("the record went back", "b", |s| s.memory.stamp.seq += 1, "read", "record_went_back");
    row("another group's", "b", |s| s.memory.uid = Some("other".into()), "read", "other_group");
    row("a newer version's", "a", |s| recorded(s, |r| r.v = 2), "read", "record_too_new");
    row("half-written by hand", "a", |s| s.view.fault = Some("not JSON".into()), "read", "record_unreadable");
    let gone = |s: &mut Snapshot| {
        s.view.record = None;
        s.view.reachable = false;
    };
    row("the record vanished, and Consul after it", "a", gone, "wait", "record_went_back");
    row("a new record is on disk first", "c", |s| s.memory.stamp.seq -= 1, "remember", "remembering");
    row("halted", "b", |s| recorded(s, |r| r.phase = Phase::Halted), "wait", "halted");
}

#[test]
fn the_process_is_looked_after_by_everyone() {
    let down = |s: &mut Snapshot| s.engine = Engine::Down { why: "killed".into() };
    for me in ["a", "b", "c"] {
        row("it died", me, down, "start", "starting");
    }
    let backoff = |s: &mut Snapshot| {
        s.engine = Engine::Down { why: "exit 1".into() };
        s.start_after = NOW.plus(100);
    };
    row("it just died", "c", backoff, "wait", "start_backoff");
    let silent =
        |ms| move |s: &mut Snapshot| s.engine = Engine::Silent { since: Millis(NOW.0 - ms), incarnation: None };
    row("silent", "a", silent(4_999), "wait", "engine_silent");
    row("hung", "a", silent(5_000), "kill", "engine_hung");
    row("not ours", "a", |s| s.engine = Engine::Foreign { why: "x".into() }, "wait", "foreign_data");
    let other_group = |s: &mut Snapshot| {
        let Engine::Up(status) = &mut s.engine else { panic!("it is up") };
        status.marker = Some(Marker { uid: "other".into(), ..marker(4, "cert") });
    };
    row("another group's data are not overwritten", "c", other_group, "wait", "other_data");
}

fn new_group(s: &mut Snapshot) {
    s.view.record = None;
    s.view.index = 0;
    s.memory = Memory::default();
    mine(s, |st| {
        st.empty = true;
        st.marker = None;
        st.role = EngineRole::Sealed;
    });
}

/// A living node that belongs to a group.
fn identified(id: &str) -> Member {
    Member {
        id: id.into(),
        address: "h".into(),
        port: 1,
        agent: "h:2".into(),
        engine: "redis".into(),
        version: String::new(),
        databases: Some(16),
        zone: None,
        role: Role::Spare,
        incarnation: None,
        priority: 100,
        adopt: false,
        uid: Some("uid".into()),
        boot: "x".into(),
    }
}

#[test]
fn a_new_group_is_made_once_and_never_in_place_of_a_lost_one() {
    row("nothing there", "a", new_group, "submit", "bootstrapping");
    let data = |s: &mut Snapshot| {
        new_group(s);
        mine(s, |st| st.empty = false);
    };
    row("data nobody asked to adopt", "a", data, "wait", "not_empty");
    let never = |s: &mut Snapshot| {
        new_group(s);
        s.me.priority = 0;
    };
    row("priority 0", "a", never, "wait", "not_eligible");
    let other = |s: &mut Snapshot| {
        new_group(s);
        let member = identified("b");
        s.view.members.insert("b".into(), member);
    };
    row("another node has an identity", "a", other, "wait", "record_vanished");
}

#[test]
fn a_dead_master_is_replaced_step_by_step() {
    let dead = |s: &mut Snapshot| peer(s, "a").beat.engine = Engine::Down { why: "signal 9".into() };
    row("first the record is read", "b", dead, "read", "rereading");
    let read = move |s: &mut Snapshot| {
        dead(s);
        read_since(s);
    };
    row("then it seals", "b", read, "seal", "sealing");
    let sealed = move |s: &mut Snapshot| {
        read(s);
        mine(s, |st| st.role = EngineRole::Sealed);
    };
    row("then it submits", "b", sealed, "submit", "taking_over");
    let restarted = |s: &mut Snapshot| theirs(s, "a", |st| st.incarnation = "run-a2".into());
    row("another run counts as dead", "b", restarted, "read", "rereading");
    row("a spare does nothing", "c", dead, "wait", "spare");
}

#[test]
fn no_consul_no_takeover() {
    let away = |s: &mut Snapshot| {
        peer(s, "a").beat.engine = Engine::Down { why: "signal 9".into() };
        read_since(s);
        s.view.reachable = false;
    };
    row("it does not even seal", "b", away, "wait", "consul_away");
    let sealed = move |s: &mut Snapshot| {
        away(s);
        mine(s, |st| st.role = EngineRole::Sealed);
    };
    row("it stays sealed while the master is dead", "b", sealed, "wait", "consul_away");
    row("the master goes on", "a", |s| s.view.reachable = false, "wait", "serving");
}

fn witnessed_by_proxy(s: &mut Snapshot, epoch: u64) {
    s.witnesses.insert("proxy1".into(), Witness { epoch, reached: Millis(NOW.0 - 100) });
}

#[test]
fn suspicion_needs_complete_silence() {
    let silent = |s: &mut Snapshot| silence_of_master(s, 1_000);
    row("silent for detect_after", "b", silent, "read", "rereading");
    row("not quite", "b", |s| silence_of_master(s, 999), "wait", "understudying");
    let but = |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            silence_of_master(s, 5_000);
            change(s);
        }
    };
    row("but its link is alive", "b", but(|s| s.link_heard = Some(NOW)), "wait", "understudying");
    row("but its database answers", "b", but(|s| s.master_db.heard = Some(NOW)), "wait", "understudying");
    row("but its agent was heard", "b", but(|s| peer(s, "a").heard = NOW), "wait", "understudying");
    row("but this agent was asleep", "b", but(|s| s.awake_since = NOW), "wait", "understudying");
    row("but a takeover was a moment ago", "b", but(|s| s.epoch_since = NOW), "wait", "flap_pause");
    let witness = but(|s| peer(s, "c").beat.reached_master_ms = Some(100));
    row("but a spare still reaches it", "b", witness, "wait", "witnessed");
    let proxy = but(|s| witnessed_by_proxy(s, 4));
    row("but a proxy still reaches it", "b", proxy, "wait", "witnessed");
    let older = but(|s| witnessed_by_proxy(s, 3));
    row("a witness of another master stops nothing", "b", older, "read", "rereading");
    let stale = but(|s| peer(s, "c").beat.reached_master_ms = Some(900));
    row("a witness of long ago stops nothing", "b", stale, "read", "rereading");
    let slow = but(|s| {
        s.view.leader = None;
        s.epoch_since = NOW;
    });
    row("the slow path is always open", "b", slow, "read", "rereading");
}

#[test]
fn a_node_where_nobody_listens_is_gone_at_once() {
    let gone = |s: &mut Snapshot| {
        let since = Some(Millis(NOW.0 - 100));
        peer(s, "a").refused_since = since;
        s.master_db.refused_since = since;
        mine(s, |st| {
            st.role = EngineRole::Follows { source: address("a"), link_up: false, syncing: false, channel: None }
        });
    };
    row("agent, database and link", "b", gone, "read", "rereading");
    let agent_lives = move |s: &mut Snapshot| {
        gone(s);
        peer(s, "a").refused_since = None;
    };
    row("its agent lives", "b", agent_lives, "wait", "understudying");
    let link_lives = move |s: &mut Snapshot| {
        gone(s);
        mine(s, |st| st.role = follows("a"));
    };
    row("the link stands", "b", link_lives, "wait", "understudying");
}

#[test]
fn an_incomplete_copy_is_never_promoted() {
    let dead = |s: &mut Snapshot| {
        peer(s, "a").beat.engine = Engine::Down { why: "signal 9".into() };
        read_since(s);
    };
    let flaw = |change: fn(&mut Status)| {
        move |s: &mut Snapshot| {
            dead(s);
            mine(s, change);
        }
    };
    row("restarted, like the master", "b", flaw(|st| st.incarnation = "run-b2".into()), "wait", "waiting_for_other");
    row("loading", "b", flaw(|st| st.loading = true), "wait", "not_promotable");
    row("cut full resync: empty, looks whole", "b", flaw(|st| st.position = Position(1)), "wait", "not_promotable");
    row("another history", "b", flaw(|st| st.lineage = "other".into()), "wait", "not_promotable");
    row("another marker", "b", flaw(|st| st.marker = Some(marker(4, "old"))), "wait", "not_promotable");
    row("a marker removed by FLUSHALL is no flaw", "b", flaw(|st| st.marker = None), "seal", "sealing");
}

#[test]
fn a_replica_unseals_only_when_nothing_is_in_flight() {
    let sealed = |s: &mut Snapshot| mine(s, |st| st.role = EngineRole::Sealed);
    row("no grounds any more", "b", sealed, "follow", "unsealing");
    let restarted = move |s: &mut Snapshot| {
        sealed(s);
        s.settled = false;
    };
    row("a restarted agent raises seq first", "b", restarted, "submit", "renewing");
    let unknown = move |s: &mut Snapshot| {
        sealed(s);
        s.writing = Writing::Unknown { index: 700 };
    };
    row("an unknown write is settled first", "b", unknown, "submit", "settling");
    let moved = move |s: &mut Snapshot| {
        unknown(s);
        s.view.index = 701;
    };
    row("a higher index settles it", "b", moved, "follow", "unsealing");
}

fn promoting(s: &mut Snapshot) {
    recorded(s, |r| {
        r.epoch = 5;
        r.seq = 21;
        r.phase = Phase::Promoting;
        r.replica = None;
        r.master = Some(Master { id: "b".into(), address: "host-b".into(), port: 6379, incarnation: "run-b".into() });
    });
    recorded(s, |r| {
        r.previous = Some(Previous {
            epoch: 4,
            master: Some(Identity { id: "a".into(), incarnation: "run-a".into() }),
            position: Some(Position(1_000)),
            reason: "master process died".into(),
            fsync: false,
            data_loss: None,
        });
    });
    s.view.leader = Some("session-b".into());
    mine(s, |st| st.role = EngineRole::Sealed);
}

#[test]
fn a_promotion_ends_with_the_marker_on_disk() {
    row("every write on disk first", "b", promoting, "fsync-always", "promoting");
    let left_over = |s: &mut Snapshot| {
        promoting(s);
        s.certifying =
            Some(Certifying { candidate: "c".into(), incarnation: "run-c".into(), nonce: "new".into(), since: NOW });
    };
    // Its nonce may be that of the marker that the epoch begins with, before anything waits (simulation: PostgreSQL, 2719).
    row("a certification of the epoch before proves nothing", "b", left_over, "abandon", "abandoning");
    let then = |change: fn(&mut Status)| {
        move |s: &mut Snapshot| {
            promoting(s);
            mine(s, |st| st.fsync = true);
            mine(s, change);
        }
    };
    row("promote", "b", then(|_| {}), "promote", "promoting");
    row("marker", "b", then(|st| st.role = EngineRole::Master), "mark", "promoting");
    let marked = then(|st| {
        st.role = EngineRole::Master;
        st.marker = Some(marker(5, "cert"));
    });
    row("active", "b", marked, "submit", "activating");
    let died = then(|st| st.incarnation = "run-b2".into());
    row("another run is not promoted: the previous master has the data", "b", died, "wait", "handing_over");
    let died_before_a_shorter_one = move |s: &mut Snapshot| {
        died(s);
        mine(s, |st| st.marker = Some(marker(5, "cert")));
        // Its marker says nothing: it may have been woken in the middle of a promotion of its own (MariaDB, 377636).
        theirs(s, "a", |st| {
            (st.role, st.position) = (EngineRole::Sealed, Position(900));
            st.marker = Some(Marker { counter: 99, ..marker(5, "cert") });
        });
    };
    // The two would wait for each other (simulation: PostgreSQL, 162922).
    row("it goes on where that one may not take the group back", "b", died_before_a_shorter_one, "submit", "resuming");
    let promoted_peer = |s: &mut Snapshot| {
        promoting(s);
        mine(s, |st| st.role = EngineRole::Master);
    };
    row("the old master is fenced", "a", promoted_peer, "fence", "deposed");
    row("and does not follow yet", "c", promoting, "wait", "waiting_for_active");
}

fn alone(s: &mut Snapshot) {
    recorded(s, |r| r.replica = None);
    mine(s, |st| {
        st.fsync = true;
        st.guard = false;
        st.need = false;
        st.replicas = vec![];
    });
}

#[test]
fn a_lost_hot_replica_is_let_go_in_order() {
    let dead = |s: &mut Snapshot| peer(s, "b").beat.engine = Engine::Down { why: "signal 9".into() };
    row("the disk first", "a", dead, "fsync-always", "dropping");
    let ready = move |s: &mut Snapshot| {
        dead(s);
        mine(s, |st| st.fsync = true);
    };
    row("then the record", "a", ready, "submit", "dropping");
    let dropped = |s: &mut Snapshot| {
        alone(s);
        mine(s, |st| st.guard = true);
    };
    row("and only then the guard", "a", dropped, "unguard", "aligning");
    let block = move |s: &mut Snapshot| {
        alone(s);
        mine(s, |st| (st.guard, st.need) = (true, true));
        s.policy.without_replica = WithoutReplica::Block;
        s.peers.clear();
    };
    row("never in block mode", "a", block, "wait", "blocked_alone");
    let void = |s: &mut Snapshot| theirs(s, "b", |st| st.incarnation = "run-b2".into());
    row("a void certificate is a loss", "a", void, "fsync-always", "dropping");
    let unlinked = |s: &mut Snapshot| {
        mine(s, |st| st.replicas = vec![]);
        s.replica_acked = Some(Millis(NOW.0 - 400));
    };
    row("a link that just broke is not", "a", unlinked, "wait", "replica_unseen");
    let agent = |s: &mut Snapshot| peer(s, "b").heard = Millis(NOW.0 - 9_000);
    row("an agent that is away is not", "a", agent, "wait", "serving_replica_agent_silent");
    let long = |s: &mut Snapshot| peer(s, "b").heard = Millis(NOW.0 - 10_000);
    row("for long it is, with another to take its place", "a", long, "fsync-always", "dropping");
    let no_other = move |s: &mut Snapshot| {
        long(s);
        s.peers.remove(&NodeId::from("c"));
    };
    row("without another it is kept", "a", no_other, "wait", "serving_replica_agent_silent");
}

fn certifying(s: &mut Snapshot) {
    alone(s);
    s.certifying =
        Some(Certifying { candidate: "c".into(), incarnation: "run-c".into(), nonce: "new".into(), since: NOW });
}

fn joined(s: &mut Snapshot) {
    certifying(s);
    theirs(s, "c", |st| st.role = follows("a"));
    mine(s, |st| st.replicas = vec![attached("c", 990)]);
}

fn exclusive(s: &mut Snapshot) {
    joined(s);
    mine(s, |st| {
        st.channel = Some("new".into());
        st.need = true;
    });
}

#[test]
fn a_copy_is_certified_step_by_step() {
    row("somebody is chosen", "a", alone, "nominate", "choosing");
    row("it is told to join", "a", certifying, "wait", "catching_up");
    row("it has caught up: the exclusive channel", "a", joined, "channel", "certifying_copy");
    row("then the guard", "a", exclusive, "guard", "certifying_copy");
    let copies = |s: &mut Snapshot| {
        theirs(s, "c", |st| {
            st.role = EngineRole::Follows { source: address("a"), link_up: false, syncing: true, channel: None };
        });
    };
    let copies_alone = move |s: &mut Snapshot| {
        exclusive(s);
        copies(s);
    };
    row("no write waits for a whole copy", "a", copies_alone, "abandon", "abandoning");
    let copies_among_others = move |s: &mut Snapshot| {
        joined(s);
        copies(s);
        s.certifying.as_mut().unwrap().since = Millis(0);
    };
    row("none waits before: it may take long", "a", copies_among_others, "wait", "catching_up");
    let guarded = |s: &mut Snapshot| {
        exclusive(s);
        mine(s, |st| st.guard = true);
    };
    row("then the marker", "a", guarded, "mark", "certifying_copy");
    let marked = move |s: &mut Snapshot| {
        guarded(s);
        mine(s, |st| (st.marker, st.marked_at) = (Some(marker(4, "new")), Some(Position(1_010))));
    };
    row("not before it is read back", "a", marked, "wait", "certifying_copy");
    let read_back = move |s: &mut Snapshot| {
        marked(s);
        theirs(s, "c", |st| (st.marker, st.position) = (Some(marker(4, "new")), Position(1_010)));
    };
    row("then the record", "a", read_back, "submit", "certifying_copy");
    let half = move |s: &mut Snapshot| {
        read_back(s);
        theirs(s, "c", |st| st.persisted = false);
    };
    row("not before its disk has it", "a", half, "wait", "certifying_copy");
    let fsync = move |theirs_too: bool| {
        move |s: &mut Snapshot| {
            read_back(s);
            s.policy.fsync = true;
            recorded(s, |r| r.fsync = true);
            theirs(s, "c", |st| st.fsync = theirs_too);
        }
    };
    row("fsync: not before its disk keeps up", "a", fsync(false), "wait", "certifying_copy");
    row("fsync: both disks keep up", "a", fsync(true), "submit", "certifying_copy");
    let second = move |s: &mut Snapshot| {
        read_back(s);
        mine(s, |st| st.replicas.push(attached("b", 1_000)));
    };
    row("not beside another", "a", second, "expel", "intruder");
    let died = move |s: &mut Snapshot| {
        read_back(s);
        theirs(s, "c", |st| st.incarnation = "run-c2".into());
    };
    row("not another run", "a", died, "abandon", "abandoning");
}

#[test]
fn a_restarted_master_resumes_only_from_the_disk_that_holds_everything() {
    let restarted = |s: &mut Snapshot| {
        mine(s, |st| {
            st.incarnation = "run-a2".into();
            st.role = EngineRole::Sealed;
        });
    };
    row("the hot replica acts", "a", restarted, "wait", "handing_over");
    let solo = move |s: &mut Snapshot| {
        alone(s);
        restarted(s);
    };
    row("alone, it resumes", "a", solo, "submit", "resuming");
    let but = move |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            solo(s);
            change(s);
        }
    };
    row("empty", "a", but(|s| mine(s, |st| st.marker = None)), "wait", "may_not_resume");
    row("older epoch", "a", but(|s| mine(s, |st| st.marker = Some(marker(3, "cert")))), "wait", "may_not_resume");
    row("older data", "a", but(|s| s.memory.marker = Some((4, 41))), "wait", "may_not_resume");
    row("as new as known", "a", but(|s| s.memory.marker = Some((4, 40))), "submit", "resuming");
    row("loading", "a", but(|s| mine(s, |st| st.loading = true)), "wait", "loading");
    // An operator restored the record under epoch 5, and the run ended before its marker said so; then the next did.
    let restored = move |epoch, phase| {
        move |s: &mut Snapshot| {
            solo(s);
            recorded(s, |r| (r.epoch, r.phase) = (epoch, phase));
        }
    };
    row("restored", "a", restored(5, Phase::Active), "submit", "resuming");
    row("restored, and restarted before it was promoted", "a", restored(6, Phase::Promoting), "submit", "resuming");
}

/// Master and hot replica both runs another process than the record names.
fn both_restarted(s: &mut Snapshot, me: &str, mine_counter: u64, their_counter: u64) {
    let with = |counter| Some(Marker { counter, ..marker(4, "cert") });
    mine(s, |st| {
        st.incarnation = format!("run-{me}2").as_str().into();
        st.role = EngineRole::Sealed;
        st.marker = with(mine_counter);
        // Who is about to resume has seen to it.
        st.fsync = mine_counter > their_counter || me == "a";
    });
    let other = if me == "a" { "b" } else { "a" };
    theirs(s, other, |st| {
        st.incarnation = format!("run-{other}2").as_str().into();
        st.role = EngineRole::Sealed;
        st.marker = with(their_counter);
    });
}

#[test]
fn of_two_restarted_copies_the_newer_resumes() {
    let restarted = |me: &'static str, mine, theirs| move |s: &mut Snapshot| both_restarted(s, me, mine, theirs);
    row("master ahead", "a", restarted("a", 42, 41), "submit", "resuming");
    row("master on a tie", "a", restarted("a", 41, 41), "submit", "resuming");
    let not_on_disk = |s: &mut Snapshot| {
        both_restarted(s, "a", 42, 41);
        mine(s, |st| st.fsync = false);
    };
    // Else the next power cut takes what the other was not asked for (simulation: Redis, 194109).
    row("what it goes on from is on its disk first", "a", not_on_disk, "fsync-always", "resuming");
    row("replica ahead: the master lets it", "a", restarted("a", 41, 42), "wait", "other_resumes");
    row("replica ahead", "b", restarted("b", 42, 41), "submit", "resuming");
    row("the replica not on a tie", "b", restarted("b", 41, 41), "wait", "other_resumes");
    let but = |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            both_restarted(s, "a", 42, 41);
            change(s);
        }
    };
    let silent = but(|s| peer(s, "b").heard = Millis(NOW.0 - 60_000));
    row("the other is silent: halted", "a", silent, "wait", "waiting_for_other");
    let down = but(|s| peer(s, "b").beat.engine = Engine::Down { why: "x".into() });
    row("the other is down: halted", "a", down, "wait", "waiting_for_other");
    let loading = but(|s| theirs(s, "b", |st| st.loading = true));
    row("the other is loading: halted", "a", loading, "wait", "waiting_for_other");
    let unbroken = but(|s| theirs(s, "b", |st| st.incarnation = "run-b".into()));
    row("the other never stopped: it acts", "a", unbroken, "wait", "handing_over");
    let empty = but(|s| mine(s, |st| st.marker = None));
    row("its own disk is empty", "a", empty, "wait", "may_not_resume");
    let other_empty = but(|s| theirs(s, "b", |st| st.marker = None));
    row("the other's disk is empty", "a", other_empty, "submit", "resuming");
    let old = but(|s| mine(s, |st| st.marker = Some(marker(4, "older-cert"))));
    row("its own data are of an older certificate", "a", old, "wait", "may_not_resume");
    row(
        "a spare never",
        "c",
        |s| {
            peer(s, "a").beat.engine = Engine::Down { why: "x".into() };
            peer(s, "b").beat.engine = Engine::Down { why: "x".into() };
        },
        "wait",
        "spare",
    );
}

#[test]
fn a_previous_master_takes_the_group_back_only_while_nothing_was_acknowledged() {
    let lost = |s: &mut Snapshot| {
        promoting(s);
        peer(s, "b").beat.engine = Engine::Down { why: "signal 9".into() };
    };
    row("same run, sealed, successor lost", "a", lost, "submit", "retaking");
    row("successor alive", "a", promoting, "wait", "waiting_for_active");
    let but = |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            lost(s);
            change(s);
        }
    };
    let active = but(|s| recorded(s, |r| (r.phase, r.active_epoch) = (Phase::Active, 5)));
    row("active already", "a", active, "wait", "waiting_for_replica");
    let restarted = but(|s| mine(s, |st| st.incarnation = "run-a2".into()));
    row("restarted itself: it waits for the other's disk", "a", restarted, "wait", "waiting_for_other");
    let behind = but(|s| mine(s, |st| st.position = Position(1)));
    row("its data were replaced", "a", behind, "wait", "waiting_for_active");
    row("a spare never", "c", lost, "wait", "waiting_for_active");
}

#[test]
fn a_restarted_agent_changes_nothing_but_seq() {
    row("master", "a", |s| s.settled = false, "submit", "renewing");
    row("hot replica that follows", "b", |s| s.settled = false, "wait", "understudying");
    row("lost session", "a", |s| s.view.leader = None, "submit", "relocking");
}

/// Under an older record this master was hot replica: a spare that knows no newer one would be let in on its exclusive
/// channel, and be counted for the hot replica.
#[test]
fn leave_is_given_by_the_newest_record_only() {
    let mut s = world("a");
    assert_eq!(offer(&s, &"b".into()).map(|o| o.purpose), Some(Purpose::Certify));
    let record = s.view.record.as_mut().expect("a record");
    record.epoch = 3;
    record.master.as_mut().expect("named").id = "b".into();
    record.replica.as_mut().expect("named").id = "a".into();
    assert_eq!(offer(&s, &"c".into()), None, "Consul's data went back");
    s.memory.stamp = s.view.record.as_ref().expect("a record").stamp();
    assert_eq!(offer(&s, &"c".into()), None, "it is a master, whatever the record says");
}

fn offered(s: &mut Snapshot, from: &str, purpose: Purpose) {
    let stamp = s.view.record.as_ref().expect("a record").stamp();
    peer(s, from).beat.offer =
        Some(Offer { stamp, source: address(from), channel: "offered".into(), secret: Secret::new("x"), purpose });
}

#[test]
fn a_spare_follows_whom_the_record_names_under_leave_of_the_same_record() {
    let stray = |s: &mut Snapshot| mine(s, |st| st.role = EngineRole::Sealed);
    row("no leave yet", "c", stray, "wait", "waiting_for_offer");
    let leave = move |s: &mut Snapshot| {
        stray(s);
        offered(s, "b", Purpose::Chain);
    };
    row("the hot replica", "c", leave, "follow", "following");
    let stale = move |s: &mut Snapshot| {
        leave(s);
        recorded(s, |r| r.seq += 1);
    };
    row("an older record's leave is refused", "c", stale, "wait", "waiting_for_offer");
    let called = |s: &mut Snapshot| {
        recorded(s, |r| r.replica = None);
        offered(s, "a", Purpose::Join);
    };
    row("the master when it calls", "c", called, "follow", "following");
    row("nobody when nobody calls", "c", |s| recorded(s, |r| r.replica = None), "wait", "waiting_for_replica");
    row("a stray master is fenced", "c", |s| mine(s, |st| st.role = EngineRole::Master), "fence", "deposed");
}

fn requested(s: &mut Snapshot, target: Option<&str>) {
    let command = Command {
        id: "req".into(),
        op: CommandOp::Switchover,
        target: target.map(NodeId::from),
        expect_epoch: 4,
        expires_at: s.wall + 10_000,
        by: "op".into(),
        grace_ms: None,
    };
    s.view.command = Some((command, 710));
}

#[test]
fn a_planned_switchover_holds_writes_first() {
    row("to the hot replica", "a", |s| requested(s, None), "submit", "switching_to");
    row("to a spare: the disk, then the record", "a", |s| requested(s, Some("c")), "fsync-always", "dropping");
    let on_disk = |s: &mut Snapshot| {
        requested(s, Some("c"));
        mine(s, |st| st.fsync = true);
    };
    row("the disk is ready and stays so", "a", on_disk, "submit", "dropping");
    row("to itself", "a", |s| requested(s, Some("a")), "answer", "refusing");
    row("to nobody known", "a", |s| requested(s, Some("x")), "answer", "refusing");
    let late = |s: &mut Snapshot| {
        requested(s, None);
        s.wall += 20_000;
    };
    row("too late", "a", late, "answer", "refusing");
    let held = |s: &mut Snapshot| {
        recorded(s, |r| {
            r.phase = Phase::Switching;
            r.seq += 1;
            r.switchover = Some(SwitchoverRef { id: "req".into(), target: "b".into(), grace_ms: None });
        });
        s.phase_since = NOW;
    };
    row("writes are held", "a", held, "quiesce", "holding");
    let proxies = move |said: [Option<u64>; 2], since: u64| {
        move |s: &mut Snapshot| {
            held(s);
            s.phase_since = Millis(NOW.0 - since);
            let stamp = |seq| Stamp { epoch: 4, seq };
            let seq = s.view.record.as_ref().expect("a record").seq;
            let said = said.map(|ago| ago.map(|ago| stamp(seq - ago)));
            s.proxies = ["p1", "p2"].map(str::to_owned).into_iter().zip(said).collect();
        }
    };
    row("requests under way are answered first", "a", proxies([Some(0), None], 399), "wait", "quieting");
    row("an earlier hold's word is no word", "a", proxies([Some(0), Some(1)], 0), "wait", "quieting");
    row("nothing is in flight", "a", proxies([Some(0), Some(0)], 0), "quiesce", "holding");
    row("a proxy that never says so is not waited for", "a", proxies([None, None], 400), "quiesce-now", "holding");
    let graceful = |since: u64| {
        move |s: &mut Snapshot| {
            held(s);
            recorded(s, |r| r.switchover.as_mut().expect("a switchover").grace_ms = Some(3_000));
            s.phase_since = Millis(NOW.0 - since);
        }
    };
    row("transactions have a moment", "a", held, "quiesce", "holding");
    row("or as long as the request says", "a", graceful(2_999), "quiesce", "holding");
    row("then they are ended", "a", graceful(3_000), "quiesce-now", "holding");
    row("and the hand-over has time after that", "a", graceful(3_500), "submit", "switch_given_up");
    let holding = |s: &mut Snapshot| mine(s, |st| st.quiesced = true);
    let begun = move |s: &mut Snapshot| (proxies([None, None], 0)(s), holding(s)).0;
    row("what is held stays held", "a", begun, "wait", "holding");
    let too_long = move |s: &mut Snapshot| {
        held(s);
        s.phase_since = Millis(NOW.0 - 5_000);
    };
    row("not for ever", "a", too_long, "submit", "switch_given_up");
    let reached = move |at: u64| {
        move |s: &mut Snapshot| {
            held(s);
            let stamp = s.view.record.as_ref().expect("a record").stamp();
            peer(s, "a").beat.stamp = stamp;
            peer(s, "a").beat.quiesced_at = Some(Position(at));
        }
    };
    row("the replica waits for the last byte", "b", reached(1_001), "wait", "reaching");
    row("and takes over with it", "b", reached(1_000), "read", "rereading");
}

fn forced(s: &mut Snapshot, target: &str) {
    requested(s, Some(target));
    let command = &mut s.view.command.as_mut().expect("just requested").0;
    command.op = CommandOp::Failover;
}

#[test]
fn a_forced_failover_needs_a_master_that_is_gone() {
    row("the master lives", "c", |s| forced(s, "c"), "answer", "refusing");
    row("it is master already", "a", |s| forced(s, "a"), "answer", "refusing");
    let hands_over = |s: &mut Snapshot| {
        forced(s, "a");
        s.view.record.as_mut().expect("there is a record").phase = Phase::Switching;
    };
    row("it is master, and hands over", "a", hands_over, "answer", "refusing");
    let gone = |s: &mut Snapshot| {
        forced(s, "c");
        peer(s, "a").heard = Millis(NOW.0 - 60_000);
        peer(s, "b").heard = Millis(NOW.0 - 60_000);
    };
    row("a spare seals first", "c", gone, "seal", "forcing");
    let away = move |s: &mut Snapshot| {
        gone(s);
        s.view.reachable = false;
    };
    row("not without Consul", "c", away, "wait", "consul_away");
    let sealed = move |s: &mut Snapshot| {
        gone(s);
        mine(s, |st| st.role = EngineRole::Sealed);
    };
    row("then takes over, the loss recorded", "c", sealed, "submit", "forcing");
    let unproven = |then: fn(&mut Status)| {
        move |s: &mut Snapshot| {
            promoting(s);
            recorded(s, |r| r.previous.as_mut().expect("a previous master").position = None);
            mine(s, |st| st.persisted = false);
            mine(s, then);
        }
    };
    row("its copy is not on its disk: it becomes master", "b", unproven(|_| {}), "promote", "promoting");
    row("and waits for the disk", "b", unproven(|st| st.role = EngineRole::Master), "wait", "persisting");
    row("on its disk, as any other", "b", unproven(|st| st.persisted = true), "fsync-always", "promoting");
    let stuck = move |s: &mut Snapshot| {
        promoting(s);
        mine(s, |st| st.incarnation = "run-c".into());
        peer(s, "b").beat.engine = Engine::Up(Box::new(Status { incarnation: "run-b".into(), ..master_status() }));
        forced(s, "c");
        s.view.command.as_mut().expect("just requested").0.expect_epoch = 5;
    };
    row("another instead of one that is not open yet", "c", stuck, "submit", "forcing");
    let other = move |s: &mut Snapshot| {
        gone(s);
        forced(s, "b");
    };
    row("it is for another node", "c", other, "wait", "spare");
    let halted = move |s: &mut Snapshot| {
        sealed(s);
        recorded(s, |r| r.phase = Phase::Halted);
    };
    row("a halted group too", "c", halted, "submit", "forcing");
    let late = move |s: &mut Snapshot| {
        sealed(s);
        s.wall += 60_000;
    };
    row("not a stale request", "c", late, "answer", "refusing");
}

#[test]
fn a_pause_stops_what_would_change_a_role_by_itself() {
    let paused = |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            change(s);
            s.policy.paused = true;
        }
    };
    row("all is well", "a", paused(|_| {}), "wait", "serving");
    row("no takeover", "b", paused(|s| silence_of_master(s, 60_000)), "wait", "paused");
    row("no new hot replica", "a", paused(alone), "wait", "paused");
    row("no start", "c", paused(|s| s.engine = Engine::Down { why: "x".into() }), "wait", "paused");
    row(
        "no kill",
        "a",
        paused(|s| s.engine = Engine::Silent { since: Millis(1), incarnation: None }),
        "wait",
        "paused",
    );
    row("no resuming", "a", paused(|s| both_restarted(s, "a", 42, 41)), "wait", "paused");
    row("a deposed master is fenced", "c", paused(|s| mine(s, |st| st.role = EngineRole::Master)), "fence", "deposed");
    let lost = paused(|s| peer(s, "b").beat.engine = Engine::Down { why: "x".into() });
    row("a lost hot replica is let go, or writes would stop", "a", lost, "fsync-always", "dropping");
    row("what an operator asks for is done", "a", paused(|s| requested(s, None)), "submit", "switching_to");
}

fn asked(s: &mut Snapshot, op: CommandOp) {
    let me = s.me.id.0.clone();
    requested(s, Some(&me));
    s.view.command.as_mut().expect("just requested").0.op = op;
}

#[test]
fn a_node_takes_on_what_concerns_it() {
    row("drain a spare", "c", |s| asked(s, CommandOp::Drain), "answer", "taking_on");
    row("drain a master", "a", |s| asked(s, CommandOp::Drain), "answer", "taking_on");
    // It may be on its way to be certified: its run ends, then the record's seq is raised by the very transaction.
    row("reinit a spare", "c", |s| asked(s, CommandOp::Reinit), "kill", "taking_on");
    row("never a master", "a", |s| asked(s, CommandOp::Reinit), "answer", "refusing");
    row("never a hot replica", "b", |s| asked(s, CommandOp::Reinit), "answer", "refusing");
    let down = |s: &mut Snapshot| {
        asked(s, CommandOp::Reinit);
        s.engine = Engine::Down { why: "its file is garbled".into() };
    };
    row("a spare that does not run", "c", down, "submit", "taking_on");
    let away = |s: &mut Snapshot| {
        asked(s, CommandOp::Reinit);
        s.view.reachable = false;
    };
    row("not without Consul", "c", away, "wait", "consul_away");
    let other = |s: &mut Snapshot| {
        asked(s, CommandOp::Reinit);
        s.view.command.as_mut().expect("asked").0.target = Some("b".into());
    };
    row("another node's", "c", other, "wait", "spare");

    let draining = |s: &mut Snapshot| s.duty = Some(Duty::Drain { until: NOW.plus(1_000) });
    row("a spare stops", "c", draining, "stop", "drain_stopping");
    row("a hot replica stops", "b", draining, "stop", "drain_stopping");
    row("a master hands over first", "a", draining, "wait", "serving");
    let handed_over = |s: &mut Snapshot| {
        promoting(s);
        draining(s);
    };
    row("nor before the next one is open", "a", handed_over, "wait", "waiting_for_active");
    row("a spare need not wait for that", "c", handed_over, "stop", "drain_stopping");
    row("not for ever", "a", |s| s.duty = Some(Duty::Drain { until: NOW }), "stop", "drain_stopping");
    let stopped = move |s: &mut Snapshot| {
        draining(s);
        s.engine = Engine::Down { why: "exit 0".into() };
    };
    row("and is not started again", "c", stopped, "wait", "drained");
    row("a copy is thrown away", "c", |s| s.duty = Some(Duty::Reinit), "reset", "reinitialising");
    row("not one that was certified since", "b", |s| s.duty = Some(Duty::Reinit), "wait", "understudying");
}

#[test]
fn a_group_begins_with_the_data_it_was_told_to_adopt() {
    let data = |s: &mut Snapshot| {
        new_group(s);
        s.me.adopt = true;
        mine(s, |st| st.empty = false);
    };
    row("its data make the group", "a", data, "submit", "bootstrapping");
    let late = |s: &mut Snapshot| {
        s.me.adopt = true;
        s.memory = Memory::default();
        s.engine = Engine::Down { why: "not started yet".into() };
    };
    row("not when there is one: nothing is started", "c", late, "wait", "adopt_too_late");
    let unseen = move |s: &mut Snapshot| {
        late(s);
        s.view = View { session: s.view.session.clone(), ..View::default() };
    };
    row("nor before it is known", "c", unseen, "wait", "consul_unseen");
    let vanished = move |s: &mut Snapshot| {
        late(s);
        s.view.record = None;
        s.view.members.insert("b".into(), identified("b"));
    };
    row("nor when there was one", "c", vanished, "wait", "record_vanished");
    let joined = |s: &mut Snapshot| s.me.adopt = true;
    row("later the key says nothing", "c", joined, "wait", "spare");
}

#[test]
fn an_async_group_acknowledges_by_the_master_alone() {
    let asynchronous = |change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            s.policy.durability = Durability::Async;
            mine(s, |st| st.need = false);
            change(s);
        }
    };
    row("nothing waits", "a", asynchronous(|_| {}), "wait", "serving");
    row("need is lowered", "a", asynchronous(|s| mine(s, |st| st.need = true)), "need-not", "aligning");
    row("the guard stands", "a", asynchronous(|s| mine(s, |st| st.guard = false)), "guard", "aligning");
    let lost = asynchronous(|s| peer(s, "b").beat.engine = Engine::Down { why: "x".into() });
    row("a lost hot replica is dropped at once", "a", lost, "submit", "dropping");
    let dead = |s: &mut Snapshot| {
        peer(s, "a").beat.engine = Engine::Up(Box::new(Status { incarnation: "run-a2".into(), ..master_status() }));
        read_since(s);
        mine(s, |st| st.role = EngineRole::Sealed);
        s.sealed_since = Some(NOW);
    };
    row("known dead: at once", "b", asynchronous(dead), "submit", "taking_over");
    let silent = |s: &mut Snapshot| {
        silence_of_master(s, 5_000);
        read_since(s);
        mine(s, |st| st.role = EngineRole::Sealed);
        s.sealed_since = Some(Millis(NOW.0 - 3_999));
    };
    row("suspected: not before its guard has closed", "b", asynchronous(silent), "wait", "guard_closing");
    let closed = asynchronous(silent);
    let closed = move |s: &mut Snapshot| {
        closed(s);
        s.sealed_since = Some(Millis(NOW.0 - 4_000));
    };
    row("then", "b", closed, "submit", "taking_over");
    let behind = asynchronous(|s| {
        let known = &mut peer(s, "a").mastered;
        *known = known.take().map(|(lineage, _)| (lineage, Position(9_000_000)));
        silence_of_master(s, 5_000);
    });
    row("too far behind", "b", behind, "wait", "not_promotable");
    let exited = asynchronous(dead);
    let exited = move |s: &mut Snapshot| {
        exited(s);
        peer(s, "a").beat.engine = Engine::Down { why: "killed".into() };
    };
    row("known dead, and not started again yet", "b", exited, "submit", "taking_over");
    let unheard = asynchronous(dead);
    let unheard = move |s: &mut Snapshot| {
        unheard(s);
        peer(s, "a").mastered = None;
    };
    row("nobody knows how far behind", "b", unheard, "wait", "not_promotable");
}

#[test]
fn a_master_whose_disk_fails_hands_over() {
    let failing = |s: &mut Snapshot| mine(s, |st| st.disk_ok = false);
    row("to a hot replica whose disk works", "a", failing, "submit", "disk_failed");
    let both = move |s: &mut Snapshot| {
        failing(s);
        theirs(s, "b", |st| st.disk_ok = false);
    };
    row("a hot replica with a failing disk is let go", "a", both, "fsync-always", "dropping");
    let again = move |s: &mut Snapshot| {
        failing(s);
        s.phase_since = Millis(NOW.0 - 1_000);
    };
    row("not again and again", "a", again, "wait", "serving");
    let paused = move |s: &mut Snapshot| {
        failing(s);
        s.policy.paused = true;
    };
    row("not while paused", "a", paused, "wait", "serving");
    let held = |s: &mut Snapshot| {
        recorded(s, |r| {
            r.phase = Phase::Switching;
            r.switchover = Some(SwitchoverRef { id: String::new(), target: "b".into(), grace_ms: None });
        });
        peer(s, "a").beat.quiesced_at = Some(Position(1_000));
        let stamp = s.view.record.as_ref().expect("a record").stamp();
        peer(s, "a").beat.stamp = stamp;
    };
    row("the hot replica takes it", "b", held, "read", "rereading");
    let candidate = |s: &mut Snapshot| {
        certifying(s);
        theirs(s, "c", |st| st.disk_ok = false);
    };
    row("no copy with a failing disk is certified", "a", candidate, "abandon", "abandoning");
}

#[test]
fn a_returning_master_keeps_what_nobody_else_may_have() {
    let back = |s: &mut Snapshot| {
        s.memory.mastered = Some((3, "run-c0".into()));
        mine(s, |st| {
            st.role = EngineRole::Sealed;
            st.marker = Some(marker(3, "older"));
        });
    };
    row("restarted since", "c", back, "keep", "keeping");
    let kept = move |s: &mut Snapshot| {
        back(s);
        mine(s, |st| st.kept = Some(3));
    };
    row("once", "c", kept, "wait", "waiting_for_offer");
    let unbroken = move |s: &mut Snapshot| {
        back(s);
        s.memory.mastered = Some((3, "run-c".into()));
    };
    row("the same run: positions tell", "c", unbroken, "wait", "waiting_for_offer");
    let copied = move |s: &mut Snapshot| {
        back(s);
        mine(s, |st| st.marker = Some(marker(4, "cert")));
    };
    row("its data are another's already", "c", copied, "wait", "waiting_for_offer");
}

/// Whom a master without a hot replica nominates.
fn nominated(change: impl FnOnce(&mut Snapshot)) -> String {
    let mut s = world("a");
    alone(&mut s);
    change(&mut s);
    match decide(&s).action {
        Action::Nominate { candidate, .. } => candidate.0,
        other => panic!("nominates nobody: {}", other.name()),
    }
}

#[test]
fn the_best_copy_is_chosen() {
    assert_eq!(nominated(|s| mine(s, |st| st.replicas = vec![attached("c", 990)])), "c", "one that is attached");
    assert_eq!(nominated(|s| theirs(s, "b", |st| st.lineage = "other".into())), "c", "one of this history");
    assert_eq!(nominated(|s| theirs(s, "b", |st| st.loading = true)), "c", "one that is whole");
    let zones = |s: &mut Snapshot| {
        s.me.zone = Some("x".into());
        peer(s, "b").beat.zone = Some("x".into());
        peer(s, "c").beat.zone = Some("y".into());
    };
    assert_eq!(nominated(zones), "c", "one in another zone");
    assert_eq!(nominated(|s| peer(s, "c").beat.priority = 200), "c", "one that is preferred");
    assert_eq!(nominated(|s| theirs(s, "c", |st| st.position = Position(1_500))), "c", "one that is further");
    assert_eq!(nominated(|s| peer(s, "b").beat.priority = 0), "c", "never one of priority 0");
    assert_eq!(nominated(|s| peer(s, "b").heard = Millis(NOW.0 - 1_000)), "c", "one that is heard");
    assert_eq!(nominated(|s| requested(s, Some("c"))), "c", "the one an operator asks for");
    assert_eq!(nominated(|_| {}), "b", "else the first by name");
}

/// The policy promises both disks, and the record has come so far.
fn durable(s: &mut Snapshot, asked: bool, proven: bool) {
    s.policy.fsync = true;
    recorded(s, |r| {
        r.fsync = asked;
        r.replica.as_mut().expect("a hot replica").certificate.fsync = proven;
    });
    let stamp = s.view.record.as_ref().expect("a record").stamp();
    for peer in s.peers.values_mut() {
        peer.beat.stamp = stamp;
    }
}

#[test]
fn both_disks_are_promised_only_when_both_hold_every_write() {
    let asked = |s: &mut Snapshot| durable(s, false, false);
    row("the master's own disk first", "a", asked, "fsync-always", "aligning");
    row("nobody else moves before the record asks", "b", asked, "wait", "understudying");
    let ready = move |s: &mut Snapshot| (asked(s), mine(s, |st| st.fsync = true)).0;
    row("then the record asks every node", "a", ready, "submit", "agreeing_on_disks");
    row("not while Consul is away", "a", |s| (ready(s), s.view.reachable = false).0, "wait", "serving");
    let both = |s: &mut Snapshot| {
        durable(s, true, false);
        mine(s, |st| st.fsync = true);
    };
    let told = |s: &mut Snapshot| durable(s, true, false);
    row("the hot replica does it", "b", told, "fsync-always", "understudying");
    row("a spare does it", "c", told, "fsync-always", "spare");
    row("not in the middle of a copy", "c", |s| (told(s), mine(s, |st| st.persisted = false)).0, "wait", "spare");
    row("nothing is proven yet", "a", both, "wait", "serving");
    let proven = move |s: &mut Snapshot| {
        both(s);
        theirs(s, "b", |st| st.fsync = true);
    };
    row("both do: the certificate says so", "a", proven, "submit", "agreeing_on_disks");
    let but = move |change: fn(&mut Snapshot)| move |s: &mut Snapshot| (proven(s), change(s)).0;
    row("not on a word under an older record", "a", but(|s| peer(s, "b").beat.stamp.seq -= 1), "wait", "serving");
    row("not on an older data set", "a", but(|s| theirs(s, "b", |st| st.persisted = false)), "wait", "serving");
    let group = but(|s| s.policy.durability = Durability::Async);
    row("not where the master acknowledges alone", "a", group, "need-not", "aligning");

    let done = |s: &mut Snapshot| {
        durable(s, true, true);
        mine(s, |st| st.fsync = true);
    };
    row("so it stays: the master", "a", done, "wait", "serving");
    row("and the hot replica", "b", done, "wait", "understudying");
    let less = move |s: &mut Snapshot| (done(s), s.policy.fsync = false).0;
    row("less is promised first", "a", less, "submit", "agreeing_on_disks");
    row("and until then no disk lags", "b", less, "wait", "understudying");
    let over = move |s: &mut Snapshot| {
        durable(s, false, false);
        s.policy.fsync = false;
        mine(s, |st| st.fsync = true);
    };
    row("then the disks may: the master's", "a", over, "fsync-configured", "aligning");
    row("and the hot replica's", "b", over, "fsync-configured", "understudying");
}

#[test]
fn with_fsync_either_disk_is_enough() {
    let restarted = |me: &'static str, proven: bool, change: fn(&mut Snapshot)| {
        move |s: &mut Snapshot| {
            durable(s, true, proven);
            both_restarted(s, me, 41, 41);
            mine(s, |st| st.fsync = true);
            s.peers.iter_mut().filter(|(id, _)| id.as_str() != "c").for_each(|(_, p)| p.heard = Millis(NOW.0 - 60_000));
            if me == "b" {
                silence_of_master(s, 60_000);
            }
            change(s);
        }
    };
    row("the hot replica goes on alone", "b", restarted("b", true, |_| {}), "submit", "resuming");
    row("the master goes on alone", "a", restarted("a", true, |_| {}), "submit", "resuming");
    row("not before both disks were proven", "a", restarted("a", false, |_| {}), "wait", "waiting_for_other");
    row("nor the hot replica", "b", restarted("b", false, |_| {}), "wait", "waiting_for_other");
    let older = |s: &mut Snapshot| mine(s, |st| st.marker = Some(marker(4, "older-cert")));
    row("not from an older data set", "b", restarted("b", true, older), "wait", "waiting_for_other");
    let alone = |s: &mut Snapshot| s.policy.durability = Durability::Async;
    row("not where the master acknowledged alone", "b", restarted("b", true, alone), "wait", "waiting_for_other");
    let unbroken = |s: &mut Snapshot| {
        peer(s, "b").heard = NOW;
        theirs(s, "b", |st| st.incarnation = "run-b".into());
    };
    row("an unbroken hot replica acts at once", "a", restarted("a", true, unbroken), "wait", "handing_over");
}
