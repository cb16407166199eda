//! What the workers of a group's redis listeners count, summed up for `/metrics`.

use super::mux::Counts;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One place for each worker there ever was: what it has counted outlives it.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    workers: Mutex<Vec<Arc<Mutex<Counts>>>>,
}

/// A worker's own place.
#[derive(Debug)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

impl Tallies {
    /// A place for one more worker.
    pub(super) fn enlist(&self) -> Tally {
        let place = Arc::default();
        lock(&self.workers).push(Arc::clone(&place));
        Tally(place)
    }

    /// The sum of all workers.
    pub(crate) fn sum(&self) -> Counts {
        lock(&self.workers).iter().map(|place| *lock(place)).fold(Counts::default(), Counts::plus)
    }
}

impl Tally {
    pub(super) fn set(&self, counts: Counts) {
        *lock(&self.0) = counts;
    }
}

impl Drop for Tally {
    /// A worker that has ended has nobody connected.
    fn drop(&mut self) {
        let mut counts = lock(&self.0);
        *counts = counts.ended();
    }
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
