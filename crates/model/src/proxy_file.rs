//! The contents of a file for `gaiola proxy -f FILE`.

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
    /// Process settings; most changes here need a new process.
    pub process: Process,
    /// What is served; changes here apply while traffic continues. Its revision is 0: the reader of a file numbers its
    /// versions.
    pub config: ProxyConfig,
}

/// Process settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Address for `/metrics`, `/livez` and `/readyz`.
    pub admin: Option<SocketAddr>,
    /// Unix socket for commands.
    pub control: Option<PathBuf>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// How long requests in flight may take after the process is asked to end; `None`: 10 s.
    pub hard_stop_after: Option<Duration>,
    /// How long requests and sessions may take after a new process has taken over; `None`: 10 minutes.
    pub take_over_limit: Option<Duration>,
}
