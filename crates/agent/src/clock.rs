//! The time of day.

use gaiola_model::UnixTime;
use std::time::{SystemTime, UNIX_EPOCH};

/// By this server's clock; `None`: that is set to a time before 1970.
pub fn now() -> Option<UnixTime> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(UnixTime(since.as_secs()))
}
