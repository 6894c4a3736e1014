//! How the kernel schedules a worker of the proxy: whether it waits for a processor or the disk.

use super::beats::Silent;
use gaiola_os::thread;
use std::time::Duration;

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Its state, as `proc(5)` has it: R where it runs or waits for a processor, D where it waits for the disk.
    pub(super) state: char,
    /// For how long it has run.
    pub(super) ran: Duration,
}

impl Schedule {
    /// Of this worker, whose thread has its name; `None`: it cannot be read.
    pub(super) fn of(worker: Silent) -> Option<Self> {
        let name = format!("worker-{}", worker.index);
        let thread = thread::named(worker.proxy.0, &name)?;
        Some(Self {
            state: thread.state()?,
            ran: thread.ran()?,
        })
    }
}
