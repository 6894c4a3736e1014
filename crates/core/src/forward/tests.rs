//! Heads are put together here by hand, because this room does not know the parser.

mod response;

use super::*;
use gaiola_model::http::{Framing, Method, RequestHead, ResponseHead, TargetForm, Version};
use proptest::prelude::*;

const HOP: Hop<'_> = Hop {
    client: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    trusted: false,
    tls: false,
    server: "lb1",
    request_id: b"made",
    default_host: "10.77.3.1",
    path: b"",
    host: b"",
    edit: Edit {
        removed: &[],
        added: b"",
    },
    hidden_cookie: None,
};

const TRUSTED: Hop<'_> = Hop {
    trusted: true,
    ..HOP
};

const ADDED: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
    X-Request-ID: made\r\nVia: 1.1 lb1\r\n\r\n";

fn span(text: &str, part: &str) -> Span {
    let start = text.find(part).unwrap();
    Span::new(start, start + part.len())
}

/// The field lines of a head in `NAME: VALUE` form.
fn fields(text: &str) -> Vec<Field> {
    let mut start = text.find("\r\n").unwrap() + 2;
    let mut fields = Vec::new();
    for line in text[start..].split_inclusive("\r\n") {
        let Some((name, value)) = line.trim_end_matches("\r\n").split_once(": ") else {
            break;
        };
        let name_end = start + name.len();
        fields.push(Field {
            known: FieldName::of(name.as_bytes()),
            name: Span::new(start, name_end),
            value: Span::new(name_end + 2, name_end + 2 + value.len()),
            line_end: Span::new(start, start + line.len()).end,
        });
        start += line.len();
    }
    fields
}

fn request_head(text: &str) -> RequestHead {
    let mut words = text.lines().next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let fields = fields(text);
    let host = fields.iter().find(|field| field.known == FieldName::Host);
    RequestHead {
        method: Method::of(method.as_bytes()),
        method_name: span(text, method),
        target: span(text, target),
        path: span(text, target),
        version: if words.next() == Some("HTTP/1.0") {
            Version::Http10
        } else {
            Version::Http11
        },
        host: host.map(|field| field.value),
        fields,
        len: text.len(),
        ..RequestHead::default()
    }
}

fn written(text: &str, out: &Outgoing) -> String {
    let bytes = out.slices(text.as_bytes()).collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), out.len());
    String::from_utf8(bytes).unwrap()
}

fn sent_on(text: &str, head: &RequestHead, hop: &Hop<'_>) -> String {
    let mut out = Outgoing::default();
    request(head, text.as_bytes(), hop, &mut out);
    written(text, &out)
}

/// What is sent on of a request with these fields besides `Host: a`.
fn with(fields: &str, hop: &Hop<'_>) -> String {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    sent_on(&text, &request_head(&text), hop)
}

#[test]
fn a_usual_head_is_two_pieces() {
    let text = "GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    let mut out = Outgoing::default();
    request(&request_head(text), text.as_bytes(), &HOP, &mut out);
    assert_eq!(out.pieces().len(), 2);
    assert_eq!(
        written(text, &out),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n{ADDED}")
    );
}

#[test]
fn what_concerns_the_hop_alone_is_removed() {
    let fields = "Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nA: b\r\nProxy-Connection: x\r\n\
        Proxy-Authorization: x\r\nProxy: http://evil\r\nTE: gzip\r\nUpgrade: h2c\r\nx-hop: 2\r\nTrailer: C\r\n";
    assert_eq!(
        with(fields, &HOP),
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nTrailer: C\r\n{ADDED}")
    );
}

