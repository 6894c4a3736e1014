//! What decoding one head of HTTP/1.1 costs: a request as browsers send it, and a small response.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gaiola_model::http::{Method, RequestHead, ResponseHead};
use gaiola_wire::http1::{Limits, Progress, parse_request, parse_response};

const LIMITS: Limits = Limits {
    head: 15 * 1024,
    target: 8 * 1024,
    fields: 100,
};

const REQUEST: &[u8] = b"GET /articles/2026/balancers?page=2&sort=date HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.com/articles\r\n\
    Cookie: session=0f3a9c1d7be24c55a1; theme=dark\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Mon, 30 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 5120\r\n\
    Cache-Control: max-age=60\r\n\
    ETag: \"5e1f\"\r\n\r\n";

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |bencher| {
        let mut head = RequestHead::default();
        bencher.iter(|| {
            let parsed = parse_request(REQUEST, &mut head, &LIMITS);
            assert_eq!(parsed, Ok(Progress::Done));
        });
    });
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |bencher| {
        let mut head = ResponseHead::default();
        bencher.iter(|| {
            let parsed = parse_response(RESPONSE, Method::Get, &mut head, &LIMITS);
            assert_eq!(parsed, Ok(Progress::Done));
        });
    });
}

criterion_group!(benches, decode);
criterion_main!(benches);
