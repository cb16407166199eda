//! From what Consul says of a group to where its clients go: pure, and never backwards.

use config::Engine;
use election::{Incarnation, Member, NodeId, Nonce, Phase, Record, Stamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Where one group's clients go. Its JSON is the one of `/routes`, to which the page adds the group's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupRoute {
    /// The number of the mastership.
    pub epoch: u64,
    /// How far it has come.
    pub phase: Phase,
    /// The master, while its epoch is open to clients.
    pub master: Option<MasterRoute>,
    /// The hot replica, then the spares by name.
    pub replicas: Vec<ReplicaRoute>,
}

/// A database that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    /// Its node.
    pub id: NodeId,
    /// Host name or IP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.id, self.address, self.port)
    }
}

/// The master, while its epoch is open to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MasterRoute {
    /// Where it listens.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// The process that the record names; another one at this address is not the master.
    #[serde(skip)]
    pub incarnation: Incarnation,
    /// How many databases clients have, as far as its agent has said.
    #[serde(skip)]
    pub databases: Option<u32>,
    /// `host:port` of its agent, where that is asked what the server is.
    #[serde(skip)]
    pub asked: Option<String>,
}

impl MasterRoute {
    /// What the agent said stays true while its process lives, also when the agent has gone from Consul for a while.
    fn remember(&mut self, before: &Self) {
        if self.endpoint == before.endpoint && self.incarnation == before.incarnation {
            self.databases = self.databases.or(before.databases);
            self.asked = self.asked.take().or_else(|| before.asked.clone());
        }
    }
}

/// An instance that is not the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaRoute {
    /// Where it listens.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// `host:port` of its agent, which knows how far it lags.
    #[serde(skip)]
    pub agent: String,
    /// The same, where it is asked what the server is.
    #[serde(skip)]
    pub asked: Option<String>,
    /// How many databases clients have, as far as its agent has said.
    #[serde(skip)]
    pub databases: Option<u32>,
}

/// What the proxy holds to be true of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The group's identity.
    pub uid: String,
    /// The age of the record.
    pub stamp: Stamp,
    /// Two records of one age are one record only if this is equal.
    pub nonce: Nonce,
    /// What follows for clients.
    pub route: GroupRoute,
}

/// Why what Consul says was not adopted. The last known route stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There has never been a record: the group is not bootstrapped, or its name is wrong.
    #[error("Consul has no record of this group yet")]
    NoRecord,
    /// There was one.
    #[error("the record has vanished from Consul: the route of record {known} stays")]
    Vanished {
        /// The age of the one that is kept.
        known: Stamp,
    },
    /// It is older than the one known: Consul was restored from a snapshot, or answers from the past.
    #[error("the record in Consul ({seen}) is older than the one known: the route of record {known} stays")]
    WentBack {
        /// What Consul shows.
        seen: Stamp,
        /// What is kept.
        known: Stamp,
    },
    /// Two records of one age: one of them was written after Consul had lost the other.
    #[error("the record in Consul is another one of the same age ({known}): the route known first stays")]
    Forked {
        /// Their common age.
        known: Stamp,
    },
    /// It belongs to another group of the same name.
    #[error(
        "the record in Consul belongs to another group (uid {theirs}, known is {ours}): the last route stays; restart the proxy if that is meant"
    )]
    OtherGroup {
        /// The one known.
        ours: String,
        /// The record's.
        theirs: String,
    },
    /// There is one, and it cannot be read.
    #[error("the record in Consul cannot be used ({why}): the last known route stays")]
    Faulty {
        /// What is wrong with it.
        why: String,
    },
}

/// What Consul says of a group, as far as routes depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The record.
    pub record: Option<&'a Record>,
    /// Why the record that is there cannot be used.
    pub fault: Option<&'a str>,
    /// The living nodes.
    pub members: &'a BTreeMap<NodeId, Member>,
}

/// Takes in what Consul says, unless that would lead backwards.
///
/// # Errors
/// A [`Refusal`] says why `known` stays as it is.
pub fn adopt(known: Option<&Known>, seen: Seen<'_>) -> Result<Known, Refusal> {
    if let Some(why) = seen.fault {
        return Err(Refusal::Faulty { why: why.to_owned() });
    }
    let record = match (seen.record, known) {
        (Some(record), _) => record,
        (None, None) => return Err(Refusal::NoRecord),
        (None, Some(known)) => return Err(Refusal::Vanished { known: known.stamp }),
    };
    if let Some(known) = known {
        refuse_backwards(known, record)?;
    }
    let mut route = route(record, seen.members);
    if let (Some(master), Some(before)) = (&mut route.master, known.and_then(|k| k.route.master.as_ref())) {
        master.remember(before);
    }
    Ok(Known { uid: record.uid.clone(), stamp: record.stamp(), nonce: record.nonce.clone(), route })
}

