//! How the kernel schedules a worker of the proxy: whether it waits for a processor.

use super::beats::Silent;
use gaiola_os::thread;
use std::time::Duration;

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Whether it runs or waits for a processor.
    pub(super) runnable: bool,
    /// For how long it has run.
    pub(super) ran: Duration,
}

impl Schedule {
    /// Of this worker, whose thread has its name; `None`: it cannot be read.
    pub(super) fn of(worker: Silent) -> Option<Self> {
        let name = format!("worker-{}", worker.index);
        let thread = thread::named(worker.proxy.0, &name)?;
        Some(Self {
            runnable: thread.is_runnable(),
            ran: thread.ran()?,
        })
    }
}
