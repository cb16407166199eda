//! What is wrong with a file, where, and what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

/// A place in a file, both numbers from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named to us, or the environment variable.
    pub file: String,
    /// Where in the file; none when the whole file is at fault.
    pub place: Option<Place>,
    /// The key, such as `instance[1].port`; empty when no key is at fault.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every fault of a file, by line. Printed one a line, the last line counts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Puts faults in the order of their lines.
    pub fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (a.place, &a.key).cmp(&(b.place, &b.key)));
        Self(faults)
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The faults, by line.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}")?;
        }
        match self.len() {
            1 => write!(f, "1 fault"),
            n => write!(f, "{n} faults"),
        }
    }
}

impl std::error::Error for Faults {}

/// A value, and where in its file each key stood. It reads as the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<T> {
    /// What the file says.
    pub value: T,
    /// The file, as it was named to us.
    pub file: String,
    /// Where each key stood that the file has, by key path.
    pub places: BTreeMap<String, Place>,
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