#[test]
fn connection_cannot_remove_what_the_next_hop_depends_on() {
    let fields = "Connection: host, content-length, transfer-encoding, x-forwarded-for, x-forwarded-proto, \
        x-forwarded-port, x-request-id, via, expect, traceparent\r\n";
    let kept = "Transfer-Encoding: chunked\r\nX-Forwarded-Port: 80\r\nX-Request-ID: id\r\nVia: 1.1 x\r\n\
        Expect: x\r\ntraceparent: 00\r\n";
    let sent = with(&format!("{fields}{kept}"), &TRUSTED);
    assert!(
        sent.contains(kept) && sent.contains("Host: a\r\n"),
        "{sent}"
    );
    assert!(sent.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{sent}");
}

#[test]
fn claims_of_strangers_are_replaced() {
    let fields = "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: b\r\nX-Request-ID: x\r\n\
        X-Forwarded-Port: 1\r\nX_Forwarded_For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nForwarded: for=b\r\n\
        Content_Length: 7\r\nTransfer_Encoding: x\r\nx-request_id: y\r\n";
    assert_eq!(
        with(fields, &HOP),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{ADDED}")
    );
}

#[test]
fn words_of_trusted_senders_are_kept_and_added_to() {
    let fields = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Request-ID: id\r\n\
        X-Forwarded-For: 10.0.0.2\r\nX-Real-IP: 10.0.0.1\r\nForwarded: for=b\r\nVia: 1.1 x\r\n";
    assert_eq!(
        with(fields, &TRUSTED),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Request-ID: id\r\n\
         X-Real-IP: 10.0.0.1\r\nForwarded: for=b\r\nVia: 1.1 x\r\n\
         X-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.7\r\nVia: 1.1 lb1\r\n\r\n"
    );
}

#[test]
fn only_one_of_each_claim_is_kept() {
    let sent = with(
        "X-Request-ID: a\r\nX-Request-ID: b\r\nX-Forwarded-Proto: c\r\nX-Forwarded-Proto: d\r\n",
        &TRUSTED,
    );
    assert!(
        sent.contains("X-Request-ID: a\r\nX-Forwarded-Proto: c\r\n"),
        "{sent}"
    );
    assert!(
        !sent.contains(": b\r\n") && !sent.contains(": d\r\n"),
        "{sent}"
    );
}

#[test]
fn an_id_that_is_not_fit_is_made_anew() {
    for id in ["a b".to_owned(), "x".repeat(129)] {
        let sent = with(&format!("X-Request-ID: {id}\r\n"), &TRUSTED);
        assert!(
            sent.contains("X-Request-ID: made\r\n") && !sent.contains(&id),
            "{sent}"
        );
    }
}

#[test]
fn a_client_on_mapped_ipv6_is_reported_as_ipv4() {
    let hop = Hop {
        client: "::ffff:192.0.2.7".parse().unwrap(),
        ..HOP
    };
    assert!(with("", &hop).contains("X-Forwarded-For: 192.0.2.7\r\n"));
}

#[test]
fn a_client_is_believed_as_far_as_those_who_tell_are_trusted() {
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let client = |sender: &str, lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = request_head(&text);
        client(&head, text.as_bytes(), sender.parse().unwrap(), &trusted).to_string()
    };
    let fields =
        "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Forwarded-For: 192.0.2.3, 10.0.0.2\r\n";
    assert_eq!(client("192.0.2.9", fields), "192.0.2.9");
    assert_eq!(client("10.0.0.1", fields), "192.0.2.3");
    assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
    let unknown = "X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.2\r\n";
    assert_eq!(client("10.0.0.1", unknown), "0.0.0.0");
    assert_eq!(
        client("::ffff:10.0.0.1", "X-Forwarded-For: 192.0.2.1, ,\r\n"),
        "192.0.2.1"
    );
    for (value, expected) in [
        ("192.0.2.5:4711", "192.0.2.5"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.5:4711, 10.0.0.2:80", "192.0.2.5"),
        ("unknown", "0.0.0.0"),
        ("_hidden:1", "0.0.0.0"),
        ("[2001:db8::1", "0.0.0.0"),
    ] {
        let line = format!("X-Forwarded-For: {value}\r\n");
        assert_eq!(client("10.0.0.1", &line), expected, "{value}");
    }
}

#[test]
fn a_trusted_sender_says_how_the_client_came() {
    let https = |line: &str, tls: bool, trusted: bool| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
        is_https(&request_head(&text), text.as_bytes(), tls, trusted)
    };
    for (value, expected) in [
        ("HTTPS", true),
        ("https, http", true),
        ("http", false),
        ("x", true),
    ] {
        let line = format!("X-Forwarded-Proto: {value}\r\n");
        assert_eq!(https(&line, true, true), expected, "{value}");
        assert!(!https(&line, false, false), "{value}");
    }
    assert!(https("", true, true));
    assert!(!https("", false, true));
}

#[test]
fn what_cgi_takes_for_one_field_is_left_out_with_it() {
    let removed: Vec<Box<[u8]>> = vec![b"x-secret".as_slice().into()];
    let hop = Hop {
        edit: Edit {
            removed: &removed,
            added: b"",
        },
        ..HOP
    };
    let lines = "X-Secret: 1\r\nx_secret: 2\r\nX-Secrets: 3\r\n";
    assert_eq!(
        with(lines, &hop),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Secrets: 3\r\n{ADDED}")
    );
}

