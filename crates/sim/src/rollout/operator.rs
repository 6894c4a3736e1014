//! The operator's command: it follows the last change with what the site's control sees, as `control::change` does, and
//! ends. A checker judges how: what is done is settled, and what has failed or is late is not.

use super::site::Site;
use super::view::View;
use super::{Sabotage, World};
use crate::violation::{Rule, Violation};
use gaiola_core::follow::{Follow, Next, Sight};
use gaiola_core::rollout::{self, Facts};
use gaiola_core::status::{self, Silence, Silent};
use gaiola_model::status::Status;
use gaiola_model::{Desired, Observed, ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Interval between two polls.
const POLL: Duration = Duration::from_secs(1);
/// A process that does not answer for this long is silent.
const SILENT: Duration = Duration::from_secs(3);
/// The store must have answered this lately.
const CURRENT: Duration = Duration::from_secs(3);
/// What is seen of the site is no older than this: a report's lease, extended by an election, and its way.
const STALE: Duration = Duration::from_secs(20);

/// The operator, and what control sees.
#[derive(Default)]
pub(super) struct Operator {
    view: View,
    facts: Facts,
    /// What is so, whatever is reported.
    truth: Facts,
    /// The last change, until its command has ended.
    following: Option<Following>,
    polled: Time,
    /// When each server's agent last answered, and the store.
    answered: BTreeMap<ServerName, Time>,
    store_answered: Time,
    /// When the store last did not answer.
    store_silent: Time,
    /// The last change: what it wants.
    desired: Option<Desired>,
    /// When the site was last as this change wants it, and since when it has been so without interruption.
    settled: Option<Time>,
    settled_since: Option<Time>,
    /// What is missing, in truth.
    missing: Vec<String>,
}

struct Following {
    deploys: bool,
    follow: Follow,
}

impl World {
    /// One turn of the operator's command.
    pub(super) fn follow(&mut self, site: &mut Site) -> Result<(), Violation> {
        let mut operator = std::mem::take(&mut site.operator);
        let done = self.follow_with(site, &mut operator);
        site.operator = operator;
        done
    }

    fn follow_with(&mut self, site: &Site, operator: &mut Operator) -> Result<(), Violation> {
        let now = self.now;
        self.begin_following(site, operator);
        if now - operator.polled < POLL {
            return Ok(());
        }
        operator.polled = now;
        if now >= self.store_dark_until && !site.is_hung(now) {
            operator.store_answered = now;
            let lag = self.watch_lag(site, false);
            let until = Time::from_start(now.since_start().saturating_sub(lag));
            operator.view.watch(&site.store, until);
        } else {
            operator.store_silent = now;
        }
        self.hear_agents(operator);
        self.see_truth(operator);
        let (seen, made) = (&operator.view.desired, &operator.desired);
        let is_seen = seen.as_ref().zip(made.as_ref());
        let is_seen = is_seen.is_some_and(|(seen, made)| seen.generation >= made.generation);
        let status = self.status(operator, site.sabotage).filter(|_| is_seen);
        let Some(following) = &mut operator.following else {
            return Ok(());
        };
        let seen = &operator.view;
        let observed: Vec<&Observed> = seen.observed.values().map(|(_, seen)| &**seen).collect();
        let sight = status.as_ref().map(|status| Sight {
            status,
            placement: seen.placement.as_ref().map(|(_, placement)| &**placement),
            observed: &observed,
        });
        let next = following.follow.step(now, sight);
        if next != Next::Wait {
            operator.following = None;
            self.note(format!("the operator's command ends: {next:?}"));
            self.check_end(operator, &next)?;
        }
        Ok(())
    }

    /// Each change is followed as soon as it is written, instead of the one before.
    fn begin_following(&mut self, site: &Site, operator: &mut Operator) {
        let made = operator.desired.as_ref();
        let followed = made.map(|made| made.generation);
        if site.written() == followed || site.written() != Some(self.desired.generation) {
            return;
        }
        let deploys = made.is_none_or(|made| made.release.number != self.desired.release.number);
        let patience = match self.is_troubled() {
            true => Duration::from_secs(self.rng.u64(20..200)),
            false => super::BOUND,
        };
        operator.desired = Some(self.desired.clone());
        (operator.settled, operator.settled_since) = (None, None);
        operator.following = Some(Following {
            deploys,
            follow: Follow::new(deploys, self.now + patience),
        });
    }

    /// Control polls every agent.
    fn hear_agents(&self, operator: &mut Operator) {
        let machines = &self.machines;
        operator
            .answered
            .retain(|server, _| machines.contains_key(server));
        let answers = machines
            .iter()
            .filter(|(_, machine)| machine.has_agent(self.now) && machine.frozen_with.is_none());
        let answered = answers.map(|(server, _)| (*server, self.now));
        operator.answered.extend(answered);
    }

    /// The status as control has it.
    fn status(&self, operator: &mut Operator, sabotage: Option<Sabotage>) -> Option<Status> {
        let (view, now) = (&operator.view, self.now);
        let (desired, (at, placement)) = (view.desired.as_ref()?, view.placement.as_ref()?);
        operator.facts.over.clone_from(&view.over);
        operator.facts.observe(now, placement, *at, view.reports());
        operator.facts.store_members = placement.store.iter().copied().collect();
        let mut status = status::status(desired, placement, *at, &operator.facts);
        if now - operator.store_answered >= CURRENT {
            status.missing.push("the store has not answered".into());
        }
        let silence = |(server, at): (&ServerName, &Time)| {
            let (of, since) = (Silent::Agent, now - *at);
            (since >= SILENT).then_some((*server, Silence { of, since }))
        };
        let silent = operator.answered.iter().filter_map(silence).collect();
        status::mark_silent(&mut status, &silent);
        if sabotage == Some(Sabotage::SeesNothingMissing) {
            status.missing.clear();
        }
        Some(status)
    }

    /// Whether the site is as the last change wants it, by what is so and not by what is reported.
    fn see_truth(&self, operator: &mut Operator) {
        let (now, Some(desired)) = (self.now, &operator.desired) else {
            return;
        };
        let deploys = operator.following.as_ref().is_none_or(|it| it.deploys);
        let (placement, at) = (&self.store.placement, self.store.at);
        let on = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.is_on(now));
        let on = on.map(|(server, machine)| (*server, machine.observe(*server, now)));
        let facts = &mut operator.truth;
        facts.store_members = placement.store.iter().copied().collect();
        facts.observe(now, placement, at, on.collect());
        let missing = rollout::settled(desired, placement, at, facts).err();
        let given_up = placement.failed.as_ref().map(|failure| failure.in_words());
        let counts = |why: &String| deploys || Some(why) != given_up.as_ref();
        operator.missing = missing.into_iter().flatten().filter(counts).collect();
        // Control cannot know what a server is like whose agent reports nothing.
        let all_report = self.machines.values().all(|machine| {
            machine.has_agent(now) && machine.frozen_with.is_none() && now >= machine.cut_off_until
        });
        if operator.missing.is_empty() {
            operator.settled = Some(now);
        }
        if operator.missing.is_empty() && all_report {
            operator.settled_since.get_or_insert(now);
        } else {
            operator.settled_since = None;
        }
    }

    /// Judges how the command ended.
    fn check_end(&self, operator: &Operator, end: &Next) -> Result<(), Violation> {
        let is_lately = |at: Time| self.now - at < STALE;
        let for_long = operator
            .settled_since
            .is_some_and(|since| !is_lately(since));
        let hears_store = !is_lately(operator.store_silent);
        let made = operator.desired.as_ref();
        let is_over = self.now > self.troubled_until;
        let is_last = made.is_some_and(|made| made.generation == self.desired.generation);
        match end {
            Next::Done if !operator.settled.is_some_and(is_lately) => {
                let (when, missing) = (operator.settled, &operator.missing);
                let how = format!("a change is done, and was settled at {when:?}: {missing:?}");
                Err(Rule::Follow.broken(how))
            }
            Next::Failed(_) | Next::Late(_) if for_long && hears_store => {
                Err(Rule::Follow.broken(format!("{end:?}, and the site is settled")))
            }
            // The last change can be made, and nothing breaks any more.
            Next::Failed(_) | Next::Late(_) if is_last && is_over => {
                Err(Rule::Follow.broken(format!("{end:?}, although nothing is broken")))
            }
            _ => Ok(()),
        }
    }
}

impl Operator {
    /// Whether the command for the last change has not ended.
    pub(super) fn is_following(&self) -> bool {
        self.following.is_some()
    }
}
