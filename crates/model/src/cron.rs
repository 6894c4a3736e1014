//! Commands that run at set times: when they are due.

use crate::time::{self, UnixTime};
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::time::Duration;

/// A run that has not begun within this time of its order does not begin at all.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// What was due longer ago is missed. A conductor that takes over from another one needs seconds.
pub const LATE: Duration = Duration::from_secs(60);
/// The most runs of one cron at once, and the most that wait.
pub const MOST_RUNS: usize = 10;
/// How many of the last runs are remembered.
pub const REMEMBERED: usize = 5;
/// The longest reason of an end, in bytes.
pub const MAX_REASON: usize = 500;
/// Times of day that are listed, up to here, are treated as times of day.
const MAX_LISTED: usize = 48;

/// When a command is due.
///
/// ```
/// use gaiola_model::{UnixTime, cron::Schedule};
///
/// let nightly = Schedule::parse("30 3 * * *", "Europe/Berlin").unwrap();
/// let midnight = UnixTime(1_767_312_000); // 2026-01-02 00:00 UTC
/// assert_eq!(nightly.next_after(midnight).unwrap().to_string(), "2026-01-02T02:30:00Z");
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    /// It is due whenever one of them is.
    parts: Vec<croner::Cron>,
    zone: TimeZone,
}

/// Why a schedule cannot be read, in words that follow it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The fields.
    #[error("is not a schedule: {0}")]
    Fields(String),
    /// No time fits them.
    #[error("never comes")]
    Never,
    /// The time zone.
    #[error("is not a time zone")]
    Zone,
}

impl Schedule {
    /// Reads crontab's five fields (minute, hour, day of the month, month, day of the week; crontab(5)), or `@yearly`, `@monthly`, `@weekly`,
    /// `@daily` or `@hourly`, and the name of a time zone, such as `Europe/Berlin` or `UTC`.
    ///
    /// Where both days are restricted, either is enough. Where minute and hour are numbers, or lists of them, those that the clock leaves out in
    /// spring are due right after the gap, and of those that come twice in autumn the first is due. Any other schedule follows the clock: it is not
    /// due in the hour that is left out, and in both of those that come twice.
    ///
    /// # Errors
    /// Neither may be of another form, and the schedule must come due at all.
    pub fn parse(fields: &str, zone: &str) -> Result<Self, ScheduleError> {
        let schedule = Self::read(fields, zone)?;
        let some_time = UnixTime(1_767_225_600);
        let comes = schedule.next_after(some_time).is_some();
        comes.then_some(schedule).ok_or(ScheduleError::Never)
    }

    /// As [`parse`](Self::parse), without a search for a time at which it is due.
    pub(crate) fn read(fields: &str, zone: &str) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let error = |error: croner::errors::CronError| ScheduleError::Fields(error.to_string());
        let whole = parser.parse(fields).map_err(error)?;
        let parts = times_of_day(fields).map(|parts| {
            let parts = parts.iter().map(|part| parser.parse(part));
            parts.collect::<Result<_, _>>().map_err(error)
        });
        Ok(Self {
            parts: parts.unwrap_or_else(|| Ok(vec![whole]))?,
            zone: TimeZoneDatabase::bundled()
                .get(zone)
                .map_err(|_| ScheduleError::Zone)?,
        })
    }

    /// The first time after `at` that it is due; `None`: it never is again.
    pub fn next_after(&self, at: UnixTime) -> Option<UnixTime> {
        let at = time::timestamp(at)?.to_zoned(self.zone.clone());
        let parts = self.parts.iter();
        let next = parts.filter_map(|part| part.find_next_occurrence(&at, false).ok());
        let next = next.map(|next| next.timestamp()).min()?;
        let next = u64::try_from(next.as_second()).ok().map(UnixTime)?;
        (next > UnixTime(u64::try_from(at.timestamp().as_second()).ok()?)).then_some(next)
    }

    /// A time as the schedule's time zone has it: `2026-01-02 03:30`.
    pub fn local(&self, at: UnixTime) -> String {
        time::timestamp(at).map_or_else(
            || at.to_string(),
            |at| {
                let zoned = at.to_zoned(self.zone.clone());
                zoned.strftime("%Y-%m-%d %H:%M").to_string()
            },
        )
    }
}

