//! Replication: connect, the stream, acknowledgements, links that break; Redis' partial and full resync.

use super::bugs::Bug;
use super::checks;
use super::data::Entry;
use super::history::Knot;
use super::postgres::chain;
use super::process::{Downstream, LINK_TIMEOUT_US, LinkState, Role, Upstream};
use super::sql::{KEPT_LOG, Stopped};
use super::world::World;
use config::Engine as Kind;
use election::{Lineage, Nonce};

/// What a link carries.
#[derive(Clone)]
enum Bytes {
    /// Redis.
    Entries(Vec<Entry>),
    /// The log of an SQL engine, up to there.
    Log(Knot),
}

/// How a replica asks for the stream.
struct Psync {
    link: u64,
    node: usize,
    run: u64,
    secret: String,
    replid: Lineage,
    offset: u64,
    /// Where the log of an SQL engine ends, and the name of the password.
    tip: Knot,
    channel: Option<Nonce>,
}

impl World {
    /// REPLICAOF: the link to anybody else ends, and everybody behind this one has to come again.
    pub(crate) fn replica_of(&mut self, n: usize, run: u64, source: Option<usize>) {
        self.drop_upstream(n, run);
        self.drop_downstream(n, run, |_| true);
        let now = self.now;
        let Some(p) = self.database(n, run) else { return };
        p.waiters.clear(); // Blocked clients are told -UNBLOCKED when the role changes.
        p.role = match source {
            Some(source) => Role::Follows(Upstream { source, link: None, state: LinkState::Connecting, heard: now }),
            None => Role::Sealed,
        };
        self.connect(n, run);
    }

    pub(crate) fn connect(&mut self, n: usize, run: u64) {
        let (link, now) = (self.number(), self.now);
        let Some(p) = self.database(n, run) else { return };
        let (secret, replid, offset) = (p.primary_auth.clone(), p.replid.clone(), p.offset);
        let tip = p.sql.as_ref().map(|sql| sql.tip).unwrap_or_default();
        let channel = p.sql.as_ref().and_then(|sql| sql.source.as_ref()).map(|source| source.channel.clone());
        let Some(up) = p.upstream().filter(|up| up.link.is_none()) else { return };
        (up.link, up.state, up.heard) = (Some(link), LinkState::Connecting, now);
        let source = up.source;
        let ask = Psync { link, node: n, run, secret, replid, offset, tip, channel };
        self.send(n, source, move |w| w.accept(source, ask));
    }

    fn accept(&mut self, s: usize, ask: Psync) {
        let Some(run) = self.nodes[s].database.as_ref().map(|p| p.run) else {
            if self.nodes[s].up {
                self.send(s, ask.node, move |w| w.upstream_closed(ask.node, ask.run, ask.link));
            }
            return;
        };
        self.at_database(s, run, move |w| w.psync(s, run, ask));
    }

    fn psync(&mut self, s: usize, run: u64, ask: Psync) {
        let (now, anybody) = (self.now, self.bug == Some(Bug::ChannelNotExclusive));
        if self.is_sql() {
            return self.feed(s, run, ask);
        }
        let Some(p) = self.database(s, run) else { return };
        if p.loading || (p.secret != ask.secret && !anybody) || !p.serves() {
            return self.send(s, ask.node, move |w| w.upstream_closed(ask.node, ask.run, ask.link));
        }
        let continues = p.continues(&ask.replid, ask.offset);
        let (link, node) = (ask.link, ask.node);
        let sent = if continues { ask.offset } else { p.offset };
        let online = continues;
        p.downstream.push(Downstream { link, node, run: ask.run, online, sent, ack: 0, acked_at: now, channel: None });
        p.count_replicas(now);
        if continues {
            let (replid, entries) = (p.replid.clone(), Bytes::Entries(p.since(ask.offset)));
            p.downstream.iter_mut().filter(|d| d.link == link).for_each(|d| d.sent = p.offset);
            self.stream(s, run, ask.node, ask.run, link, move |w| w.go_on(ask.node, ask.run, link, replid, entries));
        } else {
            self.full_resync(s, run, ask);
        }
    }

