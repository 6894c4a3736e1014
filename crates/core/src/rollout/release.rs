//! The `release` command, and the directories that web servers search.
//!
//! Two runs at once could ruin a database, so a run is fenced: it belongs to one server and one boot, and another begins
//! only once the previous one is known to have ended. Either its agent reports that, or its server was switched off.
//! Silence proves nothing.

use super::RollOutStep;
use super::environment;
use super::view::View;
use crate::topology;
use gaiola_model::placement::{Failure, Release, ReleaseNumber, ReleaseOutcome, ReleaseRun};
use gaiola_model::{InstanceName, Placement, ServerName, Tier};
use std::collections::BTreeSet;

/// The state of an ordered run.
enum Fate<'a> {
    /// Its agent reports how it ended.
    Ended(&'a ReleaseOutcome),
    /// Its server was switched off since, and everything on it with it.
    SwitchedOff,
    /// Its agent is up and reports no end.
    Runs,
    /// Its agent is silent: it may still be running.
    Unknown,
}

impl<'a> View<'a> {
    fn fate(&self, run: &ReleaseRun) -> Fate<'a> {
        let over = self.facts.over.get(&run.server);
        let live = self.live(run.server);
        if over >= Some(&run.boot) || live.is_some_and(|observed| observed.boot > run.boot) {
            return Fate::SwitchedOff;
        }
        let Some(observed) = live else {
            return Fate::Unknown;
        };
        let outcome = observed.release_run.as_ref();
        let outcome = outcome.filter(|outcome| answers(outcome, run));
        outcome.map_or(Fate::Runs, Fate::Ended)
    }

    /// The run that is waited for, and what can be done if its server is silent.
    pub(super) fn run_in_words(&self, run: &ReleaseRun) -> String {
        let (server, release) = (run.server, run.release);
        match self.fate(run) {
            Fate::Unknown => format!(
                "{server} is silent and may still run the release command of release {release}: no other run begins \
                 before that one is known to have ended; let {server} be reached again, or end it with: \
                 gaiola power off {server}"
            ),
            _ if run.stop => {
                format!("{server} is to stop the release command of release {release}")
            }
            _ => format!("{server} runs the release command of release {release}"),
        }
    }
}

