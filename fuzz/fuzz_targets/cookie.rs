//! A request's Cookie field as a client sends it: no panic, and the proxy's own cookie is encoded to the same value again.

#![no_main]

use gaiola_core::sticky::Jar;
use gaiola_model::http::RequestHead;
use gaiola_model::proxy::{Backend, Secret, Server, Sticky};
use gaiola_wire::http1::{Limits, Progress, parse_request};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const NOW: u64 = 1_700_000_000;

fuzz_target!(|value: &[u8]| {
    let buffer = [b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ", value, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let Ok(Progress::Done) = parse_request(&buffer, &mut head, &Limits::default()) else {
        return;
    };
    let plain = Sticky::new("id");
    let dated = Sticky {
        max_idle: Some(Duration::from_secs(60)),
        ..plain.clone()
    };
    let signed = Sticky {
        key: Some(Secret("0123456789abcdef".into())),
        ..dated.clone()
    };
    for sticky in [plain, dated, signed] {
        let server = Server {
            cookie: Some("s".into()),
            ..Server::new("s1", ([127, 0, 0, 1], 80))
        };
        let jar = Jar::new(&Backend {
            sticky: Some(sticky),
            ..Backend::new("app", vec![server])
        });
        let jar = jar.expect("it has a cookie");
        if let Some(found) = jar.find(&head, &buffer, NOW) {
            let mut lines = Vec::new();
            jar.set(found.server, Some(found), NOW, &mut lines);
            assert_eq!(lines.is_empty(), !found.renew);
        }
    }
});
