//! What was made of one run of the server and cannot be read back from it: that it was promoted. A restarted agent finds
//! it here; for another run it says nothing.

use std::fs;
use std::path::Path;

use election::Incarnation;
use serde::{Deserialize, Serialize};

use crate::engine::{EngineError, folder};

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    incarnation: Incarnation,
    master: bool,
}

/// Whether this run was promoted and has not been fenced since.
pub(super) fn is_master(path: &Path, incarnation: &Incarnation) -> bool {
    let note = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    note.is_some_and(|note| note.master && note.incarnation == *incarnation)
}

/// Writes down what this run is. Before it is promoted, and after it is fenced: in doubt a run counts as a master, which
/// is fenced by the agent of a node that should not be one.
pub(super) fn set(path: &Path, incarnation: &Incarnation, master: bool) -> Result<(), EngineError> {
    let note = Note { incarnation: incarnation.clone(), master };
    folder::write_private(path, &serde_json::to_vec(&note).unwrap_or_default())
}
