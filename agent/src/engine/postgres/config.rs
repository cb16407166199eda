//! The files that a PostgreSQL is started with: our defaults, the user's settings, what must be ours, and what changes
//! while it runs.
//!
//! They lie beside the server's own folder, not in it: what is copied or rewound from another instance replaces none of
//! them.

use std::collections::BTreeMap;
use std::path::Path;

use election::{Address, Nonce, Secret};

/// The superuser: clients' administrators, and the agent itself over its own socket.
pub(super) const SUPERUSER: &str = "postgres";

/// Whoever is certified replicates with it: its password is another for each certificate.
pub(super) const HOT: &str = "understudy_hot";

/// Whoever is not: its password is the group's, since a copy cannot change accounts.
pub(super) const CHAIN: &str = "understudy_chain";

/// The name of a standby that nobody has: with it every commit waits.
pub(super) const NOBODY: &str = "understudy_nobody";

/// How long a standby's name may be: PostgreSQL cuts it there.
const NAME_BYTES: usize = 63;

/// How much of a channel's name is part of a standby's: as good as the whole to tell one from another.
const NONCE_CHARS: usize = 16;

/// What the user may set otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    // What a copy may miss and still go on without a clone. Disk is taken only as it fills.
    ("wal_keep_size", "1GB"),
    // The same for one that has a slot, which keeps no more than that copy lacks. A copy that never comes back must not fill
    // the disk.
    ("max_slot_wal_keep_size", "4GB"),
    ("max_wal_senders", "10"),
    ("synchronous_commit", "on"),
    ("wal_level", "replica"),
    // A reader on a copy must not hold up a takeover.
    ("max_standby_streaming_delay", "1s"),
    ("max_standby_archive_delay", "1s"),
    ("hot_standby_feedback", "on"),
    // Two are the agent's own.
    ("superuser_reserved_connections", "5"),
];

/// What must be as it is; `config::POSTGRES_MANAGED` says why a user cannot have it otherwise.
const OURS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("wal_log_hints", "on"),
    ("hot_standby", "on"),
    ("restart_after_crash", "off"),
    ("recovery_target_timeline", "latest"),
    ("restore_command", ""),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    // A silent copy is told by its age, in whole seconds.
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "10s"),
    ("wal_sender_timeout", "10s"),
    ("wal_retrieve_retry_interval", RETRY),
];

/// How soon a link that failed is tried again.
const RETRY: &str = "100ms";

/// What the generated file is made of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    /// The instance's folder; the server's own is below.
    pub(super) folder: &'a Path,
    pub(super) settings: &'a BTreeMap<String, String>,
}

/// The main file.
pub(super) fn generate(plan: &Plan) -> String {
    let mut lines = vec!["# Written by understudy at every start of the database: changes are lost.".to_owned()];
    let user = |key: &str| plan.settings.keys().any(|k| k.eq_ignore_ascii_case(key));
    let line = |key: &str, value: &str| format!("{key} = {}", quote(value));
    lines.extend(DEFAULTS.iter().filter(|(key, _)| !user(key)).map(|(key, value)| line(key, value)));
    lines.extend(plan.settings.iter().map(|(key, value)| line(key, value)));
    lines.extend(OURS.iter().map(|(key, value)| line(key, value)));
    let path = |name: &str| plan.folder.join(name).to_string_lossy().into_owned();
    lines.push(line("listen_addresses", &listen(plan.address)));
    lines.push(line("port", &plan.port.to_string()));
    lines.push(line("unix_socket_directories", &plan.folder.to_string_lossy()));
    lines.push(line("unix_socket_permissions", "0700"));
    lines.push(line("hba_file", &path(HBA)));
    lines.push(line("ident_file", &path(IDENT)));
    lines.push(format!("include {}", quote(&path(LIVE))));
    lines.push(String::new());
    lines.join("\n")
}

/// The main file's name, in the instance's folder.
pub(super) const MAIN: &str = "server.conf";
/// Who may connect.
pub(super) const HBA: &str = "hba.conf";
/// Which users of this machine are the superuser.
pub(super) const IDENT: &str = "ident.conf";
/// What changes while the server runs.
pub(super) const LIVE: &str = "live.conf";
/// The password that the server replicates with.
pub(super) const PASSFILE: &str = "passfile";

