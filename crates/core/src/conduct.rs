//! Which agent conducts, on what it decides, and which orders an agent takes.
//!
//! The store makes one agent at a time the conductor: it acquires a key under its lease, and each of its writes is rejected
//! once that key is another one's. What an agent believes may be old: it sees the store by a watch, and answers and even
//! its own requests may arrive late.

use crate::cron;
use crate::rollout::{self, Facts, Next};
use gaiola_model::placement::BootNumber;
use gaiola_model::{Desired, Observed, Placement, Revision, ServerName, Time, UnixTime};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest pause between two decisions: whatever changes in the store is seen at once.
pub const POLL: Duration = Duration::from_secs(5);
/// The shortest one.
pub const SHORTEST: Duration = Duration::from_millis(50);

/// What a conductor sees of the store by its watch.
#[derive(Clone, Copy, Debug)]
pub struct StoreView<'a> {
    /// Whether the store answered lately, so that this is its current content.
    pub is_current: bool,
    /// What the operator wants.
    pub desired: &'a Desired,
    /// The last placement.
    pub placement: &'a Placement,
    /// Its revision.
    pub at: Revision,
    /// The last boot of each server that is over.
    pub over: &'a BTreeMap<ServerName, BootNumber>,
    /// The newest schema that the provider of the servers reads, as it reports.
    pub provider_reads: Option<u64>,
    /// The time of day; `None`: it is not known, and no cron is due.
    pub wall: Option<UnixTime>,
}

/// One agent's term as the conductor.
#[derive(Clone, Debug, Default)]
pub struct Conductor {
    facts: Facts,
    /// The last placement of its own, or one that must have replaced it.
    stored: Revision,
    /// How long it is until a cron is due.
    cron_in: Option<Duration>,
}

impl Conductor {
    /// Whether it may decide on this: not on an old view of the store, and not before its own last placement has come
    /// back by the watch.
    pub fn may_decide(&self, seen: &StoreView<'_>) -> bool {
        seen.is_current && self.has_come_back(seen.at)
    }

    /// Whether a placement of this revision is no older than its own last one.
    pub fn has_come_back(&self, at: Revision) -> bool {
        at >= self.stored
    }

    /// Takes the reports of servers with a lease, and returns the next step; its placement is to be written by
    /// compare-and-swap on `seen.at`, within the term, and while nobody of [`counted_dead`](Self::counted_dead) reports.
    pub fn decide(
        &mut self,
        now: Time,
        seen: &StoreView<'_>,
        observed: BTreeMap<ServerName, Observed>,
    ) -> Next {
        self.facts.over.clone_from(seen.over);
        self.facts.provider_reads = seen.provider_reads;
        self.facts.wall = seen.wall;
        self.cron_in = seen.wall.and_then(|now| cron::due_in(seen.placement, now));
        self.facts.observe(now, seen.placement, seen.at, observed);
        self.facts.store_members = seen.placement.store.iter().copied().collect();
        rollout::next(seen.desired, seen.placement, seen.at, &self.facts)
    }

    /// Placed servers that it counts as dead, so that a step may not wait for them. A placement is to be written only if the
    /// store holds no report of any of them: the watch may lag, and they may be back.
    pub fn counted_dead(&self, placement: &Placement) -> Vec<ServerName> {
        let servers = placement.servers.keys().copied();
        servers
            .filter(|server| self.facts.is_dead(*server))
            .collect()
    }

    /// Its placement was written at this revision.
    pub fn wrote(&mut self, revision: Revision) {
        self.stored = self.stored.max(revision);
    }

    /// Its placement was rejected: the store has another than the one at `at`, which the watch will deliver.
    pub fn was_overtaken(&mut self, at: Revision) {
        self.stored = self.stored.max(Revision(at.0 + 1));
    }

    /// How long to wait for a change before the next decision.
    pub fn pause(&self, grace: Duration) -> Duration {
        let next = self.facts.next_deadline(grace);
        let pause = next.map_or(POLL, |next| next - self.facts.now);
        let pause = self.cron_in.map_or(pause, |due| pause.min(due));
        pause.clamp(SHORTEST, POLL)
    }

    /// What it has observed.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Whether an agent that does not conduct should try to: nobody does, or it was elected by a request whose answer it did
/// not wait for. Otherwise nobody would conduct while its lease lives.
pub fn should_campaign(conductor: Option<&str>, own: &str) -> bool {
    conductor.is_none_or(|conductor| conductor == own)
}

/// The state of an agent's report in the store.
///
/// Each report replaces the one before it by compare-and-swap. A request that was sent again because its answer was late may
/// arrive a second time, after newer reports: written unconditionally it would replace them, or tie the key to a lease
/// that has been given up and takes the report with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    at: Option<Revision>,
}

impl Report {
    /// The revision that the next report replaces; `None`: there must be none.
    pub fn replaces(&self) -> Option<Revision> {
        self.at
    }

    /// The report was written at this revision.
    pub fn was_written(&mut self, at: Revision) {
        self.at = Some(at);
    }

    /// The report was rejected: the key is at this revision. It must be written again.
    pub fn was_rejected(&mut self, found: Option<Revision>) {
        self.at = found;
    }
}

/// An order by the store's lifetime and the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderId<'a> {
    /// The store's lifetime.
    pub incarnation: &'a str,
    /// The revision of the placement.
    pub revision: Revision,
}

impl OrderId<'_> {
    /// Whether an agent that holds this order takes `offered`: orders that are older or of another store are rejected.
    pub fn yields_to(&self, offered: &OrderId<'_>) -> bool {
        self.incarnation == offered.incarnation && self.revision < offered.revision
    }
}

#[cfg(test)]
mod tests;
