//! When a command of `[cron.NAME]` runs: what is due, what is missed, and what becomes of it while a run is under way.
//!
//! Each due time is decided once: [`PlacedCron::handled`] says up to which one that has happened, and it is stored together with the decision.

use gaiola_model::config::{Cron, Overlap};
use gaiola_model::cron::{LATE, MAX_REASON, MOST_RUNS, REMEMBERED, Schedule};
use gaiola_model::placement::{CronEnd, CronOutcome, CronRun, ObservedCron, PlacedCron};
use gaiola_model::{Placement, UnixTime};
use std::time::Duration;

/// Missed times are counted up to here.
const MOST_MISSED: u64 = 1000;

/// How far two clocks of a site may differ.
const MOST_AHEAD: Duration = Duration::from_secs(600);

/// What stays bad is told once in each span of this length.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// What has come due, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What was due so long ago that it is not run.
    pub missed: Option<Missed>,
    /// The rest.
    pub now: Vec<UnixTime>,
}

/// Due times that are not run, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The first one.
    pub first: UnixTime,
    /// No other one was due from then up to this time.
    pub until: UnixTime,
    /// How many; more than a thousand are not counted.
    pub times: u64,
}

/// What becomes of a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It runs.
    Run,
    /// It waits for the run that is under way.
    Wait,
    /// It does not run, for this reason.
    Skip(String),
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is under way, or about to be.
    Runs,
    /// Its agent reports how it ended.
    Ended(ObservedCron),
    /// Its server can no longer say.
    Lost(String),
}

/// One that is first seen now: nothing that came before was due.
pub fn first(settings: &Cron, now: UnixTime) -> PlacedCron {
    PlacedCron {
        settings: settings.clone(),
        handled: now,
        runs: Vec::new(),
        waiting: Vec::new(),
        last: Vec::new(),
    }
}

/// One that the file does not have any more is never due, and if it comes back nothing was due before.
pub fn retire(placed: &mut PlacedCron) {
    placed.settings.schedule.clear();
    placed.waiting.clear();
}

/// Takes other settings over. By another schedule nothing was due before now.
pub fn set(placed: &mut PlacedCron, settings: &Cron, now: UnixTime) {
    if !placed.settings.is_due_as(settings) {
        placed.handled = now;
    }
    placed.settings = settings.clone();
}

/// Goes back to now where the clock of a conductor was minutes ahead of this one, and returns up to when nothing would have been due otherwise.
/// Clocks that differ by less make nothing due twice.
pub fn correct(placed: &mut PlacedCron, now: UnixTime) -> Option<UnixTime> {
    let is_ahead = |time: &UnixTime| *time > now + MOST_AHEAD;
    for run in &mut placed.runs {
        if is_ahead(&run.ordered) {
            run.ordered = now;
        }
    }
    let ahead = Some(placed.handled).filter(is_ahead)?;
    placed.handled = now;
    Some(ahead)
}

/// What came due since the last decision.
pub fn due(placed: &PlacedCron, schedule: &Schedule, now: UnixTime) -> Due {
    let mut found = Due::default();
    let mut at = placed.handled;
    while let Some(next) = schedule.next_after(at).filter(|next| *next <= now) {
        at = next;
        if now.saturating_since(next) <= LATE {
            found.now.push(next);
            continue;
        }
        let missed = found.missed.get_or_insert(Missed {
            first: next,
            until: next,
            times: 0,
        });
        missed.times += 1;
        if missed.times >= MOST_MISSED {
            at = at.max(UnixTime(now.0.saturating_sub(LATE.as_secs() + 1)));
        }
        missed.until = at;
    }
    found
}

/// How long it is until one of a site's is due, or a run of one is over.
pub fn due_in(placement: &Placement, now: UnixTime) -> Option<Duration> {
    let next = placement.crons.values().flat_map(|placed| {
        let schedule = placed.settings.schedule().ok();
        let due = schedule.and_then(|schedule| schedule.next_after(placed.handled.max(now)));
        let over = placed.runs.iter().map(CronRun::over_by);
        // One that is late is known by its report, or after a day.
        let over = over.filter(|over| *over > now);
        due.into_iter().chain(over)
    });
    Some(next.min()?.saturating_since(now))
}

