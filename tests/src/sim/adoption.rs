//! Data that were there before: a group that begins with them, a group that finds them too late, and a folder that
//! nobody gave to it, under the faults of a seed.

use super::bugs::Bug;
use super::data::{Data, Entry};
use super::mix::{Fault, Mix};
use super::rng::Rng;
use super::world::{World, name};
use super::{FORMED_US, HEALED_US, recover};

/// The node whose file says `adopt = true`, and the one whose file does not.
const ADOPTS: usize = 0;
const DOES_NOT: usize = 2;

/// Keys in a folder that is not the group's yet.
const KEYS: u32 = 64;

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The group began with them.
    Adopted,
    /// There was a group already: they lie as they were.
    TooLate,
}

/// Runs one seed in which a node brings data, `late` or before all others.
///
/// # Errors
/// What is wrong first.
pub fn adopt(seed: u64, late: bool, bug: Option<Bug>) -> Result<Adoption, String> {
    let mut rng = Rng::new(seed);
    let mut mix = Mix::draw(&mut rng);
    // What a lost disk held was nobody's doing.
    mix.faults.retain(|fault| *fault != Fault::DiskLost);
    mix.faults.push(Fault::KillNode);
    mix.nodes = 4;
    mix.priorities = vec![100; mix.nodes];
    // What it holds cannot become a copy.
    mix.priorities[DOES_NOT] = 0;
    let mut w = World::of(rng, mix, bug, false, &format!("adoption, seed {seed}"));
    let brought = bring(&mut w, ADOPTS);
    let lying = bring(&mut w, DOES_NOT);
    w.nodes[ADOPTS].adopt = true;
    let (first, others) = if late { (3_000_000, 0) } else { (0, 1_500_000) };
    for n in 0..w.mix.nodes {
        w.after(if n == ADOPTS { first } else { others }, move |w| w.start_agent(n));
    }
    for proxy in 0..w.mix.proxies.len() {
        w.after(500_000, move |w| w.client(proxy));
    }
    w.after(0, World::expire_sessions);
    w.after(FORMED_US, |w| w.trouble(HEALED_US));
    let mut seen = Seen { brought, lying, became: None };
    while w.step(HEALED_US) {
        seen.look(&mut w);
    }
    if w.failure.is_none() {
        recover(&mut w);
        seen.look(&mut w);
    }
    match w.failure {
        Some(what) => Err(what),
        None => seen.became.ok_or_else(|| "there is no group at the end".to_owned()),
    }
}

/// Data that no agent has written.
fn bring(w: &mut World, n: usize) -> Data {
    let mut data = Data::default();
    for _ in 0..KEYS {
        data.apply(&Entry::Write(w.ledger.writes));
        w.ledger.writes += 1;
    }
    w.nodes[n].disk.replace(&data);
    w.nodes[n].foreign = true;
    data
}

struct Seen {
    brought: Data,
    lying: Data,
    became: Option<Adoption>,
}

impl Seen {
    /// What has to hold after each event.
    fn look(&mut self, w: &mut World) {
        let untouched = |n: usize, data: &Data| w.nodes[n].database.is_none() && w.nodes[n].disk.content() == *data;
        if !untouched(DOES_NOT, &self.lying) {
            return w.fail("a folder that nobody gave to the group is touched (invariant 13)");
        }
        if self.became.is_none()
            && let Some((record, _)) = &w.consul.record
        {
            let by = record.master.as_ref().is_some_and(|master| master.id == name(ADOPTS));
            self.became = Some(if by { Adoption::Adopted } else { Adoption::TooLate });
            if by {
                // From now on they are the group's, and as good as acknowledged.
                w.ledger.acked.add(&self.brought.writes);
            }
        }
        let lies = match self.became {
            None => self.brought.writes.missing_in(&w.nodes[ADOPTS].disk.content().writes).is_none(),
            Some(Adoption::TooLate) => {
                w.nodes[ADOPTS].database.is_none() && w.nodes[ADOPTS].disk.content() == self.brought
            }
            Some(Adoption::Adopted) => true,
        };
        if !lies {
            w.fail("data that were to be adopted are touched, and no group has begun with them (invariant 13)");
        }
    }
}
