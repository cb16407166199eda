//! Proxies with a client each. They follow the record late, or hang on to an old master. In `redis` mode a reply is
//! withheld until a barrier, sent after it was read, is answered by exactly one replica, or `need` in the master's own
//! database says that nobody has to; in `tcp` mode it is the master's own, and its guard bounds what may be lost.

use super::bugs::Bug;
use super::data::{Entry, Writes};
use super::process::Waiter;
use super::quiet::Manners;
use super::world::{World, index_of};
use election::{Incarnation, Phase, Reads, Stamp};

/// How long one WAIT of a barrier lasts before it is asked again.
const WAIT_US: u64 = 80_000;

/// A link on which nothing came for so long, though an answer is due, is given up.
const LINK_SILENT_US: u64 = 2_000_000;

/// In so many of a thousand turns of its client's loop a proxy hears how the record stands: every second or two.
const LOOK_PERMILLE: u64 = 30;

/// See the module.
#[derive(Default)]
pub(crate) struct Proxy {
    pub(crate) route: Option<Route>,
    link: Option<Link>,
    connecting: u64,
    /// The planted bugs': what was not answered when a link ended.
    left: Vec<Reply>,
    unanswered: Vec<u32>,
}

/// What a proxy knows of the record.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) stamp: Stamp,
    node: usize,
    incarnation: Incarnation,
    pub(crate) phase: Phase,
    attended: bool,
}

/// A connection to a master's database. It belongs to one epoch and one run, and ends when that ends its clients'.
pub(crate) struct Link {
    number: u64,
    node: usize,
    run: u64,
    clients: u64,
    epoch: u64,
    pub(crate) heard: u64,
    /// Writes that were sent and not answered.
    sent: Vec<u32>,
    /// Read and not released, oldest first.
    replies: Vec<Reply>,
    /// How many of them the barrier under way releases.
    barrier: Option<usize>,
    /// When it was last asked.
    asked: u64,
    /// The last barrier was told that the master is alone.
    alone: bool,
}

/// A database's answer that its client has not got yet.
#[derive(Clone)]
enum Reply {
    Write(u32),
    /// What it shows, and what had been acknowledged when it was asked.
    Read(Writes, Writes),
}

/// What is sent, and to which link's end its answer belongs.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) proxy: usize,
    pub(crate) link: u64,
    pub(crate) node: usize,
    pub(crate) run: u64,
    pub(crate) clients: u64,
}

/// What a barrier was answered.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Waited(usize),
    Need(bool),
    Again,
}

impl Link {
    pub(crate) fn waits_for(&self, write: u32) -> bool {
        self.sent.contains(&write)
    }

    pub(crate) fn answered(&mut self, write: u32) {
        self.sent.retain(|sent| *sent != write);
    }
}

impl Proxy {
    /// Nothing that it has sent, or read and not released, is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.sent.is_empty() && link.replies.is_empty())
    }
}

impl World {
    /// The record reaches the proxies: soon, late, or, where one is deaf, not as long as its link lives. Whatever comes
    /// late is passed over.
    pub(crate) fn tell_proxies(&mut self) {
        (0..self.proxies.len()).for_each(|proxy| self.tell_proxy(proxy));
    }

    fn tell_proxy(&mut self, proxy: usize) {
        let Some((record, _)) = self.consul.record.as_ref().filter(|_| !self.blind_proxies) else { return };
        let Some(master) = &record.master else { return };
        let Some(node) = index_of(&master.id) else { return };
        let (incarnation, attended) = (master.incarnation.clone(), record.replica.is_some());
        let route = Route { stamp: record.stamp(), node, incarnation, phase: record.phase, attended };
        let late = self.rng.chance(self.mix.late_views);
        let delay = if late { self.rng.range(0, 3_000_000) } else { self.rng.range(800, 5_000) };
        let end = self.proxy_end(proxy);
        self.after(delay, move |w| {
            let deaf = proxy != 1 && w.mix.stubborn && w.proxies[proxy].link.is_some();
            let knows = w.proxies[proxy].route.as_ref().is_some_and(|known| known.stamp >= route.stamp);
            if w.has_consul(end) && !knows && !deaf {
                w.proxies[proxy].route = Some(route);
                w.follow_route(proxy);
            }
        });
    }

