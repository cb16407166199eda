//! A connection to the server as its superuser, over the socket in the instance's own folder; and one to another
//! instance, over the network.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use election::{Address, Secret};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::config::SUPERUSER;

/// The database that the marker is in.
const DATABASE: &str = "postgres";

/// What a server says that is not ready yet, or not any more.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// What a server says whose connections are all taken.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// What a server says whose disk is full.
const DISK_FULL: &str = "53100";

/// What the session of the one who asks on behalf of proxies is called.
pub(super) const ASKER: &str = "understudy asker";

/// How long another instance may take to let the agent in.
const REMOTE_LIMIT: Duration = Duration::from_secs(2);

/// How long it may take to answer all that it is asked then, a checkpoint among it: one that is gone answers never.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Everything that the agent calls is the server's own: whoever may make functions could else have them run by a
/// superuser.
const NAMES: (&str, &str) = ("search_path", "pg_catalog");

/// What the agent's own sessions are like: none of what they say may be in a log, since passwords are set by it.
const SESSION: [(&str, &str); 7] = [
    NAMES,
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_error_statement", "panic"),
    ("log_duration", "off"),
    ("pg_stat_statements.track", "none"),
    ("lock_timeout", "4s"),
];

/// Where the server listens for its agent.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The folder of the socket.
    pub(super) folder: PathBuf,
    pub(super) port: u16,
}

/// One connection. A request that was given up leaves it of no use.
#[derive(Debug)]
pub(crate) struct Link {
    connection: PgConnection,
    /// The server's process for it.
    pub(super) pid: i32,
}

impl Link {
    /// Connects to the agent's own server.
    pub(super) async fn open(target: &Target) -> Result<Self, sqlx::Error> {
        Self::local(target, "understudy agent").await
    }

    /// The same for the one who asks on behalf of proxies: no client, though it comes when it pleases.
    pub(in crate::engine) async fn asker(target: &Target) -> Result<Self, sqlx::Error> {
        Self::local(target, ASKER).await
    }

    async fn local(target: &Target, name: &str) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&target.folder)
            .port(target.port)
            .username(SUPERUSER)
            .ssl_mode(PgSslMode::Disable)
            .application_name(name)
            .options(SESSION);
        Self::connect(options).await
    }

    /// Connects to another instance as one of the replication roles.
    pub(super) async fn remote(at: &Address, role: &str, secret: &Secret) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&at.host)
            .port(at.port)
            .username(role)
            .password(secret.reveal())
            .ssl_mode(PgSslMode::Prefer)
            .application_name("understudy")
            .options([NAMES]);
        within(REMOTE_LIMIT, Self::connect(options)).await
    }

    async fn connect(options: PgConnectOptions) -> Result<Self, sqlx::Error> {
        let options = options.database(DATABASE).statement_cache_capacity(0).disable_statement_logging();
        let connection = PgConnection::connect_with(&options).await?;
        let mut link = Self { connection, pid: 0 };
        // No write of the agent's waits for a copy. Were this said with the other settings, the session could no more tell
        // what stands for those that say nothing.
        let sql = "SELECT pg_backend_pid()::text FROM set_config('synchronous_commit', 'local', false)";
        link.pid = link.text(sql).await?.and_then(|t| t.parse().ok()).unwrap_or_default();
        Ok(link)
    }

    /// Statements without an answer; several are one transaction.
    pub(super) async fn run(&mut self, sql: impl Into<String>) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut self.connection).await.map(drop)
    }

    /// The first column of the first row, which has to be text.
    pub(in crate::engine) async fn text(&mut self, sql: impl Into<String>) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_optional(&mut self.connection).await?;
        row.map_or(Ok(None), |row| row.try_get::<Option<String>, _>(0))
    }

    /// Whether a condition holds.
    pub(super) async fn holds(&mut self, condition: &str) -> Result<bool, sqlx::Error> {
        Ok(self.text(format!("SELECT ({condition})::text")).await?.as_deref() == Some("true"))
    }

    /// The same, as the JSON of a value.
    pub(super) async fn json<T: DeserializeOwned>(&mut self, sql: impl Into<String>) -> Result<Option<T>, sqlx::Error> {
        let Some(text) = self.text(sql).await? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| sqlx::Error::Decode(Box::new(e)))
    }
}

/// Gives up on another instance that does not answer.
pub(super) async fn answered<T>(asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(ANSWER_LIMIT, asking).await
}

async fn within<T>(limit: Duration, asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))
}

/// A text as a literal of SQL.
pub(super) fn literal(text: &str) -> String {
    // With a backslash the meaning would depend on a setting; the form with an E does not.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Whether the server runs and takes no connections at this moment: it starts, or ends.
pub(super) fn is_not_ready(error: &sqlx::Error) -> bool {
    has_code(error, CANNOT_CONNECT_NOW)
}

/// Whether all connections are taken.
pub(super) fn is_crowded(error: &sqlx::Error) -> bool {
    has_code(error, TOO_MANY_CONNECTIONS)
}

/// Whether the disk is full.
pub(super) fn is_disk_full(error: &sqlx::Error) -> bool {
    has_code(error, DISK_FULL)
}

/// Whether what was asked for is not there.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    ["42P01", "3F000"].iter().any(|code| has_code(error, code))
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|c| c == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_holds_any_text() {
        assert_eq!(literal("it's \\ here"), "E'it''s \\\\ here'");
        assert_eq!(literal(""), "E''");
    }
}
