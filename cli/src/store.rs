//! What the operator's commands read and write in Consul, with sentences for what can go wrong.

use crate::args::ConsulArgs;
use crate::exit::{Failure, chain};
use config::ConsulConfig;
use consul::{Consistency, Consul, Entry, Forgotten, GroupView, TxnOp, Written, decode, proposal_ops};
use election::{Command, GroupName, HistoryEntry, Member, Outcome, Policy, Proposal};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Consul, as the operator's commands need it.
#[derive(Clone)]
pub struct Store {
    consul: Consul,
    settings: ConsulConfig,
}

/// Everything that stands in Consul of one group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Record, policy, members, request.
    pub view: GroupView,
    /// The takeovers that are remembered, by epoch.
    pub history: Vec<HistoryEntry>,
    /// What the nodes last said of themselves, those that have gone included.
    pub nodes: Vec<Member>,
    /// The results that nobody has fetched, by id, the oldest first.
    pub unfetched: Vec<String>,
    /// The nodes that will not return, as operators have said.
    pub forgotten: Vec<Forgotten>,
    /// The form of what stands in the record's place, when that much of it can be read.
    pub record_form: Option<u32>,
    /// What is wrong with the policy that stands there, if it cannot be read.
    pub policy_fault: Option<String>,
}

/// What became of writing something down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is there.
    Done,
    /// Something else is there.
    Taken,
}

/// The one field of a record that every form has.
#[derive(Deserialize)]
struct Form {
    v: u32,
}

impl Store {
    /// Finds Consul as the options say, else the environment, as the `consul` command does.
    pub fn connect(args: &ConsulArgs) -> Result<Self, Failure> {
        let settings = ConsulConfig::for_command(args.address.as_deref(), args.prefix.as_deref())
            .map_err(|faults| Failure::config(faults.to_string()))?;
        let consul = Consul::connect(&settings).map_err(|error| Failure::config(chain(&error)))?;
        Ok(Self { consul, settings })
    }

    /// The groups there are, by name.
    pub async fn groups(&self) -> Result<Vec<GroupName>, Failure> {
        let layout = self.consul.layout();
        let folders = self.consul.names(&layout.root()).await.map_err(|error| self.failure(&error))?;
        let mut groups = layout.groups_in(&folders);
        groups.sort();
        Ok(groups)
    }

    /// Everything of a group; one that is not there is a failure that names those that are.
    pub async fn group(&self, name: &str) -> Result<Group, Failure> {
        let name = GroupName::from(name);
        if !could_be_group(name.as_str()) {
            return Err(self.unknown(&name).await);
        }
        let layout = self.consul.layout();
        let listing = self.consul.list(&layout.group(&name), Consistency::Consistent).await;
        let listing = listing.map_err(|error| self.failure(&error))?;
        if listing.entries.is_empty() {
            return Err(self.unknown(&name).await);
        }
        let entries = &listing.entries;
        let view = layout.view(&name, entries, listing.index);
        let mut history: Vec<HistoryEntry> = self.all_in(entries, &layout.histories(&name))?;
        history.sort_by_key(|entry| entry.epoch);
        let nodes = self.all_in(entries, &layout.nodes(&name))?;
        let folder = layout.results(&name);
        let mut results: Vec<&Entry> = entries.iter().filter(|entry| entry.key.starts_with(&folder)).collect();
        results.sort_by_key(|entry| entry.modify_index);
        let unfetched = results.iter().filter_map(|entry| entry.key.strip_prefix(&folder)).map(str::to_owned).collect();
        let forgotten = self.all_in(entries, &layout.forgotten_nodes(&name))?;
        let at = |key: String| entries.iter().find(move |entry| entry.key == key);
        let record_form = at(layout.record(&name)).and_then(|entry| decode::<Form>(entry).ok()).map(|form| form.v);
        let policy = at(layout.config(&name)).map(decode::<Policy>);
        let policy_fault = policy.and_then(Result::err).map(|error| error.whole());
        Ok(Group { name, view, history, nodes, unfetched, forgotten, record_form, policy_fault })
    }

    /// The stories of a group, the oldest first.
    pub async fn history(&self, group: &GroupName) -> Result<Vec<HistoryEntry>, Failure> {
        self.consul.history(group).await.map_err(|error| self.failure(&error))
    }

    /// Writes the policy, if it was last changed at `index`; 0: if there is none.
    pub async fn put_policy(&self, group: &GroupName, policy: &Policy, index: u64) -> Result<Put, Failure> {
        match self.consul.put_policy(group, policy, index).await.map_err(|error| self.failure(&error))? {
            Written::Applied { .. } => Ok(Put::Done),
            Written::Refused { .. } => Ok(Put::Taken),
            Written::Unknown { why } => Err(unknown(group, "the policy was changed", &why, "config")),
        }
    }

    /// Does one transaction of a group's documents; `Taken`: something was not as it was read.
    pub async fn propose(&self, group: &GroupName, proposal: &Proposal) -> Result<Put, Failure> {
        let ops = proposal_ops(self.consul.layout(), proposal);
        match self.consul.transact(ops).await.map_err(|error| self.failure(&error))? {
            Written::Applied { .. } => Ok(Put::Done),
            Written::Refused { .. } => Ok(Put::Taken),
            Written::Unknown { why } => Err(unknown(group, "the record was written", &why, "status")),
        }
    }

