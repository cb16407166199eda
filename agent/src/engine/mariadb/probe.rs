//! What a server says of itself, and what that makes of the instance.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use election::{
    Address, Attached, EngineRole, Incarnation, Lineage, LogPlace, Marker, Nonce, Position, Secret, Shown, Status,
};

use super::gtid;
use super::sql::{Answer, Link};
use super::{accounts, files, marker};

/// Schemas that a server has by itself.
const SYSTEM_SCHEMAS: [&str; 5] = ["mysql", "information_schema", "performance_schema", "sys", marker::SCHEMA];

/// What the SQL thread says when it waits for more, word for word in every version from 10.6 on.
const ALL_APPLIED: &str = "Slave has read all relay log";

/// The server's word that a fatal error ended a copy's receiving: its source does not have what it asks for.
const NOT_IN_BINLOG: u32 = 1236;

/// The server's words that an event which a copy received is broken: its sum is wrong, or it could not be taken over into
/// the relay log.
const BROKEN_EVENT: [u32; 2] = [1743, 1595];

/// So often one and the same event is asked for: then it is its source's log that is broken, not what brought it.
const ASKED_FOR: u32 = 3;

/// Between two times.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The server's word that an event of the relay log is not whole.
const TORN_RELAY_LOG: u32 = 1594;

/// What the agent itself has done to one run of a process.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// What an earlier run had received was seen to.
    pub(super) begun: bool,
    /// It was promoted and not fenced since.
    pub(super) master: bool,
    /// The name of the replication password in force.
    pub(super) channel: Option<Nonce>,
    /// Whom it was told to follow, and has not been sealed since.
    pub(super) follows: Option<Address>,
    /// The thread that received was ended: the server may list it for a while, but it receives and acknowledges nothing.
    pub(super) cut: bool,
    /// The password it replicates with.
    pub(super) follows_with: Option<(Nonce, Secret)>,
    /// The marker it wrote last, and the position right after.
    pub(super) marked: Option<(Marker, Position)>,
    /// `async` groups: the guard was asked for. There is none.
    pub(super) guard: bool,
    /// The connection that holds clients' writes.
    pub(super) held: Option<Link>,
    /// The transactions that ran when writes were first to be held.
    pub(super) draining: Option<BTreeSet<String>>,
    /// What the hot replica has acknowledged.
    pub(super) acks: Acks,
    /// Why the data cannot go on from where it is, when that is known.
    pub(super) stuck: Option<Stuck>,
    /// The data may lack what was acknowledged: part of a relay log could not be read, or not be applied.
    pub(super) untrusted: bool,
    /// What an earlier run had received is being applied.
    pub(super) resting: bool,
    /// By how many threads a copy is to apply when that is done, if not by one.
    pub(super) parallel_threads: Option<u64>,
    /// What the copy could not take over of its source's log.
    pub(super) refused: Option<Refused>,
    /// The master's disk had no room, and it has written nothing since: MariaDB looks for room once a minute.
    pub(super) out_of_room: bool,
}

/// A place in a source's log whose event cannot be received.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    place: Option<LogPlace>,
    times: u32,
    at: Instant,
}

impl Memo {
    /// Whether the copy's receiving, which has ended by an event that it could not take over, is to be tried again.
    pub(super) fn asks_again(&mut self, follows: Option<&Follows>) -> bool {
        let Some(follows) = follows.filter(|_| self.follows.is_some() && !self.cut) else { return false };
        if follows.is_receiving() || !BROKEN_EVENT.contains(&follows.receive_error.0) {
            return false;
        }
        let before = self.refused.as_ref().filter(|before| before.place == follows.log);
        if before.is_some_and(|before| before.times >= ASKED_FOR || before.at.elapsed() < ASK_AGAIN) {
            return false;
        }
        let times = before.map_or(0, |before| before.times) + 1;
        self.refused = Some(Refused { place: follows.log.clone(), times, at: Instant::now() });
        times < ASKED_FOR
    }