    /// A copy of an SQL engine asks for the log from where it ends.
    fn feed(&mut self, s: usize, run: u64, ask: Psync) {
        let now = self.now;
        let Some(p) = self.nodes[s].database.as_ref().filter(|p| p.run == run) else { return };
        let Some(sql) = &p.sql else { return };
        let end = World::sends_to(p);
        let h = &self.histories;
        let shared = h.timeline(sql.tip) > 1 && ask.secret == chain(h.system(sql.tip));
        let let_in = if sql.postgres() && !sql.exclusive { shared } else { ask.secret == p.secret };
        let (link, node) = (ask.link, ask.node);
        let purged = h.depth(end) > h.depth(ask.tip) + KEPT_LOG;
        let fits = h.holds(end, ask.tip);
        if p.loading || !let_in || (sql.postgres() && (purged || !fits)) {
            return self.send(s, ask.node, move |w| w.upstream_closed(ask.node, ask.run, link));
        }
        if purged || !fits {
            let why = if purged && fits { Stopped::Purged } else { Stopped::Parted };
            return self.send(s, node, move |w| w.stops_receiving(node, ask.run, link, why));
        }
        let (sent, ack) = (self.histories.depth(end), if sql.postgres() { ask.offset } else { 0 });
        let mariadb = !sql.postgres();
        let Some(p) = self.database(s, run) else { return };
        if mariadb {
            // The same replica has come again: its link of before is ended.
            p.downstream.retain(|d| (d.node, d.run) != (node, ask.run));
        }
        let channel = ask.channel;
        p.downstream.push(Downstream { link, node, run: ask.run, online: true, sent, ack, acked_at: now, channel });
        let replid = Lineage::default();
        self.stream(s, run, node, ask.run, link, move |w| w.go_on(node, ask.run, link, replid, Bytes::Log(end)));
    }

    /// MariaDB: it asked for what its source does not have.
    fn stops_receiving(&mut self, n: usize, run: u64, link: u64, why: Stopped) {
        self.at_database(n, run, move |w| {
            if w.database(n, run).is_none_or(|p| p.link() != Some(link)) {
                return;
            }
            w.tell(|| format!("n{} cannot go on from where it is: {why:?}", n + 1));
            w.stop_receiving(n, run);
            if let Some(sql) = w.database(n, run).and_then(|p| p.sql.as_mut()) {
                sql.stopped = Some(why);
            }
        });
    }

    /// `+CONTINUE`: the copy goes on where it was, under the source's name of the history.
    fn go_on(&mut self, n: usize, run: u64, link: u64, replid: Lineage, bytes: Bytes) {
        let now = self.now;
        let Some(p) = self.database(n, run).filter(|p| p.link() == Some(link)) else { return };
        if let Some(up) = p.upstream() {
            (up.state, up.heard) = (LinkState::Online, now);
        }
        if p.replid != replid && p.sql.is_none() {
            p.rename_history(replid);
            self.drop_downstream(n, run, |_| true);
        }
        self.take_in(n, run, link, bytes);
    }

    /// The source's copy is transferred; the old one stands until it is loaded.
    fn full_resync(&mut self, s: usize, s_run: u64, ask: Psync) {
        let Some(p) = self.database(s, s_run) else { return };
        let (data, replid, offset) = (p.data.clone(), p.replid.clone(), p.offset);
        let (n, run, link) = (ask.node, ask.run, ask.link);
        self.tell(|| format!("n{} copies from n{} (it was at {} {})", n + 1, s + 1, ask.replid, ask.offset));
        self.stream(s, s_run, n, run, link, move |w| w.begin_transfer(n, run, link));
        let transfer = self.rng.range(10_000, 1_200_000);
        self.after(transfer, move |w| {
            w.stream(s, s_run, n, run, link, move |w| {
                w.load(n, run, link, move |w| {
                    let Some(p) = w.database(n, run) else { return };
                    p.replace(data, replid, offset);
                    w.loaded(n, run, link, s, s_run);
                });
            });
        });
    }

    fn begin_transfer(&mut self, n: usize, run: u64, link: u64) {
        let now = self.now;
        let Some(p) = self.database(n, run).filter(|p| p.link() == Some(link)) else { return };
        if let Some(up) = p.upstream() {
            (up.state, up.heard) = (LinkState::Transfer, now);
        }
        self.drop_downstream(n, run, |_| true);
    }

    /// The old copy is gone before the new one stands: cut now, an empty copy is left that looks whole.
    fn load(&mut self, n: usize, run: u64, link: u64, finish: impl FnOnce(&mut World) + 'static) {
        let (empty, now) = (Lineage(self.rng.text()), self.now);
        let Some(p) = self.database(n, run).filter(|p| p.link() == Some(link)) else { return };
        if let Some(up) = p.upstream() {
            (up.state, up.heard) = (LinkState::Load, now);
        }
        (p.loading, p.append_only, p.persisted) = (true, false, false);
        p.replace(super::data::Data::default(), empty, 1);
        let incarnation = p.incarnation.clone();
        let result = checks::may_be_wiped(&self.consul, n, &incarnation);
        self.check(result);
        let took = self.rng.range(5_000, 150_000);
        self.after(took, move |w| {
            w.at_database(n, run, move |w| {
                if w.database(n, run).is_some_and(|p| p.link() == Some(link)) {
                    finish(w);
                }
            });
        });
    }