/// What becomes of a due time beside the runs that are under way.
pub fn admit(placed: &PlacedCron) -> Admission {
    let Some(run) = placed.runs.first() else {
        return Admission::Run;
    };
    let under_way = format!(
        "the run of {} on {} is still under way",
        run.due, run.server
    );
    match placed.settings.overlap {
        Overlap::Allow if placed.runs.len() < MOST_RUNS => Admission::Run,
        Overlap::Allow => Admission::Skip(format!("{MOST_RUNS} runs of it are under way")),
        Overlap::Queue if placed.waiting.len() < MOST_RUNS => Admission::Wait,
        Overlap::Queue => Admission::Skip(format!("{under_way}, and {MOST_RUNS} more wait for it")),
        Overlap::Skip => Admission::Skip(under_way),
    }
}

/// Takes note of the runs that have ended, and returns them.
pub fn end_runs(placed: &mut PlacedCron, fate: impl Fn(&CronRun) -> Fate) -> Vec<CronEnd> {
    let runs = std::mem::take(&mut placed.runs);
    let mut ended = Vec::new();
    for run in runs {
        match fate(&run) {
            Fate::Runs => placed.runs.push(run),
            Fate::Ended(seen) => ended.push(of_report(&run, seen)),
            Fate::Lost(reason) => ended.push(CronEnd {
                due: run.due,
                server: Some(run.server),
                took_ms: 0,
                status: None,
                outcome: CronOutcome::Lost,
                reason,
            }),
        }
    }
    ended
}

/// Remembers what became of a due time, and says whether people are told: of whatever is another outcome than the one before, and of what is not
/// well once in each hour.
pub fn remember(placed: &mut PlacedCron, end: CronEnd) -> bool {
    let is_new = placed.last.last().is_none_or(|before| {
        let is_well = end.outcome == CronOutcome::Succeeded;
        let hour = |end: &CronEnd| end.due.0 / TOLD_AGAIN.as_secs();
        before.outcome != end.outcome || (!is_well && hour(before) != hour(&end))
    });
    placed.last.push(end);
    let surplus = placed.last.len().saturating_sub(REMEMBERED);
    placed.last.drain(..surplus);
    is_new
}

/// A due time that did not run.
pub fn not_run(due: UnixTime, outcome: CronOutcome, reason: String) -> CronEnd {
    CronEnd {
        due,
        server: None,
        took_ms: 0,
        status: None,
        outcome,
        reason,
    }
}

fn of_report(run: &CronRun, seen: ObservedCron) -> CronEnd {
    CronEnd {
        due: run.due,
        server: Some(run.server),
        took_ms: seen.took_ms,
        status: seen.status,
        outcome: match seen.error {
            None => CronOutcome::Succeeded,
            Some(_) if !seen.began => CronOutcome::Missed,
            Some(_) => CronOutcome::Failed,
        },
        reason: seen.error.map(shortened).unwrap_or_default(),
    }
}

