//! The `release` command that is ordered on this server: begun once, supervised, stopped, and its result kept.
//!
//! The result is a file in `/run`, which a power cycle clears. While that file exists the command is not begun again, and
//! only this file is reported; so an agent that starts meanwhile, perhaps with an older order, neither repeats a run nor
//! forgets one.

use super::Agent;
use super::missing::is_here;
use super::plan::{self, RELEASE_RUN};
use super::secrets::Hidden;
use crate::state::Order;
use gaiola_model::placement::{ReleaseOutcome, ReleaseRun};
use gaiola_os::process;
use std::io;

use super::supervisor::Condition;

impl Agent {
    /// The run that is ordered for this server's current boot.
    pub(super) fn ordered_run<'a>(&self, order: &'a Order) -> Option<&'a ReleaseRun> {
        plan::ordered_run(&self.boot, &order.placement)
    }

    /// Whether the run may be among the wanted processes: it should not be stopped, has not ended, and has no unsupervised
    /// process. It begins once the local port of the primary leads to one.
    pub(super) fn may_run_release(&self, run: &ReleaseRun) -> bool {
        let name = plan::release_run_name(run);
        let watched = self.supervisor.condition(&name).is_some();
        let may_begin = || {
            let led = self.urls.is_none() || self.proxy_known.borrow().reaches_primary;
            let begun = plan::release_status_file(&self.boot, run).exists()
                || plan::release_begun(&self.boot, run).exists();
            led && !begun && !runs(&name)
        };
        let is_here = || is_here(&self.boot, &self.order.placement, run.release);
        let is_open = self.environments.is_open(run.env);
        !run.stop && (watched || is_open && is_here() && may_begin())
    }

    /// Records the result of a run that wrote none itself: it was stopped, killed, or could not be started.
    pub(super) fn end_release_run(&self, order: &Order) {
        let Some(run) = self.ordered_run(order) else {
            return;
        };
        let (name, file) = (
            plan::release_run_name(run),
            plan::release_status_file(&self.boot, run),
        );
        let why = match self.supervisor.condition(&name) {
            Some(Condition::Down(why)) => why,
            None if run.stop => "was stopped for a later change".to_string(),
            None if plan::release_begun(&self.boot, run).exists() => {
                "was killed before it ended".to_string()
            }
            _ => return,
        };
        if file.exists() || runs(&name) {
            return;
        }
        if let Err(error) = std::fs::write(&file, why) {
            tracing::error!(process = name, %error, "cannot save how the release command ended");
        }
    }

    /// The result of the run that is ordered here; `None` until it has ended, with all processes that it started.
    pub(super) fn release_outcome(&self) -> Option<ReleaseOutcome> {
        let run = self.ordered_run(&self.order)?;
        let name = plan::release_run_name(run);
        if self.supervisor.is_running(&name) {
            return None;
        }
        let status = std::fs::read_to_string(plan::release_status_file(&self.boot, run)).ok()?;
        let hidden = Hidden {
            command: &run.command,
            secrets: self.environments.secrets(run.env),
        };
        let end = || self.logs.end(&name, hidden);
        let error = match status.trim() {
            "" => return None,
            "0" => None,
            status if status.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(format!("exited with status {status}{}", end()))
            }
            words => Some(format!("{words}{}", end())),
        };
        Some(ReleaseOutcome {
            release: run.release,
            command: run.command.clone(),
            generation: run.generation,
            error,
        })
    }
}

/// Whether a process of this run exists. One with an unreadable environment does not belong to it.
fn runs(name: &str) -> bool {
    let found = process::with_environment(RELEASE_RUN, name);
    found.unwrap_or_else(|error: io::Error| {
        tracing::error!(process = name, %error, "cannot search /proc for a release command");
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_run_is_found_by_its_environment() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 & wait"])
            .env(RELEASE_RUN, "release-7-7")
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !runs("release-7-7") {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(!runs("release-7-8"));
        let _ = child.kill();
        let _ = child.wait();
    }
}
