//! A database's process. As a Redis it has the real one's defects: it promotes whatever it is told to, counts any online
//! replica for WAIT, and a copy that was cut while it was being replaced looks like a whole, empty one. What an SQL engine
//! has in their place is in [`Sql`].

use super::data::{Data, Disk, Entry};
use super::sql::Sql;
use super::world::Task;
use election::{Address, Attached, EngineRole, Incarnation, Lineage, Nonce, Position, Status};
use std::collections::VecDeque;

/// `repl-timeout` of the generated configuration.
pub(crate) const LINK_TIMEOUT_US: u64 = 5_000_000;

/// `min-replicas-max-lag 2`: Redis counts whole seconds, so almost three can pass.
const GUARD_LAG_US: u64 = 3_000_000;

/// A running process.
pub(crate) struct Process {
    /// The epoch whose data set is kept beside this one.
    pub(crate) kept: Option<u64>,
    pub(crate) run: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) data: Data,
    pub(crate) replid: Lineage,
    pub(crate) offset: u64,
    second: Option<(Lineage, u64)>,
    backlog: VecDeque<Entry>,
    pub(crate) role: Role,
    pub(crate) open: bool,
    pub(crate) guard: bool,
    /// What the guard last counted.
    attended: bool,
    pub(crate) fsync: bool,
    /// False only under a planted bug.
    pub(crate) fsync_works: bool,
    pub(crate) quiesced: bool,
    /// The password others replicate with; one that nobody knows at boot.
    pub(crate) secret: String,
    /// The one before, which candidates of earlier certifications still know.
    pub(crate) former_secret: String,
    /// The password it replicates with.
    pub(crate) primary_auth: String,
    pub(crate) downstream: Vec<Downstream>,
    pub(crate) waiters: Vec<Waiter>,
    /// Client writes held by CLIENT PAUSE.
    pub(crate) held: Vec<Task>,
    pub(crate) loading: bool,
    /// The append-only file is on.
    pub(crate) append_only: bool,
    /// What it holds is this data set, not the one before the last copy.
    pub(crate) persisted: bool,
    /// Changes when all clients' connections are ended.
    pub(crate) clients: u64,
    pub(crate) paused: bool,
    pub(crate) awake_since: u64,
    /// What arrived while it was stopped.
    pub(crate) inbox: Vec<Task>,
    /// PostgreSQL and MariaDB.
    pub(crate) sql: Option<Sql>,
}

pub(crate) enum Role {
    Master,
    Sealed,
    Follows(Upstream),
}

pub(crate) struct Upstream {
    pub(crate) source: usize,
    pub(crate) link: Option<u64>,
    pub(crate) state: LinkState,
    pub(crate) heard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    Connecting,
    Transfer,
    Load,
    Online,
}

/// A replication client of this process.
pub(crate) struct Downstream {
    pub(crate) link: u64,
    pub(crate) node: usize,
    pub(crate) run: u64,
    pub(crate) online: bool,
    pub(crate) sent: u64,
    pub(crate) ack: u64,
    pub(crate) acked_at: u64,
    /// The name of the password it logged in with, as far as that is part of what it is called.
    pub(crate) channel: Option<Nonce>,
}

/// A proxy's WAIT.
pub(crate) struct Waiter {
    pub(crate) proxy: usize,
    pub(crate) link: u64,
    pub(crate) clients: u64,
    pub(crate) offset: u64,
    pub(crate) until: u64,
}

impl Process {
    pub(crate) fn boot(run: u64, incarnation: Incarnation, replid: Lineage, secret: String, data: Data) -> Self {
        Self {
            kept: None,
            run,
            incarnation,
            data,
            replid,
            offset: 0,
            second: None,
            backlog: VecDeque::new(),
            role: Role::Sealed,
            open: false,
            guard: false,
            attended: false,
            fsync: false,
            fsync_works: false,
            quiesced: false,
            secret,
            former_secret: String::new(),
            primary_auth: String::new(),
            downstream: Vec::new(),
            waiters: Vec::new(),
            held: Vec::new(),
            loading: true,
            append_only: true,
            persisted: true,
            clients: 0,
            paused: false,
            awake_since: 0,
            inbox: Vec::new(),
            sql: None,
        }
    }

    pub(crate) fn is_master(&self) -> bool {
        matches!(self.role, Role::Master)
    }

    pub(crate) fn upstream(&mut self) -> Option<&mut Upstream> {
        match &mut self.role {
            Role::Follows(up) => Some(up),
            _ => None,
        }
    }

    pub(crate) fn link(&self) -> Option<u64> {
        match &self.role {
            Role::Follows(up) => up.link,
            _ => None,
        }
    }

