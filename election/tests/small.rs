//! The exhaustive small model: every combination of a snapshot's few-valued fields through `decide`. Whatever the
//! combination, reachable or not, it panics nowhere, breaks no invariant, and decides the same twice.
#![allow(dead_code, reason = "the world's helpers serve several tests")]
#![allow(clippy::expect_used, reason = "a panic is a failed test")]

mod world;

use election::decision::Action;
use election::*;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{NOW, attached, follows, marker, master_status, peer, replica_status, spare_status, world};

/// One field: its name and a setter for each of its values.
type Setter = fn(&mut Snapshot);
type Field = &'static [Setter];

/// The fields that cost a copy each, outermost.
const OUTER: [Field; 4] = [ROLES, PHASES, ENGINES, PEERS];

/// Set in place.
const INNER: [Field; 7] = [STATUS, CONSUL, LEADER, WRITING, MEMORY, POLICY, REQUESTS];

/// Whether the record names me, and as what. `me` is `c` in the ordinary world, and takes the other's place.
const ROLES: Field = &[
    |_| {},
    |s| named(s, |r, me| r.replica.as_mut().expect("named").id = me),
    |s| {
        named(s, |r, me| {
            let master = r.master.as_mut().expect("named");
            (master.id, master.incarnation) = (me, "run-c".into());
        });
    },
    |s| {
        named(s, |r, me| {
            let master = r.master.as_mut().expect("named");
            (master.id, master.incarnation, r.replica) = (me, "run-c".into(), None);
        });
    },
    |s| (s.view.record, s.view.index) = (None, 0),
];

const PHASES: Field = &[
    |s| phase(s, Phase::Active),
    |s| phase(s, Phase::Promoting),
    |s| phase(s, Phase::Switching),
    |s| phase(s, Phase::Bootstrapping),
    |s| phase(s, Phase::Halted),
];

const ENGINES: Field = &[
    |s| up(s, spare_status()),
    |s| up(s, Status { role: EngineRole::Sealed, ..spare_status() }),
    |s| up(s, Status { incarnation: "run-c".into(), ..master_status() }),
    |s| up(s, Status { role: follows("a"), ..replica_status() }),
    |s| {
        up(
            s,
            Status {
                role: EngineRole::Sealed,
                incarnation: "run-c2".into(),
                lineage: "other".into(),
                ..spare_status()
            },
        )
    },
    |s| s.engine = Engine::Unknown,
    |s| s.engine = Engine::Down { why: "killed".into() },
    |s| s.engine = Engine::Silent { since: Millis(NOW.0 - 60_000), incarnation: Some("run-c".into()) },
];

/// What is heard of the two others.
const PEERS: Field = &[
    |_| {},
    |s| peer(s, "a").beat.engine = Engine::Down { why: "killed".into() },
    |s| peer(s, "b").beat.engine = Engine::Down { why: "killed".into() },
    |s| ["a", "b"].iter().for_each(|id| peer(s, id).heard = Millis(NOW.0 - 60_000)),
    |s| {
        world::silence_of_master(s, 60_000);
        world::read_since(s);
    },
];

/// Each sets all of it: what the one before has set is gone.
const STATUS: Field = &[
    |s| settings(s, (false, true, true), Some(marker(4, "cert"))),
    |s| settings(s, (true, false, true), Some(marker(4, "cert"))),
    |s| settings(s, (true, false, false), Some(marker(4, "cert"))),
    |s| settings(s, (false, true, true), None),
    |s| settings(s, (true, true, true), Some(marker(3, "older"))),
    |s| {
        settings(s, (false, true, true), Some(marker(4, "cert")));
        status(s, |st| st.loading = true);
    },
    |s| {
        settings(s, (false, true, true), Some(marker(4, "cert")));
        status(s, |st| st.replicas = vec![attached("a", 900), attached("b", 900)]);
    },
];

const CONSUL: Field = &[
    |s| (s.view.reachable, s.view.session) = (true, Some("session-c".into())),
    |s| (s.view.reachable, s.view.session) = (true, None),
    |s| (s.view.reachable, s.view.session) = (false, Some("session-c".into())),
];

const LEADER: Field = &[
    |s| s.view.leader = Some("session-c".into()),
    |s| s.view.leader = Some("session-a".into()),
    |s| s.view.leader = None,
];

const WRITING: Field = &[
    |s| (s.writing, s.settled) = (Writing::Settled, true),
    |s| (s.writing, s.settled) = (Writing::Settled, false),
    |s| (s.writing, s.settled) = (Writing::Unknown { index: s.view.index }, true),
];

