//! Every key name and every JSON form in Consul, and nothing of either anywhere else.

use std::collections::BTreeMap;

use election::documents::RECORD_VERSION;
use election::{Command, GroupName, HistoryEntry, Member, NodeId, Outcome, Policy, Proposal, Record};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::kv::Entry;
use crate::txn::TxnOp;
use crate::view::{GroupView, ProxiesView};

/// How many epochs' stories are kept. Every reader of a group receives them all, so they must not grow for ever.
pub const HISTORY_KEPT: u64 = 100;

/// The folder of the proxies, beside those of the groups: no group may have this name.
pub const PROXIES: &str = "proxies";

/// The content of the leader key: for people, the record decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The epoch in which the lock was taken.
    pub epoch: u64,
    /// The node whose agent holds it.
    pub node: NodeId,
}

/// What an operator has said of a node that will not return: it is no longer shown, unless it does return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The node.
    pub node: NodeId,
    /// The group's epoch then: what happens in a later one tells that the node has returned.
    pub epoch: u64,
    /// Who said so.
    pub by: String,
    /// When, milliseconds since 1970, for people.
    pub at: u64,
}

/// A living proxy: in Consul under `proxies/<name>`, bound to its session and gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRecord {
    /// Its name.
    pub name: String,
    /// How clients reach it: host name or IP address.
    pub address: String,
    /// `host:port` of its HTTP.
    pub http: String,
    /// Its version.
    pub version: String,
    /// Its listeners.
    pub listeners: Vec<ProxyListener>,
}

/// One listener of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyListener {
    /// `host:port` as configured.
    pub listen: String,
    /// The groups behind it.
    pub groups: Vec<GroupName>,
    /// `master` or `replica`.
    pub role: String,
    /// `tcp`, `redis` or `postgres`.
    pub protocol: String,
}

/// The key names under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
}

impl Layout {
    /// `prefix` has no slash at either end.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The folder of everything; ends with a slash, like all folders here.
    pub fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The folder of a group.
    pub fn group(&self, group: &GroupName) -> String {
        format!("{}/{group}/", self.prefix)
    }

    /// Who is master and who is hot replica.
    pub fn record(&self, group: &GroupName) -> String {
        format!("{}/{group}/record", self.prefix)
    }

    /// The lock of the master's agent.
    pub fn leader(&self, group: &GroupName) -> String {
        format!("{}/{group}/leader", self.prefix)
    }

    /// A living node.
    pub fn member(&self, group: &GroupName, node: &NodeId) -> String {
        format!("{}/{group}/members/{node}", self.prefix)
    }

    /// The folder of the nodes that belong to a group, living or not.
    pub fn nodes(&self, group: &GroupName) -> String {
        format!("{}/{group}/nodes/", self.prefix)
    }

    /// A node that belongs to a group: what its last [`member`](Self::member) document said. No session ends it.
    pub fn node(&self, group: &GroupName, node: &NodeId) -> String {
        format!("{}/{group}/nodes/{node}", self.prefix)
    }

    /// The policy.
    pub fn config(&self, group: &GroupName) -> String {
        format!("{}/{group}/config", self.prefix)
    }

    /// An operator's request.
    pub fn command(&self, group: &GroupName) -> String {
        format!("{}/{group}/command", self.prefix)
    }

    /// The folder of what became of requests.
    pub fn results(&self, group: &GroupName) -> String {
        format!("{}/{group}/result/", self.prefix)
    }

    /// What became of a request.
    pub fn result(&self, group: &GroupName, id: &str) -> String {
        format!("{}/{group}/result/{id}", self.prefix)
    }

    /// The folder of the epochs' stories.
    pub fn histories(&self, group: &GroupName) -> String {
        format!("{}/{group}/history/", self.prefix)
    }

    /// An epoch's story.
    pub fn history(&self, group: &GroupName, epoch: u64) -> String {
        format!("{}/{group}/history/{epoch}", self.prefix)
    }

    /// The folder of the nodes that will not return.
    pub fn forgotten_nodes(&self, group: &GroupName) -> String {
        format!("{}/{group}/forgotten/", self.prefix)
    }

