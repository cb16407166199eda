//! Records that live as long as a session: written when they change, written again after a new session, never
//! periodically.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use election::{GroupName, Member, NodeId};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::Consul;
use crate::error::Written;
use crate::kv::Consistency;
use crate::layout::{ProxyRecord, encode};
use crate::pace::Backoff;
use crate::txn::TxnOp;

/// Keeps one document in Consul, bound to the session of the moment. Dropped, it leaves the document to its session.
pub struct Presence<T> {
    value: watch::Sender<Option<Vec<u8>>>,
    rewrite: Arc<Notify>,
    task: JoinHandle<()>,
    document: PhantomData<fn(&T)>,
}

impl Consul {
    /// Keeps the record of a living node, and a copy of it that stays when the node has gone; nothing is written before
    /// the first [`Presence::set`].
    pub fn keep_member(
        &self,
        group: &GroupName,
        node: &NodeId,
        session: watch::Receiver<Option<String>>,
    ) -> Presence<Member> {
        let copy = Some(self.layout().node(group, node));
        Presence::start(self.clone(), self.layout().member(group, node), copy, session)
    }

    /// Keeps the record of a living proxy; nothing is written before the first [`Presence::set`].
    pub fn keep_proxy(&self, name: &str, session: watch::Receiver<Option<String>>) -> Presence<ProxyRecord> {
        Presence::start(self.clone(), self.layout().proxy(name), None, session)
    }
}

impl<T: Serialize> Presence<T> {
    fn start(consul: Consul, key: String, copy: Option<String>, session: watch::Receiver<Option<String>>) -> Self {
        let (value, wanted) = watch::channel(None);
        let rewrite = Arc::new(Notify::new());
        let keeping = Keeping {
            consul,
            key,
            copy,
            session,
            wanted,
            rewrite: rewrite.clone(),
            written: None,
            backoff: Backoff::new(),
            failing: false,
        };
        Self { value, rewrite, task: tokio::spawn(keeping.run()), document: PhantomData }
    }

    /// What is to stand there; does nothing when it does already.
    pub fn set(&self, document: &T) {
        let bytes = encode(document);
        self.value.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&bytes);
            *last = Some(bytes);
            changed
        });
    }

    /// Writes it again, after it was seen to be missing.
    pub fn rewrite(&self) {
        self.rewrite.notify_one();
    }
}

impl<T> Drop for Presence<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeping {
    consul: Consul,
    key: String,
    /// Where the same stands without a session.
    copy: Option<String>,
    session: watch::Receiver<Option<String>>,
    wanted: watch::Receiver<Option<Vec<u8>>>,
    rewrite: Arc<Notify>,
    written: Option<(String, Vec<u8>)>,
    backoff: Backoff,
    failing: bool,
}

impl Keeping {
    async fn run(mut self) {
        loop {
            let pause = self.settle().await;
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Its keeper is gone: nobody will renew the session, and nothing is left to do.
                changed = self.session.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = self.rewrite.notified() => self.written = None,
                () = again => {}
            }
        }
    }

    /// Writes what is wanted if it is not there; how long to pause before trying again, after a failure.
    async fn settle(&mut self) -> Option<Duration> {
        let session = self.session.borrow_and_update().clone();
        let value = self.wanted.borrow_and_update().clone();
        let wanted = session.zip(value)?;
        if self.written.as_ref() == Some(&wanted) {
            return None;
        }
        match self.write(&wanted.0, &wanted.1).await {
            Ok(()) => {
                self.written = Some(wanted);
                self.failing = false;
                self.backoff.reset();
                None
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(key = self.key, why, "not written yet; trying on");
                }
                Some(self.backoff.pause())
            }
        }
    }

    async fn write(&self, session: &str, value: &[u8]) -> Result<(), String> {
        let lock = TxnOp::Lock { key: self.key.clone(), value: value.to_vec(), session: session.to_owned() };
        let copy = self.copy.iter().map(|key| TxnOp::Set { key: key.clone(), value: value.to_vec() });
        let ops: Vec<TxnOp> = [lock].into_iter().chain(copy).collect();
        let why = match self.consul.transact(ops.clone()).await.map_err(|e| e.whole())? {
            Written::Applied { .. } => return Ok(()),
            Written::Unknown { why } => return Err(why),
            Written::Refused { why } => why,
        };
        let found = self.consul.get(&self.key, Consistency::Consistent).await.map_err(|e| e.whole())?;
        let Some(holder) = found.and_then(|entry| entry.session).filter(|holder| holder != session) else {
            return Err(why);
        };
        // The session of an agent that ended without a word stands for another twenty seconds. This name is ours.
        tracing::info!(key = self.key, from = holder, "taking over the record of an earlier run");
        let unlock = TxnOp::Unlock { key: self.key.clone(), value: value.to_vec(), session: holder };
        match self.consul.transact([vec![unlock], ops].concat()).await.map_err(|e| e.whole())? {
            Written::Applied { .. } => Ok(()),
            Written::Refused { why } | Written::Unknown { why } => Err(why),
        }
    }
}
