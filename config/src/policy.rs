//! A group's policy as text: what `understudy config` shows and takes, by the rules of the file's `[group.NAME]`.

use election::{Durability, Policy, Reads, WithoutReplica};
use std::fmt::Write as _;
use std::time::Duration;

use crate::fault::{Fault, Faults};
use crate::read_agent;
use crate::reader::{self, shown};

/// What faults call the whole.
const TITLE: &str = "a policy";

/// Reads a policy as the file's `[group.NAME]` writes it; what `text` leaves out is as in `base`. `file` is what faults
/// call the text.
pub fn parse_policy(file: &str, text: &str, base: &Policy) -> Result<Policy, Faults> {
    let read = |root: &mut reader::Section<'_>| read_agent::policy(root, base);
    let (loaded, _) = reader::read_titled(file, TITLE, text, read)?;
    Ok(loaded.value)
}

/// The same of single settings, as words of a command line: `detect_after` and `500ms`. Texts need no quotes.
pub fn parse_policy_settings(file: &str, settings: &[(&str, &str)], base: &Policy) -> Result<Policy, Faults> {
    let mut text = String::new();
    for (key, value) in settings {
        let _ = writeln!(text, "{} = {}", toml_text(key), toml_value(value));
    }
    // Nobody has seen the lines made here.
    let unplaced = |fault: &Fault| Fault { place: None, ..fault.clone() };
    parse_policy(file, &text, base).map_err(|faults| Faults::new(faults.iter().map(unplaced).collect()))
}

/// A policy as [`parse_policy`] reads it. That a group is paused is no part of it.
pub fn policy_text(policy: &Policy) -> String {
    let durability = match policy.durability {
        Durability::Sync => "sync",
        Durability::Async => "async",
    };
    let without = match policy.without_replica {
        WithoutReplica::Continue => "continue",
        WithoutReplica::Block => "block",
    };
    let reads = match policy.reads {
        Reads::Local => "local",
        Reads::Durable => "durable",
    };
    let span = |millis| shown(Duration::from_millis(millis));
    format!(
        "durability = \"{durability}\"\nwithout_replica = \"{without}\"\nfsync = {}\nreads = \"{reads}\"\n\
         detect_after = \"{}\"\nhang_after = \"{}\"\nflap_pause = \"{}\"\nmax_lag = {}\n",
        policy.fsync,
        span(policy.detect_after),
        span(policy.hang_after),
        span(policy.flap_pause),
        policy.max_lag
    )
}

/// A word of the command line as TOML would have it: numbers and booleans bare, everything else in quotes.
fn toml_value(word: &str) -> String {
    let bare = ["true", "false"].contains(&word) || (!word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
    if bare { word.to_owned() } else { toml_text(word) }
}

/// A text in TOML's quotes.
fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd() -> Policy {
        Policy {
            without_replica: WithoutReplica::Block,
            detect_after: 1_500,
            hang_after: 120_000,
            flap_pause: 3_600_000,
            max_lag: 7,
            paused: true,
            ..Policy::default()
        }
    }

    #[test]
    fn a_policy_comes_back_as_it_was_written() {
        for policy in [Policy::default(), odd()] {
            assert_eq!(parse_policy("p", &policy_text(&policy), &policy).unwrap(), policy);
        }
        assert_eq!(parse_policy("p", "", &odd()).unwrap(), odd());
        let read = parse_policy("p", &policy_text(&odd()), &Policy::default()).unwrap();
        assert_eq!(Policy { paused: true, ..read }, odd());
    }

    #[test]
    fn settings_change_what_they_name_and_nothing_else() {
        let set = parse_policy_settings("g", &[("detect_after", "500ms"), ("max_lag", "0")], &odd()).unwrap();
        assert_eq!(set, Policy { detect_after: 500, max_lag: 0, ..odd() });
    }

    #[test]
    fn the_limits_are_the_files_own_and_every_fault_is_told() {
        let settings = [("detect_after", "1ms"), ("max_lag", "much"), ("paused", "true"), ("a\"b\n", "x\"\\")];
        let faults = parse_policy_settings("g", &settings, &Policy::default()).unwrap_err().to_string();
        for told in [
            "g: detect_after: \"1ms\" is not between 200ms and 1m",
            "g: max_lag: is a text",
            "g: paused: there is no such key; a policy knows: durability, without_replica",
            "4 faults",
        ] {
            assert!(faults.contains(told), "{told}: {faults}");
        }
    }

    #[test]
    fn what_goes_together_is_seen_together_with_what_is_there() {
        let faults = parse_policy_settings("g", &[("durability", "async")], &odd()).unwrap_err().to_string();
        assert!(faults.contains("durability: \"block\" can be promised only where"), "{faults}");
        let faults = parse_policy("g", "durability = \"async\"", &odd()).unwrap_err();
        assert!(faults.iter().all(|fault| fault.place.is_some()), "{faults}");
    }
}
