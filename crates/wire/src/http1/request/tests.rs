use super::*;
use gaiola_model::http::FieldName;
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Option<RequestHead>, BadRequest> {
    let mut head = RequestHead::default();
    parse_request(bytes, &mut head, &Limits::default())
        .map(|progress| (progress == Progress::Done).then_some(head))
}

fn good(text: &str) -> RequestHead {
    match parse(text.as_bytes()) {
        Ok(Some(head)) => head,
        other => panic!("{other:?} of {text:?}"),
    }
}

fn bad(text: &str) -> BadRequest {
    parse(text.as_bytes()).expect_err(text)
}

/// A request with these fields besides `Host`.
fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

const BROWSER: &str = "GET /entries?page=2 HTTP/1.1\r\n\
    Host: guestbook.example\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Accept: text/html,application/xhtml+xml\r\n\
    \r\n";

#[test]
fn a_usual_request_is_read() {
    let head = good(BROWSER);
    let bytes = BROWSER.as_bytes();
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path(bytes), b"/entries");
    assert_eq!(head.query.of(bytes), b"?page=2");
    assert_eq!(head.host.unwrap().of(bytes), b"guestbook.example");
    assert_eq!(head.fields.len(), 4);
    assert_eq!(
        head.field(FieldName::Connection, bytes),
        Some(&b"keep-alive"[..])
    );
    assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
    assert_eq!(head.len, bytes.len());
}

#[test]
fn values_lose_the_white_space_around_them() {
    let text = with("X:  \t a b \t");
    let head = good(&text);
    assert_eq!(head.fields[1].value.of(text.as_bytes()), b"a b");
    assert_eq!(
        head.fields[1].line().of(text.as_bytes()),
        b"X:  \t a b \t\r\n"
    );
    assert!(good(&with("Empty:")).fields[1].value.is_empty());
}

