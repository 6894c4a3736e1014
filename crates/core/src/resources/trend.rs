//! Estimates when a resource runs out from its rate of decline.

use gaiola_model::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Interval of the samples kept.
const EVERY: Duration = Duration::from_secs(10);
/// Number of samples kept: ten minutes.
const KEPT: usize = 60;
/// A decline shorter than this is a burst.
const SHORTEST: Duration = Duration::from_secs(20);
/// A rate is extrapolated to this many times its duration.
const BELIEVED: u32 = 6;

/// Samples of a shrinking quantity.
#[derive(Debug, Default)]
pub(super) struct Trend {
    samples: VecDeque<(Time, u64)>,
}

impl Trend {
    /// Adds a sample; returns the earliest credible time until nothing is left, over all recent spans.
    pub(super) fn see(&mut self, now: Time, left: u64) -> Option<Duration> {
        let samples = self.samples.iter().copied();
        let soonest = samples
            .filter_map(|from| self.by_rate_since(from, now, left))
            .min();
        let last = self.samples.back().map(|(at, _)| *at);
        if last.is_none_or(|last| now - last >= EVERY) {
            self.samples.push_back((now, left));
        }
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
        soonest
    }

    fn by_rate_since(&self, (at, had): (Time, u64), now: Time, left: u64) -> Option<Duration> {
        let span = now - at;
        let fallen = had.checked_sub(left).filter(|fallen| *fallen > 0)?;
        let goes_on = self.left_at(at + span / 2)?.saturating_sub(left) >= fallen / 4;
        // A length of time, for which a float is precise enough.
        let empty_in = span.mul_f64(left as f64 / fallen as f64);
        (span >= SHORTEST && goes_on && empty_in <= span * BELIEVED).then_some(empty_in)
    }

    /// The last sample not later than `time`.
    fn left_at(&self, time: Time) -> Option<u64> {
        let mut samples = self.samples.iter().rev();
        samples.find(|(at, _)| *at <= time).map(|(_, left)| *left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last estimate, given what is left each second.
    fn after(seconds: u64, left: impl Fn(u64) -> u64) -> Option<Duration> {
        let mut trend = Trend::default();
        let at = |second| Time::from_start(Duration::from_secs(second));
        (0..=seconds)
            .map(|second| trend.see(at(second), left(second)))
            .last()
            .flatten()
    }

    #[test]
    fn a_steady_rate_is_carried_on() {
        let left = after(30, |second| 1000 - 10 * second);
        assert_eq!(left, Some(Duration::from_secs(70)));
        // 10 minutes are extrapolated to an hour.
        let slow = |second| 100_000 - 25 * second;
        assert_eq!(after(300, slow), None);
        assert_eq!(after(600, slow), Some(Duration::from_secs(3400)));
    }

    #[test]
    fn a_burst_is_no_trend() {
        assert_eq!(after(5, |second| 1000 - 100 * second), None);
        let burst = |second: u64| 1000 - 100 * second.min(5);
        for seconds in 6..120 {
            assert_eq!(after(seconds, burst), None, "{seconds}");
        }
    }

    #[test]
    fn what_grows_or_stays_is_never_empty() {
        assert_eq!(after(100, |_| 1000), None);
        assert_eq!(after(100, |second| 1000 + second), None);
    }
}
