//! The text at `/metrics` as a whole; what single families count is tested beside what they are about.

use crate::exposition;
use crate::harness::{Client, Origin, Proxy, config, free_address};
use gaiola_model::metric::{About, PROCESS, PROXY};
use std::collections::BTreeSet;

#[test]
fn the_families_are_those_of_the_table() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/").status, 200);
    proxy.log_lines(1);
    let metrics = proxy.admin("/metrics");
    assert_eq!(
        metrics.field("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = metrics.text();
    let families = exposition::families(text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    let mut unwritten = BTreeSet::new();
    for About {
        name,
        kind,
        help,
        labels,
        ..
    } in [PROXY, PROCESS].into_iter().flatten()
    {
        let family = families.get(*name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(
            (&*family.kind, &*family.help),
            (kind.name(), *help),
            "{name}"
        );
        let wanted: BTreeSet<_> = labels.iter().map(|label| label.to_string()).collect();
        for (_, labels) in family.samples.keys() {
            let given = labels.keys().filter(|label| *label != "le").cloned();
            assert_eq!(given.collect::<BTreeSet<_>>(), wanted, "{name}");
        }
        if family.samples.is_empty() {
            unwritten.insert(*name);
        }
    }
    assert_eq!(families.len(), PROXY.len() + PROCESS.len());
    // There was no TCP session and no TLS.
    let none = ["gaiola_tcp_sessions_total", "gaiola_tls_handshakes_total"];
    assert!(
        unwritten.is_subset(&none.into()),
        "no samples of {unwritten:?}"
    );
}
