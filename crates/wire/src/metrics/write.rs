//! The one writer of Prometheus text.

use super::{BOUND, Sample};
use gaiola_model::metric::{About, Family, Kind};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Metrics of one process, family by family.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    families: BTreeSet<&'static str>,
}

/// The samples of one family. A series is written once: a further sample with the same labels is dropped.
#[derive(Debug)]
pub struct Samples<'a, const LABELS: usize> {
    out: &'a mut String,
    about: &'static About,
    series: BTreeSet<String>,
}

/// What a histogram has counted for one series.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    /// Upper bounds of the buckets, ascending and finite.
    pub bounds: &'a [f64],
    /// Observations in each bucket by itself; the last one is of those above all bounds.
    pub counts: &'a [u64],
    /// The sum of what was observed.
    pub sum: f64,
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Written without loss.
    Whole(u64),
    /// Written so that it is read as the same number.
    Real(f64),
}

impl Text {
    /// Begins a family: its meaning and type, once.
    ///
    /// # Panics
    /// If the family was written before.
    pub fn family<const LABELS: usize>(
        &mut self,
        family: &'static Family<LABELS>,
    ) -> Samples<'_, LABELS> {
        let about = family.about();
        let is_new = self.families.insert(about.name);
        assert!(is_new, "{} is written once more", about.name);
        self.announce(
            about.name,
            Some(&escaped_help(about.help)),
            Some(about.kind.name()),
        );
        Samples {
            out: &mut self.out,
            about,
            series: BTreeSet::new(),
        }
    }

    /// A family without labels, with its only sample.
    pub fn value(&mut self, family: &'static Family<0>, value: impl Into<Number>) {
        self.family(family).sample([], value);
    }

    /// A family without labels, with its only sample if the value is known.
    pub fn value_if_known(&mut self, family: &'static Family<0>, value: Option<impl Into<Number>>) {
        let mut samples = self.family(family);
        if let Some(value) = value {
            samples.sample([], value);
        }
    }

    /// Begins a family that another process has written: its meaning, escaped as it came, and its type.
    pub fn announce(&mut self, name: &str, help: Option<&str>, kind: Option<&str>) {
        for (word, text) in [("HELP", help), ("TYPE", kind)] {
            if let Some(text) = text {
                writeln!(self.out, "# {word} {name} {text}").expect("writing to memory");
            }
        }
    }

    /// Writes another process's sample with these labels before its own.
    pub fn copy(&mut self, sample: &Sample<'_>, labels: &[(&str, &str)]) {
        self.out.push_str(sample.name);
        self.out.push('{');
        for (label, value) in labels {
            write_label(&mut self.out, label, value);
        }
        if !labels.is_empty() && !sample.labels.is_empty() {
            self.out.push(',');
        }
        writeln!(self.out, "{}}} {}", sample.labels, sample.value).expect("writing to memory");
    }

    /// The whole text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.out
    }
}

impl<const LABELS: usize> Samples<'_, LABELS> {
    /// One sample with the values of the family's labels, in the family's order.
    ///
    /// # Panics
    /// If the family is a histogram.
    pub fn sample(&mut self, labels: [&str; LABELS], value: impl Into<Number>) {
        let About { name, kind, .. } = self.about;
        assert!(*kind != Kind::Histogram, "{name} is a histogram");
        if let Some(labels) = self.new_series(labels) {
            write_sample(self.out, name, "", &labels, value);
        }
    }

    /// One series of a histogram: its buckets, sum and count.
    ///
    /// # Panics
    /// If the family is none.
    pub fn histogram(&mut self, labels: [&str; LABELS], observed: &Histogram<'_>) {
        let About { name, kind, .. } = self.about;
        assert!(*kind == Kind::Histogram, "{name} is a {kind}");
        let Some(labels) = self.new_series(labels) else {
            return;
        };
        let mut so_far = 0;
        let bounds = observed.bounds.iter().copied().map(Number::Real);
        let bounds = bounds.chain([Number::Real(f64::INFINITY)]);
        for (bound, count) in bounds.zip(observed.counts) {
            so_far += count;
            let mut labels = labels.clone();
            write_label(&mut labels, BOUND, &bound.to_string());
            write_sample(self.out, name, "_bucket", &labels, so_far);
        }
        write_sample(self.out, name, "_sum", &labels, observed.sum);
        write_sample(self.out, name, "_count", &labels, so_far);
    }

    /// The labels as they are written; `None` for a series that is written already.
    fn new_series(&mut self, values: [&str; LABELS]) -> Option<String> {
        let mut labels = String::new();
        for (label, value) in self.about.labels.iter().zip(values) {
            write_label(&mut labels, label, value);
        }
        self.series.insert(labels.clone()).then_some(labels)
    }
}

