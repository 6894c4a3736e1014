//! Commands that run at set times: the conductor orders each run of one on an application server, and takes note of its end.
//!
//! A run begins at most once: it is ordered for one boot of one server, and decided together with its due time. It never runs again, whatever
//! becomes of that server.

use super::RollOutStep;
use super::view::View;
use crate::cron::{self, Admission, Fate};
use crate::words::Took;
use gaiola_model::event::Severity;
use gaiola_model::placement::{CronEnd, CronOutcome, CronRun, PlacedCron, Template};
use gaiola_model::{CronName, ServerName, UnixTime};
use std::cmp::Reverse;
use std::time::Duration;

impl View<'_> {
    fn cron_fate(&self, name: &CronName, run: &CronRun, now: UnixTime) -> Fate {
        let server = run.server;
        let live = self.live(server);
        let seen = live.and_then(|observed| {
            let mut seen = observed.crons.iter();
            seen.find(|seen| seen.name == *name && seen.due == run.due)
        });
        if let Some(seen) = seen {
            return Fate::Ended(seen.clone());
        }
        let over = self.facts.over.get(&server) >= Some(&run.boot);
        if over || live.is_some_and(|observed| observed.boot > run.boot) {
            return Fate::Lost(format!("{server} was switched off"));
        }
        match self.placement.servers.contains_key(&server) {
            false => Fate::Lost(format!("{server} was removed")),
            true if now >= run.over_by() => Fate::Lost(format!("{server} did not report its end")),
            true => Fate::Runs,
        }
    }

    /// A run that a server is waited for.
    pub(super) fn cron_on(&self, server: ServerName) -> Option<&CronName> {
        let mut crons = self.placement.crons.iter();
        let found = crons.find(|(_, cron)| cron.runs.iter().any(|run| run.server == server));
        found.map(|(name, _)| name)
    }
}

