//! Consistent hashing with bounded load: members have points on a ring, and a key goes to the first point after it whose
//! member has room for one more request.
//!
//! A ring holds the points of all configured members, whether they take part or not: a member that leaves passes its keys to
//! the members after it and gets them back when it returns, and no other key moves. During slow start a member takes part
//! with as many of its points as its weight allows.

use super::round_robin::RoundRobin;
use super::{Ask, Load, MemberConfig};
use std::sync::Arc;

/// After this many points that do not fit, members are tried in index order.
const STEPS: usize = 1024;

/// The algorithm's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    ring: Arc<Ring>,
    /// Percent of its fair share that a member may have in flight.
    bound: Option<u16>,
    /// How many of its points each member takes part with.
    live: Vec<u32>,
    weights: Vec<u32>,
    total: u64,
    /// Serves requests without a key.
    keyless: RoundRobin,
}

impl Hash {
    /// Starts on this ring, with no member taking part yet.
    pub(super) fn new(ring: Arc<Ring>, bound: Option<u16>, keyless: RoundRobin) -> Self {
        Self {
            live: vec![0; ring.members],
            weights: vec![0; ring.members],
            ring,
            bound,
            total: 0,
            keyless,
        }
    }

    /// Takes over the round-robin state for requests without a key.
    pub(super) fn take_over(&mut self, before: &Self, old: impl Fn(usize) -> Option<usize>) {
        self.keyless.take_over(&before.keyless, old);
    }

    /// Its ring.
    pub(super) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring)
    }

    /// Changes the effective weight of a member; `weight` is in sixteenths.
    pub(super) fn set_weight(&mut self, index: usize, member: &MemberConfig, weight: u32) {
        self.keyless.set_weight(index, weight);
        let before = std::mem::replace(&mut self.weights[index], weight);
        self.total = self.total - u64::from(before) + u64::from(weight);
        let points = self.ring.points_of(member) * weight;
        let whole = u32::from(member.weight).max(1) * super::SHARES;
        self.live[index] = points.div_ceil(whole);
    }

    /// Number of points on its ring.
    #[cfg(test)]
    pub(super) fn points(&self) -> usize {
        self.ring.points.len()
    }

    /// Whether there is a bound.
    pub(super) const fn is_bounded(&self) -> bool {
        self.bound.is_some()
    }

    /// The key's member, or the next one on the ring that fits and is within the bound; failing that, any that fits.
    pub(super) fn pick(
        &mut self,
        ask: &Ask<'_>,
        fits: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> Load,
    ) -> Option<usize> {
        let Some(key) = ask.key else {
            return self.keyless.pick(fits);
        };
        let mut beyond = None;
        for point in self.ring.from(key).take(STEPS) {
            let index = point.member as usize;
            if point.ordinal >= self.live[index] || !fits(index) {
                continue;
            }
            if self.is_within_bound(index, load(index), ask.in_flight) {
                return Some(index);
            }
            beyond = beyond.or(Some(index));
        }
        let mut rest = (0..self.live.len()).filter(|&index| self.live[index] > 0 && fits(index));
        let within = |index: &usize| self.is_within_bound(*index, load(*index), ask.in_flight);
        rest.clone().find(within).or(beyond).or_else(|| rest.next())
    }

    /// Whether a member may take one more of the requests then in flight.
    fn is_within_bound(&self, index: usize, load: Load, in_flight: u64) -> bool {
        let Some(bound) = self.bound else {
            return true;
        };
        let share = u128::from(self.weights[index]) * u128::from(bound) * u128::from(in_flight + 1);
        u128::from(load.in_flight) < share.div_ceil(u128::from(self.total.max(1)) * 100)
    }
}

/// The points of all members, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    points: Vec<Point>,
    members: usize,
    by_weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: u32,
    member: u32,
    /// Its index among its member's points.
    ordinal: u32,
}

impl Ring {
    /// Maximum points per unit of weight.
    const BY_WEIGHT: u32 = 64;
    /// If the weights add up to more than this, each unit gets fewer points: half as many for twice the sum.
    const WHOLE: u32 = 4096;

    /// The ring of these members.
    pub(super) fn new(members: &[MemberConfig]) -> Self {
        let total: u32 = members.iter().map(|member| u32::from(member.weight)).sum();
        let doublings = total.div_ceil(Self::WHOLE).next_power_of_two();
        let mut ring = Self {
            points: Vec::new(),
            members: members.len(),
            by_weight: (Self::BY_WEIGHT / doublings).max(1),
        };
        for (index, member) in (0..).zip(members) {
            ring.points
                .extend((0..ring.points_of(member)).map(|ordinal| Point {
                    at: place(mix(member.id ^ mix(ordinal.into()))),
                    member: index,
                    ordinal,
                }));
        }
        // Ordering colliding points of two members by index would differ between processes.
        ring.points.sort_unstable_by_key(|point| {
            (point.at, members[point.member as usize].id, point.ordinal)
        });
        ring
    }

    fn points_of(&self, member: &MemberConfig) -> u32 {
        u32::from(member.weight) * self.by_weight
    }

    /// All points, starting with the first one after a key.
    fn from(&self, key: u64) -> impl Iterator<Item = Point> {
        let at = place(key);
        let start = self.points.partition_point(|point| point.at < at);
        let (before, behind) = self.points.split_at(start);
        behind.iter().chain(before).copied()
    }
}

fn place(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A hash of a text, the same everywhere and at all times (FNV-1a, with its bits mixed).
pub(super) fn of(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// Each bit of the result depends on all bits (the end of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
