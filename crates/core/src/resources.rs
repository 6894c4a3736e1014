//! A server's remaining disk, memory and descriptors: when they are low or exhausted, and what is reported about it.

mod together;
mod trend;
mod words;

pub use together::{Findings, findings};
pub use words::{faults, warnings};

use gaiola_model::resources::{Descriptors, Disk, DiskState, Holds, Memory, Resources};
use gaiola_model::{Observed, Time};
use std::collections::BTreeMap;
use std::time::Duration;
use trend::Trend;

/// PostgreSQL writes its WAL in segments of this size; without room for the next one it stops.
const WAL_SEGMENT: u64 = 16 << 20;
/// A disk without PostgreSQL's data counts as full below this.
const ALMOST_NOTHING: u64 = 1 << 20;
/// A disk with more free space than this is not almost full, whatever its size.
const PLENTY_OF_DISK: u64 = 1 << 30;
/// Memory is not low while more than this is available.
const PLENTY_OF_MEMORY: u64 = 256 << 20;
/// A disk expected to be full only later than this does not count as filling up.
const SOON: Duration = Duration::from_secs(3600);
/// A disk that has stopped filling up still counts as such for this long.
const DOUBT: Duration = Duration::from_secs(60);

/// What was read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Each file system once.
    pub disks: Vec<DiskReading>,
    /// Total and available memory in bytes; `None`: it could not be read.
    pub memory: Option<(u64, u64)>,
    /// Private memory of the server's own processes.
    pub used_bytes: u64,
    /// The system's descriptors, and for each process name the process nearest to its limit.
    pub descriptors: Vec<Descriptors>,
}

/// A file system at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReading {
    /// What it holds.
    pub holds: Holds,
    /// Its size.
    pub total_bytes: u64,
    /// Bytes that a user other than root may still write.
    pub free_bytes: u64,
    /// How an attempt to write failed.
    pub refused: Option<Refused>,
}

/// Why a file system accepts no writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Out of bytes, of inodes, or of a quota.
    NoRoom(String),
    /// Something else, such as a file system that has become read-only.
    Other(String),
}

/// Monitors the remaining resources of one server.
///
/// ```
/// use gaiola_core::resources::{Reading, Watch};
/// use gaiola_model::Time;
///
/// let mut watch = Watch::default();
/// let left = watch.step(Time::ZERO, &Reading { memory: Some((8 << 30, 64 << 20)), ..Reading::default() });
/// assert!(left.memory.is_some_and(|memory| memory.low));
/// ```
#[derive(Debug, Default)]
pub struct Watch {
    reported: Resources,
    trends: BTreeMap<Holds, Filling>,
}

#[derive(Debug, Default)]
struct Filling {
    /// If the size changed it is another file system.
    total_bytes: u64,
    trend: Trend,
    /// The last estimate, and when it was made.
    full_in: Option<(Time, Duration)>,
}

impl Watch {
    /// Takes a reading and returns what to report, unchanged from before if the difference is small.
    pub fn step(&mut self, now: Time, reading: &Reading) -> Resources {
        let disks = reading.disks.iter().map(|disk| self.disk(now, disk));
        let disks = disks.collect();
        self.reported = Resources {
            disks,
            memory: self.memory(reading.memory),
            descriptors: scarce(&self.reported.descriptors, &reading.descriptors),
        };
        self.reported.clone()
    }

    fn disk(&mut self, now: Time, seen: &DiskReading) -> Disk {
        let full_in = self.trends.entry(seen.holds).or_default().see(now, seen);
        let reported = self
            .reported
            .disks
            .iter()
            .find(|reported| reported.holds == seen.holds);
        let new = Disk {
            holds: seen.holds,
            total_bytes: seen.total_bytes,
            free_bytes: seen.free_bytes,
            full_in_s: full_in.map(|left| left.as_secs()),
            state: disk_state(
                reported.map(|reported| reported.state),
                seen,
                full_in.is_some(),
            ),
            refused: refused_in_words(seen),
        };
        match reported {
            Some(reported) if is_as_reported(reported, &new) => reported.clone(),
            _ => new,
        }
    }

    fn memory(&self, seen: Option<(u64, u64)>) -> Option<Memory> {
        let (total_bytes, available_bytes) = seen?;
        let little = (total_bytes / 20).min(PLENTY_OF_MEMORY);
        let was_low = self.reported.memory.is_some_and(|reported| reported.low);
        let new = Memory {
            total_bytes,
            available_bytes,
            low: available_bytes < with_margin(little, was_low),
        };
        let reported = self.reported.memory.filter(|reported| {
            (reported.total_bytes, reported.low) == (total_bytes, new.low)
                && reported.available_bytes.abs_diff(available_bytes) < total_bytes / 10
        });
        reported.or(Some(new))
    }
}

