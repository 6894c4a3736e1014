//! A line of a process's metrics: no panic, and a copied line is parsed to the same values.

#![no_main]

use gaiola_model::metric;
use gaiola_wire::metrics::{Line, Text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    let Some(Line::Sample(sample)) = Line::read(line) else {
        return;
    };
    let mut copy = Text::default();
    copy.copy(&sample, &[("host", "lb1")]);
    let copy = copy.into_string();
    let again = Line::read(copy.trim_end_matches('\n')).and_then(Line::sample);
    let again = again.expect("a copy is a sample");
    assert_eq!(
        again.of(&metric::SERVER_STATE),
        sample.of(&metric::SERVER_STATE)
    );
    let bucket = |of: &gaiola_wire::metrics::Sample<'_>| {
        let (labels, bound) = of.bucket_of(&metric::HTTP_REQUEST_DURATION)?;
        Some((labels.map(String::from), bound.to_bits()))
    };
    assert_eq!(bucket(&again), bucket(&sample));
});
