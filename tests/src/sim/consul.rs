//! Consul as one group sees it: the keys of the product's own transactions on a model of Consul ([`Kv`]), sessions that
//! end late, data that go back.

use super::kv::{Kv, Pair};
use consul::{Layout, TxnOp, answer_ops, proposal_ops};
use election::{Command, GroupName, Member, NodeId, Outcome, Policy, Proposal, Record, View, WithoutReplica};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};

/// What stands in Consul.
#[derive(Debug)]
pub(crate) struct Consul {
    kv: Kv,
    layout: Layout,
    group: GroupName,
    /// Read from the keys, whenever one has changed.
    pub(crate) record: Option<(Record, u64)>,
    pub(crate) leader: Option<String>,
    members: BTreeMap<NodeId, (Member, u64)>,
    policy: Option<(Policy, u64)>,
    command: Option<(Command, u64)>,
    /// When each session ends.
    sessions: BTreeMap<String, u64>,
    past: VecDeque<View>,
    pub(crate) outage: bool,
    /// It is away because its leader is lost; what reached the servers before may be applied by the next.
    pub(crate) electing: bool,
    pub(crate) handed_on: Vec<Proposal>,
    /// What the group had agreed on when Consul's data went back or vanished; nobody may act on anything else.
    pub(crate) lost: Option<Record>,
    /// When it did, and until an operator puts the record back, everything that is applied is wrong.
    pub(crate) meddled: Option<String>,
}

impl Default for Consul {
    fn default() -> Self {
        Self {
            kv: Kv::default(),
            layout: Layout::new("understudy"),
            group: GroupName::from("g"),
            record: None,
            leader: None,
            members: BTreeMap::new(),
            policy: None,
            command: None,
            sessions: BTreeMap::new(),
            past: VecDeque::new(),
            outage: false,
            electing: false,
            handed_on: Vec::new(),
            lost: None,
            meddled: None,
        }
    }
}

impl Consul {
    /// The record that the group has agreed on, whatever stands in Consul.
    pub(crate) fn truth(&self) -> Option<&Record> {
        self.lost.as_ref().or(self.record.as_ref().map(|(r, _)| r))
    }

    pub(crate) fn view(&self) -> View {
        View {
            seen: true,
            reachable: true,
            record: self.record.as_ref().map(|(r, _)| r.clone()),
            index: self.record.as_ref().map_or(0, |(_, i)| *i),
            leader: self.leader.clone(),
            members: self.members.iter().map(|(id, (m, _))| (id.clone(), m.clone())).collect(),
            policy: self.policy.as_ref().map(|(policy, _)| policy.clone()),
            command: self.command.clone(),
            ..View::default()
        }
    }

    /// What a server that lags says: a few versions of the record ago.
    pub(crate) fn past_view(&self, ago: usize) -> View {
        self.past.get(ago).cloned().unwrap_or_else(|| self.view())
    }

    /// Takes in what the keys say now.
    fn look(&mut self) {
        self.record = read(self.kv.get(&self.layout.record(&self.group)), self.record.take());
        self.policy = read(self.kv.get(&self.layout.config(&self.group)), self.policy.take());
        self.command = read(self.kv.get(&self.layout.command(&self.group)), self.command.take());
        self.leader = self.kv.get(&self.layout.leader(&self.group)).and_then(|pair| pair.session.clone());
        let folder = self.layout.member(&self.group, &NodeId::from(""));
        let mut before = std::mem::take(&mut self.members);
        for (key, pair) in self.kv.list(&folder).1.filter(|(_, pair)| pair.session.is_some()) {
            let id = NodeId::from(key.trim_start_matches(&folder));
            let known = before.remove(&id);
            self.members.extend(read(Some(pair), known).map(|member| (id, member)));
        }
    }

    fn transact(&mut self, ops: &[TxnOp]) -> Option<Vec<(String, u64)>> {
        let written = self.kv.transact(ops).ok()?;
        self.look();
        Some(written)
    }

    fn set<T: Serialize>(&mut self, key: String, document: &T) {
        self.transact(&[TxnOp::Set { key, value: written(document) }]);
    }

    /// One transaction: all of it or nothing. `unconditional` is the planted bug.
    pub(crate) fn submit(&mut self, p: &Proposal, unconditional: bool) -> Option<u64> {
        let mut ops = proposal_ops(&self.layout, p);
        if let Some(TxnOp::Cas { key, value, .. }) = ops.first().filter(|_| unconditional).cloned() {
            ops[0] = TxnOp::Set { key, value };
        }
        let before = self.view();
        let index = self.transact(&ops)?.first().map(|(_, index)| *index)?;
        if self.lost.is_some() {
            self.meddled.get_or_insert(format!("{} makes record {}", p.record.writer.node, p.record.stamp()));
        }
        self.past.push_front(before);
        self.past.truncate(4);
        Some(index)
    }

    pub(crate) fn answer(&mut self, outcome: &Outcome, command_index: u64) -> bool {
        self.transact(&answer_ops(&self.layout, &self.group, outcome, command_index)).is_some()
    }

    /// What an operator was told.
    pub(crate) fn result(&self, id: &str) -> Option<Outcome> {
        self.kv.get(&self.layout.result(&self.group, id)).and_then(|pair| serde_json::from_slice(&pair.value).ok())
    }

