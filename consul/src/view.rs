//! What Consul shows of a group, and of the proxies, at one instant.

use std::collections::BTreeMap;

use election::{Command, Member, NodeId, Policy, Record};

use crate::layout::ProxyRecord;

/// A group in Consul. When Consul is away this is the last that it showed, with `reachable` false.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupView {
    /// The last call was answered.
    pub reachable: bool,
    /// Consul has answered at least once, so that what is absent here is absent there.
    pub seen: bool,
    /// The index of the whole: grows with every change in the group, until Consul loses its data.
    pub index: u64,
    /// The record and its ModifyIndex.
    pub record: Option<(Record, u64)>,
    /// The ModifyIndex of the record's key, 0 when the key does not exist; also there when the record is faulty.
    pub record_index: u64,
    /// Why the record that is there cannot be used: then nothing may be decided, and nothing written over it.
    pub record_fault: Option<String>,
    /// The session that holds the leader key.
    pub leader: Option<String>,
    /// The living nodes.
    pub members: BTreeMap<NodeId, Member>,
    /// The nodes that belong to the group, living or not.
    pub nodes: BTreeMap<NodeId, Member>,
    /// The policy and its ModifyIndex.
    pub policy: Option<(Policy, u64)>,
    /// An operator's request and its ModifyIndex.
    pub command: Option<(Command, u64)>,
    /// What else could not be read, a sentence each, naming the key.
    pub faults: Vec<String>,
}

/// The proxies in Consul. When Consul is away this is the last that it showed, with `reachable` false.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProxiesView {
    /// The last call was answered.
    pub reachable: bool,
    /// Consul has answered at least once.
    pub seen: bool,
    /// The index of the whole.
    pub index: u64,
    /// The living proxies by name.
    pub proxies: BTreeMap<String, ProxyRecord>,
}