    /// A node that will not return.
    pub fn forgotten(&self, group: &GroupName, node: &NodeId) -> String {
        format!("{}/{group}/forgotten/{node}", self.prefix)
    }

    /// The folder of the proxies.
    pub fn proxies(&self) -> String {
        format!("{}/{PROXIES}/", self.prefix)
    }

    /// A living proxy.
    pub fn proxy(&self, name: &str) -> String {
        format!("{}/{PROXIES}/{name}", self.prefix)
    }

    /// The names of the groups whose folders are among `folders`.
    pub fn groups_in(&self, folders: &[String]) -> Vec<GroupName> {
        let root = self.root();
        folders
            .iter()
            .filter_map(|folder| folder.strip_prefix(&root)?.strip_suffix('/'))
            .filter(|name| !name.is_empty() && *name != PROXIES)
            .map(GroupName::from)
            .collect()
    }

    /// A group out of everything that stands in its folder. A document that cannot be read is a fault, never an
    /// absent document.
    pub fn view(&self, group: &GroupName, entries: &[Entry], index: u64) -> GroupView {
        let mut view = GroupView { reachable: true, seen: true, index, ..GroupView::default() };
        let folder = self.group(group);
        for entry in entries {
            let Some(rest) = entry.key.strip_prefix(&folder) else { continue };
            match rest {
                "record" => {
                    view.record_index = entry.modify_index;
                    match decode_record(group, entry) {
                        Ok(record) => view.record = Some((record, entry.modify_index)),
                        Err(error) => view.record_fault = Some(error.whole()),
                    }
                }
                "leader" => view.leader.clone_from(&entry.session),
                "config" => match decode::<Policy>(entry) {
                    Ok(policy) => view.policy = Some((policy, entry.modify_index)),
                    Err(error) => view.faults.push(error.whole()),
                },
                "command" => match decode::<Command>(entry) {
                    Ok(command) => view.command = Some((command, entry.modify_index)),
                    Err(error) => view.faults.push(error.whole()),
                },
                // A member without a session is what a lost write left behind: nobody lives there.
                _ if rest.starts_with("members/") && entry.session.is_some() => match decode::<Member>(entry) {
                    Ok(member) => drop(view.members.insert(member.id.clone(), member)),
                    Err(error) => view.faults.push(error.whole()),
                },
                // Who reads them for a person tells of faults.
                _ if rest.starts_with("nodes/") => {
                    view.nodes.extend(decode::<Member>(entry).ok().map(|node| (node.id.clone(), node)));
                }
                _ => {}
            }
        }
        view
    }

    /// The proxies out of everything that stands in their folder.
    pub fn proxies_view(&self, entries: &[Entry], index: u64) -> ProxiesView {
        let living = entries.iter().filter(|e| e.session.is_some());
        let decoded = living.filter_map(|entry| match decode::<ProxyRecord>(entry) {
            Ok(proxy) => Some((proxy.name.clone(), proxy)),
            Err(error) => {
                tracing::warn!(fault = error.whole(), "a proxy's record cannot be read");
                None
            }
        });
        ProxiesView { reachable: true, seen: true, index, proxies: decoded.collect::<BTreeMap<_, _>>() }
    }
}

/// Reads a document; a fault names its key.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, Error> {
    serde_json::from_slice(&entry.value).map_err(|source| Error::Decode { key: entry.key.clone(), source })
}

/// The version alone, for a record whose other fields this build may not know.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

fn decode_record(group: &GroupName, entry: &Entry) -> Result<Record, Error> {
    let fault = |why: String| Error::Decode { key: entry.key.clone(), source: serde_json::Error::custom(why) };
    let Versioned { v } = decode(entry)?;
    if v > RECORD_VERSION {
        return Err(fault(format!(
            "it has form {v} and this version of understudy understands forms up to {RECORD_VERSION}: upgrade this node"
        )));
    }
    let record: Record = decode(entry)?;
    if record.group != group.0 {
        return Err(fault(format!("it is the record of group `{}`, not of `{group}`", record.group)));
    }
    Ok(record)
}

