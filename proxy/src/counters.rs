//! What is counted of a group's connections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one group. Read by `/metrics`; nothing is decided by them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Connections that have not ended.
    pub(crate) open: AtomicU64,
    /// Connections that wait for somewhere to go.
    pub(crate) held: AtomicU64,
    /// Connections that were reset because their master's epoch had ended, or their replica was none any more.
    pub(crate) cut: AtomicU64,
    /// Connections that were closed because `hold` ended first.
    pub(crate) expired: AtomicU64,
    /// Tries to connect to an instance that failed.
    pub(crate) refused: AtomicU64,
    /// Tries that ended because the server is not what the record says.
    pub(crate) contradicted: AtomicU64,
    /// Clients handed to a server of which its agent said nothing.
    pub(crate) unconfirmed: AtomicU64,
}

/// Raises a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    pub(crate) fn raise(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
