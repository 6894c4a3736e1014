//! Detects members that answer later than the others of their backend.
//!
//! Each poll takes in the answers since the last one. A member's mean moves a quarter of the way towards that of the new
//! answers; it is compared with the median of the others' means. Members without traffic have none.

use gaiola_model::Time;
use gaiola_model::proxy::SlowEjection;
use std::time::Duration;

/// An excess over the others below this does no harm, however large it is in proportion.
const UNNOTICED: Duration = Duration::from_millis(5);

/// State of one member between two polls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    seen: LatencyTotals,
    mean: Option<Duration>,
    slow_since: Option<Time>,
}

/// Total answers of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyTotals {
    /// Responses that have begun.
    pub count: u64,
    /// Sum of the times from request to response, in nanoseconds.
    pub nanos: u64,
}

/// One member at one poll.
#[derive(Debug)]
pub struct MemberPoll<'a> {
    /// Its state.
    pub pace: &'a mut Pace,
    /// Its total answers.
    pub answers: LatencyTotals,
    /// Whether it takes traffic.
    pub up: bool,
}

/// Polls all members of a backend; returns which to eject, by index, and why. Call it about once a second. It ejects none
/// beyond a third of the members, counting all that are out, whatever the cause.
pub fn slow_members(
    setting: &SlowEjection,
    now: Time,
    members: &mut [MemberPoll<'_>],
) -> Vec<(usize, String)> {
    let fresh: Vec<_> = members.iter_mut().map(MemberPoll::take_in).collect();
    let mut means: Vec<_> = members.iter().filter_map(|seen| seen.pace.mean).collect();
    means.sort_unstable();
    let mut slow = Vec::new();
    for (index, seen) in members.iter_mut().enumerate() {
        let Some(mean) = seen.pace.mean else { continue };
        let Some(others) = median_of_others(&means, mean) else {
            continue;
        };
        let limit = (others * u32::from(setting.factor) / 100).max(others + UNNOTICED);
        match (mean > limit, fresh[index]) {
            (false, _) => seen.pace.slow_since = None,
            (true, false) => {}
            (true, true) => {
                let since = *seen.pace.slow_since.get_or_insert(now);
                if now.saturating_since(since) >= setting.after {
                    slow.push((index, mean, others));
                }
            }
        }
    }
    let out = members.iter().filter(|seen| !seen.up).count();
    slow.sort_unstable_by_key(|&(_, mean, _)| std::cmp::Reverse(mean));
    slow.truncate((members.len() / 3).saturating_sub(out));
    let reason = |(index, mean, others): (usize, Duration, Duration)| {
        let (mean, others) = (mean.as_millis(), others.as_millis());
        let words = format!("answers after {mean} ms, the others after {others} ms");
        (index, words)
    };
    slow.into_iter().map(reason).collect()
}

impl MemberPoll<'_> {
    /// Takes in the answers since the last poll; returns whether there were any.
    fn take_in(&mut self) -> bool {
        let pace = &mut *self.pace;
        let before = std::mem::replace(&mut pace.seen, self.answers);
        if !self.up {
            (pace.mean, pace.slow_since) = (None, None);
            return false;
        }
        let count = self.answers.count.wrapping_sub(before.count);
        let nanos = self.answers.nanos.wrapping_sub(before.nanos);
        let Some(mean) = nanos.checked_div(count).map(Duration::from_nanos) else {
            return false;
        };
        pace.mean = Some(pace.mean.map_or(mean, |old| (old * 3 + mean) / 4));
        true
    }
}

/// The median of all means but this one; the lower of two.
fn median_of_others(means: &[Duration], own: Duration) -> Option<Duration> {
    let place = means.partition_point(|&mean| mean < own);
    let middle = means.len().checked_sub(2)? / 2;
    let skipped = if middle >= place { middle + 1 } else { middle };
    means.get(skipped).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTING: SlowEjection = SlowEjection {
        factor: 300,
        after: Duration::from_secs(3),
    };

    struct Site {
        paces: Vec<Pace>,
        answers: Vec<LatencyTotals>,
        up: Vec<bool>,
        now: Time,
    }

    impl Site {
        fn new(count: usize) -> Self {
            Self {
                paces: vec![Pace::default(); count],
                answers: vec![LatencyTotals::default(); count],
                up: vec![true; count],
                now: Time::ZERO,
            }
        }

        /// One second in which each member answers once, after this many milliseconds; 0: not at all. Members found
        /// slow are ejected.
        fn second(&mut self, millis: &[u64]) -> Vec<usize> {
            self.now = self.now + Duration::from_secs(1);
            for (answers, &millis) in self.answers.iter_mut().zip(millis) {
                answers.count += u64::from(millis > 0);
                answers.nanos += millis * 1_000_000;
            }
            let paces = self.paces.iter_mut().zip(&self.answers).zip(&self.up);
            let mut members: Vec<_> = paces
                .map(|((pace, &answers), &up)| MemberPoll { pace, answers, up })
                .collect();
            let slow = slow_members(&SETTING, self.now, &mut members);
            let slow: Vec<_> = slow.into_iter().map(|(index, _)| index).collect();
            slow.iter().for_each(|&index| self.up[index] = false);
            slow
        }
    }

    #[test]
    fn a_member_that_stays_slow_is_ejected() {
        let mut site = Site::new(3);
        for _ in 0..3 {
            assert!(site.second(&[10, 100, 12]).is_empty());
        }
        assert_eq!(site.second(&[10, 100, 12]), [1]);
    }

    #[test]
    fn one_that_was_slow_for_a_moment_stays() {
        let mut site = Site::new(3);
        site.second(&[10, 10, 12]);
        for _ in 0..10 {
            assert!(site.second(&[10, 150, 12]).is_empty());
            for _ in 0..4 {
                assert!(site.second(&[10, 10, 12]).is_empty());
            }
        }
    }

    #[test]
    fn one_without_answers_is_not_judged_anew() {
        let mut site = Site::new(3);
        site.second(&[10, 100, 12]);
        for _ in 0..10 {
            assert!(site.second(&[10, 0, 12]).is_empty());
        }
    }

    #[test]
    fn a_few_milliseconds_are_no_harm() {
        let mut site = Site::new(3);
        for _ in 0..10 {
            assert!(site.second(&[1, 5, 1]).is_empty());
        }
    }

    #[test]
    fn of_two_neither_can_be_spared() {
        let mut site = Site::new(2);
        for _ in 0..10 {
            assert!(site.second(&[10, 1000]).is_empty());
        }
    }

    proptest! {
        #[test]
        fn never_more_than_a_third_is_out(
            count in 1usize..12,
            seconds in proptest::collection::vec(proptest::collection::vec(0u64..1000, 12), 1..40),
        ) {
            let mut site = Site::new(count);
            for millis in seconds {
                site.second(&millis[..count]);
                let out = site.up.iter().filter(|&&up| !up).count();
                prop_assert!(out <= count / 3, "{out} of {count}");
            }
        }
    }
}