const MEMORY: Field =
    &[|s| remembers(s, 0), |s| remembers(s, -1), |s| remembers(s, 1), |s| s.memory = Memory::default()];

const POLICY: Field = &[
    |s| (s.policy.durability, s.policy.without_replica) = (Durability::Sync, WithoutReplica::Continue),
    |s| s.policy.without_replica = WithoutReplica::Block,
    |s| s.policy.durability = Durability::Async,
];

const REQUESTS: Field = &[
    |s| (s.view.command, s.policy.paused) = (None, false),
    |s| s.policy.paused = true,
    |s| request(s, CommandOp::Switchover),
    |s| request(s, CommandOp::Failover),
    |s| request(s, CommandOp::Reinit),
    |s| request(s, CommandOp::Drain),
];

fn named(s: &mut Snapshot, change: impl FnOnce(&mut Record, NodeId)) {
    let me = s.me.id.clone();
    change(s.view.record.as_mut().expect("a record"), me);
}

fn phase(s: &mut Snapshot, phase: Phase) {
    if let Some(record) = &mut s.view.record {
        record.phase = phase;
    }
}

fn up(s: &mut Snapshot, status: Status) {
    s.engine = Engine::Up(Box::new(status));
}

fn status(s: &mut Snapshot, change: impl FnOnce(&mut Status)) {
    if let Engine::Up(status) = &mut s.engine {
        change(status);
    }
}

fn settings(s: &mut Snapshot, (fsync, guard, need): (bool, bool, bool), marker: Option<Marker>) {
    status(s, |st| {
        (st.fsync, st.guard, st.need, st.open) = (fsync, guard, need, !need);
        (st.marker, st.loading, st.replicas) = (marker, false, vec![attached("b", 990)]);
    });
}

fn remembers(s: &mut Snapshot, more: i64) {
    let stamp = s.view.record.as_ref().map(Record::stamp).unwrap_or_default();
    s.memory.stamp = Stamp { seq: stamp.seq.saturating_add_signed(more), ..stamp };
    s.memory.uid.get_or_insert_with(|| "uid".to_owned());
}

fn request(s: &mut Snapshot, op: CommandOp) {
    let (id, by, target) = ("id".to_owned(), "test".to_owned(), Some(s.me.id.clone()));
    let expect_epoch = s.view.record.as_ref().map_or(0, |r| r.epoch);
    s.policy.paused = false;
    s.view.command = Some((Command { id, op, target, expect_epoch, expires_at: s.wall + 1, by, grace_ms: None }, 9));
}

/// What was decided how often.
#[derive(Default)]
struct Counts {
    all: AtomicU64,
    acts: AtomicU64,
    submits: AtomicU64,
}

fn every(s: &mut Snapshot, fields: &[Field], counts: &Counts) {
    let Some((first, rest)) = fields.split_first() else { return one(s, counts) };
    for set in *first {
        set(s);
        every(s, rest, counts);
    }
}

fn one(s: &Snapshot, counts: &Counts) {
    let decision = decide(s);
    if let Err(violation) = invariants::check(s, &decision.action) {
        panic!("{violation} ({}) in {s:?}", decision.reason);
    }
    counts.all.fetch_add(1, Ordering::Relaxed);
    match decision.action {
        Action::Wait => {}
        Action::Submit(_) => drop(counts.submits.fetch_add(1, Ordering::Relaxed)),
        _ => drop(counts.acts.fetch_add(1, Ordering::Relaxed)),
    }
}

#[test]
fn no_combination_panics_or_breaks_an_invariant() {
    let counts = Counts::default();
    let [roles, phases, engines, peers] = OUTER;
    std::thread::scope(|scope| {
        for role in roles {
            let counts = &counts;
            scope.spawn(move || {
                for (phase, engine) in phases.iter().flat_map(|p| engines.iter().map(move |e| (p, e))) {
                    for heard in peers {
                        let mut s = world("c");
                        [role, phase, engine, heard].iter().for_each(|set| set(&mut s));
                        every(&mut s, &INNER, counts);
                    }
                }
            });
        }
    });
    let [all, acts, submits] = [&counts.all, &counts.acts, &counts.submits].map(|c| c.load(Ordering::Relaxed));
    println!("{all} snapshots: {submits} lead to a transaction, {acts} to another action");
    let expected = OUTER.iter().chain(&INNER).map(|field| field.len() as u64).product::<u64>();
    assert_eq!(all, expected);
    assert!(submits > all / 100 && acts > all / 20, "{submits} transactions and {acts} other actions of {all}");
}
