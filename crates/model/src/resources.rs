//! A server's remaining disk, memory and descriptors.

use serde::{Deserialize, Serialize};

/// A server's remaining resources as reported by its agent. Figures are published again when they have changed by about
/// a hundredth, and at once when a state changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The file systems the server writes to, each once even if it holds several things.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Usable memory; `None`: not known.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Descriptors that are running out.
    #[serde(default)]
    pub descriptors: Vec<Descriptors>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What the server stores on it.
    pub holds: Holds,
    /// Its size.
    pub total_bytes: u64,
    /// Bytes that a user other than root may still write.
    pub free_bytes: u64,
    /// Seconds until it is full at the current rate; `None`: more than an hour, or never.
    #[serde(default)]
    pub full_in_s: Option<u64>,
    /// Its state.
    pub state: DiskState,
    /// The system's error if it rejects writes; empty: it accepts them.
    #[serde(default)]
    pub refused: String,
}

/// What a server stores on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Its state directory, with its logs and its store member.
    State,
    /// PostgreSQL's data, whatever else it holds.
    Database,
}

/// The state of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// It has room.
    Room,
    /// It is almost full, or soon will be.
    Low,
    /// Nothing more can be written.
    Full,
    /// It has room but rejects writes.
    Failing,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Total: the machine's, or the limit of the server's cgroup if that is lower.
    pub total_bytes: u64,
    /// Available without swapping.
    pub available_bytes: u64,
    /// Whether that is low.
    pub low: bool,
}

/// Open descriptors and their limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// The process, by its name in the logs; `None`: the whole system.
    pub process: Option<String>,
    /// Open descriptors.
    pub open: u64,
    /// Their limit.
    pub limit: u64,
}

impl Holds {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Database => "database",
        }
    }
}