    /// The client's loop.
    pub(crate) fn client(&mut self, proxy: usize) {
        let pause = self.rng.range(10_000, 70_000);
        self.after(pause, move |w| w.client(proxy));
        self.follow_route(proxy);
        if self.rng.chance(LOOK_PERMILLE) {
            self.tell_proxy(proxy); // Its watch asks again.
        }
        if self.holds_back(proxy) {
            return;
        }
        match self.proxies[proxy].link.as_ref().map(|link| self.call_on(proxy, link)) {
            Some(call) if self.reads_now(proxy) => self.ask_for_a_read(call),
            Some(call) => self.write_through(call),
            None => self.dial(proxy),
        }
    }

    fn reads_now(&mut self, proxy: usize) -> bool {
        let reading = self.mix.reading[proxy];
        self.mix.policy.reads == Reads::Durable && self.rng.chance(reading)
    }

    fn call_on(&self, proxy: usize, link: &Link) -> Call {
        Call { proxy, link: link.number, node: link.node, run: link.run, clients: link.clients }
    }

    /// Ends the link when its other end has, when nothing comes any more, and when a newer epoch is known.
    fn follow_route(&mut self, proxy: usize) {
        let forwards = self.bug == Some(Bug::ForwardsOldEpoch);
        let Some(link) = &self.proxies[proxy].link else { return };
        let process = self.nodes[link.node].database.as_ref().filter(|p| p.run == link.run);
        let ended = process.is_none_or(|p| p.clients != link.clients);
        let silent = |since: u64| self.now.saturating_sub(since) > LINK_SILENT_US;
        let silent = (link.barrier.is_some() && silent(link.asked)) || (!link.sent.is_empty() && silent(link.heard));
        let newer = self.proxies[proxy].route.as_ref().is_some_and(|route| route.stamp.epoch > link.epoch);
        if ended || silent || (newer && !forwards) {
            self.hang_up(proxy);
        }
    }

    /// The clients of what is not answered are disconnected: nobody knows what became of it, and nobody sends it again.
    pub(crate) fn hang_up(&mut self, proxy: usize) {
        let Some(link) = self.proxies[proxy].link.take() else { return };
        self.ledger.cut += u64::try_from(link.sent.len() + link.replies.len()).unwrap_or_default();
        match self.bug {
            Some(Bug::BarrierOutlivesItsLink) => self.proxies[proxy].left = link.replies,
            Some(Bug::RetriesUnknown) => self.proxies[proxy].unanswered = link.sent,
            _ => {}
        }
    }

    fn dial(&mut self, proxy: usize) {
        let early = self.bug == Some(Bug::OpensInPromoting);
        let open = |phase: Phase| matches!(phase, Phase::Active | Phase::Switching) || early;
        let Some(route) = self.proxies[proxy].route.clone().filter(|route| open(route.phase)) else { return };
        let (call, end, node) = (self.number(), self.proxy_end(proxy), route.node);
        self.proxies[proxy].connecting = call;
        let Some(run) = self.nodes[node].database.as_ref().map(|p| p.run) else { return };
        self.send(end, node, move |w| {
            w.at_database(node, run, move |w| {
                // Another run is not the master that the record names, whatever it says of itself; who only carries bytes
                // sees whether it takes writes.
                let fits = |p: &&mut super::process::Process| {
                    p.open && (p.incarnation == route.incarnation || (p.sql.is_some() && p.is_master()))
                };
                let Some(clients) = w.database(node, run).filter(fits).map(|p| p.clients) else { return };
                w.send(node, end, move |w| {
                    if w.proxies[proxy].connecting == call {
                        w.connected(Call { proxy, link: call, node, run, clients }, route.stamp.epoch);
                    }
                });
            });
        });
    }

    fn connected(&mut self, call: Call, epoch: u64) {
        let heard = self.now;
        let Call { proxy, link: number, node, run, clients } = call;
        let replies = std::mem::take(&mut self.proxies[proxy].left);
        let (sent, barrier, asked, alone) = (Vec::new(), None, heard, false);
        let link = Link { number, node, run, clients, epoch, heard, sent, replies, barrier, asked, alone };
        self.proxies[proxy].link = Some(link);
        for write in std::mem::take(&mut self.proxies[proxy].unanswered) {
            self.send_write(call, write);
        }
        self.begin_barrier(proxy);
    }

    fn write_through(&mut self, call: Call) {
        let write = self.ledger.writes;
        self.ledger.writes += 1;
        self.send_write(call, write);
    }

