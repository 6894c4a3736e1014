//! A command that is due every minute, for an hour: each due time begins once, or it is known why it did not.

use super::machine::Machine;
use super::{Broken, Site, World};
use crate::violation::{Rule, Violation};
use gaiola_model::config::{Cron, Overlap};
use gaiola_model::cron::BEGIN_WITHIN;
use gaiola_model::placement::{CronEnd, CronOutcome, CronRun, ObservedCron};
use gaiola_model::{CronName, Placement, ServerName, Time, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long it is played, and how long with faults.
const HOUR: Duration = Duration::from_secs(3600);
const TROUBLED: Duration = Duration::from_secs(2400);
/// What is due in the last minutes may not have been decided.
const OPEN: u64 = 180;

/// Midnight, when every simulation begins.
const BEGIN: UnixTime = UnixTime(1_767_312_000);

/// The time of day.
pub(super) fn wall(now: Time) -> UnixTime {
    BEGIN + now.since_start()
}

/// What really happened, and what the site knows of it.
#[derive(Default)]
pub(super) struct CronChecker {
    /// Where each due time began.
    began: BTreeMap<UnixTime, ServerName>,
    /// What became of those that did not, or that were lost.
    known: BTreeMap<UnixTime, CronOutcome>,
    /// Up to where times were missed.
    missed: BTreeSet<(UnixTime, UnixTime)>,
}

/// How many times a command began in its hour, and how many due times did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CronStory {
    /// They began.
    pub began: usize,
    /// They did not, and the site says so.
    pub known: usize,
}

/// Plays an hour of a site with such a command.
///
/// # Errors
///
/// The first broken rule.
pub fn run_cron(seed: u64, overlap: Overlap, has_faults: bool) -> Result<CronStory, Box<Broken>> {
    let mut world = World::new(seed);
    world.site = Some(Box::new(Site::new(&world.store.placement, None)));
    world.site_runs = true;
    let cron = Cron {
        overlap,
        timeout: Duration::from_secs(120),
        ..Cron::new("* * * * *", "tick")
    };
    let crons = BTreeMap::from([(name(), cron)]);
    world.play_crons(&crons, has_faults).map_err(|violation| {
        Box::new(Broken {
            seed,
            violation,
            trace: std::mem::take(&mut world.trace),
        })
    })
}

fn name() -> CronName {
    "tick".parse().expect("it is a name")
}

impl World {
    fn play_crons(
        &mut self,
        crons: &BTreeMap<CronName, Cron>,
        has_faults: bool,
    ) -> Result<CronStory, Violation> {
        self.desired.config.crons.clone_from(crons);
        self.desired.generation += 1;
        let troubled = if has_faults { TROUBLED } else { Duration::ZERO };
        self.troubled_until = Time::ZERO + troubled;
        while self.now < Time::ZERO + HOUR {
            if self.now == self.troubled_until {
                self.heal();
            }
            if self.is_troubled() {
                self.stir();
                self.desired.config.crons.clone_from(crons);
            }
            self.tick()?;
            self.see_crons();
        }
        self.check_crons()
    }

    /// Takes note of what the site knows.
    fn see_crons(&mut self) {
        let Some(placed) = self.store.placement.crons.get(&name()) else {
            return;
        };
        for CronEnd { due, outcome, .. } in &placed.last {
            if *outcome == CronOutcome::Missed {
                self.crons.missed.insert((*due, placed.handled));
            }
            self.crons.known.entry(*due).or_insert(*outcome);
        }
    }

    fn check_crons(&self) -> Result<CronStory, Violation> {
        let first = self.store.history.values();
        let mut first = first.filter_map(|placement| placement.crons.get(&name()));
        let Some(first) = first.next() else {
            return Err(Rule::Cron.broken("it was never placed"));
        };
        let (from, to) = (first.handled.0 / 60 + 1, (wall(self.now).0 - OPEN) / 60);
        let all = (from..to).map(|minute| UnixTime(minute * 60));
        let is_missed = |due: &UnixTime| {
            let mut spans = self.crons.missed.iter();
            spans.any(|(from, to)| from <= due && due <= to)
        };
        let mut story = CronStory { began: 0, known: 0 };
        for due in all {
            if self.crons.began.contains_key(&due) {
                story.began += 1;
            } else if self.crons.known.contains_key(&due) || is_missed(&due) {
                story.known += 1;
            } else {
                let how = format!("what was due at {due} did not begin, and nobody says so");
                return Err(Rule::Cron.broken(how));
            }
        }
        Ok(story)
    }

    /// Begins the runs ordered for this boot.
    pub(super) fn run_crons(
        &mut self,
        server: ServerName,
        placement: &Placement,
    ) -> Result<(), Violation> {
        let (now, time) = (self.now, wall(self.now));
        let Some(placed) = placement.crons.get(&name()) else {
            return Ok(());
        };
        let boot = self.machines[&server].boot;
        let is_here = |run: &&CronRun| run.server == server && run.boot == boot;
        for run in placed.runs.iter().filter(is_here) {
            let known = self.machines[&server].crons.contains_key(&run.due);
            if known || time > run.ordered + BEGIN_WITHIN {
                continue;
            }
            self.check_cron(run, placed.settings.overlap)?;
            let longest = if self.rng.u8(..4) == 0 {
                150_000
            } else {
                20_000
            };
            let takes = Duration::from_millis(self.rng.u64(200..longest)).min(run.timeout);
            let machine = self.machines.get_mut(&server).expect("it is there");
            machine.crons.insert(run.due, now + takes);
        }
        let ordered: BTreeSet<UnixTime> = placed.runs.iter().map(|run| run.due).collect();
        let machine = self.machines.get_mut(&server).expect("it is there");
        machine
            .crons
            .retain(|due, ends| ordered.contains(due) || *ends > now);
        Ok(())
    }

    /// Judged by what really runs, before it begins.
    fn check_cron(&mut self, run: &CronRun, overlap: Overlap) -> Result<(), Violation> {
        let now = self.now;
        if let Some(before) = self.crons.began.insert(run.due, run.server) {
            let (due, server) = (run.due, run.server);
            let how = format!("what was due at {due} began on {before}, and begins on {server}");
            return Err(Rule::Cron.broken(how));
        }
        let running = |machine: &Machine| machine.crons.values().any(|ends| *ends > now);
        let mut others = self.machines.iter();
        match others.find(|(_, machine)| running(machine)) {
            Some((server, _)) if overlap != Overlap::Allow => {
                let how = format!("it begins on {} while it runs on {server}", run.server);
                Err(Rule::Cron.broken(how))
            }
            _ => Ok(()),
        }
    }
}

impl Machine {
    /// The runs that have ended.
    pub(super) fn ended_crons(&self, now: Time) -> Vec<ObservedCron> {
        let ended = self.crons.iter().filter(|(_, ends)| **ends <= now);
        let report = |(due, _): (&UnixTime, &Time)| ObservedCron {
            name: name(),
            due: *due,
            began: true,
            took_ms: 0,
            status: Some(0),
            error: None,
        };
        ended.map(report).collect()
    }
}
