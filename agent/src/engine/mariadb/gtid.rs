//! Global transaction ids: `domain-server-sequence`, and lists of them, one for each domain.

use std::collections::BTreeMap;

/// The one domain that a group's transactions are counted in.
pub(super) const DOMAIN: u32 = 0;

/// The last transaction of each domain, as (server, sequence).
type State = BTreeMap<u32, (u32, u64)>;

fn parse(list: &str) -> State {
    let gtid = |text: &str| {
        let mut parts = text.trim().splitn(3, '-');
        let domain = parts.next()?.parse().ok()?;
        let server = parts.next()?.parse().ok()?;
        Some((domain, (server, parts.next()?.parse().ok()?)))
    };
    list.split(',').filter_map(gtid).collect()
}

/// The sequence number in the group's own domain; 0 when nothing was written yet.
pub(super) fn sequence(list: &str) -> u64 {
    parse(list).get(&DOMAIN).map_or(0, |(_, sequence)| *sequence)
}

/// Of several lists, the furthest transaction of each domain.
pub(super) fn furthest<'a>(lists: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = State::new();
    for (domain, gtid) in lists.into_iter().flat_map(parse) {
        let known = all.entry(domain).or_insert(gtid);
        if gtid.1 > known.1 {
            *known = gtid;
        }
    }
    let texts: Vec<String> = all.iter().map(|(domain, (server, n))| format!("{domain}-{server}-{n}")).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_by_domain() {
        assert_eq!(sequence(""), 0);
        assert_eq!(sequence("0-4294967295-17"), 17);
        assert_eq!(sequence("5-1-99, 0-2-18446744073709551615"), u64::MAX);
        assert_eq!(sequence("5-1-99"), 0);
        assert_eq!(sequence("garbage"), 0);
    }

    #[test]
    fn the_furthest_of_each_domain_counts() {
        assert_eq!(furthest(["0-1-5,7-3-1", "0-2-9", ""]), "0-2-9,7-3-1");
        assert_eq!(furthest(["", ""]), "");
    }
}
