//! Asks every agent of a group for its status, all at once.

use agent::api::{AgentStatus, InstanceStatus};
use election::{Member, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// What the contract promises: a silent agent holds nobody up for longer.
const LIMIT: Duration = Duration::from_secs(1);

/// What each agent answered about its instance of the group, or why there is no answer, a sentence.
pub(crate) type Answers = BTreeMap<NodeId, Result<InstanceStatus, String>>;

/// Asks the agents of `members` about `group`.
pub(crate) async fn agents(http: &reqwest::Client, group: &str, members: &[Member]) -> Answers {
    let mut asked = JoinSet::new();
    for member in members {
        let (http, member, group) = (http.clone(), member.clone(), group.to_owned());
        asked.spawn(async move {
            let answer = one(&http, &group, &member.agent).await;
            (member.id, answer)
        });
    }
    let mut answers = Answers::new();
    while let Some(answer) = asked.join_next().await {
        // A task that panicked is missing from the answers, which the reader takes for silence.
        answers.extend(answer.ok());
    }
    answers
}

/// A client for [`agents`].
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::new()
}

async fn one(http: &reqwest::Client, group: &str, agent: &str) -> Result<InstanceStatus, String> {
    let silent = |error: reqwest::Error| {
        if error.is_timeout() {
            format!("its agent at {agent} does not answer within {} s", LIMIT.as_secs())
        } else if error.is_decode() {
            format!("its agent at {agent} answers in a way that this version does not understand")
        } else {
            format!("its agent at {agent} cannot be reached")
        }
    };
    let url = format!("http://{agent}/status");
    let answer = http.get(url).timeout(LIMIT).send().await.and_then(reqwest::Response::error_for_status);
    let page: AgentStatus = answer.map_err(silent)?.json().await.map_err(silent)?;
    let found = page.instances.into_iter().find(|instance| instance.group == group);
    found.ok_or_else(|| format!("its agent at {agent} has no instance of this group"))
}
