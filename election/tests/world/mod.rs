//! The ordinary world, built with a helper so that each test changes one thing in it.
#![allow(clippy::expect_used, reason = "a helper of tests: a panic is a failed test")]

use election::*;
use std::collections::BTreeMap;

pub(crate) const NOW: Millis = Millis(1_000_000);
pub(crate) const LINEAGE: &str = "replid-1";

pub(crate) fn address(id: &str) -> Address {
    Address::new(format!("host-{id}"), 6379)
}

pub(crate) fn marker(epoch: u64, nonce: &str) -> Marker {
    Marker { uid: "uid".into(), epoch, nonce: nonce.into(), counter: 40 }
}

pub(crate) fn status(run: &str, role: EngineRole, position: u64) -> Status {
    Status {
        incarnation: run.into(),
        version: "7.0.15".into(),
        role,
        loading: false,
        empty: false,
        persisted: true,
        disk_ok: true,
        kept: None,
        lineage: LINEAGE.into(),
        position: Position(position),
        marker: Some(marker(4, "cert")),
        marked_at: None,
        open: false,
        guard: false,
        fsync: false,
        need: true,
        quiesced: false,
        channel: None,
        replicas: Vec::new(),
        shown: election::Shown::default(),
    }
}

pub(crate) fn follows(id: &str) -> EngineRole {
    EngineRole::Follows { source: address(id), link_up: true, syncing: false, channel: Some("cert".into()) }
}

pub(crate) fn attached(id: &str, position: u64) -> Attached {
    Attached { address: address(id), online: true, position: Position(position), lag_s: 0 }
}

/// The master `a` as it serves with its hot replica `b`.
pub(crate) fn master_status() -> Status {
    Status {
        open: true,
        guard: true,
        channel: Some("cert".into()),
        marked_at: Some(Position(900)),
        replicas: vec![attached("b", 1_000)],
        ..status("run-a", EngineRole::Master, 1_000)
    }
}

/// The hot replica `b`.
pub(crate) fn replica_status() -> Status {
    Status { channel: Some("chain".into()), ..status("run-b", follows("a"), 1_000) }
}

/// A spare `c` behind `b`.
pub(crate) fn spare_status() -> Status {
    status("run-c", follows("b"), 990)
}

pub(crate) fn record() -> Record {
    Record {
        v: 1,
        group: "g".into(),
        uid: "uid".into(),
        epoch: 4,
        active_epoch: 4,
        seq: 20,
        nonce: "n20".into(),
        writer: documents::Writer { node: "a".into(), boot: "boot-a".into() },
        phase: Phase::Active,
        master: Some(Master { id: "a".into(), address: "host-a".into(), port: 6379, incarnation: "run-a".into() }),
        replica: Some(Replica {
            id: "b".into(),
            complete: true,
            certificate: Certificate {
                nonce: "cert".into(),
                incarnation: "run-b".into(),
                lineage: LINEAGE.into(),
                position: Position(900),
                fsync: false,
            },
        }),
        fsync: false,
        previous: Some(Previous {
            epoch: 3,
            master: Some(Identity { id: "b".into(), incarnation: "run-b0".into() }),
            position: Some(Position(500)),
            reason: "master process died".into(),
            fsync: false,
            data_loss: None,
        }),
        switchover: None,
    }
}

pub(crate) fn beat(from: &str, engine: Engine) -> Beat {
    Beat {
        group: "g".into(),
        from: from.into(),
        boot: format!("boot-{from}"),
        sent: NOW,
        database: address(from),
        stamp: record().stamp(),
        engine,
        silent_ms: None,
        reached_master_ms: None,
        mastered: None,
        quiesced_at: None,
        offer: None,
        zone: None,
        priority: 100,
    }
}

