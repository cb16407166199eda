//! What a copy had received and acknowledged, but not applied, when its process ended. By global transaction ids the
//! server would delete it and fetch it again, from a source that may be gone; so it is applied by its place in the relay
//! log, before anything else is done with the copy.

use super::gtid;
use super::probe::Follows;
use super::sql::{Answer, Link, literal};

/// What was applied already is most often a transaction or two.
const PAGE: usize = 500;

/// Where the first event of a log stands.
const FIRST_EVENT: u64 = 4;

/// What there is to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// All is applied.
    Nothing,
    /// It is being applied. Meanwhile the instance counts as loading.
    Applies {
        /// By how many threads a copy applied before, if not by one.
        parallel_threads: Option<u64>,
    },
    /// What comes next in the relay log does not follow on what was applied: something is missing. A sentence says what.
    Lacks(String),
}

/// Starts to apply it. One thread does it, whatever is configured: then its word that it has read all says that all is
/// applied.
pub(super) async fn apply_rest(link: &mut Link, follows: &Follows) -> Result<Rest, sqlx::Error> {
    if follows.relay_file.is_empty() || follows.is_receiving() || follows.applying {
        return Ok(Rest::Nothing);
    }
    let row = link
        .ask_one(
            "SELECT @@global.gtid_slave_pos AS pos, @@global.gtid_binlog_pos AS written, \
             @@global.slave_parallel_threads AS threads",
        )
        .await?;
    let last = |key: &str| row.get(key).map_or(0, |list| gtid::sequence(list));
    let applied = last("pos").max(last("written"));
    let Some((file, begins)) = first_after(link, follows, applied).await? else { return Ok(Rest::Nothing) };
    if applied.checked_add(1) != Some(begins.sequence) {
        return Ok(Rest::Lacks(format!("transaction {applied} is applied, and the next one is {}", begins.sequence)));
    }
    let position = begins.position;
    let parallel_threads = row.get("threads").and_then(|threads| threads.parse().ok()).filter(|threads| *threads > 0);
    if parallel_threads.is_some() {
        link.run("SET GLOBAL slave_parallel_threads = 0").await?;
    }
    link.run(format!(
        "CHANGE MASTER TO MASTER_USE_GTID = no, RELAY_LOG_FILE = {}, RELAY_LOG_POS = {position}",
        literal(&file)
    ))
    .await?;
    link.run("START SLAVE SQL_THREAD").await?;
    Ok(Rest::Applies { parallel_threads })
}

/// Where the first transaction beyond `applied` begins.
async fn first_after(
    link: &mut Link,
    follows: &Follows,
    applied: u64,
) -> Result<Option<(String, Begins)>, sqlx::Error> {
    let (mut file, mut position, mut seen) = (follows.relay_file.clone(), follows.relay_position, 0);
    loop {
        let from = literal(&file);
        let page = format!("SHOW RELAYLOG EVENTS IN {from} FROM {position} LIMIT {seen}, {PAGE}");
        let events = link.ask(page).await?;
        if let Some(at) = events.iter().find_map(|event| begins_after(event, applied)) {
            return Ok(Some((file, at)));
        }
        match events.iter().find_map(rotates_to) {
            Some(next) => (file, position, seen) = (next, FIRST_EVENT, 0),
            None if events.len() == PAGE => seen += PAGE,
            None => return Ok(None),
        }
    }
}

/// Where a transaction begins, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begins {
    position: u64,
    sequence: u64,
}

pub(super) fn begins_after(event: &Answer, applied: u64) -> Option<Begins> {
    let words = event.get("Info").filter(|_| event.get("Event_type").is_some_and(|kind| kind == "Gtid"))?;
    let id =
        words.split_whitespace().find(|word| word.contains('-') && word.starts_with(|c: char| c.is_ascii_digit()))?;
    let sequence = Some(gtid::sequence(id)).filter(|sequence| *sequence > applied)?;
    Some(Begins { position: event.get("Pos")?.parse().ok()?, sequence })
}

/// The relay log goes on in another file. Its source's own rotations are in it as well: they name a file of the source.
pub(super) fn rotates_to(event: &Answer) -> Option<String> {
    let rotate = event.get("Event_type").is_some_and(|kind| kind == "Rotate");
    let name = event.get("Info").filter(|_| rotate)?.split(';').next()?;
    name.starts_with("relay.").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, pos: &str, info: &str) -> Answer {
        [("Event_type", kind), ("Pos", pos), ("Info", info)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn the_first_transaction_beyond_what_was_applied_is_found() {
        let begins = Begins { position: 301, sequence: 12 };
        assert_eq!(begins_after(&event("Gtid", "301", "BEGIN GTID 0-7-12"), 11), Some(begins));
        assert_eq!(begins_after(&event("Gtid", "301", "GTID 0-7-12"), 12), None);
        assert_eq!(begins_after(&event("Xid", "301", "COMMIT /* xid=0-7-12 */"), 11), None);
    }

    #[test]
    fn only_our_own_rotation_leads_on() {
        assert_eq!(rotates_to(&event("Rotate", "4", "relay.000003;pos=4")).as_deref(), Some("relay.000003"));
        assert_eq!(rotates_to(&event("Rotate", "4", "binlog.000003;pos=4")), None);
    }
}
