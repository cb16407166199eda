//! The writing client of a group that speaks SQL: rows with a unique key, inserted one at a time, and read back.

use config::Engine;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, MySqlConnection, PgConnection, Row};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Where the rows are.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS writes (name varchar(100) PRIMARY KEY, number bigint NOT NULL)";

/// A connection for a thread of its own: every wait in it is bounded.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    runtime: Runtime,
    limit: Duration,
}

#[derive(Debug)]
enum Client {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

impl Connection {
    /// Connects as the administrator; no wait is longer than `limit`.
    pub(super) fn open(engine: Engine, server: SocketAddr, limit: Duration) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = bounded(&runtime, limit, Client::open(engine, server))?;
        Ok(Self { client, runtime, limit })
    }

    /// Inserts a row and waits for the acknowledgement.
    pub(super) fn insert(&mut self, name: &str, number: u64) -> io::Result<()> {
        let sql = format!("INSERT INTO writes VALUES ('{name}', {number})");
        let Self { client, runtime, limit } = self;
        match bounded(runtime, *limit, client.run(&sql)) {
            Err(error) if is_no_table(&error) => {
                bounded(runtime, *limit, client.run(TABLE))?;
                bounded(runtime, *limit, client.run(&sql))
            }
            done => done,
        }
    }
}

/// Which of the rows are there, with their numbers.
pub(super) async fn read(engine: Engine, server: SocketAddr, names: &[String]) -> io::Result<Vec<(String, u64)>> {
    let list: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let sql = format!("SELECT name, number FROM writes WHERE name IN ({})", list.join(", "));
    let rows = async { Client::open(engine, server).await?.rows(&sql).await };
    rows.await.map_err(io::Error::other)
}

impl Client {
    async fn open(engine: Engine, server: SocketAddr) -> Result<Self, sqlx::Error> {
        let (host, port) = (server.ip().to_string(), server.port());
        if engine == Engine::Mariadb {
            let options = MySqlConnectOptions::new().host(&host).port(port).username("root");
            let options = options.ssl_mode(MySqlSslMode::Disabled).disable_statement_logging();
            let mut client = MySqlConnection::connect_with(&options).await.map(Self::Mariadb)?;
            if client.run("USE test").await.is_err() {
                client.run("CREATE DATABASE IF NOT EXISTS test").await?;
                client.run("USE test").await?;
            }
            return Ok(client);
        }
        let options = PgConnectOptions::new_without_pgpass().host(&host).port(port).username("postgres");
        let options = options.ssl_mode(PgSslMode::Disable).database("postgres").disable_statement_logging();
        PgConnection::connect_with(&options).await.map(Self::Postgres)
    }

    async fn run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Client::Postgres(client) => sql.execute(client).await.map(drop),
            Client::Mariadb(client) => sql.execute(client).await.map(drop),
        }
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<(String, u64)>, sqlx::Error> {
        let query = AssertSqlSafe(sql.to_owned());
        let pair = |name: String, number: i64| (name, number.unsigned_abs());
        match self {
            Client::Postgres(client) => {
                let rows = sqlx::query(query).fetch_all(client).await?;
                rows.iter().map(|row| Ok(pair(row.try_get(0)?, row.try_get(1)?))).collect()
            }
            Client::Mariadb(client) => {
                let rows = sqlx::query(query).fetch_all(client).await?;
                rows.iter().map(|row| Ok(pair(row.try_get(0)?, row.try_get(1)?))).collect()
            }
        }
    }
}

fn bounded<T>(runtime: &Runtime, limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let done = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    done.map_err(|_| late())?.map_err(io::Error::other)
}

/// PostgreSQL and MariaDB each have a code for it.
fn is_no_table(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<sqlx::Error>());
    let code = inner.and_then(sqlx::Error::as_database_error).and_then(|e| e.code());
    code.is_some_and(|code| code == "42P01" || code == "42S02")
}
