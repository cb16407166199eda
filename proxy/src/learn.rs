//! Takes from Consul what the routes are made of, and tells Consul that this proxy lives.

use crate::group::Group;
use crate::routes::Seen;
use config::{ListenerRole, Protocol, ProxyConfig};
use consul::{GroupView, ProxyListener, ProxyRecord};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::debug;

/// Keeps a group as Consul shows it, until Consul's watch ends.
pub(crate) async fn follow(group: Arc<Group>, mut views: watch::Receiver<GroupView>) {
    loop {
        take(&group, &views.borrow_and_update());
        if views.changed().await.is_err() {
            return;
        }
    }
}

fn take(group: &Group, view: &GroupView) {
    if view.seen {
        let seen = Seen {
            record: view.record.as_ref().map(|(record, _)| record),
            fault: view.record_fault.as_deref(),
            members: &view.members,
        };
        group.observe(seen, view.policy.as_ref().map(|(policy, _)| policy));
        for fault in &view.faults {
            debug!(group = %group.name, fault, "a part of the group in Consul cannot be read");
        }
    }
    // After what it last said: a short answer between two silences counts too.
    if !view.reachable {
        group.lost_consul();
    }
}

/// What other programs read of this proxy in Consul.
pub(crate) fn presence(config: &ProxyConfig, bound: &[SocketAddr], http: SocketAddr) -> ProxyRecord {
    let listeners = config.listeners.iter().zip(bound).map(|(listener, address)| ProxyListener {
        listen: address.to_string(),
        groups: listener.groups.clone(),
        role: role(listener.role).to_owned(),
        protocol: protocol(listener.protocol).to_owned(),
    });
    ProxyRecord {
        name: config.proxy.name.clone(),
        address: config.proxy.address.clone(),
        http: reachable(&config.proxy.address, http),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listeners: listeners.collect(),
    }
}

/// Where others reach what is bound to every address of this machine.
fn reachable(host: &str, bound: SocketAddr) -> String {
    match bound.ip().is_unspecified() {
        // An IPv6 host needs its brackets before a port.
        true if host.contains(':') => format!("[{host}]:{}", bound.port()),
        true => format!("{host}:{}", bound.port()),
        false => bound.to_string(),
    }
}

fn role(role: ListenerRole) -> &'static str {
    match role {
        ListenerRole::Master => "master",
        ListenerRole::Replica => "replica",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Redis => "redis",
        Protocol::Postgres => "postgres",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_every_interface_is_told_as_the_proxys_own() {
        let rows = [
            ("10.0.0.21", "127.0.0.1:7401", "127.0.0.1:7401"),
            ("10.0.0.21", "0.0.0.0:7401", "10.0.0.21:7401"),
            ("proxy1.example", "[::]:7401", "proxy1.example:7401"),
            ("fd00::1", "[::]:7401", "[fd00::1]:7401"),
        ];
        for (host, bound, want) in rows {
            assert_eq!(reachable(host, bound.parse().expect("an address")), want);
        }
    }
}
