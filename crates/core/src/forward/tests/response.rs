//! Heads of responses.

use super::*;
use crate::compression::Decision;
use gaiola_model::http::Coding;

/// The head for a client that gets the body compressed.
fn compressed(head: &str, coding: Option<Coding>) -> String {
    let answer = ResponseContext {
        client: Version::Http11,
        keep_alive: true,
        edit: Edit::default(),
        server: "lb1",
        date: b"now",
        lines: b"",
        own_cookie: None,
        own_request_id: false,
        compressed: Decision {
            coding,
            varies: true,
        },
    };
    let mut out = Outgoing::default();
    response(&response_head(head), head.as_bytes(), &answer, &mut out);
    written(head, &out)
}

#[test]
fn a_compressed_body_has_another_tag_and_no_length_that_is_known() {
    let head = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 5000\r\nAccept-Ranges: bytes\r\n\
        Repr-Digest: x\r\nContent-Type: text/css\r\nDate: then\r\n\r\n";
    assert_eq!(
        compressed(head, Some(Coding::Gzip)),
        "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nContent-Type: text/css\r\nDate: then\r\nVary: Accept-Encoding\r\n\
         Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nVia: 1.1 lb1\r\n\r\n"
    );
    let same = compressed(head, None);
    assert!(same.contains("ETag: \"a\"\r\nContent-Length: 5000\r\n"));
    assert!(same.contains("\r\nVary: Accept-Encoding\r\n"));
}

#[test]
fn vary_names_the_encoding_once() {
    let with = |vary: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nVary: {vary}\r\n\r\n");
        compressed(&head, Some(Coding::Brotli))
    };
    for vary in ["accept-encoding", "Cookie, Accept-Encoding", "*"] {
        assert_eq!(with(vary).matches("Vary").count(), 1, "{vary}");
    }
    assert_eq!(with("Cookie").matches("Vary").count(), 2);
    assert!(with("*").contains("\r\nETag: W/\"a\"\r\n"));
}

fn response_head(text: &str) -> ResponseHead {
    let status = text[9..12].parse().unwrap();
    let line_end = text.find("\r\n").unwrap();
    ResponseHead {
        version: if text.starts_with("HTTP/1.0") {
            Version::Http10
        } else {
            Version::Http11
        },
        status,
        reason: Span::new(line_end.min(13), line_end),
        fields: fields(text),
        framing: Framing::Length(0),
        keep_alive: true,
        upgrade: status == 101,
        len: text.len(),
    }
}

#[test]
fn a_status_line_without_a_reason_has_its_second_space() {
    for (text, wanted) in [
        ("HTTP/1.1 200\r\nA: b\r\n\r\n", "HTTP/1.1 200 \r\nA: b\r\n"),
        ("HTTP/1.0 200\r\nA: b\r\n\r\n", "HTTP/1.1 200 \r\nA: b\r\n"),
        ("HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200 \r\n"),
    ] {
        let (sent, _) = answer(text, &response_head(text), Version::Http11, true);
        assert_eq!(sent.split_once("Date").unwrap().0, wanted, "{text:?}");
    }
}

fn answer(text: &str, head: &ResponseHead, client: Version, keep_alive: bool) -> (String, Sent) {
    let mut out = Outgoing::default();
    let answer = ResponseContext {
        client,
        keep_alive,
        server: "lb1",
        edit: Edit::default(),
        date: b"now",
        lines: b"",
        own_cookie: None,
        own_request_id: false,
        compressed: Decision::default(),
    };
    let sent = response(head, text.as_bytes(), &answer, &mut out);
    (written(text, &out), sent)
}

#[test]
fn a_response_loses_what_concerns_the_hop_and_gains_via() {
    let text = "HTTP/1.1 200 OK\r\nConnection: keep-alive, x\r\nX: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\
        Proxy-Authenticate: x\r\nUpgrade: h2\r\nServer: s\r\n\r\n";
    let (written, sent) = answer(text, &response_head(text), Version::Http11, true);
    assert_eq!(
        written,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: s\r\nDate: now\r\nVia: 1.1 lb1\r\n\r\n"
    );
    assert_eq!(
        sent,
        Sent {
            keep_alive: true,
            unchunk: false
        }
    );
}

#[test]
fn the_sticky_cookie_is_hidden_and_replaced() {
    let hidden = Hop {
        hidden_cookie: Some("id"),
        ..HOP
    };
    let fields = "Cookie: id=1\r\nA: b\r\nCookie: c=d; id=2\r\n";
    let wanted = format!("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nCookie: c=d\r\n{ADDED}");
    assert_eq!(with(fields, &hidden), wanted);
    let text = "HTTP/1.1 200 OK\r\nSet-Cookie: id=1; Path=/\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n";
    let answer = ResponseContext {
        edit: Edit::default(),
        client: Version::Http11,
        keep_alive: true,
        server: "lb1",
        date: b"now",
        lines: b"Set-Cookie: id=2\r\n",
        own_cookie: Some("id"),
        own_request_id: false,
        compressed: Decision::default(),
    };
    let mut out = Outgoing::default();
    response(&response_head(text), text.as_bytes(), &answer, &mut out);
    let wanted = "HTTP/1.1 200 OK\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\nDate: now\r\nSet-Cookie: id=2\r\nVia: 1.1 lb1\r\n\r\n";
    assert_eq!(written(text, &out), wanted);
}

#[test]
fn the_client_learns_whether_its_connection_is_kept() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let head = response_head(text);
    let said = |client, keep_alive| answer(text, &head, client, keep_alive).0;
    assert!(said(Version::Http11, false).contains("Connection: close\r\n"));
    assert!(said(Version::Http10, true).contains("Connection: keep-alive\r\n"));
    assert!(!said(Version::Http11, true).contains("Connection"));
}