    /// Leaves word that a node will not return.
    pub async fn forget_node(&self, group: &GroupName, forgotten: &Forgotten) -> Result<(), Failure> {
        match self.consul.forget_node(group, forgotten).await.map_err(|error| self.failure(&error))? {
            Written::Applied { .. } => Ok(()),
            Written::Refused { why } => Err(Failure::new(why)),
            Written::Unknown { why } => Err(unknown(group, "the node is forgotten", &why, "status")),
        }
    }

    /// The ids of the instances registered as a group's service.
    pub async fn service_ids(&self, group: &GroupName) -> Result<Vec<String>, Failure> {
        self.consul.service_ids(group).await.map_err(|error| self.failure(&error))
    }

    /// Puts a request down, if none is there.
    pub async fn put_command(&self, group: &GroupName, command: &Command) -> Result<Put, Failure> {
        match self.consul.put_command(group, command).await.map_err(|error| self.failure(&error))? {
            Written::Applied { .. } => Ok(Put::Done),
            Written::Refused { .. } => self.whose(group, &command.id).await,
            Written::Unknown { why } => match self.whose(group, &command.id).await? {
                Put::Done => Ok(Put::Done),
                Put::Taken => Err(unknown(group, "the request was taken", &why, "status")),
            },
        }
    }

    /// The request that is there, with its index.
    pub async fn command(&self, group: &GroupName) -> Result<Option<(Command, u64)>, Failure> {
        let entry = self.consul.get(&self.consul.layout().command(group), Consistency::Consistent).await;
        let Some(entry) = entry.map_err(|error| self.failure(&error))? else {
            return Ok(None);
        };
        let command = decode(&entry).map_err(|error| self.failure(&error))?;
        Ok(Some((command, entry.modify_index)))
    }

    /// Takes a request away if it is still the one of that index. Whether it was there.
    pub async fn withdraw(&self, group: &GroupName, index: u64) -> Result<bool, Failure> {
        let op = TxnOp::DeleteCas { key: self.consul.layout().command(group), index };
        let written = self.consul.transact(vec![op]).await.map_err(|error| self.failure(&error))?;
        Ok(written.is_applied())
    }

    /// What became of a request, once that is known.
    pub async fn outcome(&self, group: &GroupName, id: &str) -> Result<Option<Outcome>, Failure> {
        self.consul.result(group, id).await.map_err(|error| self.failure(&error))
    }

    /// Forgets what became of a request: it has been told.
    pub async fn forget_outcome(&self, group: &GroupName, id: &str) -> Result<(), Failure> {
        let written = self.consul.forget_result(group, id).await.map_err(|error| self.failure(&error))?;
        if !written.is_applied() {
            tracing::debug!(group = group.as_str(), id, "the result stays in Consul");
        }
        Ok(())
    }

    async fn whose(&self, group: &GroupName, id: &str) -> Result<Put, Failure> {
        match self.command(group).await? {
            Some((command, _)) if command.id == id => Ok(Put::Done),
            _ => Ok(Put::Taken),
        }
    }

    fn all_in<T: DeserializeOwned>(&self, entries: &[Entry], folder: &str) -> Result<Vec<T>, Failure> {
        let inside = entries.iter().filter(|entry| entry.key.starts_with(folder));
        inside.map(decode).collect::<Result<_, _>>().map_err(|error| self.failure(&error))
    }

    async fn unknown(&self, name: &GroupName) -> Failure {
        let known = match self.groups().await {
            Ok(known) => known,
            Err(failure) => return failure,
        };
        let place = format!("in Consul at {} under `{}`", self.settings.addresses.join(", "), self.settings.prefix);
        if known.is_empty() {
            return Failure::new(format!("there is no group `{name}`, nor any other, {place}"));
        }
        let names: Vec<&str> = known.iter().map(GroupName::as_str).collect();
        Failure::new(format!("there is no group `{name}` {place}; there is {}", names.join(", ")))
    }

    fn failure(&self, error: &consul::Error) -> Failure {
        match error {
            consul::Error::Unreachable { tried, .. } => {
                let tried: Vec<String> = tried.iter().map(|t| format!("{} ({})", t.address, t.why)).collect();
                Failure::no_consul(format!(
                    "no Consul answers: tried {}; name one with --consul or CONSUL_HTTP_ADDR",
                    tried.join(", ")
                ))
            }
            // Consul is there and cannot serve: for whoever waits for it, the same as not there.
            consul::Error::Status { code, .. } if *code >= 500 => Failure::no_consul(chain(error)),
            consul::Error::File { .. } | consul::Error::Setup { .. } => Failure::config(chain(error)),
            _ => Failure::new(chain(error)),
        }
    }
}

/// A write whose end nobody knows; `verb` shows how it ended.
fn unknown(group: &GroupName, what: &str, why: &str, verb: &str) -> Failure {
    Failure::no_consul(format!(
        "Consul did not say whether {what} ({why}); look with `understudy {verb} {group}` before you ask again"
    ))
}

/// Whether a group may be called so; anything else would name other keys.
fn could_be_group(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(allowed) && name != consul::PROXIES
}

#[cfg(test)]
mod tests {
    use super::could_be_group;

    #[test]
    fn a_name_that_leads_elsewhere_is_no_group() {
        assert!(could_be_group("backend-redis"));
        for name in ["", "a/b", "../x", "proxies", "A", "a b", &"a".repeat(64)] {
            assert!(!could_be_group(name), "{name}");
        }
    }
}
