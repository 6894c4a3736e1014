//! Reports as tables for people.

use super::contents::Contents;
use super::ledger::Kind;
use super::report::{DrillReport, KindReport, Verdict};
use std::fmt::Write;

/// One drill in full: verdict, timeline, requests and writes.
pub fn render(report: &DrillReport) -> String {
    let mut text = format!("{}: {}", report.target, report.verdict.words());
    if !report.reason.is_empty() {
        line(&mut text, &format!(" ({})", report.reason));
    } else {
        text.push('\n');
    }
    for note in &report.notes {
        line(&mut text, &format!("  {note}"));
    }
    moments(report, &mut text);
    requests(report, &mut text);
    writes(report, &mut text);
    text
}

fn line(text: &mut String, more: &str) {
    text.push_str(more);
    text.push('\n');
}

fn moments(report: &DrillReport, text: &mut String) {
    let mut moment = |name: &str, value: Option<u64>, otherwise: &str, meaning: &str| {
        let value = value.map_or_else(|| otherwise.to_string(), |ms| format!("{ms} ms"));
        line(
            text,
            format!("  {name:<10} {value:>10}  {meaning}").trim_end(),
        );
    };
    moment(
        "detected",
        report.detected_ms,
        "not seen",
        "until the status showed it",
    );
    moment(
        "recovered",
        report.recovered_ms,
        "never",
        "until all kinds of requests succeeded again",
    );
    if report.put_back_ms.is_some() {
        moment(
            "undone",
            report.put_back_ms,
            "",
            "until the harm was undone",
        );
    }
    moment("whole", report.whole_ms, "never", &whole(report));
    moment("outage", Some(report.outage_ms), "", &outage(report));
}

fn whole(report: &DrillReport) -> String {
    match (report.whole_ms, report.put_back_ms) {
        (Some(whole), Some(back)) => {
            format!(
                "until nothing was missing, {} ms after the harm was undone",
                whole.saturating_sub(back)
            )
        }
        _ => "until nothing was missing".into(),
    }
}

/// A probe starts every 10 ms: a pause of five times that is the measuring machine's own.
fn outage(report: &DrillReport) -> String {
    let meaning = format!("longest time without a success: {}", report.outage_of);
    match report.longest_pause_ms {
        0..=50 => meaning,
        pause => format!("{meaning} (the prober itself was delayed by {pause} ms)"),
    }
}

fn requests(report: &DrillReport, text: &mut String) {
    line(text, "");
    line(
        text,
        "                        sent   failed   resent  longest gap      p50      p99",
    );
    for kind in &report.kinds {
        let KindReport {
            sent,
            failed,
            longest_gap_ms,
            p50_ms,
            p99_ms,
            ..
        } = kind;
        let resent = if kind.kind.is_probe() {
            "-".into()
        } else {
            kind.resent.to_string()
        };
        let name = kind.kind.to_string();
        let row = format!(
            "  {name:<18} {sent:>7}  {failed:>7}  {resent:>7}  {:>11}  {:>7}  {:>7}",
            format!("{longest_gap_ms} ms"),
            format!("{p50_ms} ms"),
            format!("{p99_ms} ms"),
        );
        line(text, &row);
    }
    let failures = report
        .kinds
        .iter()
        .flat_map(|kind| kind.failures.iter().map(|f| (kind.kind, f)));
    for (kind, (why, count)) in failures {
        line(text, &format!("  {kind} failed {count} times: {why}"));
    }
    if report.kinds.iter().any(|kind| kind.resent > 0) {
        line(
            text,
            "  resent: a reused connection was closed without a byte of a response, and the request was",
        );
        line(text, "  sent again on a new one, as browsers do");
    }
}

