//! The workers of all redis listeners: their threads, and how they end.

use super::Redis;
use super::mailbox::Mailbox;
use super::worker::{Site, Worker};
use crate::Error;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::error;

/// A worker that fails at once fails at once again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Workers that run. Dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a worker for each socket of a listener. `background` keeps them told where requests go; `clients` counts.
    ///
    /// # Errors
    /// When the system grants no thread or no epoll.
    pub(crate) fn start(
        &mut self,
        redis: &Arc<Redis>,
        sockets: Vec<TcpListener>,
        clients: &TaskTracker,
        background: &mut JoinSet<()>,
    ) -> Result<(), Error> {
        let first = self.mailboxes.len();
        for socket in sockets {
            self.start_one(redis, socket, clients).map_err(Error::System)?;
        }
        let told = self.mailboxes[first..].to_vec();
        let mut courses = redis.group.courses(redis.role);
        background.spawn(async move {
            while courses.changed().await.is_ok() {
                told.iter().for_each(|mailbox| mailbox.ring());
            }
        });
        Ok(())
    }

    fn start_one(&mut self, redis: &Arc<Redis>, socket: TcpListener, clients: &TaskTracker) -> io::Result<()> {
        let mailbox = Arc::new(Mailbox::new()?);
        let site = Site::new(redis.clone(), socket, mailbox.clone(), clients.clone())?;
        let name = format!("redis-{}", self.threads.len());
        self.threads.push(thread::Builder::new().name(name).spawn(move || work(site))?);
        self.mailboxes.push(mailbox);
        Ok(())
    }

    /// No new clients; the present ones go on.
    pub(crate) fn drain(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.drain());
    }

    /// Closes what is left, and gives the threads to wait for.
    pub(crate) fn end(mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.end());
    }
}

/// A defect that one client's bytes bring to light costs the clients of this worker their connections, whose outcome is
/// then unknown, and no more.
fn work(mut site: Site) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| Worker::new(&mut site).run())) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error!(%error, "a worker cannot wait for its sockets; it starts again"),
            Err(_) => error!("a worker has panicked; its clients are cut off and it starts again"),
        }
        thread::sleep(RESTART_PAUSE);
    }
}
