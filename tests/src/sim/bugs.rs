//! Planted bugs: each is one wrong wire between the real core and the models. The product has none of them; a
//! simulation that does not find them proves nothing.

use config::Engine;

/// Lists the bugs once: the enum, all of them, and a sentence each.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        /// One way to get it wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)+];

            /// Whether random seeds can find it. The others need a long coincidence, lose what the history declares
            /// lost, or cut clients off and lose nothing: scripts find them.
            pub fn is_random(self) -> bool {
                !matches!(
                    self,
                    Bug::MarkersAlike | Bug::QuietInWords | Bug::DurableReadPings | Bug::SemiSyncTimesOut
                )
            }

            /// The engine that has it. What is wrong with agents, Consul or proxies is looked for on Redis.
            pub fn engine(self) -> Engine {
                match self {
                    Bug::CancelPassedOn | Bug::WaitNotSeen | Bug::NamesEmptyAtStart => Engine::Postgres,
                    Bug::SemiSyncTimesOut
                    | Bug::CounterNotWatched
                    | Bug::RelayLogThrownAway
                    | Bug::PromotesUnapplied
                    | Bug::FenceReleases
                    | Bug::CopyLooksWhole
                    | Bug::ReceivedNotSynced => Engine::Mariadb,
                    _ => Engine::Redis,
                }
            }

            /// What is wrong, a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => concat!($($what),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

bugs! {
    // The agent's effects on its database.
    /// `Seal` is reported as done; the database goes on receiving and acknowledging.
    SealDoesNothing,
    /// A takeover of unknown outcome is unsealed at once.
    UnsealsEarly,
    /// A deposed master follows its successor at once, and says that it is sealed.
    FencedByFollowing,
    /// `Fsync` is reported as done; nothing reaches the disk any sooner.
    FsyncDoesNothing,
    /// The master stops waiting when it submits the drop of its hot replica, before that is confirmed.
    ReleasedBeforeTheDrop,
    /// `Need(true)` is reported as done, and not written.
    NeedNotRaised,
    /// `Guard(true)` is reported as done, and not set.
    GuardNotSet,
    /// The guard refuses nothing.
    GuardNeverCloses,
    /// A certificate's channel keeps the old password and every link, and the agent is told of one link only.
    ChannelNotExclusive,
    /// Every channel has the same password, so that whoever was given it once comes in again.
    SecretNeverChanges,
    /// A promoted instance is open before its epoch is active, and proxies send clients.
    OpensInPromoting,
    /// The marker is reported as written, and is not.
    MarkInWords,
    /// Writes are reported as held for a switchover, and go on.
    QuiesceDoesNothing,
    // What the database says.
    /// Redis boots as the master it was, with its accounts for replication as they were.
    BootsAsMaster,
    /// The run of a database keeps its name over a restart.
    RunKeepsItsName,
    /// A copy that is being replaced says that it is whole, and shows the marker it is asked for.
    ClaimsToBeWhole,
    /// A copy counts as on its disk before the file has been rewritten.
    PersistedTooEarly,
    /// Whatever a disk brings back counts as carrying the marker that the record asks for.
    MarkerNotChecked,
    /// A replica acknowledges what it was sent before it has it.
    AcknowledgesUnread,
    /// What a peer says of its marker's counter is lost on the way.
    MarkersAlike,
    // PostgreSQL.
    /// The listener passes a cancelled wait's success on, although it has read the warning.
    CancelPassedOn,
    /// A copy is certified although no commit has been seen to wait.
    WaitNotSeen,
    /// PostgreSQL starts as the master it was, and its setting on disk names nobody to wait for.
    NamesEmptyAtStart,
    // MariaDB.
    /// Semi-synchronous replication keeps its default timeout, and then waits for nobody.
    SemiSyncTimesOut,
    /// Commits that the server let through by itself are not looked for.
    CounterNotWatched,
    /// A start throws away what was received, acknowledged and not applied.
    RelayLogThrownAway,
    /// A copy is promoted before it has applied what it received.
    PromotesUnapplied,
    // Both.
    /// A fenced master first stops waiting, which answers every commit that waits.
    FenceReleases,
    /// A copy whose making was cut off is taken for whole.
    CopyLooksWhole,
    /// A copy acknowledges what its disk has not yet.
    ReceivedNotSynced,
    // Consul, and what the agent makes of it.
    /// Consul takes every write, whatever index it was decided on.
    CasIsSet,
    /// A takeover needs no index when the leader key is free: the lock is trusted.
    LockIsTrusted,
    /// A write of unknown outcome is reported as refused.
    UnknownIsRefused,
    /// A write of unknown outcome is reported as applied.
    UnknownIsApplied,
    /// A restarted agent is told that its first transaction was applied, and it was not.
    RenewsInWords,
    /// A renewal carries no nonce and no seq of its own: the identical value gets no new index.
    RenewsWithoutNonce,
    /// Every node is given the leave to replicate that is meant for one.
    OffersToEverybody,
    /// A lost record is taken for a group that never was.
    BootstrapsAgain,
    /// A forced failover does not say that writes may be lost.
    ForceNotRecorded,
    /// The agent's memory does not survive its restart.
    AgentForgets,
    /// The agent's memory is not on its disk when it says so, and a power cut takes it back.
    MemoryNotSynced,
    // The proxy.
    /// The proxy never waits for a replica.
    NeedIgnored,
    /// Whether to wait is read from the proxy's record instead of from the database.
    NeedFromRecord,
    /// Whether to wait is read from the database before the write is sent.
    NeedReadBefore,
    /// A WAIT that no replica answered releases.
    ReleaseOnWaitZero,
    /// A barrier also releases what was read after it was sent.
    BarrierReleasesLater,
    /// What was not answered when a link ended is released by the next link's barrier.
    BarrierOutlivesItsLink,
    /// Replies of an epoch that is known to be over are forwarded.
    ForwardsOldEpoch,
    /// A write of unknown outcome is sent again.
    RetriesUnknown,
    /// The barrier of a durable read writes nothing.
    DurableReadPings,
    /// A proxy says that it is quiet while requests are in flight through it.
    QuietInWords,
}
