use super::conclude::quantile;
use super::*;
use crate::drill::ledger::Ledger;
use gaiola_model::config::DrillLimits;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time::from_start(Duration::from_millis(ms))
}

/// Two seconds of calm, half a second away, and back.
pub(in crate::drill) fn report(writes: Writes, trouble: Option<(Verdict, String)>) -> DrillReport {
    let mut ledger = Ledger::default();
    for sent in (0..4000).step_by(10) {
        if (2000..2500).contains(&sent) {
            ledger.failed(
                Kind::Probe,
                at(sent),
                at(sent + 1),
                false,
                "connection refused",
            );
        } else {
            ledger.succeeded(Kind::Probe, at(sent), at(sent + 1), false);
        }
    }
    for sent in (0..4000).step_by(30) {
        ledger.succeeded(Kind::Write, at(sent), at(sent + 5), sent == 2010);
    }
    let marks = Marks {
        begun: at(0),
        harm: Some(at(1995)),
        detected: Some(at(2200)),
        recovered: Some(at(2501)),
        put_back: None,
        whole: Some(at(3000)),
        ended: at(4000),
    };
    let paces = [
        (Kind::Probe, Duration::from_millis(10)),
        (Kind::Write, Duration::from_millis(30)),
    ];
    let target = "kill lb1/proxy".parse().unwrap();
    let findings = Findings {
        writes,
        ..Findings::default()
    };
    let what = ("guestbook".into(), target);
    let limits = DrillLimits::default();
    DrillReport::conclude(what, &ledger, &paces, marks, findings, trouble, &limits)
}

/// Pages every 30 ms for ten seconds, none of which succeeds in `away`, and a probe that never stops.
fn away(away: std::ops::Range<u64>, limits: &DrillLimits, contents: Contents) -> DrillReport {
    let mut ledger = Ledger::default();
    for sent in (0..10_000).step_by(30) {
        ledger.succeeded(Kind::Probe, at(sent), at(sent + 1), false);
        if away.contains(&sent) {
            ledger.failed(Kind::Page, at(sent), at(sent + 1), false, "HTTP 503")
        } else {
            ledger.succeeded(Kind::Page, at(sent), at(sent + 1), false)
        }
    }
    let marks = Marks {
        harm: Some(at(1000)),
        whole: Some(at(9000)),
        ended: at(10_000),
        ..Marks::default()
    };
    let pace = Duration::from_millis(30);
    let what = ("guestbook".into(), "mute db1".parse().unwrap());
    let findings = Findings {
        contents,
        ..Findings::default()
    };
    let paces = [(Kind::Probe, pace), (Kind::Page, pace)];
    DrillReport::conclude(what, &ledger, &paces, marks, findings, None, limits)
}

#[test]
fn the_outage_is_that_of_the_kind_that_fared_worst() {
    let report = away(2000..5000, &DrillLimits::default(), Contents::default());
    assert_eq!(report.outage_of, Kind::Page);
    assert!((2990..=3060).contains(&report.outage_ms), "{report:?}");
    assert_eq!((report.verdict, report.failed()), (Verdict::Passed, 100));
}

#[test]
fn what_never_recovers_does_not_pass() {
    let report = away(9500..20_000, &DrillLimits::default(), Contents::default());
    assert_eq!(
        (report.verdict, report.recovered_ms),
        (Verdict::NotRecovered, None)
    );
    assert_eq!(report.verdict.exit().code(), 1);
}

#[test]
fn what_is_beyond_the_files_limits_does_not_pass() {
    let judged = |limits: &DrillLimits| away(2000..5000, limits, Contents::default());
    let short = judged(&DrillLimits {
        max_outage: Duration::from_secs(2),
        ..DrillLimits::default()
    });
    assert_eq!(
        (short.verdict, short.verdict.exit().code()),
        (Verdict::OverLimit, 1)
    );
    assert!(
        short.reason.ends_with("and [drill] max_outage is 2000 ms"),
        "{}",
        short.reason
    );
    let few = judged(&DrillLimits {
        max_failed: Some(99),
        ..DrillLimits::default()
    });
    assert_eq!(
        few.reason,
        "100 requests failed, and [drill] max_failed is 99"
    );
    let enough = judged(&DrillLimits {
        max_failed: Some(100),
        ..DrillLimits::default()
    });
    assert_eq!(enough.verdict, Verdict::Passed);
}