    /// Whether the event that a copy needs next cannot be had from its source.
    fn is_refused(&self, follows: &Follows) -> bool {
        let refused = self.refused.as_ref().filter(|refused| refused.place == follows.log);
        !follows.is_receiving()
            && BROKEN_EVENT.contains(&follows.receive_error.0)
            && refused.is_some_and(|refused| refused.times >= ASKED_FOR)
    }
}

/// Why a copy does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It may be replaced: nothing in it is worth keeping, or what is has been kept.
    Replaceable(String),
    /// It holds transactions that nobody else has, and no agent knows why.
    Errant(String),
}

/// When the hot replica last acknowledged something, as far as it can be told.
#[derive(Debug, Default)]
pub(super) struct Acks {
    count: u64,
    /// The server's counter when it was last looked at; it began with the server.
    unanswered: Option<u64>,
    at: Option<Instant>,
    /// Where the binary log stood when nothing waited.
    position: Position,
    /// The server has let commits through without an acknowledgement since it was told to wait for one.
    pub(super) leaked: bool,
}

impl Acks {
    /// Another copy is waited for from here on.
    pub(super) fn begin(&mut self) {
        (self.leaked, self.at) = (false, None);
    }

    /// Whether commits have been let through since it was last looked.
    fn leaks(&self, sync: &SemiSync) -> bool {
        sync.enabled && (!sync.active || self.unanswered.is_some_and(|before| sync.unanswered > before))
    }

    /// Whether the server holds commits that it let through, as it says now.
    pub(super) fn has_leaked(&self, answers: &Answers) -> bool {
        self.leaked || self.leaks(&answers.semi_sync)
    }

    /// Takes in what a master says; whether it has just let commits through unasked.
    fn take_in(&mut self, answers: &Answers, now: Instant) -> bool {
        let sync = &answers.semi_sync;
        if !sync.enabled {
            // What the counters say from here on concerns nobody.
            *self = Self { unanswered: Some(sync.unanswered), position: answers.written(), ..Self::default() };
            return false;
        }
        let leak = self.leaks(sync);
        self.unanswered = Some(sync.unanswered);
        let news = leak && !self.leaked;
        self.leaked |= leak;
        let acknowledges = !self.leaked && (sync.waiting == 0 || sync.acknowledged != self.count);
        if acknowledges || self.at.is_none() {
            self.at = Some(now);
        }
        if acknowledges && sync.waiting == 0 {
            self.position = answers.written();
        }
        self.count = sync.acknowledged;
        news
    }
}

/// The counters of semi-synchronous replication.
#[derive(Debug, Clone, Default)]
pub(super) struct SemiSync {
    /// It is switched on.
    pub(super) enabled: bool,
    /// It is in force.
    pub(super) active: bool,
    /// Commits that wait.
    pub(super) waiting: u64,
    /// Acknowledgements that arrived.
    acknowledged: u64,
    /// Commits that did not wait for one.
    unanswered: u64,
}

/// What the server says of the copy that it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Follows {
    pub(super) source: Address,
    user: String,
    /// `No`, `Connecting` or `Yes`.
    receiving: String,
    pub(super) applying: bool,
    pub(super) received: String,
    pub(super) by_gtid: bool,
    pub(super) all_applied: bool,
    receive_error: (u32, String),
    apply_error: (u32, String),
    /// How far in its source's log it has received.
    log: Option<LogPlace>,
    pub(super) relay_file: String,
    pub(super) relay_position: u64,
}

