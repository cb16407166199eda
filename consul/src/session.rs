//! Sessions: what a member record and the leader key are bound to, and gone with.
//!
//! A session shows who is alive; it makes nothing safe. Consul ends one only at twice its TTL, counts on its leader's
//! clock alone, and starts to count anew with every new leader.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::Consul;
use crate::error::{Error, Right};
use crate::http::{Call, Sent};
use crate::pace::{Backoff, jitter};

/// The least that Consul takes by default.
pub const SESSION_TTL: Duration = Duration::from_secs(10);

/// How long a destroyer may wait: a process that ends must not hang, and the session ends by itself.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl Consul {
    /// Creates a session that ends when it is not renewed, and takes the keys it holds with it.
    pub async fn create_session(&self, name: &str) -> Result<String, Error> {
        let body = json!({
            "Name": name,
            "TTL": format!("{}s", SESSION_TTL.as_secs()),
            // A delay would make a takeover's transaction fail, and fences nothing.
            "LockDelay": "0s",
            "Behavior": "delete",
            // Left out, Consul adds `serfHealth`, and a flap of its gossip ends the session.
            "NodeChecks": [],
            "ServiceChecks": [],
        });
        let call = Call::put("/v1/session/create", body.to_string(), Right::Sessions);
        match self.http().write(&call).await? {
            // The session that may have come to be holds nothing, and ends by itself.
            Sent::Unknown(attempt) => Err(Error::Unreachable { request: call.name(), tried: vec![attempt] }),
            Sent::Answered(reply) => Ok(reply.success(&call)?.json::<Created>(&call)?.id),
        }
    }

    /// Renews a session; false when Consul does not know it.
    pub async fn renew_session(&self, id: &str) -> Result<bool, Error> {
        let call = Call::put(format!("/v1/session/renew/{id}"), "", Right::Sessions);
        // Renewing twice does no harm: this write may go to one address after the other.
        let reply = self.http().read(&call).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        reply.success(&call).map(|_| true)
    }

    /// Ends a session at once; no matter whether it exists.
    pub async fn destroy_session(&self, id: &str) -> Result<(), Error> {
        let call = Call::put(format!("/v1/session/destroy/{id}"), "", Right::Sessions).timeout(DESTROY_TIMEOUT);
        self.http().read(&call).await?.success(&call).map(drop)
    }
}

/// Keeps one session alive, and replaces it when it is lost. Dropped, it leaves the session to end by itself.
pub struct SessionKeeper {
    consul: Consul,
    id: watch::Receiver<Option<String>>,
    look: Arc<Notify>,
    task: JoinHandle<()>,
}

impl SessionKeeper {
    /// Begins; `name` is what people see in Consul.
    pub fn start(consul: Consul, name: impl Into<String>) -> Self {
        let (publish, id) = watch::channel(None);
        let look = Arc::new(Notify::new());
        let keeping = Keeping { consul: consul.clone(), name: name.into(), publish, look: look.clone() };
        Self { consul, id, look, task: tokio::spawn(keeping.run()) }
    }

    /// The session, `None` until there is one and after it was lost. It stays while Consul is away: only Consul's
    /// word ends it.
    pub fn id(&self) -> watch::Receiver<Option<String>> {
        self.id.clone()
    }

    /// Asks Consul now whether the session stands, after a sign that it does not.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Ends the session, and with it the member record and the leader key, at once.
    pub async fn destroy(self) {
        self.task.abort();
        let id = self.id.borrow().clone();
        let Some(id) = id else { return };
        if let Err(error) = self.consul.destroy_session(&id).await {
            tracing::warn!(error = error.whole(), session = id, "the session was not ended and will end by itself");
        }
    }
}

impl Drop for SessionKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeping {
    consul: Consul,
    name: String,
    publish: watch::Sender<Option<String>>,
    look: Arc<Notify>,
}

impl Keeping {
    async fn run(self) {
        loop {
            let id = self.create().await;
            tracing::info!(session = id, "session created");
            self.publish.send_replace(Some(id.clone()));
            self.renew_until_lost(&id).await;
            tracing::warn!(session = id, "session lost");
            self.publish.send_replace(None);
        }
    }

    async fn create(&self) -> String {
        let mut backoff = Backoff::new();
        let mut complained = false;
        loop {
            match self.consul.create_session(&self.name).await {
                Ok(id) => return id,
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(error = error.whole(), "no session yet; trying on");
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Returns only on Consul's word that the session is gone.
    async fn renew_until_lost(&self, id: &str) {
        let mut backoff = Backoff::new();
        let mut failing = false;
        let mut pause = jitter(SESSION_TTL / 3);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => {}
            }
            match self.consul.renew_session(id).await {
                Ok(true) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(session = id, "session renewed again");
                    }
                    backoff.reset();
                    pause = jitter(SESSION_TTL / 3);
                }
                Ok(false) => return,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = error.whole(), session = id, "cannot renew the session; trying on");
                    }
                    pause = backoff.pause();
                }
            }
        }
    }
}
