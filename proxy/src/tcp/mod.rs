//! The `tcp` protocol: bytes are carried, not understood. All the safety it gives is that of the epoch. The `postgres`
//! protocol is carried the same way, with an ear on what the server says.

mod relay;

use crate::counters::{Gauge, count};
use crate::group::Group;
use crate::hold::{self, Backend};
use crate::postgres::opening::{self, Opening};
use crate::postgres::{Breach, Keys, Listening, refusal};
use crate::routes::Endpoint;
use crate::target::Target;
use config::ListenerRole;
use relay::Ear;
use socket2::SockRef;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// What the connections of one listener share.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) group: Arc<Group>,
    pub(crate) role: ListenerRole,
    /// How long a connection waits for somewhere to go.
    pub(crate) hold: Duration,
    /// Whose turn it is among several replicas.
    pub(crate) turn: AtomicUsize,
    /// For the `postgres` protocol: the keys of the connections it carries.
    pub(crate) postgres: Option<Keys>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides had said all they had to say.
    Orderly,
    /// A side broke off.
    Broken,
    /// Its epoch has ended, or its replica is none any more.
    Cut,
    /// There was nowhere to go in time.
    Expired,
    /// The server is not what the record says; the client was told.
    Refused,
}

impl Tcp {
    /// Carries one client.
    pub(crate) async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let counters = &self.group.counters;
        count(&counters.accepted);
        let _open = Gauge::raise(&counters.open);
        let end = self.carry(&mut client).await;
        match end {
            End::Cut => count(&counters.cut),
            End::Expired => count(&counters.expired),
            End::Orderly | End::Broken | End::Refused => {}
        }
        let told = end == End::Refused || end == End::Expired && self.postgres.is_some();
        if end != End::Orderly && !told {
            reset(&client);
        }
        tracing::debug!(group = %self.group.name, ?end, "a connection has ended");
    }

    async fn carry(&self, client: &mut TcpStream) -> End {
        let first = match &self.postgres {
            None => Vec::new(),
            Some(keys) => match Box::pin(timeout(opening::LIMIT, opening::receive(client))).await {
                Ok(Ok(Opening::Startup(message))) => message,
                Ok(Ok(Opening::Cancel { key, message })) => return Box::pin(self.cancel(keys, &key, &message)).await,
                Ok(Err(_)) | Err(_) => return End::Broken,
            },
        };
        let mut target = self.group.subscribe(self.role);
        // Boxed: what waiting and connecting need is given back before a connection's long quiet life begins.
        let found = Box::pin(hold::connect(&self.group, &mut target, &self.turn, self.hold)).await;
        let Some(mut backend) = found else {
            Box::pin(self.say(client, "there is no server for this role now; try again")).await;
            return End::Expired;
        };
        if backend.waited && is_gone(client) {
            // It gave up; what it had sent before must not be carried out now.
            return End::Broken;
        }
        let end = match &self.postgres {
            None => {
                let epoch = backend.epoch;
                let mut ear = || epoch.into_iter().for_each(|epoch| self.group.heard.note(epoch));
                self.relay(client, &mut backend, &mut target, &mut ear).await
            }
            Some(keys) => Box::pin(self.relay_postgres(client, &mut backend, &mut target, keys, &first)).await,
        };
        if end != End::Orderly {
            reset(&backend.stream);
        }
        end
    }

    async fn relay(
        &self,
        client: &mut TcpStream,
        backend: &mut Backend,
        target: &mut watch::Receiver<Target>,
        ear: &mut impl Ear,
    ) -> End {
        let Backend { stream, epoch, endpoint, .. } = backend;
        tokio::select! {
            // The fence comes first: once a higher epoch is known, not one more byte of the old one is carried.
            biased;
            () = hold::outdated(target, *epoch, endpoint) => End::Cut,
            outcome = relay::relay(client, stream, ear) => match outcome {
                Ok(()) => End::Orderly,
                Err(_) => End::Broken,
            },
        }
    }

    async fn relay_postgres(
        &self,
        client: &mut TcpStream,
        backend: &mut Backend,
        target: &mut watch::Receiver<Target>,
        keys: &Keys,
        first: &[u8],
    ) -> End {
        // A login fits into the buffer of a new connection.
        if backend.stream.write_all(first).await.is_err() {
            return End::Broken;
        }
        let listening = Listening::new(self.role, keys, backend.endpoint.clone());
        let mut ear = PostgresEar { group: &self.group, epoch: backend.epoch, listening, breach: None };
        let end = self.relay(client, backend, target, &mut ear).await;
        let Some(breach) = ear.breach else { return end };
        tracing::warn!(group = %self.group.name, instance = %backend.endpoint, "a connection is closed: {breach}");
        match breach {
            Breach::OtherRole { .. } => {
                self.say(client, &breach.to_string()).await;
                End::Refused
            }
            // Nothing may look like an answer to the commit.
            Breach::Unreplicated | Breach::NotPostgres(_) => End::Broken,
        }
    }

    /// Tells a client that understands it why its connection ends.
    async fn say(&self, client: &mut TcpStream, text: &str) {
        if self.postgres.is_some() && client.write_all(&refusal(text)).await.is_ok() {
            // The close comes after it.
            let _ = client.shutdown().await;
        }
    }

    /// Passes a request to cancel on to the server that runs the query. One whose connection is carried elsewhere goes
    /// to every server that may be meant: a key that a server has not given away is nothing to it.
    async fn cancel(&self, keys: &Keys, key: &[u8], message: &[u8]) -> End {
        let known = keys.find(key).map(|endpoint| vec![endpoint]);
        let servers = known.unwrap_or_else(|| self.group.subscribe(self.role).borrow().keep.clone());
        for server in servers {
            if let Err(error) = timeout(CANCEL_LIMIT, pass_on(&server, message)).await.unwrap_or(Ok(())) {
                tracing::debug!(group = %self.group.name, instance = %server, %error, "a request to cancel was not passed on");
            }
        }
        End::Orderly
    }
}

/// How long a server may take to have read a request to cancel, which it tells by closing.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

async fn pass_on(server: &Endpoint, message: &[u8]) -> io::Result<()> {
    let mut stream = hold::open(server).await?;
    stream.write_all(message).await?;
    // The client takes our close as the sign that the server has been asked.
    stream.read(&mut [0; 1]).await.map(drop)
}

/// Listens to a PostgreSQL server, and remembers why it broke the relay off.
struct PostgresEar<'a> {
    group: &'a Group,
    epoch: Option<u64>,
    listening: Listening<'a>,
    breach: Option<Breach>,
}

impl Ear for PostgresEar<'_> {
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.epoch.into_iter().for_each(|epoch| self.group.heard.note(epoch));
        self.listening.hear(bytes).map_err(|breach| {
            self.breach = Some(breach);
            io::Error::other(breach)
        })
    }
}

/// Whether a client has broken its connection off. One that only ended its own direction still wants its answers.
fn is_gone(client: &TcpStream) -> bool {
    !matches!(client.take_error(), Ok(None))
}

/// Makes the close that follows a reset: the peer learns of it at once, and takes no half of an answer for a whole.
fn reset(stream: &TcpStream) {
    // It fails only when the connection has been reset from the other side: then there is nothing to do.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
