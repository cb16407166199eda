//! When bytes last arrived from a master's database: what this proxy can bear witness to.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Milliseconds fill the low bits: 34 years. The epoch fills the rest: 16 million masterships.
const MS_BITS: u32 = 40;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Epoch and instant in one word, so that all worker threads note into it without a lock and a late byte of an old
/// epoch never covers one of the new.
#[derive(Debug, Default)]
pub(crate) struct Heard(AtomicU64);

impl Heard {
    /// Bytes have just arrived from the master of `epoch`.
    pub(crate) fn note(&self, epoch: u64) {
        self.note_at(epoch, now());
    }

    /// Milliseconds since bytes arrived from the master of `epoch`; `None` when none have.
    pub(crate) fn ms_since(&self, epoch: u64) -> Option<u64> {
        self.ms_since_at(epoch, now())
    }

    fn note_at(&self, epoch: u64, now: u64) {
        // Never zero: an empty word means that nothing was heard.
        let word = epoch << MS_BITS | (now + 1);
        // Most arrivals fall into a millisecond that is noted already: then the cache line stays shared.
        if self.0.load(Ordering::Relaxed) < word {
            self.0.fetch_max(word, Ordering::Relaxed);
        }
    }

    fn ms_since_at(&self, epoch: u64, now: u64) -> Option<u64> {
        let word = self.0.load(Ordering::Relaxed);
        let at = word & ((1 << MS_BITS) - 1);
        let of_epoch = word >> MS_BITS == epoch << MS_BITS >> MS_BITS;
        (at > 0 && of_epoch).then(|| (now + 1).saturating_sub(at))
    }
}

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX >> (u64::BITS - MS_BITS + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_epoch_counts_and_never_an_older_byte() {
        let heard = Heard::default();
        assert_eq!(heard.ms_since_at(0, 5), None, "nothing was heard yet");
        heard.note_at(3, 0);
        assert_eq!(heard.ms_since_at(3, 7), Some(7));
        heard.note_at(3, 100);
        heard.note_at(3, 90);
        assert_eq!(heard.ms_since_at(3, 100), Some(0));
        assert_eq!(heard.ms_since_at(4, 100), None);
        heard.note_at(4, 120);
        heard.note_at(3, 130);
        assert_eq!(heard.ms_since_at(4, 140), Some(20), "a late byte of the old epoch counts for nothing");
        assert_eq!(heard.ms_since_at(3, 140), None);
    }
}
