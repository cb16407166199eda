//! The pure core of Understudy: a function from a snapshot of the world to one decision.
//!
//! Nothing here reads a clock, draws a random number, or does input or output. Whatever must be remembered
//! ("no heartbeat since …") is put into the [`Snapshot`] by the agent; whatever must be random is handed in with it.
//! The same snapshot always gives the same [`Decision`].
//!
//! Read in this order: [`documents`] (what stands in Consul), [`status`] (what a database says of itself),
//! [`snapshot`] (all of it at one instant), [`decision`] (everything the system can do, and every reason it has),
//! [`decide`](mod@decide) (how it chooses), [`invariants`] (what must never happen).

pub mod certificate;
pub mod decide;
pub mod decision;
pub mod documents;
pub mod explain;
pub mod ids;
pub mod invariants;
pub mod offer;
pub mod policy;
mod proposals;
pub mod snapshot;
pub mod status;

pub use decide::decide;
pub use decision::{Action, Decision, EngineOp, Evidence, Proposal, Reason};
pub use documents::{
    Certificate, Command, CommandOp, HistoryEntry, Identity, Master, Member, Outcome, Phase, Previous, Record, Replica,
    Role, SwitchoverRef,
};
pub use ids::{Address, GroupName, Incarnation, Lineage, Millis, NodeId, Nonce, Position, Secret, Stamp};
pub use offer::offer;
pub use policy::{Durability, Policy, Reads, WithoutReplica};
pub use snapshot::{
    Beat, Certifying, Contact, Duty, Fresh, Me, Memory, Offer, Peer, Purpose, Snapshot, Taking, View, Witness, Writing,
    busy_proxy,
};
pub use status::{Attached, Copying, Engine, EngineRole, LogPlace, Marker, RoleWord, ServerRole, Shown, Status};
