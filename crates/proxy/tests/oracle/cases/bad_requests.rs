//! What no request may be: each is followed by another one, which shows whether the connection was trusted further.

use crate::conversation::{Conversation, conversation, get};
use std::iter::repeat_n;

pub(crate) fn all() -> Vec<Conversation> {
    let fields = FIELDS.iter().map(|(name, lines)| {
        let request = format!("POST /bad HTTP/1.1\r\nHost: site\r\n{lines}\r\nhello");
        bad(name, request)
    });
    let lines = REQUEST_LINES
        .iter()
        .map(|(name, line)| bad(name, format!("{line}\r\nHost: site\r\n\r\n")));
    let heads = HEADS.iter().map(|(name, head)| bad(name, *head));
    let hosts = HOSTS
        .iter()
        .map(|(name, lines)| bad(name, format!("GET / HTTP/1.1\r\n{lines}\r\n")));
    let chunks = CHUNKS.iter().map(|(name, body)| {
        let head = "POST /bad HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n";
        bad(name, format!("{head}{body}"))
    });
    fields
        .chain(lines)
        .chain(heads)
        .chain(hosts)
        .chain(chunks)
        .chain(large())
        .collect()
}

/// The request, another one behind it at once, and what is answered to both until the proxy closes or has answered both.
fn bad(name: &str, request: impl AsRef<[u8]>) -> Conversation {
    let mut bytes = request.as_ref().to_vec();
    bytes.extend_from_slice(get("/next", "Connection: close\r\n").as_bytes());
    conversation(format!("bad request: {name}"))
        .send(bytes)
        .read()
        .read()
}

