//! What can go wrong with a rig.

use std::io;
use std::path::PathBuf;

/// Why the rig could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A program is not on PATH.
    #[error("`{program}` is not on PATH; {how}")]
    Missing {
        /// The program.
        program: &'static str,
        /// How to get it.
        how: &'static str,
    },
    /// A process could not be started.
    #[error("{name} cannot be started with {program}")]
    Start {
        /// What it is to the rig.
        name: String,
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder of the rig could not be written or read.
    #[error("{path} cannot be used", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No port is free.
    #[error("no free port")]
    Port(#[source] io::Error),
    /// A process ended by itself.
    #[error("{name} ended by itself\n{logs}")]
    Ended {
        /// What it is to the rig.
        name: String,
        /// The last lines of every log.
        logs: String,
    },
    /// A state was not reached in time.
    #[error("waited {seconds} s in vain for {what}; last seen: {seen}\n{logs}")]
    Late {
        /// The state.
        what: String,
        /// How long.
        seconds: u64,
        /// The last state seen.
        seen: String,
        /// The last lines of every log.
        logs: String,
    },
    /// The rig has no such node.
    #[error("the rig has no node {0}")]
    NoNode(String),
    /// The database of a node is not running.
    #[error("the database of {node} is not running ({why})")]
    NoDatabase {
        /// The node.
        node: String,
        /// What was found.
        why: String,
    },
    /// A command of the operator was not done.
    #[error("{0}")]
    Refused(String),
    /// The data could not be read back.
    #[error("the acknowledged writes cannot be read back from {address}: {why}")]
    ReadBack {
        /// From where.
        address: String,
        /// What went wrong.
        why: String,
    },
}

impl RigError {
    /// Whether all that is wrong is a program that must be installed.
    pub fn is_missing_program(&self) -> bool {
        matches!(self, RigError::Missing { .. })
    }
}
