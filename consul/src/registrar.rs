//! Instances as Consul services, for those who use plain Consul: role tags, meta, and a check that turns critical
//! when the instance is ill or its agent is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use election::{Address, GroupName, NodeId, Role};
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Consul;
use crate::error::Right;
use crate::http::{Call, REQUEST_TIMEOUT, Silence, escape};
use crate::pace::jitter;

/// After so long without a word Consul takes the instance for dead.
const CHECK_TTL: Duration = Duration::from_secs(5);

/// How often Consul is told that the instance is well: two may get lost before the check turns.
const TELL_EVERY: Duration = Duration::from_millis(1_500);

/// After a failure, soon again: the check must not turn for one lost request.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The Consul agent answers these from its own memory. Two of them and their pauses fit into [`CHECK_TTL`].
const AGENT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a registration left behind at another Consul agent is tried to be removed.
const CLEAN_EVERY: Duration = Duration::from_secs(10);

/// What does not change about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its group: the name of the service.
    pub group: GroupName,
    /// Its node.
    pub node: NodeId,
    /// Where clients find it.
    pub address: Address,
    /// `redis`, `postgres` or `mariadb`.
    pub engine: String,
    /// Its zone.
    pub zone: Option<String>,
}

/// What changes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// The role in the record.
    pub role: Role,
    /// The epoch of that record.
    pub epoch: u64,
    /// The engine's version, empty until it is known.
    pub version: String,
    /// Well, or what is wrong with it, a sentence.
    pub health: Result<(), String>,
}

/// Keeps one instance registered. Dropped, it leaves the registration, whose check then turns critical by itself:
/// an agent that ends is not an instance that ends.
pub struct Registrar {
    consul: Consul,
    id: String,
    group: GroupName,
    state: watch::Sender<Option<ServiceState>>,
    task: JoinHandle<()>,
}

/// A registration asks a few things, each of them once, of a Consul that answers.
const ENDS_WITHIN: Duration = REQUEST_TIMEOUT.saturating_mul(2);

impl Registrar {
    /// Begins; nothing is registered before the first [`Registrar::set`].
    pub fn start(consul: Consul, service: Service) -> Self {
        let (state, wanted) = watch::channel(None);
        let id = service_id(&service.group, &service.node);
        let group = service.group.clone();
        let keeping = Keeping {
            consul: consul.clone(),
            service,
            id: id.clone(),
            wanted,
            registered: None,
            left: BTreeSet::new(),
            clean_after: Instant::now(),
            failing: false,
        };
        Self { consul, id, group, state, task: tokio::spawn(keeping.run()) }
    }

    /// What Consul is to say of the instance from now on.
    pub fn set(&self, state: ServiceState) {
        self.state.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&state);
            *last = Some(state);
            changed
        });
    }

    /// Removes the instance from Consul, for one that is taken out of its group.
    pub async fn deregister(mut self) {
        // A registration that is under way is let end: Consul may carry out one that was given up after what is asked of
        // it here, and the instance would stay registered.
        drop(std::mem::replace(&mut self.state, watch::channel(None).0));
        if tokio::time::timeout(ENDS_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
        for at in self.consul.http().order() {
            if let Err(why) = deregister(&self.consul, at, &self.id, &self.group).await {
                tracing::warn!(service = self.id, address = self.consul.http().address(at), why, "not deregistered");
            }
        }
    }
}