/// Field lines of a POST whose body is `hello`.
const FIELDS: &[(&str, &str)] = &[
    (
        "length and chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "chunked and length",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ),
    (
        "the same length twice",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
    ),
    (
        "two different lengths",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
    ),
    ("a list of the same length", "Content-Length: 5, 5\r\n"),
    ("a list of different lengths", "Content-Length: 5, 6\r\n"),
    ("an empty length", "Content-Length: \r\n"),
    ("a negative length", "Content-Length: -5\r\n"),
    ("a length with a plus", "Content-Length: +5\r\n"),
    ("a hexadecimal length", "Content-Length: 0x5\r\n"),
    ("a length of two words", "Content-Length: 5 5\r\n"),
    (
        "a length beyond 64 bits",
        "Content-Length: 18446744073709551621\r\n",
    ),
    (
        "a length of 2^63",
        "Content-Length: 9223372036854775808\r\n",
    ),
    (
        "a length of 2^64",
        "Content-Length: 18446744073709551616\r\n",
    ),
    (
        "a length of a hundred digits",
        "Content-Length: 0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000005\r\n",
    ),
    ("a length with zeros before it", "Content-Length: 005\r\n"),
    ("a length with letters behind it", "Content-Length: 5x\r\n"),
    ("a length with a point", "Content-Length: 5.0\r\n"),
    ("a length in quotes", "Content-Length: \"5\"\r\n"),
    ("identity", "Transfer-Encoding: identity\r\n"),
    (
        "chunked twice in a list",
        "Transfer-Encoding: chunked, chunked\r\n",
    ),
    (
        "chunked twice in two fields",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "chunked, then identity",
        "Transfer-Encoding: chunked, identity\r\n",
    ),
    (
        "identity, then chunked",
        "Transfer-Encoding: identity, chunked\r\n",
    ),
    ("gzip, then chunked", "Transfer-Encoding: gzip, chunked\r\n"),
    ("gzip alone", "Transfer-Encoding: gzip\r\n"),
    ("xchunked", "Transfer-Encoding: xchunked\r\n"),
    (
        "chunked behind a vertical tab",
        "Transfer-Encoding: \x0bchunked\r\n",
    ),
    (
        "chunked with a parameter",
        "Transfer-Encoding: chunked;q=1\r\n",
    ),
    ("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n"),
    ("an empty transfer coding", "Transfer-Encoding: \r\n"),
    (
        "an underscore in Transfer_Encoding",
        "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
    ),
    (
        "an underscore in Content_Length",
        "Content_Length: 0\r\nContent-Length: 5\r\n",
    ),
    ("a space before the colon", "Content-Length : 5\r\n"),
    ("a tab before the colon", "Content-Length\t: 5\r\n"),
    (
        "a space before the colon of another field",
        "Content-Length: 5\r\nX-Other : x\r\n",
    ),
    (
        "a folded line",
        "Content-Length: 5\r\nX-Folded: one\r\n two\r\n",
    ),
    (
        "a line folded with a tab",
        "Content-Length: 5\r\nX-Folded: one\r\n\ttwo\r\n",
    ),
    (
        "a folded Transfer-Encoding",
        "Transfer-Encoding:\r\n chunked\r\n",
    ),
    (
        "a bare carriage return in a value",
        "Content-Length: 5\r\nX-Value: one\rX-Two: two\r\n",
    ),
    (
        "a bare carriage return as line end",
        "X-Value: one\rContent-Length: 5\r\n",
    ),
    (
        "a bare line feed as line end",
        "X-Value: one\nContent-Length: 5\r\n",
    ),
    (
        "a NUL in a value",
        "Content-Length: 5\r\nX-Value: one\0two\r\n",
    ),
    ("a NUL in a name", "Content-Length: 5\r\nX-\0Name: one\r\n"),
    (
        "a control byte in a value",
        "Content-Length: 5\r\nX-Value: one\x01two\r\n",
    ),
    (
        "a DEL in a value",
        "Content-Length: 5\r\nX-Value: one\x7ftwo\r\n",
    ),
    (
        "a name beyond ASCII",
        "Content-Length: 5\r\nX-Näme: one\r\n",
    ),
    ("an empty name", "Content-Length: 5\r\n: one\r\n"),
    ("no colon", "Content-Length: 5\r\nX-Name\r\n"),
    ("a space in a name", "Content-Length: 5\r\nX Name: one\r\n"),
    (
        "a bracket in a name",
        "Content-Length: 5\r\nX[Name]: one\r\n",
    ),
    ("a slash in a name", "Content-Length: 5\r\nX/Name: one\r\n"),
    ("a quote in a name", "Content-Length: 5\r\n\"X\": one\r\n"),
    (
        "an at sign in a name",
        "Content-Length: 5\r\nX@Name: one\r\n",
    ),
];

/// First lines.
const REQUEST_LINES: &[(&str, &str)] = &[
    ("no target", "GET HTTP/1.1"),
    ("an empty target", "GET  HTTP/1.1"),
    ("two spaces before the version", "GET /  HTTP/1.1"),
    ("two spaces before the target", "GET  / HTTP/1.1"),
    ("a tab for a space", "GET\t/ HTTP/1.1"),
    ("a space in the target", "GET /a b HTTP/1.1"),
    ("a space before the method", " GET / HTTP/1.1"),
    ("a space behind the version", "GET / HTTP/1.1 "),
    ("a version in small letters", "GET / http/1.1"),
    ("version 0.9", "GET / HTTP/0.9"),
    ("version 1.2", "GET / HTTP/1.2"),
    ("version 2.0", "GET / HTTP/2.0"),
    ("version 11.1", "GET / HTTP/11.1"),
    ("version 1.10", "GET / HTTP/1.10"),
    ("version 1", "GET / HTTP/1"),
    ("another protocol", "GET / ICAP/1.0"),
    ("a method with a bracket", "G[T / HTTP/1.1"),
    ("a method with a NUL", "G\0T / HTTP/1.1"),
    ("CONNECT", "CONNECT site:443 HTTP/1.1"),
    ("a fragment", "GET /a#b HTTP/1.1"),
    ("a NUL in the target", "GET /a\0b HTTP/1.1"),
    ("a control byte in the target", "GET /a\x01b HTTP/1.1"),
    ("a target beyond ASCII", "GET /\u{e9} HTTP/1.1"),
    ("a bare carriage return in the target", "GET /a\rb HTTP/1.1"),
    ("an asterisk for GET", "GET * HTTP/1.1"),
    ("a target without a slash", "GET index.html HTTP/1.1"),
    ("the target of another scheme", "GET ftp://site/ HTTP/1.1"),
    (
        "an absolute target without a host",
        "GET http:///x HTTP/1.1",
    ),
    (
        "an absolute target with a user",
        "GET http://user@site/ HTTP/1.1",
    ),
    (
        "an absolute target with a bad port",
        "GET http://site:x/ HTTP/1.1",
    ),
];

/// Whole heads.
const HEADS: &[(&str, &str)] = &[
    ("no version", "GET /\r\n\r\n"),
    (
        "lines that end with bare line feeds",
        "GET / HTTP/1.1\nHost: site\n\n",
    ),
    (
        "a bare line feed behind the request line",
        "GET / HTTP/1.1\nHost: site\r\n\r\n",
    ),
    (
        "a bare line feed as blank line",
        "GET / HTTP/1.1\r\nHost: site\r\n\n",
    ),
    (
        "a bare carriage return as blank line",
        "GET / HTTP/1.1\r\nHost: site\r\n\r\r\n",
    ),
    (
        "white space before the first field",
        "GET / HTTP/1.1\r\n Host: site\r\n\r\n",
    ),
    (
        "two empty lines first",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: site\r\n\r\n",
    ),
    (
        "a bare line feed first",
        "\nGET / HTTP/1.1\r\nHost: site\r\n\r\n",
    ),
    ("a NUL first", "\0GET / HTTP/1.1\r\nHost: site\r\n\r\n"),
    ("a TLS handshake", "\x16\x03\x01\x02\r\n\r\n"),
    (
        "the beginning of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    (
        "a PROXY header that nobody asked for",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: site\r\n\r\n",
    ),
    ("garbage", "%$&/()=\r\n\r\n"),
    (
        "chunked with HTTP/1.0",
        "POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked and length with HTTP/1.0",
        "POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    ),
];

/// `Host` lines of a GET.
const HOSTS: &[(&str, &str)] = &[
    ("no Host", ""),
    ("the same Host twice", "Host: site\r\nHost: site\r\n"),
    ("two different Hosts", "Host: site\r\nHost: other\r\n"),
    ("an empty Host", "Host: \r\n"),
    ("a Host with a path", "Host: site/x\r\n"),
    ("a Host with a user", "Host: user@site\r\n"),
    ("a Host of two words", "Host: site other\r\n"),
    ("a Host with a comma", "Host: site,other\r\n"),
    ("a Host with a port of letters", "Host: site:http\r\n"),
    ("a Host with a port beyond 16 bits", "Host: site:65536\r\n"),
    ("a Host with two ports", "Host: site:80:81\r\n"),
    ("a Host of brackets without an address", "Host: [site]\r\n"),
    ("a Host with a control byte", "Host: si\x01te\r\n"),
    ("a Host with a fragment", "Host: site#x\r\n"),
    ("a Host with a question mark", "Host: site?x\r\n"),
    ("a Host with a backslash", "Host: site\\x\r\n"),
];

/// Chunked bodies.
const CHUNKS: &[(&str, &str)] = &[
    ("a chunk size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
    ("an empty chunk size", "\r\nhello\r\n0\r\n\r\n"),
    ("a negative chunk size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a space before a chunk size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("a space behind a chunk size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a chunk size of two words", "5 5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a comma", "5,5\r\nhello\r\n0\r\n\r\n"),
    (
        "a chunk size beyond 64 bits",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size of 2^63",
        "8000000000000000\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a bare line feed behind a chunk size",
        "5\nhello\r\n0\r\n\r\n",
    ),
    (
        "a bare carriage return behind a chunk size",
        "5\rhello\r\n0\r\n\r\n",
    ),
    ("a bare line feed behind a chunk", "5\r\nhello\n0\r\n\r\n"),
    ("no line end behind a chunk", "5\r\nhello0\r\n\r\n"),
    (
        "more data than the chunk size",
        "5\r\nhello you\r\n0\r\n\r\n",
    ),
    (
        "a bare line feed behind the last chunk",
        "5\r\nhello\r\n0\n\r\n",
    ),
    ("a bare line feed at the very end", "5\r\nhello\r\n0\r\n\n"),
    (
        "a chunk extension with a NUL",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk extension with a bare line feed",
        "5;a\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk extension with a bare carriage return",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a trailer without a colon",
        "5\r\nhello\r\n0\r\nX-Trailer\r\n\r\n",
    ),
    (
        "a folded trailer",
        "5\r\nhello\r\n0\r\nX-Trailer: one\r\n two\r\n\r\n",
    ),
    (
        "a trailer with a NUL",
        "5\r\nhello\r\n0\r\nX-Trailer: a\0b\r\n\r\n",
    ),
    (
        "a length in a trailer",
        "5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n",
    ),
    (
        "a transfer coding in a trailer",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "a Host in a trailer",
        "5\r\nhello\r\n0\r\nHost: other\r\n\r\n",
    ),
];

/// What is too much of something.
fn large() -> Vec<Conversation> {
    let many = |text: &str, count: usize| repeat_n(text, count).collect::<String>();
    let with = |fields: &str| get("/", fields);
    let chunked = |body: &str| {
        format!("POST /bad HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    vec![
        bad(
            "a head of 20 KB in one field",
            with(&format!("X-Large: {}\r\n", many("x", 20_000))),
        ),
        bad(
            "a head of 20 KB in 90 fields",
            with(&many(&format!("X-Large: {}\r\n", many("x", 220)), 90)),
        ),
        bad(
            "a field's name of 20 KB",
            with(&format!("{}: x\r\n", many("x", 20_000))),
        ),
        bad("150 fields", with(&many("X-Many: x\r\n", 150))),
        bad(
            "a target of 10 KB",
            get(&format!("/{}", many("x", 10_000)), ""),
        ),
        bad(
            "a target of 20 KB",
            get(&format!("/{}", many("x", 20_000)), ""),
        ),
        bad(
            "a method of 40 letters",
            format!("{} / HTTP/1.1\r\nHost: site\r\n\r\n", many("X", 40)),
        ),
        bad(
            "a Host of 300 letters",
            format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", many("x", 300)),
        ),
        bad(
            "a chunk extension of 20 KB",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", many("x", 20_000))),
        ),
        bad(
            "trailers of 20 KB",
            chunked(&format!(
                "5\r\nhello\r\n0\r\nX-Large: {}\r\n\r\n",
                many("x", 20_000)
            )),
        ),
        bad(
            "150 trailers",
            chunked(&format!(
                "5\r\nhello\r\n0\r\n{}\r\n",
                many("X-Many: x\r\n", 150)
            )),
        ),
    ]
}
