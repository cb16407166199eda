//! The engine's settings: which ones the user may give, and why not the others.

use crate::agent::Engine;
use crate::reader::{Found, Reader, quoted};

/// Settings of Redis that are not the user's, and the reason. A `*` at the end stands for any rest.
pub const REDIS_MANAGED: &[(&str, &str)] = &[
    ("acl*", "the agent keeps the accounts"),
    ("aof-use-rdb-preamble", "the agent chooses the format that a restart is proven with"),
    ("append*", "the agent keeps the append-only file on and knows it by its name"),
    ("bind*", "the instance listens where `node.address` says"),
    ("cluster-*", "a group replaces Redis Cluster"),
    ("daemonize", "the agent supervises the process"),
    ("dbfilename", "the agent knows the files of the data folder by their names"),
    ("dir", "this is the instance's `data_dir`"),
    ("include", "what another file says could not be checked"),
    ("logfile", "the agent keeps the server's output"),
    ("master*", "the agent decides who follows whom, and with which password"),
    ("min-replicas-*", "the agent guards the master with it"),
    ("min-slaves-*", "the agent guards the master with it"),
    ("pidfile", "the agent supervises the process"),
    ("port", "this is the instance's `port`"),
    ("propagation-error-behavior", "the copies would part silently"),
    ("protected-mode", "peers and proxies connect from other machines; `password_file` protects"),
    ("rename-command", "the agent needs the commands by their names"),
    ("repl-disable-tcp-nodelay", "acknowledgements must not wait"),
    ("repl-backlog-ttl", "a copy that was away must be able to go on where it was"),
    ("repl-diskless-*", "the agent chooses how copies are cloned"),
    ("repl-ping-*", "the agent tells a silent link by it"),
    ("repl-timeout", "the agent tells a silent link by itself"),
    ("replica-announce*", "others reach the instance at `node.address`"),
    ("replica-ignore-disk-write-errors", "the copies would part silently"),
    ("replica-ignore-maxmemory", "the copies would part silently"),
    ("replica-priority", "this is the instance's `priority`"),
    ("replica-read-only", "a copy takes writes from its master alone"),
    ("replica-serve-stale-data", "the agent decides what a cut-off copy serves"),
    ("replicaof", "the agent decides who follows whom"),
    ("requirepass", "this is the instance's `password_file`"),
    ("save", "the append-only file is what an instance comes back with; snapshots beside it would only cost"),
    ("slave*", "the agent decides who follows whom"),
    ("supervised", "the agent supervises the process"),
    ("tls-*", "agents and proxies do not speak TLS to instances"),
    ("unixsocket*", "everything comes through `port`"),
    ("user", "the agent keeps the accounts"),
];

/// Settings of PostgreSQL that are not the user's, and the reason. A `*` at the end stands for any rest.
pub const POSTGRES_MANAGED: &[(&str, &str)] = &[
    ("archive_cleanup_command", "copies are fed by each other"),
    ("cluster_name", "the agent names the links between copies"),
    ("config_file", "the agent writes it"),
    ("data_directory", "this is the instance's `data_dir`"),
    ("data_sync_retry", "a write that may have missed the disk must not be taken for one that has not"),
    ("external_pid_file", "the agent supervises the process"),
    ("fsync", "an acknowledged commit must be on disk"),
    ("full_page_writes", "a crash must not leave half a page"),
    ("hba_file", "the agent decides who may connect; `password_file` protects"),
    ("hot_standby", "the agent reads the marker of a copy, and readers may use it"),
    ("ident_file", "the agent decides who may connect; `password_file` protects"),
    ("include*", "what another file says could not be checked"),
    ("listen_addresses", "the instance listens where `node.address` says"),
    ("log_destination", "the agent keeps the server's output"),
    ("logging_collector", "the agent keeps the server's output"),
    ("port", "this is the instance's `port`"),
    ("primary_*", "the agent decides who follows whom"),
    ("promote_trigger_file", "the agent decides who is promoted"),
    ("recovery_*", "the agent decides who follows whom"),
    ("restart_after_crash", "the agent supervises the process"),
    ("restore_command", "copies are fed by each other"),
    ("standby_mode", "the agent decides who follows whom"),
    ("synchronous_standby_names", "the agent says who must have a commit before it is acknowledged"),
    ("unix_socket_*", "the agent connects there"),
    ("wal_keep_segments", "write `wal_keep_size`"),
    ("wal_log_hints", "a former master is rewound by it"),
    ("wal_receiver_*", "the agent tells a silent link by it"),
    ("wal_retrieve_retry_interval", "the agent tells a silent link by it"),
    ("wal_sender_timeout", "the agent tells a silent link by it"),
    ("zero_damaged_pages", "damage must not spread silently"),
    ("ignore_checksum_failure", "damage must not spread silently"),
];

