//! Proxies that speak the database's protocol in a planned switchover: they send nothing new while the record says
//! `switching`, and tell the master's agent when nothing is in flight through them any more.

use super::bugs::Bug;
use super::world::World;
use agent::step::{Asking, Event};
use election::{Phase, Stamp};
use std::collections::BTreeSet;

/// Between two questions to a proxy.
const ASK_EVERY_US: u64 = 5_000;

/// A slow proxy's requests are under way for so long at the most.
const SLOW_US: u64 = 150_000;

/// What a proxy does while roles change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It only carries bytes: nobody asks it.
    Carries,
    /// The same, but that it reads PostgreSQL's answers for warnings.
    Postgres,
    /// It holds requests back, and says when it is quiet.
    Holds,
    /// The same, and what clients send through it is long on its way.
    Slow,
    /// It holds requests back, and never says that it is quiet: something always is in flight.
    NeverQuiet,
}

impl Manners {
    /// Of those in `redis` mode.
    pub(crate) const REDIS: [Manners; 4] = [Manners::Holds, Manners::Holds, Manners::Slow, Manners::NeverQuiet];

    /// Of those in front of PostgreSQL.
    pub(crate) const SQL: [Manners; 2] = [Manners::Carries, Manners::Postgres];

    fn holds(self) -> bool {
        !matches!(self, Manners::Carries | Manners::Postgres)
    }
}

impl World {
    /// Who holds requests back, as the agents read it in Consul.
    pub(crate) fn holding(&self) -> Event {
        let holding = (0..self.proxies.len()).filter(|proxy| self.mix.proxies[*proxy].holds());
        Event::Proxies(holding.map(|proxy| proxy.to_string()).collect::<BTreeSet<_>>())
    }

    /// Whether a client's request waits in the proxy now.
    pub(crate) fn holds_back(&self, proxy: usize) -> bool {
        let route = self.proxies[proxy].route.as_ref();
        let switching = route.is_some_and(|route| route.phase == Phase::Switching);
        self.mix.proxies[proxy].holds() && switching
    }

    /// How long a client's request needs before it leaves the proxy.
    pub(crate) fn way_out(&mut self, proxy: usize) -> u64 {
        if self.mix.proxies[proxy] == Manners::Slow { self.rng.range(0, SLOW_US) } else { 0 }
    }

    /// Asks the proxies what the agent wants to know.
    pub(crate) fn ask_proxies(&mut self, n: usize, boot: u64) {
        let now = self.millis(n);
        let Some(agent) = self.agent(n, boot) else { return };
        let Asking::Quiet(stamp) = agent.step.asking(now) else { return };
        if std::mem::replace(&mut agent.asked, stamp) == stamp {
            return;
        }
        for proxy in (0..self.proxies.len()).filter(|proxy| self.mix.proxies[*proxy].holds()).collect::<Vec<_>>() {
            self.ask_proxy(n, boot, proxy, stamp);
        }
    }

    fn ask_proxy(&mut self, n: usize, boot: u64, proxy: usize, stamp: Stamp) {
        let now = self.millis(n);
        if self.agent(n, boot).is_none_or(|a| a.step.asking(now) != Asking::Quiet(stamp)) {
            return;
        }
        self.after(ASK_EVERY_US, move |w| w.ask_proxy(n, boot, proxy, stamp));
        let end = self.proxy_end(proxy);
        self.send(n, end, move |w| {
            let Some(stamp) = w.quiet_since(proxy) else { return };
            w.send(end, n, move |w| {
                let event = Event::Quiet { proxy: proxy.to_string(), stamp };
                w.at_agent(n, boot, move |w| w.agent_event(n, event));
            });
        });
    }

    /// The record under which nothing new is sent and everything sent is answered.
    fn quiet_since(&self, proxy: usize) -> Option<Stamp> {
        let p = &self.proxies[proxy];
        let stamp = p.route.as_ref().filter(|route| route.phase == Phase::Switching).map(|route| route.stamp);
        let quiet = p.is_idle() && self.mix.proxies[proxy] != Manners::NeverQuiet;
        stamp.filter(|_| quiet || self.bug == Some(Bug::QuietInWords))
    }
}
