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