/// Always on loopback as well: clients without a password come from there.
fn listen(address: &str) -> String {
    let everywhere = ["0.0.0.0", "::", "*"].contains(&address);
    if everywhere {
        return "*".to_owned();
    }
    let loopback = ["127.0.0.1", "localhost"].contains(&address);
    if loopback { address.to_owned() } else { format!("{address},127.0.0.1") }
}

/// What changes while the server runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Live {
    /// `synchronous_standby_names`.
    pub(super) names: String,
    /// `primary_conninfo`.
    pub(super) source: String,
    /// `primary_slot_name`; empty where the source has none for this copy.
    pub(super) slot: String,
}

impl Live {
    /// A standby of nobody, and should somebody promote it by hand, one that acknowledges nothing.
    pub(super) fn sealed() -> Self {
        Self { names: only(NOBODY), ..Self::default() }
    }

    /// The file. A standby of nobody looks for more of the log at this pace, and says so in its own log each time.
    pub(super) fn text(&self) -> String {
        let pace = if self.source.is_empty() { "5s" } else { RETRY };
        format!(
            "# Written by understudy while the database runs: changes are lost.\nsynchronous_standby_names = {}\n\
             primary_conninfo = {}\nprimary_slot_name = {}\nwal_retrieve_retry_interval = {pace}\n",
            quote(&self.names),
            quote(&self.source),
            quote(&self.slot)
        )
    }
}

/// The setting by which commits wait for the standby of this name alone.
pub(super) fn only(name: &str) -> String {
    format!("FIRST 1 (\"{}\")", name.replace('"', "\"\""))
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    /// Clients.
    pub(super) clients: bool,
    /// Who is certified, and nobody else, may replicate.
    pub(super) exclusive: bool,
}

impl Gate {
    /// A copy: readers are let in, and the copies behind it.
    pub(super) const COPY: Gate = Gate { clients: true, exclusive: false };

    /// What the file says, for an agent that was started anew.
    pub(super) fn read(text: &str) -> Self {
        let says = |start: &str| text.lines().any(|line| line.starts_with(start));
        Self { clients: says("host all all "), exclusive: says(&format!("host replication {HOT} ")) }
    }

