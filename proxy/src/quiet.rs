//! Whether a group has fallen quiet in this proxy: what the master's agent waits for in a planned switchover.

use election::Stamp;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The workers that carry requests to a group's master.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    workers: Mutex<Vec<Weak<Place>>>,
}

/// The record under which one worker is quiet, if it is.
type Place = Mutex<Option<Stamp>>;

/// What one worker says of itself. Gone with the worker.
#[derive(Debug)]
pub(crate) struct Voice {
    place: Arc<Place>,
    said: Option<Stamp>,
}

impl Quiet {
    /// One more worker, which is not quiet yet.
    pub(crate) fn enlist(&self) -> Voice {
        let place = Arc::default();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(&place));
        Voice { place, said: None }
    }

    /// Whether all of them are quiet under this record.
    pub(crate) fn all_at(&self, stamp: Stamp) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(Weak::upgrade).all(|place| *lock(&place) == Some(stamp))
    }
}

impl Voice {
    /// Says under which record this worker is quiet. To be taken back before it sends anything again.
    pub(crate) fn say(&mut self, quiet: Option<Stamp>) {
        // Asked after every turn of a worker; changes twice in a switchover.
        if self.said != quiet {
            self.said = quiet;
            *lock(&self.place) = quiet;
        }
    }
}

fn lock(place: &Place) -> std::sync::MutexGuard<'_, Option<Stamp>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_quiet_when_all_its_workers_are_under_the_same_record() {
        let stamp = |seq| Stamp { epoch: 3, seq };
        let group = Quiet::default();
        assert!(group.all_at(stamp(1)), "without a worker there is nothing to wait for");
        let (mut first, mut second) = (group.enlist(), group.enlist());
        first.say(Some(stamp(7)));
        assert!(!group.all_at(stamp(7)), "the second has not said so");
        second.say(Some(stamp(6)));
        assert!(!group.all_at(stamp(7)), "the second obeys an older record");
        second.say(Some(stamp(7)));
        assert!(group.all_at(stamp(7)));
        assert!(!group.all_at(stamp(8)));
        first.say(None);
        assert!(!group.all_at(stamp(7)));
        drop(first);
        assert!(group.all_at(stamp(7)), "one that has ended sends nothing");
    }
}
