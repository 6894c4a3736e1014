//! A release that makes it worse is given up: while new instances run beside old ones, what becomes of their requests is compared.
//!
//! Both take the same requests at the same time, so whatever troubles the site from elsewhere troubles both.

use super::RollOutStep;
use super::view::View;
use gaiola_model::config::DeployRules;
use gaiola_model::placement::{Phase, PlacedInstance, ReleaseNumber, Template};
use gaiola_model::proxy::Results;
use gaiola_model::{InstanceName, ServerName, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Fewer failed requests prove nothing.
const LEAST_FAILED: u64 = 5;
/// A difference of so many standard deviations is no accident.
const SURE: f64 = 3.0;

/// Times are judged from so many times as many requests on as it takes to go on.
const SLOW_NEEDS: u64 = 4;
/// A new instance that failed requests, too few to prove anything, is watched for so many times as long.
const SUSPECTED: u32 = 3;

/// What became of requests since new instances run beside old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// The change that is carried out.
    generation: u64,
    /// What each proxy had counted of each instance when it was first seen.
    before: BTreeMap<(ServerName, InstanceName), Results>,
    /// What has come since, of all proxies that report.
    since: BTreeMap<InstanceName, Results>,
    /// Since when a new instance serves, and for how long that is watched.
    watched: Option<(Time, Duration)>,
}

/// What the comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing against the new ones.
    Fine,
    /// Too few requests until now.
    Unknown,
    /// They are worse, in words.
    Worse(String),
}

impl Compared {
    /// Takes an observation; all is forgotten once only one kind of instances is left.
    pub(super) fn observe(mut self, view: &View<'_>) -> Self {
        let placement = view.placement;
        if !placement.is_mixed() || placement.failed.is_some() {
            return Self::default();
        }
        if self.generation != placement.generation {
            self = Self {
                generation: placement.generation,
                ..Self::default()
            };
        }
        let good = placement.good.as_ref();
        let is_new = |placed: &PlacedInstance| good.is_some_and(|good| !is_like(placed, good));
        self.since.clear();
        for (server, observed) in &view.facts.observed {
            let results = observed.proxy.iter().flat_map(|proxy| &proxy.results);
            for (instance, now) in results {
                // What a server that is away costs is no release's fault.
                let placed = placement.instances.get(instance);
                let placed = placed.filter(|_| view.live(instance.server).is_some());
                let Some(placed) = placed else { continue };
                let first = self.before.entry((*server, *instance)).or_insert(*now);
                // Its proxies have counted nothing else of it. An old one may have had its name.
                let before = if is_new(placed) {
                    &Results::default()
                } else {
                    &*first
                };
                let sum = self.since.entry(*instance).or_default();
                *sum = sum.plus(&now.since(before));
            }
        }
        let now = view.facts.now;
        let rules = placement.config.app.deploy;
        let new = placement.instances.iter();
        let mut new = new.filter(|(_, placed)| placed.phase == Phase::Serve && is_new(placed));
        let serves = |name: &InstanceName| view.instance_serves(*name).is_ok();
        if self.watched.is_none() && new.any(|(name, _)| serves(name)) {
            self.watched = Some((now, rules.watch));
        }
        self
    }

    /// When the first new instance has been watched for long enough: where none of its requests failed, and where some did.
    pub(super) fn watched_until(&self) -> Option<[Time; 2]> {
        let (since, watch) = self.watched?;
        Some([since + watch, since + watch * SUSPECTED])
    }
}

fn is_like(placed: &PlacedInstance, good: &Template) -> bool {
    (placed.release, &placed.run, placed.env) == (good.release, &good.run, good.env)
}