fn writes(report: &DrillReport, text: &mut String) {
    if !report.kinds.iter().any(|kind| kind.kind == Kind::Write) {
        return;
    }
    line(text, "");
    line(
        text,
        &format!(
            "  writes: {} acknowledged, {} lost",
            report.acknowledged, report.lost
        ),
    );
    if report.unknown > 0 {
        line(
            text,
            &format!("    {} could not be looked up", report.unknown),
        );
    }
    for lost in &report.lost_examples {
        line(text, &format!("    lost: {lost}"));
    }
    contents(&report.contents, text);
}

fn contents(contents: &Contents, text: &mut String) {
    match contents {
        Contents::NotAsked => {}
        Contents::Unknown(why) => line(text, &format!("  members not compared: {why}")),
        Contents::Same { members, rows } => {
            let names: Vec<String> = members.iter().map(ToString::to_string).collect();
            let names = names.join(" and ");
            line(text, &format!("  {names} hold the same {rows} rows"));
        }
        Contents::Different(differences) => {
            line(text, "  the members differ:");
            differences
                .iter()
                .for_each(|it| line(text, &format!("    {it}")));
        }
    }
}

/// Several drills, one row each, with their totals.
pub fn render_all(reports: &[DrillReport]) -> String {
    let mut text = String::new();
    line(
        &mut text,
        "drill                   verdict        detected  recovered      whole     outage   sent  failed  acknowledged  lost",
    );
    for report in reports {
        let moment =
            |value: Option<u64>| value.map_or_else(|| "-".to_string(), |ms| format!("{ms} ms"));
        let is_load = |kind: &&KindReport| !kind.kind.is_probe() && kind.kind.is_of_users();
        let load = || report.kinds.iter().filter(is_load);
        let _ = writeln!(
            text,
            "{:<23} {:<13} {:>9}  {:>9} {:>10} {:>10} {:>6} {:>7} {:>13} {:>5}",
            report.target.to_string(),
            report.verdict.words(),
            moment(report.detected_ms),
            moment(report.recovered_ms),
            moment(report.whole_ms),
            format!("{} ms", report.outage_ms),
            load().map(|kind| kind.sent).sum::<u64>(),
            report.failed(),
            report.acknowledged,
            report.lost,
        );
    }
    let passed = reports
        .iter()
        .filter(|report| report.verdict == Verdict::Passed)
        .count();
    line(&mut text, &format!("{passed} of {} passed", reports.len()));
    for report in reports.iter().filter(|report| !report.reason.is_empty()) {
        line(&mut text, &format!("{}: {}", report.target, report.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::{Writes, tests::report};
    use super::*;

    #[test]
    fn a_report_is_a_table() {
        let text = render(&report(
            Writes {
                acknowledged: 134,
                ..Writes::default()
            },
            None,
        ));
        let expected = "\
kill lb1/proxy: passed
  detected       205 ms  until the status showed it
  recovered      506 ms  until all kinds of requests succeeded again
  whole         1005 ms  until nothing was missing
  outage         510 ms  longest time without a success: probe

                        sent   failed   resent  longest gap      p50      p99
  probe                  400       50        -       510 ms     1 ms     1 ms
  write                  134        0        1        30 ms     5 ms     5 ms
  probe failed 50 times: connection refused
  resent: a reused connection was closed without a byte of a response, and the request was
  sent again on a new one, as browsers do

  writes: 134 acknowledged, 0 lost
";
        assert_eq!(text, expected);
    }

    #[test]
    fn several_reports_are_one_row_each() {
        let lost = Writes {
            acknowledged: 134,
            lost: vec!["r-7: HTTP 404".into()],
            ..Writes::default()
        };
        let text = render_all(&[report(Writes::default(), None), report(lost, None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[1].starts_with("kill lb1/proxy          passed"),
            "{text}"
        );
        assert_eq!(lines[0].len(), lines[2].len(), "{text}");
        assert_eq!(lines[3], "1 of 2 passed");
        assert_eq!(
            lines[4],
            "kill lb1/proxy: 1 of 134 acknowledged writes were not found"
        );
    }
}
