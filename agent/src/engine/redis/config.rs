//! The configuration that a Redis is started with: our defaults, the user's settings, and then what must be ours.

use std::collections::BTreeMap;
use std::path::Path;

use super::accounts;

/// A closed port of this machine: who replicates from it receives nothing, and keeps what it needs to go on later.
/// Port 1 (tcpmux) is privileged and unused; a connection to it is refused within microseconds.
pub(super) const BLACK_HOLE: (&str, u16) = ("127.0.0.1", 1);

/// How many databases a user has who does not say: Redis's own default.
const DATABASES: u32 = 16;

/// The folder of the append-only file within the data folder: Redis's own name for it.
pub(super) const AOF_FOLDER: &str = "appendonlydir";

/// The list of the files that make up the append-only file.
pub(super) const AOF_MANIFEST: &str = "appendonly.aof.manifest";

/// The append-only file as Redis 6 had it; Redis 7 takes it over at its first start.
pub(super) const OLD_AOF: &str = "appendonly.aof";

/// The snapshot.
pub(super) const SNAPSHOT: &str = "dump.rdb";

/// What the user may set otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("appendfsync", "everysec"),
    // What a replica may miss and still go on without a full copy. Memory is taken only as it fills.
    ("repl-backlog-size", "256mb"),
    // Redis's own 60 s keep a half-open link for a minute after a cut. Below 10 s a replica that puts a large copy on a
    // slow disk, silent while it does, would be cut off and begin anew for ever.
    ("repl-timeout", "10"),
    // Redis answers nothing at all while a script runs, until this many milliseconds are over; then it says that it is
    // busy, which is a sign of life. Well below the shortest `hang_after`.
    ("busy-reply-threshold", "500"),
];

/// What must be as it is, and why a user cannot have it otherwise.
const OURS: &[(&str, &str, &str)] = &[
    ("replica-read-only", "yes", "replicas take no writes"),
    ("replica-serve-stale-data", "yes", "the agent reads the marker of a replica whose source is gone"),
    ("replica-ignore-disk-write-errors", "no", "a replica acknowledges only what it can keep"),
    ("propagation-error-behavior", "panic-on-replicas", "a replica must not skip a write and acknowledge it"),
    ("appendonly", "yes", "an instance must come back with its data"),
    ("appenddirname", AOF_FOLDER, "the agent puts these files on disk itself"),
    ("appendfilename", OLD_AOF, "the agent puts these files on disk itself"),
    ("dbfilename", SNAPSHOT, "the agent looks for it when it adopts a folder"),
    ("no-appendfsync-on-rewrite", "no", "a write that counts as on disk must be there"),
    ("save", "\"\"", "the append-only file is what an instance comes back with"),
    ("repl-diskless-sync", "yes", "a copy goes straight to the replica"),
    // Redis's own 5 s wait for more replicas; a master has one here, and a chain would pay it at every link.
    ("repl-diskless-sync-delay", "0", "a copy begins at once"),
    // Loading from the socket would drop the old data before the new is known to be whole.
    ("repl-diskless-load", "disabled", "old data goes only when new data is there"),
    // An idle master keeps what a replica needs to go on, however long it is away.
    ("repl-backlog-ttl", "0", "a replica that was away goes on where it was"),
    ("repl-ping-replica-period", "1", "silence of a master is told from idleness"),
    // A limit would cut a slow replica off in the middle of its copy; the backlog bounds the rest.
    ("client-output-buffer-limit", "replica 0 0 0", "a slow replica is not cut off"),
    ("min-replicas-max-lag", "2", "a master that is cut off stops within two seconds"),
    ("min-replicas-to-write", "0", "the agent sets it while the group runs"),
    ("protected-mode", "no", "clients come from other machines; set `password_file` to ask them for a password"),
    ("daemonize", "no", "the agent watches the process"),
    ("supervised", "no", "the agent watches the process"),
    ("cluster-enabled", "no", "the agent decides who replicates from whom"),
];

/// What the generated file is made of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    pub(super) data_dir: &'a Path,
    pub(super) settings: &'a BTreeMap<String, String>,
    /// The clients' password.
    pub(super) clients: Option<&'a str>,
    /// The agent's password.
    pub(super) agent: &'a str,
    /// Load the snapshot instead of the append-only file: the folder was adopted and has no such file.
    pub(super) from_snapshot: bool,
}

