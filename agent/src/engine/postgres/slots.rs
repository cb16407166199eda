//! Replication slots: each copy has one at its source, by which the source keeps what of its log the copy lacks while it is
//! away, up to `max_slot_wal_keep_size`.
//!
//! The copy's agent makes it where the copy is fed, and removes it everywhere else. The source's agent removes those that
//! the server has given up for their size, and those of nodes that were struck off the group. A slot spares a clone and
//! nothing else: nobody's safety rests on there being one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use election::{Address, Secret};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::config::CHAIN;
use super::link::{self, Link, Target, literal};
use super::{Postgres, marker};

/// What the names of all of ours begin with.
const PREFIX: &str = "understudy_";

/// How often slots are seen to. One that is left over costs disk, within its bound, and nothing else.
const EVERY: Duration = Duration::from_secs(30);

/// A process of the server's that is told to end does so within this; it is tried again anyway.
const FREE_WITHIN: Duration = Duration::from_millis(300);

/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// So much of a host's name is part of its slot's, for people; what tells one from another comes behind it.
const HOST_CHARS: usize = 30;

/// The name of a copy's slot, at whichever source. PostgreSQL allows small letters, digits and `_`, 63 of them.
pub(super) fn name(copy: &Address) -> String {
    let host = copy.host.to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let readable: String = host.chars().map(plain).take(HOST_CHARS).collect();
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(&host));
    format!("{PREFIX}{readable}_{}_{a:02x}{b:02x}{c:02x}{d:02x}", copy.port)
}

/// What a source says of a copy's slot.
#[derive(Debug, Deserialize)]
struct Slot {
    lost: bool,
    pid: Option<i32>,
}

