//! The logs of the SQL engines. Everything that was ever written, by whomever, is one tree; a copy's log is the way from
//! its root to the copy's end, so that it can be seen whether one is the beginning of another.

use super::data::{Data, Entry};

/// A place in the tree: everything that lies on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Knot(u32);

struct Written {
    before: Knot,
    depth: u64,
    system: u32,
    timeline: u32,
    entry: Entry,
}

/// See the module.
pub(crate) struct Histories(Vec<Written>);

impl Histories {
    pub(crate) fn new() -> Self {
        Self(vec![Written { before: Knot(0), depth: 0, system: 0, timeline: 1, entry: Entry::Ping }])
    }

    fn at(&self, knot: Knot) -> &Written {
        &self.0[usize::try_from(knot.0).unwrap_or_default()]
    }

    /// Somebody whose log ends at `before` writes.
    pub(crate) fn add(&mut self, before: Knot, entry: Entry) -> Knot {
        let knot = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let last = self.at(before);
        let system = if entry == Entry::System { knot } else { last.system };
        let timeline = last.timeline + u32::from(entry == Entry::Promote);
        let depth = last.depth + 1;
        self.0.push(Written { before, depth, system, timeline, entry });
        Knot(knot)
    }

    /// How far it has come.
    pub(crate) fn depth(&self, at: Knot) -> u64 {
        self.at(at).depth
    }

    /// Who made the server that this history began with. Two of them have nothing in common.
    pub(crate) fn system(&self, at: Knot) -> u32 {
        self.at(at).system
    }

    /// How often a copy was promoted on the way. The number names no history: two that are promoted from the same place
    /// take the same.
    pub(crate) fn timeline(&self, at: Knot) -> u32 {
        self.at(at).timeline
    }

    /// The place on the way to `tip` that is so far.
    pub(crate) fn back_to(&self, tip: Knot, depth: u64) -> Knot {
        let mut at = tip;
        while self.depth(at) > depth {
            at = self.at(at).before;
        }
        at
    }

    /// Whether `part` lies on the way to `tip`.
    pub(crate) fn holds(&self, tip: Knot, part: Knot) -> bool {
        self.back_to(tip, self.depth(part)) == part
    }

    /// What lies between the two, oldest first.
    pub(crate) fn between(&self, after: Knot, tip: Knot) -> impl Iterator<Item = &Entry> {
        let (mut way, mut at) = (Vec::new(), tip);
        while self.depth(at) > self.depth(after) {
            way.push(at);
            at = self.at(at).before;
        }
        way.into_iter().rev().map(|knot| &self.at(knot).entry)
    }

    /// What a copy holds whose log ends here.
    pub(crate) fn data(&self, tip: Knot) -> Data {
        let mut data = Data::default();
        self.between(Knot::default(), tip).for_each(|entry| data.apply(entry));
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_part_where_they_were_written_apart() {
        let mut all = Histories::new();
        let system = all.add(Knot::default(), Entry::System);
        let common = all.add(system, Entry::Write(1));
        let (one, other) = (all.add(common, Entry::Promote), all.add(common, Entry::Promote));
        let longer = all.add(other, Entry::Write(2));
        assert_eq!((all.timeline(one), all.timeline(other)), (2, 2));
        assert!(
            all.holds(one, common)
                && all.holds(longer, common)
                && !all.holds(longer, one)
                && !all.holds(common, longer)
        );
        assert!(all.data(longer).writes.contains(1) && !all.data(one).writes.contains(2));
    }
}
