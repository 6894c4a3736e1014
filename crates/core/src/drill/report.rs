//! A drill's findings as data; `render` makes a table of them for people.

use super::contents::Contents;
use super::ledger::{Kind, Ledger};
use super::target::Target;
use gaiola_model::config::DrillLimits;
use gaiola_model::{Exit, Time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Schema version: raised when programs that read reports would have to change.
pub const SCHEMA: u32 = 2;

/// What one drill found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// What was rehearsed.
    pub target: Target,
    /// The result.
    pub verdict: Verdict,
    /// Why it is not `passed`, in words; empty if it is.
    pub reason: String,
    /// From the harm until the status showed it. `None`: it never did, for example because the harm was over too soon.
    pub detected_ms: Option<u64>,
    /// From the harm until requests of all kinds succeeded for good; 0: they never stopped.
    pub recovered_ms: Option<u64>,
    /// From the harm until restoring what was taken away began. `None`: nothing had to be restored.
    pub put_back_ms: Option<u64>,
    /// From the harm until the site was healthy with nothing missing.
    pub whole_ms: Option<u64>,
    /// The longest time without a success, of the kind of request that fared worst.
    pub outage_ms: u64,
    /// That kind.
    pub outage_of: Kind,
    /// The longest time between the starts of two probes: normally about 10. A long one means that the measuring
    /// machine itself stalled, and the outage may be overstated by it.
    pub longest_pause_ms: u64,
    /// The requests of each kind.
    pub kinds: Vec<KindReport>,
    /// Idle connections that the site closed and that were reopened before a request was written: no failure.
    pub reopened: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Acknowledged writes that were not found afterwards.
    pub lost: u64,
    /// Some of them, each with the reason.
    pub lost_examples: Vec<String>,
    /// Acknowledged writes that could not be checked, because the site did not answer.
    pub unknown: u64,
    /// Whether all members of the database hold the same rows.
    pub contents: Contents,
}

/// The requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// Their kind.
    pub kind: Kind,
    /// Requests that were sent.
    pub sent: u64,
    /// Those without a 2xx within their limit; also writes answered with `"acknowledged":false`.
    pub failed: u64,
    /// Those that ended on a second connection because the first, a reused one, was closed before the first byte of a
    /// response. Browsers resend such a request; so does the load, unless it is a write.
    pub resent: u64,
    /// The longest time between two successes.
    pub longest_gap_ms: u64,
    /// Median duration of the successful ones.
    pub p50_ms: u64,
    /// 99th percentile of the successful ones.
    pub p99_ms: u64,
    /// Reasons for failures with their counts, the most frequent first.
    pub failures: Vec<(String, u64)>,
}

/// The result of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The harm was done, nothing is lost, the site is whole again, and it stayed within `[drill]`'s limits.
    Passed,
    /// More acknowledged writes were not found than `[drill]` allows.
    Lost,
    /// The members of the database do not hold the same rows.
    Different,
    /// Requests of some kind did not recover for good.
    NotRecovered,
    /// The outage was longer, or more requests failed, than `[drill]` allows.
    OverLimit,
    /// The site did not recover, or did not become whole, in time.
    NotHealthy,
    /// The site was not healthy, or did not answer cleanly, before the harm: nothing was harmed.
    NotReady,
    /// The harm could not be done, or could not be confirmed: the drill proves nothing.
    NotDone,
    /// The operator interrupted it; the harm was undone.
    Interrupted,
}

impl Verdict {
    /// Exit code of `gaiola drill`.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Passed => Exit::Ok,
            Self::NotDone | Self::NotRecovered | Self::OverLimit => Exit::Failed,
            Self::Lost | Self::Different | Self::NotHealthy | Self::NotReady => Exit::Degraded,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Exit code for several drills; precedence: interrupted, degraded, failed, passed.
    pub fn exit_of_all(verdicts: impl IntoIterator<Item = Self>) -> Exit {
        let exits = verdicts.into_iter().map(Self::exit);
        exits.max_by_key(|exit| exit.code()).unwrap_or(Exit::Ok)
    }

