//! What one exchange costs besides the system calls: a request on a kept connection within memory, its server's
//! response on a pooled one, and the line of the access log.

use criterion::{Criterion, criterion_group, criterion_main};
use gaiola_proxy::bench::Bench;

fn exchange(criterion: &mut Criterion) {
    let bench = Bench::new();
    criterion.bench_function("exchange", |bencher| bencher.iter(|| bench.exchange()));
}

criterion_group!(benches, exchange);
criterion_main!(benches);
