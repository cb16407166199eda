//! Asks the agents which instances are within the group's lag, for listeners of the replica role.

use crate::ask;
use crate::group::Group;
use crate::routes::{GroupRoute, ReplicaRoute};
use election::NodeId;
use hyper::StatusCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// How stale a reader's replica may be beyond `max_lag` before new readers go elsewhere.
const EVERY: Duration = Duration::from_secs(1);

/// An agent answers from memory; one that takes longer is not well.
const ANSWER_WITHIN: Duration = Duration::from_millis(750);

/// An agent that is being restarted says nothing for a moment, while its database goes on: its last word counts so
/// many rounds longer.
const SILENT_ROUNDS: u32 = 3;

/// Keeps the group told which instances its readers may be sent to. Runs until dropped.
pub(crate) async fn watch(group: Arc<Group>) {
    let mut routes = group.routes();
    // Rounds of silence of each agent that vouched for its instance.
    let mut vouched: BTreeMap<NodeId, u32> = BTreeMap::new();
    loop {
        let route = routes.borrow_and_update().clone();
        if let Some(route) = route {
            vouched = round(&group, &route, &vouched).await;
            group.vouched(vouched.keys().cloned().collect::<BTreeSet<_>>());
        }
        // A new route is asked about at once: a reader may be waiting for it.
        let _ = timeout(EVERY, routes.changed()).await;
    }
}

async fn round(group: &Group, route: &GroupRoute, vouched: &BTreeMap<NodeId, u32>) -> BTreeMap<NodeId, u32> {
    let max_lag = group.max_lag();
    let mut asked = JoinSet::new();
    for ReplicaRoute { endpoint, agent, .. } in &route.replicas {
        let (id, agent) = (endpoint.id.clone(), agent.clone());
        let path = format!("/{}/replica?lag={max_lag}", group.name);
        asked.spawn(async move { (id, ask(&agent, &path).await) });
    }
    let mut next = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let Ok((id, answer)) = answer else { continue };
        let silent = match answer {
            Answer::Yes => 0,
            Answer::No => continue,
            Answer::Silence => match vouched.get(&id) {
                Some(rounds) if *rounds < SILENT_ROUNDS => rounds + 1,
                _ => continue,
            },
        };
        next.insert(id, silent);
    }
    next
}

enum Answer {
    Yes,
    No,
    Silence,
}

async fn ask(agent: &str, path: &str) -> Answer {
    match timeout(ANSWER_WITHIN, ask::get(agent, path)).await {
        Ok(Ok((StatusCode::OK, _))) => Answer::Yes,
        Ok(Ok(_)) => Answer::No,
        Ok(Err(error)) => {
            debug!(agent, error = %error, "an agent cannot be asked for its lag");
            Answer::Silence
        }
        Err(_) => {
            debug!(agent, "an agent does not say its lag in time");
            Answer::Silence
        }
    }
}
