//! What happened, for people, and a hash of it, to see that the same seed makes the same run.

use std::hash::Hasher;

/// FNV-1a: the same on every machine and in every version of the compiler.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// See the module.
pub(crate) struct Story {
    telling: bool,
    lines: Vec<String>,
    hash: Fnv,
}

impl Story {
    pub(crate) fn new(telling: bool) -> Self {
        Self { telling, lines: Vec::new(), hash: Fnv(0xcbf2_9ce4_8422_2325) }
    }

    /// Takes a transition in. Its words are made only when somebody wants to read them.
    pub(crate) fn tell(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.telling {
            self.lines.push(format!("{:>10.3} ms  {}", now as f64 / 1_000.0, line()));
        }
    }

    /// Takes a fact into the hash.
    pub(crate) fn note(&mut self, now: u64, fact: &[u64]) {
        self.hash.write(&now.to_le_bytes());
        fact.iter().for_each(|word| self.hash.write(&word.to_le_bytes()));
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
