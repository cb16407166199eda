//! What holds for any text in place of a configuration file: the fuzz target of this package.

#![allow(clippy::expect_used, reason = "a panic is what a fuzz target reports")]

use crate::load::{check_text, read_agent, read_proxy};
use crate::{Faults, parse_group, parse_listen, parse_policy, policy_text};
use election::Policy;
use std::fmt::Debug;

/// Any text is a faultless file or has faults that say something; a policy that can be read can be shown and read again.
///
/// # Panics
/// When that does not hold.
pub fn files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let silent = |_: &str| None;
    faults_speak(&check_text("file", text));
    faults_speak(&read_agent("file", text, &silent).map(drop));
    faults_speak(&read_proxy("file", text, &silent).map(drop));
    let read = parse_policy("file", text, &Policy::default());
    if let Ok(policy) = &read {
        let again = parse_policy("file", &policy_text(policy), &Policy::default());
        assert_eq!(again.as_ref().ok(), Some(policy), "{again:?}");
    }
    faults_speak(&read);
    let _ = (parse_group(text), parse_listen(text));
}

fn faults_speak<T: Debug>(read: &Result<T, Faults>) {
    if let Err(faults) = read {
        assert!(!faults.is_empty());
        for fault in faults.iter() {
            assert!(!fault.message.is_empty() && fault.to_string().starts_with("file"), "{fault}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/config");
        let files = std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path());
        assert_ne!(files.map(|file| super::files(&std::fs::read(file).expect("a seed"))).count(), 0);
    }
}
