//! Why a proxy does not start.

use std::io;
use std::path::PathBuf;

/// Why a proxy does not start. Once it serves, nothing ends it but being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file asks for something that this version cannot do.
    #[error("{key}: {what} is not built yet; {instead}")]
    NotBuilt {
        /// The key in the file.
        key: String,
        /// What it asks for.
        what: String,
        /// What can be done.
        instead: &'static str,
    },
    /// An address cannot be listened on: it is taken, is none of this machine's, or needs rights.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The key in the file.
        key: String,
        /// Its value.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A password cannot be had from its file.
    #[error("{key}: {} {why}", .path.display())]
    Password {
        /// The key in the file.
        key: String,
        /// The password's file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// What the file says of Consul cannot be used, such as a certificate that cannot be read.
    #[error("consul: no client can be made from these settings")]
    Consul(#[source] consul::Error),
    /// The system grants no thread, or no way to wait for sockets.
    #[error("the system does not grant what a worker thread needs")]
    System(#[source] io::Error),
}
