//! A request's head: no panic, the same result for any fragmentation, and the forwarded head is parsed to the same values.

#![no_main]

use gaiola_core::forward::{self, Hop, Outgoing};
use gaiola_fuzz::{assert_stands, split};
use gaiola_model::http::RequestHead;
use gaiola_wire::http1::{BadRequest, Limits, Progress, parse_request};
use libfuzzer_sys::fuzz_target;

type Read = Result<Option<RequestHead>, BadRequest>;

fn parse(bytes: &[u8], limits: &Limits) -> Read {
    let mut head = RequestHead::default();
    let progress = parse_request(bytes, &mut head, limits)?;
    Ok((progress == Progress::Done).then_some(head))
}

fuzz_target!(|data: &[u8]| {
    let Some((beginning, bytes)) = split(data) else {
        return;
    };
    let limits = Limits {
        head: 2000,
        target: 500,
        fields: 20,
    };
    let read = parse(bytes, &limits);
    assert_stands(parse(beginning, &limits), &read, &Ok(None));
    let Ok(Some(head)) = read else { return };
    for trusted in [false, true] {
        sent_on_is_read_alike(&head, bytes, trusted, false);
        sent_on_is_read_alike(&head, bytes, trusted, true);
    }
});

fn sent_on_is_read_alike(head: &RequestHead, bytes: &[u8], trusted: bool, by_rules: bool) {
    let removed = [b"x-a".as_slice().into(), b"cookie".as_slice().into()];
    let rules = Hop {
        client: [192, 0, 2, 7].into(),
        trusted,
        tls: false,
        server: "lb1",
        request_id: b"id",
        default_host: "10.77.3.1",
        hidden_cookie: Some("a"),
        path: b"/rewritten",
        host: b"inner",
        edit: forward::Edit {
            removed: &removed,
            added: b"X-A: 1\r\n",
        },
    };
    let hop = match by_rules {
        true => rules,
        false => Hop {
            path: b"",
            host: b"",
            edit: forward::Edit::default(),
            ..rules
        },
    };
    let mut out = Outgoing::default();
    forward::request(head, bytes, &hop, &mut out);
    let written = out.slices(bytes).collect::<Vec<_>>().concat();
    let again = parse(&written, &Limits::default()).expect("what we write is well formed");
    let again = again.expect("what we write is whole");
    assert_eq!(again.len, written.len());
    assert_eq!((again.method, again.framing), (head.method, head.framing));
    assert_eq!(again.upgrade, head.upgrade);
    assert_eq!(again.expects_continue, head.expects_continue);
    match (by_rules, head.host, again.host) {
        (true, _, sent) => assert_eq!(sent.map(|sent| sent.of(&written)), Some(&b"inner"[..])),
        (false, Some(host), Some(sent)) => assert_eq!(host.of(bytes), sent.of(&written)),
        (false, ..) => {}
    }
}
