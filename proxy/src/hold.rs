//! Finds a new connection its database: waits for a route, connects, and tries again until `hold` has passed.

use crate::confirm::{Contradiction, Verdict};
use crate::counters::{Gauge, count};
use crate::group::Group;
use crate::routes::Endpoint;
use crate::target::{Place, Target};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

/// A machine that has gone answers nothing; one that lives answers within a round trip, at worst after one lost SYN
/// (which the kernel repeats after 1 s).
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// An instance that refuses is being replaced or is starting: ask again soon at first, then with less noise.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_millis(250);

/// A connection to a database, and what it was made for.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) stream: TcpStream,
    pub(crate) epoch: Option<u64>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Whether the client had to wait for a route, or for an instance that did not answer at once.
    pub(crate) waited: bool,
}

/// Connects to where `target` sends new connections, now or within `hold`. `None`: it ended first.
pub(crate) async fn connect(
    group: &Group,
    target: &mut watch::Receiver<Target>,
    turn: &AtomicUsize,
    hold: Duration,
) -> Option<Backend> {
    let deadline = tokio::time::Instant::now() + hold;
    let mut pause = RETRY_FIRST;
    let mut held = None;
    let tries = async {
        loop {
            let (epoch, next) = choose(&target.borrow_and_update(), turn);
            if let Some(place) = next {
                match try_once(group, target, epoch, &place).await {
                    Attempt::Connected(stream) if target.borrow().sustains(epoch, &place.endpoint) => {
                        let Place { endpoint, .. } = place;
                        return Backend { stream, epoch, endpoint, waited: held.is_some() };
                    }
                    Attempt::Connected(_) | Attempt::Outdated => pause = RETRY_FIRST,
                    Attempt::Failed(error) => {
                        tracing::debug!(group = %group.name, instance = %place.endpoint, %error, "cannot connect");
                        held.get_or_insert_with(|| Gauge::raise(&group.counters.held));
                        // A new route ends the pause; the old one is tried again after it.
                        let _ = timeout(pause, changed(target)).await;
                        pause = (pause * 2).min(RETRY_LONGEST);
                    }
                }
            } else {
                held.get_or_insert_with(|| Gauge::raise(&group.counters.held));
                changed(target).await;
                pause = RETRY_FIRST;
            }
        }
    };
    timeout_at(deadline, tries).await.ok()
}

enum Attempt {
    Connected(TcpStream),
    /// The route has changed meanwhile.
    Outdated,
    Failed(Failure),
}

/// Why a server was not reached, or is not to be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unreached(#[from] io::Error),
    #[error(transparent)]
    Contradicted(#[from] Contradiction),
}

/// The next in turn of those that take new connections.
fn choose(target: &Target, turn: &AtomicUsize) -> (Option<u64>, Option<Place>) {
    let next = match target.admit.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(several[turn.fetch_add(1, Ordering::Relaxed) % several.len()].clone()),
    };
    (target.epoch, next)
}

async fn try_once(group: &Group, target: &mut watch::Receiver<Target>, epoch: Option<u64>, place: &Place) -> Attempt {
    tokio::select! {
        biased;
        () = outdated(target, epoch, &place.endpoint) => Attempt::Outdated,
        connected = reach(group, place) => connected.map_or_else(Attempt::Failed, Attempt::Connected),
    }
}

/// Connects to a server that is what it should be. It is asked first: one that counts broken logins gets none from us.
async fn reach(group: &Group, place: &Place) -> Result<TcpStream, Failure> {
    let verdict = match &place.question {
        Some(question) => group.words.ask(&group.name, &place.endpoint.id, question).await,
        None => Verdict::Confirmed,
    };
    if let Verdict::Against(contradiction) = verdict {
        count(&group.counters.contradicted);
        return Err(contradiction.into());
    }
    let stream = open(&place.endpoint).await.inspect_err(|_| count(&group.counters.refused))?;
    if verdict == Verdict::Silent {
        count(&group.counters.unconfirmed);
    }
    Ok(stream)
}

/// Connects once.
pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((endpoint.address.as_str(), endpoint.port));
    let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // Connecting to a port of this machine that nobody listens on can, by chance, meet itself: the kernel may have
    // chosen that very port as the source.
    let own = stream.local_addr()?;
    if own.port() == endpoint.port && own == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns when a connection that was made for `epoch` to `endpoint` may not go on.
pub(crate) async fn outdated(target: &mut watch::Receiver<Target>, epoch: Option<u64>, endpoint: &Endpoint) {
    while target.borrow_and_update().sustains(epoch, endpoint) {
        changed(target).await;
    }
}

/// Waits for another target. One whose publisher has gone never comes: the process is ending.
async fn changed(target: &mut watch::Receiver<Target>) {
    if target.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