impl RollOutStep<'_> {
    /// Whether a roll-out may go on; if not, it is given up, or waits for more requests.
    pub(super) fn compare(&mut self) -> Result<(), (Option<ServerName>, String)> {
        let rules = self.view.placement.config.app.deploy;
        // Whoever goes back to an earlier release has judged.
        let is_judged = |good: &Template| !rules.compare || self.release_number() < good.release;
        let Some(good) = self.plan.good.clone().filter(|good| !is_judged(good)) else {
            return Ok(());
        };
        let Some(template) = self.plan_template() else {
            return Ok(());
        };
        let compared = &self.view.facts.compared;
        // Those of yet another release, which was on its way before, are neither.
        let sum = |like: &Template| {
            let mut sum = (Results::default(), None);
            for (name, placed) in &self.plan.instances {
                if is_like(placed, like)
                    && let Some(results) = compared.since.get(name)
                {
                    sum = (sum.0.plus(results), Some(*name));
                }
            }
            sum
        };
        let ((old, _), (new, name)) = (sum(&good), sum(&template));
        let releases = (good.release, self.release_number());
        match verdict(&rules, releases, old, new) {
            Verdict::Fine => Ok(()),
            Verdict::Worse(why) => {
                if let Some(name) = name {
                    self.fail(name.server, Some(name), why.clone());
                    // It serves: where no other one would, one of the old kind comes first.
                    if self.has_surplus(name.server) {
                        self.drain_instance(name);
                    }
                    self.publish_web_releases();
                }
                Err((name.map(|name| name.server), why))
            }
            Verdict::Unknown => {
                let (requests, failed) = (new.requests(), new.failed());
                let until = compared.watched_until();
                let until =
                    until.map(|[well, suspected]| if failed > 0 { suspected } else { well });
                let waits = until.is_some_and(|until| self.view.facts.now < until);
                let text = format!(
                    "the first new instance is watched: {requests} requests, {failed} failed"
                );
                if waits { Err((None, text)) } else { Ok(()) }
            }
        }
    }
}

fn verdict(
    rules: &DeployRules,
    (before, after): (ReleaseNumber, ReleaseNumber),
    old: Results,
    new: Results,
) -> Verdict {
    // Without requests to the old ones there are none, or nothing to compare with.
    if old.requests() == 0 {
        return Verdict::Fine;
    }
    let enough = u64::from(rules.requests);
    let names = match before == after {
        false => (format!("release {after}"), format!("release {before}")),
        true => ("the new settings".into(), "the old ones".into()),
    };
    if let Some(why) = more_errors(rules, &names, old, new) {
        return Verdict::Worse(why);
    }
    match new.requests() >= enough {
        false => Verdict::Unknown,
        true => slower(rules, &names, old, new).map_or(Verdict::Fine, Verdict::Worse),
    }
}

fn more_errors(
    rules: &DeployRules,
    (new_name, old_name): &(String, String),
    old: Results,
    new: Results,
) -> Option<String> {
    let (failed, requests) = (new.failed(), new.requests());
    let more = share(new) - share(old);
    let is_worse = failed >= LEAST_FAILED
        && more * 100.0 > f64::from(rules.errors)
        && more > SURE * deviation(old, new);
    is_worse.then(|| {
        format!(
            "{new_name} failed {failed} of {requests} requests ({:.1} %), {old_name} {} of {} ({:.1} %) in the same time",
            share(new) * 100.0,
            old.failed(),
            old.requests(),
            share(old) * 100.0,
        )
    })
}

fn slower(
    rules: &DeployRules,
    (new_name, old_name): &(String, String),
    old: Results,
    new: Results,
) -> Option<String> {
    let (old_mean, new_mean) = old.mean().zip(new.mean())?;
    let times = f64::from(rules.slower) / 1000.0;
    // Means, which a few cold or long requests lift: several times as many must have come.
    let enough = u64::from(rules.requests) * SLOW_NEEDS;
    let is_slower = old.requests().min(new.requests()) >= enough
        && new_mean > old_mean.mul_f64(times)
        && new_mean > old_mean + DeployRules::SLOWER_BY;
    let millis = |mean: Duration| mean.as_secs_f64() * 1000.0;
    is_slower.then(|| {
        format!(
            "{new_name} answers after {:.0} ms, {old_name} after {:.0} ms, on average in the same time",
            millis(new_mean),
            millis(old_mean),
        )
    })
}

