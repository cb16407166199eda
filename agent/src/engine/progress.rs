//! How far a copy is that is being made, told by the task that makes it to whoever shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use election::Copying;

/// What says that the whole is not known.
const UNKNOWN: u64 = 0;

/// Shared by both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    of: AtomicU64,
}

impl Progress {
    /// The copy has this many bytes so far.
    pub(crate) fn reach(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes more have arrived; how many have by now.
    pub(crate) fn add(&self, bytes: u64) -> u64 {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// It will have about this many.
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.of.store(bytes, Ordering::Relaxed);
    }

    /// How far it is.
    pub(crate) fn now(&self) -> Copying {
        let (bytes, of) = (self.0.bytes.load(Ordering::Relaxed), self.0.of.load(Ordering::Relaxed));
        // An estimate that turned out too small says nothing any more.
        Copying { bytes, of: Some(of).filter(|of| *of != UNKNOWN && *of >= bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_was_too_small_is_not_shown() {
        let progress = Progress::default();
        assert_eq!(progress.now(), Copying { bytes: 0, of: None });
        progress.expect(10);
        assert_eq!(progress.add(4), 4);
        assert_eq!(progress.now(), Copying { bytes: 4, of: Some(10) });
        progress.reach(11);
        assert_eq!(progress.now(), Copying { bytes: 11, of: None });
    }
}
