//! `understudy history`: who was master, since when and why.

use crate::args::GroupArgs;
use crate::exit::Failure;
use crate::out::{lines, print, print_json, table};
use crate::store::Store;
use election::HistoryEntry;
use serde::Serialize;

#[derive(Serialize)]
struct Page<'a> {
    group: &'a str,
    history: &'a [HistoryEntry],
}

/// Shows the stories of a group, the oldest first.
pub(crate) async fn run(store: &Store, options: &GroupArgs) -> Result<(), Failure> {
    let group = store.group(&options.group).await?;
    let history = store.history(&group.name).await?;
    if options.json {
        return print_json(&Page { group: &options.group, history: &history });
    }
    if history.is_empty() {
        return print(&format!("nothing has been written down about {} yet\n", options.group));
    }
    let mut rows = table(&["EPOCH", "SINCE (UTC)", "MASTER", "BEFORE", "TOOK", "WHY", "DATA LOSS"]);
    for story in &history {
        rows.add_row(row(story));
    }
    print(&lines(rows))
}

fn row(story: &HistoryEntry) -> [String; 7] {
    [
        story.epoch.to_string(),
        utc(story.at),
        story.master.to_string(),
        story.previous.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        format!("{} ms", story.took_ms),
        story.reason.clone(),
        story.data_loss.clone().unwrap_or_else(|| "none".to_owned()),
    ]
}

/// Milliseconds since 1970 as `2026-11-21 09:28:48`.
fn utc(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date of a day counted from 1970-01-01. In a calendar that begins in March the leap day is the year's last, so
/// that months follow a straight line; 146,097 days are 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1_000), shown);
        }
    }
}
