//! Blocking queries: the latest whole view of a folder, published whenever it changed.
//!
//! The rules for the index are those of Consul's documentation: never below 1, back to none when it goes backwards,
//! and after an error or with another Consul, ask anew without waiting.

use std::time::Duration;

use election::GroupName;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Consul;
use crate::error::Error;
use crate::kv::{Block, Consistency, Listing};
use crate::pace::{Backoff, jitter};
use crate::view::{GroupView, ProxiesView};

/// How long one query waits for a change. Short, because a Consul that has died without a word is noticed only when
/// this is over.
const WAIT: Duration = Duration::from_secs(5);

/// So many answers are taken in a second; what comes after waits for the second's end. Far above what a group does
/// even in a takeover, far below what would burden Consul.
const ANSWERS_PER_SECOND: u32 = 50;

/// What a watch publishes: a view that can say that it is the last known one.
trait View: Default + Clone + PartialEq + Send + Sync + 'static {
    fn set_reachable(&mut self, reachable: bool);
}

impl View for GroupView {
    fn set_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
    }
}

impl View for ProxiesView {
    fn set_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
    }
}

impl Consul {
    /// A group as Consul shows it, always the latest. Ends when all receivers are dropped.
    pub fn watch_group(&self, group: &GroupName) -> watch::Receiver<GroupView> {
        let (layout, group) = (self.layout().clone(), group.clone());
        let folder = layout.group(&group);
        self.watch_folder(folder, move |listing| layout.view(&group, &listing.entries, listing.index))
    }

    /// The living proxies, always the latest. Ends when all receivers are dropped.
    pub fn watch_proxies(&self) -> watch::Receiver<ProxiesView> {
        let layout = self.layout().clone();
        let folder = layout.proxies();
        self.watch_folder(folder, move |listing| layout.proxies_view(&listing.entries, listing.index))
    }

    /// A group as it certainly is now, not as a leader that was deposed remembers it.
    pub async fn read_group(&self, group: &GroupName) -> Result<GroupView, Error> {
        let listing = self.list(&self.layout().group(group), Consistency::Consistent).await?;
        Ok(self.layout().view(group, &listing.entries, listing.index))
    }

    /// The names of all groups.
    pub async fn list_groups(&self) -> Result<Vec<GroupName>, Error> {
        let names = self.names(&self.layout().root()).await?;
        Ok(self.layout().groups_in(&names))
    }

    fn watch_folder<V: View>(
        &self,
        folder: String,
        read: impl Fn(&Listing) -> V + Send + 'static,
    ) -> watch::Receiver<V> {
        let (publish, receiver) = watch::channel(V::default());
        let consul = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follow(&consul, &folder, &publish, read) => {}
                () = publish.closed() => {}
            }
        });
        receiver
    }
}

async fn follow<V: View>(consul: &Consul, folder: &str, publish: &watch::Sender<V>, read: impl Fn(&Listing) -> V) {
    let mut place = None;
    let mut away = false;
    let mut backoff = Backoff::new();
    let mut valve = Valve::new();
    loop {
        let block = place.map(|place: Place| Block { index: place.index, wait: jitter(WAIT) });
        match consul.wait_for(folder, block).await {
            Ok(listing) => {
                if std::mem::take(&mut away) {
                    tracing::info!(folder, "Consul answers again");
                }
                show(publish, read(&listing));
                place = Place::after(place, &listing);
                backoff.reset();
                valve.pass().await;
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(error = error.whole(), folder, "going on with what Consul last said");
                }
                lose(publish);
                place = None;
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

fn show<V: View>(publish: &watch::Sender<V>, view: V) {
    publish.send_if_modified(|last| {
        let changed = *last != view;
        *last = view;
        changed
    });
}

/// The last view stays, marked.
fn lose<V: View>(publish: &watch::Sender<V>) {
    publish.send_if_modified(|last| {
        let before = last.clone();
        last.set_reachable(false);
        *last != before
    });
}

/// Where a watch stands: an index, and the Consul that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: u64,
    from: usize,
}

impl Place {
    /// Where to wait from next; `None`: ask without waiting.
    fn after(before: Option<Place>, listing: &Listing) -> Option<Place> {
        let now = Place { index: listing.index.max(1), from: listing.from };
        match before {
            Some(before) if before.from != now.from || now.index < before.index => None,
            _ => Some(now),
        }
    }
}

/// Lets bursts through and holds a flood.
struct Valve {
    began: Instant,
    passed: u32,
}

impl Valve {
    fn new() -> Self {
        Self { began: Instant::now(), passed: 0 }
    }

    async fn pass(&mut self) {
        const SECOND: Duration = Duration::from_secs(1);
        self.passed += 1;
        if self.passed > ANSWERS_PER_SECOND {
            tokio::time::sleep_until(self.began + SECOND).await;
        }
        if self.began.elapsed() >= SECOND {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(index: u64, from: usize) -> Listing {
        Listing { entries: vec![], index, from }
    }

    #[test]
    fn the_index_follows_the_documented_rules() {
        let at = |index, from| Some(Place { index, from });
        assert_eq!(Place::after(None, &listing(7, 0)), at(7, 0), "the first answer");
        assert_eq!(Place::after(at(7, 0), &listing(9, 0)), at(9, 0), "forwards");
        assert_eq!(Place::after(at(7, 0), &listing(7, 0)), at(7, 0), "nothing happened");
        assert_eq!(Place::after(None, &listing(0, 0)), at(1, 0), "never below 1");
        assert_eq!(Place::after(at(7, 0), &listing(6, 0)), None, "backwards");
        assert_eq!(Place::after(at(7, 0), &listing(9, 1)), None, "another Consul");
    }

    #[tokio::test]
    async fn a_flood_is_held_and_a_burst_is_not() {
        let mut valve = Valve::new();
        let began = Instant::now();
        for _ in 0..ANSWERS_PER_SECOND {
            valve.pass().await;
        }
        assert!(began.elapsed() < Duration::from_millis(500), "a burst waited {:?}", began.elapsed());
        valve.pass().await;
        assert!(began.elapsed() >= Duration::from_millis(900), "a flood passed in {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_last_receiver() {
        let client = Consul::connect(&config::ConsulConfig::default()).unwrap();
        let views = client.watch_proxies();
        let again = views.clone();
        assert_eq!(std::sync::Arc::strong_count(&client.inner), 2, "the watch holds the client");
        drop(views);
        tokio::task::yield_now().await;
        assert_eq!(std::sync::Arc::strong_count(&client.inner), 2, "a receiver is left");
        drop(again);
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            while std::sync::Arc::strong_count(&client.inner) > 1 {
                tokio::task::yield_now().await;
            }
        });
        ended.await.expect("the watch goes on");
    }
}
