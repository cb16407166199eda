//! Beats between the agents of a group: one exchange carries both sides' beats, at least every
//! [`BEAT_EVERY_MS`], and at once when there is news.

use crate::step::BEAT_EVERY_MS;
use election::{Beat, Millis, NodeId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// The header that shows that two agents were given the same database password.
pub(crate) const KEY_HEADER: &str = "x-understudy-key";

/// How long an exchange may take. A silence is measured from the last beat, so this only bounds how soon the next
/// exchange is tried.
const PATIENCE: Duration = Duration::from_millis(500);

/// Of two agents that knew each other's last beat from the same exchange, both would call at the same instant, and do
/// everything twice. So the one whose name comes first calls this many milliseconds earlier, which is longer than an
/// exchange takes; the other calls when that did not happen.
const HEAD_START_MS: u64 = 20;

/// Beats that are due within so many milliseconds go out together: one wake-up for all peers. Far less than the head
/// start, which would be lost.
const TOGETHER_MS: u64 = 5;

/// After a failed exchange the next is tried this soon, in milliseconds.
const RETRY_MS: u64 = 40;

/// A peer that was given another password is called this rarely, in milliseconds: only a restart with another file
/// helps.
const SHUNNED_MS: u64 = 5_000;

/// What became of an exchange.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The peer's beat.
    Answered(Box<Beat>),
    /// Nobody listens there.
    Refused,
    /// The peer was given another password.
    Shunned,
    /// Anything else.
    Failed,
}

/// The peers an agent knows of, and when each was last told something.
#[derive(Debug)]
pub(crate) struct Peers {
    me: NodeId,
    known: BTreeMap<NodeId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    agent: String,
    calling: bool,
    next: Millis,
    told: Option<u64>,
    shunned: bool,
}

impl Peers {
    /// Nobody yet. `me` is the node whose peers they are.
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, known: BTreeMap::new() }
    }

    /// A node of the group and where its agent listens. A node whose session has ended stays known: it may be alive.
    pub(crate) fn learn(&mut self, id: &NodeId, agent: &str) {
        let known = self.known.entry(id.clone()).or_default();
        if known.agent != agent {
            agent.clone_into(&mut known.agent);
            known.next = Millis::default();
        }
    }

    /// Who is to be called now, and where: those whose beat is due, or is in a moment, and those who have not heard the
    /// news.
    pub(crate) fn due(&mut self, now: Millis, news: u64) -> Vec<(NodeId, String)> {
        let due = |known: &Known, at: Millis| {
            !known.calling && (at >= known.next || known.told.is_some_and(|told| told != news))
        };
        if !self.known.values().any(|known| due(known, now)) {
            return Vec::new();
        }
        let soon = now.plus(TOGETHER_MS);
        let called = self.known.iter_mut().filter(|(_, known)| due(known, soon)).map(|(id, known)| {
            known.calling = true;
            known.told = Some(news);
            (id.clone(), known.agent.clone())
        });
        called.collect()
    }

    /// When the next beat is due.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.known.values().filter(|k| !k.calling).map(|k| k.next).min()
    }

    /// Takes in what became of a call.
    pub(crate) fn called(&mut self, now: Millis, id: &NodeId, exchange: &Exchange) {
        let every = self.every(id);
        let Some(known) = self.known.get_mut(id) else { return };
        known.calling = false;
        let shunned = matches!(exchange, Exchange::Shunned);
        if shunned && !known.shunned {
            tracing::warn!(
                peer = %id, agent = known.agent,
                "the password files of this node and of {id} differ: neither hears the other until both hold the same"
            );
        }
        known.shunned = shunned;
        match exchange {
            Exchange::Answered(_) => known.next = now.plus(every),
            Exchange::Shunned => {
                known.next = now.plus(SHUNNED_MS);
                known.told = None;
            }
            Exchange::Refused | Exchange::Failed => {
                known.next = now.plus(RETRY_MS);
                known.told = None; // It may not have heard the news; it is called again anyway.
            }
        }
    }

    /// A peer has called and was answered with this side's beat: its own call is not due for a while.
    pub(crate) fn answered(&mut self, now: Millis, id: &NodeId, news: u64) {
        let every = self.every(id);
        let Some(known) = self.known.get_mut(id) else { return };
        known.next = known.next.max(now.plus(every));
        if !known.calling {
            known.told = Some(news);
        }
    }

    /// How long after an exchange this side calls again.
    fn every(&self, id: &NodeId) -> u64 {
        if self.me < *id { BEAT_EVERY_MS - HEAD_START_MS } else { BEAT_EVERY_MS }
    }
}