/// The share of requests that failed.
fn share(results: Results) -> f64 {
    let requests = number(results.requests());
    if requests == 0.0 {
        0.0
    } else {
        number(results.failed()) / requests
    }
}

/// The standard deviation of the difference of both shares, if requests of both fail by the same chance.
fn deviation(old: Results, new: Results) -> f64 {
    let chance = share(old.plus(&new));
    let [old, new] = [old, new].map(|results| 1.0 / number(results.requests()));
    (chance * (1.0 - chance) * (old + new)).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a roll-out")]
const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(answers: u64, errors: u64, millis: u64) -> Results {
        Results {
            answers,
            nanos: answers * millis * 1_000_000,
            errors,
            unanswered: 0,
        }
    }

    fn judged(old: Results, new: Results) -> Verdict {
        let releases = (ReleaseNumber(4), ReleaseNumber(5));
        verdict(&DeployRules::default(), releases, old, new)
    }

    #[test]
    fn errors_beyond_the_old_ones_by_a_margin_are_worse_and_both_figures_are_said() {
        let old = results(400, 4, 10);
        assert_eq!(judged(old, results(100, 6, 10)), Verdict::Fine);
        let Verdict::Worse(why) = judged(old, results(100, 7, 10)) else {
            panic!("it is worse");
        };
        assert_eq!(
            why,
            "release 5 failed 7 of 100 requests (7.0 %), release 4 4 of 400 (1.0 %) in the same time"
        );
        // What troubles both is nobody's fault.
        let trouble = results(400, 200, 10);
        assert_eq!(judged(trouble, results(100, 52, 10)), Verdict::Fine);
    }

    #[test]
    fn few_requests_prove_nothing_unless_the_difference_is_no_accident() {
        let old = results(100, 1, 10);
        assert_eq!(judged(old, results(4, 4, 10)), Verdict::Unknown);
        for (answers, errors) in [(5, 5), (20, 6), (46, 13)] {
            let new = results(answers, errors, 10);
            assert!(matches!(judged(old, new), Verdict::Worse(_)), "{new:?}");
        }
        // One in seven fails everywhere.
        let old = results(70, 10, 10);
        assert_eq!(judged(old, results(30, 8, 10)), Verdict::Unknown);
        assert_eq!(judged(old, results(49, 0, 900)), Verdict::Unknown);
        let unanswered = Results {
            unanswered: 12,
            ..Results::default()
        };
        assert!(matches!(
            judged(results(100, 1, 10), unanswered),
            Verdict::Worse(_)
        ));
        // Nobody asks for anything: there is nothing to wait for.
        let none = Results::default();
        assert_eq!(judged(none, none), Verdict::Fine);
    }

    #[test]
    fn answers_that_take_several_times_as_long_are_worse() {
        let old = results(400, 0, 100);
        assert_eq!(judged(old, results(200, 0, 300)), Verdict::Fine);
        assert_eq!(judged(old, results(199, 0, 400)), Verdict::Fine);
        let Verdict::Worse(why) = judged(old, results(200, 0, 400)) else {
            panic!("it is worse");
        };
        assert_eq!(
            why,
            "release 5 answers after 400 ms, release 4 after 100 ms, on average in the same time"
        );
        // Several times very little is little.
        let quick = results(400, 0, 2);
        assert_eq!(judged(quick, results(200, 0, 200)), Verdict::Fine);
    }

    #[test]
    fn counts_that_begin_anew_are_counted_whole() {
        let (before, now) = (results(100, 10, 10), results(130, 15, 10));
        assert_eq!(now.since(&before), results(30, 5, 10));
        assert_eq!(results(3, 1, 10).since(&before), results(3, 1, 10));
    }
}
