//! Reading keys, with the index that a condition or a blocking query needs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::Error as _;

use crate::Consul;
use crate::error::{Error, Right};
use crate::http::{Call, Reply, escape};

/// A key and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// Its content.
    pub value: Vec<u8>,
    /// The index of its last change.
    pub modify_index: u64,
    /// The session that holds it.
    pub session: Option<String>,
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// From the leader; may be behind for a moment while a leader has lost its office without knowing.
    Default,
    /// From the leader, which asks a majority first whether it still is one.
    Consistent,
}

/// Everything under a folder at one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries; none when the folder does not exist.
    pub entries: Vec<Entry>,
    /// What a blocking query on the same folder waits beyond.
    pub index: u64,
    /// Which address answered: an index means nothing to another Consul.
    pub(crate) from: usize,
}

/// Waiting for a change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// For one beyond this index.
    pub(crate) index: u64,
    /// For so long.
    pub(crate) wait: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawEntry {
    key: String,
    modify_index: u64,
    value: Option<String>,
    #[serde(default)]
    session: Option<String>,
}

impl Consul {
    /// Reads one key; `None` when it does not exist.
    pub async fn get(&self, key: &str, consistency: Consistency) -> Result<Option<Entry>, Error> {
        let call = self.kv_call(key, consistency);
        let reply = self.http().read(&call).await?;
        Ok(entries(&call, reply)?.entries.pop())
    }

    /// Reads everything under a folder; `folder` ends with a slash.
    pub async fn list(&self, folder: &str, consistency: Consistency) -> Result<Listing, Error> {
        let call = self.kv_call(folder, consistency).query("recurse", "");
        self.listing(folder, &call).await
    }

    /// The names directly under a folder, those of folders with a slash at their end.
    pub async fn names(&self, folder: &str) -> Result<Vec<String>, Error> {
        let call = self.kv_call(folder, Consistency::Default).query("keys", "").query("separator", "/");
        let reply = self.http().read(&call).await?;
        if reply.status == StatusCode::NOT_FOUND {
            self.may_read(folder).await?;
            return Ok(Vec::new());
        }
        reply.success(&call)?.json(&call)
    }

    /// As [`Consul::list`], and waits for a change first.
    pub(crate) async fn wait_for(&self, folder: &str, block: Option<Block>) -> Result<Listing, Error> {
        // What Consul itself adds to the wait, a sixteenth, and the time of an ordinary request on top.
        let mut call = self.kv_call(folder, Consistency::Default).query("recurse", "");
        if let Some(Block { index, wait }) = block {
            let timeout = wait + wait / 16 + call.timeout;
            call = call.query("index", index).query("wait", format!("{}ms", wait.as_millis())).timeout(timeout);
        }
        self.listing(folder, &call).await
    }

    async fn listing(&self, folder: &str, call: &Call) -> Result<Listing, Error> {
        let reply = self.http().read(call).await?;
        let listing = entries(call, reply)?;
        if listing.entries.is_empty() {
            self.may_read(folder).await?;
        }
        Ok(listing)
    }

    /// Consul leaves what may not be read out of a listing, without a word: a group that is hidden would look like
    /// one that does not exist. Only the read of a single key is denied aloud.
    pub(crate) async fn may_read(&self, folder: &str) -> Result<(), Error> {
        let mut call = self.kv_call(&format!("{folder}record"), Consistency::Default);
        call.right = Right::ReadKeys(folder.to_owned());
        let reply = self.http().read(&call).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        reply.success(&call).map(drop)
    }

    fn kv_call(&self, key: &str, consistency: Consistency) -> Call {
        let call = Call::get(format!("/v1/kv/{}", escape(key)), Right::ReadKeys(key.to_owned()));
        match consistency {
            Consistency::Default => call,
            Consistency::Consistent => call.query("consistent", ""),
        }
    }
}

fn entries(call: &Call, reply: Reply) -> Result<Listing, Error> {
    let (index, from) = (reply.index, reply.from);
    // A folder that does not exist has an index too, and can be waited on.
    if reply.status == StatusCode::NOT_FOUND {
        return Ok(Listing { entries: Vec::new(), index, from });
    }
    let raw: Vec<RawEntry> = reply.success(call)?.json(call)?;
    let entries: Result<Vec<_>, _> = raw.into_iter().map(entry).collect();
    Ok(Listing { entries: entries?, index, from })
}

fn entry(raw: RawEntry) -> Result<Entry, Error> {
    let RawEntry { key, modify_index, value, session } = raw;
    let value = STANDARD
        .decode(value.unwrap_or_default())
        .map_err(|e| Error::Decode { key: key.clone(), source: serde_json::Error::custom(e) })?;
    Ok(Entry { key, value, modify_index, session: session.filter(|s| !s.is_empty()) })
}
