//! A client of PostgreSQL or MariaDB that writes down what it was told.

use super::store::{ACCOUNTS, Closed, Found, OPENING, Session, Store};
use crate::history::{Bank, Outcome, Server, Transfer};
use anyhow::Context;
use config::Engine;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSeverity, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, MySqlConnection, PgConnection, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Both engines call the schema by this name. Rows may be doubled: only the registers' and accounts' names are unique.
const TABLES: [&str; 6] = [
    "CREATE SCHEMA IF NOT EXISTS chaos",
    "CREATE TABLE IF NOT EXISTS chaos.inserts (name varchar(64) NOT NULL, value bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS chaos.transfers (name varchar(64) NOT NULL, value bigint NOT NULL, \
     source int NOT NULL, target int NOT NULL, amount bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS chaos.registers (name varchar(64) PRIMARY KEY, value bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS chaos.accounts (account int PRIMARY KEY, balance bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS chaos.looks (name varchar(64) NOT NULL)",
];

/// Which process this is, and in which epoch. It takes no lock that the agent's own writes could wait for.
const WHO_POSTGRES: &str =
    "SELECT epoch, host(inet_server_addr()) || ' ' || pg_postmaster_start_time() FROM understudy.marker";

/// The agent draws the server's id for every run.
const WHO_MARIADB: &str = "SELECT epoch, @@server_id FROM understudy.marker";

/// Errors of MariaDB after which a statement may have been carried out all the same: the server is being shut down,
/// failed while it committed or wrote its log, or somebody ended the statement or the session.
const UNCERTAIN: [u16; 7] = [3, 1026, 1053, 1180, 1317, 1598, 1927];

type Rows = Vec<Vec<Option<String>>>;

/// A connection with a runtime of its own, for a thread of its own. No wait in it is longer than its patience.
pub(super) struct Client {
    server: Connected,
    engine: Engine,
    runtime: Runtime,
    patience: Duration,
}

enum Connected {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

/// Why a statement has no answer.
#[derive(Debug)]
enum Failed {
    /// The server refused it, and goes on: it was not carried out.
    Refused(sqlx::Error),
    /// Nobody knows.
    Lost(io::Error),
}

impl Client {
    pub(super) fn open(store: &Store, server: SocketAddr, patience: Duration) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connected = bounded(&runtime, patience, Connected::open(store, server));
        let mut client =
            Self { server: connected?.map_err(io::Error::other)?, engine: store.engine, runtime, patience };
        if let Some(greeting) = &store.greeting {
            client.run(greeting).map_err(io::Error::other)?;
        }
        Ok(client)
    }

    /// The answer to a statement, read to its end: only then is it acknowledged.
    fn ask(&mut self, sql: &str) -> Result<Rows, Failed> {
        let Self { server, runtime, patience, .. } = self;
        let answer = bounded(runtime, *patience, server.ask(sql)).map_err(Failed::Lost)?;
        let failed = |error| {
            if is_refusal(&error) { Failed::Refused(error) } else { Failed::Lost(io::Error::other(error)) }
        };
        answer.map_err(failed)
    }

    fn run(&mut self, sql: &str) -> Result<(), Failed> {
        self.ask(sql).map(drop)
    }

    /// A statement that is a transaction by itself.
    fn write(&mut self, sql: &str) -> Result<Outcome, Closed> {
        match self.run(sql) {
            Ok(()) => Ok(Outcome::Acknowledged),
            Err(Failed::Refused(_)) => Ok(Outcome::Refused),
            Err(Failed::Lost(error)) => Err(error.into()),
        }
    }

