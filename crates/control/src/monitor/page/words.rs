//! Formats numbers and states for people.

use crate::traffic::Load;
use gaiola_model::placement::{DatabaseRole, InstanceState, ObservedDatabase};
use gaiola_model::status::{InstanceStatus, ServerState};
use std::fmt::Display;

/// The text for an unknown value.
const UNKNOWN: &str = "–";

/// A rate with as many digits as matter: `0`, `0.4`, `32`, `1240`.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.into(),
        Some(rate) if rate < 0.05 => "0".into(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// Seconds as `0.8 ms`, `12 ms`, `1.2 s`.
pub(super) fn duration(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds * 1000.0) {
        None => UNKNOWN.into(),
        Some(ms) if ms.is_infinite() => "over 10 s".into(),
        Some(ms) if ms < 9.95 => format!("{ms:.1} ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1000.0),
    }
}

/// Bytes as `0 B`, `12 kB`, `3.4 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

/// The class of a number of errors.
pub(super) fn error_class(load: Option<Load>) -> &'static str {
    if load.is_some_and(|load| load.errors >= 0.05) {
        "bad"
    } else {
        ""
    }
}

/// `a, b, c`.
pub(super) fn list(items: impl Iterator<Item = impl Display>) -> String {
    items
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// `12:04:07` of an RFC 3339 time; other texts stay as they are.
pub(super) fn time_of_day(time: &str) -> &str {
    time.split_once('T')
        .and_then(|(_, clock)| clock.get(..8))
        .unwrap_or(time)
}

/// A state's shape, for people who do not distinguish red from green.
pub(super) const fn shape(state: ServerState) -> &'static str {
    match state {
        ServerState::Starting => "◌",
        ServerState::Serving => "●",
        ServerState::Busy | ServerState::Degraded => "▲",
        ServerState::Draining => "◐",
        ServerState::Drained => "○",
        ServerState::Lost => "✕",
    }
}

/// An instance's state in a word, its shape, and the class it is drawn in.
pub(super) const fn instance(
    instance: &InstanceStatus,
) -> (&'static str, &'static str, &'static str) {
    match instance.state {
        Some(_) if instance.busy => ("busy", "▲", "degraded"),
        Some(InstanceState::Ready) if instance.doubted => ("in doubt", "▲", "degraded"),
        None => ("unknown", "✕", "lost"),
        Some(InstanceState::Starting) => ("starting", "◌", "starting"),
        Some(InstanceState::Ready) => ("ready", "●", "serving"),
        Some(InstanceState::Unhealthy) => ("unhealthy", "▲", "degraded"),
        Some(InstanceState::Crashed) => ("crashed", "✕", "lost"),
        Some(InstanceState::Stopping) => ("stopping", "◐", "draining"),
    }
}

/// A database in words: `primary, timeline 5`, `sync standby, streaming, 0 B behind, timeline 5`.
pub(super) fn database(database: &ObservedDatabase) -> String {
    let mut parts = vec![database.role.in_words().to_string()];
    if database.role != DatabaseRole::Primary || database.state != "running" {
        parts.push(database.state.clone());
    }
    if let Some(lag) = database
        .lag_bytes
        .filter(|_| database.role != DatabaseRole::Primary)
    {
        parts.push(format!("{} behind", bytes(lag)));
    }
    if database.timeline > 0 {
        parts.push(format!("timeline {}", database.timeline));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [None, Some(0.0), Some(0.42), Some(1239.7)].map(rate),
            ["–", "0", "0.4", "1240"]
        );
        assert_eq!(
            [
                None,
                Some(0.0008),
                Some(0.0124),
                Some(1.23),
                Some(f64::INFINITY)
            ]
            .map(duration),
            ["–", "0.8 ms", "12 ms", "1.2 s", "over 10 s"]
        );
        assert_eq!(
            [0, 12_345, 3_456_789].map(bytes),
            ["0 B", "12 kB", "3.4 MB"]
        );
        assert_eq!(time_of_day("2026-01-02T03:04:05.678Z"), "03:04:05");
        assert_eq!(time_of_day("2026-01-02Té"), "2026-01-02Té");
    }
}
