//! A response's head: no panic, the same result for any fragmentation, and the forwarded head is parsed to the same values.

#![no_main]

use gaiola_core::compression;
use gaiola_core::encoding::Accepted;
use gaiola_core::forward::{self, Outgoing, ResponseContext};
use gaiola_fuzz::{assert_stands, split};
use gaiola_model::content::Compression;
use gaiola_model::http::{Framing, Method, ResponseHead, Version};
use gaiola_wire::http1::{BadResponse, Limits, Progress, parse_response};
use libfuzzer_sys::fuzz_target;

type Read = Result<Option<ResponseHead>, BadResponse>;

fn parse(bytes: &[u8], asked: Method) -> Read {
    parse_within(bytes, asked, &Limits::default())
}

fn parse_within(bytes: &[u8], asked: Method, limits: &Limits) -> Read {
    let mut head = ResponseHead::default();
    let progress = parse_response(bytes, asked, &mut head, limits)?;
    Ok((progress == Progress::Done).then_some(head))
}

fuzz_target!(|data: &[u8]| {
    let Some((beginning, bytes)) = split(data) else {
        return;
    };
    for asked in [Method::Get, Method::Head] {
        let read = parse(bytes, asked);
        assert_stands(parse(beginning, asked), &read, &Ok(None));
        let Ok(Some(head)) = read else { continue };
        for client in [Version::Http10, Version::Http11] {
            for accept in ["", "gzip"] {
                let accepted = Accepted::of([accept].into_iter());
                let reader = compression::Client {
                    method: asked,
                    version: client,
                    accepted,
                };
                sent_on_is_read_alike(&head, bytes, reader);
            }
        }
    }
});

fn sent_on_is_read_alike(head: &ResponseHead, bytes: &[u8], reader: compression::Client) {
    let compressed = compression::decide(&Compression::default(), reader, head, bytes);
    let answer = ResponseContext {
        client: reader.version,
        keep_alive: true,
        server: "lb1",
        edit: forward::Edit::default(),
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        lines: b"Set-Cookie: a=b\r\n",
        own_request_id: false,
        own_cookie: Some("a"),
        compressed,
    };
    let mut out = Outgoing::default();
    let sent = forward::response(head, bytes, &answer, &mut out);
    let written = out.slices(bytes).collect::<Vec<_>>().concat();
    // The proxy has added some fields.
    let limits = Limits::default();
    let limits = Limits {
        head: limits.head + 1024,
        fields: limits.fields + 10,
        ..limits
    };
    let again =
        parse_within(&written, reader.method, &limits).expect("what we write is well formed");
    let again = again.expect("what we write is whole");
    let framing = match compressed.coding {
        Some(_) => Framing::Chunked,
        None if sent.unchunk => Framing::UntilClose,
        None => head.framing,
    };
    assert_eq!((again.status, again.framing), (head.status, framing));
    assert_eq!(again.len, written.len());
    if head.status >= 200 && head.status != 426 {
        assert_eq!(again.keep_alive, sent.keep_alive);
    }
}