/// Sees that the copy has a slot at its source; whether it has. `receiving`: the copy is being fed at this moment.
pub(super) async fn reserve(link: &mut Link, copy: &Address, receiving: bool) -> Result<bool, sqlx::Error> {
    let slot = literal(&name(copy));
    let question = format!(
        "SELECT json_build_object('lost', wal_status IS NOT DISTINCT FROM 'lost', 'pid', active_pid)::text
         FROM pg_replication_slots WHERE slot_name = {slot}"
    );
    match link.json::<Slot>(question).await? {
        Some(Slot { lost: false, pid: None }) => return Ok(true),
        Some(Slot { lost: false, pid: Some(pid) }) => {
            if !receiving {
                // The source has not noticed yet that the link of before has ended, and would refuse another.
                let _ = link.text(format!("SELECT pg_terminate_backend({pid})::text")).await;
                let free = format!("NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot} AND active)");
                let until = Instant::now() + FREE_WITHIN;
                while !link.holds(&free).await? && Instant::now() < until {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
            return Ok(true);
        }
        Some(Slot { lost: true, .. }) => link.text(format!("SELECT pg_drop_replication_slot({slot})::text")).await?,
        None => None,
    };
    let made = link.text(format!("SELECT (pg_create_physical_replication_slot({slot}, true)).slot_name::text")).await;
    match made {
        Ok(_) => Ok(true),
        // There may be as many as the source allows.
        Err(error) if error.as_database_error().is_some() => {
            info!(%error, "the source has no slot for this copy: it is cloned if it falls behind what the source keeps");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// What has been seen to.
#[derive(Debug, Default)]
pub(super) struct Slots {
    task: Option<JoinHandle<BTreeSet<Address>>>,
    due: Option<Instant>,
    /// Where the copy was fed from when it was looked last.
    source: Option<Address>,
    /// Who has no slot of this copy since.
    swept: BTreeSet<Address>,
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Slots {
    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Postgres {
    /// Sees to slots that are left over, now and then and in the background. The server has just answered.
    pub(super) async fn tend_slots(&mut self) {
        let source = self.pursuit.follows().map(|(source, _)| source);
        if self.slots.source != source {
            // A slot that was left over may be in use again.
            self.slots = Slots::default();
            self.slots.source = source;
        }
        let slots = &mut self.slots;
        if let Some(task) = slots.task.take_if(|task| task.is_finished()) {
            slots.swept.append(&mut task.await.unwrap_or_default());
        }
        if slots.task.is_some() || slots.due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        slots.due = Some(Instant::now() + EVERY);
        let others = self.setup.site.agents.borrow();
        let sweep = others.keys().filter(|at| Some(*at) != slots.source.as_ref() && !slots.swept.contains(at));
        let own = self.setup.address();
        let errand = Errand {
            target: self.setup.target(),
            sweep: sweep.filter(|at| **at != own).cloned().collect(),
            own,
            nodes: self.setup.site.nodes.borrow().clone(),
        };
        slots.task = Some(tokio::spawn(errand.run()));
    }
}

/// One round.
struct Errand {
    target: Target,
    own: Address,
    /// Where this copy is to have no slot.
    sweep: Vec<Address>,
    /// Whose slots may be here, when that is known.
    nodes: Option<BTreeSet<Address>>,
}

impl Errand {
    /// Gives who has no slot of this copy any more.
    async fn run(self) -> BTreeSet<Address> {
        let chain = match self.tidy().await {
            Ok(chain) => chain,
            Err(error) => {
                debug!(%error, "slots that are left over were not removed");
                None
            }
        };
        let mut swept = BTreeSet::new();
        // Whoever has no password of the chain yet was never fed by anybody.
        let Some(chain) = chain else { return swept };
        for at in &self.sweep {
            match link::answered(self.remove_from(at, &chain)).await {
                Ok(()) => drop(swept.insert(at.clone())),
                Err(error) => debug!(%at, %error, "a slot that is left over there was not removed"),
            }
        }
        swept
    }

    /// Removes what is left over on the own server. Gives the password of the chain, when there is one.
    async fn tidy(&self) -> Result<Option<Secret>, sqlx::Error> {
        let mut link = Link::open(&self.target).await?;
        let left_over = match &self.nodes {
            None => "wal_status = 'lost'".to_owned(),
            Some(nodes) => {
                let names: Vec<String> = nodes.iter().map(|node| literal(&name(node))).collect();
                format!("(wal_status = 'lost' OR slot_name <> ALL (ARRAY[{}]::text[]))", names.join(", "))
            }
        };
        let sql = format!(
            "SELECT count(pg_drop_replication_slot(slot_name))::text FROM pg_replication_slots
             WHERE slot_type = 'physical' AND NOT active AND starts_with(slot_name, '{PREFIX}') AND {left_over}"
        );
        link.text(sql).await?;
        match link.holds(marker::IS_THERE).await? {
            true => Ok(link.text(marker::READ_CHAIN).await?.map(Secret::new)),
            false => Ok(None),
        }
    }

    async fn remove_from(&self, at: &Address, chain: &Secret) -> Result<(), sqlx::Error> {
        let mut link = Link::remote(at, CHAIN, chain).await?;
        let slot = literal(&name(&self.own));
        let sql = format!(
            "SELECT count(pg_drop_replication_slot(slot_name))::text FROM pg_replication_slots
             WHERE slot_name = {slot} AND NOT active"
        );
        link.text(sql).await?;
        // One that is still in use is removed in the next round.
        let gone = format!("NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot})");
        if link.holds(&gone).await? { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_name_is_one_to_postgresql_and_the_copys_alone() {
        let hosts = ["db1.example", "db1-example", "10.0.0.11", &"a".repeat(46), "fe80::1"];
        let names: BTreeSet<String> = hosts.map(|host| name(&Address::new(host, 65_535))).into();
        assert_eq!(names.len(), hosts.len());
        for name in &names {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.len() <= 63 && name.chars().all(allowed), "{name}");
        }
        assert_eq!(name(&Address::new("DB1.example", 1)), name(&Address::new("db1.example", 1)));
    }
}