impl Follows {
    /// Reads a row of `SHOW SLAVE STATUS`.
    pub(super) fn from_row(row: &Answer) -> Self {
        let text = |key: &str| row.get(key).cloned().unwrap_or_default();
        let number = |key: &str| row.get(key).and_then(|v| v.parse().ok()).unwrap_or_default();
        let source = Address::new(text("Master_Host"), u16::try_from(number("Master_Port")).unwrap_or_default());
        let error = |code: &str, words: &str| (u32::try_from(number(code)).unwrap_or_default(), text(words));
        Self {
            source,
            user: text("Master_User"),
            receiving: text("Slave_IO_Running"),
            applying: text("Slave_SQL_Running") == "Yes",
            received: text("Gtid_IO_Pos"),
            by_gtid: text("Using_Gtid") != "No",
            all_applied: text("Slave_SQL_Running_State").starts_with(ALL_APPLIED),
            receive_error: error("Last_IO_Errno", "Last_IO_Error"),
            apply_error: error("Last_SQL_Errno", "Last_SQL_Error"),
            log: files::log_number(&text("Master_Log_File")).map(|file| LogPlace {
                file,
                offset: number("Read_Master_Log_Pos"),
                before: Vec::new(),
            }),
            relay_file: text("Relay_Log_File"),
            relay_position: number("Relay_Log_Pos"),
        }
    }

    /// Why it applies no more, in the server's words.
    pub(super) fn apply_error(&self) -> &str {
        if self.apply_error.0 == 0 { "it was stopped" } else { &self.apply_error.1 }
    }

    /// Its thread that receives runs, whether it has a connection or not.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving != "No"
    }

    /// It applies nothing any more: of a server that was promoted this is what is left to be forgotten.
    fn is_over(&self) -> bool {
        !self.applying
    }

    /// The same, and its thread that received has ended.
    pub(super) fn can_be_forgotten(&self) -> bool {
        self.is_over() && !self.is_receiving()
    }

    /// What it was configured with is the account of this channel.
    pub(super) fn logs_in_by(&self, channel: &Nonce) -> bool {
        self.user == accounts::replica(channel)
    }
}

/// All answers of one probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub(super) version: String,
    pub(super) read_only: bool,
    pub(super) binlog_pos: String,
    pub(super) slave_pos: String,
    pub(super) semi_sync: SemiSync,
    pub(super) follows: Option<Follows>,
    pub(super) marker: Option<Marker>,
    /// Who has announced himself as a replica.
    pub(super) hosts: BTreeSet<Address>,
    /// There are schemas that a new server does not have.
    pub(super) has_schemas: bool,
}

impl Answers {
    /// Asks for all of them.
    pub(super) async fn ask(link: &mut Link) -> Result<Self, sqlx::Error> {
        let row = link
            .ask_one(
                "SELECT VERSION() AS version, @@global.read_only AS read_only, @@global.gtid_binlog_pos AS binlog_pos, \
                 @@global.gtid_slave_pos AS slave_pos, @@global.rpl_semi_sync_master_enabled AS semi_sync",
            )
            .await?;
        let text = |key: &str| row.get(key).cloned().unwrap_or_default();
        let counters = link.ask("SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_master\\_%'").await?;
        let follows = link.ask("SHOW SLAVE STATUS").await?.first().map(Follows::from_row);
        let marker = marker::read(link).await?;
        let hosts = link.ask("SHOW SLAVE HOSTS").await?;
        let empty = marker.is_none() && text("binlog_pos").is_empty() && text("slave_pos").is_empty();
        let has_schemas = !empty || has_schemas(link).await?;
        let version = text("version").split('-').next().unwrap_or_default().to_owned();
        Ok(Self {
            version,
            read_only: text("read_only") != "0",
            binlog_pos: text("binlog_pos"),
            slave_pos: text("slave_pos"),
            semi_sync: SemiSync::read(text("semi_sync") == "1", &counters),
            follows,
            marker,
            hosts: hosts.iter().filter_map(address).collect(),
            has_schemas,
        })
    }

    /// How far its own binary log goes, which holds what it applied as well.
    fn written(&self) -> Position {
        Position(gtid::sequence(&self.binlog_pos).max(gtid::sequence(&self.slave_pos)))
    }

    /// The same in the server's own words, and for a copy the place in its source's log, while there is a link: what it knew
    /// of a log before says nothing of the one that is there now.
    fn shown(&self) -> Shown {
        let received = self.follows.as_ref().map_or("", |follows| &follows.received);
        let last = gtid::furthest([self.binlog_pos.as_str(), self.slave_pos.as_str(), received]);
        let link = self.follows.as_ref().filter(|follows| follows.receiving == "Yes");
        Shown {
            position: Some(last).filter(|last| !last.is_empty()),
            received: link.and_then(|follows| follows.log.clone()),
            ..Shown::default()
        }
    }