fn refuse_backwards(known: &Known, record: &Record) -> Result<(), Refusal> {
    if record.uid != known.uid {
        return Err(Refusal::OtherGroup { ours: known.uid.clone(), theirs: record.uid.clone() });
    }
    let seen = record.stamp();
    // Seq grows with every write in every epoch, so a higher epoch with a lower seq is no successor either.
    if seen.epoch < known.stamp.epoch || seen.seq < known.stamp.seq {
        return Err(Refusal::WentBack { seen, known: known.stamp });
    }
    if seen == known.stamp && record.nonce != known.nonce {
        return Err(Refusal::Forked { known: known.stamp });
    }
    Ok(())
}

fn route(record: &Record, members: &BTreeMap<NodeId, Member>) -> GroupRoute {
    let mut replicas: Vec<&Member> = members.values().filter(|m| !record.is_master(&m.id)).collect();
    // The sort is stable: the hot replica first, the spares stay in the order of their names.
    replicas.sort_by_key(|m| !record.is_replica(&m.id));
    GroupRoute {
        epoch: record.epoch,
        phase: record.phase,
        master: open_master(record, members),
        replicas: replicas
            .into_iter()
            .map(|m| ReplicaRoute {
                endpoint: Endpoint { id: m.id.clone(), address: m.address.clone(), port: m.port },
                agent: m.agent.clone(),
                asked: asked(m),
                databases: m.databases,
            })
            .collect(),
    }
}

/// The master, if clients of its epoch may be connected to it.
fn open_master(record: &Record, members: &BTreeMap<NodeId, Member>) -> Option<MasterRoute> {
    let open = match record.phase {
        Phase::Active | Phase::Switching => true,
        // Roles stay and the master goes on serving, if its epoch had ever opened.
        Phase::Quarantine => record.epoch == record.active_epoch,
        Phase::Bootstrapping | Phase::Promoting | Phase::Halted => false,
    };
    let master = record.master.as_ref().filter(|_| open)?;
    Some(MasterRoute {
        endpoint: Endpoint { id: master.id.clone(), address: master.address.clone(), port: master.port },
        incarnation: master.incarnation.clone(),
        databases: members.get(&master.id).and_then(|member| member.databases),
        asked: members.get(&master.id).and_then(asked),
    })
}