#[test]
fn one_empty_line_before_a_request_is_passed_over() {
    let head = good("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.method_name.start, head.len), (2, 29));
    assert_eq!(bad("\r\n\r\nGET / HTTP/1.1\r\n"), BadRequest::RequestLine);
    assert_eq!(bad("\nGET / HTTP/1.1\r\n"), BadRequest::RequestLine);
}

#[test]
fn request_lines_have_one_form() {
    for text in [
        "GET  / HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        " GET / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\rX",
        "GET\t/ HTTP/1.1\r\n",
        "GET / HTTP/1.11\r\n",
        "G(T / HTTP/1.1\r\n",
        "GET / HTTP/1,1\r\n",
        "GET / HTTPS/1.1\r\n",
        "\0",
    ] {
        assert_eq!(bad(text), BadRequest::RequestLine, "{text:?}");
    }
}

#[test]
fn other_versions_are_refused_as_such() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
        assert_eq!(bad(&format!("GET / {version}\r\n")).status(), 505);
    }
    assert_eq!(bad("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status(), 400);
}

#[test]
fn targets_have_the_form_their_method_allows() {
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    for text in [
        "GET a",
        "GET *",
        "GET a:80",
        "GET ftp://a/",
        "GET http://",
        "GET http:///x",
        "GET http://u@a/",
        "GET /a#b",
        "GET /\u{e9}",
        "GET /\u{7f}",
        "OPTIONS *x",
        "GET http://a b/",
    ] {
        let error = bad(&line(text));
        assert!(
            matches!(error, BadRequest::Target | BadRequest::RequestLine),
            "{text}: {error}"
        );
    }
    assert_eq!(bad(&line("CONNECT a:80")).status(), 501);
    assert_eq!(good(&line("OPTIONS *")).form, TargetForm::Asterisk);
}

#[test]
fn the_absolute_form_names_the_host() {
    let text = "GET HTTP://site:8080?q HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = good(text);
    assert_eq!(head.form, TargetForm::Absolute);
    assert_eq!(head.host.unwrap().of(text.as_bytes()), b"site:8080");
    assert_eq!(head.path(text.as_bytes()), b"/");
    assert_eq!(head.query.of(text.as_bytes()), b"?q");
}

#[test]
fn exactly_one_good_host_is_needed() {
    assert_eq!(bad("GET / HTTP/1.1\r\n\r\n"), BadRequest::NoHost);
    assert_eq!(bad("GET http://a/ HTTP/1.1\r\n\r\n"), BadRequest::NoHost);
    assert_eq!(bad("GET / HTTP/1.1\r\nHost:\r\n\r\n"), BadRequest::Host);
    assert_eq!(bad("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), BadRequest::Host);
    assert_eq!(bad(&with("Host: a")), BadRequest::SeveralHosts);
    assert_eq!(good("GET / HTTP/1.0\r\n\r\n").host, None);
}

#[test]
fn field_lines_have_one_form() {
    for (fields, error) in [
        ("A: b\r\n c", BadField::Folded),
        ("A: b\r\n\tc: d", BadField::Folded),
        ("A : b", BadField::SpaceBeforeColon),
        ("A\t: b", BadField::SpaceBeforeColon),
        ("A b: c", BadField::SpaceBeforeColon),
        (": b", BadField::Name),
        ("A\u{e9}: b", BadField::Name),
        ("A\0: b", BadField::Name),
        ("A(: b", BadField::Name),
        ("A", BadField::Name),
        ("A: b\nB: c", BadField::BareLf),
        ("A: b\n", BadField::BareLf),
        ("A: b\rB: c", BadField::BareCr),
        ("A: b\0c", BadField::Control),
        ("A: b\u{7f}", BadField::Control),
        ("A: b\u{1b}[0m", BadField::Control),
        ("\nA: b", BadField::BareLf),
    ] {
        assert_eq!(bad(&with(fields)), BadRequest::Field(error), "{fields:?}");
    }
}

#[test]
fn lengths_have_one_reading() {
    assert_eq!(good(&with("Content-Length: 0")).framing, Framing::Length(0));
    assert_eq!(
        good(&with("content-length: 9223372036854775807")).framing,
        Framing::Length(u64::MAX / 2)
    );
    for value in [
        "",
        "+5",
        "-1",
        "5 5",
        "5,5",
        "0x5",
        "5a",
        "9223372036854775808",
        "18446744073709551616",
        "000000000000000000005",
    ] {
        let error = bad(&with(&format!("Content-Length: {value}")));
        assert_eq!(
            error,
            BadRequest::Field(BadField::ContentLength),
            "{value:?}"
        );
    }
    for second in ["5", "6"] {
        let error = bad(&with(&format!(
            "Content-Length: 5\r\nContent-Length: {second}"
        )));
        assert_eq!(error, BadRequest::Field(BadField::SeveralLengths));
    }
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        assert_eq!(bad(&with(fields)), BadRequest::Field(BadField::BothLengths));
    }
}

#[test]
fn the_only_transfer_coding_is_one_final_chunked() {
    assert_eq!(
        good(&with("Transfer-Encoding: Chunked")).framing,
        Framing::Chunked
    );
    for value in [
        "",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "xchunked",
        "\u{b}chunked",
        "chunked;q=1",
        "chunked,",
    ] {
        assert_eq!(
            bad(&with(&format!("Transfer-Encoding: {value}"))).status(),
            400,
            "{value:?}"
        );
    }
    assert_eq!(bad(&with("Transfer-Encoding: gzip, chunked")).status(), 501);
    let twice = with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
    assert_eq!(bad(&twice), BadRequest::TransferEncoding);
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(bad(old), BadRequest::TransferEncoding);
}

#[test]
fn connections_are_kept_as_their_version_says() {
    assert!(good(&with("X: y")).keep_alive);
    assert!(!good(&with("Connection: x, Close")).keep_alive);
    assert!(!good(&with("Connection: keep-alive\r\nConnection: close")).keep_alive);
    assert!(!good("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(good("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

#[test]
fn only_protocols_other_than_http_are_changed_to() {
    assert!(good(&with("Connection: Upgrade\r\nUpgrade: websocket")).upgrade);
    assert!(!good(&with("Upgrade: websocket")).upgrade);
    assert!(!good(&with("Connection: upgrade")).upgrade);
    for protocol in ["h2c", "HTTP/2.0", "websocket, h2c", "TLS/1.0"] {
        assert!(
            !good(&with(&format!(
                "Connection: upgrade\r\nUpgrade: {protocol}"
            )))
            .upgrade
        );
    }
    assert!(!good("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade);
}

#[test]
fn a_body_may_wait_for_a_go_ahead() {
    assert!(good(&with("Expect: 100-Continue\r\nContent-Length: 5")).expects_continue);
    assert!(!good(&with("Expect: 100-continue")).expects_continue);
    assert!(!good(&with("Expect: x\r\nContent-Length: 5")).expects_continue);
}

#[test]
fn heads_are_bounded() {
    let limits = Limits {
        head: 100,
        target: 20,
        fields: 3,
    };
    let parse = |text: &str| parse_request(text.as_bytes(), &mut RequestHead::default(), &limits);
    let status = |text: &str| parse(text).expect_err(text).status();
    assert_eq!(
        status(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(20))),
        414
    );
    assert_eq!(status(&format!("GET /{}", "a".repeat(20))), 414);
    assert_eq!(
        status(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "a".repeat(80)
        )),
        431
    );
    assert_eq!(status("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\n"), 431);
    assert_eq!(status(&"G".repeat(200)), 501);
    let exact = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(68));
    assert_eq!((exact.len(), parse(&exact)), (100, Ok(Progress::Done)));
}

#[test]
fn a_head_used_again_forgets_the_last_one() {
    let mut head = good(&with("Connection: close\r\nContent-Length: 5"));
    let text = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    parse_request(text.as_bytes(), &mut head, &Limits::default()).unwrap();
    assert_eq!(head, good(text));
}

/// Requests that are nearly good: lines out of a list, and now and then a byte changed.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close, x\r\n",
        "Upgrade: websocket\r\n",
        "X: y\r\n",
        " folded\r\n",
        "Bad : y\r\n",
        "A: b\n",
        "Expect: 100-continue\r\n",
    ]);
    let first = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.0\r\n",
        "\r\nOPTIONS * HTTP/1.1\r\n",
        "GET http://a HTTP/1.1\r\n",
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (first, prop::collection::vec(lines, 0..5), changes).prop_map(|(first, lines, changes)| {
        let mut bytes = [first, &lines.concat(), "\r\nbody"].concat().into_bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_how_bytes_arrive(bytes in nearly_good(), limit in 10usize..200) {
        let limits = Limits { head: limit, target: 8, fields: 4 };
        let parse = |bytes: &[u8]| {
            let mut head = RequestHead::default();
            let progress = parse_request(bytes, &mut head, &limits);
            progress.map(|progress| (progress == Progress::Done).then_some(head))
        };
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let part = parse(&bytes[..end]);
            prop_assert!(part == Ok(None) || part == whole, "{end}: {part:?}, then {whole:?}");
        }
        if let Ok(Some(head)) = whole {
            prop_assert!(head.len <= limit && bytes[..head.len].ends_with(b"\r\n\r\n"));
        }
    }
}
