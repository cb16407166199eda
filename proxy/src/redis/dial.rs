//! Connects a worker's links. Names are looked up and time limits kept on the proxy's runtime, so that no worker waits.

use super::mailbox::{Dialled, Mailbox};
use super::mux::LinkId;
use crate::hold;
use crate::routes::Endpoint;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
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

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    // It stays non-blocking.
    hold::open(endpoint).await?.into_std()
}
