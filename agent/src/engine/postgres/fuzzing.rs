//! What holds for any text in place of what PostgreSQL and its tools say of how far they are: the fuzz target of their
//! readers.

use election::Address;

use super::{config, history, lsn, rebuild, slots};

/// Any text, line by line: what is read says the same when it is written, and what is no position is none.
///
/// # Panics
/// When that does not hold.
pub fn lsn(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        if let Some(at) = lsn::parse(line) {
            assert_eq!(lsn::parse(&lsn::text(at)), Some(at), "{line}");
            assert!(line.len() <= 17 && line.is_ascii(), "{line}");
        }
        if let Some((address, channel)) = config::read_standby_name(line) {
            let name = format!("{address}/{channel}");
            assert_eq!(config::read_standby_name(&name), Some((address, channel)));
        }
        let _ = config::read_source(line);
        if let Some((done, all)) = rebuild::read_progress(line) {
            assert!(done % 1024 == 0 && all % 1024 == 0, "{line}");
        }
        let slot = slots::name(&Address::new(line, 5432));
        assert!(slot.len() <= 63 && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        if let Some(end) = history::left_at(line, 1) {
            assert!(line.contains('/'), "{line} ends at {end}");
        }
    }
    let _ = history::left_at(&text, u32::MAX);
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/lsn");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert_ne!(files.map(|file| super::lsn(&std::fs::read(file).unwrap())).count(), 0);
    }
}
