//! What a file may say, and this version cannot do yet: the one place that knows.
//!
//! `understudy check` accepts all of it. A proxy refuses to start on it. When something gets built, its
//! line here is deleted.

use crate::fault::{Fault, Faults, Loaded};
use crate::proxy::ProxyConfig;

impl Loaded<ProxyConfig> {
    /// What this version cannot do of what the file asks for.
    pub fn not_built_yet(&self) -> Faults {
        let mut missing = Missing::of(self);
        for (index, listener) in self.listeners.iter().enumerate() {
            let key = |name: &str| format!("listener[{index}].{name}");
            missing.when(listener.groups.len() > 1, key("groups"), "name one group");
        }
        missing.when(self.sentinel.is_some(), "sentinel".to_owned(), "leave the table out");
        Faults::new(missing.faults)
    }
}

struct Missing<'l, T> {
    loaded: &'l Loaded<T>,
    faults: Vec<Fault>,
}

impl<'l, T> Missing<'l, T> {
    fn of(loaded: &'l Loaded<T>) -> Self {
        Self { loaded, faults: Vec::new() }
    }

    fn when(&mut self, asked: bool, key: String, instead: &str) {
        if asked {
            let message = format!("this version of understudy cannot do that yet; {instead}");
            self.faults.push(Fault {
                file: self.loaded.file.clone(),
                place: self.loaded.places.get(&key).copied(),
                key,
                message,
            });
        }
    }
}