    /// How far what it has on disk goes, applied or not.
    fn position(&self, memo: &Memo) -> Position {
        // Of a promoted server what it received beyond that is part of no history.
        let follows = self.follows.as_ref().filter(|_| !memo.master);
        let received = follows.map_or(0, |f| gtid::sequence(&f.received));
        self.written().max(Position(received))
    }
}

impl SemiSync {
    fn read(enabled: bool, rows: &[Answer]) -> Self {
        let value = |name: &str| {
            let row = rows.iter().find(|row| row.get("Variable_name").is_some_and(|n| n == name));
            row.and_then(|row| row.get("Value")).cloned().unwrap_or_default()
        };
        let number = |name: &str| value(name).parse().unwrap_or_default();
        Self {
            enabled,
            active: value("Rpl_semi_sync_master_status") == "ON",
            waiting: number("Rpl_semi_sync_master_wait_sessions"),
            acknowledged: number("Rpl_semi_sync_master_get_ack"),
            unanswered: number("Rpl_semi_sync_master_no_tx"),
        }
    }
}

async fn has_schemas(link: &mut Link) -> Result<bool, sqlx::Error> {
    let rows = link.ask("SHOW DATABASES").await?;
    Ok(rows.iter().filter_map(|row| row.get("Database")).any(|name| !SYSTEM_SCHEMAS.contains(&name.as_str())))
}

fn address(row: &Answer) -> Option<Address> {
    Some(Address::new(row.get("Host")?.clone(), row.get("Port")?.parse().ok()?))
}

/// Puts the answers together. `copying`: from whom, while a copy is being made that will replace this data; `kept`: the
/// epoch whose last writes are kept in the folder.
pub(super) fn status(
    answers: &Answers,
    memo: &mut Memo,
    incarnation: Incarnation,
    copying: Option<&Address>,
    kept: Option<u64>,
) -> Status {
    if memo.acks.take_in(answers, Instant::now()) {
        tracing::error!(
            "the server has let commits through without the hot replica's acknowledgement (its \
             Rpl_semi_sync_master_no_tx or _status says so): the hot replica is taken for lost and certified anew"
        );
    }
    memo.stuck = stuck(answers, memo, kept);
    let loading = applies_rest(answers, memo);
    let role = role(answers, memo, copying);
    let marker = answers.marker.clone().filter(|_| !memo.untrusted);
    let marked_at = match (&memo.marked, &marker, &role) {
        (Some((written, at)), Some(has), EngineRole::Master) if written == has => Some(*at),
        _ => None,
    };
    let master = matches!(role, EngineRole::Master);
    Status {
        incarnation,
        version: answers.version.clone(),
        loading,
        empty: !answers.has_schemas && marker.is_none() && !memo.untrusted,
        persisted: true,
        disk_ok: true, // Known to whoever looks at the file system.
        kept,
        lineage: Lineage(marker.as_ref().map(|m| m.uid.clone()).unwrap_or_default()),
        position: answers.position(memo),
        marker,
        marked_at,
        open: master && !answers.read_only,
        guard: memo.guard || answers.semi_sync.enabled,
        fsync: true,
        need: answers.semi_sync.enabled && answers.semi_sync.active,
        quiesced: memo.held.is_some(),
        channel: memo.channel.clone(),
        replicas: attached(answers, &memo.acks),
        shown: answers.shown(),
        role,
    }
}

/// Whether what an earlier run had received is being applied still. A thread that was stopped has not applied it.
fn applies_rest(answers: &Answers, memo: &mut Memo) -> bool {
    let Some(follows) = answers.follows.as_ref().filter(|follows| !follows.by_gtid && !memo.master) else {
        memo.resting = false;
        return false;
    };
    if follows.applying {
        memo.resting &= !follows.all_applied;
        return !follows.all_applied;
    }
    let (code, words) = &follows.apply_error;
    if *code != 0 {
        memo.resting = false;
        // The end of what was never acknowledged may be torn; anything else was to be applied.
        if *code != TORN_RELAY_LOG && !memo.untrusted {
            tracing::error!("what was received before the restart cannot be applied: this copy is made anew ({words})");
            memo.untrusted = true;
        }
    }
    memo.resting
}