/// Settings of MariaDB that are not the user's, and the reason. A `*` at the end stands for any rest.
pub const MARIADB_MANAGED: &[(&str, &str)] = &[
    ("basedir", "set the instance's `bin` instead"),
    ("bind_address", "the instance listens where `node.address` says"),
    ("binlog_do*", "a copy is told everything"),
    ("binlog_format", "copies are told rows"),
    ("binlog_i*", "a copy is told everything"),
    ("datadir", "this is the instance's `data_dir`"),
    ("debug_no_sync", "an acknowledged commit must be on disk"),
    ("general_log_file", "the agent keeps the server's output"),
    ("gtid_*", "the agent tells how far a copy has come by it"),
    ("init_file", "the agent sets its accounts up with it"),
    ("init_rpl_role", "the agent decides what a restart rolls back"),
    ("innodb_doublewrite", "a crash must not leave half a page"),
    ("innodb_flush_log_at_trx_commit", "an acknowledged commit must be on disk"),
    ("innodb_force_recovery", "damage must not spread silently"),
    ("innodb_read_only", "the agent decides who takes writes"),
    ("log_basename", "the agent knows the logs by their names"),
    ("log_bin*", "the agent knows the logs by their names"),
    ("log_error", "the agent keeps the server's output"),
    ("log_slave_updates", "a copy must be able to feed others"),
    ("master_*", "the agent decides who follows whom"),
    ("max_connect_errors", "peers and proxies knock without logging in"),
    ("pid_file", "the agent supervises the process"),
    ("port", "this is the instance's `port`"),
    ("read_only", "the agent decides who takes writes"),
    ("relay_*", "what was acknowledged and not applied is in the relay log"),
    ("replicate_*", "a copy holds everything"),
    ("report_*", "others reach the instance at `node.address`"),
    ("rpl_semi_sync_*", "the agent says who must have a commit before it is acknowledged"),
    ("server_id", "the agent draws one for each run"),
    ("skip_log_bin", "copies are fed by the binary log"),
    ("skip_grant_tables", "the agent keeps the accounts"),
    ("skip_name_resolve", "peers and proxies knock without logging in"),
    ("skip_networking", "peers and proxies connect from other machines"),
    ("skip_slave_start", "the agent decides who follows whom"),
    ("slave_exec_mode", "the copies would part silently"),
    ("slave_net_timeout", "the agent tells a silent link by it"),
    ("slave_skip_errors", "the copies would part silently"),
    ("slave_sql_verify_checksum", "damage must not spread silently"),
    ("socket", "the agent connects there"),
    ("sync_binlog", "an acknowledged commit must be on disk"),
    ("sync_master_info", "a copy must know after a crash whom it followed"),
    ("sync_relay_log*", "an acknowledged commit must be on disk"),
    ("tc_heuristic_recover", "the agent decides what a restart rolls back"),
    ("user", "the agent runs the server as a user that it chooses"),
    ("wsrep_*", "a group replaces Galera"),
];

/// What MariaDB takes before the name of a setting ("Configuring MariaDB with Option Files", "Option Prefixes").
const MARIADB_PREFIXES: [&str; 6] = ["autoset_", "disable_", "enable_", "loose_", "maximum_", "skip_"];

/// How many databases a user may have. The agent adds one for its marker, and each costs memory when it is empty.
const DATABASES: std::ops::RangeInclusive<u32> = 1..=1000;

/// Each copy takes one of PostgreSQL's senders, and while it is cloned two more.
const LEAST_SENDERS: u32 = 5;

/// A smaller backlog, in bytes, would make every short interruption a full copy.
const LEAST_BACKLOG: u64 = 1 << 20;

/// Refuses a setting that is not the user's, or a value that an engine's file cannot hold.
pub(crate) fn check(reader: &Reader<'_>, setting: &Found<(String, String)>, engine: Option<Engine>) {
    let (name, value) = &setting.value;
    let verdict = well_formed(name, value).and_then(|()| match engine {
        Some(Engine::Redis) => check_redis(name, value),
        Some(Engine::Postgres) => check_postgres(name, value),
        Some(Engine::Mariadb) => check_mariadb(name, value),
        None => Ok(()),
    });
    if let Err(message) = verdict {
        reader.fault(&setting.key, setting.place, message);
    }
}

fn well_formed(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err("is not a setting's name; write letters, digits, -, _ and .".to_owned());
    }
    // A line's end would begin another setting, which nobody has checked.
    if value.chars().any(char::is_control) {
        return Err("holds a line's end or another control character; write it in one line".to_owned());
    }
    Ok(())
}

