//! Point reads of engines that speak SQL: pgbench for PostgreSQL, sysbench for MariaDB; how they are started, and what
//! they say.

use super::super::sql;
use super::case::Reads;
use super::load::Load;
use super::stage::need;
use anyhow::{Context, Result, bail, ensure};
use config::Engine;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Far more than any case takes.
const LIMIT: Duration = Duration::from_secs(180);

/// Rows of MariaDB's table; pgbench's has as many at its scale of 1.
const ROWS: &str = "100000";

/// MariaDB's database.
const DATABASE: &str = "bench";

/// The share of pgbench's transactions whose times are written down: all of them would cost it a tenth of its speed.
const SAMPLED: &str = "0.1";

/// The program that reads.
pub(super) enum Reader {
    Pgbench(PathBuf),
    Sysbench(PathBuf),
}

impl Reads {
    /// The same with `count` reads, or as many more as give each client the same number.
    pub(super) fn times(self, count: u32) -> Self {
        Self { count: count.div_ceil(self.clients) * self.clients, ..self }
    }
}

impl Reader {
    /// The one for this engine.
    pub(super) fn find(engine: Engine) -> Result<Self> {
        match engine {
            Engine::Postgres => need("pgbench").map(Self::Pgbench),
            Engine::Mariadb => need("sysbench").map(Self::Sysbench),
            Engine::Redis => bail!("Redis has no rows"),
        }
    }

    /// Makes the table that is read.
    pub(super) async fn fill(&self, master: SocketAddr) -> Result<()> {
        let port = master.port();
        match self {
            Self::Pgbench(program) => said(pgbench(program, port).args(["-i", "-q", "postgres"])).await.map(drop),
            Self::Sysbench(program) => {
                sql::run(Engine::Mariadb, master, &format!("CREATE DATABASE {DATABASE}")).await?;
                said(sysbench(program, port).arg("prepare")).await.map(drop)
            }
        }
    }

    /// Reads rows through a port of this machine.
    pub(super) async fn run(&self, port: u16, reads: Reads) -> Result<Load> {
        let Reads { count, clients, prepared } = reads;
        match self {
            Self::Pgbench(program) => {
                let folder = tempfile::Builder::new().prefix("understudy-pgbench-").tempdir()?;
                let log = folder.path().join("times");
                let mut command = pgbench(program, port);
                command.args(["-n", "-S", "-M", if prepared { "prepared" } else { "simple" }]);
                command.args(["-c", &clients.to_string(), "-t", &(count / clients).to_string()]);
                command.args(["-l", "--sampling-rate", SAMPLED]).arg("--log-prefix").arg(&log).arg("postgres");
                let said = said(&mut command).await?;
                let (rps, done) = pgbench_says(&said).with_context(|| format!("pgbench said {said}"))?;
                ensure!(done == count, "pgbench did {done} of {count} reads: {said}");
                let times = sampled(folder.path())?;
                Ok(Load { rps, p50_ms: percentile(&times, 0.5), p99_ms: percentile(&times, 0.99) })
            }
            Self::Sysbench(program) => {
                let mut command = sysbench(program, port);
                command.args([format!("--threads={clients}"), format!("--events={count}")]);
                command.args(["--time=0", "--histogram=on"]);
                command.args([if prepared { "--db-ps-mode=auto" } else { "--db-ps-mode=disable" }, "run"]);
                let said = said(&mut command).await?;
                let (rps, times) = sysbench_says(&said).with_context(|| format!("sysbench said {said}"))?;
                Ok(Load { rps, p50_ms: percentile(&times, 0.5), p99_ms: percentile(&times, 0.99) })
            }
        }
    }
}

fn pgbench(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
    command
}

fn sysbench(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["oltp_point_select", "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=root"]);
    command.args([format!("--mysql-port={port}"), format!("--mysql-db={DATABASE}"), format!("--table-size={ROWS}")]);
    command
}