    fn loaded(&mut self, n: usize, run: u64, link: u64, s: usize, s_run: u64) {
        let now = self.now;
        let Some(p) = self.database(n, run) else { return };
        p.loading = false;
        let offset = p.offset;
        if let Some(up) = p.upstream() {
            (up.state, up.heard) = (LinkState::Online, now);
        }
        self.rewrite_file(n, run);
        self.send(n, s, move |w| {
            w.at_database(s, s_run, move |w| {
                let now = w.now;
                let Some(p) = w.database(s, s_run) else { return };
                for d in p.downstream.iter_mut().filter(|d| d.link == link) {
                    (d.online, d.ack, d.acked_at) = (true, offset, now);
                }
                p.count_replicas(now);
                w.pump(s, s_run);
            });
        });
    }

    /// The append-only file, which is off while a copy is loaded, begins anew. Until it has been rewritten, a restart
    /// brings the old data back.
    pub(crate) fn rewrite_file(&mut self, n: usize, run: u64) {
        let took = self.rng.range(50_000, 1_500_000);
        let Some(p) = self.database(n, run) else { return };
        p.append_only = true;
        self.after(took, move |w| {
            w.at_database(n, run, move |w| {
                let node = &mut w.nodes[n];
                let Some(p) = node.database.as_mut().filter(|p| p.append_only && !p.loading && !p.persisted) else {
                    return;
                };
                if node.disk.bad {
                    return w.rewrite_file(n, run);
                }
                p.persisted = true;
                node.disk.replace(&p.data);
            });
        });
    }

    /// A load that is cut leaves what stands then, and the append-only file stays off until a copy is whole or this is
    /// a master.
    fn load_ends(&mut self, n: usize, run: u64) {
        if let Some(p) = self.database(n, run).filter(|p| !p.append_only) {
            p.loading = false;
        }
    }

    /// Bytes on a link: late while the way is cut, lost when the link has ended meanwhile.
    fn stream(
        &mut self,
        from: usize,
        from_run: u64,
        to: usize,
        run: u64,
        link: u64,
        task: impl FnOnce(&mut World) + 'static,
    ) {
        let delay = self.delay();
        self.after(delay, move |w| w.arrive(from, from_run, to, run, link, task));
    }

    fn arrive(
        &mut self,
        from: usize,
        from_run: u64,
        to: usize,
        run: u64,
        link: u64,
        task: impl FnOnce(&mut World) + 'static,
    ) {
        if !self.reaches(from, to) || !self.nodes[to].up {
            let sender_has = self.database(from, from_run).is_some_and(|p| p.downstream.iter().any(|d| d.link == link));
            if sender_has {
                self.after(40_000, move |w| w.arrive(from, from_run, to, run, link, task));
            }
            return;
        }
        if self.database(to, run).is_none_or(|p| p.link() != Some(link)) {
            // The machine answers with a reset.
            return self.send(to, from, move |w| w.downstream_closed(from, from_run, link));
        }
        self.at_database(to, run, task);
    }

    /// Sends everybody behind this one what they have not been sent.
    pub(crate) fn pump(&mut self, s: usize, run: u64) {
        let unread = self.bug == Some(Bug::AcknowledgesUnread);
        let Some(p) = self.database(s, run) else { return };
        let log = p.sql.is_some().then(|| World::sends_to(p));
        let offset = log.map_or(p.offset, |end| self.histories.depth(end));
        let Some(p) = self.database(s, run) else { return };
        let behind: Vec<_> = p
            .downstream
            .iter()
            .filter(|d| d.online && d.sent < offset)
            .map(|d| (d.link, d.node, d.run, d.sent))
            .collect();
        p.downstream.iter_mut().filter(|d| d.online).for_each(|d| {
            d.sent = offset;
            d.ack = if unread { offset } else { d.ack };
        });
        for (link, node, node_run, sent) in behind {
            let Some(p) = self.database(s, run) else { return };
            let bytes = log.map_or_else(|| Bytes::Entries(p.since(sent)), Bytes::Log);
            self.stream(s, run, node, node_run, link, move |w| w.receive(node, node_run, link, sent, bytes));
        }
    }

