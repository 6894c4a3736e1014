use super::*;
use gaiola_model::proxy::CheckKind;
use std::time::Duration;

const CHECK: Check = Check {
    kind: CheckKind::Tcp,
    port: None,
    host: None,
    headers: std::collections::BTreeMap::new(),
    status: Vec::new(),
    interval: Duration::from_millis(1000),
    fast_interval: Duration::from_millis(200),
    connect: Duration::from_millis(500),
    timeout: Duration::from_millis(500),
    rise: 2,
    fall: 3,
};

/// A member, driven by its own deadlines.
struct Driven {
    health: Health,
    now: Time,
    out: Vec<Output>,
}

impl Driven {
    fn new(check: Option<Check>, unproven: Unproven) -> Self {
        Self {
            health: Health::new(check, Ejection::default(), unproven, Time::ZERO),
            now: Time::ZERO,
            out: Vec::new(),
        }
    }

    /// Waits for the next probe.
    fn due(&mut self) {
        while !self.out.contains(&Output::Probe) {
            self.now = self.now.max(self.health.next_deadline().unwrap());
            self.health.step(self.now, Input::Deadline, &mut self.out);
        }
        self.out.clear();
    }

    /// Waits for the next probe, answers it, and returns when it began, in milliseconds.
    fn probe(&mut self, passes: bool) -> u128 {
        self.due();
        let result = if passes {
            Input::ProbePassed("well".into())
        } else {
            Input::ProbeFailed(Symptom::Bad, "badly".into())
        };
        self.health.step(self.now, result, &mut self.out);
        self.now.since_start().as_millis()
    }

    fn error(&mut self) {
        self.health.step(
            self.now,
            Input::Errored(Symptom::Refused, "refused".into()),
            &mut self.out,
        );
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.health.step(self.now, Input::Deadline, &mut self.out);
    }
}

fn proven() -> Driven {
    let mut driven = Driven::new(Some(CHECK), Unproven::Up);
    driven.probe(true);
    driven
}

#[test]
fn the_first_probe_decides_alone() {
    let mut driven = Driven::new(Some(CHECK), Unproven::Down);
    assert!(!driven.health.is_up());
    driven.probe(true);
    assert_eq!(driven.out, [Output::Up("well".into())]);

    let mut driven = Driven::new(Some(CHECK), Unproven::Up);
    assert!(driven.health.is_up());
    driven.probe(false);
    assert_eq!(driven.out, [Output::Down("badly".into())]);
}

#[test]
fn fall_takes_it_down_and_rise_brings_it_up_probing_faster_meanwhile() {
    let mut driven = proven();
    assert_eq!(
        [false; 3].map(|passes| driven.probe(passes)),
        [1000, 1200, 1400]
    );
    assert!(!driven.health.is_up());
    assert_eq!(
        [false, true, true].map(|passes| driven.probe(passes)),
        [2400, 3400, 3600]
    );
    assert!(driven.health.is_up());
    assert_eq!(driven.probe(true), 4600);
}

#[test]
fn a_success_between_failures_starts_the_count_anew() {
    let mut driven = proven();
    for passes in [false, false, true, false, false] {
        driven.probe(passes);
        assert!(driven.health.is_up());
    }
    driven.probe(false);
    assert!(!driven.health.is_up());
}

#[test]
fn one_probe_at_a_time() {
    let mut driven = Driven::new(Some(CHECK), Unproven::Up);
    driven.wait(0);
    driven.wait(5000);
    assert_eq!(driven.out, [Output::Probe]);
    assert_eq!(driven.health.next_deadline(), None);
}

#[test]
fn a_result_nobody_asked_for_changes_nothing() {
    let mut driven = proven();
    let before = driven.health.clone();
    driven.health.step(
        driven.now,
        Input::ProbeFailed(Symptom::Bad, "late".into()),
        &mut driven.out,
    );
    assert_eq!(driven.health, before);
}

#[test]
fn errors_in_a_row_eject_and_time_brings_it_back() {
    let mut driven = Driven::new(None, Unproven::Up);
    driven.error();
    driven.error();
    driven
        .health
        .step(driven.now, Input::Served, &mut driven.out);
    driven.error();
    driven.error();
    assert!(driven.health.is_up());
    driven.error();
    assert!(driven.health.is_ejected() && driven.health.is_checked_up());
    driven.wait(999);
    assert!(!driven.health.is_up());
    driven.wait(1);
    assert!(driven.health.is_up());
    assert_eq!(driven.out.len(), 2, "{:?}", driven.out);
}

#[test]
fn ejections_double_up_to_a_limit_and_are_forgotten() {
    let mut driven = Driven::new(None, Unproven::Up);
    let mut eject = |pause: u64| {
        driven.wait(pause);
        (0..3).for_each(|_| driven.error());
        let length = driven.health.next_deadline().unwrap() - driven.now;
        driven.wait(u64::try_from(length.as_millis()).unwrap());
        length.as_secs()
    };
    let lengths: Vec<_> = (0..7).map(|_| eject(10)).collect();
    assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(eject(30_000), 1);
}

#[test]
fn a_probe_answered_after_the_ejection_brings_it_back_early() {
    let mut driven = proven();
    driven.now = driven.now + Duration::from_millis(10);
    (0..3).for_each(|_| driven.error());
    assert!(!driven.health.is_up());
    assert_eq!(driven.probe(true), 210);
    assert!(driven.health.is_up());
}