impl Filling {
    /// How long until the disk is full; `None`: it does not fill up, or takes long.
    fn see(&mut self, now: Time, seen: &DiskReading) -> Option<Duration> {
        if self.total_bytes != seen.total_bytes {
            *self = Self {
                total_bytes: seen.total_bytes,
                ..Self::default()
            };
        }
        let left = self.trend.see(now, seen.free_bytes);
        if let Some(left) = left.filter(|left| *left <= SOON) {
            self.full_in = Some((now, left));
        }
        let (at, left) = self.full_in.filter(|(at, _)| now - *at < DOUBT)?;
        Some(left.saturating_sub(now - at))
    }
}

/// Whether the disk with the server's data is full, as its own agent reports within a few seconds. A disk that rejects
/// writes for another reason or hangs does not count: it may recover at any moment, and the remedy for a full disk
/// would not help it.
pub fn disk_is_full(observed: &Observed) -> bool {
    let mut disks = observed.resources.disks.iter();
    disks.any(|disk| disk.state == DiskState::Full)
}

/// Free space below which it is almost full: a tenth, but no more than [`PLENTY_OF_DISK`].
fn disk_state(was: Option<DiskState>, seen: &DiskReading, fills_up: bool) -> DiskState {
    let nothing = match seen.holds {
        Holds::State => ALMOST_NOTHING,
        Holds::Database => WAL_SEGMENT,
    };
    let little = (seen.total_bytes / 10).min(PLENTY_OF_DISK).max(nothing * 2);
    // A full disk must regain enough to last for a while.
    let nothing = nothing * if was == Some(DiskState::Full) { 2 } else { 1 };
    let was_low = matches!(was, Some(DiskState::Low | DiskState::Full));
    match &seen.refused {
        Some(Refused::NoRoom(_)) => DiskState::Full,
        Some(Refused::Other(_)) => DiskState::Failing,
        None if seen.free_bytes < nothing => DiskState::Full,
        None if fills_up || seen.free_bytes < with_margin(little, was_low) => DiskState::Low,
        None => DiskState::Room,
    }
}

/// Hysteresis: a limit that was passed stays passed until there is a quarter more, so that a figure near it does not
/// flap.
const fn with_margin(limit: u64, was_passed: bool) -> u64 {
    if was_passed { limit / 4 * 5 } else { limit }
}

fn refused_in_words(seen: &DiskReading) -> String {
    match &seen.refused {
        Some(Refused::NoRoom(why) | Refused::Other(why)) => why.clone(),
        None => String::new(),
    }
}

/// Whether both would read the same to people.
fn is_as_reported(reported: &Disk, new: &Disk) -> bool {
    let step = match new.state {
        DiskState::Room => new.total_bytes / 50,
        DiskState::Low | DiskState::Full | DiskState::Failing => reported.free_bytes / 10,
    };
    let soon = |disk: &Disk| disk.full_in_s.unwrap_or(u64::MAX);
    (reported.state, &reported.refused, reported.total_bytes)
        == (new.state, &new.refused, new.total_bytes)
        && reported.free_bytes.abs_diff(new.free_bytes) <= step
        && soon(reported).abs_diff(soon(new)) <= soon(reported) / 4
}

/// The descriptors of which four fifths or more are open.
fn scarce(reported: &[Descriptors], seen: &[Descriptors]) -> Vec<Descriptors> {
    let of = |reported: &Descriptors, seen: &Descriptors| reported.process == seen.process;
    let reported = |seen: &Descriptors| reported.iter().find(|reported| of(reported, seen));
    let is_scarce =
        |seen: &&Descriptors| seen.open > share_of(seen.limit, reported(seen).is_some());
    let as_reported = |seen: &Descriptors| match reported(seen) {
        Some(reported)
            if reported.limit == seen.limit
                && reported.open.abs_diff(seen.open) <= seen.limit / 20 =>
        {
            reported.clone()
        }
        _ => seen.clone(),
    };
    seen.iter().filter(is_scarce).map(as_reported).collect()
}

const fn share_of(limit: u64, was_scarce: bool) -> u64 {
    limit / 20 * if was_scarce { 15 } else { 16 }
}

#[cfg(test)]
mod tests;
