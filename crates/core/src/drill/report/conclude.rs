//! From what was measured to the report, and its verdict.

use super::{DrillReport, Findings, KindReport, Marks, SCHEMA, Verdict, Writes};
use crate::drill::contents::Contents;
use crate::drill::ledger::{Kind, Ledger, Sample};
use crate::drill::target::Target;
use gaiola_model::Time;
use gaiola_model::config::DrillLimits;
use std::time::Duration;

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
        let Findings {
            writes,
            contents,
            notes,
        } = findings;
        // A success seen meanwhile may have turned into a failure since.
        let recovered = marks.harm.and_then(|harm| ledger.recovered(paces, harm));
        let mut report = Self {
            schema: SCHEMA,
            site,
            target,
            notes,
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
    let count = |wanted: fn(&Sample) -> bool| ledger.of(kind).filter(|s| wanted(s)).count() as u64;
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
pub(super) fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