#[test]
fn a_probe_begun_before_the_ejection_does_not_bring_it_back() {
    let mut driven = proven();
    driven.wait(1000);
    (0..3).for_each(|_| driven.error());
    driven.health.step(
        driven.now,
        Input::ProbePassed("well".into()),
        &mut driven.out,
    );
    assert!(!driven.health.is_up());
}

#[test]
fn a_changed_check_is_made_at_once_and_nothing_known_is_lost() {
    let mut driven = proven();
    driven.wait(100);
    let slower = Check {
        interval: Duration::from_secs(5),
        ..CHECK
    };
    driven.health.set_check(Some(CHECK), driven.now);
    assert_eq!(
        driven.health.next_deadline(),
        Some(Time::ZERO + CHECK.interval)
    );
    driven.health.set_check(Some(slower), driven.now);
    assert!(driven.health.is_up());
    assert_eq!([true, true].map(|passes| driven.probe(passes)), [100, 5100]);
    driven.health.set_check(None, driven.now);
    assert_eq!(driven.health.next_deadline(), None);
}

#[test]
fn a_slow_member_stays_out_for_its_time_though_its_probes_pass() {
    let mut driven = proven();
    driven.health.step(
        driven.now,
        Input::TooSlow("answers late".into()),
        &mut driven.out,
    );
    assert_eq!(driven.out, [Output::Down("answers late".into())]);
    let ejected = driven.now;
    while driven.now.saturating_since(ejected) < Duration::from_secs(1) {
        assert!(!driven.health.is_up());
        driven.probe(true);
    }
    assert!(driven.health.is_up());
}

/// What is done after these probes.
fn after(check: Check, symptoms: &[Symptom]) -> (Condition, bool) {
    let mut driven = Driven::new(Some(check), Unproven::Up);
    driven.probe(true);
    let mut was_lost = false;
    for symptom in symptoms {
        driven.due();
        let failed = Input::ProbeFailed(*symptom, "badly".into());
        driven.health.step(driven.now, failed, &mut driven.out);
        was_lost |= driven.out.contains(&Output::Lost);
    }
    (driven.health.condition(), was_lost)
}

#[test]
fn busy_is_not_lost() {
    use Symptom::{Bad, Lost, Refused, Silent};
    let http = Check {
        kind: CheckKind::Http { path: "/up".into() },
        ..CHECK
    };
    assert_eq!(
        after(http.clone(), &[Silent; 9]),
        (Condition::Silent, false)
    );
    assert_eq!(after(http.clone(), &[Refused; 9]), (Condition::Down, false));
    assert_eq!(after(http.clone(), &[Bad; 9]), (Condition::Down, false));
    assert_eq!(after(http.clone(), &[Lost; 2]), (Condition::Up, false));
    assert_eq!(after(http.clone(), &[Lost; 3]), (Condition::Down, true));
    // One that was busy loses power.
    let then = [Silent, Silent, Silent, Lost, Lost, Lost];
    assert_eq!(after(http.clone(), &then), (Condition::Down, true));
    assert_eq!(
        after(http, &[Lost, Lost, Silent]),
        (Condition::Silent, false)
    );
}

#[test]
fn a_check_for_a_role_is_always_believed() {
    let role = CheckKind::Https {
        path: "/primary".into(),
        ca: "".into(),
        cert: "".into(),
        key: "".into(),
    };
    for kind in [role, CheckKind::Postgres { user: "u".into() }] {
        let check = Check { kind, ..CHECK };
        assert_eq!(after(check, &[Symptom::Silent; 3]).0, Condition::Down);
    }
}

fn errors(ejection: Ejection, symptoms: &[Symptom]) -> (Condition, bool) {
    let mut health = Health::new(None, ejection, Unproven::Up, Time::ZERO);
    let mut out = Vec::new();
    for symptom in symptoms {
        health.step(
            Time::ZERO,
            Input::Errored(*symptom, "badly".into()),
            &mut out,
        );
    }
    (health.condition(), out.contains(&Output::Lost))
}

#[test]
fn why_it_was_ejected_shows_in_its_errors() {
    use Symptom::{Bad, Lost, Refused, Silent};
    let ejected = |why| Condition::Ejected(why, Time::ZERO);
    let usual = Ejection::default();
    let unreachable = ejected(Ejected::Unreachable);
    assert_eq!(errors(usual, &[Lost; 3]), (unreachable, true));
    assert_eq!(errors(usual, &[Refused, Lost, Lost]), (unreachable, false));
    let failed = ejected(Ejected::Errors);
    assert_eq!(errors(usual, &[Bad, Lost, Silent]), (failed, false));
}

#[test]
fn what_counts_as_an_error_is_chosen() {
    use Symptom::{Bad, Refused};
    let observing = |observe, error_limit| Ejection {
        observe,
        error_limit,
        ..Ejection::default()
    };
    let is_ejected = |ejection, symptoms: &[Symptom]| errors(ejection, symptoms).0 != Condition::Up;
    assert!(!is_ejected(observing(Observe::None, 1), &[Refused; 9]));
    assert!(!is_ejected(observing(Observe::Layer4, 1), &[Bad; 9]));
    assert!(is_ejected(observing(Observe::Layer4, 1), &[Refused]));
    assert!(!is_ejected(observing(Observe::Layer7, 5), &[Bad; 4]));
    assert!(is_ejected(observing(Observe::Layer7, 5), &[Bad; 5]));
}
