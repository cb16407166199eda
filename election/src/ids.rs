//! Names and numbers that must not be mixed up, each a type of its own.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Makes a newtype around a string that reads and prints as that string.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text! {
    /// A member of groups; the name survives a rebuild of the machine.
    NodeId
}
text! {
    /// A replicated data set: `[a-z0-9-]{1,63}`.
    GroupName
}
text! {
    /// What voids a certificate when it changes. Redis: the run id of the process.
    Incarnation
}
text! {
    /// The history a copy belongs to. Redis: the replication id.
    Lineage
}
text! {
    /// A random text that makes a document, or a certificate, unlike every other.
    Nonce
}

/// How far a copy has come, in the engine's own unit (Redis: bytes of the replication stream). Comparable only
/// between copies of one [`Lineage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// In JSON a position is a text: other engines' positions are not plain numbers, and JSON readers round large ones.
impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Position).map_err(|_| serde::de::Error::custom(format!("`{text}` is not a position")))
    }
}

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Address {
    /// A host name or IP address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl Address {
    /// Puts the two together.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The age of a record: an effect carries the stamp it was decided for, and its receiver refuses an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The number of a mastership.
    pub epoch: u64,
    /// The number of the record's version; grows with every write, in every epoch.
    pub seq: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq)
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl std::str::FromStr for Stamp {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, seq) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse()? })
    }
}

/// Milliseconds on a node's own monotonic clock. Never compared between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// How long ago `earlier` was, zero when it lies ahead.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant and `ms` more.
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

/// A password. It is sent to the one agent it is for, and appears in no log, error, or debug print.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not be printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_is_written() {
        let stamp = Stamp { epoch: 7, seq: 31 };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for text in ["", "7", "7/", "/31", "7/31/1", "a/b"] {
            assert!(text.parse::<Stamp>().is_err(), "{text}");
        }
    }
}
