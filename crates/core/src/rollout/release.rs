//! The `release` command, and the directories that web servers search.

use super::Step;
use crate::topology;
use gaiola_model::placement::{Failure, ReleaseNumber, ReleaseOutcome, ReleaseRun};
use gaiola_model::{ServerName, Tier};
use std::collections::BTreeSet;

impl Step<'_> {
    /// Runs the release command once before anything of a new release is started.
    pub(super) fn run_release(&mut self) {
        let command = self.desired.config.app.release.clone();
        if self.is_released() || self.plan.failed.is_some() {
            self.plan.release_run = None;
            return;
        }
        let Some(command) = command else {
            self.plan.released = Some(self.release_number());
            self.plan.release_run = None;
            return;
        };
        let running = self.plan.release_run.clone().filter(|run| {
            run.release == self.release_number()
                && run.command == command
                && self.can_run(run.server)
        });
        match running {
            Some(run) => self.look_after_release(&run),
            None => self.start_release(command),
        }
    }

    fn look_after_release(&mut self, run: &ReleaseRun) {
        let observed = self.view.live(run.server);
        let outcome = observed.and_then(|observed| observed.release_run.as_ref());
        match outcome.filter(|outcome| answers(outcome, run)) {
            None => self.wait(run.server, format!("{} runs `{}`", run.server, run.command)),
            Some(ReleaseOutcome { error: None, .. }) => {
                self.plan.released = Some(run.release);
                self.plan.release_run = None;
                self.tell(
                    run.server,
                    format!(
                        "{} ran `{}` for release {}",
                        run.server, run.command, run.release
                    ),
                );
            }
            Some(ReleaseOutcome {
                error: Some(error), ..
            }) => {
                let reason = format!("`{}` failed on {}: {error}", run.command, run.server);
                self.tell(
                    run.server,
                    format!("release {} is given up: {reason}", run.release),
                );
                self.plan.release_run = None;
                self.fail(None, reason);
            }
        }
    }

    fn start_release(&mut self, command: String) {
        // The order before this one went to a server that died, or was for another release.
        self.plan.release_run = None;
        if let Some(why) = self.database_not_calm() {
            return self.wait(None, format!("to run `{command}`: {why}"));
        }
        let server = topology::servers_of(&self.plan, Tier::App)
            .find(|server| self.can_run(*server) && self.view.live(*server).is_some());
        let Some(server) = server else {
            return self.wait(
                None,
                format!("to run `{command}`: no application server is there yet"),
            );
        };
        self.tell(
            server,
            format!(
                "{server} is to run `{command}` for release {}",
                self.release_number()
            ),
        );
        self.plan.release_run = Some(ReleaseRun {
            release: self.release_number(),
            command,
            server,
            generation: self.desired.generation,
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

    /// Stops the roll-out of this generation.
    pub(super) fn fail(&mut self, instance: Option<gaiola_model::InstanceName>, reason: String) {
        self.plan.failed = Some(Failure {
            generation: self.desired.generation,
            release: self.release_number(),
            instance,
            reason,
        });
    }

    /// Web servers search the new release as soon as its instances may start, and the old ones until their last is gone.
    pub(super) fn publish_web_releases(&mut self) {
        let newest = self.release_number();
        let mut used: BTreeSet<ReleaseNumber> = self
            .plan
            .instances
            .values()
            .map(|placed| placed.release)
            .collect();
        if self.is_released() && self.plan.failed.is_none() {
            used.insert(newest);
        }
        if used.is_empty() {
            return;
        }
        let first = used.take(&newest);
        self.plan.web_releases = first.into_iter().chain(used.into_iter().rev()).collect();
    }
}

fn answers(outcome: &ReleaseOutcome, run: &ReleaseRun) -> bool {
    outcome.release == run.release
        && outcome.command == run.command
        && outcome.generation == run.generation
}
