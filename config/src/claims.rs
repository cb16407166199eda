//! What two keys of a file may not both have.

use std::collections::BTreeMap;

use crate::names;
use crate::reader::{Found, Reader};

/// Claims something that only one key of a file may have.
pub(crate) struct Once<'r, 'a> {
    reader: &'r Reader<'a>,
    seen: BTreeMap<String, usize>,
}

impl<'r, 'a> Once<'r, 'a> {
    pub(crate) fn new(reader: &'r Reader<'a>) -> Self {
        Self { reader, seen: BTreeMap::new() }
    }

    /// A fault when `value` was claimed before; `why` it may be claimed once only.
    pub(crate) fn claim<T>(&mut self, found: &Found<T>, value: impl ToString, why: &str) {
        let value = value.to_string();
        match self.seen.get(&value) {
            Some(line) => {
                self.reader.fault(&found.key, found.place, format!("\"{value}\" stands in line {line} too; {why}"));
            }
            None => drop(self.seen.insert(value, found.place.line)),
        }
    }
}

/// The sockets that one process, and what it starts, would open on a machine.
pub(crate) struct Sockets<'r, 'a> {
    reader: &'r Reader<'a>,
    taken: Vec<(String, u16, String)>,
}

impl<'r, 'a> Sockets<'r, 'a> {
    pub(crate) fn new(reader: &'r Reader<'a>) -> Self {
        Self { reader, taken: Vec::new() }
    }

    /// Takes a socket that no key of the file names.
    pub(crate) fn reserve(&mut self, host: &str, port: u16, by: &str) {
        self.taken.push((host.to_owned(), port, by.to_owned()));
    }

    /// A fault when the port is taken at that host already.
    pub(crate) fn claim<T>(&mut self, found: &Found<T>, host: &str, port: u16) {
        let meets = |other: &str| other == host || names::is_wildcard(other) || names::is_wildcard(host);
        match self.taken.iter().find(|(other, taken, _)| *taken == port && meets(other)) {
            Some((_, _, by)) => {
                let message = format!("port {port} is taken by {by}; choose another");
                self.reader.fault(&found.key, found.place, message);
            }
            None => self.reserve(host, port, &format!("line {}", found.place.line)),
        }
    }
}
