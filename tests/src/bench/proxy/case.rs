//! The cases: what redis-benchmark, pgbench and sysbench are asked to do.

use config::Engine;

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(super) work: Work,
}

/// What is done to a server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// So many requests, by these arguments of redis-benchmark.
    Requests(u32, &'static [&'static str]),
    /// So many connections that are opened, say one word and then nothing.
    Idle(u32),
    /// Rows read by their key, one at a time.
    Reads(Reads),
}

/// Reads of an engine that speaks SQL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reads {
    /// By all clients together.
    pub(super) count: u32,
    pub(super) clients: u32,
    /// By a statement that the server has prepared, else by its text.
    pub(super) prepared: bool,
}

/// The key that the case of large values reads; it is written before.
pub(super) const LARGE_KEY: &str = "bench:large";
pub(super) const LARGE_BYTES: usize = 1 << 20;

/// The cases of an engine.
pub(crate) fn cases(engine: Engine) -> &'static [Case] {
    match engine {
        Engine::Redis => &REDIS_CASES,
        Engine::Postgres | Engine::Mariadb => &SQL_CASES,
    }
}

/// Redis' cases. Each takes two to four seconds through the slower proxies: long against the 10 ms in which Linux tells
/// processor time, short enough for five rounds of all in half an hour.
const REDIS_CASES: [Case; 11] = [
    requests("set-c50-p1", 300_000, &["-t", "set", "-c", "50", "-P", "1"]),
    requests("get-c50-p1", 300_000, &["-t", "get", "-c", "50", "-P", "1"]),
    requests("set-c50-p16", 1_200_000, &["-t", "set", "-c", "50", "-P", "16"]),
    requests("get-c50-p16", 1_600_000, &["-t", "get", "-c", "50", "-P", "16"]),
    requests("set-c50-p64", 1_500_000, &["-t", "set", "-c", "50", "-P", "64"]),
    requests("get-c50-p64", 2_000_000, &["-t", "get", "-c", "50", "-P", "64"]),
    requests("set-c1-p1", 50_000, &["-t", "set", "-c", "1", "-P", "1"]),
    requests("get-c1-p1", 50_000, &["-t", "get", "-c", "1", "-P", "1"]),
    requests("get1m-c10", 5_000, &["-c", "10", "GET", LARGE_KEY]),
    requests("connect-c50", 20_000, &["-t", "get", "-c", "50", "-P", "1", "-k", "0"]),
    Case { name: "idle-5000", work: Work::Idle(5_000) },
];

/// The cases of the others, as long.
const SQL_CASES: [Case; 6] = [
    reads("simple-c1", Reads { count: 20_000, clients: 1, prepared: false }),
    reads("simple-c8", Reads { count: 60_000, clients: 8, prepared: false }),
    reads("simple-c50", Reads { count: 60_000, clients: 50, prepared: false }),
    reads("prepared-c1", Reads { count: 30_000, clients: 1, prepared: true }),
    reads("prepared-c8", Reads { count: 100_000, clients: 8, prepared: true }),
    reads("prepared-c50", Reads { count: 100_000, clients: 50, prepared: true }),
];

const fn reads(name: &'static str, reads: Reads) -> Case {
    Case { name, work: Work::Reads(reads) }
}

const fn requests(name: &'static str, count: u32, args: &'static [&'static str]) -> Case {
    Case { name, work: Work::Requests(count, args) }
}
