//! Random spread and growing pauses, so that many clients of one Consul do not act in step.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// `span` plus or minus up to a fifth of it.
pub(crate) fn jitter(span: Duration) -> Duration {
    // The standard library seeds each of these anew from the system: no other source of chance is needed here.
    let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
    span.mul_f64(0.8 + 0.4 * (chance % 1_000) as f64 / 1_000.0)
}

/// Pauses that double up to a limit.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Short enough that a Consul which restarts is found again at once.
    const FIRST: Duration = Duration::from_millis(100);
    /// Long enough not to burden a Consul in trouble, short enough to be back soon after it.
    const LIMIT: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// The pause to make now.
    pub(crate) fn pause(&mut self) -> Duration {
        let now = jitter(self.next);
        self.next = (self.next * 2).min(Self::LIMIT);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_near_and_differs() {
        let span = Duration::from_secs(1);
        let drawn: Vec<_> = (0..100).map(|_| jitter(span)).collect();
        assert!(drawn.iter().all(|d| *d >= span.mul_f64(0.8) && *d < span.mul_f64(1.2)), "{drawn:?}");
        assert!(drawn.iter().any(|d| *d != drawn[0]), "all alike");
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        for _ in 0..10 {
            backoff.pause();
        }
        assert!(first < Duration::from_millis(121));
        assert!(backoff.pause() > Duration::from_millis(1_500));
        assert!(backoff.pause() < Duration::from_millis(2_500));
        backoff.reset();
        assert!(backoff.pause() < Duration::from_millis(121));
    }
}
