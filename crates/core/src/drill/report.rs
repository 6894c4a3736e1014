//! What a drill found, for programs; `render` makes a table of it for people.

use super::ledger::{Kind, Ledger};
use super::target::Target;
use gaiola_model::Time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The schema's number: raised when a program that reads reports would have to change.
pub const SCHEMA: u32 = 1;

/// What one drill found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// What was rehearsed.
    pub target: Target,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it is not `passed`, in words; empty when it is.
    pub reason: String,
    /// From the harm until the status showed it. `None`: it never did, as when the harm was over too soon.
    pub detected_ms: Option<u64>,
    /// From the harm until requests of all kinds succeeded again for good; 0: they never stopped.
    pub recovered_ms: Option<u64>,
    /// From the harm until what was taken away was begun to be put back. `None`: nothing had to be.
    pub put_back_ms: Option<u64>,
    /// From the harm until the site was healthy with nothing missing.
    pub whole_ms: Option<u64>,
    /// The longest gap of a probe that opens a new connection every 10 ms with a limit of 100 ms.
    pub outage_ms: u64,
    /// The longest time between two begun probes: normally about 10. When it is long, the measuring machine was
    /// itself held up, and the outage may be overstated by it.
    pub longest_pause_ms: u64,
    /// The requests of each kind.
    pub kinds: Vec<KindReport>,
    /// Idle connections that the site closed and that were opened again before a request was written: no failure.
    pub reopened: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were not found afterwards.
    pub lost: u64,
    /// Some of them, each with the reason.
    pub lost_examples: Vec<String>,
    /// Acknowledged writes of which it is not known, as the site did not answer.
    pub unknown: u64,
}

/// The requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// Their kind.
    pub kind: Kind,
    /// Requests that were sent.
    pub sent: u64,
    /// Those without a 2xx within their limit; a write also when its answer says `"acknowledged":false`.
    pub failed: u64,
    /// Those that succeeded or failed only on a second connection: the first, reused one was closed without one
    /// byte of an answer. Browsers send such a request again; so does the load, unless it is a write.
    pub resent: u64,
    /// The longest time between two successes.
    pub longest_gap_ms: u64,
    /// Median time of those that succeeded.
    pub p50_ms: u64,
    /// 99 in 100 of those that succeeded took no longer.
    pub p99_ms: u64,
    /// Why they failed, and how many each; the most frequent first.
    pub failures: Vec<(String, u64)>,
}

/// What came of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The harm was done, nothing is lost, and the site is whole again.
    Passed,
    /// Acknowledged writes were not found.
    Lost,
    /// The site did not recover, or did not become whole, in time.
    NotHealthy,
    /// The site was not healthy, or did not answer cleanly, before the harm: nothing was harmed.
    NotReady,
    /// The harm could not be done, or could not be confirmed: nothing is proved.
    NotDone,
    /// The operator broke it off; what was harmed was put back.
    Interrupted,
}

impl Verdict {
    /// What `gaiola drill` ends with.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::NotDone => 1,
            Self::Lost | Self::NotHealthy | Self::NotReady => 4,
            Self::Interrupted => 130,
        }
    }

    /// What several drills end with: broken off before degraded before failed before passed.
    pub fn exit_code_of_all(verdicts: impl IntoIterator<Item = Self>) -> u8 {
        verdicts.into_iter().map(Self::exit_code).max().unwrap_or(0)
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Lost => "LOST WRITES",
            Self::NotHealthy => "NOT HEALTHY",
            Self::NotReady => "not begun",
            Self::NotDone => "not done",
            Self::Interrupted => "broken off",
        }
    }
}

/// The moments of a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The calm before the harm began: what is counted begins here.
    pub begun: Time,
    /// The harm began.
    pub harm: Option<Time>,
    /// The status showed it.
    pub detected: Option<Time>,
    /// Requests of all kinds succeeded again for good: see [`Ledger::recovered`].
    pub recovered: Option<Time>,
    /// What was taken away was begun to be put back.
    pub put_back: Option<Time>,
    /// The site was healthy, for the last time counted from here.
    pub whole: Option<Time>,
    /// The load ended.
    pub ended: Time,
}

/// What became of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that are not there, each with what was found instead.
    pub lost: Vec<String>,
    /// Those of them that could not be asked for, each with the reason.
    pub unknown: Vec<String>,
}

/// How many lost writes a report names.
const EXAMPLES: usize = 10;

impl DrillReport {
    /// Adds everything up. `paces` are the kinds in use, each with the usual distance of its successes.
    ///
    /// `trouble` says why the drill did not go its way; lost writes are found here.
    pub fn conclude(
        (site, target): (String, Target),
        ledger: &Ledger,
        paces: &[(Kind, Duration)],
        marks: Marks,
        writes: Writes,
        trouble: Option<(Verdict, String)>,
    ) -> Self {
        let since = |point: Option<Time>| Some(ms(point? - marks.harm?));
        let (verdict, reason) = verdict(&writes, trouble);
        Self {
            schema: SCHEMA,
            site,
            target,
            verdict,
            reason,
            detected_ms: since(marks.detected),
            recovered_ms: since(marks.recovered),
            put_back_ms: since(marks.put_back),
            whole_ms: since(marks.whole),
            outage_ms: ms(ledger.longest_gap(Kind::Probe, marks.begun, marks.ended)),
            longest_pause_ms: ms(ledger.longest_pause(marks.begun, marks.ended)),
            kinds: paces
                .iter()
                .map(|(kind, _)| kind_report(ledger, *kind, marks))
                .collect(),
            reopened: ledger.reopened_count(),
            acknowledged: writes.acknowledged,
            lost: writes.lost.len() as u64,
            unknown: writes.unknown.len() as u64,
            lost_examples: writes.lost.into_iter().take(EXAMPLES).collect(),
        }
    }
}

/// Lost writes weigh most, whatever else went wrong.
fn verdict(writes: &Writes, trouble: Option<(Verdict, String)>) -> (Verdict, String) {
    let all = writes.acknowledged;
    match (trouble, writes.lost.len(), writes.unknown.first()) {
        (_, 1.., _) => (
            Verdict::Lost,
            format!(
                "{} of {all} acknowledged writes were not found",
                writes.lost.len()
            ),
        ),
        (Some(trouble), ..) => trouble,
        (None, _, Some(why)) => (
            Verdict::NotHealthy,
            format!(
                "{} of {all} acknowledged writes could not be looked up: {why}",
                writes.unknown.len()
            ),
        ),
        (None, _, None) => (Verdict::Passed, String::new()),
    }
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

/// The smallest value that `percent` in 100 do not exceed; zero of none.
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
        DrillReport::conclude(
            ("guestbook".into(), target),
            &ledger,
            &paces,
            marks,
            writes,
            trouble,
        )
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
        assert_eq!(report.verdict.exit_code(), 4);
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
        assert_eq!(Verdict::exit_code_of_all([]), 0);
        assert_eq!(
            Verdict::exit_code_of_all([Verdict::Passed, Verdict::NotDone]),
            1
        );
        assert_eq!(
            Verdict::exit_code_of_all([Verdict::NotHealthy, Verdict::NotDone]),
            4
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
