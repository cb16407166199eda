//! The `tcp` protocol: bytes are carried, not understood. All the safety it gives is that of the epoch.

mod bulk;
mod relay;

use crate::counters::{Gauge, count};
use crate::group::Group;
use crate::hold::{self, Backend};
use crate::target::Target;
use config::ListenerRole;
use socket2::SockRef;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the connections of one listener share.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) group: Arc<Group>,
    pub(crate) role: ListenerRole,
    /// How long a connection waits for somewhere to go.
    pub(crate) hold: Duration,
    /// Whose turn it is among several replicas.
    pub(crate) turn: AtomicUsize,
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
            End::Orderly | End::Broken => {}
        }
        if end != End::Orderly {
            reset(&client);
        }
        tracing::debug!(group = %self.group.name, ?end, "a connection has ended");
    }

    async fn carry(&self, client: &mut TcpStream) -> End {
        let mut target = self.group.subscribe(self.role);
        // Boxed: what waiting and connecting need is given back before a connection's long quiet life begins.
        let found = Box::pin(hold::connect(&self.group, &mut target, &self.turn, self.hold)).await;
        let Some(mut backend) = found else { return End::Expired };
        if backend.waited && is_gone(client) {
            // It gave up; what it had sent before must not be carried out now.
            return End::Broken;
        }
        let end = self.relay(client, &mut backend, &mut target).await;
        if end != End::Orderly {
            reset(&backend.stream);
        }
        end
    }

    async fn relay(&self, client: &mut TcpStream, backend: &mut Backend, target: &mut watch::Receiver<Target>) -> End {
        let Backend { stream, epoch, endpoint, .. } = backend;
        let heard = || {
            if let Some(epoch) = *epoch {
                self.group.heard.note(epoch);
            }
        };
        tokio::select! {
            // The fence comes first: once a higher epoch is known, not one more byte of the old one is carried.
            biased;
            () = hold::outdated(target, *epoch, endpoint) => End::Cut,
            outcome = relay::relay(client, stream, heard) => match outcome {
                Ok(()) => End::Orderly,
                Err(_) => End::Broken,
            },
        }
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
