//! What a database says of itself.

use crate::ids::{Address, Incarnation, Lineage, Millis, Nonce, Position};
use serde::{Deserialize, Serialize};

/// What is known of the local database process. "Not asked yet" is a state of its own, never taken for "no".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Engine {
    /// Nobody has looked yet.
    Unknown,
    /// The process is known not to run: its exit was seen, or it was never started.
    Down {
        /// How it ended, a sentence.
        why: String,
    },
    /// The folder holds data that this agent did not write. It takes no part.
    Foreign {
        /// What was found, and where.
        why: String,
    },
    /// It runs, and answers no command.
    Silent {
        /// Its last answer, or its start.
        since: Millis,
        /// The run it was when it last answered.
        incarnation: Option<Incarnation>,
    },
    /// It answered.
    Up(Box<Status>),
}

impl Engine {
    /// The answer, when there is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Engine::Up(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the run named `incarnation` is known to have ended here: the process is gone, or is another one.
    pub fn has_lost(&self, incarnation: &Incarnation) -> bool {
        match self {
            Engine::Down { .. } => true,
            Engine::Up(status) => &status.incarnation != incarnation,
            Engine::Silent { incarnation: Some(seen), .. } => seen != incarnation,
            Engine::Silent { .. } | Engine::Unknown | Engine::Foreign { .. } => false,
        }
    }
}

/// An instance's answer, all of it at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The run of the process.
    pub incarnation: Incarnation,
    /// The engine's version.
    pub version: String,
    /// Whether it follows anybody.
    pub role: EngineRole,
    /// It is reading its data from disk, or from its source.
    pub loading: bool,
    /// Nothing was ever written to it.
    pub empty: bool,
    /// What its disk would bring back after a crash is the data it has now, not an older set.
    pub persisted: bool,
    /// Its disk takes writes, as far as its last one tells.
    pub disk_ok: bool,
    /// The epoch whose data set is kept beside this one, because writes that nobody else has may be in it.
    pub kept: Option<u64>,
    /// The history it belongs to.
    pub lineage: Lineage,
    /// How far it has come.
    pub position: Position,
    /// What the agent of the master last wrote beside the user's data.
    pub marker: Option<Marker>,
    /// The position right after this process wrote the marker it has (masters only).
    pub marked_at: Option<Position>,
    /// Clients may write, as far as this instance's accounts are concerned.
    pub open: bool,
    /// It refuses writes while no replica acknowledges (Redis: `min-replicas-to-write`).
    pub guard: bool,
    /// Every write is on disk before it is answered, and so are all earlier ones.
    pub fsync: bool,
    /// Beside the marker: whether an acknowledgement needs the hot replica. Missing or unreadable is `true`.
    pub need: bool,
    /// Client writes are held for a planned switchover.
    pub quiesced: bool,
    /// The name of the replication password in force, `None` when this agent did not set it.
    pub channel: Option<Nonce>,
    /// Who replicates from it.
    pub replicas: Vec<Attached>,
    /// What is only shown.
    #[serde(default)]
    pub shown: Shown,
}

/// What an instance says for people to see. Nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// How far it has come, as the engine itself writes it, where that is more than the number of [`Position`].
    pub position: Option<String>,
    /// Where its own log ends, where [`Position`] does not count bytes.
    pub log: Option<LogPlace>,
    /// A copy's place in its source's log, likewise, while there is a link.
    #[serde(default)]
    pub received: Option<LogPlace>,
    /// A copy that is being made, to take the place of what is here.
    pub copying: Option<Copying>,
}

/// A place in a log that consists of numbered files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The number of the file.
    pub file: u64,
    /// Bytes of it.
    pub offset: u64,
    /// How large the files before it are, in bytes, the nearest first: as many as are worth knowing. Known to the
    /// log's owner alone.
    pub before: Vec<u64>,
}

