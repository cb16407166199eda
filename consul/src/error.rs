//! What can go wrong with a call to Consul, and the three ways a write can end.

use std::fmt;
use std::path::PathBuf;

/// A call that failed. A write that fails so was certainly not applied; one whose fate is not known is no error but
/// [`Written::Unknown`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of the addresses answered.
    #[error("no Consul answered {request}; tried {}", list(tried))]
    Unreachable {
        /// Verb and path.
        request: String,
        /// Every address with what happened there, in order.
        tried: Vec<Attempt>,
    },
    /// Consul's access control refused it.
    #[error("Consul denied {request} ({detail}): the token needs the rule {right}")]
    Denied {
        /// Verb and path.
        request: String,
        /// The rule that would allow it, in the language of Consul's policies.
        right: Right,
        /// Consul's own words.
        detail: String,
    },
    /// Consul answered with a status that is neither success nor one this package knows how to take.
    #[error("Consul answered {request} with status {code}: {detail}")]
    Status {
        /// Verb and path.
        request: String,
        /// The HTTP status.
        code: u16,
        /// The first line of the answer.
        detail: String,
    },
    /// What stands in a key is not what it should be.
    #[error("cannot read {key} in Consul")]
    Decode {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The answer is not what Consul's documentation says.
    #[error("cannot understand Consul's answer to {request}")]
    Answer {
        /// Verb and path.
        request: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file named in `[consul]` cannot be used.
    #[error("cannot use {}, the {key} of [consul]: {why}", file.display())]
    File {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The settings of `[consul]` do not make a client.
    #[error("cannot set up the connection to Consul: {why}")]
    Setup {
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// This with its causes, in one line.
    pub fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

/// One address and what happened there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address as configured.
    pub address: String,
    /// What happened.
    pub why: String,
}

impl Attempt {
    /// This, as the end of a write.
    pub(crate) fn unknown(self) -> Written {
        Written::Unknown { why: format!("{}: {}", self.address, self.why) }
    }
}

fn list(tried: &[Attempt]) -> String {
    let lines: Vec<_> = tried.iter().map(|a| format!("{} ({})", a.address, a.why)).collect();
    lines.join(", ")
}

/// A right in Consul's access control. Prints as the rule of a policy that grants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Read the keys that begin so.
    ReadKeys(String),
    /// Write the keys that begin so.
    WriteKeys(String),
    /// Create, renew and destroy sessions.
    Sessions,
    /// Register the service of this name.
    WriteService(String),
    /// Read the service of this name.
    ReadService(String),
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::ReadKeys(prefix) => write!(f, "key_prefix \"{prefix}\" {{ policy = \"read\" }}"),
            Right::WriteKeys(prefix) => write!(f, "key_prefix \"{prefix}\" {{ policy = \"write\" }}"),
            Right::Sessions => f.write_str("session_prefix \"\" { policy = \"write\" }"),
            Right::WriteService(name) => write!(f, "service \"{name}\" {{ policy = \"write\" }}"),
            Right::ReadService(name) => write!(f, "service \"{name}\" {{ policy = \"read\" }}"),
        }
    }
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is in Consul.
    Applied {
        /// The ModifyIndex of the first key written; 0 when the call does not tell it.
        index: u64,
    },
    /// A condition did not hold; nothing was changed.
    Refused {
        /// Which one, and why.
        why: String,
    },
    /// It was sent and no answer came, or Consul failed on the way: it may have been applied, or may still be.
    Unknown {
        /// What happened instead of an answer.
        why: String,
    },
}

impl Written {
    /// Whether it is certainly in Consul.
    pub fn is_applied(&self) -> bool {
        matches!(self, Written::Applied { .. })
    }
}