#[test]
fn a_trusted_sender_passes_no_twins_on() {
    let lines = "X-Real-IP: 192.0.2.1\r\nX_Real_IP: 1\r\nX_Forwarded_For: 2\r\nX-Forwarded_Proto: 3\r\n\
        X_Request_ID: 4\r\nX_Other: 5\r\n";
    let sent = with(lines, &TRUSTED);
    assert_eq!(
        sent,
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 192.0.2.1\r\nX_Other: 5\r\n{ADDED}")
    );
}

#[test]
fn upgrades_and_trailers_are_asked_for_anew() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n";
    let mut head = request_head(text);
    head.upgrade = true;
    assert_eq!(
        sent_on(text, &head, &HOP),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, TE\r\nTE: trailers\r\n{ADDED}"
        )
    );
    head.upgrade = false;
    assert!(sent_on(text, &head, &HOP).contains("Host: a\r\nConnection: TE\r\nTE: trailers\r\nX-"));
}

#[test]
fn old_clients_speak_1_1_from_here_on() {
    let text = "GET /x HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
    let sent = sent_on(text, &request_head(text), &HOP);
    assert!(
        sent.starts_with("GET /x HTTP/1.1\r\nHost: 10.77.3.1\r\nX-Forwarded-For"),
        "{sent}"
    );
    assert!(
        sent.ends_with("Via: 1.0 lb1\r\n\r\n") && !sent.contains("X-Forwarded-Host"),
        "{sent}"
    );
    let bare = "GET /x HTTP/1.0\r\n\r\n";
    assert!(sent_on(bare, &request_head(bare), &HOP).starts_with("GET /x HTTP/1.1\r\nHost: "));
}

#[test]
fn a_go_ahead_is_asked_for_where_the_client_waits() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut head = request_head(text);
    assert!(!sent_on(text, &head, &HOP).contains("Expect"));
    head.expects_continue = true;
    assert!(sent_on(text, &head, &HOP).contains("Expect: 100-continue\r\nContent-Length: 5\r\n"));
}

#[test]
fn the_absolute_form_becomes_the_origin_form() {
    let line = |target: &str, path: &str, query: &str, method: &str| {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n");
        let after_host = text.find("site").unwrap() + 4;
        let path_end = after_host + path.len();
        let head = RequestHead {
            form: TargetForm::Absolute,
            host: Some(span(&text, "site")),
            path: Span::new(after_host, path_end),
            query: Span::new(path_end, path_end + query.len()),
            ..request_head(&text)
        };
        let sent = sent_on(&text, &head, &HOP);
        assert!(
            sent.contains("\r\nA: b\r\nHost: site\r\nX-") && !sent.contains("other"),
            "{sent}"
        );
        sent.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        line("http://site/x?y", "/x", "?y", "GET"),
        "GET /x?y HTTP/1.1"
    );
    assert_eq!(line("http://site", "", "", "GET"), "GET / HTTP/1.1");
    assert_eq!(line("http://site?y", "", "?y", "GET"), "GET /?y HTTP/1.1");
    assert_eq!(line("http://site", "", "", "OPTIONS"), "OPTIONS * HTTP/1.1");
}

#[test]
fn a_request_that_was_here_often_goes_round() {
    let goes_round = |via: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{via}\r\n");
        is_loop(&request_head(&text), text.as_bytes(), "lb1")
    };
    assert!(goes_round(&"Via: 1.1 lb1\r\n".repeat(5)));
    assert!(goes_round(
        "Via: 1.1 lb1, 1.1 x\r\nVia: 1.0 lb1 (a),1.1 lb1, 1.1 lb1,  1.1  lb1\r\n"
    ));
    assert!(!goes_round(&"Via: 1.1 lb1\r\n".repeat(4)));
    assert!(!goes_round(&"Via: 1.1 lb2\r\n".repeat(9)));
}

#[test]
fn max_forwards_counts_down_where_it_means_something() {
    let sent = |method: &str, value: &str| {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        let head = request_head(&text);
        (
            max_forwards(&head, text.as_bytes()),
            sent_on(&text, &head, &HOP),
        )
    };
    for (method, value, left, expected) in [
        ("OPTIONS", "3", Some(3), "Max-Forwards: 2\r\n"),
        ("TRACE", "0", Some(0), "Max-Forwards: 0\r\n"),
        ("GET", "3", None, "Max-Forwards: 3\r\n"),
        ("OPTIONS", "x", None, "Max-Forwards: x\r\n"),
    ] {
        let (found, sent) = sent(method, value);
        assert_eq!(found, left, "{method} {value}");
        assert_eq!(sent.matches("Max-Forwards").count(), 1, "{sent}");
        assert!(sent.contains(expected), "{sent}");
    }
}