impl LogPlace {
    /// The bytes from `earlier` to here, both places in one log; nothing when that is not known.
    pub fn bytes_since(&self, earlier: &LogPlace) -> Option<u64> {
        let files = self.file.checked_sub(earlier.file)?;
        if files == 0 {
            // What is heard of a source is a moment old.
            return Some(self.offset.saturating_sub(earlier.offset));
        }
        let between = self.before.get(..usize::try_from(files).ok()?)?;
        let all = between.iter().try_fold(self.offset, |sum, size| sum.checked_add(*size))?;
        all.checked_sub(earlier.offset)
    }
}

/// How far a copy is that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// About how many it will be, when that is known.
    pub of: Option<u64>,
}

impl Status {
    /// Whether it is a master, as the engine sees it.
    pub fn is_master(&self) -> bool {
        matches!(self.role, EngineRole::Master)
    }

    /// Whether it is a replica that receives from nobody, so that nothing can reach it any more.
    pub fn is_sealed(&self) -> bool {
        matches!(self.role, EngineRole::Sealed)
    }

    /// Whether it receives, or tries to receive, from `source`.
    pub fn follows(&self, source: &Address) -> bool {
        matches!(&self.role, EngineRole::Follows { source: s, .. } if s == source)
    }

    /// Whether its data set is one whole: not being loaded, not being replaced by a resync.
    pub fn is_whole(&self) -> bool {
        !self.loading && !matches!(self.role, EngineRole::Follows { syncing: true, .. })
    }
}

/// Whether an instance follows anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "role")]
pub enum EngineRole {
    /// It follows nobody and accepts writes from whom its accounts allow.
    Master,
    /// A replica of a black hole: it neither receives nor acknowledges.
    Sealed,
    /// A replica of another instance.
    Follows {
        /// Of which.
        source: Address,
        /// Whether the link stands.
        link_up: bool,
        /// Whether a full copy is being transferred.
        syncing: bool,
        /// The name of the password it was told to use, `None` when this agent did not tell it.
        channel: Option<Nonce>,
    },
}

/// A replication client of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The address it announces.
    pub address: Address,
    /// It receives the live stream, as against a first copy.
    pub online: bool,
    /// The position it last acknowledged.
    pub position: Position,
    /// Seconds since it last acknowledged anything.
    pub lag_s: u64,
}

/// What an agent keeps in the data set itself, apart from the user's data, so that it can tell one data set from
/// another after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The group's.
    pub uid: String,
    /// The epoch whose master wrote it.
    pub epoch: u64,
    /// The certificate it was written for; empty before the first.
    pub nonce: Nonce,
    /// Raised every second.
    pub counter: u64,
}

/// What an agent answers a proxy that asks what its database is (`GET /<group>/role`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleWord {
    /// What the server itself said, asked for this answer.
    pub role: ServerRole,
    /// Whether clients may write, as the agent saw last; `None` when it cannot tell.
    pub open: Option<bool>,
    /// The run of the process that the agent saw last.
    pub incarnation: Option<Incarnation>,
}

/// The two things that a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// It takes writes.
    Master,
    /// It replays another's log, or is read-only.
    Copy,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: u64, offset: u64, before: &[u64]) -> LogPlace {
        LogPlace { file, offset, before: before.to_vec() }
    }

    #[test]
    fn bytes_are_counted_over_the_files_of_a_log_or_not_at_all() {
        let master = place(7, 100, &[1_000, 2_000]);
        assert_eq!(master.bytes_since(&place(7, 40, &[])), Some(60));
        assert_eq!(master.bytes_since(&place(7, 140, &[])), Some(0), "the master's word is older");
        assert_eq!(master.bytes_since(&place(6, 990, &[])), Some(110));
        assert_eq!(master.bytes_since(&place(5, 500, &[])), Some(2_600));
        assert_eq!(master.bytes_since(&place(4, 0, &[])), None, "how large that file is is not known");
        assert_eq!(master.bytes_since(&place(8, 0, &[])), None, "a file that the master does not have");
        assert_eq!(master.bytes_since(&place(6, 5_000, &[])), None, "a place beyond the file's end");
    }
}