    fn send_write(&mut self, call: Call, write: u32) {
        let (end, heard) = (self.proxy_end(call.proxy), self.now);
        let Some(link) = &mut self.proxies[call.proxy].link else { return };
        if link.sent.is_empty() {
            link.heard = heard;
        }
        link.sent.push(write);
        // The planted bug's proxy asks first whether anybody has to be waited for.
        let assumed = self.need_assumed(call);
        let way = self.way_out(call.proxy);
        if self.is_sql() {
            self.lose_patience(call, write);
            return self.send(end, call.node, move |w| {
                w.at_database(call.node, call.run, move |w| w.begin_transaction(call, write));
            });
        }
        self.after(way, move |w| {
            w.send(end, call.node, move |w| {
                w.at_database(call.node, call.run, move |w| w.execute_write(call, write, assumed));
            });
        });
    }

    fn execute_write(&mut self, call: Call, write: u32, assumed: Option<bool>) {
        let now = self.now;
        let node = &mut self.nodes[call.node];
        let Some(p) = node.database.as_mut().filter(|p| p.run == call.run && p.clients == call.clients) else { return };
        if !p.is_master() || !p.open {
            p.clients += 1; // -READONLY or -NOPERM: the proxy gives the connection up.
            return;
        }
        if p.guard_refuses() && self.bug != Some(Bug::GuardNeverCloses) {
            return self.refused(call, write);
        }
        if node.disk.bad {
            self.write_fails(call.node); // -MISCONF
            return self.refused(call, write);
        }
        if p.quiesced && self.bug != Some(Bug::QuiesceDoesNothing) {
            p.held.push(Box::new(move |w| w.execute_write(call, write, assumed)));
            return;
        }
        if p.data.writes.contains(write) {
            return self.fail(format!("write {write} is carried out twice"));
        }
        p.append(Entry::Write(write), now, &mut node.disk);
        self.pump(call.node, call.run);
        self.answer(call, move |w| w.replied(call, Reply::Write(write), assumed));
    }

    /// An error is an answer too; nothing was written.
    pub(crate) fn refused(&mut self, call: Call, write: u32) {
        self.answer(call, move |w| {
            if let Some(link) = w.link(call) {
                link.answered(write);
            }
        });
    }

    fn ask_for_a_read(&mut self, call: Call) {
        let (end, before) = (self.proxy_end(call.proxy), self.ledger.acked.clone());
        self.send(end, call.node, move |w| {
            w.at_database(call.node, call.run, move |w| {
                let Some(p) = w.database(call.node, call.run).filter(|p| p.clients == call.clients && p.open) else {
                    return;
                };
                let shows = p.data.writes.clone();
                w.answer(call, move |w| w.replied(call, Reply::Read(shows, before), None));
            });
        });
    }

    pub(crate) fn answer(&mut self, call: Call, task: impl FnOnce(&mut World) + 'static) {
        let end = self.proxy_end(call.proxy);
        self.send(call.node, end, task);
    }

    pub(crate) fn link(&mut self, call: Call) -> Option<&mut Link> {
        self.proxies[call.proxy].link.as_mut().filter(|link| link.number == call.link)
    }

    /// A reply has been read. Without a link it is nobody's any more.
    fn replied(&mut self, call: Call, reply: Reply, assumed: Option<bool>) {
        let tcp = self.mix.proxies[call.proxy] == Manners::Carries;
        let now = self.now;
        let Some(link) = self.link(call) else { return };
        link.heard = now;
        if let Reply::Write(write) = &reply {
            link.sent.retain(|sent| sent != write);
        }
        match reply {
            Reply::Write(write) if tcp => self.answered_by_tcp(call.node, call.run, write),
            Reply::Read(..) if tcp => {}
            reply if assumed == Some(false) => self.hand_on(call, vec![reply]),
            reply => {
                link.replies.push(reply);
                self.begin_barrier(call.proxy);
            }
        }
    }

    /// The planted bugs' proxies think they know before they ask.
    fn need_assumed(&mut self, call: Call) -> Option<bool> {
        match self.bug {
            Some(Bug::NeedIgnored) => Some(false),
            Some(Bug::NeedFromRecord) => self.proxies[call.proxy].route.as_ref().map(|route| route.attended),
            Some(Bug::NeedReadBefore) => self.database(call.node, call.run).map(|p| p.needs()),
            _ => None,
        }
    }

    /// One barrier at a time, for every reply that was read before it is sent.
    fn begin_barrier(&mut self, proxy: usize) {
        let Some(link) = &mut self.proxies[proxy].link else { return };
        if link.barrier.is_some() || link.replies.is_empty() {
            return;
        }
        link.barrier = Some(link.replies.len());
        let alone = link.alone;
        let Some(call) = self.proxies[proxy].link.as_ref().map(|link| self.call_on(proxy, link)) else { return };
        if alone { self.ask_need(call) } else { self.wait(call) }
    }