fn check_redis(name: &str, value: &str) -> Result<(), String> {
    // Redis takes names in any case.
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "appendfsync" => check_appendfsync(value),
        "no-appendfsync-on-rewrite" if value.eq_ignore_ascii_case("yes") => {
            Err("lets acknowledged writes miss the disk while the file is rewritten; leave it out".to_owned())
        }
        "client-output-buffer-limit" if value.to_ascii_lowercase().contains("replica") => {
            Err("limits what a copy may lag, and cuts it off in the middle; leave `replica` out".to_owned())
        }
        "databases" => check_databases(value),
        "repl-backlog-size" => check_backlog(value),
        _ => managed(REDIS_MANAGED, &name),
    }
}

/// Refuses a setting of PostgreSQL that is not the user's, or would break what the agent promises.
///
/// # Errors
///
/// When it is refused: why, and what to do.
pub fn check_postgres(name: &str, value: &str) -> Result<(), String> {
    let (name, value) = (name.to_ascii_lowercase(), value.to_ascii_lowercase());
    match (name.as_str(), value.as_str()) {
        ("synchronous_commit", "on" | "remote_apply") | ("wal_level", "replica" | "logical") => Ok(()),
        ("synchronous_commit", _) => {
            Err("would let commits be acknowledged that the hot replica does not have on its disk; write \"on\" or \
                 \"remote_apply\""
                .to_owned())
        }
        ("wal_level", _) => Err("leaves out what copies need; write \"replica\" or \"logical\"".to_owned()),
        ("max_wal_senders", number) if !number.parse::<u32>().is_ok_and(|n| n >= LEAST_SENDERS) => {
            Err(format!("leaves no room for the copies and their clones; write {LEAST_SENDERS} or more"))
        }
        _ => managed(POSTGRES_MANAGED, &name),
    }
}

fn check_mariadb(name: &str, value: &str) -> Result<(), String> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    // The server takes each of these before any name, and some of them twice.
    let mut bare = name.as_str();
    while let Some(rest) = MARIADB_PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
        managed(MARIADB_MANAGED, bare)?;
        bare = rest;
    }
    let unsafe_flush = ["nosync", "o_direct_no_fsync"].contains(&value.to_ascii_lowercase().as_str());
    if bare == "innodb_flush_method" && unsafe_flush {
        return Err(
            "would let commits be acknowledged that are not on disk; write \"O_DIRECT\" or \"fsync\"".to_owned()
        );
    }
    managed(MARIADB_MANAGED, bare)
}

/// Refuses a setting that is in the list.
fn managed(list: &[(&str, &str)], name: &str) -> Result<(), String> {
    match list.iter().find(|(pattern, _)| matches(pattern, name)) {
        Some((_, reason)) => Err(format!("is not yours to set: {reason}; leave it out")),
        None => Ok(()),
    }
}

fn check_appendfsync(value: &str) -> Result<(), String> {
    match value.to_ascii_lowercase().as_str() {
        "everysec" | "always" => Ok(()),
        "no" => {
            Err("\"no\" leaves the disk to chance, so a restart could not be proven complete; write \"everysec\" or \
                     \"always\""
                .to_owned())
        }
        _ => Err(format!("{} is no such policy; write \"everysec\" or \"always\"", quoted(value))),
    }
}

fn check_databases(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(number) if DATABASES.contains(&number) => Ok(()),
        _ => Err(format!(
            "{} is no number of databases; write a whole number from {} to {}",
            quoted(value),
            DATABASES.start(),
            DATABASES.end()
        )),
    }
}

/// Reads a size as Redis does: `1k` is 1000, `1kb` is 1024.
fn check_backlog(value: &str) -> Result<(), String> {
    let text = value.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: Option<u64> = match &text[digits.len()..] {
        "" | "b" => Some(1),
        "k" => Some(1000),
        "kb" => Some(1 << 10),
        "m" => Some(1_000_000),
        "mb" => Some(1 << 20),
        "g" => Some(1_000_000_000),
        "gb" => Some(1 << 30),
        _ => None,
    };
    match unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit)) {
        Some(size) if size >= LEAST_BACKLOG => Ok(()),
        Some(_) => Err(format!(
            "{} is too small: every short interruption would be a full copy; write 1mb or more",
            quoted(value)
        )),
        None => Err(format!("{} is no size; write a whole number with kb, mb or gb", quoted(value))),
    }
}

