//! Describes a server's remaining resources for people. Each sentence follows the server's name and a colon.

use gaiola_model::resources::{Descriptors, Disk, DiskState, Holds, Memory, Resources};

/// What is wrong now: nothing can be written.
pub fn faults(resources: &Resources) -> Vec<String> {
    resources.disks.iter().filter_map(fault).collect()
}

/// What will be wrong soon.
pub fn warnings(resources: &Resources) -> Vec<String> {
    let disks = resources.disks.iter().filter_map(low_disk);
    let memory = resources.memory.as_ref().and_then(low_memory);
    let descriptors = resources.descriptors.iter().map(scarce);
    disks.chain(memory).chain(descriptors).collect()
}

fn fault(disk: &Disk) -> Option<String> {
    let (what, left, refused) = (named(disk.holds), left(disk), &disk.refused);
    match disk.state {
        DiskState::Room | DiskState::Low => None,
        DiskState::Full if refused.is_empty() => Some(format!("{what} is full: {left}")),
        DiskState::Full => Some(format!("{what} is full: {refused}; {left}")),
        DiskState::Failing => Some(format!("{what} refuses what is written: {refused}")),
    }
}

fn low_disk(disk: &Disk) -> Option<String> {
    let (what, left) = (named(disk.holds), left(disk));
    match (disk.state, disk.full_in_s) {
        (DiskState::Low, None) => Some(format!("{what} is almost full: {left}")),
        (DiskState::Low, Some(seconds)) => Some(format!(
            "{what} will be full in about {} at this rate: {left}",
            span(seconds)
        )),
        _ => None,
    }
}

fn low_memory(memory: &Memory) -> Option<String> {
    let (available, total) = (bytes(memory.available_bytes), bytes(memory.total_bytes));
    memory
        .low
        .then(|| format!("memory is scarce: {available} of {total} can be had"))
}

fn scarce(descriptors: &Descriptors) -> String {
    let Descriptors {
        process,
        open,
        limit,
    } = descriptors;
    let whose = process.as_deref().unwrap_or("the system");
    format!("{whose} has {open} of its {limit} descriptors open")
}

const fn named(holds: Holds) -> &'static str {
    match holds {
        Holds::State => "the disk",
        Holds::Database => "the disk with PostgreSQL's data",
    }
}

fn left(disk: &Disk) -> String {
    let (free, total) = (bytes(disk.free_bytes), bytes(disk.total_bytes));
    format!("{free} of {total} are free")
}

/// Bytes as `0 B`, `12 kB`, `340 MB`, `3.4 GB`.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// Seconds as `40 s` or `12 min`.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    }
}
