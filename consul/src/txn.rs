//! Transactions: several conditions and writes, all of them or none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::Consul;
use crate::error::{Error, Right, Written};
use crate::http::{Call, Reply, Sent, is_denial};

/// One operation of a transaction. Consul takes up to 64 of them.
///
/// What Consul does not say aloud: a `Cas` or `Set` takes no notice of a lock; a write of what is there already
/// succeeds without a new index; `Unlock` compares the session only with the one that holds the key, and fails the
/// whole transaction when it is another or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOp {
    /// Writes a key if it was last changed at `index`; 0: if it does not exist.
    Cas {
        /// The key.
        key: String,
        /// Its new content.
        value: Vec<u8>,
        /// The ModifyIndex it must have.
        index: u64,
    },
    /// Writes a key.
    Set {
        /// The key.
        key: String,
        /// Its new content.
        value: Vec<u8>,
    },
    /// Writes a key and locks it, if nobody else holds it.
    Lock {
        /// The key.
        key: String,
        /// Its new content.
        value: Vec<u8>,
        /// The session that is to hold it.
        session: String,
    },
    /// Writes a key and unlocks it, if this session holds it.
    Unlock {
        /// The key.
        key: String,
        /// Its new content.
        value: Vec<u8>,
        /// The session that holds it.
        session: String,
    },
    /// Deletes a key; no matter whether it exists.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes a key if it was last changed at `index`.
    DeleteCas {
        /// The key.
        key: String,
        /// The ModifyIndex it must have.
        index: u64,
    },
    /// Requires that a session holds a key.
    CheckSession {
        /// The key.
        key: String,
        /// The session.
        session: String,
    },
    /// Requires that a key was last changed at `index`.
    CheckIndex {
        /// The key.
        key: String,
        /// The ModifyIndex it must have.
        index: u64,
    },
    /// Requires that a key does not exist.
    CheckNotExists {
        /// The key.
        key: String,
    },
}

impl TxnOp {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            TxnOp::Cas { key, .. }
            | TxnOp::Set { key, .. }
            | TxnOp::Lock { key, .. }
            | TxnOp::Unlock { key, .. }
            | TxnOp::Delete { key }
            | TxnOp::DeleteCas { key, .. }
            | TxnOp::CheckSession { key, .. }
            | TxnOp::CheckIndex { key, .. }
            | TxnOp::CheckNotExists { key } => key,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            TxnOp::Cas { .. } => "cas",
            TxnOp::Set { .. } => "set",
            TxnOp::Lock { .. } => "lock",
            TxnOp::Unlock { .. } => "unlock",
            TxnOp::Delete { .. } => "delete",
            TxnOp::DeleteCas { .. } => "delete-cas",
            TxnOp::CheckSession { .. } => "check-session",
            TxnOp::CheckIndex { .. } => "check-index",
            TxnOp::CheckNotExists { .. } => "check-not-exists",
        }
    }

    fn json(&self) -> serde_json::Value {
        let mut kv = json!({ "Verb": self.verb(), "Key": self.key() });
        match self {
            TxnOp::Cas { value, index, .. } => {
                kv["Value"] = STANDARD.encode(value).into();
                kv["Index"] = (*index).into();
            }
            TxnOp::Set { value, .. } => kv["Value"] = STANDARD.encode(value).into(),
            TxnOp::Lock { value, session, .. } | TxnOp::Unlock { value, session, .. } => {
                kv["Value"] = STANDARD.encode(value).into();
                kv["Session"] = session.as_str().into();
            }
            TxnOp::DeleteCas { index, .. } | TxnOp::CheckIndex { index, .. } => kv["Index"] = (*index).into(),
            TxnOp::CheckSession { session, .. } => kv["Session"] = session.as_str().into(),
            TxnOp::Delete { .. } | TxnOp::CheckNotExists { .. } => {}
        }
        json!({ "KV": kv })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    results: Option<Vec<TxnResult>>,
    #[serde(default)]
    errors: Option<Vec<OpError>>,
}

#[derive(Deserialize)]
struct TxnResult {
    #[serde(rename = "KV")]
    kv: Option<KvResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KvResult {
    key: String,
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpError {
    op_index: usize,
    what: String,
}

impl Consul {
    /// Does all of `ops` or none. An error means that certainly nothing was done; whoever gets
    /// [`Written::Unknown`] has to look before concluding anything.
    pub async fn transact(&self, ops: Vec<TxnOp>) -> Result<Written, Error> {
        let Some(first) = ops.first() else {
            return Ok(Written::Applied { index: 0 });
        };
        let body: Vec<_> = ops.iter().map(TxnOp::json).collect();
        let body = serde_json::Value::from(body).to_string();
        let call = Call::put("/v1/txn", body, Right::WriteKeys(first.key().to_owned()));
        match self.http().write(&call).await? {
            Sent::Unknown(attempt) => Ok(attempt.unknown()),
            Sent::Answered(reply) if reply.status == StatusCode::CONFLICT => conflict(&call, &ops, &reply),
            Sent::Answered(reply) => applied(&reply.success(&call)?, first.key()),
        }
    }
}

/// Success, told by a body; without a readable one the index is not known, and so neither is what follows.
fn applied(reply: &Reply, first: &str) -> Result<Written, Error> {
    let answer: Answer = match serde_json::from_slice(&reply.body) {
        Ok(answer) => answer,
        Err(e) => return Ok(Written::Unknown { why: format!("Consul's answer cannot be read: {e}") }),
    };
    let results = answer.results.unwrap_or_default();
    let index = results.iter().filter_map(|r| r.kv.as_ref()).find(|kv| kv.key == first).map_or(0, |kv| kv.modify_index);
    Ok(Written::Applied { index })
}

fn conflict(call: &Call, ops: &[TxnOp], reply: &Reply) -> Result<Written, Error> {
    let errors = serde_json::from_slice::<Answer>(&reply.body).ok().and_then(|a| a.errors).unwrap_or_default();
    if errors.is_empty() {
        return Ok(Written::Refused { why: reply.line() });
    }
    if let Some(denied) = errors.iter().find(|e| is_denial(&e.what)) {
        let key = ops.get(denied.op_index).map_or(String::new(), |op| op.key().to_owned());
        let (right, detail) = (Right::WriteKeys(key), denied.what.clone());
        return Err(Error::Denied { request: call.name(), right, detail });
    }
    let told = errors.iter().map(|e| match ops.get(e.op_index) {
        Some(op) => format!("{} {}: {}", op.verb(), op.key(), e.what),
        None => e.what.clone(),
    });
    Ok(Written::Refused { why: told.collect::<Vec<_>>().join("; ") })
}