/// What both sides of an exchange derive from the password their files share; empty when there is none.
pub(crate) fn key(group: &str, password: Option<&str>) -> String {
    let Some(password) = password else { return String::new() };
    let mut hash = Sha256::new();
    for part in ["understudy peer", group, password] {
        hash.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls a peer's agent.
pub(crate) async fn call(http: &reqwest::Client, agent: &str, key: &str, beat: &Beat) -> Exchange {
    let request = http.post(format!("http://{agent}/peer")).header(KEY_HEADER, key).json(beat).timeout(PATIENCE);
    let answer = match request.send().await {
        Ok(response) if response.status().is_success() => response.json::<Beat>().await,
        Ok(response) if response.status() == reqwest::StatusCode::FORBIDDEN => return Exchange::Shunned,
        Ok(response) => {
            tracing::debug!(agent, status = %response.status(), "a peer refused this agent's beat");
            return Exchange::Failed;
        }
        Err(e) => Err(e),
    };
    match answer {
        Ok(beat) => Exchange::Answered(Box::new(beat)),
        Err(e) if is_refused(&e) => Exchange::Refused,
        Err(_) => Exchange::Failed,
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        if e.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = e.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_told_at_once_and_beats_when_they_are_due() {
        let mut peers = Peers::new(NodeId::from("c"));
        let id = NodeId::from("b");
        peers.learn(&id, "h:1");
        assert_eq!(peers.due(Millis(1_000), 1).len(), 1);
        assert!(peers.due(Millis(1_001), 2).is_empty(), "a call is under way");
        peers.called(Millis(1_002), &id, &Exchange::Failed);
        assert!(peers.due(Millis(1_003), 2).is_empty());
        assert_eq!(peers.due(Millis(1_002 + RETRY_MS), 2).len(), 1);
        peers.answered(Millis(1_100), &id, 2);
        peers.called(Millis(1_100), &id, &Exchange::Refused);
        assert_eq!(peers.next_due(), Some(Millis(1_100 + RETRY_MS)));
    }

    #[test]
    fn after_an_exchange_one_side_calls_and_the_other_waits_for_it() {
        let (a, b) = (NodeId::from("a"), NodeId::from("b"));
        let (mut first, mut second) = (Peers::new(a.clone()), Peers::new(b.clone()));
        first.learn(&b, "h:1");
        second.learn(&a, "h:2");
        assert_eq!(first.due(Millis(1_000), 1).len(), 1);
        second.answered(Millis(1_000), &a, 1);
        first.called(Millis(1_000), &b, &Exchange::Failed);
        first.answered(Millis(1_000), &b, 1);
        let early = Millis(1_000 + BEAT_EVERY_MS - HEAD_START_MS);
        assert_eq!(first.due(early, 1).len(), 1);
        assert!(second.due(early, 1).is_empty());
        assert_eq!(second.due(Millis(1_000 + BEAT_EVERY_MS), 1).len(), 1, "the other did not call");
    }

    #[test]
    fn who_has_another_password_is_called_rarely() {
        let mut peers = Peers::new(NodeId::from("c"));
        let id = NodeId::from("b");
        peers.learn(&id, "h:1");
        peers.due(Millis(1_000), 1);
        peers.called(Millis(1_000), &id, &Exchange::Shunned);
        assert!(peers.due(Millis(1_000 + SHUNNED_MS - 1), 2).is_empty(), "not even for news");
        assert_eq!(peers.due(Millis(1_000 + SHUNNED_MS), 2).len(), 1);
    }

    #[test]
    fn the_key_depends_on_group_and_password() {
        assert_eq!(key("g", None), "");
        assert_ne!(key("g", Some("p")), key("h", Some("p")));
        assert_ne!(key("g", Some("p")), key("g", Some("q")));
        assert!(!key("g", Some("hunter2")).contains("hunter2"));
    }
}
