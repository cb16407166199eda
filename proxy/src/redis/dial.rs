//! Connects a worker's links. Names are looked up and time limits kept on the proxy's runtime, so that no worker waits.

use super::mailbox::{Dialled, Mailbox};
use super::mux::LinkId;
use crate::hold;
use crate::routes::Endpoint;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// A try to connect. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Dial(AbortHandle);

impl Dial {
    /// Tries once; the outcome comes by mail.
    pub(super) fn start(runtime: &Handle, link: LinkId, endpoint: Arc<Endpoint>, mailbox: Arc<Mailbox>) -> Self {
        let trying = async move {
            let outcome = connect(&endpoint).await;
            mailbox.post(Dialled { link, outcome });
        };
        Self(runtime.spawn(trying).abort_handle())
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A machine that is gone without a word, or a path to it: what is sent there is lost after this long. A process that is
/// frozen is not gone, since its kernel answers, unless it leaves no room for more bytes this long: see `tcp(7)`,
/// `TCP_USER_TIMEOUT`.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// A link over which nothing is said is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    // It stays non-blocking.
    let stream = hold::open(endpoint).await?.into_std()?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(LOOK_EVERY).with_interval(LOOK_EVERY).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok(stream)
}