/// What a program says that does its work.
async fn said(command: &mut Command) -> Result<String> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let Output { status, stdout, stderr } =
        timeout(LIMIT, running).await.with_context(|| format!("it took over {LIMIT:?}: {command:?}"))??;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.success(), "{command:?} failed ({status}): {said}{}", String::from_utf8_lossy(&stderr));
    Ok(said)
}

/// Transactions a second, and how many there were.
fn pgbench_says(said: &str) -> Option<(f64, u32)> {
    let after = |start: &str| said.lines().find_map(|line| line.strip_prefix(start));
    let rps = after("tps = ")?.split_whitespace().next()?.parse().ok()?;
    let done = after("number of transactions actually processed: ")?.split('/').next()?.parse().ok()?;
    Some((rps, done))
}

/// Milliseconds of the transactions that pgbench wrote down in this folder, each once.
fn sampled(folder: &Path) -> Result<Vec<(f64, u64)>> {
    let mut times = Vec::new();
    for file in fs::read_dir(folder)? {
        for line in fs::read_to_string(file?.path())?.lines() {
            let micros = line.split_whitespace().nth(2).and_then(|word| word.parse::<f64>().ok());
            times.push((micros.with_context(|| format!("pgbench wrote {line:?}"))? / 1_000.0, 1));
        }
    }
    times.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Ok(times)
}

/// Reads a second, and its histogram: milliseconds, in order, and how many took so long.
fn sysbench_says(said: &str) -> Option<(f64, Vec<(f64, u64)>)> {
    let rate = said.lines().find_map(|line| line.trim().strip_prefix("transactions:"))?;
    let rps = rate.split_once('(')?.1.split_whitespace().next()?.parse().ok()?;
    let rows = said.lines().filter_map(|line| {
        let (ms, bar) = line.split_once('|')?;
        Some((ms.trim().parse().ok()?, bar.split_whitespace().last()?.parse().ok()?))
    });
    let times: Vec<(f64, u64)> = rows.collect();
    (!times.is_empty()).then_some((rps, times))
}

/// The value that this share of the whole is not above; of nothing it is zero.
fn percentile(sorted: &[(f64, u64)], share: f64) -> f64 {
    let all: u64 = sorted.iter().map(|(_, count)| count).sum();
    let mut before = 0;
    let found = sorted.iter().find(|(_, count)| {
        before += count;
        before as f64 >= share * all as f64
    });
    found.or(sorted.last()).map_or(0.0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let said = "transaction type: <builtin: select only>\nnumber of transactions actually processed: 60000/60000\n\
                    number of failed transactions: 0 (0.000%)\nlatency average = 0.312 ms\n\
                    initial connection time = 20.1 ms\ntps = 25640.250000 (without initial connection time)\n";
        assert_eq!(pgbench_says(said), Some((25_640.25, 60_000)));
        assert_eq!(pgbench_says("pgbench: error"), None);
    }

    #[test]
    fn what_sysbench_says_is_read() {
        let said = "Latency histogram (values are in milliseconds)\n       value  ------------- distribution ------------- count\n\
                    \x20      0.050 |*********                                90\n       0.900 |*                                        10\n \n\
                    SQL statistics:\n    transactions:                        100    (15210.62 per sec.)\n";
        let (rps, times) = sysbench_says(said).unwrap();
        assert_eq!((rps, &times[..]), (15_210.62, &[(0.05, 90), (0.9, 10)][..]));
        assert_eq!((percentile(&times, 0.5), percentile(&times, 0.99)), (0.05, 0.9));
        assert_eq!(sysbench_says("FATAL: unable to connect"), None);
    }

    #[test]
    fn every_client_reads_as_often() {
        let reads = Reads { count: 0, clients: 50, prepared: false };
        assert_eq!([1, 50, 51].map(|count| reads.times(count).count), [50, 50, 100]);
    }
}
