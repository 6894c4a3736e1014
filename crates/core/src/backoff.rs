//! Delays between retries.

use std::time::Duration;

/// Delays that double with each attempt up to a limit, with jitter so that many clients do not retry at once.
///
/// ```
/// use gaiola_core::backoff::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };
/// assert_eq!(backoff.longest_delay(3), Duration::from_millis(800));
/// assert_eq!(backoff.longest_delay(60), Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest delay after attempt 0.
    pub first: Duration,
    /// Upper limit of any delay.
    pub longest: Duration,
}

impl Backoff {
    /// The delay after this attempt, counted from 0: between half of [`Self::longest_delay`] and all of it.
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let whole = self.longest_delay(attempt);
        whole / 2 + (whole - whole / 2).mul_f64(rng.f64())
    }

    /// The delay after this attempt, before jitter shortens it.
    pub fn longest_delay(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
    };

    #[test]
    fn delays_double_within_their_bounds() {
        let mut rng = fastrand::Rng::with_seed(7);
        for attempt in 0..200 {
            let delay = BACKOFF.delay(attempt, &mut rng);
            let whole = BACKOFF.longest_delay(attempt);
            assert!(whole / 2 <= delay && delay <= whole, "{attempt}: {delay:?}");
            assert!(whole <= BACKOFF.longest);
        }
        assert_eq!(BACKOFF.longest_delay(0), BACKOFF.first);
        assert_eq!(BACKOFF.longest_delay(2), BACKOFF.first * 4);
    }
}
