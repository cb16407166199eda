//! The configuration that a server is started with: our defaults, the user's settings, and then what must be ours.

use std::collections::BTreeMap;
use std::path::Path;

/// What the user may set otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    // A former master's last writes are kept by copying its last two files of the binary log.
    ("max_binlog_size", "64M"),
    ("binlog_expire_logs_seconds", "604800"),
    ("character_set_server", "utf8mb4"),
    // Above this the log has a line for each knock of a peer or proxy.
    ("log_warnings", "1"),
];

/// What must be as it is. `config::MARIADB_MANAGED` says why to a user who sets one of them.
const OURS: &[(&str, &str)] = &[
    // Everything that decides about acknowledgements.
    ("rpl_semi_sync_master_enabled", "OFF"), // The agent switches it on for a master.
    ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
    // Ten years: it never gives up waiting, whatever the wall clock does.
    ("rpl_semi_sync_master_timeout", "315360000000"),
    ("rpl_semi_sync_master_wait_no_slave", "ON"),
    // Only who knows a master's exclusive channel can acknowledge, so that every copy may have it on.
    ("rpl_semi_sync_slave_enabled", "ON"),
    // A link's end waits no longer than this for a source that is frozen, in seconds; 0 would be for ever.
    ("rpl_semi_sync_slave_kill_conn_timeout", "1"),
    // What is acknowledged is on disk.
    ("sync_binlog", "1"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("innodb_doublewrite", "ON"),
    ("sync_relay_log", "1"),
    ("sync_relay_log_info", "1"),
    ("sync_master_info", "1"),
    // One history, told apart by its ids.
    ("log_bin", "binlog"),
    ("log_bin_index", "binlog.index"),
    ("relay_log", "relay"),
    ("relay_log_index", "relay.index"),
    ("log_slave_updates", "ON"),
    ("gtid_domain_id", "0"),
    ("gtid_strict_mode", "ON"),
    ("binlog_format", "ROW"),
    // What was received and acknowledged is applied after a crash, never fetched again.
    ("relay_log_recovery", "OFF"),
    ("relay_log_purge", "ON"),
    // A copy that lacks a row says so.
    ("slave_exec_mode", "STRICT"),
    // It boots harmless.
    ("read_only", "ON"),
    ("skip_slave_start", "ON"),
    // Silence of a master is told from idleness; a lost link is tried again at once, and for ever.
    ("slave_net_timeout", "4"),
    ("master_retry_count", "4294967295"),
    // Peers and proxies knock without logging in.
    ("skip_name_resolve", "ON"),
    ("max_connect_errors", "4294967295"),
];

/// What the generated file is made of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    /// Several addresses can be listened on (10.11 and newer).
    pub(super) several: bool,
    pub(super) server_folder: &'a Path,
    pub(super) socket: &'a Path,
    pub(super) init_file: &'a Path,
    pub(super) server_id: u32,
    pub(super) settings: &'a BTreeMap<String, String>,
}

/// The whole file.
pub(super) fn generate(plan: &Plan) -> String {
    let mut lines = vec![
        "# Written by understudy at every start of the database: changes are lost.".to_owned(),
        "[mariadbd]".to_owned(),
    ];
    for (key, value) in DEFAULTS {
        if !plan.settings.keys().any(|set| normal(set) == *key) {
            lines.push(format!("{key} = {value}"));
        }
    }
    lines.extend(plan.settings.iter().map(|(key, value)| format!("{key} = {}", quote(value))));
    lines.extend(OURS.iter().map(|(key, value)| format!("{key} = {value}")));
    let path = |key: &str, path: &Path| format!("{key} = {}", quote(&path.to_string_lossy()));
    lines.push(path("datadir", plan.server_folder));
    lines.push(path("socket", plan.socket));
    lines.push(path("pid_file", &plan.server_folder.join("mariadbd.pid")));
    lines.push(path("init_file", plan.init_file));
    lines.push(format!("port = {}", plan.port));
    lines.push(format!("bind_address = {}", bind(plan.address, plan.several)));
    lines.push(format!("report_host = {}", plan.address));
    lines.push(format!("report_port = {}", plan.port));
    lines.push(format!("server_id = {}", plan.server_id));
    lines.push(String::new());
    lines.join("\n")
}

/// A value in which nothing is a comment or an escape.
pub(super) fn quote(value: &str) -> String {
    let escaped: String =
        value.chars().flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] }).collect();
    format!("\"{escaped}\"")
}

/// A setting's name in the form that the lists here have.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Where the server listens: where possible on loopback as well, where clients without a password come from.
fn bind(address: &str, several: bool) -> String {
    if several && !matches!(address, "127.0.0.1" | "localhost" | "::1") {
        format!("{address},127.0.0.1")
    } else {
        address.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        generate(&Plan {
            address: "10.0.0.11",
            port: 3306,
            several: true,
            server_folder: Path::new("/data/x"),
            socket: Path::new("/data/s"),
            init_file: Path::new("/data/i"),
            server_id: 7,
            settings: &settings,
        })
    }

    #[test]
    fn it_boots_harmless_and_ours_comes_last() {
        let file = file(&[("Max-Binlog-Size", "1M"), ("innodb_buffer_pool_size", "64M")]);
        assert!(file.contains("read_only = ON") && file.contains("skip_slave_start = ON"));
        assert!(file.contains("bind_address = 10.0.0.11,127.0.0.1"));
        assert!(file.contains("Max-Binlog-Size = \"1M\"") && !file.contains("max_binlog_size = 64M"));
        let place = |text: &str| file.find(text).unwrap();
        assert!(place("innodb_buffer_pool_size") < place("sync_binlog = 1"));
    }

    #[test]
    fn a_value_is_one_whatever_stands_in_it() {
        assert!(
            file(&[("init_connect", r#"SET @a = "\x" # no"#)]).contains(r##"init_connect = "SET @a = \"\\x\" # no""##)
        );
    }

    #[test]
    fn what_is_ours_is_refused_when_a_user_sets_it() {
        let refused = |key: &str| ::config::is_managed(::config::MARIADB_MANAGED, key);
        for (key, _) in OURS {
            assert!(refused(key), "{key}");
        }
        for key in ["datadir", "socket", "pid_file", "init_file", "port", "bind_address", "report_host", "server_id"] {
            assert!(refused(key), "{key}");
        }
        for (key, _) in DEFAULTS {
            assert!(!refused(key), "{key}");
        }
    }
}