/// A replica that the server no longer waits for, although it was told to, counts as one that acknowledges nothing any more:
/// the hot replica is taken for lost by it, and a candidate can still be certified, which begins the count anew.
fn attached(answers: &Answers, acks: &Acks) -> Vec<Attached> {
    let sync = answers.semi_sync.enabled;
    let one = |address: &Address| Attached {
        address: address.clone(),
        online: true,
        position: if sync { acks.position } else { answers.written() },
        lag_s: acks.at.filter(|_| sync).map_or(0, |at| at.elapsed().as_secs()),
    };
    answers.hosts.iter().map(one).collect()
}

fn role(answers: &Answers, memo: &Memo, copying: Option<&Address>) -> EngineRole {
    let channel = memo.follows_with.as_ref().map(|(name, _)| name.clone());
    if let Some(source) = copying {
        return EngineRole::Follows { source: source.clone(), link_up: false, syncing: true, channel };
    }
    let Some(follows) = answers.follows.as_ref().filter(|follows| !(memo.master && follows.is_over())) else {
        // Nothing of ours makes a server writable that was not promoted.
        return if memo.master || !answers.read_only { EngineRole::Master } else { EngineRole::Sealed };
    };
    let ordered = memo.follows.as_ref() == Some(&follows.source);
    let receiving = follows.is_receiving() && !memo.cut;
    let link_up = follows.receiving == "Yes" && follows.applying;
    match &memo.stuck {
        // To be told to follow again: then the data is replaced.
        Some(Stuck::Replaceable(_)) => EngineRole::Sealed,
        Some(Stuck::Errant(_)) => {
            EngineRole::Follows { source: follows.source.clone(), link_up: false, syncing: true, channel }
        }
        None if receiving || (ordered && follows.receive_error.0 != 0) => {
            EngineRole::Follows { source: follows.source.clone(), link_up, syncing: false, channel }
        }
        None => EngineRole::Sealed,
    }
}

