//! The threads that carry connections: each has a runtime and sockets of its own and shares nothing on the way of a byte.

use crate::Error;
use crate::listen;
use crate::tcp::Tcp;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// More threads than this gain little for what a proxy does, and take cores from the databases beside it.
const MOST_THREADS: usize = 4;

/// How many worker threads a listener gets: half the cores. The databases and the clients have work to do as well, and
/// a thread that is woken for many connections at once carries each of them cheapest.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| usize::from(cores).div_ceil(2)).min(MOST_THREADS)
}

/// One worker's share: a socket of each listener.
pub(crate) type Share = Vec<(StdListener, Arc<Tcp>)>;

/// What all workers obey.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// Accept no more.
    pub(crate) drain: CancellationToken,
    /// Close what is left.
    pub(crate) end: CancellationToken,
    /// The clients that are being carried.
    pub(crate) clients: TaskTracker,
}

/// Starts one thread for each share. They end after `signals.end`.
///
/// # Errors
/// When the system grants no thread or no epoll.
pub(crate) fn start(shares: Vec<Share>, signals: &Signals) -> Result<Vec<thread::JoinHandle<()>>, Error> {
    shares.into_iter().enumerate().map(|(i, share)| start_one(i, share, signals.clone())).collect()
}

fn start_one(index: usize, share: Share, signals: Signals) -> Result<thread::JoinHandle<()>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    let mut sockets = Vec::with_capacity(share.len());
    {
        let _inside = runtime.enter();
        for (listener, tcp) in share {
            sockets.push((TcpListener::from_std(listener).map_err(Error::System)?, tcp));
        }
    }
    let work = move || {
        runtime.block_on(async {
            for (listener, tcp) in sockets {
                tokio::spawn(listen::accept(listener, tcp, signals.drain.clone(), signals.clients.clone()));
            }
            signals.end.cancelled().await;
        });
        // Closes what is left; a name that is being looked up does not delay it.
        runtime.shutdown_background();
    };
    thread::Builder::new().name(format!("proxy-{index}")).spawn(work).map_err(Error::System)
}
