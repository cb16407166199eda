//! How the program ends: the exit codes, and the one sentence of a command that was not done.

use std::fmt;
use std::process::ExitCode;

/// The exit codes. They are part of what other programs rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Refused or failed; standard error says why.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No Consul answers: `EX_UNAVAILABLE` of sysexits.h.
    NoConsul = 69,
    /// The configuration is faulty: `EX_CONFIG` of sysexits.h.
    Config = 78,
}

impl Exit {
    /// Every code with its meaning, as `--help` shows it.
    pub const HELP: &str = "\
Exit codes:
  0   done
  1   refused or failed; standard error says why
  2   the command line is wrong
  69  no Consul answers
  78  the configuration is faulty";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The enum's numbers are exit codes, all below 256.
        ExitCode::from(exit as u8)
    }
}

/// Why a command was not done: one sentence for a person, and the exit code for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence, or for faulty files one line a fault. Empty when there is nothing to say.
    pub sentence: String,
}

impl Failure {
    /// Refused or failed.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, sentence: sentence.into() }
    }

    /// No Consul.
    pub fn no_consul(sentence: impl Into<String>) -> Self {
        Self { exit: Exit::NoConsul, sentence: sentence.into() }
    }

    /// A faulty configuration.
    pub fn config(sentence: impl Into<String>) -> Self {
        Self { exit: Exit::Config, sentence: sentence.into() }
    }

    /// An error with what caused it, on one line.
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self::new(chain(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}

/// An error and its causes: `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat their source: saying it twice helps nobody.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        for exit in [Exit::Ok, Exit::Failed, Exit::Usage, Exit::NoConsul, Exit::Config] {
            let code = format!("\n  {:<3} ", exit as u8);
            assert!(Exit::HELP.contains(&code), "{code}");
        }
    }

    #[test]
    fn a_chain_says_nothing_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Repeats(#[source] std::io::Error);
        assert_eq!(chain(&Repeats(std::io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&Repeats(std::io::Error::other("deep"))), "outer: inner: deep");
    }
}
