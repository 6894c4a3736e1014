//! The time of day, and the clock that measures time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of the event loop's clock: the system's monotonic one, which tests can pause.
pub(super) use tokio::time::Instant;

/// Now, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    since_epoch().as_secs()
}

/// Now, as the time since 1970.
pub(super) fn since_epoch() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