#[test]
fn a_body_without_a_length_closes_the_clients_connection() {
    let text = "HTTP/1.0 200 OK\r\nA: b\r\n\r\n";
    let head = ResponseHead {
        framing: Framing::UntilClose,
        ..response_head(text)
    };
    let (written, sent) = answer(text, &head, Version::Http11, true);
    assert_eq!(
        written,
        "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\nDate: now\r\nVia: 1.0 lb1\r\n\r\n"
    );
    assert!(!sent.keep_alive);
}

#[test]
fn an_old_client_is_sent_no_chunks() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nA: b\r\n\r\n";
    let head = ResponseHead {
        framing: Framing::Chunked,
        ..response_head(text)
    };
    let (written, sent) = answer(text, &head, Version::Http10, true);
    assert_eq!(
        written,
        "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\nDate: now\r\nVia: 1.1 lb1\r\n\r\n"
    );
    assert_eq!(
        sent,
        Sent {
            keep_alive: false,
            unchunk: true
        }
    );
    let (written, sent) = answer(text, &head, Version::Http11, true);
    assert!(written.contains("Transfer-Encoding: chunked\r\nTrailer: x\r\n"));
    assert_eq!(
        sent,
        Sent {
            keep_alive: true,
            unchunk: false
        }
    );
}

#[test]
fn interim_and_switching_responses_pass() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(
        answer(interim, &response_head(interim), Version::Http11, true).0,
        interim
    );
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        answer(switching, &response_head(switching), Version::Http11, true).0,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nVia: 1.1 lb1\r\n\r\n"
    );
}

#[test]
fn a_response_without_body_says_no_length() {
    let text = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = ResponseHead {
        framing: Framing::None,
        ..response_head(text)
    };
    let (written, _) = answer(text, &head, Version::Http11, true);
    assert_eq!(
        written,
        "HTTP/1.1 204 No Content\r\nDate: now\r\nVia: 1.1 lb1\r\n\r\n"
    );
}

proptest! {
    #[test]
    fn whatever_connection_lists_the_message_keeps_its_frame(
        listed in prop::collection::vec(prop::sample::select(vec![
            "host", "Content-Length", "transfer-encoding", "x-request-id", "X-Forwarded-For", "close", "a", "te", "",
        ]), 0..6),
        order in prop::sample::subsequence(vec![
            "Content-Length: 5\r\n", "A: 1\r\n", "X-Forwarded-For: 1.2.3.4\r\n", "Cookie: c\r\n",
        ], 0..4),
        trusted: bool,
    ) {
        let connection = format!("Connection: {}\r\n", listed.join(", "));
        let lines = order.concat();
        let sent = with(&format!("{connection}{lines}"), &Hop { trusted, ..HOP });
        let count = |name: &str| sent.matches(name).count();
        prop_assert_eq!(count("\r\nHost: a\r\n"), 1);
        prop_assert_eq!(count("Content-Length: 5\r\n"), usize::from(lines.contains("Content-Length")));
        prop_assert_eq!(count("X-Forwarded-For: "), 1);
        prop_assert_eq!(count("X-Request-ID: "), 1);
        prop_assert_eq!(count("A: 1"), usize::from(lines.contains("A: 1") && !listed.contains(&"a")));
        prop_assert_eq!(count("Connection: close"), 0);
        prop_assert_eq!(count("\r\n\r\n"), 1);
    }
}

#[test]
fn a_response_without_a_date_gets_one() {
    for (status, fields, says, dates) in [
        ("200 OK", "", "", "Date: now\r\n"),
        ("200 OK", "Date: then\r\n", "", "Date: then\r\n"),
        ("200 OK", "", "Date: ruled\r\n", "Date: ruled\r\n"),
        ("101 Switching Protocols", "", "", ""),
    ] {
        let text = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\n\r\n");
        let answer = ResponseContext {
            edit: Edit {
                removed: &[],
                added: says.as_bytes(),
            },
            client: Version::Http11,
            keep_alive: true,
            server: "lb1",
            date: b"now",
            lines: b"",
            own_cookie: None,
            own_request_id: false,
            compressed: Decision::default(),
        };
        let mut out = Outgoing::default();
        response(&response_head(&text), text.as_bytes(), &answer, &mut out);
        let sent = written(&text, &out);
        let found: String = sent
            .split_inclusive("\r\n")
            .filter(|line| line.starts_with("Date"))
            .collect();
        assert_eq!(found, dates, "{sent}");
    }
}

#[test]
fn the_requests_id_goes_back_in_place_of_the_servers() {
    let text = "HTTP/1.1 200 OK\r\nx-request-id: other\r\nContent-Length: 0\r\n\r\n";
    let context = |lines, own_request_id| ResponseContext {
        client: Version::Http11,
        keep_alive: true,
        server: "lb1",
        edit: Edit::default(),
        date: b"now",
        lines,
        own_cookie: None,
        own_request_id,
        compressed: Decision::default(),
    };
    let mut out = Outgoing::default();
    let mut sent = |lines, own| {
        let context = context(lines, own);
        response(&response_head(text), text.as_bytes(), &context, &mut out);
        written(text, &out)
    };
    assert!(sent(&[], false).contains("x-request-id: other\r\n"));
    let own = sent(b"X-Request-ID: id1\r\n", true);
    assert!(
        own.contains("X-Request-ID: id1\r\n") && !own.contains("other"),
        "{own}"
    );
}
