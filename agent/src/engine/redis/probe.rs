//! What a Redis says of itself, read from its answers, which come in as text.

use std::collections::HashMap;
use std::time::Instant;

use election::{Address, Attached, Copying, EngineRole, Incarnation, Lineage, Marker, Nonce, Position, Shown, Status};
use redis::{FromRedisValue, Pipeline, Value};

use super::accounts;
use super::config::BLACK_HOLE;
use super::marker;
use super::tear::Tear;

/// What the agent itself has done to one run of a process: none of it can be read back from the server.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo {
    /// The name of the replication password in force.
    pub(super) channel: Option<Nonce>,
    /// The name of the password it replicates with.
    pub(super) follows_with: Option<Nonce>,
    /// The marker it wrote last, and the position right after.
    pub(super) marked: Option<(Marker, Position)>,
    /// It has put everything on disk since every write is.
    pub(super) synced: bool,
    /// It holds client writes, until then at most.
    pub(super) held_until: Option<Instant>,
    /// Whether the append-only file could be read back.
    pub(super) tear: Tear,
}

impl Memo {
    /// Whether client writes are held.
    pub(super) fn is_held(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }
}

/// All answers of one probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub(super) info: String,
    pub(super) settings: HashMap<String, String>,
    /// A write by a client would be allowed.
    pub(super) open: bool,
    /// The marker's fields.
    pub(super) marker: HashMap<String, String>,
    pub(super) need: Option<String>,
}

/// The one request of a probe. Only what is needed: `INFO everything` costs ten times as much.
pub(super) fn request() -> Pipeline {
    let mut commands = redis::pipe();
    commands.cmd("INFO").arg("server").arg("persistence").arg("replication").arg("keyspace");
    commands.cmd("CONFIG").arg("GET").arg("min-replicas-to-write").arg("appendfsync");
    commands.cmd("ACL").arg("DRYRUN").arg(accounts::CLIENTS).arg("SET").arg("key").arg("value");
    commands.cmd("HGETALL").arg(marker::KEY);
    commands.cmd("GET").arg(marker::NEED);
    commands
}

impl Answers {
    /// Sorts the answers to [`request`]. `None` when there is no `INFO` among them. While the data is being loaded the
    /// last two are errors, and count as nothing there.
    pub(super) fn read(values: Vec<Value>) -> Option<Self> {
        let mut values = values.into_iter();
        let info = text(values.next()?)?;
        Some(Self {
            info,
            settings: map(values.next()?),
            open: matches!(values.next()?, Value::Okay),
            marker: map(values.next()?),
            need: values.next().and_then(text),
        })
    }
}

fn text(value: Value) -> Option<String> {
    Option::<String>::from_redis_value(value).ok().flatten()
}

fn map(value: Value) -> HashMap<String, String> {
    HashMap::from_redis_value(value).unwrap_or_default()
}

/// Puts the answers together. `first_rewrite`: the append-only file is being written for the first time since the data
/// was copied from another instance, so that what is on disk is still the old data.
pub(super) fn status(answers: &Answers, info: &Info, memo: &Memo, marker_database: u32, first_rewrite: bool) -> Status {
    let loading = info.flag("loading") || info.flag("async_loading");
    let role = role(info, memo);
    let found = marker::read(&answers.marker);
    let setting = |key: &str| answers.settings.get(key).map(String::as_str).unwrap_or_default();
    let position = match role {
        EngineRole::Master => info.position("master_repl_offset"),
        EngineRole::Sealed | EngineRole::Follows { .. } => info.position("slave_repl_offset"),
    };
    let marked_at = match (&memo.marked, &found, &role) {
        (Some((written, at)), Some(has), EngineRole::Master) if written == has => Some(*at),
        _ => None,
    };
    Status {
        incarnation: Incarnation(info.text("run_id").to_owned()),
        version: info.version().to_owned(),
        loading,
        empty: !loading && found.is_none() && !info.has_user_keys(marker_database),
        persisted: memo.tear == Tear::Whole && persisted(info, first_rewrite),
        kept: None, // Known to whoever looks at the folder.
        disk_ok: info.text("aof_last_write_status") != "err",
        lineage: Lineage(info.text("master_replid").to_owned()),
        position,
        marked_at,
        marker: found,
        open: answers.open,
        guard: setting("min-replicas-to-write").parse::<u32>().is_ok_and(|n| n > 0),
        fsync: setting("appendfsync") == "always" && memo.synced,
        need: answers.need.as_deref() != Some(marker::NOT_NEEDED),
        quiesced: memo.is_held(),
        channel: memo.channel.clone(),
        replicas: info.replicas(),
        shown: Shown { copying: copying(info), ..Shown::default() },
        role,
    }
}

/// How much of a full copy has arrived. A source that does not store it first does not know how much it will be.
fn copying(info: &Info) -> Option<Copying> {
    let number = |key: &str| u64::try_from(info.number(key)).unwrap_or_default();
    let (bytes, of) = (number("master_sync_read_bytes"), number("master_sync_total_bytes"));
    info.flag("master_sync_in_progress").then(|| Copying { bytes, of: Some(of).filter(|of| *of > 0) })
}

