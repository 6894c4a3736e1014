//! The one reader of Prometheus text, line by line.

use super::BOUND;
use gaiola_model::metric::Family;
use std::borrow::Cow;
use std::str::FromStr;

/// One line that means something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Line<'a> {
    /// The meaning of a family.
    Help {
        /// The family's name.
        name: &'a str,
        /// The text, escaped as it came.
        text: &'a str,
    },
    /// The type of a family.
    Type {
        /// The family's name.
        name: &'a str,
        /// `counter`, `gauge`, or another word.
        kind: &'a str,
    },
    /// A sample of the family that was announced last, or of one that was not.
    Sample(Sample<'a>),
}

/// One series and its value. What is read is well formed; its time, if it had one, is passed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Name of the family, in a histogram with `_bucket`, `_sum` or `_count` behind it.
    pub name: &'a str,
    /// What is between the braces, escaped as it came.
    pub(super) labels: &'a str,
    /// The value, a number.
    pub(super) value: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` for other comments, empty lines and what is malformed.
    #[must_use]
    pub fn read(line: &'a str) -> Option<Self> {
        let Some(about) = line.strip_prefix("# ") else {
            return Sample::read(line).map(Self::Sample);
        };
        let (word, rest) = about.split_once(' ')?;
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            _ if !is_name(name) => None,
            "HELP" => Some(Self::Help { name, text }),
            "TYPE" => Some(Self::Type { name, kind: text }),
            _ => None,
        }
    }

    /// The sample, if the line is one.
    #[must_use]
    pub fn sample(self) -> Option<Sample<'a>> {
        match self {
            Self::Sample(sample) => Some(sample),
            Self::Help { .. } | Self::Type { .. } => None,
        }
    }
}

impl<'a> Sample<'a> {
    /// `name value` or `name{labels} value`.
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' ', '\t'])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = labels_end(inside)?;
                (&inside[..end], &inside[end + 1..])
            }
            None => ("", rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().filter(|value| value.parse::<f64>().is_ok())?;
        let is_time = |word: &str| word.parse::<i64>().is_ok();
        let is_well_formed =
            is_name(name) && words.next().is_none_or(is_time) && words.next().is_none();
        let labels = labels.strip_suffix(',').unwrap_or(labels);
        is_well_formed.then_some(Self {
            name,
            labels,
            value,
        })
    }

    /// The labels' values in the family's order, if this is a sample of that family.
    #[must_use]
    pub fn of<const LABELS: usize>(
        &self,
        family: &Family<LABELS>,
    ) -> Option<[Cow<'a, str>; LABELS]> {
        (self.name == family.name()).then(|| self.values(family))?
    }

    /// The labels' values and the bucket's upper bound, if this is a bucket of that family.
    #[must_use]
    pub fn bucket_of<const LABELS: usize>(
        &self,
        family: &Family<LABELS>,
    ) -> Option<([Cow<'a, str>; LABELS], f64)> {
        (self.name.strip_suffix("_bucket")? == family.name()).then_some(())?;
        Some((self.values(family)?, self.label(BOUND)?.parse().ok()?))
    }

    /// The value, if it is such a number.
    #[must_use]
    pub fn value<T: FromStr>(&self) -> Option<T> {
        self.value.parse().ok()
    }

    fn values<const LABELS: usize>(
        &self,
        family: &Family<LABELS>,
    ) -> Option<[Cow<'a, str>; LABELS]> {
        let mut values = family.labels().map(Cow::Borrowed);
        for value in &mut values {
            *value = self.label(value)?;
        }
        Some(values)
    }

    fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        while let Some((label, after)) = next_label(rest) {
            if label.name == name {
                return Some(unescaped(label.value));
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        None
    }
}

/// A label, its value escaped as it came.
struct Label<'a> {
    name: &'a str,
    value: &'a str,
}

/// The first label of `name="value",...`, and what follows its closing quote.
fn next_label(text: &str) -> Option<(Label<'_>, &str)> {
    let (name, quoted) = text.split_once("=\"")?;
    let mut is_escaped = false;
    let end = quoted.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    let value = &quoted[..end];
    is_name(name).then_some((Label { name, value }, &quoted[end + 1..]))
}

/// Where the closing brace of well-formed labels is.
fn labels_end(text: &str) -> Option<usize> {
    let mut rest = text;
    while !rest.starts_with('}') {
        let (_, after) = next_label(rest)?;
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
    Some(text.len() - rest.len())
}

fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let (mut text, mut letters) = (String::with_capacity(value.len()), value.chars());
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => text.extend(
                letters
                    .next()
                    .map(|next| if next == 'n' { '\n' } else { next }),
            ),
            (letter, false) => text.push(letter),
        }
    }
    Cow::Owned(text)
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    name.bytes().all(is_letter) && !name.as_bytes().first().is_none_or(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::super::{Histogram, Text};
    use super::*;
    use gaiola_model::metric;
    use proptest::prelude::*;

    fn sample(line: &str) -> Option<Sample<'_>> {
        Line::read(line)?.sample()
    }

    #[test]
    fn what_is_about_a_family_is_read() {
        let help = Line::Help {
            name: "up",
            text: "Is up.",
        };
        assert_eq!(Line::read("# HELP up Is up."), Some(help));
        let kind = Line::Type {
            name: "up",
            kind: "gauge",
        };
        assert_eq!(Line::read("# TYPE up gauge"), Some(kind));
        for other in ["# EOF", "# up", "#", "", "# HELP 1up Is up."] {
            assert_eq!(Line::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_malformed_sample_is_none() {
        for line in [
            "<html>",
            "up",
            "up one",
            "up 1 2 3",
            "1up 1",
            "up{ 1",
            "up{a} 1",
            "up{a=\"b} 1",
            "up{a=\"b\"c=\"d\"} 1",
            "up{a=\"b\\\"} 1",
        ] {
            assert_eq!(sample(line), None, "{line}");
        }
    }

    #[test]
    fn a_value_may_have_braces_commas_and_a_time_behind_it() {
        let line = "gaiola_queue_depth{backend=\"a} b,c=\\\"\\\\\",} 7 1700000000000";
        let sample = sample(line).unwrap();
        assert_eq!(sample.of(&metric::QUEUE_DEPTH).unwrap(), ["a} b,c=\"\\"]);
        assert_eq!(sample.value::<u64>(), Some(7));
    }

    #[test]
    fn labels_may_come_in_any_order_but_all_must_be_there() {
        let other_order =
            sample("gaiola_server_up{server=\"s\",host=\"lb1\",backend=\"b\"} 1").unwrap();
        assert_eq!(other_order.of(&metric::SERVER_UP).unwrap(), ["b", "s"]);
        assert_eq!(other_order.of(&metric::SERVER_IN_FLIGHT), None);
        let one = sample("gaiola_server_up{server=\"s\"} 1").unwrap();
        assert_eq!(one.of(&metric::SERVER_UP), None);
    }

    #[test]
    fn a_bucket_has_its_bound() {
        let mut text = Text::default();
        let observed = Histogram {
            bounds: &[0.5],
            counts: &[1, 2],
            sum: 9.0,
        };
        let mut family = text.family(&metric::HTTP_REQUEST_DURATION);
        family.histogram(["f", "b", "s"], &observed);
        let text = text.into_string();
        let samples = text.lines().filter_map(sample);
        let buckets = samples.filter_map(|sample| {
            let (labels, bound) = sample.bucket_of(&metric::HTTP_REQUEST_DURATION)?;
            Some((labels.concat(), bound, sample.value::<u64>()?))
        });
        let wanted = [("fbs".into(), 0.5, 1), ("fbs".into(), f64::INFINITY, 3)];
        assert_eq!(buckets.collect::<Vec<_>>(), wanted);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(backend in ".*", server in "(?s).*", number: u64) {
            let mut text = Text::default();
            text.family(&metric::SERVER_IN_FLIGHT).sample([&backend, &server], number);
            let text = text.into_string();
            // The format knows line feeds only.
            let sample = text.split('\n').nth(2).and_then(sample).unwrap();
            let labels = sample.of(&metric::SERVER_IN_FLIGHT).unwrap();
            prop_assert_eq!(labels.map(Cow::into_owned), [backend, server]);
            prop_assert_eq!(sample.value::<u64>(), Some(number));
        }

        #[test]
        fn no_line_causes_a_panic(line in "(?s).*", labels in "[a\"\\\\,={} ]*") {
            for line in [line, format!("up{{{labels}}} 1"), format!("up{{a=\"{labels}\"}} 1")] {
                if let Some(sample) = sample(&line) {
                    let _ = (sample.of(&metric::SERVER_UP), sample.label("a"));
                }
            }
        }
    }
}
