//! The names of clients and links: a slot, and a generation that makes late events of a closed one harmless.

/// Generations stay below this, so that a name fits an epoll token beside a mark.
const GENERATIONS: u32 = 1 << 31;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name {
            slot: u32,
            generation: u32,
        }

        impl $name {
            /// The place in dense tables; reused by a later one.
            #[inline]
            pub(crate) fn slot(self) -> u32 {
                self.slot
            }

            /// Which of the slot's tenants, below 2^31.
            #[inline]
            pub(crate) fn generation(self) -> u32 {
                self.generation
            }

            /// The name that was taken apart before.
            #[inline]
            pub(crate) fn from_parts(slot: u32, generation: u32) -> Self {
                Self { slot, generation }
            }
        }

        impl Id for $name {
            #[inline]
            fn new(slot: u32, generation: u32) -> Self {
                Self { slot, generation }
            }

            #[inline]
            fn parts(self) -> (u32, u32) {
                (self.slot, self.generation)
            }
        }
    };
}

/// What a [`Slab`] is asked with.
pub(super) trait Id: Copy {
    /// Puts a name together.
    fn new(slot: u32, generation: u32) -> Self;
    /// Slot and generation.
    fn parts(self) -> (u32, u32);
}

id! {
    /// A client's connection.
    ClientId
}
id! {
    /// A connection to a database.
    LinkId
}

/// Values by slot. A slot is free again only when it is released, which is later than its value's end: until then no
/// event of the old tenant can be taken for one of the next.
#[derive(Debug)]
pub(super) struct Slab<I, T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
    names: std::marker::PhantomData<I>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<I: Id, T> Slab<I, T> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), len: 0, names: std::marker::PhantomData }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> I {
        self.len += 1;
        if let Some(slot) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(slot as usize)
        {
            entry.generation = (entry.generation + 1) % GENERATIONS;
            entry.value = Some(value);
            return I::new(slot, entry.generation);
        }
        let slot = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { generation: 0, value: Some(value) });
        I::new(slot, 0)
    }

    #[inline]
    pub(super) fn get(&self, id: I) -> Option<&T> {
        let (slot, generation) = id.parts();
        self.entries.get(slot as usize).filter(|entry| entry.generation == generation)?.value.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        let (slot, generation) = id.parts();
        self.entries.get_mut(slot as usize).filter(|entry| entry.generation == generation)?.value.as_mut()
    }

    /// Ends a value; its slot stays taken until [`Self::release`].
    pub(super) fn remove(&mut self, id: I) -> Option<T> {
        let (slot, generation) = id.parts();
        let entry = self.entries.get_mut(slot as usize).filter(|entry| entry.generation == generation)?;
        let value = entry.value.take()?;
        self.len -= 1;
        Some(value)
    }

    /// Lets the slot of an ended value be used again.
    pub(super) fn release(&mut self, id: I) {
        self.free.push(id.parts().0);
    }

    /// The names of all values.
    pub(super) fn ids(&self) -> impl Iterator<Item = I> + '_ {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.value.is_some())
            .map(|(slot, entry)| I::new(u32::try_from(slot).unwrap_or(u32::MAX), entry.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_name_finds_nobody() {
        let mut slab = Slab::<ClientId, char>::new();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        let b = slab.insert('b');
        assert_ne!(a.slot(), b.slot(), "a slot is not reused before it is released");
        slab.release(a);
        let c = slab.insert('c');
        assert_eq!((a.slot(), slab.get(a), slab.get(c), slab.len()), (c.slot(), None, Some(&'c'), 2));
        assert_eq!(slab.ids().count(), 2);
    }
}
