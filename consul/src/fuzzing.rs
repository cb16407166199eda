//! What holds for any bytes that stand under our keys in Consul: the fuzz target of this package.

#![allow(clippy::expect_used, reason = "a panic is what a fuzz target reports")]

use crate::layout::encode;
use crate::{Entry, Forgotten, Layout, Leader, ProxyRecord, decode};
use election::{Command, GroupName, HistoryEntry, Member, Outcome, Policy, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Any document can be read, or is a fault that names its key; one that can be read says the same when it is written.
///
/// # Panics
/// When that does not hold.
pub fn documents(data: &[u8]) {
    let layout = Layout::new("u");
    let group = GroupName::from("g");
    let names = ["record", "leader", "config", "command", "members/n1", "history/1", "result/x"];
    let entries = names.map(|name| Entry {
        key: layout.group(&group) + name,
        value: data.to_vec(),
        modify_index: 7,
        session: Some("s".to_owned()),
    });
    let view = layout.view(&group, &entries, 7);
    assert!(view.record.is_some() != view.record_fault.is_some(), "a record is there or at fault: {view:?}");
    for (fault, key) in view.record_fault.iter().map(|fault| (fault, "u/g/record")) {
        assert!(fault.contains(key), "{fault}");
    }
    let read = [view.policy.is_some(), view.command.is_some(), !view.members.is_empty()];
    let read = read.into_iter().filter(|read| *read).count();
    assert_eq!(read + view.faults.len(), 3, "{:?}", view.faults);
    let _ = layout.proxies_view(&entries, 7);
    says_the_same::<Record>(&entries[0]);
    says_the_same::<Policy>(&entries[0]);
    says_the_same::<Command>(&entries[0]);
    says_the_same::<Member>(&entries[0]);
    says_the_same::<HistoryEntry>(&entries[0]);
    says_the_same::<Outcome>(&entries[0]);
    says_the_same::<ProxyRecord>(&entries[0]);
    says_the_same::<Leader>(&entries[0]);
    says_the_same::<Forgotten>(&entries[0]);
}

fn says_the_same<T: Serialize + DeserializeOwned + PartialEq + Debug>(entry: &Entry) {
    if let Ok(document) = decode::<T>(entry) {
        let again = Entry { value: encode(&document), ..entry.clone() };
        assert_eq!(decode::<T>(&again).expect("what was written can be read"), document);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/documents");
        let files = std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path());
        assert_ne!(files.map(|file| super::documents(&std::fs::read(file).expect("a seed"))).count(), 0);
    }
}
