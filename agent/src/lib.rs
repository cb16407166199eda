//! The agent: stands beside a database, observes, decides, acts.
//!
//! [`step`] is the agent of one group without its input and output, [`instance`] the loop around it, [`engine`] the
//! databases it can stand beside. [`run`] puts an agent together from its file.

pub mod api;
mod clock;
mod consul_side;
mod database;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    //! The fuzz targets of this package.
    pub use crate::engine::mariadb::fuzzing::gtid;
    pub use crate::engine::postgres::fuzzing::lsn;
    pub use crate::engine::redis::fuzzing::info;
    pub use crate::step::fuzzing::messages;
}
mod http;
mod instance;
mod knock;
mod memory;
mod peers;
mod run;
mod status;
pub mod step;
mod witness;

pub use memory::{MemoryError, MemoryFile};
pub use run::{Error, run};

/// An error and its causes in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
