//! What can go wrong between an agent and its database.

use std::io;
use std::path::{Path, PathBuf};

use election::Secret;

/// Why an engine could not be opened, or an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The server's program was not found.
    #[error("found no program to run ({looked}): install {install}, or set `bin` to its path")]
    ProgramMissing {
        /// Where it was looked for.
        looked: String,
        /// The package that brings it.
        install: &'static str,
    },
    /// The server's program cannot be used.
    #[error("`{}` cannot be used: {why}; set `bin` to {wanted}", .path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// Why.
        why: String,
        /// What would do.
        wanted: &'static str,
    },
    /// There is no such user on this machine.
    #[error(
        "the agent runs as root, and its {server} has to run as the system user `{user}`, which cannot be used ({why}): \
         create it, or run the agent as another user"
    )]
    User {
        /// What is to be run.
        server: &'static str,
        /// The user.
        user: &'static str,
        /// Why.
        why: String,
    },
    /// The user that the server runs as cannot reach its folder.
    #[error("`data_dir` {}: the system user `{user}` cannot enter {}: let it (chmod o+x), or name another folder", .path.display(), .closed.display())]
    Unreachable {
        /// The data folder.
        path: PathBuf,
        /// The folder above it that is closed.
        closed: PathBuf,
        /// The user.
        user: String,
    },
    /// The file of the clients' password.
    #[error("`password_file` {}: {why}", .path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A folder that cannot be used.
    #[error("`data_dir` {}: {why}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A file or folder that could not be read or written.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data is not ours: nothing is touched.
    #[error("{why}")]
    Foreign {
        /// What was found, where, and what to do.
        why: String,
    },
    /// A process of an earlier run of the agent listens elsewhere.
    #[error(
        "process {pid} of this group listens on port {runs}, but the file says {wanted}: restore `port`, or stop the process first"
    )]
    PortChanged {
        /// The process.
        pid: u32,
        /// Where it listens.
        runs: u16,
        /// Where it should.
        wanted: u16,
    },
    /// There is no process to do anything to.
    #[error("cannot {op}: the database is not running ({why})")]
    NotRunning {
        /// The operation.
        op: &'static str,
        /// How it ended.
        why: String,
    },
    /// The process ended before it answered.
    #[error("the database did not start: {why}")]
    StartFailed {
        /// How it ended, with the last lines of its log.
        why: String,
    },
    /// The server said no.
    #[error("cannot {op}: the server answered `{answer}`")]
    Refused {
        /// The operation.
        op: &'static str,
        /// The server's words.
        answer: String,
    },
    /// The guard refused the write.
    #[error("cannot {op}: the guard is on and no replica acknowledges writes")]
    NoReplicas {
        /// The operation.
        op: &'static str,
    },
    /// The write would wait until the held writes are released.
    #[error("cannot {op} while client writes are held")]
    Held {
        /// The operation.
        op: &'static str,
    },
    /// No answer in time: whether it was done is unknown.
    #[error("cannot {op}: no answer within {ms} ms")]
    Timeout {
        /// The operation.
        op: &'static str,
        /// The limit.
        ms: u64,
    },
    /// The connection failed: whether it was done is unknown.
    #[error("cannot {op}: the connection to the server failed")]
    Connection {
        /// The operation.
        op: &'static str,
        /// How.
        source: redis::RedisError,
    },
    /// The same of a server that speaks SQL.
    #[error("cannot {op}: the connection to the server failed")]
    Sql {
        /// The operation.
        op: &'static str,
        /// How.
        source: sqlx::Error,
    },
}

impl EngineError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
    /// For `map_err` on statements: what the server answered, or that it did not.
    pub(crate) fn sql(op: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| match source {
            sqlx::Error::Database(answer) => Self::Refused { op, answer: answer.message().to_owned() },
            source => Self::Sql { op, source },
        }
    }

    /// The same error, should the server have repeated a password in its words.
    pub(crate) fn without(self, secret: &Secret) -> Self {
        match self {
            Self::Refused { op, answer } => Self::Refused { op, answer: answer.replace(secret.reveal(), "[secret]") },
            other => other,
        }
    }
}
