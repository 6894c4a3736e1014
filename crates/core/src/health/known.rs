//! A member's health as one process hands it to the next, with times counted from now.

use super::{Checked, Health, Probe, Traffic, Unproven};
use gaiola_model::Time;
use gaiola_model::proxy::{Check, Ejection, KnownCheck, KnownEjection, KnownHealth};
use std::time::Duration;

impl Health {
    /// What is known now. A probe that is under way counts as due: its result is lost.
    pub fn known(&self, now: Time) -> KnownHealth {
        let probe_in = match self.probe {
            Probe::Due(at) => at.saturating_since(now),
            Probe::Never | Probe::UnderWay { .. } => Duration::ZERO,
        };
        KnownHealth {
            checked: match self.checked {
                Checked::Unproven(_) => KnownCheck::Unproven,
                Checked::Up { failures } => KnownCheck::Up { failures },
                Checked::Down { successes, symptom } => KnownCheck::Down { successes, symptom },
            },
            ejected: match self.traffic {
                Traffic::Sent { .. } => None,
                Traffic::Ejected {
                    until,
                    times,
                    why,
                    lost,
                    ..
                } => Some(KnownEjection {
                    why,
                    left_ms: millis(until.saturating_since(now)),
                    times,
                    lost,
                }),
            },
            lost: self.lost,
            probe_in_ms: millis(probe_in),
            reason: self.reason.clone(),
        }
    }

    /// A member of which this is known, under the check that is configured here. Its probes go on at the same times, so that
    /// a new process does not probe all members at once.
    pub fn resume(
        check: Option<Check>,
        ejection: Ejection,
        unproven: Unproven,
        known: &KnownHealth,
        now: Time,
    ) -> Self {
        let mut health = Self::new(check, ejection, unproven, now);
        if let Some(ejected) = known.ejected {
            health.traffic = Traffic::Ejected {
                since: now,
                until: now + Duration::from_millis(ejected.left_ms),
                times: ejected.times,
                why: ejected.why,
                lost: ejected.lost,
            };
        }
        let Some(check) = &health.check else {
            return health;
        };
        let wait = Duration::from_millis(known.probe_in_ms).min(check.interval);
        health.probe = Probe::Due(now + wait);
        health.lost = known.lost;
        health.checked = match known.checked {
            KnownCheck::Unproven => return health,
            KnownCheck::Up { failures } => Checked::Up { failures },
            KnownCheck::Down { successes, symptom } => Checked::Down { successes, symptom },
        };
        health.reason.clone_from(&known.reason);
        health
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Ejected, Input, Output, Symptom};
    use super::*;
    use gaiola_model::proxy::CheckKind;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    fn check() -> Check {
        Check {
            kind: CheckKind::Tcp,
            port: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: Vec::new(),
            interval: INTERVAL,
            fast_interval: INTERVAL,
            connect: INTERVAL,
            timeout: INTERVAL,
            rise: 2,
            fall: 1,
        }
    }

    fn resumed(known: &KnownHealth) -> Health {
        let ejection = Ejection::default();
        Health::resume(Some(check()), ejection, Unproven::Up, known, at(0))
    }

    fn probe(health: &mut Health, now: u64, result: Input) -> Vec<Output> {
        let mut out = Vec::new();
        health.step(at(now), Input::Deadline, &mut out);
        health.step(at(now), result, &mut out);
        out
    }

    #[test]
    fn a_member_that_was_down_stays_down_and_its_next_probe_keeps_its_time() {
        let mut old = Health::new(Some(check()), Ejection::default(), Unproven::Up, at(10_000));
        probe(
            &mut old,
            10_000,
            Input::ProbeFailed(Symptom::Refused, "connection refused".into()),
        );
        let mut new = resumed(&old.known(at(10_500)));
        assert_eq!((new.is_up(), new.reason()), (false, "connection refused"));
        assert_eq!(new.next_deadline(), Some(at(1500)));
        let passed = || Input::ProbePassed("connected".into());
        assert_eq!(probe(&mut new, 1500, passed()), [Output::Probe]);
        let out = probe(&mut new, 3500, passed());
        assert_eq!(out.last(), Some(&Output::Up("connected".into())));
    }

    #[test]
    fn an_ejection_is_over_when_it_would_have_been() {
        let mut old = Health::new(None, Ejection::default(), Unproven::Up, at(0));
        let mut out = Vec::new();
        old.step(at(0), Input::TooSlow("late".into()), &mut out);
        let left = old.next_deadline().unwrap() - at(400);
        let ejection = Ejection::default();
        let known = old.known(at(400));
        let new = Health::resume(None, ejection, Unproven::Up, &known, at(0));
        assert_eq!(new.condition(), Condition::Ejected(Ejected::Slow, at(0)));
        assert_eq!(new.next_deadline(), Some(Time::ZERO + left));
    }

    #[test]
    fn what_was_never_probed_is_not_known() {
        let old = Health::new(Some(check()), Ejection::default(), Unproven::Up, at(0));
        let known = old.known(at(0));
        assert_eq!(known.checked, KnownCheck::Unproven);
        let ejection = Ejection::default();
        let new = Health::resume(Some(check()), ejection, Unproven::Down, &known, at(0));
        assert!(!new.is_up());
    }
}
