//! What a listener's connections need to know: where new ones go, and which of the present ones may go on.

use crate::confirm::{Expected, Question};
use crate::routes::{Endpoint, GroupRoute, MasterRoute, ReplicaRoute};
use election::{NodeId, Phase};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where the connections of one role go. Always the whole of it, never a change to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// A connection belongs to one epoch of the master; one to a replica outlives it.
    pub(crate) epoch: Option<u64>,
    /// Where present connections may go on.
    pub(crate) keep: Vec<Arc<Endpoint>>,
    /// Where new ones are sent. While it is empty they are held.
    pub(crate) admit: Vec<Place>,
}

/// Somewhere for a new connection to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) endpoint: Arc<Endpoint>,
    /// What is asked first, where somebody can be asked.
    pub(crate) question: Option<Arc<Question>>,
}

impl Place {
    fn new(endpoint: Arc<Endpoint>, asked: Option<&String>, expected: Expected) -> Self {
        let question = asked.map(|agent| Arc::new(Question { agent: agent.clone(), expected }));
        Self { endpoint, question }
    }
}

impl Target {
    /// Where clients of the master go.
    pub(crate) fn master(route: &GroupRoute) -> Self {
        let place = |m: &MasterRoute| {
            let expected = Expected::Master(m.incarnation.clone());
            Place::new(Arc::new(m.endpoint.clone()), m.asked.as_ref(), expected)
        };
        let places: Vec<_> = route.master.iter().map(place).collect();
        let keep = places.iter().map(|place| place.endpoint.clone()).collect();
        // In a planned switchover the present connections see the held writes through; new ones wait for the outcome.
        let admit = if route.phase == Phase::Switching { Vec::new() } else { places };
        Self { epoch: Some(route.epoch), keep, admit }
    }

    /// Where clients of the replicas go, when the agents of `within_lag` vouch for theirs.
    pub(crate) fn replicas(route: &GroupRoute, within_lag: &BTreeSet<NodeId>) -> Self {
        let place = |r: &ReplicaRoute| Place::new(Arc::new(r.endpoint.clone()), r.asked.as_ref(), Expected::Copy);
        let places: Vec<_> = route.replicas.iter().map(place).collect();
        let keep = places.iter().map(|place| place.endpoint.clone()).collect();
        let admit = places.into_iter().filter(|place| within_lag.contains(&place.endpoint.id)).collect();
        Self { epoch: None, keep, admit }
    }

    /// Whether a connection that was made for `epoch` to `endpoint` may go on.
    pub(crate) fn sustains(&self, epoch: Option<u64>, endpoint: &Endpoint) -> bool {
        self.epoch == epoch && self.keep.iter().any(|e| **e == *endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str) -> Endpoint {
        Endpoint { id: id.into(), address: "127.0.0.1".into(), port: 1 }
    }

    fn route(epoch: u64, phase: Phase, master_id: Option<&str>) -> GroupRoute {
        let replica = |id| ReplicaRoute {
            endpoint: endpoint(id),
            agent: "agent".into(),
            asked: Some("agent".into()),
            databases: None,
        };
        let master =
            |id| MasterRoute { endpoint: endpoint(id), incarnation: "run".into(), databases: None, asked: None };
        GroupRoute { epoch, phase, master: master_id.map(master), replicas: ["b", "c"].map(replica).into() }
    }

    #[test]
    fn a_connection_to_the_master_lives_as_long_as_its_epoch() {
        // epoch, phase and master that follow on epoch 3 with master "a"; goes on; new ones are admitted
        let rows = [
            (3, Phase::Active, Some("a"), true, true),
            (3, Phase::Switching, Some("a"), true, false),
            (4, Phase::Promoting, None, false, false),
            (4, Phase::Active, Some("a"), false, true),
            (4, Phase::Active, Some("b"), false, true),
            (3, Phase::Active, Some("b"), false, true),
            (3, Phase::Halted, None, false, false),
        ];
        for (epoch, phase, master, goes_on, admitted) in rows {
            let target = Target::master(&route(epoch, phase, master));
            assert_eq!(target.sustains(Some(3), &endpoint("a")), goes_on, "{epoch} {phase:?} {master:?}");
            assert_eq!(!target.admit.is_empty(), admitted, "{epoch} {phase:?} {master:?}");
        }
    }

    #[test]
    fn a_connection_to_a_replica_outlives_epochs_and_lag() {
        let within = |ids: &[&str]| ids.iter().map(|id| NodeId::from(*id)).collect::<BTreeSet<_>>();
        let target = Target::replicas(&route(4, Phase::Promoting, None), &within(&["c", "elsewhere"]));
        let question = Arc::new(Question { agent: "agent".into(), expected: Expected::Copy });
        assert_eq!(target.admit, [Place { endpoint: Arc::new(endpoint("c")), question: Some(question) }]);
        assert!(target.sustains(None, &endpoint("b")), "a lag is no reason to cut");
        assert!(!target.sustains(None, &endpoint("a")), "the master is no replica");
    }
}
