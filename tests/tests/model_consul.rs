//! The model of Consul that the simulation stands on (`tests/src/sim/kv.rs`), held against a real one: the same answers to
//! the same requests, the same order of indexes, the same ends of sessions.

use anyhow::{Context as _, Result, ensure};
use config::ConsulConfig;
use consul::{Consistency, Consul, TxnOp, Written};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use understudy_tests::real::{Story, build, leader, servers, start_unready};
use understudy_tests::sim::{Kv, Rng};

const SEEDS: u64 = 8;
const STEPS: u32 = 150;

/// A session that is this old when Consul's leader dies would have less than its time to live left, did its timer go on:
/// Consul ends a session at twice its time to live.
const OLD: Duration = Duration::from_secs(12);

/// Far below the time to live of a session.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// A read that waits for a change that comes, and for one that does not.
const WAITS: [Duration; 2] = [Duration::from_secs(20), Duration::from_millis(20)];

/// Consul and its model, and what is known of the one from the other.
struct Both {
    rng: Rng,
    http: reqwest::Client,
    address: String,
    consul: Consul,
    model: Kv,
    folder: String,
    /// The model's indexes, and Consul's. Others than ours raise Consul's, too: only their order is the same.
    indexes: BTreeMap<u64, u64>,
    sessions: Vec<String>,
    renewed: Instant,
}

impl Both {
    async fn new(seed: u64, server: &Story) -> Result<Self> {
        Self::at(seed, vec![server.consul_address()]).await
    }

