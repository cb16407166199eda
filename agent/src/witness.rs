//! Asks the proxies: whether they still reach the master's database, while this node has lost sight of it; and whether
//! nothing is in flight through them any more, while this node's database waits to hand over.

use crate::instance::Message;
use crate::step::{Asking, Event};
use consul::{ProxiesView, ProxyListener, ProxyRecord};
use election::{GroupName, Stamp};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A word that comes later than this is too old to stop a suspicion, or to spare a client anything.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two questions whether the master is reached.
const WITNESS_EVERY: Duration = Duration::from_millis(150);

/// Between two questions whether a proxy is quiet: clients wait meanwhile.
const QUIET_EVERY: Duration = Duration::from_millis(5);

/// What a proxy answers at `/witness/<group>`.
#[derive(Debug, Deserialize)]
struct Word {
    epoch: u64,
    heard_ms: Option<u64>,
    /// The record under which nothing is in flight, as [`Stamp`] is written; a proxy that only carries bytes says nothing.
    #[serde(default)]
    quiet: Option<String>,
}

/// One proxy, and how to ask it.
#[derive(Clone)]
struct Asked {
    name: String,
    url: String,
    http: reqwest::Client,
    events: mpsc::Sender<Message>,
}

/// Says who there is to be asked, and asks while `asking` says so, until its sender is gone.
pub(crate) async fn run(
    group: GroupName,
    http: reqwest::Client,
    mut asking: watch::Receiver<Asking>,
    mut proxies: watch::Receiver<ProxiesView>,
    events: mpsc::Sender<Message>,
) {
    let mut told = BTreeSet::new();
    loop {
        let all: Vec<ProxyRecord> = proxies.borrow_and_update().proxies.values().cloned().collect();
        let holding: BTreeSet<String> =
            all.iter().filter(|p| p.listeners.iter().any(|l| holds_back(l, &group))).map(|p| p.name.clone()).collect();
        if holding != told {
            told.clone_from(&holding);
            let _ = events.send(Message::Event(Event::Proxies(holding.clone()))).await;
        }
        let asked = |p: ProxyRecord| Asked {
            url: format!("http://{}/witness/{group}", p.http),
            name: p.name,
            http: http.clone(),
            events: events.clone(),
        };
        // Each is asked by itself: one that hangs delays no other. Dropping the set ends them.
        let mut under_way = JoinSet::new();
        match *asking.borrow_and_update() {
            Asking::Nothing => {}
            Asking::Witness => all.into_iter().map(asked).for_each(|one| drop(under_way.spawn(one.witness()))),
            Asking::Quiet(stamp) => {
                let one = all.into_iter().filter(|p| holding.contains(&p.name)).map(asked);
                one.for_each(|one| drop(under_way.spawn(one.quiet(stamp))));
            }
        }
        let changed = tokio::select! {
            changed = asking.changed() => changed,
            changed = proxies.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whether requests to the group's master wait behind this listener while roles change.
fn holds_back(listener: &ProxyListener, group: &GroupName) -> bool {
    listener.protocol == "redis" && listener.role == "master" && listener.groups.contains(group)
}

impl Asked {
    async fn ask(&self) -> Option<Word> {
        self.http.get(&self.url).timeout(PATIENCE).send().await.ok()?.json().await.ok()
    }

    async fn tell(&self, event: Event) {
        let _ = self.events.send(Message::Event(event)).await;
    }

    /// Asks again and again whether it reaches the master's database.
    async fn witness(self) {
        loop {
            if let Some(Word { epoch, heard_ms: Some(ago_ms), .. }) = self.ask().await {
                self.tell(Event::Witness { proxy: self.name.clone(), epoch, ago_ms }).await;
            }
            sleep(WITNESS_EVERY).await;
        }
    }

    /// Asks until it is quiet.
    async fn quiet(self, since: Stamp) {
        loop {
            let word = self.ask().await;
            if let Some(stamp) = word.and_then(|w| w.quiet?.parse::<Stamp>().ok()).filter(|stamp| *stamp >= since) {
                return self.tell(Event::Quiet { proxy: self.name.clone(), stamp }).await;
            }
            sleep(QUIET_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A proxy that answers each question with the next of these, and with the last from then on.
    async fn proxy(answers: &[&str]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                assert!(head[..read].starts_with(b"GET /witness/g "));
                let n = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let body = &answers[n];
                let page =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(page.as_bytes()).await;
            }
        });
        (address, asked)
    }

    fn record(name: &str, http: &str, protocol: &str, group: &str) -> (String, ProxyRecord) {
        let listener = ProxyListener {
            listen: "0.0.0.0:1".into(),
            groups: vec![group.into()],
            role: "master".into(),
            protocol: protocol.into(),
        };
        let record = ProxyRecord {
            name: name.into(),
            address: "h".into(),
            http: http.into(),
            version: String::new(),
            listeners: vec![listener],
        };
        (name.to_owned(), record)
    }

    struct Rig {
        asking: watch::Sender<Asking>,
        _proxies: watch::Sender<ProxiesView>,
        inbox: mpsc::Receiver<Message>,
    }

    fn rig(proxies: BTreeMap<String, ProxyRecord>) -> Rig {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (asking, wanted) = watch::channel(Asking::Nothing);
        let (_proxies, view) = watch::channel(ProxiesView { proxies, ..ProxiesView::default() });
        let (sender, inbox) = mpsc::channel(64);
        tokio::spawn(run(GroupName::from("g"), reqwest::Client::new(), wanted, view, sender));
        Rig { asking, _proxies, inbox }
    }

    impl Rig {
        async fn next(&mut self) -> Event {
            match timeout(LIMIT, self.inbox.recv()).await.unwrap() {
                Some(Message::Event(event)) => event,
                _ => panic!("no event"),
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_holds_back_is_asked_until_it_is_quiet() {
        let words = [
            r#"{"group":"g","epoch":3,"heard_ms":1,"quiet":null}"#,
            r#"{"group":"g","epoch":3,"heard_ms":1,"quiet":"3/6"}"#,
            r#"{"group":"g","epoch":3,"heard_ms":1,"quiet":"nonsense"}"#,
            r#"{"group":"g","epoch":3,"heard_ms":1,"quiet":"3/8"}"#,
        ];
        let (speaks, asked) = proxy(&words).await;
        let (carries, not_asked) = proxy(&words).await;
        let all = [
            record("speaks", &speaks, "redis", "g"),
            record("carries", &carries, "tcp", "g"),
            record("elsewhere", &carries, "redis", "h"),
        ];
        let mut rig = rig(all.into());
        let Event::Proxies(names) = rig.next().await else { panic!() };
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["speaks"]);
        rig.asking.send_replace(Asking::Quiet(Stamp { epoch: 3, seq: 7 }));
        let Event::Quiet { proxy, stamp } = rig.next().await else { panic!() };
        assert_eq!((proxy.as_str(), stamp), ("speaks", Stamp { epoch: 3, seq: 8 }));
        assert_eq!(asked.load(Ordering::SeqCst), words.len(), "it is asked no more");
        assert_eq!(not_asked.load(Ordering::SeqCst), 0, "who holds nothing back is not asked");
    }

    #[tokio::test]
    async fn every_proxy_is_a_witness_and_an_older_one_says_nothing_of_quiet() {
        let (carries, _) = proxy(&[r#"{"group":"g","epoch":3,"heard_ms":null}"#, r#"{"epoch":3,"heard_ms":20}"#]).await;
        let mut rig = rig([record("old", &carries, "tcp", "g")].into());
        rig.asking.send_replace(Asking::Witness);
        let Event::Witness { proxy, epoch, ago_ms } = rig.next().await else { panic!() };
        assert_eq!((proxy.as_str(), epoch, ago_ms), ("old", 3, 20));
    }
}
