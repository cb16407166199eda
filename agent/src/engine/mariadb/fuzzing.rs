//! What holds for any text in place of what a MariaDB says of its transactions: the fuzz target of their readers.

use super::probe::{Answers, Follows, Memo, status};
use super::sql::Answer;
use super::{gtid, relay};
use election::{EngineRole, Incarnation};

/// Any text: each line a list of global transaction ids, all together (as `Column: value`) a row of `SHOW SLAVE STATUS` and
/// an event of a relay log. Nothing read is beyond what was said, and a link that is not said to stand does not.
///
/// # Panics
/// When that does not hold.
pub fn gtid(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let all = gtid::furthest(text.lines());
    assert_eq!(gtid::furthest([all.as_str()]), all);
    let furthest = text.lines().map(gtid::sequence).max().unwrap_or_default();
    assert_eq!(gtid::sequence(&all), furthest, "{all}");

    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let row: Answer = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let event = relay::begins_after(&row, furthest);
    assert!(event.is_none() || row.contains_key("Pos"), "{row:?}");
    let _ = relay::rotates_to(&row);
    let follows = Follows::from_row(&row);
    let receives = row.get("Slave_IO_Running").is_some_and(|value| value == "Yes");
    let answers = Answers { read_only: true, follows: Some(follows), has_schemas: true, ..Answers::default() };
    let said = status(&answers, &mut Memo::default(), Incarnation::default(), None, None);
    let stands = matches!(said.role, EngineRole::Follows { link_up: true, .. });
    assert!(!stands || receives, "{row:?}");
    assert!(said.shown.received.is_none() || receives, "a place in a log that may not be there any more: {row:?}");
    assert!(!said.is_master() && !said.open, "{said:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/gtid");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert_ne!(files.map(|file| super::gtid(&std::fs::read(file).unwrap())).count(), 0);
    }
}
