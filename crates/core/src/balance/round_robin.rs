//! Smooth weighted round robin: each member has turns at even distances, inversely proportional to its weight, and the
//! earliest turn of all is taken.

use super::tournament::Tournament;
use std::collections::BTreeMap;

/// After this many members that do not fit, all are scanned.
const SKIPS: usize = 32;

/// The algorithm's state. Turns are fixed-point numbers with 64 bits after the point; between two whole numbers each
/// member has as many turns as its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoundRobin {
    /// Each member's next turn.
    turns: Tournament<u128>,
    weights: Vec<u32>,
    /// Offset of a member's first turn: members of equal weight are spread out evenly.
    phases: Vec<u64>,
    /// The last turn that was taken.
    now: u128,
}

impl RoundRobin {
    /// Members of these configured weights, none of which takes part yet.
    pub(super) fn new(weights: impl Iterator<Item = u16> + Clone) -> Self {
        let mut equals = BTreeMap::<u16, (u64, u64)>::new();
        for weight in weights.clone() {
            equals.entry(weight).or_default().1 += 1;
        }
        let phase = |weight: u16| {
            let (before, count) = equals.entry(weight).or_default();
            let middle = u128::from(2 * *before + 1);
            *before += 1;
            u64::try_from((middle << 63) / u128::from(*count)).unwrap_or(u64::MAX)
        };
        let phases: Vec<_> = weights.map(phase).collect();
        Self {
            turns: Tournament::new(phases.len()),
            weights: vec![0; phases.len()],
            phases,
            now: 0,
        }
    }

    /// Takes over the turns; `old` maps an index to the one it had in `before`.
    pub(super) fn take_over(&mut self, before: &Self, old: impl Fn(usize) -> Option<usize>) {
        self.now = before.now;
        for index in 0..self.weights.len() {
            if let Some(old) = old(index) {
                self.weights[index] = before.weights[old];
                self.turns.set(index, before.turns.key(old));
            }
        }
    }

    /// Changes a weight; with 0 the member has no turns. The distance to its next turn scales with the weight.
    pub(super) fn set_weight(&mut self, index: usize, weight: u32) {
        let before = std::mem::replace(&mut self.weights[index], weight);
        if before == weight {
            return;
        }
        let away = match (self.turns.key(index), weight) {
            (_, 0) => return self.turns.set(index, None),
            (Some(turn), _) => {
                turn.saturating_sub(self.now) * u128::from(before) / u128::from(weight)
            }
            (None, _) => (distance(weight) * u128::from(self.phases[index])) >> 64,
        };
        self.turns.set(index, Some(self.now + away));
    }

    /// The member with the next turn that `fits`. One that does not fit loses its turn.
    pub(super) fn pick(&mut self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..SKIPS {
            let index = self.turns.first()?;
            self.pass(index);
            if fits(index) {
                return Some(index);
            }
        }
        let takers = (0..self.weights.len()).filter(|&index| self.weights[index] > 0);
        let index = takers
            .filter(|&index| fits(index))
            .min_by_key(|&index| self.turns.key(index))?;
        self.pass(index);
        Some(index)
    }

    fn pass(&mut self, index: usize) {
        if let Some(turn) = self.turns.key(index) {
            self.now = self.now.max(turn);
            let next = turn + distance(self.weights[index]);
            self.turns.set(index, Some(next));
        }
    }
}

/// Distance between two turns of a member of this weight, which is not 0.
fn distance(weight: u32) -> u128 {
    (1 << 64) / u128::from(weight)
}