    /// The statements in one transaction, and the answer to the last of them. What fails before the commit was sent is
    /// never done, answer or not.
    fn transaction(&mut self, statements: &[String]) -> Result<(Outcome, Rows), Closed> {
        let mut answer = Vec::new();
        for sql in ["BEGIN"].into_iter().chain(statements.iter().map(String::as_str)) {
            match self.ask(sql) {
                Ok(rows) => answer = rows,
                Err(Failed::Refused(_)) => {
                    self.run("ROLLBACK").map_err(|_| Closed(Outcome::Refused))?;
                    return Ok((Outcome::Refused, answer));
                }
                Err(Failed::Lost(_)) => return Err(Closed(Outcome::Refused)),
            }
        }
        Ok((self.write("COMMIT")?, answer))
    }

    /// Makes the tables, and fills the accounts.
    pub(super) fn prepare(&mut self) -> anyhow::Result<()> {
        for sql in TABLES {
            self.run(sql)?;
        }
        let there = self.ask("SELECT account FROM chaos.accounts")?.len();
        let missing: Vec<String> = (there..ACCOUNTS).map(|account| format!("({account}, {OPENING})")).collect();
        if !missing.is_empty() {
            self.run(&format!("INSERT INTO chaos.accounts VALUES {}", missing.join(", ")))?;
        }
        Ok(())
    }

    /// Ends the waits of all commits that wait for an acknowledgement; how many there were.
    pub(super) fn end_waits(&mut self) -> anyhow::Result<u64> {
        if self.engine == Engine::Postgres {
            let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            return Ok(self.ask(sql)?.len() as u64);
        }
        let sql = "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'";
        let waiting = self.ask(sql)?;
        for row in &waiting {
            let id: u64 = number(row, 0)?;
            // One that has just ended by itself is refused.
            let _ = self.run(&format!("KILL QUERY {id}"));
        }
        Ok(waiting.len() as u64)
    }

    /// All that is there.
    pub(super) fn read_back(&mut self) -> anyhow::Result<Found> {
        let mut last: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for table in ["inserts", "registers", "transfers"] {
            for row in self.ask(&format!("SELECT name, value FROM chaos.{table}"))? {
                let name = row.first().cloned().flatten().context("a row without a name")?;
                last.entry(name).or_default().push(number(&row, 1)?);
            }
        }
        let mut transfers = Vec::new();
        for row in self.ask("SELECT source, target, amount FROM chaos.transfers")? {
            transfers.push(Transfer { from: number(&row, 0)?, to: number(&row, 1)?, amount: number(&row, 2)? });
        }
        let accounts = self.ask("SELECT balance FROM chaos.accounts ORDER BY account")?;
        let accounts = accounts.iter().map(|row| number(row, 0)).collect::<anyhow::Result<Vec<i64>>>()?;
        anyhow::ensure!(accounts.len() == ACCOUNTS, "there are {} accounts", accounts.len());
        Ok(Found { last, bank: Some(Bank { opening: OPENING, accounts, transfers, sums: Vec::new() }) })
    }
}

impl Session for Client {
    fn insert(&mut self, key: &str, value: u64) -> Result<Outcome, Closed> {
        self.write(&format!("INSERT INTO chaos.inserts VALUES ('{key}', {value})"))
    }

    fn insert_tagged(&mut self, key: &str, value: u64) -> Result<(Outcome, Option<Server>), Closed> {
        let insert = format!("INSERT INTO chaos.inserts VALUES ('{key}', {value})");
        let who = if self.engine == Engine::Postgres { WHO_POSTGRES } else { WHO_MARIADB };
        let (outcome, rows) = self.transaction(&[insert, who.to_owned()])?;
        Ok((outcome, rows.first().and_then(|row| tag(row))))
    }

    fn set(&mut self, key: &str, value: u64) -> Result<Outcome, Closed> {
        let update = match self.engine {
            Engine::Postgres => "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            _ => "ON DUPLICATE KEY UPDATE value = VALUES(value)",
        };
        self.write(&format!("INSERT INTO chaos.registers VALUES ('{key}', {value}) {update}"))
    }

