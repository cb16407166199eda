//! Looking at a PostgreSQL without any code of Understudy in between.

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::net::SocketAddr;
use std::time::Duration;

/// A server on this machine answers in milliseconds; a stopped one never.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection of the administrator, who needs no password on this machine.
///
/// # Errors
/// When nobody answers within five seconds, or the login is refused.
pub async fn connect_postgres(address: SocketAddr) -> Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&address.ip().to_string())
        .port(address.port())
        .username("postgres")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable);
    let connected = tokio::time::timeout(ANSWER, PgConnection::connect_with(&options)).await;
    Ok(connected.context("no answer")??)
}

/// Statements without an answer.
///
/// # Errors
/// When the server refuses them.
pub async fn execute(client: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(client).await?;
    Ok(())
}

/// The first column of every row, which has to be text.
///
/// # Errors
/// When the server refuses the statement, or does not answer.
pub async fn select(address: SocketAddr, sql: &str) -> Result<Vec<String>> {
    let mut client = connect_postgres(address).await?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut client).await?;
    rows.iter().map(|row| Ok(row.try_get::<Option<String>, _>(0)?.unwrap_or_default())).collect()
}

/// Stops the server's process that sends the log to its one copy: commits wait from then on. Gives its number.
///
/// # Errors
/// When there is not exactly one.
pub async fn stop_sender(master: SocketAddr) -> Result<u32> {
    let found = select(master, "SELECT pid::text FROM pg_stat_replication").await?;
    let [pid] = &found[..] else { anyhow::bail!("not one sender: {found:?}") };
    let pid = pid.parse()?;
    super::send(pid, rustix::process::Signal::STOP)?;
    Ok(pid)
}

/// Waits until the commit of a statement that begins like this waits for the hot replica.
///
/// # Errors
/// When none does.
pub async fn commit_waits(master: SocketAddr, statement: &str) -> Result<()> {
    let sql = format!(
        "SELECT pid::text FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND starts_with(query, '{statement}')"
    );
    super::until("a commit that waits", async || Ok((!select(master, &sql).await?.is_empty()).then_some(()))).await
}
