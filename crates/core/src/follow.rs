//! Following a change until what is desired is observed, it failed, or time is over.

use crate::rollout;
use gaiola_model::placement::{InstanceState, ObservedInstance};
use gaiola_model::status::Status;
use gaiola_model::{InstanceName, Observed, Placement, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is desired must have been there for this long.
pub const CALM: Duration = Duration::from_millis(500);

/// What is seen at one moment.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The site's state.
    pub status: &'a Status,
    /// What the store holds.
    pub placement: Option<&'a Placement>,
    /// What servers with a lease report.
    pub observed: &'a [&'a Observed],
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again.
    Wait,
    /// What is desired is there.
    Done,
    /// It will not come, because of this.
    Failed(String),
    /// Time is over; this is missing.
    Late(Vec<String>),
}

/// One change.
#[derive(Clone, Debug)]
pub struct Follow {
    deploys: bool,
    deadline: Time,
    settled_since: Option<Time>,
    /// Instances that are not ready while there are no old ones: since when each is waited for, and how often it had ended by
    /// then. The conductor has nothing to go back to and tries for ever.
    unready: BTreeMap<InstanceName, (Time, u32)>,
}

impl Follow {
    /// A change that is over at the deadline. `deploys`: it is an error that the release is given up; any other change goes on
    /// with the last good one.
    pub const fn new(deploys: bool, deadline: Time) -> Self {
        Self {
            deploys,
            deadline,
            settled_since: None,
            unready: BTreeMap::new(),
        }
    }

    /// Takes a look. `None`: the store has not reported the change yet, and nothing is concluded.
    pub fn step(&mut self, now: Time, sight: Option<Sight<'_>>) -> Next {
        let missing = match sight {
            None => vec!["the store has not reported this change yet".into()],
            Some(sight) => match self.failed(now, sight) {
                Some(why) => return Next::Failed(why),
                None => self.missing(sight),
            },
        };
        self.settled_since = missing
            .is_empty()
            .then(|| self.settled_since.unwrap_or(now));
        match self.settled_since {
            Some(since) if now - since >= CALM => Next::Done,
            _ if now >= self.deadline => Next::Late(missing),
            _ => Next::Wait,
        }
    }

    fn failed(&mut self, now: Time, sight: Sight<'_>) -> Option<String> {
        let status = sight.status;
        let good = sight
            .placement
            .and_then(|placement| placement.good.as_ref());
        let is_placed = status.generation.desired == status.generation.placed;
        match &status.failed {
            Some(reason) if is_placed && (self.deploys || good.is_none()) => Some(format!(
                "release {} was given up: {reason}; what ran before goes on",
                status.release.desired
            )),
            _ => self.hopeless(now, sight),
        }
    }

    /// What is missing, but for a release that was given up where that is no error.
    fn missing(&self, sight: Sight<'_>) -> Vec<String> {
        let failed = sight
            .placement
            .and_then(|placement| placement.failed.as_ref());
        let given_up = failed.map(|failure| failure.in_words());
        let missing = sight.status.missing.iter();
        let counts = |why: &&String| self.deploys || Some(*why) != given_up.as_ref();
        missing.filter(counts).cloned().collect()
    }

    /// Why there is no hope that an instance gets ready by waiting.
    fn hopeless(&mut self, now: Time, sight: Sight<'_>) -> Option<String> {
        let unready = unready(sight);
        self.unready.retain(|name, _| unready.contains_key(name));
        unready.into_iter().find_map(|(name, seen)| {
            let first = (now, seen.restarts);
            let (since, ended) = *self.unready.entry(name).or_insert(first);
            let ends = seen.restarts.saturating_sub(ended) >= rollout::MAX_CRASHES;
            let crashes = seen.state == InstanceState::Crashed && ends;
            let why = match crashes {
                true => "keeps ending",
                false => "does not get ready",
            };
            (crashes || now - since >= rollout::READY_DEADLINE).then(|| {
                format!(
                    "{name} {why}: {}; it is tried again and again; see what it wrote with: gaiola logs -n {}",
                    seen.reason, name.server
                )
            })
        })
    }
}

/// Instances that are not ready, where all are of one release.
fn unready(sight: Sight<'_>) -> BTreeMap<InstanceName, &ObservedInstance> {
    let Some(placement) = sight.placement else {
        return BTreeMap::new();
    };
    let mut releases = placement.instances.values().map(|placed| placed.release);
    let first = releases.next();
    if releases.any(|release| Some(release) != first) {
        return BTreeMap::new();
    }
    let seen = sight.observed.iter().flat_map(|seen| &seen.instances);
    let unready = seen.filter(|(name, seen)| {
        placement.instances.contains_key(name) && seen.state != InstanceState::Ready
    });
    unready.map(|(name, seen)| (*name, seen)).collect()
}

#[cfg(test)]
mod tests;