impl RollOutStep<'_> {
    /// Runs the release command once before any instance of a new release starts.
    pub(super) fn run_release(&mut self) {
        match self.plan.release_run.clone() {
            Some(run) => self.supervise_run(&run),
            None => self.begin_run(),
        }
    }

    fn supervise_run(&mut self, run: &ReleaseRun) {
        let (server, release) = (run.server, run.release);
        let of = format!("the release command of release {release}");
        match self.view.fate(run) {
            Fate::Ended(ReleaseOutcome { error: None, .. }) if self.is_wanted(run) => {
                self.plan.release_run = None;
                self.plan.released = Some(release);
                self.report(server, format!("{server} ran {of}"));
            }
            Fate::Ended(ReleaseOutcome {
                error: Some(error), ..
            }) if self.is_wanted(run) && !run.stop => {
                let reason = format!("the release command failed on {server}: {error}");
                self.plan.release_run = None;
                self.fail(server, None, reason);
            }
            Fate::Ended(_) => {
                self.plan.release_run = None;
                self.report(server, format!("{server} has ended {of}"));
            }
            Fate::SwitchedOff => {
                self.plan.release_run = None;
                self.report(
                    server,
                    format!("{server} was switched off while it ran {of}"),
                );
            }
            Fate::Runs if !run.stop && !self.is_wanted(run) => {
                self.plan.release_run = Some(ReleaseRun {
                    stop: true,
                    ..run.clone()
                });
                self.report(server, format!("{server} is to stop {of}"));
            }
            Fate::Runs | Fate::Unknown => self.wait(server, self.view.run_in_words(run)),
        }
    }

    /// Whether its result applies to the current desired state.
    fn is_wanted(&self, run: &ReleaseRun) -> bool {
        let command = self.desired.config.app.release.as_ref();
        let env = environment::wanted(self.desired, &self.plan);
        (run.release, Some(&run.command), run.env) == (self.release_number(), command, env)
    }

    fn begin_run(&mut self) {
        if self.is_released() || self.plan.failed.is_some() {
            return;
        }
        match self.desired.config.app.release.clone() {
            Some(command) => self.start_release(command),
            None => self.plan.released = Some(self.release_number()),
        }
    }

    fn start_release(&mut self, command: String) {
        let release = self.release_number();
        let to_run = format!("to run the release command of release {release}");
        if let Some(why) = self.database_not_calm() {
            return self.wait(None, format!("{to_run}: {why}"));
        }
        let able = |server| {
            let boot = self.view.live(server)?.boot;
            self.can_run(server).then_some((server, boot))
        };
        let server = topology::servers_of(&self.plan, Tier::App).find_map(able);
        let Some((server, boot)) = server else {
            return self.wait(
                None,
                format!("{to_run}: there is no application server yet"),
            );
        };
        self.report(server, format!("{server} is {to_run}"));
        self.plan.release_run = Some(ReleaseRun {
            release,
            command,
            env: environment::wanted(self.desired, &self.plan),
            server,
            boot,
            generation: self.desired.generation,
            stop: false,
        });
    }

    fn can_run(&self, server: ServerName) -> bool {
        self.wants(server) && topology::serves(&self.plan, server) && !self.view.is_dead(server)
    }

    /// Why new code should not meet the database now.
    pub(super) fn database_not_calm(&self) -> Option<String> {
        self.desired.config.database.as_ref()?;
        match self.view.primary() {
            None => Some("the database has no primary".into()),
            Some(_) => self.database_in_motion(),
        }
    }

    /// Stops the roll-out of this generation, because of what a server saw.
    pub(super) fn fail(
        &mut self,
        server: ServerName,
        instance: Option<InstanceName>,
        reason: String,
    ) {
        let release = self.release_number();
        let good = self.plan.good.as_ref();
        let failure = Failure {
            generation: self.desired.generation,
            release,
            attempt: self.desired.attempt,
            instance,
            settings: good.is_some_and(|good| good.release == release),
            reason,
        };
        self.report(server, failure.as_it_happens());
        self.plan.failed = Some(failure);
    }

    /// Web servers search the new release as soon as its instances may start, and the old ones until their last
    /// instance is gone. If it was given up, they search the last good one first.
    pub(super) fn publish_web_releases(&mut self) {
        let newest = self.plan_template().map(|template| template.release);
        let mut used: BTreeSet<ReleaseNumber> = self
            .plan
            .instances
            .values()
            .map(|placed| placed.release)
            .collect();
        used.extend(newest);
        if used.is_empty() {
            return;
        }
        let first = newest.and_then(|newest| used.take(&newest));
        self.plan.web_releases = first.into_iter().chain(used.into_iter().rev()).collect();
    }
}

/// Names the contents of the releases that the placement names and of the one that is desired. Those of an older one are known since
/// it was desired.
pub(super) fn name_contents(placement: &mut Placement, desired: &Release) {
    let named = placement.releases();
    let is_used = |number: &ReleaseNumber| *number == desired.number || named.contains(number);
    placement.digests.retain(|number, _| is_used(number));
    if !desired.digest.is_empty() {
        let digest = desired.digest.clone();
        placement.digests.insert(desired.number, digest);
    }
}

fn answers(outcome: &ReleaseOutcome, run: &ReleaseRun) -> bool {
    outcome.release == run.release
        && outcome.command == run.command
        && outcome.generation == run.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout;
    use gaiola_model::config::App;
    use gaiola_model::{Config, Desired, Inventory};

    #[test]
    fn a_placement_names_the_contents_of_the_releases_that_it_uses() {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let inventory = Inventory::numbered(&config, [10, 77]);
        let release = |number, digest: &str| Release {
            number: ReleaseNumber(number),
            digest: digest.into(),
        };
        let desired = Desired::first(config, release(7, "a7"), inventory);
        let mut placement = rollout::first(&desired, "one".into());
        let known = |placement: &Placement| -> Vec<(u64, String)> {
            let known = placement.digests.iter();
            known
                .map(|(number, digest)| (number.0, digest.clone()))
                .collect()
        };
        assert_eq!(known(&placement), [(7, "a7".into())]);
        // The old one runs until the new one has replaced it.
        name_contents(&mut placement, &release(8, "a8"));
        assert_eq!(known(&placement), [(7, "a7".into()), (8, "a8".into())]);
        placement.web_releases = vec![ReleaseNumber(8)];
        for placed in placement.instances.values_mut() {
            placed.release = ReleaseNumber(8);
        }
        name_contents(&mut placement, &release(8, "a8"));
        assert_eq!(known(&placement), [(8, "a8".into())]);
    }
}
