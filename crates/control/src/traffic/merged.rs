//! Many processes' metrics as one Prometheus text: families once, and each sample with the name of whose it is.
//!
//! The labels that are added are `host` (the server: `lb1`) and `source` (the process that told: `proxy` or `agent`);
//! `server`, which proxies use, stays the member of a backend that a request was sent to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One process's metrics.
pub(super) struct Part<'a> {
    /// The server it runs on.
    pub(super) host: String,
    /// Which process it is.
    pub(super) source: &'static str,
    /// What it told; `None`: it did not answer.
    pub(super) text: Option<&'a str>,
}

#[derive(Default)]
struct Family<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: String,
}

/// All parts as one text; `gaiola_scrape_up` tells which of them are in it.
pub(super) fn merge(parts: &[Part<'_>]) -> String {
    let mut families = BTreeMap::<&str, Family<'_>>::new();
    for part in parts {
        add(&mut families, part);
    }
    let mut out = String::from(
        "# HELP gaiola_scrape_up Whether a process told its metrics when it was last asked.\n# TYPE gaiola_scrape_up gauge\n",
    );
    for Part { host, source, text } in parts {
        let _ = writeln!(
            out,
            "gaiola_scrape_up{{host=\"{host}\",source=\"{source}\"}} {}",
            u8::from(text.is_some())
        );
    }
    for (
        name,
        Family {
            help,
            kind,
            samples,
        },
    ) in families
    {
        for (word, text) in [("HELP", help), ("TYPE", kind)] {
            if let Some(text) = text {
                let _ = writeln!(out, "# {word} {name} {text}");
            }
        }
        out.push_str(&samples);
    }
    out
}

fn add<'a>(families: &mut BTreeMap<&'a str, Family<'a>>, part: &Part<'a>) {
    // Samples of a histogram are not called as their family is: they belong to the last one that was announced.
    let mut current = "";
    for line in part.text.unwrap_or_default().lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let Some((word, (name, text))) = about
                .split_once(' ')
                .and_then(|(word, rest)| Some((word, rest.split_once(' ')?)))
            else {
                continue;
            };
            let family = families.entry(name).or_default();
            match word {
                "HELP" => family.help = family.help.or(Some(text)),
                "TYPE" => family.kind = family.kind.or(Some(text)),
                _ => continue,
            }
            current = name;
        } else if let Some(sample) = Sample::of(line) {
            let family = if sample.name.starts_with(current) && !current.is_empty() {
                current
            } else {
                sample.name
            };
            sample.write(part, &mut families.entry(family).or_default().samples);
        }
    }
}

struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: &'a str,
}

impl<'a> Sample<'a> {
    /// `name value` or `name{labels} value`; anything else is none.
    fn of(line: &'a str) -> Option<Self> {
        let (name, labels, value) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, value) = rest.rsplit_once("} ")?;
                (name, labels, value)
            }
            None => {
                let (name, value) = line.split_once(' ')?;
                (name, "", value)
            }
        };
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':');
        (is_name && value.trim().parse::<f64>().is_ok()).then_some(Self {
            name,
            labels,
            value,
        })
    }

    fn write(&self, Part { host, source, .. }: &Part<'_>, out: &mut String) {
        let Self {
            name,
            labels,
            value,
        } = self;
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(
            out,
            "{name}{{host=\"{host}\",source=\"{source}\"{comma}{labels}}} {value}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_once_and_samples_say_whose_they_are() {
        let proxy = "# HELP up Is up.\n# TYPE up gauge\nup{server=\"a} b\"} 1\n# HELP took Time.\n# TYPE took histogram\ntook_bucket{le=\"+Inf\"} 2\ntook_sum 0.5\ntook_count 2\n";
        let agent = "# HELP up Is up.\n# TYPE up gauge\nup 1\n<html>\nup{ 1\n";
        let part = |host: &str, source, text| Part {
            host: host.into(),
            source,
            text,
        };
        let merged = merge(&[
            part("lb1", "proxy", Some(proxy)),
            part("lb1", "agent", Some(agent)),
            part("db1", "agent", None),
        ]);
        let wanted = r#"# HELP gaiola_scrape_up Whether a process told its metrics when it was last asked.
# TYPE gaiola_scrape_up gauge
gaiola_scrape_up{host="lb1",source="proxy"} 1
gaiola_scrape_up{host="lb1",source="agent"} 1
gaiola_scrape_up{host="db1",source="agent"} 0
# HELP took Time.
# TYPE took histogram
took_bucket{host="lb1",source="proxy",le="+Inf"} 2
took_sum{host="lb1",source="proxy"} 0.5
took_count{host="lb1",source="proxy"} 2
# HELP up Is up.
# TYPE up gauge
up{host="lb1",source="proxy",server="a} b"} 1
up{host="lb1",source="agent"} 1
"#;
        assert_eq!(merged, wanted);
    }
}
