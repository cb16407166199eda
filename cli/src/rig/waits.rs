//! Waiting for states of the rig's group, and asking it for things.

use super::error::RigError;
use super::running::Rig;
use crate::args::ConsulArgs;
use crate::exit::Failure;
use crate::page::GroupStatus;
use crate::store::Store;
use crate::verbs::status::collect;
use crate::verbs::switchover::{Done, Request, ask};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Often enough that nobody waits for it; each look asks every agent.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// A switchover takes some tens of milliseconds; one to a spare, which is certified first, some seconds.
const SWITCHOVER_WITHIN: Duration = Duration::from_secs(60);

/// The agents count their pause from when they saw the takeover, a moment after it was written down.
const CALM_MARGIN: Duration = Duration::from_millis(500);

impl Rig {
    /// Consul, as the operator's commands see it.
    pub fn store(&self) -> Result<Store, Failure> {
        Store::connect(&ConsulArgs { address: Some(self.consul_address()), prefix: Some("understudy".to_owned()) })
    }

    /// What `status --json` shows of the group.
    pub async fn status(&self) -> Result<GroupStatus, Failure> {
        let page = collect(&self.store()?, Some(self.group())).await?;
        let group = page.groups.into_iter().next();
        group.ok_or_else(|| Failure::new(format!("{} is not in its own status", self.group())))
    }

    /// Waits until `holds` says so of the group's status. `what` names the state for the report.
    pub async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&GroupStatus) -> bool,
    ) -> Result<GroupStatus, RigError> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = match self.status().await {
                Ok(status) if holds(&status) => return Ok(status),
                Ok(status) => serde_json::to_string(&status).unwrap_or_default(),
                Err(failure) => failure.to_string(),
            };
            if Instant::now() > deadline {
                let (what, logs) = (what.to_owned(), self.logs());
                return Err(RigError::Late { what, seconds: limit.as_secs(), seen, logs });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until every node is healthy, the group open, and one node the certified hot replica.
    pub async fn wait_whole(&self, limit: Duration) -> Result<GroupStatus, RigError> {
        let nodes = self.node_names().len();
        self.wait_until("a whole group", limit, |status| status.is_whole(nodes)).await
    }

    /// Waits until suspicion may start a takeover again: `flap_pause` after the last one, and after the last start of
    /// an agent, which counts from when it learned of the epoch.
    pub async fn wait_calm(&self, limit: Duration) -> Result<(), RigError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.unrest().await.map_err(|failure| RigError::Refused(failure.sentence))?;
            if left.is_zero() {
                return Ok(());
            }
            if Instant::now() + left > deadline {
                return Err(RigError::Late {
                    what: "the end of the pause after a takeover".to_owned(),
                    seconds: limit.as_secs(),
                    seen: format!("{} ms are left", left.as_millis()),
                    logs: String::new(),
                });
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Asks for a planned switchover, to the hot replica when `to` is not said.
    pub async fn switchover(&self, to: Option<&str>) -> Result<Done, RigError> {
        let to = to.map(str::to_owned);
        let request = Request { group: self.group().to_owned(), to, limit: SWITCHOVER_WITHIN, grace: None };
        let asked = async { ask(&self.store()?, &request).await };
        asked.await.map_err(|failure: Failure| RigError::Refused(failure.sentence))
    }

    /// How much of the pause is left.
    async fn unrest(&self) -> Result<Duration, Failure> {
        let group = self.store()?.group(self.group()).await?;
        let pause = group.view.policy.map_or(0, |(policy, _)| policy.flap_pause);
        let pause = Duration::from_millis(pause) + CALM_MARGIN;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = group.history.last().map_or(0, |story| story.at);
        let since_takeover = now.saturating_sub(Duration::from_millis(last));
        let since_start = self.last_start().map_or(pause, |start| start.elapsed());
        Ok(pause.saturating_sub(since_takeover.min(since_start)))
    }
}
