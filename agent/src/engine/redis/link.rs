//! The agent's one connection to its Redis, logged in as itself, in the marker's database.

use std::time::Duration;

use election::{Incarnation, Secret};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, Value};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::accounts;
use super::config::BLACK_HOLE;
use super::probe::Info;

/// On loopback a server that is not full accepts within microseconds; the caller's own limit is what counts.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How long one listens for a refusal: it comes with the end of the connection, at once.
const WORDS_LIMIT: Duration = Duration::from_millis(100);

/// How to reach the instance.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) port: u16,
    pub(super) database: u32,
    pub(super) password: Secret,
}

/// A connection, and whom it was made to.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// The run of the process.
    pub(super) incarnation: Incarnation,
    /// The process.
    pub(super) pid: i32,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("incarnation", &self.incarnation).field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects, logs in, and asks who it is.
    pub(super) async fn open(target: &Target) -> Result<Self, RedisError> {
        let login = RedisConnectionInfo::default()
            .set_username(accounts::AGENT)
            .set_password(target.password.reveal())
            .set_db(i64::from(target.database));
        // Loopback is listened on whatever the node's address is, and works when the network does not.
        let info = (BLACK_HOLE.0, target.port).into_connection_info()?.set_redis_settings(login);
        // The library gives up after 500 ms by itself; the callers have limits of their own.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_LIMIT)).set_response_timeout(None);
        let connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
        let mut link = Self { connection, incarnation: Incarnation::default(), pid: 0 };
        let text: String = redis::cmd("INFO").arg("server").query_async(&mut link.connection).await?;
        let info = Info::read(&text);
        link.incarnation = Incarnation(info.text("run_id").to_owned());
        link.pid = i32::try_from(info.number("process_id")).unwrap_or_default();
        Ok(link)
    }

    /// Sends all commands at once and returns every answer, errors among them.
    pub(super) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.connection.req_packed_commands(commands, 0, commands.len()).await
    }

    /// Sends all commands at once; an error in any of them is an error.
    pub(super) async fn run(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        commands.query_async(&mut self.connection).await
    }
}

/// Whether the server has as many clients as `maxclients` lets in. It says so to whoever connects and hangs up; the
/// words are lost on a client that has sent something by then, so this one listens only.
pub(super) async fn is_crowded(port: u16) -> bool {
    let listen = async {
        let mut stream = TcpStream::connect((BLACK_HOLE.0, port)).await?;
        let mut words = String::new();
        stream.read_to_string(&mut words).await.map(|_| words)
    };
    let words = tokio::time::timeout(WORDS_LIMIT, listen).await;
    matches!(words, Ok(Ok(words)) if words.contains("max number of clients"))
}
