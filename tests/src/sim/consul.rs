//! A model of Consul's keys of one group: check-and-set by ModifyIndex, locks that protect nothing, sessions that end
//! late.

use election::{Command, Member, NodeId, Outcome, Policy, Proposal, Record, View};
use std::collections::{BTreeMap, VecDeque};

/// What stands in Consul.
#[derive(Debug, Default)]
pub(crate) struct Consul {
    pub(crate) record: Option<(Record, u64)>,
    pub(crate) leader: Option<String>,
    members: BTreeMap<NodeId, (Member, String)>,
    policy: Option<Policy>,
    command: Option<(Command, u64)>,
    pub(crate) results: BTreeMap<String, Outcome>,
    sessions: BTreeMap<String, u64>,
    index: u64,
    past: VecDeque<View>,
    pub(crate) outage: bool,
    /// What the group had agreed on when Consul's data went back or vanished; nobody may act on anything else.
    pub(crate) lost: Option<Record>,
    /// When it did, and until an operator puts the record back, everything that is applied is wrong.
    pub(crate) meddled: Option<String>,
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
            policy: self.policy.clone(),
            command: self.command.clone(),
            ..View::default()
        }
    }

    /// What a server that lags says: a few versions of the record ago.
    pub(crate) fn past_view(&self, ago: usize) -> View {
        self.past.get(ago).cloned().unwrap_or_else(|| self.view())
    }

    /// One transaction: all of it or nothing. `unconditional` is the planted bug.
    pub(crate) fn submit(&mut self, p: &Proposal, unconditional: bool) -> Option<u64> {
        let stands = self.record.as_ref().map_or(0, |(_, i)| *i);
        if (stands != p.index && !unconditional) || !self.leader_may_change(p) {
            return None;
        }
        if p.consume.is_some() && p.consume != self.command.as_ref().map(|(_, i)| *i) {
            return None;
        }
        if self.lost.is_some() {
            self.meddled.get_or_insert(format!("{} makes record {}", p.record.writer.node, p.record.stamp()));
        }
        self.past.push_front(self.view());
        self.past.truncate(4);
        self.index += 1;
        if let Some(take) = &p.take_leader {
            self.leader = Some(take.to.clone());
        }
        if let Some(policy) = &p.policy {
            self.policy = Some(policy.clone());
        }
        if let Some(outcome) = &p.result {
            self.results.insert(outcome.id.clone(), outcome.clone());
        }
        if p.consume.is_some() {
            self.command = None;
        }
        // Consul gives a value that is the same no new index.
        let same = self.record.as_ref().is_some_and(|(r, _)| *r == p.record);
        let index = if same { stands } else { self.index };
        self.record = Some((p.record.clone(), index));
        Some(index)
    }

    /// `unlock` of a session that does not hold the key, and `lock` by a session that has ended, fail the transaction.
    fn leader_may_change(&self, p: &Proposal) -> bool {
        let Some(take) = &p.take_leader else { return true };
        if !self.sessions.contains_key(&take.to) {
            return false;
        }
        match &take.from {
            Some(from) => self.leader.as_ref() == Some(from),
            None => self.leader.as_ref().is_none_or(|l| *l == take.to),
        }
    }

    pub(crate) fn answer(&mut self, outcome: &Outcome, command_index: u64) -> bool {
        if self.command.as_ref().map(|(_, i)| *i) != Some(command_index) {
            return false;
        }
        self.index += 1;
        self.command = None;
        self.results.insert(outcome.id.clone(), outcome.clone());
        true
    }

    /// False while another request stands there.
    pub(crate) fn ask(&mut self, command: Command) -> bool {
        if self.command.is_some() {
            return false;
        }
        self.index += 1;
        self.command = Some((command, self.index));
        true
    }

    /// An operator's `config` and `pause`.
    pub(crate) fn pause(&mut self, paused: bool) -> bool {
        let Some(policy) = self.policy.as_mut().filter(|p| p.paused != paused) else { return false };
        policy.paused = paused;
        self.index += 1;
        true
    }

    /// An operator changes what the disks are to promise.
    pub(crate) fn toggle_fsync(&mut self) -> Option<bool> {
        let policy = self.policy.as_mut()?;
        policy.fsync = !policy.fsync;
        self.index += 1;
        Some(policy.fsync)
    }

    /// The record as it was `ago` versions before, as after `consul snapshot restore`. It gets an index that nobody has
    /// decided on: a transaction that is under way for longer than a restore takes is not modelled.
    pub(crate) fn roll_back(&mut self, ago: usize) -> bool {
        let Some(older) = self.past.get(ago).and_then(|view| view.record.clone()) else { return false };
        let Some((now, _)) = self.record.take() else { return false };
        self.index += 1;
        self.record = Some((older, self.index));
        self.lost = Some(now);
        self.past.clear();
        true
    }

    /// The record is deleted; with `all`, everything else is too.
    pub(crate) fn wipe(&mut self, all: bool) -> bool {
        let Some((now, _)) = self.record.take() else { return false };
        self.index += 1;
        self.lost = Some(now);
        self.past.clear();
        if all {
            (self.policy, self.command, self.leader) = (None, None, None);
            self.members.clear();
            self.sessions.clear();
        }
        true
    }

    /// `resume --restore-record`, after its conditions were found to hold.
    pub(crate) fn restore(&mut self, record: Record, policy: &Policy) {
        self.index += 1;
        self.policy.get_or_insert_with(|| policy.clone());
        self.record = Some((record, self.index));
        self.lost = None;
    }

    /// An operator takes a request back that nobody has answered.
    pub(crate) fn withdraw(&mut self) {
        self.index += 1;
        self.command = None;
    }

    /// An agent that leaves ends its session.
    pub(crate) fn end_session(&mut self, id: &str) {
        if let Some(at) = self.sessions.get_mut(id) {
            *at = 0;
        }
    }

    pub(crate) fn create_session(&mut self, id: &str, expires: u64) {
        self.sessions.insert(id.to_owned(), expires);
    }

    /// False: there is no such session any more.
    pub(crate) fn renew(&mut self, id: &str, expires: u64) -> bool {
        self.sessions.get_mut(id).map(|at| *at = expires.max(*at)).is_some()
    }

    pub(crate) fn put_member(&mut self, session: &str, member: Member) -> bool {
        if !self.sessions.contains_key(session) {
            return false;
        }
        self.index += 1;
        self.members.insert(member.id.clone(), (member, session.to_owned()));
        true
    }

    /// Ends what has run out, and deletes the keys it held.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let before = self.sessions.len();
        self.sessions.retain(|_, at| *at > now);
        if self.sessions.len() == before {
            return false;
        }
        self.index += 1;
        self.leader = self.leader.take().filter(|l| self.sessions.contains_key(l));
        let sessions = &self.sessions;
        self.members.retain(|_, (_, s)| sessions.contains_key(s));
        true
    }

    /// A new leader starts every session's timer anew.
    pub(crate) fn restart_timers(&mut self, expires: u64) {
        self.sessions.values_mut().for_each(|at| *at = expires.max(*at));
    }
}
