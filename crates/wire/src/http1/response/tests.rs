use super::*;
use proptest::prelude::*;

fn parse(bytes: &[u8], asked: Method) -> Result<Option<ResponseHead>, BadResponse> {
    let mut head = ResponseHead::default();
    parse_response(bytes, asked, &mut head, &Limits::default())
        .map(|progress| (progress == Progress::Done).then_some(head))
}

fn good(text: &str, asked: Method) -> ResponseHead {
    match parse(text.as_bytes(), asked) {
        Ok(Some(head)) => head,
        other => panic!("{other:?} of {text:?}"),
    }
}

#[test]
fn a_usual_response_is_read() {
    let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n";
    let head = good(text, Method::Get);
    assert_eq!(
        (head.status, head.reason.of(text.as_bytes())),
        (404, &b"Not Found"[..])
    );
    assert_eq!(
        (head.framing, head.keep_alive, head.len),
        (Framing::Length(9), true, text.len())
    );
}

#[test]
fn the_reason_may_be_left_out() {
    for line in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"] {
        assert!(good(line, Method::Get).reason.is_empty());
    }
}

#[test]
fn framing_follows_method_status_and_fields() {
    let framing = |text: &str, asked| good(&format!("HTTP/1.1 {text}\r\n\r\n"), asked).framing;
    assert_eq!(
        framing("200 OK\r\nContent-Length: 5", Method::Get),
        Framing::Length(5)
    );
    assert_eq!(
        framing("200 OK\r\nTransfer-Encoding: chunked", Method::Get),
        Framing::Chunked
    );
    assert_eq!(framing("200 OK", Method::Get), Framing::UntilClose);
    assert_eq!(
        framing("200 OK\r\nContent-Length: 5", Method::Head),
        Framing::None
    );
    assert_eq!(
        framing("200 OK\r\nTransfer-Encoding: chunked", Method::Head),
        Framing::None
    );
    for status in ["100 C", "101 S", "103 E", "204 N", "304 N"] {
        assert_eq!(
            framing(&format!("{status}\r\nContent-Length: 5"), Method::Get),
            Framing::None
        );
    }
}

#[test]
fn a_body_that_ends_with_its_connection_ends_it() {
    assert!(
        !good(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
            Method::Get
        )
        .keep_alive
    );
    let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n";
    assert!(good(old, Method::Get).keep_alive);
}

#[test]
fn interim_responses_are_distinguished_from_upgrades() {
    let switching = good(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        Method::Get,
    );
    assert!(switching.upgrade && !switching.is_interim());
    assert!(good("HTTP/1.1 100 Continue\r\n\r\n", Method::Get).is_interim());
}

#[test]
fn status_lines_have_one_form() {
    for line in [
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 99 X\r\n",
        "HTTP/1.1 600 X\r\n",
        "HTTP/1.1 2000 X\r\n",
        "HTTP/1.1 20x X\r\n",
        "HTTP/1.1 200OK\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 O\0K\r\n",
        "http/1.1 200 OK\r\n",
        "\r\nHTTP/1.1 200\r\n",
        "HTTP/1.1\t200 OK\r\n",
    ] {
        assert_eq!(
            parse(line.as_bytes(), Method::Get),
            Err(BadResponse::StatusLine),
            "{line:?}"
        );
    }
    assert_eq!(
        parse(b"HTTP/2.0 200 OK\r\n", Method::Get),
        Err(BadResponse::Version)
    );
}

#[test]
fn what_smuggling_lives_on_is_not_passed_on() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "A : b",
        "A: b\n",
        " A: b",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert!(parse(text.as_bytes(), Method::Get).is_err(), "{fields:?}");
    }
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_how_bytes_arrive(
        lines in prop::collection::vec(prop::sample::select(vec![
            "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "X: y\r\n", "Bad : y\r\n",
        ]), 0..4),
        first in prop::sample::select(vec!["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404\r\n", "HTTP/1.1 204 \r\n"]),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        limit in 10usize..150,
    ) {
        let mut bytes = [first, &lines.concat(), "\r\nbody"].concat().into_bytes();
        if let Some((place, byte)) = change {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let limits = Limits { head: limit, ..Limits::default() };
        let parse = |bytes: &[u8]| {
            let mut head = ResponseHead::default();
            let progress = parse_response(bytes, Method::Get, &mut head, &limits);
            progress.map(|progress| (progress == Progress::Done).then_some(head))
        };
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let part = parse(&bytes[..end]);
            prop_assert!(part == Ok(None) || part == whole, "{end}: {part:?}, then {whole:?}");
        }
    }
}
