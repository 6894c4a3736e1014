//! What [`gaiola_wire::metrics`] writes is valid Prometheus text. The parser here is strict, and is checked itself.

mod strict;

use gaiola_model::metric;
use gaiola_wire::metrics::{Histogram, Line, Text};

const ODD: &str = "a\"} b\\,\nc=\"";

fn written() -> String {
    let mut text = Text::default();
    text.value(&metric::UPTIME, 7_u64);
    let mut family = text.family(&metric::SERVER_UP);
    for server in ["s", ODD, "s"] {
        family.sample([ODD, server], true);
    }
    let mut family = text.family(&metric::HTTP_REQUEST_DURATION);
    for server in ["s", ODD] {
        let observed = Histogram {
            bounds: &[0.000_5, 10.0],
            counts: &[1, 0, 2],
            sum: 1e-7,
        };
        family.histogram(["f", "-", server], &observed);
    }
    // A family without samples is announced all the same.
    text.family(&metric::QUEUE_DEPTH);
    text.into_string()
}

#[test]
fn what_is_written_is_valid() {
    let text = written();
    let families = strict::families(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    let (name, about) = (metric::SERVER_UP.name(), metric::SERVER_UP.about());
    let family = &families[name];
    assert_eq!((&*family.kind, &*family.help), ("gauge", about.help));
    let labels = [("backend", ODD), ("server", ODD)].map(|(a, b)| (a.to_string(), b.to_string()));
    assert_eq!(family.samples[&(name.to_string(), labels.into())], 1.0);
    assert_eq!(family.samples.len(), 2);
    let durations = &families[metric::HTTP_REQUEST_DURATION.name()];
    assert_eq!(durations.samples.len(), 2 * (3 + 2));
}

#[test]
fn what_is_copied_with_more_labels_is_valid() {
    let (text, mut copy) = (written(), Text::default());
    for line in text.lines() {
        match Line::read(line).unwrap() {
            Line::Help { name, text } => copy.announce(name, Some(text), None),
            Line::Type { name, kind } => copy.announce(name, None, Some(kind)),
            Line::Sample(sample) => copy.copy(&sample, &[("host", ODD), ("source", "proxy")]),
        }
    }
    let copy = copy.into_string();
    let of = |text: &str| strict::families(text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    let count = |text: &str| {
        of(text)
            .values()
            .map(|family| family.samples.len())
            .sum::<usize>()
    };
    assert_eq!(count(&copy), count(&text));
}

#[test]
fn a_fault_is_found() {
    let about = "# HELP up Is up.\n# TYPE up gauge\n";
    assert!(strict::families(&format!("{about}up 1\n")).is_ok());
    for (samples, fault) in [
        ("up 1", "no end"),
        ("down 1\n", "of another family"),
        ("up 1\nup 2\n", "written twice"),
        ("up{a=\"b\"} 1\nup 2\n", "different labels"),
        ("up{a=\"b\",a=\"c\"} 1\n", "malformed"),
        ("up{a:b=\"b\"} 1\n", "malformed"),
        ("up{a=\"\\t\"} 1\n", "malformed"),
        ("up inf\n", "malformed"),
        ("up 1\n\n", "malformed"),
        ("# TYPE up gauge\n", "wrong type"),
        ("# HELP up Is up.\n", "announced twice"),
        ("# HELP other Other.\nother 1\n", "of another family"),
        ("# HELP other Other.\n", "no type"),
        (
            "# HELP sum Sum.\n# TYPE sum counter\nsum -1\n",
            "below zero",
        ),
    ] {
        let found = strict::families(&format!("{about}{samples}")).unwrap_err();
        assert!(found.contains(fault), "{samples}: {found}");
    }
    let about = "# HELP took Time.\n# TYPE took histogram\n";
    let bucket = |bound: &str, count: u32| format!("took_bucket{{le=\"{bound}\"}} {count}\n");
    let end = "took_sum 1\ntook_count 2\n";
    let good = [&bucket("1", 1), &bucket("+Inf", 2), end].concat();
    assert!(strict::families(&format!("{about}{good}")).is_ok());
    for samples in [
        [&bucket("1", 2), &bucket("+Inf", 1), end].concat(),
        [&bucket("1", 2), end].concat(),
        [&bucket("+Inf", 3), end].concat(),
        format!("{}took_count 2\n", bucket("+Inf", 2)),
        format!("{}took 2\n", bucket("+Inf", 2)),
    ] {
        assert!(
            strict::families(&format!("{about}{samples}")).is_err(),
            "{samples}"
        );
    }
}
