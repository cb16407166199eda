//! That client writes are held: Redis 7.0 does not tell, so the agent keeps it, also over a restart of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use election::Incarnation;
use serde::{Deserialize, Serialize};

use super::Redis;
use crate::engine::{EngineError, folder};

/// How long writes are held at most. The core releases them itself; this only bounds what a lost agent leaves behind.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    incarnation: Incarnation,
    /// Milliseconds since 1970: the next agent's monotonic clock is another.
    until: u64,
}

/// Remembers that writes are held from now on.
pub(super) fn note(redis: &mut Redis) -> Result<(), EngineError> {
    let path = redis.setup.own_file("held.json");
    let note = Note {
        incarnation: redis.heard_from.clone().unwrap_or_default(),
        until: wall_ms().saturating_add(LIMIT.as_millis() as u64),
    };
    // Without an fsync: it is for the next agent on this machine, and no use after a power cut.
    fs::write(&path, serde_json::to_vec(&note).unwrap_or_default()).map_err(EngineError::io("write", &path))?;
    redis.memo.held_until = Some(Instant::now() + LIMIT);
    Ok(())
}

/// Remembers that they are not.
pub(super) fn forget(redis: &mut Redis) -> Result<(), EngineError> {
    redis.memo.held_until = None;
    let path = redis.setup.own_file("held.json");
    folder::remove_file(&path).map_err(EngineError::io("remove", &path))
}

/// Until when an earlier agent has held the writes of this run.
pub(super) fn recall(path: &Path, incarnation: &Incarnation) -> Option<Instant> {
    let note: Note = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let left = Duration::from_millis(note.until.saturating_sub(wall_ms())).min(LIMIT);
    (&note.incarnation == incarnation && !left.is_zero()).then(|| Instant::now() + left)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
