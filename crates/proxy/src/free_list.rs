//! Free lists of objects for reuse.

/// A free list. It keeps as many objects as were used recently: see [`Self::trim`].
pub(super) struct FreeList<T> {
    free: Vec<T>,
    /// The fewest on the list since the last trim.
    fewest: usize,
    /// The most that are kept.
    most: usize,
}

impl<T> FreeList<T> {
    /// An empty list for at most `most`.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            free: Vec::new(),
            fewest: 0,
            most,
        }
    }

    /// Takes the object returned last, which is most likely still in the CPU's cache.
    pub(super) fn take(&mut self) -> Option<T> {
        let taken = self.free.pop();
        self.fewest = self.fewest.min(self.free.len());
        taken
    }

    /// Returns an object, which is kept if there is room.
    pub(super) fn give(&mut self, thing: T) {
        if self.free.len() < self.most {
            self.free.push(thing);
        }
    }

    /// Drops the objects that were not needed since the last call.
    pub(super) fn trim(&mut self) {
        self.free.drain(..self.fewest);
        self.fewest = self.free.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_needed_since_the_last_trim_is_dropped() {
        let mut spare = FreeList::new(8);
        (0..8).for_each(|thing| spare.give(thing));
        spare.trim();
        assert_eq!(spare.take(), Some(7), "none had been free all the time");
        assert_eq!(spare.take(), Some(6));
        spare.give(6);
        spare.give(7);
        // Two were in use at once.
        spare.trim();
        assert_eq!(spare.take(), Some(7));
        assert_eq!(spare.take(), Some(6));
        assert_eq!(spare.take(), None);
    }

    #[test]
    fn no_more_are_kept_than_allowed() {
        let mut spare = FreeList::new(1);
        spare.give('a');
        spare.give('b');
        assert_eq!((spare.take(), spare.take()), (Some('a'), None));
    }
}
