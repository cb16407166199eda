//! From a group's route and policy to where a redis listener's requests go: pure.

use super::mux::{Acks, Destination, Heading};
use crate::routes::{Known, ReplicaRoute};
use election::{NodeId, Phase, Policy, Stamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the workers of a redis listener obey. Always the whole of it, never a change to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Course {
    /// The record it was derived from; none before there was one.
    pub(crate) stamp: Option<Stamp>,
    /// Where requests go.
    pub(crate) heading: Heading,
}

impl Course {
    /// For clients of the master.
    pub(crate) fn master(known: &Known, policy: &Policy) -> Self {
        let to = known.route.master.iter().map(|master| Destination {
            endpoint: Arc::new(master.endpoint.clone()),
            incarnation: Some(master.incarnation.clone()),
            databases: master.databases,
        });
        let acks =
            if policy.is_sync() { Acks::Replica { reads: policy.reads, fsync: policy.fsync } } else { Acks::Master };
        let held = known.route.phase == Phase::Switching;
        let heading = Heading { epoch: known.route.epoch, to: to.collect(), held, acks };
        Self { stamp: Some(known.stamp), heading }
    }

    /// For clients of the replicas, when the agents of `within_lag` vouch for theirs.
    pub(crate) fn replicas(known: &Known, within_lag: &BTreeSet<NodeId>) -> Self {
        let vouched = known.route.replicas.iter().filter(|replica| within_lag.contains(&replica.endpoint.id));
        let to = vouched.map(|ReplicaRoute { endpoint, databases, .. }| Destination {
            endpoint: Arc::new(endpoint.clone()),
            incarnation: None,
            databases: *databases,
        });
        let heading = Heading { epoch: known.route.epoch, to: to.collect(), held: false, acks: Acks::Master };
        Self { stamp: Some(known.stamp), heading }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, GroupRoute, MasterRoute};
    use election::{Durability, Reads};

    fn endpoint(id: &str) -> Endpoint {
        Endpoint { id: id.into(), address: "127.0.0.1".into(), port: 1 }
    }

    fn known(phase: Phase, open: bool) -> Known {
        let master =
            MasterRoute { endpoint: endpoint("a"), incarnation: "run".into(), databases: Some(16), asked: None };
        let replica =
            |id| ReplicaRoute { endpoint: endpoint(id), agent: String::new(), asked: None, databases: Some(16) };
        let replicas = ["b", "c"].map(replica).into();
        let route = GroupRoute { epoch: 4, phase, master: open.then_some(master), replicas };
        Known { uid: "uid".into(), stamp: Stamp { epoch: 4, seq: 40 }, nonce: "n".into(), route }
    }

    #[test]
    fn a_master_is_headed_for_while_it_is_open_and_held_while_the_roles_change() {
        for (phase, open, held) in
            [(Phase::Active, true, false), (Phase::Switching, true, true), (Phase::Promoting, false, false)]
        {
            let course = Course::master(&known(phase, open), &Policy::default());
            assert_eq!((course.heading.to.len(), course.heading.held), (usize::from(open), held), "{phase:?}");
            assert_eq!((course.stamp, course.heading.epoch), (Some(Stamp { epoch: 4, seq: 40 }), 4));
        }
        let to = Course::master(&known(Phase::Active, true), &Policy::default()).heading.to;
        assert_eq!((&to[0].incarnation, to[0].databases), (&Some("run".into()), Some(16)));
    }

    #[test]
    fn the_policy_says_what_an_acknowledgement_waits_for() {
        let acks = |policy: &Policy| Course::master(&known(Phase::Active, true), policy).heading.acks;
        assert_eq!(acks(&Policy::default()), Acks::Replica { reads: Reads::Local, fsync: false });
        let strict = Policy { reads: Reads::Durable, fsync: true, ..Policy::default() };
        assert_eq!(acks(&strict), Acks::Replica { reads: Reads::Durable, fsync: true });
        assert_eq!(acks(&Policy { durability: Durability::Async, ..strict }), Acks::Master);
        assert_eq!(Course::default().heading.acks, Acks::Replica { reads: Reads::Local, fsync: false });
    }

    #[test]
    fn readers_go_to_those_that_are_vouched_for() {
        let within = BTreeSet::from(["c".into(), "elsewhere".into()]);
        let heading = Course::replicas(&known(Phase::Promoting, false), &within).heading;
        let ids: Vec<_> = heading.to.iter().map(|to| to.endpoint.id.as_str()).collect();
        assert_eq!((ids, heading.held, heading.acks), (vec!["c"], false, Acks::Master));
    }
}
