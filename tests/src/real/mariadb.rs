//! Looking at a MariaDB without any code of Understudy in between.

use super::Story;
use anyhow::{Context, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};
use std::net::SocketAddr;
use std::time::Duration;

/// A server on this machine answers in milliseconds; a stopped one never.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub struct Sql(MySqlConnection);

/// A connection of the clients' administrator, who needs no password over loopback.
///
/// # Errors
/// When nobody answers within five seconds, or the login is refused.
pub async fn as_client(address: SocketAddr) -> Result<Sql> {
    let options = MySqlConnectOptions::new().host(&address.ip().to_string()).port(address.port()).username("root");
    connect(options).await
}

/// A connection that may do anything: the agent's own, over the server's socket.
///
/// # Errors
/// The same.
pub async fn as_agent(story: &Story, node: &str) -> Result<Sql> {
    let password = std::fs::read_to_string(story.memory(node).join(format!("{}.secret", story.group())))?;
    let socket = story.data(node).join("mariadb.sock");
    connect(MySqlConnectOptions::new().socket(socket).username("understudy").password(password.trim())).await
}

async fn connect(options: MySqlConnectOptions) -> Result<Sql> {
    let options = options.ssl_mode(MySqlSslMode::Disabled).disable_statement_logging();
    let connected = tokio::time::timeout(ANSWER, options.connect()).await;
    Ok(Sql(connected.context("no answer")??))
}

impl Sql {
    /// A statement without an answer.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.0).await?;
        Ok(())
    }

    /// The column of every row.
    ///
    /// # Errors
    /// When the server refuses the statement, or gives no such column.
    pub async fn column(&mut self, sql: &str, name: &str) -> Result<Vec<String>> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.0).await?;
        let text = |row: &sqlx::mysql::MySqlRow| -> Result<String> {
            let value: Option<Vec<u8>> = row.try_get_unchecked(name)?;
            Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
        };
        rows.iter().map(text).collect()
    }
}
