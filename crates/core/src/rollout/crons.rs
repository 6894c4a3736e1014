//! Commands that run at set times: the conductor orders each run of one on an application server, and takes note of its end.
//!
//! A run begins at most once: it is ordered for one boot of one server, and decided together with its due time. It never runs again, whatever
//! becomes of that server.

use super::RollOutStep;
use super::view::View;
use crate::cron::{self, Admission, Fate};
use crate::words::Took;
use gaiola_model::event::Severity;
use gaiola_model::placement::{
    CronEnd, CronOutcome, CronRun, InstanceState, PlacedCron, ReleaseNumber, Template,
};
use gaiola_model::{CronName, ServerName, UnixTime};
use std::cmp::Reverse;
use std::time::Duration;

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// The schema of the first programs that run crons and workers.
const SCHEMA_OF_CRONS: u64 = 2;

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
        // A server that is there ends it in time and reports it, whatever the conductor's clock says.
        let over_by = match live {
            Some(_) => run.over_by() + A_DAY,
            None => run.over_by(),
        };
        match self.placement.servers.contains_key(&server) {
            false => Fate::Lost(format!("{server} was removed")),
            true if now >= over_by => Fate::Lost(format!("{server} did not report its end")),
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
        if !self.all_can("run crons") {
            return;
        }
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
        let gone = self.plan.crons.iter_mut();
        let gone = gone.filter(|(name, _)| !wanted.contains_key(*name));
        gone.for_each(|(_, placed)| cron::retire(placed));
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
        let Ok(schedule) = placed.settings.schedule() else {
            return; // It is not in the file any more.
        };
        if let Some(ahead) = cron::correct(placed, now) {
            let text = format!(
                "{name} was decided up to {ahead} by a clock that was ahead: what was due until now may have been missed"
            );
            self.tell(None, Severity::Warning, "cron.clock", text);
        }
        self.order_waiting(name, placed, now, good);
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
        let Some(server) = self.server_for(placed, due, good.release) else {
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

    /// The server with the fewest runs, of those where an instance of the release is ready if there are any; among equals each minute another one.
    fn server_for(
        &self,
        placed: &PlacedCron,
        due: UnixTime,
        release: ReleaseNumber,
    ) -> Option<ServerName> {
        let is_live = |server: &ServerName| self.view.live(*server).is_some();
        let is_ready = |server: &ServerName| {
            let observed = self.view.live(*server);
            let mut seen = observed
                .into_iter()
                .flat_map(|observed| observed.instances.values());
            seen.any(|seen| seen.release == release && seen.state == InstanceState::Ready)
        };
        let mut able: Vec<ServerName> = self.main_servers().filter(is_live).collect();
        if able.iter().any(is_ready) {
            able.retain(is_ready);
        }
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
                format!("{name} of {due} was missed{on}: {because}"),
            ),
            CronOutcome::Skipped => (
                Severity::Warning,
                "cron.skipped",
                format!("{name} of {due} was skipped: {because}"),
            ),
        };
        let server = end.server;
        if cron::remember(placed, end) {
            self.tell(server, severity, kind, text);
        }
    }

    /// Whether the site's documents are written for programs that know crons and workers. Older ones would not run what they are ordered.
    pub(super) fn all_can(&mut self, what: &str) -> bool {
        let config = &self.desired.config;
        let is_used = !config.crons.is_empty() || !config.workers.is_empty();
        let can = self.plan.schema >= SCHEMA_OF_CRONS;
        if is_used && !can {
            self.wait(
                None,
                format!("to {what}: not every server's program can do so yet"),
            );
        }
        can
    }
}