#[test]
fn members_that_hold_different_rows_do_not_pass() {
    let differences = vec!["entries: db2 has 3 rows, db1 has 4 rows".into()];
    let limits = DrillLimits::default();
    let report = away(0..0, &limits, Contents::Different(differences));
    assert_eq!(
        (report.verdict, report.verdict.exit().code()),
        (Verdict::Different, 4)
    );
    let unknown = away(0..0, &limits, Contents::Unknown("db1 is away".into()));
    assert_eq!(unknown.verdict, Verdict::NotHealthy);
}

#[test]
fn clients_inside_a_cut_are_reported_and_not_held_against_the_site() {
    let mut ledger = Ledger::default();
    let inside = Kind::Inside("db1".parse().unwrap());
    for sent in (0..4000).step_by(10) {
        ledger.succeeded(Kind::Probe, at(sent), at(sent + 1), false);
        ledger.failed(inside, at(sent), at(sent + 1), false, "no answer");
    }
    let marks = Marks {
        harm: Some(at(1000)),
        ended: at(4000),
        ..Marks::default()
    };
    let what = ("guestbook".into(), "cut db1".parse().unwrap());
    let paces = [(Kind::Probe, Duration::from_millis(10))];
    let (findings, limits) = (Findings::default(), DrillLimits::default());
    let report = DrillReport::conclude(what, &ledger, &paces, marks, findings, None, &limits);
    assert_eq!((report.verdict, report.failed()), (Verdict::Passed, 0));
    assert_eq!(
        (report.kinds[1].kind, report.kinds[1].failed),
        (inside, 400)
    );
    assert_eq!(report.outage_of, Kind::Probe);
}

#[test]
fn times_count_from_the_harm() {
    let report = report(Writes::default(), None);
    assert_eq!(
        (report.verdict, report.reason.as_str()),
        (Verdict::Passed, "")
    );
    assert_eq!(report.detected_ms, Some(205));
    assert_eq!(report.recovered_ms, Some(506));
    assert_eq!(report.whole_ms, Some(1005));
    assert_eq!(report.outage_ms, 510);
    assert_eq!((report.kinds[0].sent, report.kinds[0].failed), (400, 50));
    assert_eq!(
        report.kinds[0].failures,
        [("connection refused".to_string(), 50)]
    );
    assert_eq!(
        (
            report.kinds[1].failed,
            report.kinds[1].resent,
            report.kinds[1].p99_ms
        ),
        (0, 1, 5)
    );
}

#[test]
fn lost_writes_weigh_more_than_anything_else() {
    let writes = Writes {
        acknowledged: 3,
        lost: vec!["a: HTTP 404".into()],
        unknown: vec!["b: no answer".into()],
    };
    let trouble = Some((Verdict::NotHealthy, "db1 is missing".into()));
    let report = report(writes, trouble);
    assert_eq!((report.verdict, report.lost), (Verdict::Lost, 1));
    assert_eq!(report.reason, "1 of 3 acknowledged writes were not found");
    assert_eq!(report.verdict.exit().code(), 4);
}

#[test]
fn a_write_that_could_not_be_looked_up_is_not_called_lost() {
    let writes = Writes {
        acknowledged: 3,
        unknown: vec!["b: no answer in time".into()],
        ..Writes::default()
    };
    let report = report(writes, None);
    assert_eq!(
        (report.verdict, report.lost, report.unknown),
        (Verdict::NotHealthy, 0, 1)
    );
    assert_eq!(
        report.reason,
        "1 of 3 acknowledged writes could not be looked up: b: no answer in time"
    );
}

#[test]
fn the_worst_verdict_is_the_end_of_all() {
    assert_eq!(Verdict::exit_of_all([]), Exit::Ok);
    assert_eq!(
        Verdict::exit_of_all([Verdict::Passed, Verdict::NotDone]),
        Exit::Failed
    );
    assert_eq!(
        Verdict::exit_of_all([Verdict::NotHealthy, Verdict::NotDone]),
        Exit::Degraded
    );
}

#[test]
fn a_quantile_is_one_of_the_values() {
    let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    assert_eq!(quantile(&values, 50).as_millis(), 100);
    assert_eq!(quantile(&values, 99).as_millis(), 198);
    assert_eq!(quantile(&values[..1], 99).as_millis(), 1);
    assert_eq!(quantile(&[], 99), Duration::ZERO);
}