/// The agents of SQL servers say what their server is. A Redis is asked by whom understands it, on its own connection.
fn asked(member: &Member) -> Option<String> {
    let speaks_sql = [Engine::Postgres, Engine::Mariadb].iter().any(|engine| engine.as_str() == member.engine);
    speaks_sql.then(|| member.agent.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::documents::{RECORD_VERSION, Writer};
    use election::{Certificate, Incarnation, Lineage, Master, Position, Replica, Role};

    /// The ordinary world: db1 is master in epoch 7, db2 its hot replica, db0 and db3 are spares.
    fn world() -> (Record, BTreeMap<NodeId, Member>) {
        let record = Record {
            v: RECORD_VERSION,
            group: "g".into(),
            uid: "uid-1".into(),
            epoch: 7,
            active_epoch: 7,
            seq: 40,
            nonce: "n40".into(),
            writer: Writer::default(),
            phase: Phase::Active,
            master: Some(Master { id: "db1".into(), address: "10.0.0.1".into(), port: 6379, incarnation: "r1".into() }),
            replica: Some(Replica {
                id: "db2".into(),
                complete: true,
                certificate: Certificate {
                    nonce: "c".into(),
                    incarnation: Incarnation::from("r2"),
                    lineage: Lineage::from("l"),
                    position: Position(1),
                    fsync: false,
                },
            }),
            previous: None,
            fsync: false,
            switchover: None,
        };
        let members = ["db0", "db1", "db2", "db3"].into_iter().map(|id| (NodeId::from(id), member(id))).collect();
        (record, members)
    }

    fn member(id: &str) -> Member {
        Member {
            id: id.into(),
            address: format!("{id}.example"),
            port: 6379,
            agent: format!("{id}.example:7400"),
            engine: "redis".into(),
            version: String::new(),
            databases: Some(16),
            zone: None,
            role: Role::Spare,
            incarnation: None,
            priority: 100,
            adopt: false,
            uid: None,
            boot: "b".into(),
        }
    }

    fn first(record: &Record, members: &BTreeMap<NodeId, Member>) -> Known {
        adopt(None, Seen { record: Some(record), fault: None, members }).expect("a first record is adopted")
    }

    fn adopted(change: impl Fn(&mut Record)) -> GroupRoute {
        let (mut record, members) = world();
        change(&mut record);
        first(&record, &members).route
    }

    /// The ordinary world is known; then Consul shows it changed.
    fn then(change: impl Fn(&mut Record)) -> Result<Known, Refusal> {
        let (mut record, members) = world();
        let known = first(&record, &members);
        change(&mut record);
        adopt(Some(&known), Seen { record: Some(&record), fault: None, members: &members })
    }

    #[test]
    fn the_master_is_routed_to_only_while_its_epoch_is_open() {
        let rows: [(Phase, u64, bool); 7] = [
            (Phase::Active, 7, true),
            (Phase::Switching, 7, true),
            (Phase::Quarantine, 7, true),
            (Phase::Quarantine, 6, false),
            (Phase::Promoting, 6, false),
            (Phase::Bootstrapping, 0, false),
            (Phase::Halted, 7, false),
        ];
        for (phase, active_epoch, open) in rows {
            let route = adopted(|r| {
                r.phase = phase;
                r.active_epoch = active_epoch;
            });
            assert_eq!(route.master.is_some(), open, "{phase:?} with active epoch {active_epoch}");
            assert_eq!((route.epoch, route.phase), (7, phase));
        }
    }

    #[test]
    fn replicas_are_all_members_but_the_master_hot_one_first() {
        let ids = |route: GroupRoute| route.replicas.into_iter().map(|r| r.endpoint.id.0).collect::<Vec<_>>();
        assert_eq!(ids(adopted(|_| ())), ["db2", "db0", "db3"]);
        assert_eq!(ids(adopted(|r| r.replica = None)), ["db0", "db2", "db3"]);
        // While db2 is being promoted it is no replica any more.
        let promoting = |r: &mut Record| {
            r.phase = Phase::Promoting;
            r.master.as_mut().expect("the world has a master").id = "db2".into();
            r.replica = None;
        };
        assert_eq!(ids(adopted(promoting)), ["db0", "db1", "db3"]);
    }

    #[test]
    fn a_newer_record_is_adopted_and_an_older_one_never() {
        let stamp = |epoch, seq| Stamp { epoch, seq };
        let known = stamp(7, 40);
        let rows = [
            (7, 40, Ok(stamp(7, 40))),
            (7, 41, Ok(stamp(7, 41))),
            (8, 41, Ok(stamp(8, 41))),
            (7, 39, Err(Refusal::WentBack { seen: stamp(7, 39), known })),
            (6, 99, Err(Refusal::WentBack { seen: stamp(6, 99), known })),
            (8, 39, Err(Refusal::WentBack { seen: stamp(8, 39), known })),
        ];
        for (epoch, seq, want) in rows {
            let got = then(|r| {
                r.epoch = epoch;
                r.seq = seq;
            });
            assert_eq!(got.map(|k| k.stamp), want, "{epoch}/{seq}");
        }
    }

    #[test]
    fn what_cannot_be_the_same_record_is_refused() {
        let known = Stamp { epoch: 7, seq: 40 };
        let other = Refusal::OtherGroup { ours: "uid-1".into(), theirs: "uid-2".into() };
        assert_eq!(then(|r| r.nonce = "other".into()), Err(Refusal::Forked { known }));
        assert_eq!(then(|r| (r.uid, r.epoch, r.seq) = ("uid-2".into(), 99, 99)), Err(other));
    }

    #[test]
    fn no_record_has_three_meanings() {
        let (record, members) = world();
        let known = first(&record, &members);
        let nothing = Seen { record: None, fault: None, members: &members };
        assert_eq!(adopt(None, nothing), Err(Refusal::NoRecord));
        assert_eq!(adopt(Some(&known), nothing), Err(Refusal::Vanished { known: known.stamp }));
        let broken = Seen { fault: Some("form 99"), ..nothing };
        assert_eq!(adopt(Some(&known), broken), Err(Refusal::Faulty { why: "form 99".into() }));
    }

    #[test]
    fn a_route_is_written_as_the_contract_says() {
        let (record, mut members) = world();
        members.retain(|id, _| id.as_str() == "db2");
        let route = first(&record, &members).route;
        let want = serde_json::json!({
            "epoch": 7, "phase": "active",
            "master": { "id": "db1", "address": "10.0.0.1", "port": 6379 },
            "replicas": [{ "id": "db2", "address": "db2.example", "port": 6379 }],
        });
        assert_eq!(serde_json::to_value(&route).expect("routes are JSON"), want);
    }
}