    /// TCP keeps the order: what overtook waits for what comes before it.
    fn receive(&mut self, n: usize, run: u64, link: u64, start: u64, bytes: Bytes) {
        let Some(p) = self.database(n, run).filter(|p| p.link() == Some(link)) else { return };
        let online = p.upstream().is_some_and(|up| up.state == LinkState::Online);
        if !online || p.offset < start {
            return self.after(500, move |w| w.at_database(n, run, move |w| w.receive(n, run, link, start, bytes)));
        }
        self.take_in(n, run, link, bytes);
    }

    fn take_in(&mut self, n: usize, run: u64, link: u64, bytes: Bytes) {
        let now = self.now;
        let entries = match bytes {
            Bytes::Entries(entries) => entries,
            Bytes::Log(end) => return self.take_log(n, run, link, end),
        };
        let node = &mut self.nodes[n];
        if node.disk.bad
            && entries.iter().any(|e| *e != Entry::Ping)
            && node.database.as_ref().is_some_and(|p| p.run == run)
        {
            // `replica-ignore-disk-write-errors no`: it does not acknowledge what it cannot keep.
            return self.kill_database(n, "its disk takes no writes");
        }
        let Some(p) = node.database.as_mut().filter(|p| p.run == run) else { return };
        entries.into_iter().for_each(|entry| p.append(entry, now, &mut node.disk));
        if let Some(up) = p.upstream() {
            up.heard = now;
        }
        self.pump(n, run);
        self.acknowledge(n, run, link);
    }

    /// What was received is on disk, acknowledged, and applied later.
    fn take_log(&mut self, n: usize, run: u64, link: u64, end: Knot) {
        let (now, lags) = (self.now, self.bug == Some(Bug::ReceivedNotSynced));
        let Some(sql) = self.database(n, run).and_then(|p| p.sql.as_ref()) else { return };
        let (tip, postgres) = (sql.tip, sql.postgres());
        let news = self.histories.depth(end) > self.histories.depth(tip);
        if self.nodes[n].disk.bad && news {
            if postgres {
                return self.kill_database(n, "its disk takes no writes");
            }
            // It waits for room.
            return self.after(200_000, move |w| w.at_database(n, run, move |w| w.take_log(n, run, link, end)));
        }
        if self.database(n, run).is_none_or(|p| p.link() != Some(link)) {
            return;
        }
        if !self.histories.holds(end, tip) && !self.histories.holds(tip, end) {
            return self.stops_receiving(n, run, link, Stopped::Parted);
        }
        let Some(p) = self.nodes[n].database.as_mut() else { return };
        if let Some(up) = p.upstream() {
            up.heard = now;
        }
        if news {
            self.histories.between(tip, end).for_each(|entry| p.data.apply(entry));
            p.offset = self.histories.depth(end);
            p.sql.iter_mut().for_each(|sql| sql.tip = end);
            let log = &mut self.nodes[n].disk.log;
            log.received = end;
            if lags {
                log.unsynced.push((now, tip));
                let old = log.unsynced.iter().filter(|(at, _)| now - at > super::data::FSYNC_LAG_US).count();
                log.unsynced.drain(..old);
            }
            self.apply_received(n, run);
            self.pump(n, run);
        }
        self.postgres_comes_up_if_it_can(n, run, postgres);
        if news || postgres {
            self.acknowledge(n, run, link);
        }
    }

    fn postgres_comes_up_if_it_can(&mut self, n: usize, run: u64, postgres: bool) {
        let waits =
            self.database(n, run).is_some_and(|p| p.loading && p.sql.as_ref().is_some_and(|s| s.required.is_some()));
        if postgres && waits {
            self.postgres_comes_up(n, run);
        }
    }

    fn acknowledge(&mut self, n: usize, run: u64, link: u64) {
        let Some(p) = self.database(n, run) else { return };
        let offset = p.offset;
        let Some(source) = p.upstream().filter(|up| up.state == LinkState::Online).map(|up| up.source) else { return };
        let Some(s_run) = self.nodes[source].database.as_ref().map(|p| p.run) else { return };
        self.send(n, source, move |w| {
            w.at_database(source, s_run, move |w| w.acknowledged(source, s_run, link, offset))
        });
    }

    fn acknowledged(&mut self, s: usize, run: u64, link: u64, offset: u64) {
        let now = self.now;
        let Some(p) = self.database(s, run) else { return };
        for d in p.downstream.iter_mut().filter(|d| d.link == link) {
            d.ack = d.ack.max(offset);
            d.acked_at = now;
        }
        if let Some(sql) = &mut p.sql {
            sql.acknowledgements += 1;
            return self.release_commits(s, run);
        }
        self.release_waiters(s, run);
    }

