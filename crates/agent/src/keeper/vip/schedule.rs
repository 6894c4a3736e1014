//! How the kernel schedules a worker of the proxy: whether it waits for a processor or the disk.

use super::beats::{ConnectionId, Silent};
use gaiola_os::thread::{self, Thread};
use std::collections::BTreeMap;
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
    /// Of a thread; `None`: it has ended, or the kernel does not say.
    fn of(thread: &Thread) -> Option<Self> {
        Some(Self {
            state: thread.state()?,
            ran: thread.ran()?,
        })
    }
}

/// The workers' threads, found by their names once: a machine that has no processor to spare has none for that.
#[derive(Default)]
pub(super) struct Schedules(BTreeMap<ConnectionId, Option<Thread>>);

impl Schedules {
    /// How this worker is scheduled; `None`: it cannot be read.
    pub(super) fn of(&mut self, worker: Silent) -> Option<Schedule> {
        let find = || thread::named(worker.proxy.0, &format!("worker-{}", worker.index));
        let thread = self.0.entry(worker.id).or_insert_with(find);
        Schedule::of(thread.as_ref()?)
    }

    /// Forgets a worker.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.0.remove(&id);
    }
}