    /// In words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Lost => "LOST WRITES",
            Self::Different => "DIFFERENT",
            Self::NotRecovered => "NOT RECOVERED",
            Self::OverLimit => "OVER LIMIT",
            Self::NotHealthy => "NOT HEALTHY",
            Self::NotReady => "not begun",
            Self::NotDone => "not done",
            Self::Interrupted => "broken off",
        }
    }
}

/// The timeline of a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The calm before the harm began; counting starts here.
    pub begun: Time,
    /// The harm began.
    pub harm: Option<Time>,
    /// The status showed it.
    pub detected: Option<Time>,
    /// Requests of all kinds succeeded for good: see [`Ledger::recovered`].
    pub recovered: Option<Time>,
    /// Restoring what was taken away began.
    pub put_back: Option<Time>,
    /// The site became healthy for the last time.
    pub whole: Option<Time>,
    /// The load ended.
    pub ended: Time,
}

/// What was found after the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What became of the writes.
    pub writes: Writes,
    /// What the members of the database hold.
    pub contents: Contents,
}

/// What became of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Those of them that are missing, each with what was found instead.
    pub lost: Vec<String>,
    /// Those of them that could not be checked, each with the reason.
    pub unknown: Vec<String>,
}

impl Writes {
    /// Adds `others` to these.
    pub fn add(&mut self, others: Self) {
        self.acknowledged += others.acknowledged;
        self.lost.extend(others.lost);
        self.unknown.extend(others.unknown);
    }
}

/// How many lost writes a report names.
const EXAMPLES: usize = 10;

impl DrillReport {
    /// Evaluates the drill. `paces` are the kinds in use, each with the usual interval of its successes; `limits`
    /// decide what passes.
    ///
    /// `trouble` says why the drill did not run as planned; lost writes are found here.
    pub fn conclude(
        (site, target): (String, Target),
        ledger: &Ledger,
        paces: &[(Kind, Duration)],
        marks: Marks,
        findings: Findings,
        trouble: Option<(Verdict, String)>,
        limits: &DrillLimits,
    ) -> Self {
        let since = |point: Option<Time>| Some(ms(point? - marks.harm?));
        let kinds = kind_reports(ledger, paces, marks);
        let (outage_of, outage_ms) = worst(&kinds);
        let Findings { writes, contents } = findings;
        // A success seen meanwhile may have turned into a failure since.
        let recovered = marks.harm.and_then(|harm| ledger.recovered(paces, harm));
        let mut report = Self {
            schema: SCHEMA,
            site,
            target,
            verdict: Verdict::Passed,
            reason: String::new(),
            detected_ms: since(marks.detected),
            recovered_ms: recovered.map(ms),
            put_back_ms: since(marks.put_back),
            whole_ms: since(marks.whole),
            outage_ms,
            outage_of,
            longest_pause_ms: ms(ledger.longest_pause(marks.begun, marks.ended)),
            kinds,
            reopened: ledger.reopened_count(),
            acknowledged: writes.acknowledged,
            lost: writes.lost.len() as u64,
            unknown: writes.unknown.len() as u64,
            lost_examples: writes.lost.iter().take(EXAMPLES).cloned().collect(),
            contents,
        };
        (report.verdict, report.reason) = report.judge(&writes, trouble, limits);
        report
    }

    /// Failed requests of the steady load: what users would have seen.
    pub fn failed(&self) -> u64 {
        let load = self.kinds.iter().filter(|report| !report.kind.is_probe());
        let of_users = load.filter(|report| report.kind.is_of_users());
        of_users.map(|report| report.failed).sum()
    }

    /// The gravest verdict that applies. Lost writes come first, whatever else went wrong.
    fn judge(
        &self,
        writes: &Writes,
        trouble: Option<(Verdict, String)>,
        limits: &DrillLimits,
    ) -> (Verdict, String) {
        lost(writes, limits)
            .or_else(|| different(&self.contents))
            .or(trouble)
            .or_else(|| unknown(writes, &self.contents))
            .or_else(|| self.not_recovered())
            .or_else(|| self.over_limit(limits))
            .unwrap_or((Verdict::Passed, String::new()))
    }

    fn not_recovered(&self) -> Option<(Verdict, String)> {
        let why = "some kind of request did not succeed again for good";
        let never = self.recovered_ms.is_none();
        never.then(|| (Verdict::NotRecovered, why.into()))
    }

