//! Proxies with a writing client each: they follow the record late, hang on to an old master, and release a write by
//! the rule of the barrier: `need` is read from the master's own database after the write, and when it says so, the
//! write waits for one replica.

use super::bugs::Bug;
use super::data::Entry;
use super::redis::Waiter;
use super::world::{PROXIES, World, index_of};
use election::{Phase, Stamp, View};
use std::collections::BTreeSet;

/// How long a client waits for the hot replica.
pub(crate) const WAIT_US: u64 = 1_000_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Proxy {
    pub(crate) route: Option<Route>,
    pub(crate) connection: Option<Connection>,
    connecting: u64,
    /// Writes that it has sent and not seen answered.
    pub(crate) in_flight: BTreeSet<u32>,
}

#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) stamp: Stamp,
    node: usize,
    active: bool,
    pub(crate) switching: bool,
    attended: bool,
}

/// It belongs to one run of the database, and ends when that ends its clients' connections.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Connection {
    node: usize,
    run: u64,
    clients: u64,
    epoch: u64,
}

impl World {
    /// The record reaches the proxies: soon, or late. Whatever comes late is passed over.
    pub(crate) fn tell_proxies(&mut self, view: &View) {
        let Some(record) = &view.record.as_ref().filter(|_| !self.blind_proxies) else { return };
        let Some(node) = record.master.as_ref().and_then(|m| index_of(&m.id)) else { return };
        let active = record.phase == Phase::Active || record.phase == Phase::Switching;
        let switching = record.phase == Phase::Switching;
        let route = Route { stamp: record.stamp(), node, active, switching, attended: record.replica.is_some() };
        for proxy in 0..PROXIES {
            let late = self.rng.chance(self.mix.late_views);
            let delay = if late { self.rng.range(0, 3_000_000) } else { self.rng.range(800, 5_000) };
            let end = self.proxy_end(proxy);
            self.after(delay, move |w| {
                let knows = w.proxies[proxy].route.is_some_and(|known| known.stamp >= route.stamp);
                if w.has_consul(end) && !knows {
                    w.proxies[proxy].route = Some(route);
                }
            });
        }
    }

    /// The client's loop.
    pub(crate) fn client(&mut self, proxy: usize) {
        let pause = self.rng.range(10_000, 70_000);
        self.after(pause, move |w| w.client(proxy));
        self.follow_route(proxy);
        if self.holds_back(proxy) {
            return;
        }
        match self.proxies[proxy].connection {
            Some(connection) => self.write_through(proxy, connection),
            None => self.dial(proxy),
        }
    }

    fn follow_route(&mut self, proxy: usize) {
        let Some(c) = self.proxies[proxy].connection else { return };
        let alive = self.redis(c.node, c.run).is_some_and(|p| p.clients == c.clients);
        let newer = self.proxies[proxy].route.is_some_and(|route| route.stamp.epoch > c.epoch);
        // A stubborn proxy has not heard; its connection lives as long as the other end lets it.
        let stubborn = proxy == 0 && self.mix.stubborn;
        if !alive || (newer && !stubborn) {
            self.connection_ends(proxy);
        }
    }

    fn dial(&mut self, proxy: usize) {
        let Some(route) = self.proxies[proxy].route.filter(|route| route.active) else { return };
        let (call, end) = (self.number(), self.proxy_end(proxy));
        self.proxies[proxy].connecting = call;
        let Some(run) = self.nodes[route.node].redis.as_ref().map(|p| p.run) else { return };
        let node = route.node;
        self.send(end, node, move |w| {
            w.at_redis(node, run, move |w| {
                let Some(clients) = w.redis(node, run).filter(|p| p.open).map(|p| p.clients) else { return };
                let connection = Connection { node, run, clients, epoch: route.stamp.epoch };
                w.send(node, end, move |w| {
                    if w.proxies[proxy].connecting == call {
                        w.proxies[proxy].connection = Some(connection);
                    }
                });
            });
        });
    }

    fn write_through(&mut self, proxy: usize, c: Connection) {
        let write = self.ledger.writes;
        self.ledger.writes += 1;
        self.sent(proxy, write);
        let end = self.proxy_end(proxy);
        let way = self.way_out(proxy);
        self.after(way, move |w| {
            w.send(end, c.node, move |w| w.at_redis(c.node, c.run, move |w| w.execute_write(proxy, c, write)));
        });
    }

    fn execute_write(&mut self, proxy: usize, c: Connection, write: u32) {
        let now = self.now;
        let node = &mut self.nodes[c.node];
        let Some(p) = node.redis.as_mut().filter(|p| p.run == c.run && p.clients == c.clients) else { return };
        if !p.is_master() || !p.open {
            p.clients += 1; // -READONLY or -NOPERM: the proxy gives the connection up.
            return;
        }
        if p.guard_refuses(now) {
            return;
        }
        if node.disk.bad {
            return self.write_fails(c.node); // -MISCONF
        }
        if p.quiesced {
            p.held.push(Box::new(move |w| w.execute_write(proxy, c, write)));
            return;
        }
        p.append(Entry::Write(write), now, &mut node.disk);
        self.pump(c.node, c.run);
        let end = self.proxy_end(proxy);
        self.send(c.node, end, move |w| {
            let assumed = w.need_assumed(proxy);
            w.send(end, c.node, move |w| w.at_redis(c.node, c.run, move |w| w.barrier(c, write, assumed)));
        });
    }

    /// The planted bugs' proxy thinks it knows.
    fn need_assumed(&self, proxy: usize) -> Option<bool> {
        match self.bug {
            Some(Bug::NeedIgnored) => Some(false),
            Some(Bug::NeedFromRecord) => self.proxies[proxy].route.map(|route| route.attended),
            _ => None,
        }
    }

    /// After the write's reply has been read: whether it needs the hot replica, and if so, WAIT 1.
    fn barrier(&mut self, c: Connection, write: u32, assumed: Option<bool>) {
        let now = self.now;
        let Some(p) = self.redis(c.node, c.run).filter(|p| p.clients == c.clients && p.is_master()) else { return };
        let need = assumed.unwrap_or(p.data.need.unwrap_or(true));
        if !need {
            return self.acknowledge_write(c.node, write);
        }
        let waiter = Waiter { write, offset: p.offset, until: now + WAIT_US };
        p.waiters.push(waiter);
        self.release_waiters(c.node, c.run);
    }

    /// WAIT counts any replica that is online, whoever it is.
    pub(crate) fn release_waiters(&mut self, n: usize, run: u64) {
        let now = self.now;
        let Some(p) = self.redis(n, run) else { return };
        p.waiters.retain(|waiter| waiter.until >= now);
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut p.waiters).into_iter().partition(|waiter| p.acked_by_one(waiter.offset));
        p.waiters = waiting;
        done.into_iter().for_each(|waiter| self.acknowledge_write(n, waiter.write));
    }
}
