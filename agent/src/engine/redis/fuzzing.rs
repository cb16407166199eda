//! What holds for any text in place of a server's answers: the fuzz target of the probe.

use super::ops::strangers;
use super::probe::{Answers, Info, Memo, is_rewriting, lacks_append_only, status};
use election::Address;
use std::collections::HashMap;

/// Any text in place of `INFO` (and, behind an empty line, of `CLIENT LIST`) is a status; what cannot be read in it is
/// what is least trusted.
///
/// # Panics
/// When that does not hold.
pub fn info(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (info, list) = text.split_once("\n\n").unwrap_or((&text, ""));
    let fields: HashMap<String, String> =
        info.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let answers = Answers {
        info: info.to_owned(),
        settings: fields.clone(),
        open: false,
        marker: fields.clone(),
        need: fields.get("need").cloned(),
    };
    let read = Info::read(info);
    let said = status(&answers, &read, &Memo::default(), 16, false);
    assert!(said.need || fields.get("need").is_some_and(|need| need == "0"), "only a 0 says that nobody is needed");
    assert!(!said.persisted || text.contains("aof_enabled:1"), "{said:?}");
    assert!(!said.fsync, "this agent has put nothing on disk yet");
    let _ = (is_rewriting(&read), lacks_append_only(&said, &read));
    let replicas = read.replicas();
    let keep = replicas.first().map_or_else(|| Address::new("h", 1), |replica| replica.address.clone());
    assert!(strangers(info, list, &keep).len() <= list.lines().count());
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/info");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert_ne!(files.map(|file| super::info(&std::fs::read(file).unwrap())).count(), 0);
    }
}
