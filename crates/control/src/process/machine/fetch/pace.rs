//! How much a machine may send, and how slowly.

use std::time::Duration;

/// A stream of which nothing comes for this long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// In each such span
const SPAN: Duration = Duration::from_secs(30);
/// so many bytes must come.
const LEAST: u64 = 1 << 20;

/// Why a stream is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PaceError {
    #[error("it is longer than {most} bytes")]
    TooLong { most: u64 },
    #[error("fewer than {LEAST} bytes came within {} s", SPAN.as_secs())]
    TooSlow,
}

/// The bytes of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    most: u64,
    /// So far.
    bytes: u64,
    /// When the span began, from the stream's beginning, and its bytes.
    span: (Duration, u64),
}

impl Pace {
    /// At most so many bytes.
    pub(super) const fn new(most: u64) -> Self {
        Self {
            most,
            bytes: 0,
            span: (Duration::ZERO, 0),
        }
    }

    /// Counts bytes that came at `now`, from the stream's beginning.
    pub(super) fn take(&mut self, now: Duration, bytes: u64) -> Result<(), PaceError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.span.1 = self.span.1.saturating_add(bytes);
        if self.bytes > self.most {
            return Err(PaceError::TooLong { most: self.most });
        }
        if now.saturating_sub(self.span.0) < SPAN {
            return Ok(());
        }
        let (_, came) = std::mem::replace(&mut self.span, (now, 0));
        if came < LEAST {
            return Err(PaceError::TooSlow);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stream_ends_at_its_limit() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.take(seconds(0), 10), Ok(()));
        assert_eq!(
            pace.take(seconds(0), 1),
            Err(PaceError::TooLong { most: 10 })
        );
        let mut pace = Pace::new(10);
        assert!(pace.take(seconds(0), u64::MAX).is_err());
        assert!(pace.take(seconds(0), u64::MAX).is_err());
    }

    #[test]
    fn one_that_trickles_is_broken_off() {
        let mut pace = Pace::new(u64::MAX);
        for second in 0..30 {
            assert_eq!(pace.take(seconds(second), 1), Ok(()));
        }
        assert_eq!(pace.take(seconds(30), 1), Err(PaceError::TooSlow));
    }

    #[test]
    fn a_slow_line_is_fast_enough() {
        let mut pace = Pace::new(u64::MAX);
        for second in 0..600 {
            assert_eq!(pace.take(seconds(second), LEAST / 20), Ok(()));
        }
    }
}
