//! The fewest requests in flight for its weight; equals take turns.
//!
//! Members are sorted by the load last recorded. A load that has grown since is noticed when its member comes first; one
//! that has shrunk is reported through [`LeastConn::record`], or found by sampling: each choice also checks a few other
//! members.

use super::{Load, tournament::Tournament};

/// Members sampled per choice.
const SAMPLED: usize = 4;

/// How often per choice the first member may turn out to have more load than recorded.
const CORRECTIONS: usize = 32;

/// The algorithm's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeastConn {
    order: Tournament<Rank>,
    weights: Vec<u32>,
    /// When each was last chosen, as the number of choices made by then.
    chosen: Vec<u64>,
    choices: u64,
    /// The next member to sample.
    next: usize,
}

/// A member's position in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    full: bool,
    /// Its load per weight with one more request.
    load: u64,
    chosen: u64,
}

impl LeastConn {
    /// `count` members, none of which takes part yet.
    pub(super) fn new(count: usize) -> Self {
        Self {
            order: Tournament::new(count),
            weights: vec![0; count],
            chosen: vec![0; count],
            choices: 0,
            next: 0,
        }
    }

    /// Changes a weight; with 0 the member takes no part.
    pub(super) fn set_weight(&mut self, index: usize, weight: u32) {
        if std::mem::replace(&mut self.weights[index], weight) == weight {
            return;
        }
        let idle = Load {
            in_flight: 0,
            full: false,
        };
        // Corrected once it comes first.
        self.record(index, idle);
    }

    /// Records a member's load.
    pub(super) fn record(&mut self, index: usize, load: Load) {
        let rank = (self.weights[index] > 0).then(|| Rank {
            full: load.full,
            load: load.for_weight(self.weights[index]),
            chosen: self.chosen[index],
        });
        self.order.set(index, rank);
    }

    /// The member with the least load that was not tried.
    pub(super) fn pick(&mut self, tried: &[usize], load: impl Fn(usize) -> Load) -> Option<usize> {
        let count = self.weights.len();
        for _ in 0..SAMPLED.min(count) {
            self.record(self.next, load(self.next));
            self.next = (self.next + 1) % count;
        }
        tried.iter().for_each(|&index| self.order.set(index, None));
        let mut first = self.first(&load);
        if first.is_none() {
            let untried = (0..count).filter(|index| !tried.contains(index));
            untried.for_each(|index| self.record(index, load(index)));
            first = self.first(&load);
        }
        tried
            .iter()
            .for_each(|&index| self.record(index, load(index)));
        let first = first?;
        self.choices += 1;
        self.chosen[first] = self.choices;
        self.record(first, load(first));
        Some(first)
    }

    /// The first member by current load, unless it is full.
    fn first(&mut self, load: impl Fn(usize) -> Load) -> Option<usize> {
        let mut first = self.order.first()?;
        for _ in 0..CORRECTIONS {
            self.record(first, load(first));
            match self.order.first() {
                Some(same) if same == first => break,
                other => first = other?,
            }
        }
        (!load(first).full).then_some(first)
    }
}
