//! The two clocks of an agent: a monotonic one that decides, a wall clock for people.

use election::Millis;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock starts here instead of at zero, so that "long ago" exists when an agent has just started.
const ORIGIN_MS: u64 = 1_000_000_000;

/// Milliseconds since this agent started, and then some.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Now, on the monotonic clock.
    pub(crate) fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// An instant since its start, on the monotonic clock.
    pub(crate) fn at(&self, instant: Instant) -> Millis {
        let ms = instant.saturating_duration_since(self.started).as_millis();
        Millis(ORIGIN_MS + u64::try_from(ms).unwrap_or(u64::MAX / 2))
    }

    /// How long until `at`, zero when it is past.
    pub(crate) fn until(&self, at: Millis) -> Duration {
        Duration::from_millis(at.since(self.now()))
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
