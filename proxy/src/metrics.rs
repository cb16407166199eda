//! The counters in Prometheus' text form.

use crate::counters::Counters;
use crate::group::Group;
use crate::redis::Counts;
use election::GroupName;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type Read = fn(&Counters) -> &AtomicU64;

/// Name, kind, what it says, and where it is read.
const FAMILIES: [(&str, &str, &str, Read); 8] = [
    ("understudy_proxy_connections_total", "counter", "Clients accepted.", |c| &c.accepted),
    ("understudy_proxy_connections_open", "gauge", "Clients connected now.", |c| &c.open),
    ("understudy_proxy_connections_held", "gauge", "Clients that wait for somewhere to go.", |c| &c.held),
    ("understudy_proxy_connections_cut_total", "counter", "Clients reset because their epoch had ended.", |c| &c.cut),
    ("understudy_proxy_connections_expired_total", "counter", "Clients closed because hold had ended.", |c| &c.expired),
    ("understudy_proxy_connect_failures_total", "counter", "Tries to reach an instance that failed.", |c| &c.refused),
    ("understudy_proxy_contradicted_total", "counter", "Tries at a server that is not what the record says.", |c| {
        &c.contradicted
    }),
    (
        "understudy_proxy_unconfirmed_total",
        "counter",
        "Clients handed over while the server's agent was silent.",
        |c| &c.unconfirmed,
    ),
];

type ReadRedis = fn(&Counts) -> u64;

/// The same of redis listeners.
const REDIS_FAMILIES: [(&str, &str, &str, ReadRedis); 13] = [
    ("understudy_proxy_redis_clients", "gauge", "Clients connected now.", |c| c.clients),
    ("understudy_proxy_redis_links", "gauge", "Connections to databases, those being made included.", |c| c.links),
    ("understudy_proxy_redis_held", "gauge", "Clients whose request waits for somewhere to go.", |c| c.held),
    ("understudy_proxy_redis_withheld", "gauge", "Clients whose reply waits for the hot replica.", |c| c.withheld),
    ("understudy_proxy_redis_requests_total", "counter", "Requests sent to a database.", |c| c.requests),
    ("understudy_proxy_redis_refused_total", "counter", "Requests refused: they are the agent's.", |c| c.refused),
    ("understudy_proxy_redis_expired_total", "counter", "Requests refused after hold, never sent.", |c| c.expired),
    ("understudy_proxy_redis_unknown_total", "counter", "Clients closed, an outcome being unknown.", |c| c.unknown),
    ("understudy_proxy_redis_barriers_total", "counter", "Times the hot replica was asked.", |c| c.barriers),
    ("understudy_proxy_redis_barriers_repeated_total", "counter", "Times it had to be asked again.", |c| {
        c.barriers_repeated
    }),
    ("understudy_proxy_redis_strangers_total", "counter", "Times a second copy acknowledged.", |c| c.strangers),
    ("understudy_proxy_redis_wrong_process_total", "counter", "Links to another process than the record's.", |c| {
        c.wrong_incarnation
    }),
    ("understudy_proxy_redis_links_lost_total", "counter", "Links that were lost or could not be made.", |c| {
        c.links_lost
    }),
];

/// All groups' counters. Group names need no escaping: they are letters, digits and dashes.
pub(crate) fn text(groups: &BTreeMap<GroupName, Arc<Group>>) -> String {
    let mut out = String::new();
    for (name, kind, help, read) in FAMILIES {
        family(&mut out, name, kind, help);
        for group in groups.values() {
            sample(&mut out, name, &group.name, read(&group.counters).load(Relaxed));
        }
    }
    let redis: Vec<_> = groups.values().map(|group| (&group.name, group.tallies.sum())).collect();
    for (name, kind, help, read) in REDIS_FAMILIES {
        family(&mut out, name, kind, help);
        for (group, counts) in &redis {
            sample(&mut out, name, group, read(counts));
        }
    }
    family(&mut out, "understudy_proxy_epoch", "gauge", "The epoch that clients are routed by.");
    for group in groups.values() {
        sample(&mut out, "understudy_proxy_epoch", &group.name, group.epoch());
    }
    family(&mut out, "understudy_proxy_consul_reachable", "gauge", "Whether Consul's last call was answered.");
    for group in groups.values() {
        let reachable = group.picture().reachable == Some(true);
        sample(&mut out, "understudy_proxy_consul_reachable", &group.name, reachable.into());
    }
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, group: &GroupName, value: u64) {
    let _ = writeln!(out, "{name}{{group=\"{group}\"}} {value}");
}