/// Writes a document.
pub(crate) fn encode<T: Serialize>(document: &T) -> Vec<u8> {
    // INVARIANT: our documents are structs of strings, numbers and lists, which always have a JSON form.
    #[expect(clippy::expect_used, reason = "serialising plain structs to memory cannot fail")]
    serde_json::to_vec(document).expect("a document of plain fields")
}

/// The operations of one transaction for a decision of the core. The record comes first: [`crate::Written::Applied`]
/// carries its new index.
pub fn proposal_ops(layout: &Layout, proposal: &Proposal) -> Vec<TxnOp> {
    let group = GroupName::from(proposal.record.group.as_str());
    let record = &proposal.record;
    let mut ops = vec![TxnOp::Cas { key: layout.record(&group), value: encode(record), index: proposal.index }];
    if let Some(take) = &proposal.take_leader {
        let key = layout.leader(&group);
        let node = record.master.as_ref().map_or_else(|| record.writer.node.clone(), |m| m.id.clone());
        let value = encode(&Leader { epoch: record.epoch, node });
        if let Some(from) = &take.from {
            ops.push(TxnOp::Unlock { key: key.clone(), value: value.clone(), session: from.clone() });
        }
        ops.push(TxnOp::Lock { key, value, session: take.to.clone() });
    }
    if let Some(policy) = &proposal.policy {
        ops.push(TxnOp::Set { key: layout.config(&group), value: encode(policy) });
    }
    if let Some(history) = &proposal.history {
        ops.extend(history_ops(layout, &group, history));
    }
    ops.extend(result_ops(layout, &group, proposal.result.as_ref(), proposal.consume));
    ops
}

/// The operations of one transaction that answers an operator's request without touching the record.
pub fn answer_ops(layout: &Layout, group: &GroupName, outcome: &Outcome, command_index: u64) -> Vec<TxnOp> {
    result_ops(layout, group, Some(outcome), Some(command_index))
}

fn history_ops(layout: &Layout, group: &GroupName, history: &HistoryEntry) -> Vec<TxnOp> {
    let mut ops = vec![TxnOp::Set { key: layout.history(group, history.epoch), value: encode(history) }];
    if let Some(old) = history.epoch.checked_sub(HISTORY_KEPT) {
        ops.push(TxnOp::Delete { key: layout.history(group, old) });
    }
    ops
}

