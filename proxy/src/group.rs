//! One group as this proxy knows it: what it learned last, published to all who carry connections.

use crate::confirm::Words;
use crate::counters::Counters;
use crate::heard::Heard;
use crate::quiet::Quiet;
use crate::redis::{Course, Tallies};
use crate::routes::{GroupRoute, Known, Refusal, Seen, adopt};
use crate::target::Target;
use config::ListenerRole;
use election::{GroupName, NodeId, Phase, Policy, Stamp};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::{info, warn};

/// A group, shared by the task that watches Consul and by all connections.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    pub(crate) heard: Heard,
    pub(crate) counters: Counters,
    /// What the agents last said that their servers are.
    pub(crate) words: Words,
    /// What the workers of redis listeners count.
    pub(crate) tallies: Tallies,
    /// Which of them are quiet.
    pub(crate) quiet: Quiet,
    learned: Mutex<Learned>,
    /// Two channels, so that a connection is woken only by what concerns it: the record changes far more often than
    /// the master does.
    master: watch::Sender<Target>,
    replicas: watch::Sender<Target>,
    /// The same for redis listeners.
    master_course: watch::Sender<Course>,
    replica_course: watch::Sender<Course>,
    /// Wakes the prober when there is somebody else to ask.
    routed: watch::Sender<Option<GroupRoute>>,
}

#[derive(Debug, Default)]
struct Learned {
    known: Option<Known>,
    refusal: Option<Refusal>,
    /// Whether Consul's last call was answered; `None` before the first answer.
    reachable: Option<bool>,
    within_lag: BTreeSet<NodeId>,
    /// The last one seen: one that is gone or cannot be read changes no promise.
    policy: Policy,
}

/// A group for `/routes`.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) route: Option<GroupRoute>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) reachable: Option<bool>,
}

impl Group {
    pub(crate) fn new(name: GroupName) -> Self {
        Self {
            name,
            heard: Heard::default(),
            counters: Counters::default(),
            words: Words::default(),
            tallies: Tallies::default(),
            quiet: Quiet::default(),
            learned: Mutex::default(),
            master: watch::Sender::default(),
            replicas: watch::Sender::default(),
            master_course: watch::Sender::default(),
            replica_course: watch::Sender::default(),
            routed: watch::Sender::default(),
        }
    }

    /// Follows where connections of a role go.
    pub(crate) fn subscribe(&self, role: ListenerRole) -> watch::Receiver<Target> {
        match role {
            ListenerRole::Master => self.master.subscribe(),
            ListenerRole::Replica => self.replicas.subscribe(),
        }
    }

    /// Follows what a redis listener of a role obeys.
    pub(crate) fn courses(&self, role: ListenerRole) -> watch::Receiver<Course> {
        match role {
            ListenerRole::Master => self.master_course.subscribe(),
            ListenerRole::Replica => self.replica_course.subscribe(),
        }
    }

    /// Follows the route.
    pub(crate) fn routes(&self) -> watch::Receiver<Option<GroupRoute>> {
        self.routed.subscribe()
    }

    /// Consul has answered.
    pub(crate) fn observe(&self, seen: Seen<'_>, policy: Option<&Policy>) {
        let mut learned = self.learned();
        learned.reachable = Some(true);
        if let Some(policy) = policy {
            learned.policy = policy.clone();
        }
        match adopt(learned.known.as_ref(), seen) {
            Ok(known) => {
                learned.refusal = None;
                self.note_route(learned.known.as_ref(), &known);
                learned.known = Some(known);
                self.publish(&learned);
            }
            Err(refusal) => {
                if learned.refusal.as_ref() != Some(&refusal) {
                    warn!(group = %self.name, "{refusal}");
                }
                learned.refusal = Some(refusal);
            }
        }
    }

    /// Consul does not answer. The last known route stays. Silence before the first answer is no answer.
    pub(crate) fn lost_consul(&self) {
        let mut learned = self.learned();
        learned.reachable = learned.reachable.map(|_| false);
    }

    /// The agents of these nodes, and no others, vouch for their instance's lag.
    pub(crate) fn vouched(&self, within_lag: BTreeSet<NodeId>) {
        let mut learned = self.learned();
        if learned.within_lag == within_lag {
            return;
        }
        let names: Vec<_> = within_lag.iter().map(NodeId::as_str).collect();
        info!(group = %self.name, replicas = ?names, "instances within the lag have changed");
        learned.within_lag = within_lag;
        self.publish(&learned);
    }

    /// Bytes a replica may lag.
    pub(crate) fn max_lag(&self) -> u64 {
        self.learned().policy.max_lag
    }

    /// The number of the mastership known, 0 before there is one.
    pub(crate) fn epoch(&self) -> u64 {
        self.learned().known.as_ref().map_or(0, |k| k.route.epoch)
    }

    /// The record under which every redis worker of the master's is quiet: nothing of its epoch is under way through
    /// this proxy, and nothing new is sent before another record. Only in a planned switchover.
    pub(crate) fn quiet_at(&self) -> Option<Stamp> {
        let stamp = self.learned().known.as_ref().filter(|k| k.route.phase == Phase::Switching)?.stamp;
        self.quiet.all_at(stamp).then_some(stamp)
    }

    /// All that is known.
    pub(crate) fn picture(&self) -> Picture {
        let learned = self.learned();
        Picture {
            route: learned.known.as_ref().map(|k| k.route.clone()),
            refusal: learned.refusal.clone(),
            reachable: learned.reachable,
        }
    }

    fn publish(&self, learned: &Learned) {
        let Some(known) = &learned.known else { return };
        replace(&self.master, Target::master(&known.route));
        replace(&self.replicas, Target::replicas(&known.route, &learned.within_lag));
        replace(&self.master_course, Course::master(known, &learned.policy));
        replace(&self.replica_course, Course::replicas(known, &learned.within_lag));
        replace(&self.routed, Some(known.route.clone()));
    }

    /// One line for a change that clients can feel, none for the rest.
    fn note_route(&self, before: Option<&Known>, now: &Known) {
        let felt = |k: &Known| (k.route.epoch, k.route.phase, k.route.master.clone());
        if before.map(felt) == Some(felt(now)) {
            return;
        }
        let to = now.route.master.as_ref().map_or_else(|| "nobody".to_owned(), |m| m.endpoint.to_string());
        info!(
            group = %self.name, epoch = now.route.epoch, phase = ?now.route.phase, record = %now.stamp, master = to,
            "the route has changed"
        );
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        // Nothing that holds the lock leaves it half changed, so a panic elsewhere spoils nothing here.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes a value if it is another one.
fn replace<T: PartialEq>(channel: &watch::Sender<T>, value: T) {
    channel.send_if_modified(|present| {
        let modified = *present != value;
        if modified {
            *present = value;
        }
        modified
    });
}
