//! What a file of `gaiola proxy -f FILE` says.

mod access_log;

pub use access_log::{AccessLog, Facility, LogFormat, LogTarget};

use crate::ProxyConfig;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyFile {
    /// How the process is set up; what changes here needs a new start.
    pub process: Process,
    /// What is served; what changes here is taken while traffic goes on. Its revision is 0: whoever reads a file again
    /// counts.
    pub config: ProxyConfig,
}

/// How the process is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Threads that serve; `None`: one a CPU.
    pub workers: Option<NonZeroUsize>,
    /// Where `/metrics`, `/livez` and `/readyz` are answered.
    pub admin: Option<SocketAddr>,
    /// Unix socket that takes orders.
    pub control: Option<PathBuf>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// How long requests that are in flight have when the process is told to end; `None`: 10 s.
    pub hard_stop_after: Option<Duration>,
}
