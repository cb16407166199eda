//! The SQL clients that people use, behind a proxy: the master is killed, and replaced as planned, while each uses
//! transactions, prepared statements, pipelines, bulk and requests to cancel. Every write that was not answered is tried
//! again under the same unique name. Nothing acknowledged is ever lost, and nothing is there that nobody was told of; a
//! planned switchover lets a running transaction end, and costs a client its connection.

use anyhow::{Result, ensure};
use config::Engine;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Row};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use understudy_tests::real::{Front, LIMIT, Report, Script, Story, as_client, build, start, swing, until};

/// Acknowledged transactions that make a client one in full swing.
const SWING: usize = 30;

/// Errors that a planned switchover may cost a client: that its connection was ended, and that the one it had just asked
/// for instead was one to the old master still.
const MOST_ERRORS: u64 = 2;

async fn group(engine: Engine, listener: &str) -> Result<Story> {
    let builder = build()?.engine(engine).nodes(3).listener(listener).policy("flap_pause", "\"1s\"");
    let mariadb = engine == Engine::Mariadb;
    start(if mariadb { builder.setting("innodb_buffer_pool_size", "\"16M\"") } else { builder }).await
}

fn script(client: &str, at: SocketAddr) -> Result<Script> {
    let args = [client.to_owned(), at.ip().to_string(), at.port().to_string()];
    // The system's own Python: that is where Debian's packages are found.
    Script::start(&format!("{client} at {at}"), Path::new("/usr/bin/python3"), "sql.py", &args)
}

/// sqlx, with a pool that makes its connections anew by itself.
#[derive(Clone)]
enum Pool {
    Postgres(PgPool),
    Mariadb(MySqlPool),
}

impl Pool {
    async fn open(engine: Engine, at: SocketAddr) -> Result<Self> {
        let (host, port, table) = (at.ip().to_string(), at.port(), "CREATE TABLE sqlx (name varchar(100) PRIMARY KEY)");
        if engine == Engine::Mariadb {
            as_client(at).await?.run("CREATE DATABASE IF NOT EXISTS test").await?;
            let options = MySqlConnectOptions::new().host(&host).port(port).username("root").database("test");
            let options = options.ssl_mode(MySqlSslMode::Disabled).disable_statement_logging();
            let pool = MySqlPoolOptions::new().max_connections(2).connect_with(options).await?;
            sqlx::query(table).execute(&pool).await?;
            return Ok(Self::Mariadb(pool));
        }
        let options = PgConnectOptions::new_without_pgpass().host(&host).port(port).username("postgres");
        let options = options.ssl_mode(PgSslMode::Prefer).database("postgres").disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
        sqlx::query(table).execute(&pool).await?;
        Ok(Self::Postgres(pool))
    }

    /// Inserts two rows in one transaction, by a statement that is prepared once a connection.
    async fn insert(&self, names: &[String; 2]) -> sqlx::Result<()> {
        match self {
            Self::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                for name in names {
                    sqlx::query("INSERT INTO sqlx VALUES ($1)").bind(name).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }
            Self::Mariadb(pool) => {
                let mut transaction = pool.begin().await?;
                for name in names {
                    sqlx::query("INSERT INTO sqlx VALUES (?)").bind(name).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }
        }
    }

    async fn names(&self) -> Result<BTreeSet<String>> {
        let all = "SELECT name FROM sqlx";
        Ok(match self {
            Self::Postgres(pool) => {
                sqlx::query(all).fetch_all(pool).await?.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?
            }
            Self::Mariadb(pool) => {
                sqlx::query(all).fetch_all(pool).await?.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?
            }
        })
    }
}

/// A client that inserts until it is dropped.
struct Inserter {
    pool: Pool,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Inserter {
    fn start(pool: Pool) -> Self {
        let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
        let (client, told) = (pool.clone(), acknowledged.clone());
        let task = tokio::spawn(async move {
            for number in 0_u64.. {
                let names = [format!("{number}:a"), format!("{number}:b")];
                let mut tried = false;
                while let Err(error) = client.insert(&names).await {
                    // Only one whose outcome was not known is there already.
                    if tried && error.as_database_error().is_some_and(|e| e.is_unique_violation()) {
                        break;
                    }
                    tried = true;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                told.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
            }
        });
        Self { pool, acknowledged, task }
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn swing(&self) -> Result<()> {
        let before = self.acknowledged().len();
        until("sqlx in full swing", async || Ok((self.acknowledged().len() >= before + 2 * SWING).then_some(()))).await
    }

    /// Ends it, and checks what is there; the last transaction may be, or not.
    async fn end(&self) -> Result<()> {
        self.task.abort();
        let told = self.acknowledged();
        let there = until("all rows", async || Ok(Some(self.pool.names().await?))).await?;
        let lost: Vec<_> = told.difference(&there).collect();
        ensure!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
        ensure!(there.len() <= told.len() + 2, "{} rows are there, and {} were told", there.len(), told.len());
        Ok(())
    }
}

impl Drop for Inserter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(story: &Story, mut scripts: Vec<Script>, sqlx: Inserter) -> Result<()> {
    let swinging = async |scripts: &mut [Script]| -> Result<Vec<Report>> {
        sqlx.swing().await?;
        swing(scripts).await
    };
    swinging(&mut scripts).await?;
    let before = story.cast().await?;
    story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    swinging(&mut scripts).await?;

    let whole = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let before = swinging(&mut scripts).await?;
    let said = story.understudy(&["switchover", story.group(), "--grace", "10s"])?;
    ensure!(said.code == 0, "{said:?}");
    story.taken_over(&whole.master).await?;
    let after = swinging(&mut scripts).await?;
    for ((script, before), after) in scripts.iter().zip(&before).zip(&after) {
        let errors = after.errors - before.errors;
        ensure!(errors <= MOST_ERRORS, "{}: {errors} errors in the switchover: {:?}", script.name, after.last);
    }
    for script in &mut scripts {
        let end = script.ask("stop").await?;
        ensure!(end.written > 0 && end.lost.is_empty(), "{}: {end:?}", script.name);
    }
    sqlx.end().await
}

// The command is waited for on this thread: the clients of sqlx need another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_clients_lose_nothing() -> Result<()> {
    let story = group(Engine::Postgres, "protocol = \"postgres\"").await?;
    let front = Front::start(&story, "front", &story.consul_address(), &["protocol = \"tcp\""]).await?;
    let (listening, bytes) = (story.proxy_addr(), front.listener(0));
    let mut scripts = Vec::new();
    for (client, at) in [("psycopg", listening), ("psycopg", bytes), ("psycopg2", listening), ("psql", listening)] {
        scripts.push(script(client, at)?);
    }
    let sqlx = Inserter::start(Pool::open(Engine::Postgres, listening).await?);
    play(&story, scripts, sqlx).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_clients_lose_nothing() -> Result<()> {
    let story = group(Engine::Mariadb, "protocol = \"tcp\"").await?;
    let at = story.proxy_addr();
    let sqlx = Inserter::start(Pool::open(Engine::Mariadb, at).await?);
    play(&story, vec![script("pymysql", at)?, script("mariadb", at)?], sqlx).await
}