/// Whether the append-only file is being rewritten, for whatever reason.
pub(super) fn is_rewriting(info: &Info) -> bool {
    info.flag("aof_rewrite_in_progress")
}

/// Whether the append-only file is off although nothing is being copied.
pub(super) fn lacks_append_only(status: &Status, info: &Info) -> bool {
    let off = info.text("aof_enabled") == "0";
    off && !status.loading && !matches!(status.role, EngineRole::Follows { .. })
}

/// A rewrite that was asked for may be the first since a copy, so it counts as one; a routine one under way does not:
/// the files from before it are complete until it is done.
fn persisted(info: &Info, first_rewrite: bool) -> bool {
    let ok = |key: &str| info.text(key) == "ok";
    info.flag("aof_enabled")
        && !info.flag("aof_rewrite_scheduled")
        && ok("aof_last_bgrewrite_status")
        && ok("aof_last_write_status")
        && !(info.flag("aof_rewrite_in_progress") && first_rewrite)
}

fn role(info: &Info, memo: &Memo) -> EngineRole {
    if info.text("role") == "master" {
        return EngineRole::Master;
    }
    let port = u16::try_from(info.number("master_port")).unwrap_or_default();
    if (info.text("master_host"), port) == BLACK_HOLE {
        return EngineRole::Sealed;
    }
    EngineRole::Follows {
        source: Address::new(info.text("master_host"), port),
        link_up: info.text("master_link_status") == "up",
        syncing: info.flag("master_sync_in_progress"),
        channel: memo.follows_with.clone(),
    }
}

/// The `key:value` lines of `INFO`: a hundred, of which twenty are looked at, so that hashing all of them costs more than
/// it saves.
pub(super) struct Info<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Info<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.trim_end().split_once(':')).collect())
    }

    /// The value; empty when there is none.
    pub(super) fn text(&self, key: &str) -> &'a str {
        self.0.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| *value)
    }

    /// The value as a number; 0 when there is none.
    pub(super) fn number(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap_or_default()
    }

    /// Whether it is `1`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.text(key) == "1"
    }

    /// Redis says -1 where it has no position.
    fn position(&self, key: &str) -> Position {
        Position(u64::try_from(self.number(key)).unwrap_or_default())
    }

    fn version(&self) -> &'a str {
        match self.text("valkey_version") {
            "" => self.text("redis_version"),
            valkey => valkey,
        }
    }

    /// Whether a database other than the marker's has keys; one without any is not listed.
    fn has_user_keys(&self, marker_database: u32) -> bool {
        let index = |key: &str| key.strip_prefix("db").and_then(|n| n.parse::<u32>().ok());
        self.0.iter().filter_map(|(key, _)| index(key)).any(|n| n != marker_database)
    }

    /// The `slave0`, `slave1`, ... lines, in their order, which is the order in which the replicas attached.
    pub(super) fn replicas(&self) -> Vec<Attached> {
        (0..).map(|n| self.text(&format!("slave{n}"))).take_while(|line| !line.is_empty()).map(attached).collect()
    }
}

