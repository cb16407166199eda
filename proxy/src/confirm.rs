//! Asks, before a client is handed to a server that speaks SQL, whether the server is what the record says. Its agent is
//! asked, and asks the server at that moment.
//!
//! No write is safer by it: that is for the epoch, and for what a commit waits for. It spares a client a new master that
//! is not open yet, a server that somebody has made read-only or has promoted, and a former master that this proxy,
//! cut off from Consul, takes for the present one. So only a word against the server counts. An agent that is silent is
//! being restarted, or has died, and its database goes on: then the record's word is enough, as it is for a connection
//! that was made before.

use crate::ask;
use election::{GroupName, Incarnation, NodeId, RoleWord, ServerRole};
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::debug;

/// How old a word may be that lets clients through: those that come together share one, and what changes by hand is
/// noticed within this time.
const CONFIRMED_FOR: Duration = Duration::from_millis(100);

/// A word against a server is asked for again soon: a new master opens within milliseconds.
const AGAINST_FOR: Duration = Duration::from_millis(10);

/// An agent that did not answer is left alone for so long: its clients wait for its answer.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// An agent answers within a millisecond or two; a busy machine takes longer.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// Whom to ask what a server is, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// `host:port` of the agent.
    pub(crate) agent: String,
    pub(crate) expected: Expected,
}

/// What the record says that a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The master, in this run.
    Master(Incarnation),
    /// A copy, in whatever run.
    Copy,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server is what the record says.
    Confirmed,
    /// Nobody says otherwise.
    Silent,
    /// The server is something else.
    Against(Contradiction),
}

/// How a server is not what the record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Contradiction {
    /// It is a copy, or takes no writes.
    #[error("the server says that it is a copy, or read-only")]
    TakesNoWrites,
    /// Its agent lets nobody write, or not yet.
    #[error("the master is not open to clients")]
    Closed,
    /// The record's has ended.
    #[error("the server is another run than the record's")]
    OtherRun,
    /// It is no copy any more.
    #[error("the server says that it is no copy")]
    TakesWrites,
}

impl Expected {
    fn judge(&self, word: &RoleWord) -> Verdict {
        let against = match (self, word.role) {
            (Expected::Copy, ServerRole::Copy) => None,
            (Expected::Copy, ServerRole::Master) => Some(Contradiction::TakesWrites),
            (Expected::Master(_), ServerRole::Copy) => Some(Contradiction::TakesNoWrites),
            (Expected::Master(run), ServerRole::Master) => {
                let other = word.incarnation.as_ref().is_some_and(|is| is != run);
                let closed = word.open == Some(false);
                other.then_some(Contradiction::OtherRun).or(closed.then_some(Contradiction::Closed))
            }
        };
        against.map_or(Verdict::Confirmed, Verdict::Against)
    }
}

impl Verdict {
    /// How long others may be answered with it.
    fn lasts(self) -> Duration {
        match self {
            Verdict::Confirmed => CONFIRMED_FOR,
            Verdict::Silent => SILENT_FOR,
            Verdict::Against(_) => AGAINST_FOR,
        }
    }
}

/// The last word of each agent of a group, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Words(Mutex<BTreeMap<NodeId, Slot>>);

/// Held while the agent is asked: whoever comes meanwhile waits for the answer.
type Slot = Arc<tokio::sync::Mutex<Option<Heard>>>;

#[derive(Debug)]
struct Heard {
    from: String,
    /// When it was asked for: the word may be as old as that.
    asked: Instant,
    /// Nothing when the agent was silent.
    word: Option<RoleWord>,
}

impl Heard {
    fn verdict(&self, question: &Question) -> Verdict {
        self.word.as_ref().map_or(Verdict::Silent, |word| question.expected.judge(word))
    }
}

impl Words {
    /// Whether the server of `node` is what it should be. Those who ask meanwhile wait for the same answer.
    pub(crate) async fn ask(&self, group: &GroupName, node: &NodeId, question: &Question) -> Verdict {
        let heard = self.heard(node);
        let mut heard = heard.lock().await;
        if let Some(last) = heard.as_ref().filter(|last| last.from == question.agent) {
            let verdict = last.verdict(question);
            if last.asked.elapsed() < verdict.lasts() {
                return verdict;
            }
        }
        let asked = Instant::now();
        let word = ask(group, &question.agent).await;
        heard.insert(Heard { from: question.agent.clone(), asked, word }).verdict(question)
    }

    fn heard(&self, node: &NodeId) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(node) {
            Some(heard) => heard.clone(),
            None => all.entry(node.clone()).or_default().clone(),
        }
    }
}

async fn ask(group: &GroupName, agent: &str) -> Option<RoleWord> {
    let silent = |error: &dyn std::fmt::Display| {
        debug!(%group, agent, %error, "an agent does not say what its server is");
    };
    match timeout(ANSWER_WITHIN, ask::get(agent, &format!("/{group}/role"))).await {
        Ok(Ok((StatusCode::OK, body))) => serde_json::from_slice(&body).inspect_err(|error| silent(error)).ok(),
        // One of an older version has no such page; one whose server says nothing knows no more than we do.
        Ok(Ok((status, _))) => {
            silent(&status);
            None
        }
        Ok(Err(error)) => {
            silent(&error);
            None
        }
        Err(late) => {
            silent(&late);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_against_the_server_counts() {
        let word = |role, open, run: Option<&str>| RoleWord { role, open, incarnation: run.map(Incarnation::from) };
        let (master, copy) = (ServerRole::Master, ServerRole::Copy);
        let against = Verdict::Against;
        let rows = [
            (word(master, Some(true), Some("run")), Verdict::Confirmed, against(Contradiction::TakesWrites)),
            (
                word(master, Some(false), Some("run")),
                against(Contradiction::Closed),
                against(Contradiction::TakesWrites),
            ),
            (
                word(master, Some(true), Some("next")),
                against(Contradiction::OtherRun),
                against(Contradiction::TakesWrites),
            ),
            (word(copy, Some(false), Some("run")), against(Contradiction::TakesNoWrites), Verdict::Confirmed),
            (word(copy, Some(true), Some("run")), against(Contradiction::TakesNoWrites), Verdict::Confirmed),
            (word(copy, None, None), against(Contradiction::TakesNoWrites), Verdict::Confirmed),
            (word(master, None, None), Verdict::Confirmed, against(Contradiction::TakesWrites)),
        ];
        for (word, as_master, as_copy) in rows {
            let judged = |expected: Expected| expected.judge(&word);
            assert_eq!(judged(Expected::Master("run".into())), as_master, "{word:?}");
            assert_eq!(judged(Expected::Copy), as_copy, "{word:?}");
        }
    }
}
