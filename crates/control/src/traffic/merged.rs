//! The metrics of many processes as one Prometheus text: each family once, each sample with the labels of its process.
//!
//! The labels that are added are `host` (the server: `lb1`) and `source` (the process: `proxy` or `agent`); `server`, which
//! proxies use, stays the member of a backend that a request was sent to.
//!
//! A process may be older or newer than this one: families that are not in [`metric`] are forwarded too.

use gaiola_model::metric;
use gaiola_wire::metrics::{Line, Sample, Text};
use std::collections::BTreeMap;

/// One process's metrics.
pub(super) struct Part<'a> {
    /// The server it runs on.
    pub(super) host: String,
    /// Which process it is.
    pub(super) source: &'static str,
    /// Its metrics; `None`: it did not answer.
    pub(super) text: Option<&'a str>,
}

/// A family as the first process announced it, with the samples of all.
#[derive(Default)]
struct Merged<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: Vec<(&'a Part<'a>, Sample<'a>)>,
}

/// All parts as one text; `gaiola_scrape_up` lists which of them are in it.
pub(super) fn merge(parts: &[Part<'_>]) -> String {
    let mut families = BTreeMap::new();
    for part in parts {
        add(&mut families, part);
    }
    let mut out = Text::default();
    let mut up = out.family(&metric::SCRAPE_UP);
    for Part { host, source, text } in parts {
        up.sample([host, source], text.is_some());
    }
    for (
        name,
        Merged {
            help,
            kind,
            samples,
        },
    ) in families
    {
        out.announce(name, help, kind);
        for (Part { host, source, .. }, sample) in samples {
            out.copy(&sample, &[("host", host), ("source", source)]);
        }
    }
    out.into_string()
}

fn add<'a>(families: &mut BTreeMap<&'a str, Merged<'a>>, part: &'a Part<'a>) {
    // Samples of a histogram have longer names than their family: they belong to the one that was announced last.
    let mut current = "";
    let lines = part.text.unwrap_or_default().lines();
    for line in lines.filter_map(Line::read) {
        match line {
            Line::Help { name, text } => {
                families.entry(name).or_default().help.get_or_insert(text);
                current = name;
            }
            Line::Type { name, kind } => {
                families.entry(name).or_default().kind.get_or_insert(kind);
                current = name;
            }
            Line::Sample(sample) => {
                let is_announced = !current.is_empty() && sample.name.starts_with(current);
                let family = if is_announced { current } else { sample.name };
                let family = families.entry(family).or_default();
                family.samples.push((part, sample));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_announced_once_and_samples_have_the_labels_of_their_process() {
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
        let wanted = r#"# HELP gaiola_scrape_up Whether a process answered when its metrics were last polled.
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