    fn over_limit(&self, limits: &DrillLimits) -> Option<(Verdict, String)> {
        let (outage, longest) = (self.outage_ms, ms(limits.max_outage));
        if outage > longest {
            let why = format!(
                "no success of kind {} for {outage} ms, and [drill] max_outage is {longest} ms",
                self.outage_of
            );
            return Some((Verdict::OverLimit, why));
        }
        let (failed, most) = (self.failed(), limits.max_failed?);
        let why = || format!("{failed} requests failed, and [drill] max_failed is {most}");
        (failed > most).then(|| (Verdict::OverLimit, why()))
    }
}

fn lost(writes: &Writes, limits: &DrillLimits) -> Option<(Verdict, String)> {
    let (all, lost) = (writes.acknowledged, writes.lost.len() as u64);
    let why = || format!("{lost} of {all} acknowledged writes were not found");
    (lost > limits.max_lost).then(|| (Verdict::Lost, why()))
}

fn different(contents: &Contents) -> Option<(Verdict, String)> {
    let Contents::Different(differences) = contents else {
        return None;
    };
    let why = format!(
        "the members of the database do not hold the same: {}",
        differences.join("; ")
    );
    Some((Verdict::Different, why))
}

fn unknown(writes: &Writes, contents: &Contents) -> Option<(Verdict, String)> {
    if let Some(why) = writes.unknown.first() {
        let (all, unknown) = (writes.acknowledged, writes.unknown.len());
        let why = format!("{unknown} of {all} acknowledged writes could not be looked up: {why}");
        return Some((Verdict::NotHealthy, why));
    }
    let Contents::Unknown(why) = contents else {
        return None;
    };
    let why = format!("the members of the database could not be compared: {why}");
    Some((Verdict::NotHealthy, why))
}

/// The kind of users' requests with the longest time without a success.
fn worst(kinds: &[KindReport]) -> (Kind, u64) {
    let of_users = kinds.iter().filter(|report| report.kind.is_of_users());
    let worst = of_users.max_by_key(|report| report.longest_gap_ms);
    worst.map_or((Kind::Probe, 0), |report| {
        (report.kind, report.longest_gap_ms)
    })
}

/// The kinds in use first, in order, then any others that were measured.
fn kind_reports(ledger: &Ledger, paces: &[(Kind, Duration)], marks: Marks) -> Vec<KindReport> {
    let used: Vec<Kind> = paces.iter().map(|(kind, _)| *kind).collect();
    let others = ledger.kinds().into_iter();
    let others = others.filter(|kind| !used.contains(kind));
    let all: Vec<Kind> = used.iter().copied().chain(others).collect();
    let report = |kind| kind_report(ledger, kind, marks);
    all.into_iter().map(report).collect()
}

fn kind_report(ledger: &Ledger, kind: Kind, marks: Marks) -> KindReport {
    let count =
        |wanted: fn(&super::Sample) -> bool| ledger.of(kind).filter(|s| wanted(s)).count() as u64;
    let mut took: Vec<Duration> = ledger
        .of(kind)
        .filter(|s| s.ok)
        .map(|s| s.done - s.sent)
        .collect();
    took.sort_unstable();
    let mut failures: Vec<(String, u64)> = ledger
        .failures()
        .filter(|(k, ..)| *k == kind)
        .map(|(_, why, n)| (why.into(), n))
        .collect();
    failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    KindReport {
        kind,
        sent: count(|_| true),
        failed: count(|sample| !sample.ok),
        resent: count(|sample| sample.resent),
        longest_gap_ms: ms(ledger.longest_gap(kind, marks.begun, marks.ended)),
        p50_ms: ms(quantile(&took, 50)),
        p99_ms: ms(quantile(&took, 99)),
        failures,
    }
}

/// The smallest value that `percent` in 100 do not exceed; zero for an empty slice.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    /// Two seconds of calm, half a second away, and back.
    pub(in crate::drill) fn report(
        writes: Writes,
        trouble: Option<(Verdict, String)>,
    ) -> DrillReport {
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
            contents: Contents::default(),
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
            match away.contains(&sent) {
                true => ledger.failed(Kind::Page, at(sent), at(sent + 1), false, "HTTP 503"),
                false => ledger.succeeded(Kind::Page, at(sent), at(sent + 1), false),
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
}
