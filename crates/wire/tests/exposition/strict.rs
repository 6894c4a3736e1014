//! A strict parser of Prometheus text (exposition format 0.0.4), independent of Gaiola's reader: it rejects what Prometheus
//! would, what promtool warns of, and samples of a family that nobody announced.

use std::collections::{BTreeMap, BTreeSet};

/// A family as it was announced, with its samples.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// The text after HELP.
    pub(crate) help: String,
    /// Values by name and labels; labels by name.
    pub(crate) samples: BTreeMap<(String, Labels), f64>,
}

/// Values of labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// The families of a text, or its first fault.
pub(crate) fn families(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    let body = text.strip_suffix('\n').ok_or("the last line has no end")?;
    for line in body.split('\n') {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or(fault("no meaning"))?;
            is_name(name, true).then_some(()).ok_or(fault("no name"))?;
            unescaped(help, "\\n").ok_or(fault("wrong escape"))?;
            let family = Family {
                help: help.into(),
                ..Family::default()
            };
            let known = families.insert(name.into(), family);
            known
                .is_none()
                .then_some(())
                .ok_or(fault("announced twice"))?;
            current = name.into();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or(fault("no type"))?;
            let family = families.get_mut(name).filter(|_| name == current);
            let family = family.ok_or(fault("not directly after its HELP"))?;
            let is_first = family.kind.is_empty() && family.samples.is_empty();
            let is_known = ["counter", "gauge", "histogram"].contains(&kind);
            (is_first && is_known)
                .then_some(())
                .ok_or(fault("wrong type"))?;
            family.kind = kind.into();
        } else {
            let family = families.get_mut(&current).ok_or(fault("of no family"))?;
            let (name, labels, value) = sample(line).ok_or(fault("malformed"))?;
            is_of(family, &current, &name, &labels)
                .then_some(())
                .ok_or(fault("of another family"))?;
            let is_valid = family.kind == "gauge" || value >= 0.0;
            is_valid.then_some(()).ok_or(fault("a count below zero"))?;
            let known = family.samples.insert((name, labels), value);
            known
                .is_none()
                .then_some(())
                .ok_or(fault("written twice"))?;
        }
    }
    for (name, family) in &families {
        whole(name, family).map_err(|fault| format!("{name}: {fault}"))?;
    }
    Ok(families)
}

/// Whether a sample of this name belongs to the family that was announced last.
fn is_of(family: &Family, announced: &str, name: &str, labels: &Labels) -> bool {
    if family.kind != "histogram" {
        return !family.kind.is_empty() && name == announced;
    }
    match name.strip_prefix(announced) {
        Some("_bucket") => labels.contains_key("le"),
        Some("_sum" | "_count") => !labels.contains_key("le"),
        _ => false,
    }
}

/// What can only be seen once all samples are read: the same labels everywhere, and histograms that add up.
fn whole(name: &str, family: &Family) -> Result<(), String> {
    if family.kind.is_empty() {
        return Err("it has no type".into());
    }
    let names = family.samples.keys().map(|(_, labels)| {
        let names = labels.keys().filter(|name| *name != "le");
        names.cloned().collect::<Vec<_>>()
    });
    if names.collect::<BTreeSet<_>>().len() > 1 {
        return Err("its samples have different labels".into());
    }
    if family.kind != "histogram" {
        return Ok(());
    }
    let mut series = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
    for ((sample, labels), value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let buckets = series.entry(labels).or_default();
        if *sample == format!("{name}_bucket") {
            let bound = bound
                .as_deref()
                .and_then(number)
                .ok_or("a bound that is no number")?;
            buckets.push((bound, *value));
        }
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let grows = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let count = family
            .samples
            .get(&(format!("{name}_count"), labels.clone()));
        let sum = family.samples.get(&(format!("{name}_sum"), labels));
        let last = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY);
        if !grows || sum.is_none() || last.map(|(_, count)| count) != count {
            return Err(format!("its buckets do not add up: {buckets:?}"));
        }
    }
    Ok(())
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"")?;
            let end = closing_quote(quoted)?;
            let value = unescaped(&quoted[..end], "\\n\"")?;
            let is_new = labels.insert(label.into(), value).is_none();
            (is_name(label, false) && is_new).then_some(())?;
            rest = &quoted[end + 1..];
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = rest.strip_prefix(',')?;
        }
    }
    let value = number(rest.strip_prefix(' ')?)?;
    is_name(name, true).then(|| (name.into(), labels, value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '"' => return Some(index),
            '\\' => _ = letters.next(),
            _ => {}
        }
    }
    None
}

/// The text with these escapes alone replaced.
fn unescaped(text: &str, escapes: &str) -> Option<String> {
    let (mut plain, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next().filter(|next| escapes.contains(*next))? {
                'n' => '\n',
                other => other,
            },
            letter => letter,
        });
    }
    Some(plain)
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text if text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e')) =>
        {
            text.parse().ok()
        }
        _ => None,
    }
}

fn is_name(name: &str, may_have_colons: bool) -> bool {
    let is_letter = |letter: char| {
        letter.is_ascii_alphanumeric() || letter == '_' || (letter == ':' && may_have_colons)
    };
    !name.is_empty()
        && name.chars().all(is_letter)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