    /// False while another request stands there.
    pub(crate) fn ask(&mut self, command: &Command) -> bool {
        let (key, value) = (self.layout.command(&self.group), written(command));
        self.transact(&[TxnOp::Cas { key, value, index: 0 }]).is_some()
    }

    /// An operator's `config` and `pause`.
    pub(crate) fn pause(&mut self, paused: bool) -> bool {
        let Some(mut policy) = self.policy.clone().map(|(policy, _)| policy).filter(|p| p.paused != paused) else {
            return false;
        };
        policy.paused = paused;
        self.set(self.layout.config(&self.group), &policy);
        true
    }

    /// An operator lets a master that is alone answer by itself.
    pub(crate) fn unblock(&mut self) -> bool {
        let Some((mut policy, _)) = self.policy.clone() else { return false };
        let blocks = std::mem::replace(&mut policy.without_replica, WithoutReplica::Continue) == WithoutReplica::Block;
        if blocks {
            self.set(self.layout.config(&self.group), &policy);
        }
        blocks
    }

    /// An operator changes what the disks are to promise.
    pub(crate) fn toggle_fsync(&mut self) -> Option<bool> {
        let mut policy = self.policy.clone()?.0;
        policy.fsync = !policy.fsync;
        self.set(self.layout.config(&self.group), &policy);
        Some(policy.fsync)
    }

    /// The record as it was `ago` versions before, as after `consul snapshot restore`. It gets an index that nobody has
    /// decided on: a transaction that is under way for longer than a restore takes is not modelled.
    pub(crate) fn roll_back(&mut self, ago: usize) -> bool {
        let Some(older) = self.past.get(ago).and_then(|view| view.record.clone()) else { return false };
        let Some((now, _)) = self.record.take() else { return false };
        self.set(self.layout.record(&self.group), &older);
        self.lost = Some(now);
        self.past.clear();
        true
    }

    /// The record is deleted; with `all`, everything else is too.
    pub(crate) fn wipe(&mut self, all: bool) -> bool {
        let Some((now, _)) = self.record.take() else { return false };
        self.lost = Some(now);
        self.past.clear();
        let keys: Vec<String> = self.kv.list("").1.map(|(key, _)| key.clone()).collect();
        let gone = keys.into_iter().filter(|key| all || *key == self.layout.record(&self.group));
        let ops: Vec<TxnOp> = gone.map(|key| TxnOp::Delete { key }).collect();
        self.transact(&ops);
        if all {
            std::mem::take(&mut self.sessions).keys().for_each(|id| self.kv.end_session(id));
        }
        true
    }

    /// `resume --restore-record`, after its conditions were found to hold.
    pub(crate) fn restore(&mut self, record: &Record, policy: &Policy) {
        if self.policy.is_none() {
            self.set(self.layout.config(&self.group), policy);
        }
        self.set(self.layout.record(&self.group), record);
        self.lost = None;
    }

    /// An operator takes a request back that nobody has answered.
    pub(crate) fn withdraw(&mut self) {
        let key = self.layout.command(&self.group);
        self.transact(&[TxnOp::Delete { key }]);
    }

    /// An agent that leaves ends its session.
    pub(crate) fn end_session(&mut self, id: &str) {
        if let Some(at) = self.sessions.get_mut(id) {
            *at = 0;
        }
    }

    pub(crate) fn create_session(&mut self, id: &str, expires: u64) {
        self.kv.create_session(id);
        self.sessions.insert(id.to_owned(), expires);
    }

    /// False: there is no such session any more.
    pub(crate) fn renew(&mut self, id: &str, expires: u64) -> bool {
        self.sessions.get_mut(id).map(|at| *at = expires.max(*at)).is_some()
    }

    /// A member's key, in place of an earlier run's, whose session stands for a while.
    pub(crate) fn put_member(&mut self, session: &str, member: &Member) -> bool {
        let (key, value) = (self.layout.member(&self.group, &member.id), written(member));
        let holder = self.kv.get(&key).and_then(|pair| pair.session.clone()).filter(|holder| holder != session);
        let unlock = holder.map(|session| TxnOp::Unlock { key: key.clone(), value: value.clone(), session });
        let lock = TxnOp::Lock { key, value, session: session.to_owned() };
        let ops: Vec<TxnOp> = unlock.into_iter().chain([lock]).collect();
        self.transact(&ops).is_some()
    }

    /// Ends what has run out, and deletes the keys it held.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let over: Vec<String> = self.sessions.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in &over {
            self.sessions.remove(id);
            self.kv.end_session(id);
        }
        self.look();
        !over.is_empty()
    }

    /// A new leader starts every session's timer anew.
    pub(crate) fn restart_timers(&mut self, expires: u64) {
        self.sessions.values_mut().for_each(|at| *at = expires.max(*at));
    }
}

/// The document of a key; as it was known when its index is the same.
fn read<T: DeserializeOwned>(pair: Option<&Pair>, known: Option<(T, u64)>) -> Option<(T, u64)> {
    let pair = pair?;
    known
        .filter(|(_, index)| *index == pair.modified)
        .or_else(|| serde_json::from_slice(&pair.value).ok().map(|document| (document, pair.modified)))
}

/// Our documents are structs of strings, numbers and lists, which always have a JSON form.
fn written<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}