/// The schedule taken apart where its minute and its hour are lists of numbers: one for each time of day. The library knows only a single time as
/// one that a clock may leave out.
fn times_of_day(fields: &str) -> Option<Vec<String>> {
    let mut fields = fields.split_ascii_whitespace();
    let (minutes, hours) = (fields.next()?, fields.next()?);
    let days = fields.collect::<Vec<_>>().join(" ");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let listed = |field: &str| field.split(',').all(is_number);
    let count = minutes.split(',').count() * hours.split(',').count();
    if !listed(minutes) || !listed(hours) || count > MAX_LISTED {
        return None;
    }
    let each = minutes.split(',').flat_map(|minute| {
        let hours = hours.split(',');
        hours.map(move |hour| (minute, hour))
    });
    Some(
        each.map(|(minute, hour)| format!("{minute} {hour} {days}"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(fields: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(fields, zone).unwrap();
        let after: jiff::Timestamp = after.parse().unwrap();
        let mut at = UnixTime(after.as_second().try_into().unwrap());
        let next = || {
            at = schedule.next_after(at)?;
            Some(schedule.local(at))
        };
        std::iter::from_fn(next).take(count).collect()
    }

    #[test]
    fn fields_are_those_of_crontab() {
        let hourly = dues("@hourly", "UTC", "2026-01-02T03:04:05Z", 2);
        assert_eq!(hourly, ["2026-01-02 04:00", "2026-01-02 05:00"]);
        let steps = dues("*/20 8-9 * * mon-fri", "UTC", "2026-01-02T09:10:00Z", 3);
        assert_eq!(
            steps,
            ["2026-01-02 09:20", "2026-01-02 09:40", "2026-01-05 08:00"]
        );
        // The 1st of the month or a Sunday.
        let either = dues("0 0 1 * 7", "UTC", "2026-01-26T00:00:00Z", 3);
        assert_eq!(
            either,
            ["2026-02-01 00:00", "2026-02-08 00:00", "2026-02-15 00:00"]
        );
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice_is_due_once() {
        let berlin = |fields, after, count| dues(fields, "Europe/Berlin", after, count);
        let spring = berlin("30 2 * * *", "2026-03-28T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-29 03:00", "2026-03-30 02:30"]);
        let autumn = berlin("30 2 * * *", "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25 02:30", "2026-10-26 02:30"]);
        let listed = berlin("0,30 2,14 * * *", "2026-03-28T22:00:00Z", 3);
        let expected = ["2026-03-29 03:00", "2026-03-29 14:00", "2026-03-29 14:30"];
        assert_eq!(listed, expected);
        let listed = berlin("0 2,14 * * *", "2026-10-24T22:00:00Z", 3);
        let expected = ["2026-10-25 02:00", "2026-10-25 14:00", "2026-10-26 02:00"];
        assert_eq!(listed, expected);
        let steps = berlin("*/30 2 * * *", "2026-10-24T22:00:00Z", 4);
        assert_eq!(steps, ["2026-10-25 02:00", "2026-10-25 02:30"].repeat(2));
        let hourly = berlin("0 * * * *", "2026-10-24T23:30:00Z", 3);
        assert_eq!(
            hourly,
            ["2026-10-25 02:00", "2026-10-25 02:00", "2026-10-25 03:00"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_an_error() {
        for fields in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "@reboot",
            "x * * * *",
            "*/0 * * * *",
        ] {
            let error = Schedule::parse(fields, "UTC").unwrap_err();
            assert!(
                matches!(error, ScheduleError::Fields(_)),
                "{fields}: {error:?}"
            );
        }
        let never = Schedule::parse("0 0 30 2 *", "UTC").unwrap_err();
        assert_eq!(never, ScheduleError::Never);
        let zone = Schedule::parse("@daily", "Europe/Nowhere").unwrap_err();
        assert_eq!(zone, ScheduleError::Zone);
    }
}