    /// An SQL engine's word that the link stands though there is nothing to send.
    fn keep_alive(&mut self, s: usize, run: u64) {
        let Some(p) = self.database(s, run) else { return };
        let links: Vec<_> = p.downstream.iter().map(|d| (d.link, d.node, d.run)).collect();
        for (link, node, node_run) in links {
            self.stream(s, run, node, node_run, link, move |w| {
                let now = w.now;
                if let Some(up) =
                    w.database(node, node_run).filter(|p| p.link() == Some(link)).and_then(|p| p.upstream())
                {
                    up.heard = now;
                }
            });
        }
    }

    /// Ends this process's own link.
    pub(crate) fn drop_upstream(&mut self, n: usize, run: u64) {
        let Some(p) = self.database(n, run) else { return };
        let Some(up) = p.upstream() else { return };
        let (source, Some(link)) = (up.source, up.link.take()) else { return };
        self.load_ends(n, run);
        let Some(s_run) = self.nodes[source].database.as_ref().map(|p| p.run) else { return };
        self.send(n, source, move |w| w.at_database(source, s_run, move |w| w.downstream_closed(source, s_run, link)));
    }

    /// Ends the links of those behind it.
    pub(crate) fn drop_downstream(&mut self, s: usize, run: u64, which: impl Fn(usize) -> bool) {
        let now = self.now;
        let Some(p) = self.database(s, run) else { return };
        let gone: Vec<_> = p.downstream.iter().filter(|d| which(d.node)).map(|d| (d.link, d.node, d.run)).collect();
        p.downstream.retain(|d| !which(d.node));
        p.count_replicas(now);
        for (link, node, node_run) in gone {
            self.send(s, node, move |w| {
                w.at_database(node, node_run, move |w| w.upstream_closed(node, node_run, link));
            });
        }
    }

    fn downstream_closed(&mut self, s: usize, run: u64, link: u64) {
        let now = self.now;
        if let Some(p) = self.database(s, run) {
            p.downstream.retain(|d| d.link != link);
            p.count_replicas(now);
        }
    }

    pub(crate) fn upstream_closed(&mut self, n: usize, run: u64, link: u64) {
        if self.database(n, run).is_none_or(|p| p.link() != Some(link)) {
            return;
        }
        self.load_ends(n, run);
        let Some(p) = self.database(n, run) else { return };
        if let Some(up) = p.upstream() {
            up.link = None;
        }
    }

    /// Redis's own clock: pings, acknowledgements, time limits, another try.
    pub(crate) fn cron(&mut self, n: usize, run: u64, beat: u64) {
        if self.database(n, run).is_none() {
            return;
        }
        self.after(250_000, move |w| w.cron(n, run, beat + 1));
        if self.database(n, run).is_some_and(|p| p.paused) {
            return;
        }
        let (now, kind) = (self.now, self.kind());
        let node = &mut self.nodes[n];
        let Some(p) = node.database.as_mut() else { return };
        if beat.is_multiple_of(4) {
            p.count_replicas(now);
        }
        let late = |since: u64| now.saturating_sub(since) > LINK_TIMEOUT_US;
        if beat.is_multiple_of(4) && p.is_master() && !p.downstream.is_empty() && kind == Kind::Redis {
            p.append(Entry::Ping, now, &mut node.disk);
        }
        // MariaDB does not notice.
        let stale: Vec<usize> =
            p.downstream.iter().filter(|d| late(d.acked_at) && kind != Kind::Mariadb).map(|d| d.node).collect();
        let (mut cut, mut idle, mut online) = (false, false, None);
        if let Some(up) = p.upstream() {
            let limit = if up.state == LinkState::Connecting { 1_000_000 } else { LINK_TIMEOUT_US };
            cut = up.link.is_some() && now.saturating_sub(up.heard) > limit;
            idle = up.link.is_none() && (!p.loading || kind == Kind::Postgres);
            online = p.link();
        }
        self.drop_downstream(n, run, |node| stale.contains(&node));
        if cut {
            self.drop_upstream(n, run);
        } else if idle {
            self.connect(n, run);
        } else if let (Some(link), 0) = (online, beat % 4)
            && kind != Kind::Mariadb
        {
            self.acknowledge(n, run, link);
        }
        if kind != Kind::Redis && beat.is_multiple_of(2) {
            self.keep_alive(n, run);
        }
        self.pump(n, run);
    }
}