/// A reason as it is stored: all of a site's are in one document.
pub fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: u64 = 1_767_312_000;

    fn placed(overlap: Overlap) -> (PlacedCron, Schedule) {
        let settings = Cron {
            overlap,
            ..Cron::new("* * * * *", "clean")
        };
        let schedule = settings.schedule().unwrap();
        (first(&settings, UnixTime(MIDNIGHT)), schedule)
    }

    fn run(due: u64) -> CronRun {
        CronRun {
            due: UnixTime(due),
            ordered: UnixTime(due),
            server: "app1".parse().unwrap(),
            boot: Default::default(),
            release: Default::default(),
            run: "clean".into(),
            timeout: std::time::Duration::from_secs(60),
            database: false,
            env: 0,
        }
    }

    #[test]
    fn nothing_is_due_before_it_came_and_each_minute_is_due_once() {
        let (mut cron, schedule) = placed(Overlap::Skip);
        assert_eq!(
            due(&cron, &schedule, UnixTime(MIDNIGHT + 59)),
            Due::default()
        );
        let found = due(&cron, &schedule, UnixTime(MIDNIGHT + 61));
        assert_eq!(
            (found.missed, &found.now),
            (None, &vec![UnixTime(MIDNIGHT + 60)])
        );
        cron.handled = found.now[0];
        assert_eq!(
            due(&cron, &schedule, UnixTime(MIDNIGHT + 61)),
            Due::default()
        );
    }

    #[test]
    fn what_was_due_while_nobody_decided_is_missed_and_counted() {
        let (cron, schedule) = placed(Overlap::Skip);
        let found = due(&cron, &schedule, UnixTime(MIDNIGHT + 5 * 60 + 30));
        let missed = found.missed.unwrap();
        assert_eq!((missed.first, missed.times), (UnixTime(MIDNIGHT + 60), 4));
        assert_eq!(found.now, [UnixTime(MIDNIGHT + 5 * 60)]);
        let year = due(&cron, &schedule, UnixTime(MIDNIGHT + 365 * 86_400));
        assert_eq!(year.missed.unwrap().times, MOST_MISSED);
        assert_eq!(year.now.len(), 2); // A minute ago is in time.
    }

    #[test]
    fn a_clock_that_was_far_ahead_holds_nothing_up_and_one_that_is_behind_repeats_nothing() {
        let (mut cron, schedule) = placed(Overlap::Skip);
        cron.handled = UnixTime(MIDNIGHT + 600);
        assert_eq!(correct(&mut cron, UnixTime(MIDNIGHT)), None);
        let now = UnixTime(MIDNIGHT + 599);
        assert_eq!(due(&cron, &schedule, now), Due::default());
        cron.handled = UnixTime(MIDNIGHT + 30 * 86_400);
        cron.runs = vec![run(MIDNIGHT + 30 * 86_400)];
        let ahead = correct(&mut cron, UnixTime(MIDNIGHT));
        assert_eq!(ahead, Some(UnixTime(MIDNIGHT + 30 * 86_400)));
        assert_eq!(cron.runs[0].ordered, UnixTime(MIDNIGHT));
        let found = due(&cron, &schedule, UnixTime(MIDNIGHT + 60));
        assert_eq!(found.now, [UnixTime(MIDNIGHT + 60)]);
    }

    #[test]
    fn a_run_under_way_decides_by_overlap() {
        let (mut cron, _) = placed(Overlap::Skip);
        assert_eq!(admit(&cron), Admission::Run);
        cron.runs = vec![run(MIDNIGHT)];
        assert!(
            matches!(admit(&cron), Admission::Skip(why) if why.contains("2026-01-02T00:00:00Z on app1"))
        );
        cron.settings.overlap = Overlap::Queue;
        assert_eq!(admit(&cron), Admission::Wait);
        cron.settings.overlap = Overlap::Allow;
        assert_eq!(admit(&cron), Admission::Run);
        cron.runs = vec![run(MIDNIGHT); MOST_RUNS];
        assert!(matches!(admit(&cron), Admission::Skip(_)));
    }

    #[test]
    fn the_last_runs_are_remembered() {
        let (mut cron, _) = placed(Overlap::Allow);
        cron.runs = (0..8).map(run).collect();
        let ends = end_runs(&mut cron, |run| match run.due.0 {
            0 => Fate::Runs,
            7 => Fate::Lost("app1 was switched off".into()),
            _ => Fate::Ended(ObservedCron {
                name: "clean".parse().unwrap(),
                due: run.due,
                took_ms: 5,
                began: true,
                status: Some(0),
                error: None,
            }),
        });
        assert_eq!((cron.runs.len(), ends.len()), (1, 7));
        let told: Vec<bool> = (ends.into_iter())
            .map(|end| remember(&mut cron, end))
            .collect();
        assert_eq!(told, [true, false, false, false, false, false, true]);
        assert_eq!(cron.last.len(), REMEMBERED);
        assert_eq!(cron.last.last().unwrap().outcome, CronOutcome::Lost);
    }

    #[test]
    fn what_fails_each_minute_is_told_once_an_hour_and_shortly() {
        let (mut cron, _) = placed(Overlap::Allow);
        let mut end = |at: u64, error: Option<String>| {
            cron.runs = vec![run(at)];
            let ends = end_runs(&mut cron, |run| {
                Fate::Ended(ObservedCron {
                    name: "clean".parse().unwrap(),
                    due: run.due,
                    took_ms: 5,
                    began: true,
                    status: None,
                    error: error.clone(),
                })
            });
            let [end] = ends.try_into().unwrap();
            assert!(end.reason.len() < MAX_REASON + 4);
            remember(&mut cron, end)
        };
        let error = || Some("ö".repeat(9000));
        assert!(end(0, error()) && !end(60, error()) && end(60 + 3600, error()));
        assert!(end(3720, None) && !end(3720 + 3600, None) && end(9000, error()));
    }
}