/// Why a copy cannot go on from where it is.
fn stuck(answers: &Answers, memo: &Memo, kept: Option<u64>) -> Option<Stuck> {
    let follows = answers.follows.as_ref().filter(|_| memo.follows.is_some())?;
    let (code, words) = &follows.receive_error;
    let fetch = (!follows.is_receiving() && *code == NOT_IN_BINLOG).then_some(words);
    if memo.is_refused(follows) {
        return Some(Stuck::Replaceable(format!("its source's log is broken where it would go on ({words})")));
    }
    let apply = (!follows.applying && follows.apply_error.0 != 0).then_some(&follows.apply_error.1);
    let words = fetch.or(apply)?;
    // A source that has removed its old logs says nothing against this data. A former master's last writes were kept
    // before it was told to follow.
    let purged = fetch.is_some() && words.contains("purged");
    let saved = kept.is_some() && answers.marker.as_ref().map(|m| m.epoch) == kept;
    Some(if purged || saved { Stuck::Replaceable(words.clone()) } else { Stuck::Errant(words.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(&str, &str)]) -> Answer {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn copy(receiving: &str, applying: &str) -> Answers {
        let follows = Follows::from_row(&row(&[
            ("Master_Host", "10.0.0.11"),
            ("Master_Port", "3306"),
            ("Slave_IO_Running", receiving),
            ("Slave_SQL_Running", applying),
            ("Using_Gtid", "Slave_Pos"),
            ("Gtid_IO_Pos", "0-7-12"),
        ]));
        Answers {
            read_only: true,
            binlog_pos: "0-7-10".into(),
            slave_pos: "0-7-10".into(),
            follows: Some(follows),
            has_schemas: true,
            ..Answers::default()
        }
    }

    fn told(answers: &Answers, memo: &mut Memo) -> Status {
        status(answers, memo, Incarnation::from("i"), None, None)
    }

    fn source() -> Address {
        Address::new("10.0.0.11", 3306)
    }

    #[test]
    fn an_event_that_is_refused_again_and_again_is_broken_at_its_source() {
        let mut answers = copy("No", "Yes");
        let mut memo = Memo { follows: Some(source()), ..Memo::default() };
        let follows = answers.follows.as_mut().expect("a copy");
        follows.log = Some(LogPlace { file: 3, offset: 100, before: Vec::new() });
        follows.receive_error = (BROKEN_EVENT[0], "could not queue event from master".to_owned());
        let long_ago = |memo: &mut Memo| memo.refused.as_mut().expect("refused").at -= ASK_AGAIN;
        for _ in 1..ASKED_FOR {
            assert!(memo.asks_again(answers.follows.as_ref()) && !memo.asks_again(answers.follows.as_ref()));
            assert!(matches!(told(&answers, &mut memo).role, EngineRole::Follows { link_up: false, .. }));
            long_ago(&mut memo);
        }
        // Elsewhere the count begins anew.
        let mut elsewhere = answers.clone();
        elsewhere.follows.as_mut().expect("a copy").log = Some(LogPlace { file: 3, offset: 200, before: Vec::new() });
        let mut other = Memo { refused: memo.refused.clone(), follows: Some(source()), ..Memo::default() };
        assert!(other.asks_again(elsewhere.follows.as_ref()));
        let mut cut = Memo { cut: true, follows: Some(source()), ..Memo::default() };
        assert!(!cut.asks_again(answers.follows.as_ref()), "it was told to receive nothing");
        assert!(!memo.asks_again(answers.follows.as_ref()));
        told(&answers, &mut memo);
        assert!(matches!(memo.stuck, Some(Stuck::Replaceable(_))), "{:?}", memo.stuck);
    }

    #[test]
    fn a_copy_stands_where_it_has_received() {
        let status = told(&copy("Yes", "Yes"), &mut Memo::default());
        assert_eq!(status.position, Position(12));
        assert!(status.follows(&source()) && status.is_whole());
        assert!(told(&copy("No", "Yes"), &mut Memo::default()).is_sealed());
    }

    #[test]
    fn a_copy_that_was_cut_off_receives_nothing_though_its_thread_is_listed() {
        let mut memo = Memo { cut: true, ..Memo::default() };
        assert!(told(&copy("Yes", "Yes"), &mut memo).is_sealed());
        memo.cut = false;
        assert!(!told(&copy("Connecting", "Yes"), &mut memo).is_sealed());
    }

    #[test]
    fn what_is_left_of_a_masters_link_says_nothing_of_it() {
        let mut memo = Memo { master: true, cut: true, ..Memo::default() };
        assert!(!told(&copy("Yes", "Yes"), &mut memo).is_master(), "it still applies");
        for receiving in ["Yes", "No"] {
            let left = copy(receiving, "No");
            let status = told(&left, &mut memo);
            assert!(status.is_master() && status.position == Position(10), "{status:?}");
            assert_eq!(left.follows.unwrap().can_be_forgotten(), receiving == "No");
        }
    }

    #[test]
    fn who_was_not_promoted_is_no_master() {
        let fresh = Answers { read_only: true, ..Answers::default() };
        assert!(told(&fresh, &mut Memo::default()).is_sealed() && told(&fresh, &mut Memo::default()).empty);
        let mut promoted = Memo { master: true, ..Memo::default() };
        let status = told(&fresh, &mut promoted);
        assert!(status.is_master() && !status.open);
        let writable = Answers { read_only: false, ..Answers::default() };
        assert!(told(&writable, &mut Memo::default()).is_master(), "somebody made it one: it is to be fenced");
    }

    #[test]
    fn a_copy_that_cannot_go_on_is_replaced_only_when_nothing_is_lost_by_it() {
        let mut answers = copy("No", "Yes");
        let follows = answers.follows.as_mut().unwrap();
        follows.receive_error = (1236, "requested to start from GTID 0-9-13, which is not in the master's".to_owned());
        let mut memo = Memo { follows: Some(source()), ..Memo::default() };
        let errant = told(&answers, &mut memo);
        assert!(!errant.is_whole() && matches!(memo.stuck, Some(Stuck::Errant(_))));
        answers.marker = Some(Marker { uid: "u".into(), epoch: 4, nonce: Nonce::from("n"), counter: 1 });
        assert!(!status(&answers, &mut memo, Incarnation::from("i"), None, Some(3)).is_sealed());
        assert!(status(&answers, &mut memo, Incarnation::from("i"), None, Some(4)).is_sealed(), "its tail is kept");
        answers.follows.as_mut().unwrap().receive_error.1 = "required binlog files have been purged".to_owned();
        assert!(told(&answers, &mut memo).is_sealed());
    }

    #[test]
    fn what_was_received_before_a_restart_counts_when_it_is_applied() {
        let marker = Marker { uid: "u".into(), epoch: 4, nonce: Nonce::from("n"), counter: 1 };
        let rest = |applying: &str, state: &str, error: &str| {
            let row = row(&[
                ("Slave_IO_Running", "No"),
                ("Slave_SQL_Running", applying),
                ("Slave_SQL_Running_State", state),
                ("Using_Gtid", "No"),
                ("Last_SQL_Errno", error),
                ("Last_SQL_Error", "why"),
            ]);
            Answers { follows: Some(Follows::from_row(&row)), marker: Some(marker.clone()), ..copy("No", "No") }
        };
        let fresh = || Memo { resting: true, ..Memo::default() };
        // applying, the thread's state, its error; loading, whether the marker counts
        let rows = [
            (("Yes", "Reading event from the relay log", "0"), true, true),
            (("Yes", "Slave has read all relay log; waiting for more updates", "0"), false, true),
            (("No", "", "0"), true, true),
            (("No", "", "1062"), false, false),
            (("No", "", "1594"), false, true),
        ];
        for ((applying, state, error), loading, counts) in rows {
            let status = told(&rest(applying, state, error), &mut fresh());
            assert_eq!((status.loading, status.marker.is_some()), (loading, counts), "{applying} {state} {error}");
        }
        let mut memo = fresh();
        told(&rest("Yes", ALL_APPLIED, "0"), &mut memo);
        assert!(!told(&rest("No", "", "0"), &mut memo).loading, "stopped when all was applied");
    }

    #[test]
    fn commits_that_did_not_wait_are_noticed() {
        let sync = |active, waiting, unanswered| Answers {
            semi_sync: SemiSync { enabled: true, active, waiting, acknowledged: 5, unanswered },
            hosts: [source()].into(),
            ..Answers::default()
        };
        let mut memo = Memo { master: true, ..Memo::default() };
        told(&Answers::default(), &mut memo);
        let long_ago = Instant::now().checked_sub(std::time::Duration::from_secs(60)).unwrap();
        // How long it has acknowledged nothing, when it was last seen to a minute ago.
        let lag = |answers: &Answers, memo: &mut Memo| {
            memo.acks.at = Some(long_ago);
            told(answers, memo).replicas[0].lag_s
        };
        assert_eq!(lag(&sync(true, 0, 0), &mut memo), 0);
        assert!(lag(&sync(true, 1, 0), &mut memo) >= 60, "a commit waits");
        assert!(lag(&sync(true, 0, 1), &mut memo) >= 60);
        assert!(lag(&sync(true, 0, 1), &mut memo) >= 60, "until another is certified");
        memo.acks.begin();
        assert_eq!(lag(&sync(true, 0, 1), &mut memo), 0);
        assert!(lag(&sync(false, 0, 1), &mut memo) >= 60, "it waits no more");
        assert!(told(&sync(true, 0, 1), &mut memo).need && !told(&sync(false, 0, 1), &mut memo).need);
    }
}
