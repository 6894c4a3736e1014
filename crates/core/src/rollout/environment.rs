//! The environments of instances and `release` commands: the placement holds each one in use once, under a number.

use gaiola_model::placement::Environment;
use gaiola_model::{Desired, Placement};
use std::collections::BTreeSet;

/// The number of the desired environment: 0 for none, the one under which it is held, or the next one.
pub(super) fn wanted(desired: &Desired, placement: &Placement) -> u64 {
    let wanted = desired.environment();
    if wanted.variables.is_empty() {
        return 0;
    }
    let held = &placement.environments;
    let same = held.iter().find(|(_, environment)| **environment == wanted);
    let next = || held.last_key_value().map_or(1, |(last, _)| last + 1);
    same.map_or_else(next, |(number, _)| *number)
}

/// Holds the desired environment.
pub(super) fn hold(placement: &mut Placement, desired: &Desired) {
    let number = wanted(desired, placement);
    if number > 0 {
        let held = placement.environments.entry(number);
        held.or_insert_with(|| desired.environment());
    }
}

/// Drops those that neither anything has nor will have.
pub(super) fn drop_unused(placement: &mut Placement, desired: &Desired) {
    let processes = placement.processes().map(|process| process.env);
    let good = placement.good.iter().map(|good| good.env);
    let mut used: BTreeSet<u64> = processes.chain(good).collect();
    used.insert(wanted(desired, placement));
    let is_used = |number: &u64, _: &mut Environment| used.contains(number);
    placement.environments.retain(is_used);
}
