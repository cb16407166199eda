//! The commands of `understudy`, and the rig that runs a whole group on one machine.
//!
//! [`run`] does what a command line asks for. A command that is not done gives a [`Failure`]: one sentence and an
//! exit code. [`page`] is what `status --json` prints, [`rig`] what the demo, the tests with real processes and the
//! benchmarks stand on.

pub mod args;
mod ask;
mod demo;
pub mod exit;
mod log;
mod out;
pub mod page;
pub mod rig;
pub mod store;
mod verbs;

pub use args::Args;
pub use exit::{Exit, Failure};
pub use log::start_log;
pub use verbs::run;
pub use verbs::status::collect;
pub use verbs::switchover::{Done, Request, ask as ask_switchover};

/// Chooses the one TLS implementation of this program. Every HTTP client needs it, also without TLS; calling it again
/// does nothing.
pub fn install_tls_provider() {
    // An error says that one was chosen before: the same, since there is only this one in the program.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
