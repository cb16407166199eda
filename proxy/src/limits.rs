//! How many connections the process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the limit of open files as far as the system allows: a client costs two, and the usual soft limit of 1,024
/// is there for programs that use `select`.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => info!(from = current, to = maximum, "raised the limit of open files; a client needs two"),
        Err(error) => warn!(limit = current, %error, "cannot raise the limit of open files; a client needs two"),
    }
}