/// Whether `name`, in small letters, is one of the settings of such a list.
pub fn is_managed(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(pattern, _)| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// What stands at both ends of a hash tag.
pub(crate) fn parse_hash_tag(text: &str) -> Result<(char, char), String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some(open), Some(close), None) if open.is_ascii_graphic() && close.is_ascii_graphic() => Ok((open, close)),
        _ => Err(format!("{} is no hash tag; write the two characters around it, such as \"{{}}\"", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mariadb_takes_names_in_many_ways() {
        for name in
            ["binlog_do_db", "loose-replicate-ignore-db", "LOOSE_SKIP_LOG_BIN", "binlog-ignore-db", "skip_grant_tables"]
        {
            assert!(check_mariadb(name, "x").is_err(), "{name}");
        }
        for name in
            ["binlog_row_image", "loose_innodb_buffer_pool_size", "skip_external_locking", "slave_parallel_threads"]
        {
            assert_eq!(check_mariadb(name, "1"), Ok(()), "{name}");
        }
        assert!(check_mariadb("innodb_flush_method", "nosync").is_err());
        assert_eq!(check_mariadb("innodb-flush-method", "O_DIRECT"), Ok(()));
    }

    #[test]
    fn what_the_agent_manages_is_refused_with_the_reason() {
        for name in [
            "replicaof",
            "slaveof",
            "save",
            "repl-backlog-ttl",
            "port",
            "bind",
            "dir",
            "requirepass",
            "masterauth",
            "masteruser",
            "user",
            "aclfile",
            "appendonly",
            "appendfilename",
            "appenddirname",
            "min-replicas-to-write",
            "min-slaves-max-lag",
            "replica-read-only",
            "slave-read-only",
            "replica-serve-stale-data",
            "rename-command",
            "include",
            "unixsocket",
            "unixsocketperm",
            "daemonize",
            "supervised",
            "pidfile",
            "logfile",
            "cluster-enabled",
            "replica-announce-ip",
            "repl-ping-replica-period",
            "propagation-error-behavior",
            "REPLICAOF",
            "tls-port",
        ] {
            assert!(check_redis(name, "x").unwrap_err().contains("not yours to set: "), "{name}");
        }
        for name in ["maxmemory", "maxmemory-policy", "maxclients", "hz", "userx"] {
            assert_eq!(check_redis(name, "1"), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_makes_postgres_forget_is_refused() {
        for (name, value, good) in [
            ("fsync", "off", false),
            ("FSYNC", "on", false),
            ("primary_conninfo", "host=x", false),
            ("synchronous_standby_names", "", false),
            ("recovery_target_time", "now", false),
            ("synchronous_commit", "on", true),
            ("synchronous_commit", "Remote_Apply", true),
            ("synchronous_commit", "off", false),
            ("wal_level", "logical", true),
            ("wal_level", "minimal", false),
            ("max_wal_senders", "2", false),
            ("max_wal_senders", "0x2", false),
            ("max_wal_senders", "20", true),
            ("shared_buffers", "1GB", true),
            ("pg_stat_statements.track", "all", true),
        ] {
            assert_eq!(check_postgres(name, value).is_ok(), good, "{name} {value}");
        }
    }

    #[test]
    fn some_values_are_refused() {
        for (name, value, good) in [
            ("appendfsync", "everysec", true),
            ("appendfsync", "always", true),
            ("appendfsync", "no", false),
            ("appendfsync", "sometimes", false),
            ("repl-backlog-size", "1mb", true),
            ("repl-backlog-size", "64MB", true),
            ("repl-backlog-size", "1m", false),
            ("repl-backlog-size", "512kb", false),
            ("repl-backlog-size", "lots", false),
            ("repl-backlog-size", "99999999999gb", false),
            ("client-output-buffer-limit", "normal 0 0 0", true),
            ("client-output-buffer-limit", "replica 1mb 1mb 1", false),
            ("no-appendfsync-on-rewrite", "yes", false),
            ("no-appendfsync-on-rewrite", "no", true),
            ("databases", "1", true),
            ("databases", "1000", true),
            ("databases", "0", false),
            ("databases", "1001", false),
            ("databases", "many", false),
        ] {
            assert_eq!(check_redis(name, value).is_ok(), good, "{name} {value}");
        }
        assert!(well_formed("save", "1 2\nreplicaof x 1").is_err());
        assert!(well_formed("a b", "1").is_err());
    }

    #[test]
    fn a_hash_tag_is_two_characters() {
        assert_eq!(parse_hash_tag("{}"), Ok(('{', '}')));
        for text in ["", "{", "{x}", "{\u{e9}"] {
            assert!(parse_hash_tag(text).is_err(), "{text}");
        }
    }
}