/// The whole file.
pub(super) fn generate(plan: &Plan) -> String {
    let mut lines = vec!["# Written by understudy at every start of the database: changes are lost.".to_owned()];
    let user = |key: &str| setting(plan.settings, key);
    for (key, value) in DEFAULTS {
        if user(key).is_none() {
            lines.push(format!("{key} {value}"));
        }
    }
    for (key, value) in plan.settings {
        let ours = ["bind", "databases"].iter().any(|k| key.eq_ignore_ascii_case(k));
        if !ours {
            lines.push(format!("{key} {value}"));
        }
    }
    for (key, value, _) in OURS {
        let value = if *key == "appendonly" && plan.from_snapshot { "no" } else { value };
        lines.push(format!("{key} {value}"));
    }
    lines.push(format!("bind {}", bind(plan.address, user("bind"))));
    lines.push(format!("port {}", plan.port));
    lines.push(format!("dir {}", quote(&plan.data_dir.to_string_lossy())));
    lines.push(format!("databases {}", marker_database(plan.settings) + 1));
    lines.push(format!("replica-announce-ip {}", quote(plan.address)));
    lines.push(format!("replica-announce-port {}", plan.port));
    lines.push(format!("replicaof {} {}", BLACK_HOLE.0, BLACK_HOLE.1));
    lines.extend(accounts::user_lines(plan.clients, plan.agent));
    lines.push(String::new());
    lines.join("\n")
}

/// The database that the marker is in: the one after the user's last.
pub(super) fn marker_database(settings: &BTreeMap<String, String>) -> u32 {
    setting(settings, "databases").and_then(|n| n.trim().parse().ok()).unwrap_or(DATABASES)
}

/// The fsync policy when no write has to be on disk before it is answered.
pub(super) fn fsync_policy(settings: &BTreeMap<String, String>) -> &str {
    setting(settings, "appendfsync").map_or("everysec", str::trim)
}

/// Where the server listens: always on loopback as well, which is where the agent speaks to it.
fn bind(address: &str, user: Option<&str>) -> String {
    let wanted = user.map_or_else(|| address.trim().to_owned(), |text| text.trim().to_owned());
    let has_loopback = wanted.split_whitespace().any(|a| matches!(a, "127.0.0.1" | "localhost" | "0.0.0.0" | "*"));
    if has_loopback { wanted } else { format!("{wanted} {}", BLACK_HOLE.0) }
}

/// Setting names are the same in any case.
fn setting<'a>(settings: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    settings.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
}

/// A text as one argument of a line.
fn quote(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            '\n' => vec!['\\', 'n'],
            c => vec![c],
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn file(settings: &BTreeMap<String, String>) -> String {
        generate(&Plan {
            address: "10.0.0.11",
            port: 6379,
            data_dir: Path::new("/data/a \"b\""),
            settings,
            clients: None,
            agent: "secret",
            from_snapshot: false,
        })
    }

    /// What Redis ends up with: the last line of a key wins.
    fn last<'a>(file: &'a str, key: &str) -> Option<&'a str> {
        file.lines().filter_map(|l| l.split_once(' ')).filter(|(k, _)| *k == key).map(|(_, v)| v).next_back()
    }

    #[test]
    fn it_boots_as_a_replica_of_a_black_hole() {
        let file = file(&settings(&[]));
        assert_eq!(last(&file, "replicaof"), Some("127.0.0.1 1"));
        assert_eq!(last(&file, "replica-read-only"), Some("yes"));
        assert_eq!(last(&file, "bind"), Some("10.0.0.11 127.0.0.1"));
        assert_eq!(last(&file, "databases"), Some("17"));
        assert_eq!(last(&file, "dir"), Some(r#""/data/a \"b\"""#));
        assert!(!file.contains("secret"));
    }

    #[test]
    fn the_users_settings_stand_between_our_defaults_and_what_is_ours() {
        let user = settings(&[("AppendFsync", "always"), ("databases", "4"), ("maxmemory", "256mb"), ("bind", "*")]);
        let file = file(&user);
        assert_eq!(last(&file, "appendfsync"), None);
        assert_eq!(last(&file, "AppendFsync"), Some("always"));
        assert_eq!(last(&file, "maxmemory"), Some("256mb"));
        assert_eq!(last(&file, "databases"), Some("5"));
        assert_eq!(last(&file, "bind"), Some("*"));
        assert_eq!((marker_database(&user), fsync_policy(&user)), (4, "always"));
    }

    /// What the file says last must not be something that a user was let say: he would wonder what became of it.
    #[test]
    fn what_is_ours_is_refused_when_a_user_sets_it() {
        // These two are checked by their value.
        let by_value = ["no-appendfsync-on-rewrite", "client-output-buffer-limit"];
        for (key, _, _) in OURS.iter().filter(|(key, _, _)| !by_value.contains(key)) {
            assert!(::config::is_managed(::config::REDIS_MANAGED, key), "{key}");
        }
    }

    #[test]
    fn loopback_is_listened_on_once() {
        assert_eq!(bind("127.0.0.1", None), "127.0.0.1");
        assert_eq!(bind("localhost", None), "localhost");
        assert_eq!(bind("db1", None), "db1 127.0.0.1");
        assert_eq!(bind("db1", Some("0.0.0.0")), "0.0.0.0");
    }
}
