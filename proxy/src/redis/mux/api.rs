//! What goes into the multiplexer and what comes out of it.

use super::{ClientId, LinkId};
use crate::routes::Endpoint;
use config::ListenerRole;
use election::{GroupName, Incarnation, Millis, Reads, Secret};
use std::sync::Arc;

/// What stays the same for a multiplexer's whole life.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The group, for error texts.
    pub(crate) group: GroupName,
    /// How long a request waits for somewhere to go.
    pub(crate) hold: Millis,
    /// The proxy's own account, for the link that asks whether writes are durable; absent: nobody logs in.
    pub(crate) account: Option<Login>,
    /// Which instances clients are carried to.
    pub(crate) role: ListenerRole,
    /// The proxy's name.
    pub(crate) name: String,
}

/// An account of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// Its name; the server's `default` when absent.
    pub(crate) user: Option<String>,
    /// What it is proved with.
    pub(crate) password: Secret,
}

/// One database that clients may be carried to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Where it listens.
    pub(crate) endpoint: Arc<Endpoint>,
    /// The run id that the record names; absent for replicas, which are not checked.
    pub(crate) incarnation: Option<Incarnation>,
    /// How many databases clients have. The marker is in the next.
    pub(crate) databases: Option<u32>,
}

/// Where a role's requests go now: always the whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heading {
    /// The mastership that links are made for.
    pub(crate) epoch: u64,
    /// The master, or the replicas that take requests.
    pub(crate) to: Vec<Destination>,
    /// Roles are being changed: nothing new is sent.
    pub(crate) held: bool,
    /// What a reply waits for.
    pub(crate) acks: Acks,
}

/// Who must have a write before its reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// The server that answers: an `async` group, or a listener for replicas.
    Master,
    /// The hot replica too.
    Replica {
        /// Whether replies of reads wait as well.
        reads: Reads,
        /// Whether it must be on both disks.
        fsync: bool,
    },
}

impl Default for Acks {
    /// The strict side: nothing leaves unproved before the group's policy is known.
    fn default() -> Self {
        Acks::Replica { reads: Reads::Local, fsync: false }
    }
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Connect, once; the answer is `link_connected` or `link_failed`.
    Dial {
        /// The link's name.
        link: LinkId,
        /// Where to.
        endpoint: Arc<Endpoint>,
    },
    /// Close the link, or stop dialling it. Nothing is called for it any more.
    CloseLink(LinkId),
    /// Close the client's connection. Nothing is called for it any more.
    CloseClient {
        /// The client's name.
        client: ClientId,
        /// By a reset: what is unsent is thrown away, and the client sees that an outcome is unknown.
        reset: bool,
    },
    /// There is output, or more of it after all had been sent.
    ClientOutput(ClientId),
    /// The same for a link.
    LinkOutput(LinkId),
    /// The client, which was not to be read, may be read again.
    ReadClient(ClientId),
}

/// What has happened since the start, and how things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Clients now.
    pub(crate) clients: u64,
    /// Links now, those being made included.
    pub(crate) links: u64,
    /// Clients now that wait with a request that cannot be sent.
    pub(crate) held: u64,
    /// Clients now with a reply that waits for the hot replica.
    pub(crate) withheld: u64,
    /// Requests sent to a database.
    pub(crate) requests: u64,
    /// Times the hot replica was asked about a batch of replies.
    pub(crate) barriers: u64,
    /// Times it could not confirm within one question's limit.
    pub(crate) barriers_repeated: u64,
    /// Times more than one replication client confirmed: nobody but the hot replica may.
    pub(crate) strangers: u64,
    /// Clients closed since the outcome of a request is unknown.
    pub(crate) unknown: u64,
    /// Requests refused after `hold`, never sent.
    pub(crate) expired: u64,
    /// Requests refused that belong to the agent, or that the proxy cannot carry.
    pub(crate) refused: u64,
    /// Links closed since another process than the recorded one answered.
    pub(crate) wrong_incarnation: u64,
    /// Links that could not be made, or were lost.
    pub(crate) links_lost: u64,
}

impl Counts {
    /// The sum of two multiplexers.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            clients: self.clients + other.clients,
            links: self.links + other.links,
            held: self.held + other.held,
            withheld: self.withheld + other.withheld,
            requests: self.requests + other.requests,
            barriers: self.barriers + other.barriers,
            barriers_repeated: self.barriers_repeated + other.barriers_repeated,
            strangers: self.strangers + other.strangers,
            unknown: self.unknown + other.unknown,
            expired: self.expired + other.expired,
            refused: self.refused + other.refused,
            wrong_incarnation: self.wrong_incarnation + other.wrong_incarnation,
            links_lost: self.links_lost + other.links_lost,
        }
    }

    /// What is left of it when the multiplexer has ended: nobody is connected.
    pub(crate) fn ended(self) -> Self {
        Self { clients: 0, links: 0, held: 0, withheld: 0, ..self }
    }
}
