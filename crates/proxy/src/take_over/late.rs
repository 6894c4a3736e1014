//! What limits count between the hand-over of their counts and the end of accepting.

use crate::clock::since_epoch;
use crate::limits::Limiter;
use gaiola_model::proxy::{Count, HandedLimit, LateCounts};
use std::collections::HashMap;
use std::sync::Arc;

/// A limit, with its counts when they were handed over.
pub(crate) struct Handed {
    limiter: Arc<Limiter>,
    counts: Vec<Count>,
}

impl Handed {
    /// The counts of this limit now.
    pub(crate) fn of(limiter: &Arc<Limiter>) -> Self {
        Self {
            limiter: Arc::clone(limiter),
            counts: limiter.counts(since_epoch()),
        }
    }

    /// Its place in a hand-over.
    pub(crate) fn described(&self) -> HandedLimit {
        HandedLimit {
            identity: self.limiter.identity,
            counts: self.counts.len(),
        }
    }

    /// The counts that were handed over.
    pub(crate) fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// What it has counted since.
    pub(crate) fn late(&self) -> LateCounts {
        let before = self.counts.iter();
        let before: HashMap<_, _> = before
            .map(|count| ((count.key, count.window), count.more))
            .collect();
        let later = self.limiter.counts(since_epoch()).into_iter();
        let later = later.filter_map(|Count { key, window, more }| {
            let before = before.get(&(key, window)).copied().unwrap_or(0);
            let since = more.checked_sub(before).filter(|since| *since > 0)?;
            Some((key, window, since))
        });
        (self.limiter.identity, later.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::{Limit, Most};
    use std::time::Duration;

    #[test]
    fn only_what_was_counted_since_is_late() {
        let rate = Most::Rate {
            requests: 100,
            window: Duration::from_secs(3600),
        };
        let limiter = Arc::new(Limiter::new(&Limit::new("some", rate), b"secret"));
        for key in [1, 2, 2] {
            limiter.take(key).unwrap();
        }
        let handed = Handed::of(&limiter);
        assert_eq!(handed.late(), (limiter.identity, Vec::new()));
        for key in [2, 3, 3] {
            limiter.take(key).unwrap();
        }
        let mut late = handed.late().1;
        late.sort_unstable();
        let late: Vec<_> = late.iter().map(|(key, _, more)| (*key, *more)).collect();
        assert_eq!(late, [(2, 1), (3, 2)]);
    }
}