    /// Reads and writes something, in one transaction: a master that another one has replaced can still read, and only
    /// its commits wait for a copy that does not follow it any more.
    fn get(&mut self, key: &str) -> Result<Option<Option<u64>>, Closed> {
        let look = format!("INSERT INTO chaos.looks VALUES ('{key}')");
        let read = format!("SELECT value FROM chaos.registers WHERE name = '{key}'");
        let (outcome, rows) = self.transaction(&[look, read])?;
        let value = || rows.first().map(|row| number(row, 0)).transpose().map_err(|_| Closed(Outcome::Unknown));
        if outcome == Outcome::Acknowledged { value().map(Some) } else { Ok(None) }
    }

    fn transfer(&mut self, key: &str, value: u64, transfer: Transfer) -> Result<Outcome, Closed> {
        let Transfer { from, to, amount } = transfer;
        let change = |account: usize, change: i64| {
            (account, format!("UPDATE chaos.accounts SET balance = balance + {change} WHERE account = {account}"))
        };
        // Locks are taken in one order.
        let mut changes = [change(from, -amount), change(to, amount)];
        changes.sort();
        let [(_, one), (_, other)] = changes;
        let row = format!("INSERT INTO chaos.transfers VALUES ('{key}', {value}, {from}, {to}, {amount})");
        self.transaction(&[one, other, row]).map(|(outcome, _)| outcome)
    }

    fn sum(&mut self) -> Result<Option<i64>, Closed> {
        match self.ask("SELECT sum(balance) FROM chaos.accounts") {
            Ok(rows) => Ok(rows.first().and_then(|row| number(row, 0).ok())),
            Err(Failed::Refused(_)) => Ok(None),
            Err(Failed::Lost(error)) => Err(error.into()),
        }
    }
}

impl Connected {
    async fn open(store: &Store, server: SocketAddr) -> Result<Self, sqlx::Error> {
        let (host, port) = (server.ip().to_string(), server.port());
        let password = store.password.as_deref().unwrap_or_default();
        if store.engine == Engine::Mariadb {
            let options = MySqlConnectOptions::new().host(&host).port(port).username("root").password(password);
            let options = options.ssl_mode(MySqlSslMode::Disabled).disable_statement_logging();
            return MySqlConnection::connect_with(&options).await.map(Self::Mariadb);
        }
        let options = PgConnectOptions::new_without_pgpass().host(&host).port(port).username("postgres");
        let options = options.password(password).database("postgres").ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options.disable_statement_logging()).await.map(Self::Postgres)
    }

    /// Every answer is text, since no statement is prepared.
    async fn ask(&mut self, sql: &str) -> Result<Rows, sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Connected::Postgres(server) => {
                let rows = sql.fetch_all(server).await?;
                let texts = |row: &sqlx::postgres::PgRow| (0..row.len()).map(|n| row.try_get_unchecked(n)).collect();
                rows.iter().map(texts).collect()
            }
            Connected::Mariadb(server) => {
                let rows = sql.fetch_all(server).await?;
                let texts = |row: &sqlx::mysql::MySqlRow| (0..row.len()).map(|n| row.try_get_unchecked(n)).collect();
                rows.iter().map(texts).collect()
            }
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Refused(error) => error.fmt(f),
            Failed::Lost(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failed {}

fn bounded<T>(runtime: &Runtime, limit: Duration, work: impl Future<Output = T>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    runtime.block_on(async { tokio::time::timeout(limit, work).await }).map_err(|_| late())
}

/// Whether the server says that a statement was not carried out, and goes on with the session.
fn is_refusal(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return error.severity() == PgSeverity::Error;
    }
    error.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|error| !UNCERTAIN.contains(&error.number()))
}

fn number<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &[Option<String>],
    column: usize,
) -> anyhow::Result<T> {
    let text = row.get(column).and_then(Option::as_deref).context("nothing where a number should be")?;
    text.parse().with_context(|| format!("`{text}` where a number should be"))
}

fn tag(row: &[Option<String>]) -> Option<Server> {
    match row {
        [Some(epoch), Some(process)] => Some(Server { epoch: epoch.parse().ok()?, run_id: process.clone() }),
        _ => None,
    }
}
