//! What a server has left of its disks, its memory and its descriptors.

use serde::{Deserialize, Serialize};

/// What a server has left, as its agent tells it. Figures are told anew when they have changed by a hundredth or so, and at
/// once when a state changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The file systems that hold what the server writes; one that holds several things is told once.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Memory that processes can use; `None`: not known.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Where descriptors run out.
    #[serde(default)]
    pub descriptors: Vec<Descriptors>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What it holds of the server.
    pub holds: Holds,
    /// Its size.
    pub total_bytes: u64,
    /// What those who are not root may still write.
    pub free_bytes: u64,
    /// At this rate it is full in so many seconds; `None`: later than within an hour, or never.
    #[serde(default)]
    pub full_in_s: Option<u64>,
    /// How it does.
    pub state: DiskState,
    /// Why it refuses what is written, in the system's words; empty: it does not.
    #[serde(default)]
    pub refused: String,
}

/// What a file system holds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Its state directory, with its logs and its member of the store.
    State,
    /// PostgreSQL's data, whatever else it holds.
    Database,
}

/// How a file system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// It has room.
    Room,
    /// It is almost full, or soon will be.
    Low,
    /// Nothing more can be written.
    Full,
    /// It has room, and refuses what is written all the same.
    Failing,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What there is: the machine's, or what the server's cgroup allows where that is less.
    pub total_bytes: u64,
    /// What can be had without swapping.
    pub available_bytes: u64,
    /// Whether that is little.
    pub low: bool,
}

/// Open descriptors beside their limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// The process, by the name that it has in the logs; `None`: the whole system.
    pub process: Option<String>,
    /// How many are open.
    pub open: u64,
    /// How many may be.
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