    /// Whether it can serve others: a replica whose own link is down answers `-NOMASTERLINK`.
    pub(crate) fn serves(&self) -> bool {
        match &self.role {
            Role::Master => true,
            Role::Sealed => false,
            Role::Follows(up) => up.state == LinkState::Online && up.link.is_some(),
        }
    }

    /// Executes a write, its own or its source's.
    pub(crate) fn append(&mut self, entry: Entry, now: u64, disk: &mut Disk) {
        self.data.apply(&entry);
        self.offset += 1;
        if self.persisted {
            disk.append(now, &entry, self.fsync_works);
        }
        self.backlog.push_back(entry);
    }

    pub(crate) fn guard_refuses(&self) -> bool {
        self.guard && !self.attended
    }

    /// Redis counts its good replicas once a second, and when one comes or goes.
    pub(crate) fn count_replicas(&mut self, now: u64) {
        self.attended = self.downstream.iter().any(|d| d.online && now.saturating_sub(d.acked_at) < GUARD_LAG_US);
    }

    pub(crate) fn since(&self, offset: u64) -> Vec<Entry> {
        let start = self.offset - u64::try_from(self.backlog.len()).unwrap_or_default();
        let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or_default();
        self.backlog.iter().skip(skip).cloned().collect()
    }

    /// Whether a copy at `offset` of `replid` may go on by partial resync.
    pub(crate) fn continues(&self, replid: &Lineage, offset: u64) -> bool {
        let start = self.offset - u64::try_from(self.backlog.len()).unwrap_or_default();
        let ours = *replid == self.replid
            || self.second.as_ref().is_some_and(|(second, until)| second == replid && offset <= *until);
        ours && offset >= start && offset <= self.offset
    }

    /// Takes the history's new name; the copy stays.
    pub(crate) fn rename_history(&mut self, replid: Lineage) {
        self.second = Some((std::mem::replace(&mut self.replid, replid), self.offset));
    }

    /// Everything is replaced: by another's copy, or by nothing when that is cut.
    pub(crate) fn replace(&mut self, data: Data, replid: Lineage, offset: u64) {
        (self.data, self.replid, self.offset) = (data, replid, offset);
        self.second = None;
        self.backlog.clear();
    }

    pub(crate) fn acked_by(&self, offset: u64) -> usize {
        self.downstream.iter().filter(|d| d.online && d.ack >= offset).count()
    }

    pub(crate) fn end_clients(&mut self) {
        self.clients += 1;
        self.waiters.clear();
        self.held.clear();
        if let Some(sql) = &mut self.sql {
            sql.running.clear();
        }
    }

    /// Whether an acknowledgement needs another copy.
    pub(crate) fn needs(&self) -> bool {
        self.sql.as_ref().map_or_else(|| self.data.need.unwrap_or(true), Sql::needs)
    }

    /// Whether it takes no write that nobody acknowledges; in an SQL engine that is the same.
    pub(crate) fn is_guarded(&self) -> bool {
        self.sql.as_ref().map_or(self.guard, Sql::needs)
    }

    /// What the agent reads, apart from what the agent alone knows.
    pub(crate) fn status(&self, now: u64) -> Status {
        let role = match &self.role {
            Role::Master => EngineRole::Master,
            Role::Sealed => EngineRole::Sealed,
            Role::Follows(up) => EngineRole::Follows {
                source: address(up.source),
                link_up: up.link.is_some() && up.state == LinkState::Online,
                syncing: up.link.is_some() && matches!(up.state, LinkState::Transfer | LinkState::Load),
                channel: None,
            },
        };
        Status {
            disk_ok: true,
            kept: self.kept,
            incarnation: self.incarnation.clone(),
            version: "7.0.15".to_owned(),
            role,
            loading: self.loading,
            empty: self.data.is_empty(),
            persisted: self.persisted,
            lineage: self.replid.clone(),
            position: Position(self.offset),
            marker: self.data.marker.clone(),
            marked_at: None,
            open: self.open,
            guard: self.guard,
            fsync: self.fsync,
            need: self.data.need.unwrap_or(true),
            quiesced: self.quiesced,
            channel: None::<Nonce>,
            replicas: self.downstream.iter().map(|d| attached(d, now)).collect(),
            shown: election::Shown::default(),
        }
    }
}

fn attached(d: &Downstream, now: u64) -> Attached {
    let lag_s = now.saturating_sub(d.acked_at) / 1_000_000;
    Attached { address: address(d.node), online: d.online, position: Position(d.ack), lag_s }
}

/// Where a node's database listens.
pub(crate) fn address(node: usize) -> Address {
    Address::new(format!("n{}", node + 1), 6379)
}

/// Whose database listens there.
pub(crate) fn node_at(address: &Address) -> Option<usize> {
    address.host.strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1))
}