/// The group of `a` (master), `b` (hot replica) and `c` (spare), all well, as `me` sees it.
pub(crate) fn world(me: &str) -> Snapshot {
    let all = [("a", master_status()), ("b", replica_status()), ("c", spare_status())];
    let own = all.iter().find(|(id, _)| *id == me).map(|(_, st)| st.clone()).expect("a, b or c");
    let peers: BTreeMap<NodeId, Peer> = all
        .iter()
        .filter(|(id, _)| *id != me)
        .map(|(id, st)| {
            let beat = beat(id, Engine::Up(Box::new(st.clone())));
            let mastered = st.is_master().then(|| (st.lineage.clone(), st.position));
            (NodeId::from(*id), Peer { beat, heard: NOW, refused_since: None, mastered, former_boot: None })
        })
        .collect();
    Snapshot {
        now: NOW,
        wall: 1_700_000_000_000,
        me: Me {
            id: me.into(),
            database: address(me),
            zone: None,
            priority: 100,
            adopt: false,
            boot: format!("boot-{me}"),
            group: "g".into(),
        },
        view: View {
            seen: true,
            reachable: true,
            record: Some(record()),
            index: 700,
            leader: Some("session-a".into()),
            session: Some(format!("session-{me}")),
            read_at: Some(Millis(NOW.0 - 5_000)),
            ..View::default()
        },
        policy: Policy::default(),
        engine: Engine::Up(Box::new(own)),
        peers,
        master_db: Contact { heard: Some(NOW), refused_since: None },
        witnesses: BTreeMap::new(),
        proxies: BTreeMap::new(),
        link_heard: Some(NOW),
        sealed_since: None,
        replica_acked: Some(NOW),
        epoch_since: Millis(NOW.0 - 600_000),
        phase_since: Millis(NOW.0 - 600_000),
        awake_since: Millis(NOW.0 - 600_000),
        newest: Stamp::default(),
        memory: Memory {
            uid: Some("uid".into()),
            stamp: record().stamp(),
            marker: Some((4, 37)),
            mastered: None,
            record: None,
        },
        writing: Writing::Settled,
        settled: true,
        certifying: None,
        taking: None,
        marked: Some(NOW),
        channel: Some(Secret::new("pw")),
        start_after: Millis::default(),
        duty: None,
        fresh: Fresh { nonce: "fresh".into(), secret: Secret::new("fresh-pw") },
    }
}

/// Changes the local database's answer.
pub(crate) fn mine(s: &mut Snapshot, change: impl FnOnce(&mut Status)) {
    let Engine::Up(status) = &mut s.engine else { panic!("it is up in the ordinary world") };
    change(status);
}

/// Changes a peer's database's answer.
pub(crate) fn theirs(s: &mut Snapshot, id: &str, change: impl FnOnce(&mut Status)) {
    let Engine::Up(status) = &mut peer(s, id).beat.engine else { panic!("it is up in the ordinary world") };
    change(status);
}

pub(crate) fn peer<'a>(s: &'a mut Snapshot, id: &str) -> &'a mut Peer {
    s.peers.get_mut(&NodeId::from(id)).expect("a peer of the ordinary world")
}

/// Changes the record in Consul; what is on this node's disk follows.
pub(crate) fn recorded(s: &mut Snapshot, change: impl FnOnce(&mut Record)) {
    let record = s.view.record.as_mut().expect("a record");
    change(record);
    s.memory.stamp = record.stamp();
}

/// Nothing was heard of `a` for `ms`.
pub(crate) fn silence_of_master(s: &mut Snapshot, ms: u64) {
    let then = Millis(NOW.0 - ms);
    peer(s, "a").heard = then;
    s.master_db.heard = Some(then);
    s.link_heard = Some(then);
}

/// The record was read from Consul after the takeover's evidence was seen.
pub(crate) fn read_since(s: &mut Snapshot) {
    s.taking = Some(Taking { since: Millis(NOW.0 - 10), evidence: vec![] });
    s.view.read_at = Some(Millis(NOW.0 - 5));
}

/// What `decide` says, after the invariants have agreed.
pub(crate) fn decided(s: &Snapshot) -> (String, String) {
    let decision = decide(s);
    if let Err(violation) = invariants::check(s, &decision.action) {
        panic!("{violation} ({})", decision.reason);
    }
    // An agent that is to look again in the past would never sleep.
    assert!(decision.revisit.is_none_or(|at| at > s.now), "at {:?} look again at {:?}", s.now, decision.revisit);
    (decision.action.name().to_owned(), decision.reason.code())
}