fn attached(line: &str) -> Attached {
    let fields: HashMap<&str, &str> = line.split(',').filter_map(|field| field.split_once('=')).collect();
    let text = |key: &str| fields.get(key).copied().unwrap_or_default();
    let number = |key: &str| text(key).parse::<i64>().ok().and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    Attached {
        address: Address::new(text("ip"), text("port").parse().unwrap_or_default()),
        online: text("state") == "online",
        position: Position(number("offset")),
        lag_s: number("lag"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "# Server\r\nredis_version:7.0.15\r\nprocess_id:9521\r\nrun_id:5393e0\r\n";
    const PERSISTENCE: &str = "# Persistence\r\nloading:0\r\nasync_loading:0\r\naof_enabled:1\r\n\
        aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\naof_last_bgrewrite_status:ok\r\n\
        aof_last_write_status:ok\r\n";
    /// Captured from a Redis 7.0.15 right after its start.
    const BLACK_HOLED: &str = "# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\n\
        master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:0\r\n\
        slave_read_repl_offset:1\r\nslave_repl_offset:1\r\nconnected_slaves:0\r\nmaster_replid:c71596\r\n\
        master_repl_offset:0\r\n# Keyspace\r\n";
    const MASTER: &str = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.12,port=6379,state=online,offset=56,lag=0\r\n\
        slave1:ip=db3,port=6380,state=wait_bgsave,offset=0,lag=7\r\n\
        master_replid:722bd3\r\nmaster_repl_offset:70\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\
        db16:keys=2,expires=0,avg_ttl=0\r\n";
    const SYNCING: &str = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.11\r\nmaster_port:6379\r\n\
        master_link_status:down\r\nmaster_sync_in_progress:1\r\nslave_repl_offset:-1\r\nmaster_replid:c71596\r\n";

    fn read(parts: &[&str], memo: &Memo) -> Status {
        let answers = Answers { info: parts.concat(), ..Answers::default() };
        told(&answers, memo, false)
    }

    fn told(answers: &Answers, memo: &Memo, first_rewrite: bool) -> Status {
        status(answers, &Info::read(&answers.info), memo, 16, first_rewrite)
    }

    fn marker() -> (Marker, HashMap<String, String>) {
        let marker = Marker { uid: "u".into(), epoch: 3, nonce: Nonce::from("n"), counter: 9 };
        let fields = marker::fields(&marker).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        (marker, fields)
    }

    #[test]
    fn a_fresh_boot_is_sealed_empty_and_persisted() {
        let status = read(&[SERVER, PERSISTENCE, BLACK_HOLED], &Memo::default());
        assert_eq!(status.role, EngineRole::Sealed);
        assert!(status.empty && status.persisted && !status.loading && status.need && !status.open);
        assert_eq!((status.version.as_str(), status.incarnation.as_str()), ("7.0.15", "5393e0"));
        assert_eq!((status.lineage.as_str(), status.position), ("c71596", Position(1)));
    }

    #[test]
    fn a_master_lists_its_replicas() {
        let status = read(&[SERVER, PERSISTENCE, MASTER], &Memo::default());
        assert!(status.is_master() && !status.empty);
        assert_eq!(status.position, Position(70));
        let seen: Vec<_> =
            status.replicas.iter().map(|r| (r.address.to_string(), r.online, r.position.0, r.lag_s)).collect();
        assert_eq!(seen, [("10.0.0.12:6379".to_owned(), true, 56, 0), ("db3:6380".to_owned(), false, 0, 7)]);
    }

    #[test]
    fn a_position_below_zero_is_none_at_all() {
        let memo = Memo { follows_with: Some(Nonce::from("p")), ..Memo::default() };
        let status = read(&[SERVER, PERSISTENCE, SYNCING], &memo);
        let source = Address::new("10.0.0.11", 6379);
        assert_eq!(status.position, Position(0));
        assert_eq!(
            status.role,
            EngineRole::Follows { source, link_up: false, syncing: true, channel: Some(Nonce::from("p")) }
        );
    }

    #[test]
    fn keys_of_ours_are_not_the_users() {
        let keys = "role:master\r\ndb16:keys=1,expires=0\r\n";
        assert!(read(&[SERVER, PERSISTENCE, keys], &Memo::default()).empty);
        let loading = PERSISTENCE.replace("loading:0", "loading:1");
        let status = read(&[SERVER, &loading, keys], &Memo::default());
        assert!(status.loading && !status.empty, "while it loads nobody knows");
    }

    #[test]
    fn what_a_crash_would_bring_back() {
        for (from, to, persisted) in [
            ("aof_enabled:1", "aof_enabled:0", false),
            ("aof_rewrite_scheduled:0", "aof_rewrite_scheduled:1", false),
            ("aof_last_bgrewrite_status:ok", "aof_last_bgrewrite_status:err", false),
            ("aof_last_write_status:ok", "aof_last_write_status:err", false),
            ("aof_rewrite_in_progress:0", "aof_rewrite_in_progress:1", true),
        ] {
            let info = PERSISTENCE.replace(from, to);
            assert_eq!(read(&[SERVER, &info, MASTER], &Memo::default()).persisted, persisted, "{to}");
        }
        let info = PERSISTENCE.replace("aof_rewrite_in_progress:0", "aof_rewrite_in_progress:1");
        let answers = Answers { info, ..Answers::default() };
        assert!(!told(&answers, &Memo::default(), true).persisted, "the first rewrite since a copy");
    }

    #[test]
    fn the_position_of_the_marker_is_told_only_of_the_marker_that_is_there() {
        let (written, fields) = marker();
        let memo = Memo { marked: Some((written.clone(), Position(60))), ..Memo::default() };
        let mut answers =
            Answers { info: [SERVER, PERSISTENCE, MASTER].concat(), marker: fields, ..Answers::default() };
        let now = told(&answers, &memo, false);
        assert_eq!((now.marker, now.marked_at), (Some(written), Some(Position(60))));
        answers.marker.insert("counter".into(), "10".into());
        assert_eq!(told(&answers, &memo, false).marked_at, None);
        answers.marker.clear();
        let flushed = told(&answers, &memo, false);
        assert_eq!((flushed.marker, flushed.marked_at), (None, None));
    }

    #[test]
    fn need_is_false_only_when_it_says_so() {
        for (need, expected) in [(None, true), (Some("1"), true), (Some(""), true), (Some("0"), false)] {
            let answers = Answers { need: need.map(str::to_owned), ..Answers::default() };
            assert_eq!(told(&answers, &Memo::default(), false).need, expected, "{need:?}");
        }
    }

    #[test]
    fn fsync_takes_the_setting_and_the_flush() {
        let mut answers = Answers::default();
        let synced = Memo { synced: true, ..Memo::default() };
        assert!(!told(&answers, &synced, false).fsync);
        answers.settings = [("appendfsync", "always"), ("min-replicas-to-write", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        assert!(told(&answers, &synced, false).fsync && told(&answers, &synced, false).guard);
        assert!(!told(&answers, &Memo::default(), false).fsync);
    }
}