    /// The file. `password`: clients need one; else they must come from this machine.
    pub(super) fn text(self, password: bool) -> String {
        let mut lines = vec![
            "# Written by understudy while the database runs: changes are lost.".to_owned(),
            format!("local all {SUPERUSER} peer map=understudy"),
            "local all all reject".to_owned(),
        ];
        let role = if self.exclusive { HOT } else { CHAIN };
        lines.push(format!("host replication {role} all scram-sha-256"));
        lines.push(format!("host postgres {HOT},{CHAIN} all scram-sha-256"));
        lines.push(format!("host all,replication {HOT},{CHAIN} all reject"));
        if self.clients {
            let who = if password { "all scram-sha-256" } else { "samehost trust" };
            lines.push(format!("host all all {who}"));
            lines.push(format!("host replication all {who}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The users of this machine that are the superuser over the agent's own socket: the agent's.
pub(super) fn ident(agent: &str) -> String {
    format!("understudy {} {SUPERUSER}\n", double_quote(agent))
}

/// By these a connection to a machine that is gone ends within seconds.
pub(super) const KEEPALIVES: &str = "keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=3000";

/// Where the server replicates from. The password is in a file: it must not be in what views show.
pub(super) fn source(source: &Address, role: &str, name: &str, passfile: &Path) -> String {
    format!(
        "host={} port={} user={role} passfile={} application_name={name} connect_timeout=2 {KEEPALIVES}",
        source.host,
        source.port,
        conninfo_quote(&passfile.to_string_lossy())
    )
}

/// What [`source`] was made of: the address and the name.
pub(super) fn read_source(text: &str) -> Option<Address> {
    let value = |key: &str| text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    Some(Address::new(value("host")?, value("port")?.parse().ok()?))
}

/// The password file. Above the password it names its channel: an agent that was started anew has to know what its server
/// is called.
pub(super) fn passfile(channel: &Nonce, password: &str) -> String {
    // The server is told which role by the connection; both have passwords without colons or backslashes.
    format!("# {channel}\n*:*:*:*:{password}\n")
}

/// What [`passfile`] was made of.
pub(super) fn read_passfile(text: &str) -> (Nonce, Secret) {
    let value = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default();
    (Nonce::from(value("# ")), Secret::new(value("*:*:*:*:").to_owned()))
}

/// What a standby is called: its own address and its channel.
pub(super) fn standby_name(own: &Address, channel: &Nonce) -> String {
    format!("{own}/{}", short(channel))
}

/// What [`standby_name`] was made of.
pub(super) fn read_standby_name(name: &str) -> Option<(Address, &str)> {
    let (address, channel) = name.rsplit_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((Address::new(host, port.parse().ok()?), channel))
}

/// As much of a channel's name as a standby's holds.
pub(super) fn short(channel: &Nonce) -> &str {
    channel.as_str().get(..NONCE_CHARS).unwrap_or(channel.as_str())
}

/// Whether an address fits into a standby's name.
pub(super) fn fits(own: &Address) -> bool {
    own.to_string().len() + 1 + NONCE_CHARS <= NAME_BYTES
}

/// A text as one value of a configuration file.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn conninfo_quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn double_quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_file_names_its_channel() {
        let text = passfile(&Nonce::from("0123456789abcdef"), "hunter2");
        let (channel, secret) = read_passfile(&text);
        assert_eq!((channel.as_str(), secret.reveal()), ("0123456789abcdef", "hunter2"));
        // One of before has none.
        let (channel, secret) = read_passfile("*:*:*:*:hunter2\n");
        assert_eq!((channel.as_str(), secret.reveal()), ("", "hunter2"));
    }

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_users_settings_stand_between_our_defaults_and_what_is_ours() {
        let settings = settings(&[("Wal_Keep_Size", "2GB"), ("shared_buffers", "1GB"), ("my.text", "it's \\ here")]);
        let plan = Plan { address: "10.0.0.11", port: 5432, folder: Path::new("/data/a b"), settings: &settings };
        let file = generate(&plan);
        for line in [
            "Wal_Keep_Size = '2GB'",
            "shared_buffers = '1GB'",
            "my.text = 'it''s \\\\ here'",
            "listen_addresses = '10.0.0.11,127.0.0.1'",
            "hba_file = '/data/a b/hba.conf'",
            "include '/data/a b/live.conf'",
        ] {
            assert!(file.lines().any(|l| l == line), "{line} is missing in\n{file}");
        }
        assert!(!file.contains("wal_keep_size = '1GB'"));
    }

    /// What the file says last must not be something that a user was let say: he would wonder what became of it.
    #[test]
    fn what_is_ours_is_refused_when_a_user_sets_it() {
        for (key, _) in OURS {
            assert!(::config::is_managed(::config::POSTGRES_MANAGED, key), "{key}");
        }
    }

    #[test]
    fn a_source_is_read_as_it_is_written() {
        let address = Address::new("10.0.0.11", 5432);
        let text = source(&address, HOT, "h:1/n", Path::new("/it's/here"));
        assert_eq!(read_source(&text), Some(address));
        assert!(text.contains("passfile='/it\\'s/here'"), "{text}");
        assert_eq!(read_source(""), None);
    }

    #[test]
    fn a_standbys_name_is_read_as_it_is_written() {
        let own = Address::new("db1.example", 5432);
        let name = standby_name(&own, &Nonce::from("0123456789abcdef0123456789abcdef"));
        assert_eq!(name, "db1.example:5432/0123456789abcdef");
        assert_eq!(read_standby_name(&name), Some((own.clone(), "0123456789abcdef")));
        assert_eq!(read_standby_name("pg_basebackup"), None);
        assert!(fits(&own) && !fits(&Address::new("a".repeat(42), 5432)));
    }

    #[test]
    fn only_who_is_certified_is_let_in_to_an_exclusive_channel() {
        let gate = Gate { clients: false, exclusive: true }.text(true);
        assert!(gate.contains("host replication understudy_hot all scram-sha-256"));
        assert!(!gate.contains("host replication understudy_chain") && !gate.contains("host all all"));
        let open = Gate::COPY.text(false);
        for gate in [Gate::COPY, Gate { clients: false, exclusive: true }] {
            assert_eq!(Gate::read(&gate.text(true)), gate);
        }
        assert!(open.contains("host all all samehost trust") && open.contains("host replication understudy_chain"));
    }
}
