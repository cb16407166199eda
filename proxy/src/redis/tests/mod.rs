//! The scanner against another parser, against random bytes in random pieces, and against what means harm.

mod replies;
mod requests;
mod server;
mod table;

use proptest::test_runner::Config;

/// As many random inputs as fit into a few seconds on a busy machine.
fn cases() -> Config {
    Config { cases: 200, failure_persistence: None, ..Config::default() }
}
