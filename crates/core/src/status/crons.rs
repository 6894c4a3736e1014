//! The commands that run at set times, as the status shows them.

use crate::words::{Took, all_of};
use gaiola_model::cron::Schedule;
use gaiola_model::placement::{CronEnd, CronOutcome};
use gaiola_model::status::CronStatus;
use gaiola_model::{Placement, ServerName, UnixTime};
use std::time::Duration;

/// All of them, with when each is due next; `now` is the time of day, if it is known.
pub(super) fn all(placement: &Placement, now: Option<UnixTime>) -> Vec<CronStatus> {
    let crons = placement.crons.iter();
    let status = crons.map(|(name, placed)| {
        let settings = &placed.settings;
        let from = now.map_or(placed.handled, |now| now.max(placed.handled));
        CronStatus {
            name: name.clone(),
            schedule: settings.schedule.clone(),
            time_zone: settings.time_zone.clone(),
            next: (settings.schedule().ok()).and_then(|schedule| schedule.next_after(from)),
            runs: placed
                .runs
                .iter()
                .map(|run| (run.due, run.server))
                .collect(),
            last: placed.last.clone(),
        }
    });
    status.collect()
}

/// Those that did not do their work the last time.
pub(super) fn warnings(placement: &Placement) -> Vec<String> {
    let crons = placement.crons.iter();
    let bad = crons.filter_map(|(name, placed)| {
        let last = placed.last.last()?;
        let bad = !matches!(last.outcome, CronOutcome::Succeeded | CronOutcome::Skipped);
        bad.then(|| format!("cron {name} {}", end_in_words(last, &last.due.to_string())))
    });
    bad.collect()
}

/// One line for people.
pub(super) fn in_words(cron: &CronStatus) -> String {
    let schedule = Schedule::parse(&cron.schedule, &cron.time_zone).ok();
    let local = |at: UnixTime| match &schedule {
        Some(schedule) => schedule.local(at),
        None => at.to_string(),
    };
    let mut words = format!("{}  {} ({})", cron.name, cron.schedule, cron.time_zone);
    if let Some(next) = cron.next {
        words += &format!("  next {}", local(next));
    }
    if !cron.runs.is_empty() {
        let on: Vec<ServerName> = cron.runs.iter().map(|(_, server)| *server).collect();
        words += &format!("  runs on {}", all_of(on));
    }
    if let Some(last) = cron.last.last() {
        words += &format!("  {}", end_in_words(last, &local(last.due)));
    }
    words
}

fn end_in_words(end: &CronEnd, due: &str) -> String {
    let on = end
        .server
        .map_or_else(String::new, |server| format!(" on {server}"));
    let (took, why) = (Took(Duration::from_millis(end.took_ms)), &end.reason);
    match end.outcome {
        CronOutcome::Succeeded => format!("ran at {due}{on} in {took}"),
        CronOutcome::Failed => format!("failed at {due}{on}: {why}"),
        CronOutcome::Lost => format!("was lost at {due}{on}: {why}"),
        CronOutcome::Missed => format!("was missed at {due}{on}: {why}"),
        CronOutcome::Skipped => format!("was skipped at {due}: {why}"),
    }
}
