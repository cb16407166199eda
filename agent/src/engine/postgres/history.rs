//! Whether a copy can be fed by another instance as it is: whether the one's history is the beginning of the other's.
//!
//! The number of a timeline does not name a history: two instances that are each promoted from the same one take the same
//! number. So the places where each left the timelines before are compared as well, and the last bytes that a copy has;
//! each record of the log holds a checksum and points at the one before it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use election::{Address, Secret};
use serde::Deserialize;

use super::link::{Link, literal};
use super::{lsn, marker, probe, slots};

/// So many of the last bytes are compared: several records.
const WINDOW: u64 = 1024;

/// What a copy has.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) system: String,
    pub(super) timeline: u32,
    /// The end of its log.
    pub(super) end: u64,
    /// How large a file of the log is, in bytes.
    pub(super) segment: u64,
    /// The folder of its log.
    pub(super) wal: PathBuf,
    /// Where it listens.
    pub(super) address: Address,
    /// It is fed at this moment.
    pub(super) receiving: bool,
}

impl Own {
    /// The history of its timeline, if it has it.
    fn history(&self) -> Option<String> {
        if self.timeline <= 1 {
            return Some(String::new());
        }
        std::fs::read_to_string(self.wal.join(history_name(self.timeline))).ok()
    }
}

/// What comparing them has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can be fed as it is.
    Fits {
        /// The source has a slot for it.
        slot: bool,
    },
    /// The source is not as far: that may pass.
    Ahead,
    /// It has what the source does not.
    Parted {
        /// Where the source's history left this one, when that is known.
        fork: Option<u64>,
        /// The source is in a state in which `pg_rewind` can tell the two histories apart.
        rewindable: bool,
    },
    /// It has nothing that the source could go on from.
    Apart,
    /// It is of another cluster: the two have nothing in common.
    Foreign,
}

/// What the source says of itself.
#[derive(Debug, Deserialize)]
struct Source {
    system: String,
    timeline: Option<u32>,
    position: Option<String>,
    checkpointed: u32,
}

/// Asks the source and compares.
pub(super) async fn compare(own: &Own, at: &Address, secret: &Secret) -> Result<Verdict, sqlx::Error> {
    let mut link = Link::remote(at, marker::role_of(secret), secret).await?;
    let question = format!(
        "SELECT row_to_json(s)::text FROM (SELECT
             (SELECT system_identifier::text FROM pg_control_system()) AS system,
             {} AS timeline, {} AS position,
             (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpointed) s",
        probe::TIMELINE,
        probe::POSITION
    );
    let source: Source = link.json(question).await?.ok_or(sqlx::Error::RowNotFound)?;
    if source.system != own.system {
        return Ok(Verdict::Foreign);
    }
    let (timeline, position) = (source.timeline.unwrap_or_default(), source.position.and_then(|t| t.parse().ok()));
    let rewindable = source.checkpointed == timeline && timeline != own.timeline;
    if source.checkpointed < timeline && timeline != own.timeline {
        // Whether it may, and what it comes to, shows when it is asked again.
        let _ = link.run("CHECKPOINT").await;
    }
    let theirs = if timeline > 1 {
        let name = literal(&format!("pg_wal/{}", history_name(timeline)));
        link.text(format!("SELECT convert_from(pg_read_binary_file({name}, 0, 1000000, true), 'UTF8')")).await?
    } else {
        Some(String::new())
    };
    let left = match (own.history(), &theirs) {
        (Some(mine), Some(theirs)) if own.timeline <= timeline => {
            parted_at(&course(&mine, own.timeline), &course(theirs, timeline))
        }
        (_, Some(theirs)) => left_at(theirs, own.timeline),
        (_, None) => None,
    };
    if left.is_none() && timeline != own.timeline {
        return Ok(Verdict::Parted { fork: None, rewindable });
    }
    if let Some(fork) = left.filter(|fork| own.end > *fork) {
        return Ok(Verdict::Parted { fork: Some(fork), rewindable });
    }
    if position.is_none_or(|position: u64| position < own.end) {
        return Ok(Verdict::Ahead);
    }
    same_end(own, timeline, &mut link, rewindable).await
}