    /// The same on several servers of one Consul.
    async fn at(seed: u64, addresses: Vec<String>) -> Result<Self> {
        let mut both = Self {
            rng: Rng::new(seed),
            http: reqwest::Client::new(),
            address: addresses[0].clone(),
            consul: Consul::connect(&ConsulConfig { addresses, ..ConsulConfig::default() })?,
            model: Kv::default(),
            folder: format!("model/{seed}/"),
            indexes: BTreeMap::from([(0, 0)]),
            sessions: Vec::new(),
            renewed: Instant::now(),
        };
        // A folder in which nothing ever stood has an index that others raise.
        both.transact(&[TxnOp::Set { key: both.key("record"), value: Vec::new() }]).await?;
        both.create_session().await?;
        Ok(both)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    /// An index of the model's and one of Consul's that say the same: nothing else may contradict it.
    fn same(&mut self, model: u64, real: u64, what: &str) -> Result<()> {
        let known = *self.indexes.entry(model).or_insert(real);
        let before = self.indexes.range(..model).next_back().is_none_or(|(_, before)| *before < real);
        let after = self.indexes.range(model + 1..).next().is_none_or(|(_, after)| real < *after);
        ensure!(known == real && before && after, "{what}: {real} for the model's {model}, known: {:?}", self.indexes);
        Ok(())
    }

    async fn create_session(&mut self) -> Result<()> {
        let id = self.consul.create_session("model").await?;
        self.model.create_session(&id);
        self.sessions.push(id);
        Ok(())
    }

    fn some_session(&mut self) -> String {
        self.sessions[self.rng.index(self.sessions.len())].clone()
    }

    /// The same operation with an index that Consul knows.
    fn translated(&self, op: &TxnOp) -> TxnOp {
        let real = |index: &u64| self.indexes.get(index).copied().unwrap_or(u64::MAX / 2);
        let mut op = op.clone();
        if let TxnOp::Cas { index, .. } | TxnOp::DeleteCas { index, .. } | TxnOp::CheckIndex { index, .. } = &mut op {
            *index = real(index);
        }
        op
    }

    async fn transact(&mut self, ops: &[TxnOp]) -> Result<()> {
        let real = self.consul.transact(ops.iter().map(|op| self.translated(op)).collect()).await?;
        let model = self.model.transact(ops);
        match (model, real) {
            (Ok(written), Written::Applied { index }) => {
                let first = written.iter().find(|(key, _)| key == ops[0].key()).map_or(0, |(_, index)| *index);
                self.same(first, index, "the index of what was written first")
            }
            (Err(places), Written::Refused { why }) => {
                let told: Vec<&str> = why.split("; ").collect();
                let names = told.len() == places.len();
                let names = names && places.iter().zip(&told).all(|(place, told)| told.contains(ops[*place].key()));
                ensure!(names, "the model refuses {places:?}, Consul: {why}");
                Ok(())
            }
            (model, real) => anyhow::bail!("the model answers {model:?}, Consul {real:?}"),
        }
    }

    /// One operation on one of a few keys, with an index that is right, old, or 0.
    fn some_op(&mut self) -> TxnOp {
        let name = ["record", "leader", "command", "members/a"][self.rng.index(4)];
        let key = self.key(name);
        let value = vec![b'a' + u8::try_from(self.rng.index(3)).unwrap_or_default()];
        let session = self.some_session();
        let stands = self.model.get(&key).map_or(0, |pair| pair.modified);
        let index = match self.rng.index(4) {
            0 => 0,
            1 => *self.indexes.keys().nth(self.rng.index(self.indexes.len())).unwrap_or(&0),
            _ => stands,
        };
        match self.rng.index(10) {
            0 | 1 => TxnOp::Cas { key, value, index },
            2 => TxnOp::Set { key, value },
            3 | 4 => TxnOp::Lock { key, value, session },
            5 => TxnOp::Unlock { key, value, session },
            6 => TxnOp::Delete { key },
            7 => TxnOp::DeleteCas { key, index },
            8 => TxnOp::CheckSession { key, session },
            _ if self.rng.chance(500) => TxnOp::CheckIndex { key, index },
            _ => TxnOp::CheckNotExists { key },
        }
    }

    /// As agents write: a takeover, with the leader key of whoever holds it, and a request that is consumed.
    fn takeover(&mut self) -> Vec<TxnOp> {
        let (record, leader, command) = (self.key("record"), self.key("leader"), self.key("command"));
        let index = self.model.get(&record).map_or(0, |pair| pair.modified);
        let value = self.rng.text().into_bytes();
        let holder = self.model.get(&leader).and_then(|pair| pair.session.clone());
        let mut ops = vec![TxnOp::Cas { key: record, value: value.clone(), index }];
        ops.extend(holder.map(|session| TxnOp::Unlock { key: leader.clone(), value: value.clone(), session }));
        ops.push(TxnOp::Lock { key: leader, value: value.clone(), session: self.some_session() });
        if let Some(index) = self.model.get(&command).map(|pair| pair.modified).filter(|_| self.rng.chance(500)) {
            ops.push(TxnOp::CheckIndex { key: command.clone(), index });
            ops.push(TxnOp::DeleteCas { key: command, index });
        }
        ops.push(TxnOp::Set { key: self.key("result"), value });
        ops
    }

    async fn step(&mut self) -> Result<()> {
        if self.renewed.elapsed() > RENEW_EVERY {
            self.renewed = Instant::now();
            for id in self.sessions.clone() {
                ensure!(self.consul.renew_session(&id).await? == self.model.has_session(&id), "renewing {id}");
            }
        }
        match self.rng.index(12) {
            0 => self.create_session().await?,
            1 => {
                let id = self.some_session();
                ensure!(self.consul.renew_session(&id).await? == self.model.has_session(&id), "renewing {id}");
            }
            2 => {
                let id = self.some_session();
                let (read, expected) = self.begin_read(|model| model.end_session(&id));
                self.consul.destroy_session(&id).await?;
                self.model.end_session(&id);
                self.read_ends(read, expected).await?;
            }
            3 | 4 => {
                let ops = self.takeover();
                self.transact(&ops).await?;
            }
            _ => {
                let ops: Vec<TxnOp> = (0..=self.rng.index(3)).map(|_| self.some_op()).collect();
                let (read, expected) = self.begin_read(|model| drop(model.transact(&ops)));
                self.transact(&ops).await.with_context(|| format!("{ops:?}"))?;
                self.read_ends(read, expected).await?;
            }
        }
        self.listings_are_the_same().await
    }

    /// A blocking read of the folder from its present index on; what `change` will make of that index in the model.
    fn begin_read(&self, change: impl FnOnce(&mut Kv)) -> (tokio::task::JoinHandle<Result<u64>>, u64) {
        let mut after = self.model.clone();
        change(&mut after);
        let (present, expected) = (self.model.list(&self.folder).0, after.list(&self.folder).0);
        let wait = WAITS[usize::from(present == expected)].as_millis();
        let from = self.indexes.get(&present).copied().unwrap_or_default();
        let request =
            self.http.get(format!("{}/v1/kv/{}?recurse&index={from}&wait={wait}ms", self.address, self.folder));
        let read = tokio::spawn(async move {
            let answer = request.send().await?;
            Ok(answer.headers().get("x-consul-index").context("no index")?.to_str()?.parse::<u64>()?)
        });
        (read, expected)
    }

    async fn read_ends(&mut self, read: tokio::task::JoinHandle<Result<u64>>, expected: u64) -> Result<()> {
        let index = read.await??;
        self.same(expected, index, "the index that a blocking read came back with")
    }

    async fn listings_are_the_same(&mut self) -> Result<()> {
        let real = self.consul.list(&self.folder, Consistency::Consistent).await?;
        let (index, pairs) = self.model.list(&self.folder);
        let pairs: Vec<_> = pairs.map(|(key, pair)| (key.clone(), pair.clone())).collect();
        self.same(index, real.index, "the folder's index")?;
        ensure!(pairs.len() == real.entries.len(), "the model has {pairs:?}, Consul {:?}", real.entries);
        for ((key, pair), entry) in pairs.into_iter().zip(real.entries) {
            let same = (&key, &pair.value, &pair.session) == (&entry.key, &entry.value, &entry.session);
            ensure!(same, "the model has {key} {pair:?}, Consul {entry:?}");
            self.same(pair.modified, entry.modify_index, &key)?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_alike() -> Result<()> {
    let server = start_unready(build()?.nodes(0).proxies(0)).await?;
    for seed in 1..=SEEDS {
        let mut both = Both::new(seed, &server).await?;
        for step in 1..=STEPS {
            both.step().await.with_context(|| format!("seed {seed}, step {step}"))?;
        }
    }
    Ok(())
}

/// Consul ends a session some time between once and twice its time to live after it was last renewed, as the simulation
/// does; what it held goes at one index.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_as_late_as_the_models() -> Result<()> {
    const TTL: Duration = consul::SESSION_TTL;
    let server = start_unready(build()?.nodes(0).proxies(0)).await?;
    let mut both = Both::new(0, &server).await?;
    let mut began = Vec::new();
    for keys in [&["a", "b"][..], &["c"], &["d"]] {
        both.create_session().await?;
        began.push(Instant::now());
        for key in keys {
            let session = both.sessions.last().context("a session")?.clone();
            both.transact(&[TxnOp::Lock { key: both.key(key), value: Vec::new(), session }]).await?;
        }
    }
    both.listings_are_the_same().await?;
    // The first is the one that every comparison begins with; the last is renewed for as long as this takes.
    let [_, abandoned, once, kept] = [0, 1, 2, 3].map(|at| both.sessions[at].clone());
    let mut ended = BTreeMap::new();
    while ended.len() < 2 {
        ensure!(both.consul.renew_session(&kept).await?, "a session that is renewed has ended");
        if began[1].elapsed() < TTL / 2 {
            both.consul.renew_session(&once).await?;
            began[1] = began[1].max(began[0]);
        }
        let real = both.consul.list(&both.folder, Consistency::Consistent).await?;
        for (id, key) in [(&abandoned, "a"), (&once, "c")] {
            let there = real.entries.iter().any(|entry| entry.key == both.key(key));
            if !there && !ended.contains_key(id) {
                ended.insert(id.clone(), Instant::now());
                both.model.end_session(id);
                // All of its keys, and nobody else's, at one index.
                both.listings_are_the_same().await?;
            }
        }
        ensure!(began[0].elapsed() < 6 * TTL, "sessions that nobody renews do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(ended[&abandoned].duration_since(began[0]) >= TTL, "a session ended before its time");
    ensure!(ended[&once].duration_since(began[1]) >= TTL + TTL / 2 - Duration::from_secs(1), "a renewal did not count");
    for id in [&abandoned, &once] {
        ensure!(!both.consul.renew_session(id).await?, "a session that has ended was renewed");
        both.transact(&[TxnOp::Lock { key: both.key("a"), value: Vec::new(), session: id.clone() }]).await?;
    }
    both.listings_are_the_same().await
}

/// A new leader of Consul's starts every session's timer anew, as the model's does: a session that nobody renews any more
/// ends no sooner than its time to live after the old leader's death, however old it was; what it held goes at one index,
/// and nothing that was written before is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_starts_every_sessions_timer_anew() -> Result<()> {
    const TTL: Duration = consul::SESSION_TTL;
    let folder = tempfile::tempdir()?;
    let mut servers = servers(folder.path()).await?;
    let leading = leader(&servers).await?;
    let others = servers.iter().enumerate().filter(|(n, _)| *n != leading).map(|(_, server)| server.address());
    let mut both = Both::at(0, others.collect()).await?;
    both.create_session().await?;
    for key in ["a", "b"] {
        let session = both.sessions[1].clone();
        both.transact(&[TxnOp::Lock { key: both.key(key), value: Vec::new(), session }]).await?;
    }
    both.listings_are_the_same().await?;
    let (kept, abandoned, began) = (both.sessions[0].clone(), both.sessions[1].clone(), Instant::now());
    while began.elapsed() < OLD {
        ensure!(both.consul.renew_session(&kept).await?, "a session that is renewed has ended");
        tokio::time::sleep(RENEW_EVERY).await;
    }
    both.listings_are_the_same().await.context("before its leader dies")?;
    let died = Instant::now();
    drop(servers.remove(leading));
    leader(&servers).await?;
    let ended = loop {
        // While they elect, nobody is answered.
        let renewed = both.consul.renew_session(&kept).await.unwrap_or(true);
        ensure!(renewed, "a session that is renewed has ended with a leader");
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(died.elapsed() < 6 * TTL, "a session that nobody renews does not end");
        let Ok(real) = both.consul.list(&both.folder, Consistency::Consistent).await else { continue };
        if !real.entries.iter().any(|entry| entry.key == both.key("a")) {
            break died.elapsed();
        }
    };
    println!("it ended {ended:?} after the death of Consul's leader");
    ensure!(ended >= TTL, "its timer was not started anew: it ended {ended:?} after the leader's death");
    both.model.end_session(&abandoned);
    both.listings_are_the_same().await
}
