//! Stops processes with SIGSTOP, and lets them go on.

use super::processes;
use gaiola_core::drill::Process;
use gaiola_os::process::{Identity, signal};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Until every process that was sent a SIGSTOP has stopped.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Poll interval of their states.
const POLL: Duration = Duration::from_millis(10);

/// Why processes were not stopped. None of them is then.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is nothing to freeze.
    #[error("no such process runs there")]
    NoProcess,
    /// Processes that continue in spite of SIGSTOP.
    #[error("{0} processes do not stop")]
    Unstoppable(usize),
}

/// Stops one process, or all of a server that `everything` finds, and waits until all of them have stopped.
///
/// # Errors
/// Where there is none, or one does not stop.
pub(super) async fn freeze(
    everything: impl Fn() -> BTreeSet<u32>,
    process: Option<Process>,
) -> Result<Vec<Identity>, FreezeError> {
    let ends = Instant::now() + STOP_LIMIT;
    let mut stopped: Vec<Identity> = Vec::new();
    loop {
        let victims = match process {
            // One that is born while others are stopped belongs to one that is not stopped yet, and is found the next time.
            None => processes::identities(&everything()),
            Some(_) if !stopped.is_empty() => stopped.clone(),
            Some(process) => processes::victims(&everything(), process),
        };
        let running: Vec<Identity> = victims.into_iter().filter(|v| runs(*v)).collect();
        if running.is_empty() && !stopped.is_empty() {
            return Ok(stopped);
        }
        if running.is_empty() || Instant::now() > ends {
            thaw(&stopped);
            return Err(if stopped.is_empty() {
                FreezeError::NoProcess
            } else {
                FreezeError::Unstoppable(running.len())
            });
        }
        for victim in running {
            signal(victim.pid, Signal::STOP);
            if !stopped.contains(&victim) {
                stopped.push(victim);
            }
        }
        sleep(POLL).await;
    }
}

/// A zombie and a stopped process do not run.
fn runs(victim: Identity) -> bool {
    processes::is_alive(victim) && !matches!(processes::state(victim.pid), Some('T' | 't'))
}

/// Lets them go on.
pub(super) fn thaw(victims: &[Identity]) {
    for victim in victims.iter().filter(|it| processes::is_alive(**it)) {
        signal(victim.pid, Signal::CONT);
    }
}
