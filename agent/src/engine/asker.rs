//! Asks a server what it is at this very moment, on a connection of its own: no operation of the agent's delays the answer.

use std::time::Duration;

use election::ServerRole;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{mariadb, postgres};
use crate::engine::EngineError;

/// A proxy that asks waits for less.
const LIMIT: Duration = Duration::from_millis(500);

/// Asks one server, one question at a time.
#[derive(Debug)]
pub struct Asker {
    server: Server,
    /// Made at the first question.
    link: Mutex<Option<Link>>,
}

/// Where a server listens for its agent.
#[derive(Debug)]
pub(super) enum Server {
    Postgres(postgres::Target),
    Mariadb(mariadb::Target),
}

#[derive(Debug)]
enum Link {
    Postgres(postgres::Link),
    Mariadb(mariadb::Link),
}

impl Asker {
    pub(super) fn new(server: Server) -> Self {
        Self { server, link: Mutex::new(None) }
    }

    /// What the server says that it is.
    ///
    /// # Errors
    ///
    /// When it does not say so in time.
    pub async fn role(&self) -> Result<ServerRole, EngineError> {
        let op = "ask for the role";
        let late = EngineError::Timeout { op, ms: u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX) };
        timeout(LIMIT, self.ask()).await.map_err(|_| late)?.map_err(|source| EngineError::Sql { op, source })
    }

    async fn ask(&self) -> Result<ServerRole, sqlx::Error> {
        let mut kept = self.link.lock().await;
        // Taken out while it is used: a question that was given up leaves a connection that is of no use. One that was
        // kept may have ended with its server, or by somebody's order.
        if let Some(mut link) = kept.take()
            && let Ok(role) = link.role().await
        {
            *kept = Some(link);
            return Ok(role);
        }
        let mut link = Link::open(&self.server).await?;
        let role = link.role().await?;
        *kept = Some(link);
        Ok(role)
    }
}

impl Link {
    async fn open(server: &Server) -> Result<Self, sqlx::Error> {
        match server {
            Server::Postgres(target) => postgres::Link::asker(target).await.map(Self::Postgres),
            Server::Mariadb(target) => mariadb::Link::open(target).await.map(Self::Mariadb),
        }
    }

    async fn role(&mut self) -> Result<ServerRole, sqlx::Error> {
        let takes_no_writes = match self {
            Self::Postgres(link) => link.text("SELECT pg_is_in_recovery()::text").await?.as_deref() != Some("false"),
            Self::Mariadb(link) => link.is_read_only().await?,
        };
        Ok(if takes_no_writes { ServerRole::Copy } else { ServerRole::Master })
    }
}
