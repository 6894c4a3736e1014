//! The commands that are ordered to run once on this server, the `release` command and those of crons: begun once, supervised, stopped, and
//! their results kept.
//!
//! The result is a file in `/run`, which a power cycle clears. While that file exists the command is not begun again, and
//! only this file is reported; so an agent that starts meanwhile, perhaps with an older order, neither repeats a run nor
//! forgets one.

use super::missing::is_here;
use super::plan::{self, RUN, Run};
use super::secrets::Hidden;
use super::supervisor::{Condition, WantedProcess};
use super::{Agent, clock};
use crate::state::{Boot, Order};
use gaiola_core::cron;
use gaiola_model::Placement;
use gaiola_model::placement::{ObservedCron, ReleaseOutcome};
use gaiola_os::process;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::Duration;

/// How a run ended.
struct End {
    /// How long it took.
    took: Duration,
    /// The exit status of its command, if it has one.
    status: Option<u8>,
    /// Why it failed; `None`: it did not.
    error: Option<String>,
}

impl Agent {
    /// Those that are ordered for this server's current boot.
    pub(super) fn ordered_runs(&self, order: &Order) -> Vec<Run> {
        let release = plan::release_run(&self.boot, &order.placement);
        let release = release.map(|(_, run)| run);
        let crons = plan::cron_runs(&self.boot, &order.placement).into_iter();
        let crons = crons.map(|(_, _, run)| run);
        release.into_iter().chain(crons).collect()
    }

    /// Adds those to the wanted processes that should run. One that runs stays as it was started.
    pub(super) fn want_runs(&self, wanted: &mut BTreeMap<String, WantedProcess>, order: &Order) {
        let runs = self.ordered_runs(order).into_iter();
        for run in runs.filter(|run| self.may_run(run)) {
            let mut process = plan::run(self.given(), &run);
            if let Some(running) = self.supervisor.running_as(&run.name) {
                process.launch.clone_from(running);
            }
            wanted.insert(run.name, process);
        }
    }

    /// Whether the run may be among the wanted processes: it should not be stopped, has not ended, and has no unsupervised
    /// process. It begins once the local port of the primary leads to one.
    fn may_run(&self, run: &Run) -> bool {
        let watched = self.supervisor.condition(&run.name).is_some();
        let may_begin = || {
            let needs_database = self.urls.is_some() && run.database;
            let led = !needs_database || self.proxy_known.borrow().reaches_primary;
            led && !is_late(run) && !self.has_begun(run) && !runs(&run.name)
        };
        let is_here = || is_here(&self.boot, &self.order.placement, run.release);
        let is_open = self.environments.is_open(run.env);
        !run.stop && (watched || is_open && is_here() && may_begin())
    }

    fn has_begun(&self, run: &Run) -> bool {
        run.status_file(&self.boot).exists() || run.begun(&self.boot).exists()
    }

    /// Records the results of runs that wrote none themselves: they were stopped, killed, could not be started, or not in time.
    pub(super) fn end_runs(&self, order: &Order) {
        for run in self.ordered_runs(order) {
            self.end_run(&run);
        }
    }

    fn end_run(&self, run: &Run) {
        let file = run.status_file(&self.boot);
        let why = match self.supervisor.condition(&run.name) {
            Some(Condition::Down(why)) => why,
            None if run.stop => "was stopped for a later change".to_string(),
            None if run.begun(&self.boot).exists() => "was killed before it ended".to_string(),
            None if is_late(run) => "could not begin in time".to_string(),
            _ => return,
        };
        if file.exists() || runs(&run.name) {
            return;
        }
        if let Err(error) = fs::write(&file, why) {
            tracing::error!(process = run.name, %error, "cannot save how a command ended");
        }
    }

    /// The result of the `release` command that is ordered here; `None` until it has ended, with all processes that it started.
    pub(super) fn release_outcome(&self) -> Option<ReleaseOutcome> {
        let (ordered, run) = plan::release_run(&self.boot, &self.order.placement)?;
        let end = self.end_of(&run)?;
        Some(ReleaseOutcome {
            release: ordered.release,
            command: ordered.command.clone(),
            generation: ordered.generation,
            error: end.error,
        })
    }

    /// The runs of crons that are ordered here and have ended.
    pub(super) fn ended_crons(&self) -> Vec<ObservedCron> {
        let ordered = plan::cron_runs(&self.boot, &self.order.placement).into_iter();
        let ended = ordered.filter_map(|(name, ordered, run)| {
            let End {
                took,
                status,
                error,
            } = self.end_of(&run)?;
            Some(ObservedCron {
                name: name.clone(),
                due: ordered.due,
                began: run.begun(&self.boot).exists(),
                took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                status,
                error: error.map(cron::shortened),
            })
        });
        ended.collect()
    }

    fn end_of(&self, run: &Run) -> Option<End> {
        if self.supervisor.is_running(&run.name) {
            return None;
        }
        let text = fs::read_to_string(run.status_file(&self.boot)).ok()?;
        let took = took(run, &self.boot);
        let status: Option<u8> = text.trim().parse().ok();
        let error = match text.trim() {
            "" => return None,
            "0" => None,
            words => Some(self.why_failed(run, words, took)),
        };
        Some(End {
            took,
            status,
            error,
        })
    }

    /// In words, with the end of its output; `written` is what its status file says.
    fn why_failed(&self, run: &Run, written: &str, took: Duration) -> String {
        let words = match run.timeout.filter(|limit| took >= *limit) {
            Some(limit) => format!("was ended: it took longer than {} s", limit.as_secs()),
            None if written.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("exited with status {written}")
            }
            None => written.to_string(),
        };
        let hidden = Hidden {
            command: &run.command,
            secrets: self.environments.secrets(run.env),
        };
        let output = self.logs.end(&run.log, run.heading.as_deref(), hidden);
        words + &output
    }
}

/// Removes what is left of runs of crons that an order on the disk does not have any more.
pub(super) fn forget_runs(boot: &Boot, placement: &Placement) {
    let ordered = plan::cron_runs(boot, placement).into_iter();
    let ordered: BTreeSet<String> = ordered.map(|(_, _, run)| run.name).collect();
    let folder = fs::read_dir(boot.run().join("releases"));
    for entry in folder.into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_known = name
            .split_once('.')
            .is_some_and(|(name, _)| ordered.contains(name));
        if !name.starts_with("cron-") || is_known {
            continue;
        }
        // What cannot be removed is tried again with the next order.
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
}

/// How long it took from its begin to its end.
fn took(run: &Run, boot: &Boot) -> Duration {
    let time = |path| fs::metadata(path).and_then(|known| known.modified()).ok();
    let (began, ended) = (time(run.begun(boot)), time(run.status_file(boot)));
    let took = began
        .zip(ended)
        .and_then(|(began, ended)| ended.duration_since(began).ok());
    took.unwrap_or_default()
}

fn is_late(run: &Run) -> bool {
    let now = clock::now();
    run.begin_by.zip(now).is_some_and(|(by, now)| now > by)
}

/// Whether a process of this run exists. One with an unreadable environment does not belong to it.
fn runs(name: &str) -> bool {
    let found = process::with_environment(RUN, name);
    found.unwrap_or_else(|error: io::Error| {
        tracing::error!(process = name, %error, "cannot search /proc for the processes of a command");
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
            .env(RUN, "release-7-7")
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