fn result_ops(layout: &Layout, group: &GroupName, result: Option<&Outcome>, consume: Option<u64>) -> Vec<TxnOp> {
    let mut ops = Vec::new();
    if let Some(index) = consume {
        // Consul counts the deletion of what is not there as done: without the check a request that was taken back, or
        // answered by another, would be carried out all the same.
        ops.push(TxnOp::CheckIndex { key: layout.command(group), index });
        ops.push(TxnOp::DeleteCas { key: layout.command(group), index });
    }
    if let Some(outcome) = result {
        ops.push(TxnOp::Set { key: layout.result(group, &outcome.id), value: encode(outcome) });
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::decision::TakeLeader;
    use election::documents::Writer;
    use election::{Address, Incarnation, Master, Nonce, Phase};

    fn record() -> Record {
        let end = Address::new("10.0.0.1", 6379);
        Record {
            v: RECORD_VERSION,
            group: "g".to_owned(),
            uid: "u".to_owned(),
            epoch: 101,
            active_epoch: 100,
            seq: 5,
            nonce: Nonce::from("n"),
            writer: Writer { node: NodeId::from("db1"), boot: "b".to_owned() },
            phase: Phase::Promoting,
            master: Some(Master {
                id: NodeId::from("db1"),
                address: end.host,
                port: end.port,
                incarnation: Incarnation::from("i"),
            }),
            replica: None,
            previous: None,
            fsync: false,
            switchover: None,
        }
    }

    fn entry(key: &str, value: &[u8], session: Option<&str>) -> Entry {
        Entry { key: key.to_owned(), value: value.to_vec(), modify_index: 7, session: session.map(str::to_owned) }
    }

    #[test]
    fn a_takeover_is_one_transaction_with_the_record_first() {
        let layout = Layout::new("p");
        let proposal = Proposal {
            record: record(),
            index: 42,
            take_leader: Some(TakeLeader { from: Some("old".to_owned()), to: "new".to_owned() }),
            policy: None,
            history: None,
            result: None,
            consume: Some(9),
        };
        let ops = proposal_ops(&layout, &proposal);
        assert!(matches!(&ops[0], TxnOp::Cas { key, index: 42, .. } if key == "p/g/record"), "{ops:?}");
        assert!(matches!(&ops[1], TxnOp::Unlock { key, session, .. } if key == "p/g/leader" && session == "old"));
        let TxnOp::Lock { value, session, .. } = &ops[2] else { panic!("{ops:?}") };
        assert_eq!(session, "new");
        assert_eq!(std::str::from_utf8(value).unwrap(), r#"{"epoch":101,"node":"db1"}"#);
        assert!(matches!(&ops[3], TxnOp::CheckIndex { key, index: 9 } if key == "p/g/command"));
        assert!(matches!(&ops[4], TxnOp::DeleteCas { key, index: 9 } if key == "p/g/command"));
        assert_eq!(ops.len(), 5);
    }

    #[test]
    fn history_forgets_what_is_a_hundred_epochs_old() {
        let story = |epoch| HistoryEntry {
            epoch,
            master: NodeId::from("db1"),
            previous: None,
            reason: String::new(),
            evidence: vec![],
            position: None,
            took_ms: 1,
            data_loss: None,
            at: 0,
            by: NodeId::from("db1"),
        };
        let layout = Layout::new("p");
        let group = GroupName::from("g");
        let old = history_ops(&layout, &group, &story(101));
        assert!(matches!(&old[1], TxnOp::Delete { key } if key == "p/g/history/1"), "{old:?}");
        assert_eq!(history_ops(&layout, &group, &story(99)).len(), 1);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_a_fault_that_names_its_key() {
        let layout = Layout::new("p");
        let group = GroupName::from("g");
        let view = |value: &[u8]| layout.view(&group, &[entry("p/g/record", value, None)], 9);

        let broken = view(b"{\"v\":1,");
        assert!(broken.record.is_none());
        assert_eq!(broken.record_index, 7);
        assert!(broken.record_fault.as_ref().unwrap().contains("p/g/record"), "{broken:?}");

        let newer = view(br#"{"v":99,"something":"else"}"#).record_fault.unwrap();
        assert!(newer.contains("form 99") && newer.contains("upgrade"), "{newer}");

        let mut other = record();
        other.group = "h".to_owned();
        let foreign = view(&encode(&other)).record_fault.unwrap();
        assert!(foreign.contains("`h`, not of `g`"), "{foreign}");

        let good = view(&encode(&record()));
        assert_eq!(good.record, Some((record(), 7)));
        assert_eq!(good.record_fault, None);
    }

    #[test]
    fn a_member_counts_only_with_a_session() {
        let layout = Layout::new("p");
        let group = GroupName::from("g");
        let json = br#"{"id":"db1","address":"a","port":1,"agent":"a:2","engine":"redis","version":"7","zone":null,
            "role":"spare","incarnation":null,"priority":100,"uid":null,"boot":"b"}"#;
        let alive = layout.view(&group, &[entry("p/g/members/db1", json, Some("s"))], 9);
        assert_eq!(alive.members[&NodeId::from("db1")].databases, None, "an older agent does not say");
        let left = layout.view(&group, &[entry("p/g/members/db1", json, None)], 9);
        assert!(left.members.is_empty(), "{left:?}");
        let ill = layout.view(&group, &[entry("p/g/members/db1", b"nonsense", Some("s"))], 9);
        assert!(ill.faults[0].contains("p/g/members/db1"), "{ill:?}");
    }

    #[test]
    fn groups_are_folders_other_than_the_proxies() {
        let folders = ["p/a/", "p/proxies/", "p/b-c/", "p/stray", "q/d/"].map(str::to_owned);
        assert_eq!(Layout::new("p").groups_in(&folders), vec![GroupName::from("a"), GroupName::from("b-c")]);
    }
}
