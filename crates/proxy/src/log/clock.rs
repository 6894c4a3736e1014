//! Formats times.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes times, caching what changes only once per second.
pub(super) struct Clock {
    pattern: &'static str,
    zone: TimeZone,
    second: u64,
    text: String,
}

impl Clock {
    /// Formats times of this zone by a `strftime` pattern.
    pub(super) fn new(pattern: &'static str, zone: TimeZone) -> Self {
        Self {
            pattern,
            zone,
            second: 0,
            text: String::new(),
        }
    }

    /// Appends the time.
    pub(super) fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        self.turn(time);
        out.extend_from_slice(self.text.as_bytes());
    }

    /// Appends the time, a dot and its milliseconds.
    pub(super) fn write_millis(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let millis = self.turn(time);
        out.extend_from_slice(self.text.as_bytes());
        write!(out, ".{millis:03}").expect("writing to memory");
    }

    /// Updates the cached text to `time`, and returns the milliseconds within its second.
    fn turn(&mut self, time: SystemTime) -> u32 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.text.is_empty() {
            self.second = since.as_secs();
            let second = i64::try_from(self.second).unwrap_or(i64::MAX);
            let stamp = Timestamp::from_second(second).unwrap_or_default();
            let there = stamp.to_zoned(self.zone.clone());
            self.text.clear();
            write!(self.text, "{}", there.strftime(self.pattern)).expect("a valid pattern");
        }
        since.subsec_millis()
    }
}
