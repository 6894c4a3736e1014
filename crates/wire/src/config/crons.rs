//! `[cron.NAME]`: commands that run at set times.

use super::{limits, named, value};
use crate::file::value::{Wrong, duration_up_to};
use crate::file::{Mistakes, Section, text};
use gaiola_model::CronName;
use gaiola_model::config::{Cron, Overlap};
use gaiola_model::cron::{Schedule, ScheduleError};
use std::collections::BTreeMap;
use std::time::Duration;

/// A section of this kind.
pub(super) const CRON: &str = "cron.NAME";
/// The longest run.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn of(root: &Section<'_>, mistakes: &mut Mistakes<'_>) -> BTreeMap<CronName, Cron> {
    named::of(root, ("cron", CRON), cron, mistakes)
}

fn cron(section: &Section<'_>, mistakes: &mut Mistakes<'_>) -> Cron {
    section.need("run", "\"COMMAND\", the command to run", mistakes);
    section.need("schedule", "\"30 3 * * *\" or \"@hourly\"", mistakes);
    let run = text(section, "run", value::command, mistakes);
    let schedule = text(section, "schedule", schedule, mistakes);
    let zone = text(section, "time_zone", time_zone, mistakes);
    let default = Cron::new(&schedule.unwrap_or_default(), run.unwrap_or_default());
    Cron {
        time_zone: zone.unwrap_or(default.time_zone.clone()),
        timeout: text(section, "timeout", timeout, mistakes).unwrap_or(default.timeout),
        overlap: text(section, "overlap", overlap, mistakes).unwrap_or_default(),
        limits: limits::of(section, mistakes),
        ..default
    }
}

fn schedule(text: &str) -> Result<String, Wrong> {
    match Schedule::parse(text, "UTC") {
        Ok(_) => Ok(text.into()),
        Err(error @ ScheduleError::Never) => Err((
            error.to_string(),
            "write a date that there is".into(),
        )),
        Err(error) => Err((
            error.to_string(),
            "write minute, hour, day of the month, month and day of the week, such as \"30 3 * * *\", or @hourly, @daily, @weekly, @monthly or @yearly".into(),
        )),
    }
}

fn time_zone(text: &str) -> Result<String, Wrong> {
    match Schedule::parse("@hourly", text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err((
            error.to_string(),
            "write one of the IANA database, such as \"Europe/Berlin\" or \"UTC\"".into(),
        )),
    }
}

fn timeout(text: &str) -> Result<Duration, Wrong> {
    let timeout = duration_up_to(LONGEST, text)?;
    match timeout.subsec_nanos() == 0 && !timeout.is_zero() {
        true => Ok(timeout),
        false => Err((
            "is not a whole number of seconds".into(),
            "write \"10s\" or \"30m\"".into(),
        )),
    }
}

fn overlap(text: &str) -> Result<Overlap, Wrong> {
    match text {
        "skip" => Ok(Overlap::Skip),
        "queue" => Ok(Overlap::Queue),
        "allow" => Ok(Overlap::Allow),
        _ => Err((
            "is not a way to deal with a run under way".into(),
            "write \"skip\", \"queue\" or \"allow\"".into(),
        )),
    }
}
