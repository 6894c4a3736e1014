//! What keeps a process from waiting for a processor or the disk, where it is allowed: real-time scheduling, and memory that is
//! never paged out.

use rustix::mm::{MlockAllFlags, mlockall};
use std::io;

/// Requests real-time scheduling (SCHED_RR, the lowest priority) for the calling thread; threads and processes that it
/// starts do not inherit it. `Err`: it is not allowed here, and everything works without.
pub fn prefer_realtime() -> io::Result<()> {
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and `parameters` lives until the call returns.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps every page that the process has used, of its program too, in memory: it never waits for the disk to read one again. What
/// it maps later is not kept: where locked memory is limited, an allocation would fail. `Err`: it is not allowed here (`LimitMEMLOCK=`),
/// and everything works without.
pub fn stay_in_memory() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT)?)
}