/// Compares the last bytes.
async fn same_end(own: &Own, theirs: u32, link: &mut Link, rewindable: bool) -> Result<Verdict, sqlx::Error> {
    let last = own.end.saturating_sub(1);
    let start = own.end.saturating_sub(WINDOW).max(last - last % own.segment);
    let (offset, length) = (start % own.segment, own.end - start);
    let Some(mine) = read(&own.wal.join(file_name(own.timeline, last, own.segment)), offset, length) else {
        return Ok(Verdict::Apart);
    };
    let part = |timeline| {
        let name = literal(&format!("pg_wal/{}", file_name(timeline, last, own.segment)));
        format!("encode(pg_read_binary_file({name}, {offset}, {length}, true), 'hex')")
    };
    // The file in which a timeline begins holds the end of the one before it.
    let found = link.text(format!("SELECT coalesce({}, {})", part(own.timeline), part(theirs))).await?;
    Ok(match found {
        None => Verdict::Apart,
        Some(hex) if hex == to_hex(&mine) => {
            Verdict::Fits { slot: slots::reserve(link, &own.address, own.receiving).await? }
        }
        Some(_) => Verdict::Parted { fork: None, rewindable },
    })
}

fn read(path: &Path, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The name of the file of the log that holds a position.
pub(super) fn file_name(timeline: u32, position: u64, segment: u64) -> String {
    let (number, per_log) = (position / segment, (1_u64 << 32) / segment);
    format!("{timeline:08X}{:08X}{:08X}", number / per_log, number % per_log)
}

/// The name of the file of a timeline's history.
fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// Where a history left a timeline.
pub(super) fn left_at(history: &str, timeline: u32) -> Option<u64> {
    lines(history).find(|(line, _)| *line == timeline).map(|(_, end)| end)
}

/// The timelines that a history went through, each with the position of its end.
fn lines(history: &str) -> impl Iterator<Item = (u32, u64)> {
    history.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.parse::<u32>().ok()?, lsn::parse(words.next()?)?))
    })
}

/// The same with the timeline of the history itself, which has not ended.
fn course(history: &str, timeline: u32) -> Vec<(u32, u64)> {
    lines(history).chain([(timeline, u64::MAX)]).collect()
}

/// The last place that two histories have in common, unless they are the same.
fn parted_at(mine: &[(u32, u64)], theirs: &[(u32, u64)]) -> Option<u64> {
    let mut common = 0;
    for ((timeline, end), (other, other_end)) in mine.iter().zip(theirs) {
        if timeline != other {
            return Some(common);
        }
        common = *end.min(other_end);
        if end != other_end {
            return Some(common);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_it_left_a_timeline() {
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t1/A000000\tno recovery target specified\n";
        assert_eq!(left_at(history, 1), Some(0x300_0148));
        assert_eq!(left_at(history, 2), Some(0x1_0a00_0000));
        assert_eq!(left_at(history, 3), None);
        assert_eq!(left_at("nonsense", 1), None);
    }

    #[test]
    fn histories_part_where_one_left_what_the_other_did_not() {
        let mine = course("1\t0/100\tx\n2\t0/300\tx\n", 3);
        let parted = |history: &str, timeline| parted_at(&mine, &course(history, timeline));
        assert_eq!(parted("1\t0/100\ty\n\n2\t0/300\ty\n", 3), None);
        assert_eq!(parted("1\t0/100\n2\t0/300\n3\t0/500\n", 4), Some(0x500));
        assert_eq!(parted("1\t0/100\n2\t0/200\n", 3), Some(0x200));
        assert_eq!(parted("1\t0/F0\n2\t0/400\n", 3), Some(0xf0));
        assert_eq!(parted("1\t0/100\n", 3), Some(0x100));
    }

    #[test]
    fn a_position_is_in_the_file_of_its_name() {
        let segment = 16 << 20;
        assert_eq!(file_name(1, 0, segment), "000000010000000000000000");
        assert_eq!(file_name(11, 0x1_0a00_0000, segment), "0000000B000000010000000A");
        assert_eq!(file_name(2, 0x300_0148, 1 << 30), "000000020000000000000000");
    }
}