    fn asks(&mut self, call: Call) {
        let now = self.now;
        if let Some(link) = self.link(call) {
            link.asked = now;
        }
    }

    fn wait(&mut self, call: Call) {
        let end = self.proxy_end(call.proxy);
        self.asks(call);
        self.send(end, call.node, move |w| w.at_database(call.node, call.run, move |w| w.execute_wait(call)));
    }

    /// `PING` and `WAIT 1`; where reads are durable a small write instead of the `PING`, or an old acknowledgement would
    /// answer for the read.
    fn execute_wait(&mut self, call: Call) {
        let now = self.now;
        let writes = self.mix.policy.reads == Reads::Durable && self.bug != Some(Bug::DurableReadPings);
        let node = &mut self.nodes[call.node];
        let Some(p) = node.database.as_mut().filter(|p| p.run == call.run && p.clients == call.clients) else { return };
        if !p.is_master() {
            return;
        }
        if writes {
            if p.guard_refuses() || p.quiesced || node.disk.bad {
                return self.after(WAIT_US, move |w| w.answer(call, move |w| w.barrier(call, Answer::Again)));
            }
            p.append(Entry::Barrier, now, &mut node.disk);
        }
        let offset = p.offset;
        p.waiters.push(Waiter {
            proxy: call.proxy,
            link: call.link,
            clients: call.clients,
            offset,
            until: now + WAIT_US,
        });
        self.pump(call.node, call.run);
        self.release_waiters(call.node, call.run);
        self.after(WAIT_US + 1, move |w| {
            w.at_database(call.node, call.run, move |w| w.release_waiters(call.node, call.run))
        });
    }

    /// WAIT counts any replica that is online, whoever it is.
    pub(crate) fn release_waiters(&mut self, node: usize, run: u64) {
        let now = self.now;
        let Some(p) = self.database(node, run) else { return };
        let mut answers = Vec::new();
        let mut waiting = std::mem::take(&mut p.waiters);
        waiting.retain(|waiter| {
            let count = p.acked_by(waiter.offset);
            let over = count > 0 || waiter.until < now;
            if over {
                let Waiter { proxy, link, clients, .. } = *waiter;
                answers.push((Call { proxy, link, node, run, clients }, count));
            }
            !over
        });
        p.waiters = waiting;
        for (call, count) in answers {
            self.answer(call, move |w| w.barrier(call, Answer::Waited(count)));
        }
    }

    /// Whether nobody has to be waited for: from the master's own database, after the replies were read.
    fn ask_need(&mut self, call: Call) {
        let end = self.proxy_end(call.proxy);
        self.asks(call);
        self.send(end, call.node, move |w| {
            w.at_database(call.node, call.run, move |w| {
                let asked = |p: &&mut super::process::Process| p.clients == call.clients && p.is_master();
                let Some(p) = w.database(call.node, call.run).filter(asked) else { return };
                let need = p.needs();
                w.answer(call, move |w| w.barrier(call, Answer::Need(need)));
            });
        });
    }

    /// A barrier's answer: exactly one replica, or nobody needed, releases what was read before it was sent.
    fn barrier(&mut self, call: Call, answer: Answer) {
        let (zero, later) = (self.bug == Some(Bug::ReleaseOnWaitZero), self.bug == Some(Bug::BarrierReleasesLater));
        let Some(link) = self.link(call) else { return };
        link.alone = answer == Answer::Need(false);
        match answer {
            Answer::Waited(1) | Answer::Need(false) => {}
            Answer::Waited(0) if zero => {}
            Answer::Waited(0) => return self.ask_need(call),
            Answer::Waited(_) | Answer::Need(true) | Answer::Again => return self.wait(call),
        }
        let count = if later { Some(link.replies.len()) } else { link.barrier };
        link.barrier = None;
        let released = link.replies.drain(..count.unwrap_or_default()).collect();
        self.hand_on(call, released);
        self.begin_barrier(call.proxy);
    }

    /// The clients get their answers.
    fn hand_on(&mut self, call: Call, replies: Vec<Reply>) {
        let known = self.proxies[call.proxy].route.as_ref().map_or(0, |route| route.stamp.epoch);
        if self.link(call).is_some_and(|link| link.epoch < known) {
            return self
                .fail(format!("proxy {} forwards an answer of an epoch before {known} (invariant 9)", call.proxy));
        }
        for reply in replies {
            match reply {
                Reply::Write(write) => self.acknowledge_write(call.node, call.run, write),
                Reply::Read(shows, before) => self.answer_read(call.node, call.run, &shows, &before),
            }
        }
    }
}