impl RollOutStep<'_> {
    /// Orders what is due, and takes note of what has ended.
    pub(super) fn attend_crons(&mut self) {
        let (Some(now), Some(good)) = (self.view.facts.wall, self.plan.good.clone()) else {
            return; // Until the first release has come up there is nothing to run.
        };
        if self.is_current(&good) {
            self.adopt_crons(now);
        }
        let names: Vec<CronName> = self.plan.crons.keys().cloned().collect();
        for name in names {
            if let Some(mut placed) = self.plan.crons.remove(&name) {
                self.attend_cron(&name, &mut placed, now, &good);
                self.plan.crons.insert(name, placed);
            }
        }
    }

    /// Takes the file's settings over. Of one that the file does not have any more the runs are seen to their end.
    fn adopt_crons(&mut self, now: UnixTime) {
        let wanted = &self.desired.config.crons;
        let is_wanted = |name: &CronName, placed: &mut PlacedCron| {
            wanted.contains_key(name) || !placed.runs.is_empty()
        };
        self.plan.crons.retain(is_wanted);
        for (name, settings) in wanted {
            let placed = self.plan.crons.entry(name.clone());
            let placed = placed.or_insert_with(|| cron::first(settings, now));
            cron::set(placed, settings, now);
        }
    }

    fn attend_cron(
        &mut self,
        name: &CronName,
        placed: &mut PlacedCron,
        now: UnixTime,
        good: &Template,
    ) {
        let view = self.view;
        for end in cron::end_runs(placed, |run| view.cron_fate(name, run, now)) {
            self.note(name, placed, end);
        }
        let is_wanted = self.desired.config.crons.contains_key(name);
        if !is_wanted && self.is_current(good) {
            return placed.waiting.clear();
        }
        let Ok(schedule) = placed.settings.schedule() else {
            return; // The file's reader refuses it.
        };
        self.order_waiting(name, placed, now, good);
        cron::correct(placed, now);
        let due = cron::due(placed, &schedule, now);
        if let Some(missed) = due.missed {
            let reason = match missed.times {
                1 => "nobody could run it in time".into(),
                times => format!(
                    "nobody could run it in time, nor {} more times until {}",
                    times - 1,
                    missed.until
                ),
            };
            placed.handled = missed.until;
            let end = cron::not_run(missed.first, CronOutcome::Missed, reason);
            self.note(name, placed, end);
        }
        for due in due.now {
            match cron::admit(placed) {
                Admission::Run if !self.order(name, placed, (due, now), good) => return,
                Admission::Run => {}
                Admission::Wait => placed.waiting.push(due),
                Admission::Skip(why) => {
                    let end = cron::not_run(due, CronOutcome::Skipped, why);
                    self.note(name, placed, end);
                }
            }
            placed.handled = due;
        }
    }

    fn order_waiting(
        &mut self,
        name: &CronName,
        placed: &mut PlacedCron,
        now: UnixTime,
        good: &Template,
    ) {
        let next = placed.waiting.first().copied();
        let next = next.filter(|_| placed.runs.is_empty());
        if next.is_some_and(|due| self.order(name, placed, (due, now), good)) {
            placed.waiting.remove(0);
        }
    }

    /// Orders a run on a server, unless there is none.
    fn order(
        &mut self,
        name: &CronName,
        placed: &mut PlacedCron,
        (due, now): (UnixTime, UnixTime),
        good: &Template,
    ) -> bool {
        let Some(server) = self.server_for(placed, due) else {
            let why = "no application server takes traffic";
            self.wait(None, format!("to run {name}, due {due}: {why}"));
            return false;
        };
        let boot = self.view.live(server).map(|observed| observed.boot);
        placed.runs.push(CronRun {
            due,
            ordered: now,
            server,
            boot: boot.unwrap_or_default(),
            release: good.release,
            run: placed.settings.run.clone(),
            timeout: placed.settings.timeout,
            database: good.database,
            env: good.env,
        });
        true
    }

    /// The server with the fewest runs; among equals each minute another one.
    fn server_for(&self, placed: &PlacedCron, due: UnixTime) -> Option<ServerName> {
        let is_live = |server: &ServerName| self.view.live(*server).is_some();
        let able: Vec<ServerName> = self.main_servers().filter(is_live).collect();
        let turn = usize::try_from(due.0 / 60).unwrap_or_default();
        let runs_on = |server: &ServerName| {
            let others = self.plan.crons.values().flat_map(|cron| &cron.runs);
            let all = others.chain(&placed.runs);
            all.filter(|run| run.server == *server).count()
        };
        let turns = (0..able.len()).map(|place| able[(place + turn) % able.len()]);
        turns.rev().max_by_key(|server| Reverse(runs_on(server)))
    }

    /// Takes note of what became of a due time.
    fn note(&mut self, name: &CronName, placed: &mut PlacedCron, end: CronEnd) {
        let (due, took) = (end.due, Took(Duration::from_millis(end.took_ms)));
        let on = end
            .server
            .map_or_else(String::new, |server| format!(" on {server}"));
        let because = &end.reason;
        let (severity, kind, text) = match end.outcome {
            CronOutcome::Succeeded => (
                Severity::Info,
                "cron.succeeded",
                format!("{name} of {due} ran{on} in {took}"),
            ),
            CronOutcome::Failed => (
                Severity::Error,
                "cron.failed",
                format!("{name} of {due} failed{on}: {because}"),
            ),
            CronOutcome::Lost => (
                Severity::Error,
                "cron.lost",
                format!(
                    "{name} of {due} was ordered{on}, and how it ended is not known: {because}"
                ),
            ),
            CronOutcome::Missed => (
                Severity::Error,
                "cron.missed",
                format!("{name} of {due} was missed: {because}"),
            ),
            CronOutcome::Skipped => (
                Severity::Warning,
                "cron.skipped",
                format!("{name} of {due} was skipped: {because}"),
            ),
        };
        self.tell(end.server, severity, kind, text);
        cron::remember(placed, end);
    }
}
