//! The agent's connections to its MariaDB: over the server's own unix socket, as an account of its own.

use std::collections::HashMap;
use std::path::PathBuf;

use election::Secret;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Row};

use super::accounts;

/// How to reach the instance.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(super) socket: PathBuf,
    pub(super) password: Secret,
}

/// What one row says, by column.
pub(super) type Answer = HashMap<String, String>;

/// A connection. What was sent over it and not answered keeps it busy, so that one whose answer was not waited for is
/// to be dropped.
pub(crate) struct Link(MySqlConnection);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// Nothing of what the agent does is replicated but the marker, nothing stands in the server's general log (passwords),
/// literals are read in one way whatever the server's own mode is, and no lock is waited for long.
const SESSION: &str = "SET SESSION sql_log_off = 1, sql_log_bin = 0, sql_mode = '', lock_wait_timeout = 2, \
                       innodb_lock_wait_timeout = 1, max_statement_time = 0, wait_timeout = 28800, \
                       interactive_timeout = 28800";

impl Link {
    pub(in crate::engine) async fn open(target: &Target) -> Result<Self, sqlx::Error> {
        let options = MySqlConnectOptions::new()
            .socket(&target.socket)
            .username(accounts::AGENT)
            .password(target.password.reveal())
            .ssl_mode(MySqlSslMode::Disabled)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        let mut link = Self(options.connect().await?);
        link.run(SESSION).await?;
        Ok(link)
    }

    /// Runs one statement.
    pub(super) async fn run(&mut self, statement: impl Into<String>) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(statement.into())).execute(&mut self.0).await.map(drop)
    }

    /// Runs one statement and gives its rows; a column that is NULL is not in them.
    pub(super) async fn ask(&mut self, statement: impl Into<String>) -> Result<Vec<Answer>, sqlx::Error> {
        let rows = sqlx::raw_sql(AssertSqlSafe(statement.into())).fetch_all(&mut self.0).await?;
        rows.iter().map(read).collect()
    }

    /// Whether it takes no writes from clients.
    pub(in crate::engine) async fn is_read_only(&mut self) -> Result<bool, sqlx::Error> {
        let answer = self.ask_one("SELECT @@global.read_only AS read_only").await?;
        Ok(answer.get("read_only").map(String::as_str) != Some("0"))
    }

    /// The same, for a statement with one row; empty when there is none.
    pub(super) async fn ask_one(&mut self, statement: impl Into<String>) -> Result<Answer, sqlx::Error> {
        Ok(self.ask(statement).await?.into_iter().next().unwrap_or_default())
    }
}

/// Everything is text in the protocol that is used here, whatever the column's type is.
fn read(row: &MySqlRow) -> Result<Answer, sqlx::Error> {
    let mut answer = Answer::new();
    for column in row.columns() {
        if let Some(value) = row.try_get_unchecked::<Option<Vec<u8>>, _>(column.ordinal())? {
            answer.insert(column.name().to_owned(), String::from_utf8_lossy(&value).into_owned());
        }
    }
    Ok(answer)
}

/// The server's number for what went wrong, when it was the server that said so.
pub(super) fn code(error: &sqlx::Error) -> Option<u16> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number),
        _ => None,
    }
}

/// No such database, no such table.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(1049 | 1146))
}

/// There are as many connections as the server allows.
pub(super) fn is_crowded(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(1040 | 1203))
}

/// A text as a literal, for a session whose `sql_mode` is empty.
pub(super) fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\0' => quoted.push_str("\\0"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\u{1a}' => quoted.push_str("\\Z"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_holds_what_it_is_given() {
        assert_eq!(literal("plain é"), "'plain é'");
        assert_eq!(literal("it's a \\ and\na \"line\""), "'it\\'s a \\\\ and\\na \"line\"'");
        assert_eq!(literal("\0"), "'\\0'");
    }
}
