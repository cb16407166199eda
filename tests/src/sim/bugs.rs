//! Planted bugs: each is one wrong wire between the real core and the models. The product has none of them; a
//! simulation that does not find them proves nothing.

/// One way to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `Seal` is reported as done; the database goes on receiving and acknowledging.
    SealDoesNothing,
    /// The proxy never waits for a replica.
    NeedIgnored,
    /// Whether to wait is read from the proxy's record instead of from the database.
    NeedFromRecord,
    /// A certificate's channel keeps the old password and every link, and the agent is told of one link only.
    ChannelNotExclusive,
    /// Redis boots as the master it was, with its accounts for replication as they were.
    BootsAsMaster,
    /// A copy that is being replaced says that it is whole, and shows the marker it is asked for.
    ClaimsToBeWhole,
    /// A write of unknown outcome is reported as refused.
    UnknownIsRefused,
    /// The agent's memory does not survive its restart.
    AgentForgets,
    /// `Fsync` is reported as done; nothing reaches the disk any sooner.
    FsyncDoesNothing,
    /// Consul takes every write, whatever index it was decided on.
    CasIsSet,
    /// The run of a database keeps its name over a restart.
    RunKeepsItsName,
    /// A restarted agent is told that its first transaction was applied, and it was not.
    RenewsInWords,
    /// A deposed master follows its successor at once, and says that it is sealed.
    FencedByFollowing,
    /// What a peer says of its marker's counter is lost on the way. Its loss is one that the history declares, which a
    /// random run forgives: scenario M8 finds it.
    MarkersAlike,
    /// A proxy says that it is quiet while requests are in flight through it. No write is lost by it, clients are cut
    /// off: scenario `Handover` finds it.
    QuietInWords,
}

impl Bug {
    /// All that random seeds can find.
    pub const ALL: [Bug; 13] = [
        Bug::SealDoesNothing,
        Bug::NeedIgnored,
        Bug::NeedFromRecord,
        Bug::ChannelNotExclusive,
        Bug::BootsAsMaster,
        Bug::ClaimsToBeWhole,
        Bug::UnknownIsRefused,
        Bug::AgentForgets,
        Bug::FsyncDoesNothing,
        Bug::CasIsSet,
        Bug::RunKeepsItsName,
        Bug::RenewsInWords,
        Bug::FencedByFollowing,
    ];
}