fn write_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &str,
    value: impl Into<Number>,
) {
    let (open, close) = if labels.is_empty() {
        ("", "")
    } else {
        ("{", "}")
    };
    let value = value.into();
    writeln!(out, "{name}{suffix}{open}{labels}{close} {value}").expect("writing to memory");
}

fn write_label(out: &mut String, label: &str, value: &str) {
    if !out.is_empty() && !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(label);
    out.push_str("=\"");
    for letter in value.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\\' | '"' => out.extend(['\\', letter]),
            letter => out.push(letter),
        }
    }
    out.push('"');
}

fn escaped_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) if number.is_infinite() => {
                f.write_str(if *number > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number.try_into().unwrap_or(u64::MAX))
    }
}

impl From<bool> for Number {
    fn from(truth: bool) -> Self {
        Self::Whole(truth.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::metric;

    /// What follows the two lines about a family.
    fn samples(text: Text) -> String {
        let text = text.into_string();
        text.lines()
            .skip(2)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = Text::default();
        text.family(&metric::QUEUE_DEPTH)
            .sample(["a\"b\\c\nd"], 1_u64);
        assert_eq!(
            samples(text),
            "gaiola_queue_depth{backend=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }

    #[test]
    fn buckets_are_cumulated() {
        let mut text = Text::default();
        let observed = Histogram {
            bounds: &[0.0005, 1.0],
            counts: &[2, 0, 3],
            sum: 100.5,
        };
        let mut family = text.family(&metric::HTTP_REQUEST_DURATION);
        family.histogram(["f", "b", "s"], &observed);
        let labels = "frontend=\"f\",backend=\"b\",server=\"s\"";
        let wanted = [
            format!("_bucket{{{labels},le=\"0.0005\"}} 2"),
            format!("_bucket{{{labels},le=\"1\"}} 2"),
            format!("_bucket{{{labels},le=\"+Inf\"}} 5"),
            format!("_sum{{{labels}}} 100.5"),
            format!("_count{{{labels}}} 5"),
        ];
        let name = metric::HTTP_REQUEST_DURATION.name();
        assert_eq!(
            samples(text),
            wanted.map(|line| format!("{name}{line}\n")).concat()
        );
    }

    #[test]
    fn a_series_is_written_once() {
        let mut text = Text::default();
        let mut family = text.family(&metric::CONNECTIONS);
        family.sample(["a"], 1_u64);
        family.sample(["a"], 2_u64);
        assert_eq!(samples(text), "gaiola_connections{frontend=\"a\"} 1\n");
    }

    #[test]
    #[should_panic(expected = "gaiola_uptime_seconds is written once more")]
    fn a_family_is_written_once() {
        let mut text = Text::default();
        text.value(&metric::UPTIME, 1_u64);
        text.value(&metric::UPTIME, 2_u64);
    }

    #[test]
    fn numbers_are_those_of_the_format() {
        let written = [
            Number::from(u64::MAX),
            Number::from(true),
            Number::from(0.25),
            Number::from(f64::INFINITY),
            Number::from(f64::NEG_INFINITY),
            Number::from(f64::NAN),
        ];
        let wanted = ["18446744073709551615", "1", "0.25", "+Inf", "-Inf", "NaN"];
        assert_eq!(written.map(|number| number.to_string()), wanted);
    }
}
