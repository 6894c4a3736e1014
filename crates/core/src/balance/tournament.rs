//! The minimum of many keys, any of which may change.

/// A tournament tree with a key for each index: changing a key costs the depth of the tree, reading the minimum is
/// free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tournament<K> {
    keys: Vec<Option<K>>,
    /// The root is at 1, the children of `n` at `2n` and `2n + 1`; the second half holds the leaves, one per index.
    winners: Vec<usize>,
}

impl<K: Copy + Ord> Tournament<K> {
    /// `count` indices, none of which takes part.
    pub(super) fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        let mut tournament = Self {
            keys: vec![None; count],
            winners: vec![0; 2 * leaves],
        };
        for leaf in 0..leaves {
            tournament.winners[leaves + leaf] = leaf;
        }
        for node in (1..leaves).rev() {
            tournament.winners[node] = tournament.better(2 * node);
        }
        tournament
    }

    /// The key of an index; `None` while it takes no part.
    pub(super) fn key(&self, index: usize) -> Option<K> {
        self.keys[index]
    }

    /// Changes the key of an index.
    pub(super) fn set(&mut self, index: usize, key: Option<K>) {
        if self.keys[index] == key {
            return;
        }
        self.keys[index] = key;
        let mut node = (self.winners.len() / 2 + index) / 2;
        while node >= 1 {
            self.winners[node] = self.better(2 * node);
            node /= 2;
        }
    }

    /// The index with the least key, the first of equals; `None` if none takes part.
    pub(super) fn first(&self) -> Option<usize> {
        let first = self.winners[1];
        self.keys.get(first).copied().flatten().map(|_| first)
    }

    /// The winner of a node and its right neighbour.
    fn better(&self, left: usize) -> usize {
        let [left, right] = [self.winners[left], self.winners[left + 1]];
        let key = |index: usize| self.keys.get(index).copied().flatten();
        match (key(left), key(right)) {
            (Some(one), Some(other)) if other < one => right,
            (None, Some(_)) => right,
            (Some(_) | None, Some(_) | None) => left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_is_the_least(
            count in 0usize..20,
            changes in proptest::collection::vec((0usize..20, proptest::option::of(0u8..10)), 0..100),
        ) {
            let mut tournament = Tournament::new(count);
            for (index, key) in changes.into_iter().filter(|(index, _)| *index < count) {
                tournament.set(index, key);
                let least = (0..count)
                    .filter(|&index| tournament.key(index).is_some())
                    .min_by_key(|&index| tournament.key(index));
                prop_assert_eq!(tournament.first(), least);
            }
        }
    }
}
