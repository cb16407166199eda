//! What a PostgreSQL says of itself: one question that answers with JSON, and the marker.

use std::time::Instant;

use election::{Address, Attached, Copying, EngineRole, Incarnation, Lineage, Marker, Nonce, Position, Shown, Status};
use serde::Deserialize;

use super::config::{self, Gate};
use super::{lsn, marker};

/// What the agent itself has done to one run of a process: none of it can be read back from the server.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo {
    /// The name of the channel in force, and whether it is a certificate's.
    pub(super) channel: Option<(Nonce, bool)>,
    /// The marker it wrote last, and the position right after.
    pub(super) marked: Option<(Marker, Position)>,
    /// Client writes are held.
    pub(super) quiesced: bool,
    /// The core has let the disk lag. Nothing here ever does; but what was ordered has to show.
    pub(super) lax: bool,
    /// The last write of the agent's found the disk full.
    pub(super) disk_full: bool,
    /// A commit has been seen to wait since commits were told to.
    pub(super) waits: bool,
    /// There is a hot replica, and no commit is to wait for it (`async`).
    pub(super) unneeded: bool,
    /// Clients have been let in since this run was promoted.
    pub(super) opened: bool,
    /// When it was looked whether commits wait for enough.
    pub(super) commits_minded: Option<Instant>,
    /// They do not.
    pub(super) lax_commits: bool,
}

/// The one question of a probe.
pub(super) fn question() -> String {
    format!(
        "SELECT row_to_json(s)::text FROM (SELECT
             pg_is_in_recovery() AS recovery,
             (SELECT system_identifier::text FROM pg_control_system()) AS system,
             {TIMELINE} AS timeline,
             {POSITION} AS position,
             current_setting('synchronous_standby_names') AS names,
             current_setting('primary_conninfo') AS source,
             current_setting('primary_slot_name') AS slot,
             (SELECT status FROM pg_stat_wal_receiver) AS receiver,
             (SELECT json_agg(r) FROM (SELECT application_name AS name, state,
                 (flush_lsn - '0/0'::pg_lsn)::text AS position,
                 greatest(extract(epoch FROM clock_timestamp() - reply_time), 0)::bigint AS lag
                 FROM pg_stat_replication) r) AS replicas,
             pg_size_bytes(current_setting('wal_segment_size'))::text AS segment,
             {} AS marked) s",
        marker::IS_THERE
    )
}

/// The timeline that the server writes, or receives, or received last: what is in its folder is never of a later one.
pub(super) const TIMELINE: &str = "CASE WHEN pg_is_in_recovery() THEN coalesce(
         (SELECT nullif(received_tli, 0) FROM pg_stat_wal_receiver),
         (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END";

/// What is on its disk of that history.
pub(super) const POSITION: &str = "(CASE WHEN pg_is_in_recovery()
         THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
     ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::text";

/// The answer to [`question`].
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answer {
    pub(super) recovery: bool,
    pub(super) system: String,
    pub(super) timeline: Option<u32>,
    pub(super) position: Option<String>,
    pub(super) names: String,
    pub(super) source: String,
    pub(super) slot: String,
    pub(super) receiver: Option<String>,
    pub(super) replicas: Option<Vec<Sender>>,
    pub(super) segment: Option<String>,
    pub(super) marked: bool,
}

/// A replication client.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sender {
    pub(super) name: String,
    state: Option<String>,
    position: Option<String>,
    lag: Option<u64>,
}

/// What is known besides the answer.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) incarnation: Incarnation,
    pub(super) version: &'a str,
    pub(super) memo: &'a Memo,
    pub(super) gate: Gate,
    /// Whom it was told to follow, and with which channel.
    pub(super) follows: Option<(Address, Nonce)>,
    pub(super) marker: Option<Marker>,
    /// Made by us, and never written to.
    pub(super) fresh: bool,
    pub(super) kept: Option<u64>,
}

impl Answer {
    /// How far it has come.
    pub(super) fn position(&self) -> Position {
        number(self.position.as_deref())
    }

    /// The history it belongs to.
    pub(super) fn lineage(&self) -> Lineage {
        Lineage(format!("{}/{}", self.system, self.timeline.unwrap_or_default()))
    }

    /// How large a file of its log is, in bytes.
    pub(super) fn segment(&self) -> u64 {
        self.segment.as_deref().and_then(|t| t.parse().ok()).unwrap_or(16 << 20)
    }

    /// It is fed.
    pub(super) fn is_fed(&self) -> bool {
        self.receiver.as_deref() == Some("streaming")
    }

    fn role(&self, follows: &Option<(Address, Nonce)>) -> EngineRole {
        if !self.recovery {
            return EngineRole::Master;
        }
        let configured = config::read_source(&self.source);
        // Until it is told to follow whom it should, the one before may go on feeding it: that is no link to the other.
        let link_up = self.is_fed() && follows.as_ref().is_none_or(|(source, _)| configured.as_ref() == Some(source));
        let (source, channel) = match (follows, configured) {
            (Some((source, channel)), _) => (source.clone(), Some(channel.clone())),
            (None, Some(source)) => (source, None),
            // Told to receive no more, and it still does.
            (None, None) if self.receiver.is_some() => (Address::default(), None),
            (None, None) => return EngineRole::Sealed,
        };
        EngineRole::Follows { source, link_up, syncing: false, channel }
    }

    /// The name of the copy that is attached under the certificate's channel.
    pub(super) fn certified(&self, memo: &Memo) -> Option<&str> {
        let (channel, true) = memo.channel.as_ref()? else { return None };
        let names = self.replicas.iter().flatten().map(|sender| sender.name.as_str());
        names.into_iter().find(|name| config::read_standby_name(name).is_some_and(|(_, c)| c == config::short(channel)))
    }

