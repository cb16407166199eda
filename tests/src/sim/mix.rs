//! What one seed is made of: the group, and which faults it meets how often (swarm testing: no seed meets all).

use super::quiet::Manners;
use super::rng::Rng;
use config::Engine as Kind;
use election::{Durability, Policy, Reads, WithoutReplica};

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillDatabase,
    KillAgent,
    KillNode,
    PowerLoss,
    PauseDatabase,
    PauseAgent,
    PauseNode,
    Partition,
    OneWay,
    ConsulOutage,
    CutFromConsul,
    Switchover,
    Flush,
    MasterDatabase,
    MasterNode,
    MasterPause,
    ReplicaDatabase,
    BreakLink,
    Pause,
    Force,
    Drain,
    Reinit,
    DiskFails,
    ConsulGoesBack,
    Fsync,
    ConsulLeader,
    DiskLost,
}

const FAULTS: [Fault; 27] = [
    Fault::KillDatabase,
    Fault::KillAgent,
    Fault::KillNode,
    Fault::PowerLoss,
    Fault::PauseDatabase,
    Fault::PauseAgent,
    Fault::PauseNode,
    Fault::Partition,
    Fault::OneWay,
    Fault::ConsulOutage,
    Fault::CutFromConsul,
    Fault::Switchover,
    Fault::Flush,
    Fault::MasterDatabase,
    Fault::MasterNode,
    Fault::MasterPause,
    Fault::ReplicaDatabase,
    Fault::BreakLink,
    Fault::Pause,
    Fault::Force,
    Fault::Drain,
    Fault::Reinit,
    Fault::DiskFails,
    Fault::ConsulGoesBack,
    Fault::Fsync,
    Fault::ConsulLeader,
    Fault::DiskLost,
];

/// See [`Mix::reading`].
const READING: u64 = 300;

/// One seed's world.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    pub(crate) engine: Kind,
    pub(crate) nodes: usize,
    pub(crate) priorities: Vec<u32>,
    pub(crate) policy: Policy,
    pub(crate) faults: Vec<Fault>,
    /// Microseconds between faults, on average.
    pub(crate) pace: u64,
    /// In a thousand: transactions lost before, lost after, and applied late.
    pub(crate) txn: [u64; 3],
    pub(crate) drop: u64,
    pub(crate) slow: u64,
    pub(crate) op_fails: u64,
    pub(crate) late_views: u64,
    pub(crate) stubborn: bool,
    /// Each with a client that writes all the time.
    pub(crate) proxies: Vec<Manners>,
    /// In a thousand of each client's requests: reads, where these are durable.
    pub(crate) reading: Vec<u64>,
    /// In a thousand: a fault right after the record has changed, and an agent's end in the middle of an effect.
    pub(crate) ambush: [u64; 2],
    /// In a thousand commits of an SQL engine: their clients do not wait for long.
    pub(crate) impatient: u64,
}

impl Mix {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let nodes = [3, 3, 3, 3, 4, 4, 4, 2, 2, 1][rng.index(10)];
        let mut priorities = vec![100; nodes];
        if nodes > 1 && rng.chance(150) {
            priorities[rng.index(nodes)] = 0;
        }
        let mut policy = Policy::default();
        if rng.chance(250) {
            policy.without_replica = WithoutReplica::Block;
        }
        if rng.chance(150) {
            policy.durability = Durability::Async;
        }
        if rng.chance(300) {
            policy.reads = Reads::Durable;
        }
        policy.flap_pause = [10_000, 10_000, 2_000][rng.index(3)];
        let mut faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| rng.chance(350)).collect();
        if faults.is_empty() {
            faults.push(FAULTS[rng.index(FAULTS.len())]);
        }
        let mut often = |most: u64| if rng.chance(500) { rng.range(0, most) } else { 0 };
        let txn = [often(100), often(100), often(300)];
        let ambush = [often(300), often(20)];
        let (drop, slow, op_fails, late_views) = (often(100), often(50), often(60), often(100));
        let mut proxies: Vec<_> = (0..2).map(|_| Manners::REDIS[rng.index(Manners::REDIS.len())]).collect();
        if rng.chance(400) {
            proxies.push(Manners::Carries);
        }
        policy.fsync = rng.chance(250);
        let pace = [800_000, 2_000_000, 5_000_000][rng.index(3)];
        Self {
            engine: Kind::Redis,
            nodes,
            priorities,
            policy,
            faults,
            pace,
            txn,
            drop,
            slow,
            op_fails,
            late_views,
            ambush,
            stubborn: rng.chance(500),
            reading: vec![READING; proxies.len()],
            proxies,
            impatient: 0,
        }
    }

    /// The same group of another engine, and what that has of its own.
    pub(crate) fn with(mut self, engine: Kind, rng: &mut Rng) -> Self {
        self.engine = engine;
        if engine == Kind::Redis {
            return self;
        }
        (self.policy.fsync, self.policy.reads) = (true, Reads::Local);
        self.faults.retain(|fault| *fault != Fault::Fsync);
        if self.faults.is_empty() {
            self.faults.push(Fault::KillNode);
        }
        let manners = if engine == Kind::Postgres { Manners::SQL } else { [Manners::Carries; 2] };
        self.proxies.iter_mut().for_each(|proxy| *proxy = manners[rng.index(manners.len())]);
        self.impatient = if rng.chance(500) { rng.range(0, 400) } else { 0 };
        self
    }

    /// A group in which nothing goes wrong by itself.
    pub(crate) fn calm_group(nodes: usize, policy: Policy) -> Self {
        Self {
            engine: Kind::Redis,
            nodes,
            priorities: vec![100; nodes],
            policy,
            faults: Vec::new(),
            pace: 1,
            txn: [0; 3],
            drop: 0,
            slow: 0,
            op_fails: 0,
            late_views: 0,
            ambush: [0; 2],
            stubborn: false,
            proxies: vec![Manners::Holds; 2],
            reading: vec![READING; 2],
            impatient: 0,
        }
    }

    /// Faults have ended.
    pub(crate) fn calm(&mut self) {
        self.txn = [0; 3];
        self.ambush = [0; 2];
        self.impatient = 0;
        (self.drop, self.slow, self.op_fails, self.late_views) = (0, 0, 0, 0);
    }
}
