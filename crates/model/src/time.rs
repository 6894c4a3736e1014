//! The monotonic time passed to every decision, and the time of day.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: the span since an arbitrary start known only to the clock's owner.
///
/// Points of different processes cannot be compared.
///
/// ```
/// use gaiola_model::Time;
/// use std::time::Duration;
///
/// let later = Time::ZERO + Duration::from_millis(100);
/// assert_eq!(later - Time::ZERO, Duration::from_millis(100));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The start of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point `since_start` after the clock's start.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after the clock's start this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// A point of the wall clock, in whole seconds since 1970 (UTC).
///
/// ```
/// assert_eq!(gaiola_model::UnixTime(1_767_323_045).to_string(), "2026-01-02T03:04:05Z");
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// How long after `earlier` this is; zero if it is not later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match timestamp(*self) {
            Some(timestamp) => timestamp.fmt(f),
            None => write!(f, "{} s after 1970", self.0),
        }
    }
}

/// `None`: it is no time that a calendar has.
pub(crate) fn timestamp(at: UnixTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(i64::try_from(at.0).ok()?).ok()
}
