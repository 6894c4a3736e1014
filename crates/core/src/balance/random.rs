//! Two members are drawn by weight, and the less loaded one is taken.

use super::Load;

/// How often two are drawn before all members are scanned.
const DRAWS: usize = 4;

/// The weights as a Fenwick tree, so that a change or a draw costs the logarithm of their number: `sums[i]` is the sum
/// of the members from `i & (i + 1)` to `i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Random {
    sums: Vec<u64>,
    weights: Vec<u32>,
    total: u64,
}

impl Random {
    /// `count` members, none of which takes part yet.
    pub(super) fn new(count: usize) -> Self {
        Self {
            sums: vec![0; count],
            weights: vec![0; count],
            total: 0,
        }
    }

    /// Changes a weight; with 0 the member is never drawn.
    pub(super) fn set_weight(&mut self, index: usize, weight: u32) {
        let before = u64::from(std::mem::replace(&mut self.weights[index], weight));
        self.total = self.total - before + u64::from(weight);
        let mut at = index;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at] - before + u64::from(weight);
            at |= at + 1;
        }
    }

    /// The less loaded of two suitable members drawn by weight.
    pub(super) fn pick(
        &self,
        fits: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        // If neither has any load the first is taken, so that the weights alone decide.
        let is_lighter = |one: usize, other: usize| {
            let cross = |a, b: usize| u64::from(load(a).in_flight) * u64::from(self.weights[b]);
            cross(one, other) < cross(other, one)
        };
        for _ in 0..DRAWS {
            let first = self.at(rng.u64(..self.total));
            let fitting = [Some(first), self.other(first, rng)]
                .map(|drawn| drawn.filter(|&index| fits(index)));
            match fitting {
                [Some(one), Some(other)] if is_lighter(other, one) => return Some(other),
                [Some(one), _] | [None, Some(one)] => return Some(one),
                [None, None] => {}
            }
        }
        let start = self.at(rng.u64(..self.total));
        let count = self.weights.len();
        let mut all = (start..count).chain(0..start);
        all.find(|&index| self.weights[index] > 0 && fits(index))
    }

    /// A member drawn from all but `first`.
    fn other(&self, first: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let left_out = u64::from(self.weights[first]);
        let rest = self.total - left_out;
        let drawn = (rest > 0).then(|| rng.u64(..rest))?;
        Some(self.at(if drawn < self.before(first) {
            drawn
        } else {
            drawn + left_out
        }))
    }

    /// The sum of the weights before this member.
    fn before(&self, index: usize) -> u64 {
        let (mut sum, mut end) = (0, index);
        while end > 0 {
            sum += self.sums[end - 1];
            end &= end - 1;
        }
        sum
    }

    /// The member whose range of the running total contains `place`.
    fn at(&self, mut place: u64) -> usize {
        let (mut index, mut step) = (0, self.sums.len().next_power_of_two());
        while step > 0 {
            if let Some(&sum) = self.sums.get(index + step - 1)
                && sum <= place
            {
                place -= sum;
                index += step;
            }
            step /= 2;
        }
        index
    }
}
