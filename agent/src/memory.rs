//! What a node must not forget, on its own disk: one small JSON file for each group, replaced whole and synced before
//! anybody acts on what it says.

use election::Memory;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read or written.
    #[error("{path}: the agent's memory cannot be {doing}; check the disk and the owner of `node.data_dir`")]
    Io {
        /// The file.
        path: PathBuf,
        /// "read" or "written".
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The file is not what this agent writes.
    #[error("{path}: not an agent's memory; if the node is to join as new, move the file away")]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The file of one group.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The memory of `group` in the agent's `data_dir`.
    pub fn new(data_dir: &Path, group: &str) -> Self {
        Self { path: data_dir.join(format!("{group}.memory.json")) }
    }

    /// What was last stored; nothing when there is no file.
    ///
    /// # Errors
    /// When there is one and it cannot be read, or is not ours: never taken for "nothing".
    pub fn load(&self) -> Result<Memory, MemoryError> {
        let path = || self.path.clone();
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| MemoryError::Garbled { path: path(), source }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(source) => Err(MemoryError::Io { path: path(), doing: "read", source }),
        }
    }

    /// Replaces it. When this returns, a power cut leaves the new content.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn store(&self, memory: &Memory) -> Result<(), MemoryError> {
        let io = |source| MemoryError::Io { path: self.path.clone(), doing: "written", source };
        let text = serde_json::to_vec(memory).map_err(|e| io(e.into()))?;
        self.replace(&text).map_err(io)
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // The rename itself is on disk only once the folder is.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::Stamp;

    #[test]
    fn comes_back_as_it_was_stored() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(folder.path(), "g");
        assert_eq!(file.load().unwrap(), Memory::default());
        let memory = Memory {
            uid: Some("u".into()),
            stamp: Stamp { epoch: 3, seq: 9 },
            marker: Some((3, 41)),
            mastered: None,
            record: None,
        };
        file.store(&memory).unwrap();
        assert_eq!(MemoryFile::new(folder.path(), "g").load().unwrap(), memory);
        assert_eq!(MemoryFile::new(folder.path(), "other").load().unwrap(), Memory::default());
    }

    #[test]
    fn a_garbled_file_is_an_error_and_no_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("g.memory.json"), "{\"uid\":").unwrap();
        let error = MemoryFile::new(folder.path(), "g").load().unwrap_err().to_string();
        assert!(error.contains("g.memory.json"), "{error}");
    }
}