    /// Commits wait, and for nobody else than the copy that is attached under the certificate's channel.
    fn is_guarded(&self, memo: &Memo) -> bool {
        let named = self.certified(memo).is_none_or(|name| self.names == config::only(name));
        !self.names.is_empty() && named
    }

    /// Puts everything together.
    pub(super) fn status(&self, around: Around<'_>) -> Status {
        let Around { incarnation, version, memo, gate, follows, marker, fresh, kept } = around;
        let role = self.role(&follows);
        let marked_at = match (&memo.marked, &marker, &role) {
            (Some((written, at)), Some(has), EngineRole::Master) if written == has => Some(*at),
            _ => None,
        };
        let need = self.is_guarded(memo);
        Status {
            incarnation,
            version: version.to_owned(),
            loading: false,
            empty: fresh && marker.is_none(),
            persisted: true,
            disk_ok: !memo.disk_full,
            kept,
            lineage: self.lineage(),
            position: self.position(),
            marker,
            marked_at,
            open: gate.clients && role == EngineRole::Master,
            guard: need || memo.unneeded,
            fsync: !memo.lax,
            need,
            quiesced: memo.quiesced,
            channel: memo.channel.as_ref().map(|(name, _)| name.clone()),
            replicas: self.replicas.iter().flatten().filter_map(attached).collect(),
            shown: Shown { position: Some(lsn::text(self.position().0)), ..Shown::default() },
            role,
        }
    }
}

/// One that is no copy of ours, such as a clone being made, has another kind of name, and its word counts for nothing.
fn attached(sender: &Sender) -> Option<Attached> {
    let (address, _) = config::read_standby_name(&sender.name)?;
    Some(Attached {
        address,
        online: matches!(sender.state.as_deref(), Some("streaming" | "catchup")),
        position: number(sender.position.as_deref()),
        lag_s: sender.lag.unwrap_or_default(),
    })
}

fn number(text: Option<&str>) -> Position {
    Position(text.and_then(|t| t.parse().ok()).unwrap_or_default())
}

/// What is said of an instance whose server cannot be asked: it reads its data, or its copy is being made, which has come
/// so far.
pub(super) fn unready(
    incarnation: Incarnation,
    version: &str,
    follows: Option<(Address, Nonce)>,
    copying: Option<Copying>,
    kept: Option<u64>,
) -> Status {
    let syncing = copying.is_some();
    let role = follows.map_or(EngineRole::Sealed, |(source, channel)| EngineRole::Follows {
        source,
        link_up: false,
        syncing,
        channel: Some(channel),
    });
    Status {
        incarnation,
        version: version.to_owned(),
        role,
        loading: true,
        empty: false,
        persisted: !syncing,
        disk_ok: true,
        kept,
        lineage: Lineage::default(),
        position: Position::default(),
        marker: None,
        marked_at: None,
        open: false,
        guard: true,
        fsync: true,
        need: true,
        quiesced: false,
        channel: None,
        replicas: Vec::new(),
        shown: Shown { copying, ..Shown::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(change: impl FnOnce(&mut Answer)) -> Answer {
        let mut answer = Answer {
            recovery: true,
            system: "7".into(),
            timeline: Some(3),
            position: Some("12345678901".into()),
            names: config::only(config::NOBODY),
            source: String::new(),
            slot: String::new(),
            receiver: None,
            replicas: None,
            segment: None,
            marked: false,
        };
        change(&mut answer);
        answer
    }

    fn around(memo: &Memo) -> Around<'_> {
        Around {
            incarnation: Incarnation::from("i"),
            version: "15",
            memo,
            gate: Gate::COPY,
            follows: None,
            marker: None,
            fresh: false,
            kept: None,
        }
    }

    fn sender(name: &str) -> Sender {
        Sender { name: name.into(), state: Some("streaming".into()), position: Some("5".into()), lag: Some(0) }
    }

    #[test]
    fn a_copy_of_nobody_is_sealed_and_never_open() {
        let status = answer(|_| ()).status(around(&Memo::default()));
        assert_eq!(status.role, EngineRole::Sealed);
        assert!(!status.open && status.guard && status.fsync && status.persisted);
        assert_eq!((status.lineage.as_str(), status.position), ("7/3", Position(12_345_678_901)));
    }

    #[test]
    fn one_that_still_receives_is_not_sealed() {
        let status = answer(|a| a.receiver = Some("streaming".into())).status(around(&Memo::default()));
        assert!(!status.is_sealed());
    }

    #[test]
    fn the_guard_is_on_only_when_it_waits_for_the_certified() {
        let memo = Memo { channel: Some((Nonce::from("0123456789abcdefXX"), true)), ..Memo::default() };
        let name = "h:1/0123456789abcdef";
        let seen = |names: &str, replicas: &[&str]| {
            let replicas = replicas.iter().map(|name| sender(name)).collect();
            let said = answer(|a| (a.recovery, a.names, a.replicas) = (false, names.to_owned(), Some(replicas)));
            said.status(around(&memo)).guard
        };
        assert!(seen(&config::only(config::NOBODY), &["h:1/other"]), "nobody is attached under the channel");
        assert!(!seen(&config::only(config::NOBODY), &[name]));
        assert!(seen(&config::only(name), &[name, "pg_basebackup"]));
        assert!(!seen("", &[]));
    }

    #[test]
    fn a_clone_in_the_making_is_no_replica() {
        let said = answer(|a| a.replicas = Some(vec![sender("pg_basebackup"), sender("db2:5432/n")]));
        let seen = said.status(around(&Memo::default())).replicas;
        assert_eq!(seen.iter().map(|r| r.address.to_string()).collect::<Vec<_>>(), ["db2:5432"]);
    }
}
