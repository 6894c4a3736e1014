//! Slow start: how the share of a recovered member grows.

use super::SHARES;
use std::time::Duration;

/// A member's share in sixteenths, `since` after it came up, and how long until the next step; `None` once it is whole.
///
/// ```
/// use gaiola_core::balance::slow_start;
/// use std::time::Duration;
///
/// let whole = Duration::from_secs(15);
/// assert_eq!(slow_start(Duration::ZERO, whole), (1, Some(Duration::from_secs(1))));
/// assert_eq!(slow_start(Duration::from_secs(7), whole), (8, Some(Duration::from_secs(1))));
/// assert_eq!(slow_start(whole, whole), (16, None));
/// ```
pub fn slow_start(since: Duration, whole: Duration) -> (u8, Option<Duration>) {
    const STEPS: u32 = SHARES - 1;
    for step in 1..=STEPS {
        let ends = whole * step / STEPS;
        if since < ends {
            let share = u8::try_from(step).unwrap_or(u8::MAX);
            return (share, Some(ends - since));
        }
    }
    (WHOLE, None)
}

/// All of its weight, in sixteenths.
pub const WHOLE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_from_a_sixteenth_to_the_whole() {
        let whole = Duration::from_millis(1499);
        let (mut since, mut shares) = (Duration::ZERO, Vec::new());
        loop {
            let (share, next) = slow_start(since, whole);
            shares.push(share);
            match next {
                Some(wait) => since += wait,
                None => break,
            }
        }
        assert_eq!(shares, (1..=16).collect::<Vec<_>>());
        assert_eq!(since, whole);
        assert_eq!(slow_start(Duration::ZERO, Duration::ZERO), (16, None));
    }
}