/// The id of an instance's service.
pub fn service_id(group: &GroupName, node: &NodeId) -> String {
    format!("{group}-{node}")
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A registration: at which address, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Registered {
    at: usize,
    role: Role,
    epoch: u64,
    version: String,
}

struct Keeping {
    consul: Consul,
    service: Service,
    id: String,
    wanted: watch::Receiver<Option<ServiceState>>,
    registered: Option<Registered>,
    /// Addresses at which an earlier registration may still stand.
    left: BTreeSet<usize>,
    clean_after: Instant,
    failing: bool,
}

impl Keeping {
    async fn run(mut self) {
        loop {
            let state = self.wanted.borrow_and_update().clone();
            let pause = match state {
                None => TELL_EVERY,
                Some(state) => match self.keep(&state).await {
                    Ok(()) => {
                        self.failing = false;
                        self.clean().await;
                        TELL_EVERY
                    }
                    Err(why) => {
                        if !std::mem::replace(&mut self.failing, true) {
                            tracing::warn!(service = self.id, why, "cannot tell Consul about this instance; trying on");
                        }
                        RETRY_AFTER
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(jitter(pause)) => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Brings Consul to show `state`, with as few writes as that takes.
    async fn keep(&mut self, state: &ServiceState) -> Result<(), String> {
        if let Some(at) = self.registered_as(state) {
            match self.tell(at, state).await {
                Ok(()) => return Ok(()),
                // That Consul agent has restarted without its memory, or is away.
                Err(why) => tracing::debug!(service = self.id, why, "registering anew"),
            }
        }
        let mut told = Vec::new();
        for at in self.consul.http().order() {
            match self.register(at, state).await {
                Ok(()) => {
                    self.note(at, state);
                    return self.tell(at, state).await;
                }
                Err(why) => told.push(format!("{}: {why}", self.consul.http().address(at))),
            }
        }
        Err(told.join(", "))
    }

    /// Where this is registered already, so that only the check needs a word.
    fn registered_as(&self, state: &ServiceState) -> Option<usize> {
        let there = self.registered.as_ref()?;
        let same = there.role == state.role && there.epoch == state.epoch && there.version == state.version;
        same.then_some(there.at)
    }

    fn note(&mut self, at: usize, state: &ServiceState) {
        if let Some(before) = &self.registered
            && before.at != at
        {
            self.left.insert(before.at);
        }
        self.left.remove(&at);
        self.registered = Some(Registered { at, role: state.role, epoch: state.epoch, version: state.version.clone() });
    }

    async fn register(&self, at: usize, state: &ServiceState) -> Result<(), String> {
        let (service, role) = (&self.service, state.role.as_str());
        let mut meta = json!({
            "node": service.node, "engine": service.engine, "version": state.version, "epoch": state.epoch.to_string(),
        });
        if let Some(zone) = &service.zone {
            meta["zone"] = zone.as_str().into();
        }
        let body = json!({
            "ID": self.id,
            "Name": service.group,
            "Tags": [role, format!("role={role}")],
            "Address": service.address.host,
            "Port": service.address.port,
            "Meta": meta,
            // Without `DeregisterCriticalServiceAfter`: an instance that is down is still a member of its group.
            "Check": {
                "CheckID": self.check(),
                "Name": "Understudy",
                "TTL": format!("{}s", CHECK_TTL.as_secs()),
                "Status": status(state),
            },
        });
        let right = Right::WriteService(service.group.0.clone());
        let call =
            Call::put("/v1/agent/service/register", body.to_string(), right).query("replace-existing-checks", "1");
        ask(&self.consul, at, &call).await
    }

    async fn tell(&self, at: usize, state: &ServiceState) -> Result<(), String> {
        let output = state.health.as_ref().err().map_or("well", String::as_str);
        let body = json!({ "Status": status(state), "Output": output });
        let path = format!("/v1/agent/check/update/{}", escape(&self.check()));
        let call = Call::put(path, body.to_string(), Right::WriteService(self.service.group.0.clone()));
        ask(&self.consul, at, &call).await
    }

    fn check(&self) -> String {
        format!("understudy-{}", self.id)
    }

    /// Takes the instance out of Consul agents that it no longer speaks to: there its check would be critical for ever.
    async fn clean(&mut self) {
        if self.left.is_empty() || Instant::now() < self.clean_after {
            return;
        }
        self.clean_after = Instant::now() + CLEAN_EVERY;
        for at in self.left.clone() {
            if deregister(&self.consul, at, &self.id, &self.service.group).await.is_ok() {
                self.left.remove(&at);
                // Should both addresses lead to the same Consul agent, the next round must not wait for its turn.
                let state = self.wanted.borrow().clone();
                if let Some(state) = state {
                    self.registered = None;
                    if let Err(why) = self.keep(&state).await {
                        tracing::debug!(service = self.id, why, "not registered anew");
                    }
                }
            }
        }
    }
}

fn status(state: &ServiceState) -> &'static str {
    if state.health.is_ok() { "passing" } else { "critical" }
}

async fn deregister(consul: &Consul, at: usize, id: &str, group: &GroupName) -> Result<(), String> {
    let call =
        Call::put(format!("/v1/agent/service/deregister/{}", escape(id)), "", Right::WriteService(group.0.clone()));
    match ask(consul, at, &call).await {
        Err(why) if why.contains("Unknown service") => Ok(()),
        other => other,
    }
}

async fn ask(consul: &Consul, at: usize, call: &Call) -> Result<(), String> {
    debug_assert_eq!(call.method, Method::PUT);
    let call = call.clone().timeout(AGENT_TIMEOUT);
    let reply = consul.http().attempt(at, &call).await.map_err(|Silence { why, .. }| why)?;
    reply.success(&call).map(drop).map_err(|e| e.to_string())
}
