//! How a proxy is told to stop.

use tokio_util::sync::CancellationToken;

/// Tells a proxy to stop. Clones tell the same proxy.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    drain: CancellationToken,
    now: CancellationToken,
}

impl Stop {
    /// One that nobody has used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first time: accept no more clients, and let those that are connected finish within the drain limit.
    /// The second time: end at once.
    pub fn request(&self) {
        if self.drain.is_cancelled() {
            self.now.cancel();
        }
        self.drain.cancel();
    }

    /// Cancelled with the first request.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Returns after the second request.
    pub(crate) async fn at_once(&self) {
        self.now.cancelled().await;
    }
}
