//! What servers may not say, and what they may though it is odd. Another request follows each on the same connection.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, post, say, saying, script,
};
use std::iter::repeat_n;

pub(crate) fn all() -> Vec<Conversation> {
    let heads = HEADS.iter().map(|(name, fields)| {
        odd(
            name,
            format!("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n{fields}\r\nhello"),
        )
    });
    let lines = STATUS_LINES.iter().map(|(name, line)| {
        odd(
            name,
            format!("{line}\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\nhello"),
        )
    });
    let bodies = CHUNKS.iter().map(|(name, body)| {
        let head = "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n";
        odd(name, format!("{head}{body}"))
    });
    heads
        .chain(lines)
        .chain(bodies)
        .chain(whole())
        .chain(broken())
        .chain(early())
        .collect()
}

/// A server that says this to the first request, and serves on another connection.
fn once(acts: &[Act]) -> Server {
    Server::Script(vec![acts.to_vec(), vec![Act::Serve]])
}

fn odd(name: &str, response: impl AsRef<[u8]>) -> Conversation {
    conversation(format!("odd response: {name}"))
        .server(once(&[Act::Take, say(response)]))
        .ask(get("/odd", ""))
        .ask(get("/next", ""))
}

/// Fields of a response whose body is `hello`, after which the server closes.
const HEADS: &[(&str, &str)] = &[
    (
        "length and chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "the same length twice",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
    ),
    ("a list of the same length", "Content-Length: 5, 5\r\n"),
    (
        "two different lengths",
        "Content-Length: 5\r\nContent-Length: 4\r\n",
    ),
    ("a length that is no number", "Content-Length: five\r\n"),
    ("a negative length", "Content-Length: -5\r\n"),
    ("an empty length", "Content-Length:\r\n"),
    (
        "a length beyond 64 bits",
        "Content-Length: 18446744073709551621\r\n",
    ),
    ("gzip as transfer coding", "Transfer-Encoding: gzip\r\n"),
    ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
    ("identity", "Transfer-Encoding: identity\r\n"),
    (
        "a space before the colon",
        "X-Odd : x\r\nContent-Length: 5\r\n",
    ),
    (
        "a folded line",
        "X-Odd: one\r\n two\r\nContent-Length: 5\r\n",
    ),
    ("a NUL in a value", "X-Odd: a\0b\r\nContent-Length: 5\r\n"),
    (
        "a control byte in a value",
        "X-Odd: a\x01b\r\nContent-Length: 5\r\n",
    ),
    (
        "a bare carriage return in a value",
        "X-Odd: a\rb\r\nContent-Length: 5\r\n",
    ),
    ("a bare line feed", "X-Odd: a\nContent-Length: 5\r\n"),
    ("no colon", "X-Odd\r\nContent-Length: 5\r\n"),
    ("an empty name", ": x\r\nContent-Length: 5\r\n"),
    ("a space in a name", "X Odd: x\r\nContent-Length: 5\r\n"),
    (
        "letters beyond ASCII in a value",
        "X-Odd: ä\r\nContent-Length: 5\r\n",
    ),
    ("a name beyond ASCII", "X-Ödd: x\r\nContent-Length: 5\r\n"),
];

/// First lines of a response with five bytes.
const STATUS_LINES: &[(&str, &str)] = &[
    ("no reason", "HTTP/1.1 200 "),
    ("no reason and no space", "HTTP/1.1 200"),
    ("a reason beyond ASCII", "HTTP/1.1 200 Schön"),
    ("a control byte in the reason", "HTTP/1.1 200 O\x01K"),
    ("version 1.0", "HTTP/1.0 200 OK"),
    ("version 1.2", "HTTP/1.2 200 OK"),
    ("version 2.0", "HTTP/2.0 200 OK"),
    ("version 0.9", "HTTP/0.9 200 OK"),
    ("a version in small letters", "http/1.1 200 OK"),
    ("another protocol", "ICY 200 OK"),
    ("a status of four digits", "HTTP/1.1 2000 OK"),
    ("a status of 600", "HTTP/1.1 600 OK"),
    ("a status of 999", "HTTP/1.1 999 OK"),
    ("a status nobody knows", "HTTP/1.1 299 Odd"),
    ("a status of letters", "HTTP/1.1 abc OK"),
    ("a negative status", "HTTP/1.1 -20 OK"),
    ("two spaces before the status", "HTTP/1.1  200 OK"),
];

/// Chunked bodies, after which the server closes.
const CHUNKS: &[(&str, &str)] = &[
    ("a chunk size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
    ("an empty chunk size", "\r\nhello\r\n0\r\n\r\n"),
    (
        "a chunk size beyond 64 bits",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a bare line feed behind a chunk size",
        "5\nhello\r\n0\r\n\r\n",
    ),
    ("no line end behind a chunk", "5\r\nhello0\r\n\r\n"),
    ("spaces behind a chunk size", "5  \r\nhello\r\n0\r\n\r\n"),
    ("a chunk extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("a trailer", "5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n"),
    (
        "a trailer without a colon",
        "5\r\nhello\r\n0\r\nX-Trailer\r\n\r\n",
    ),
    (
        "a length in a trailer",
        "5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n",
    ),
    ("the end within a chunk", "5\r\nhel"),
    ("the end between two chunks", "5\r\nhello\r\n"),
    ("the end before the last line", "5\r\nhello\r\n0\r\n"),
];

/// Whole responses.
fn whole() -> Vec<Conversation> {
    let large = repeat_n("x", 20_000).collect::<String>();
    vec![
        odd("text without a head", "hello, this is no HTTP\r\n"),
        odd("bytes of TLS", b"\x15\x03\x01\x00\x02\x02\x28"),
        odd(
            "a head that does not end",
            "HTTP/1.1 200 OK\r\nX-Origin: s1\r\n",
        ),
        odd("a status line that does not end", "HTTP/1.1 20"),
        odd(
            "lines that end with bare line feeds",
            "HTTP/1.1 200 OK\nX-Origin: s1\nContent-Length: 5\n\nhello",
        ),
        odd(
            "an empty line first",
            "\r\nHTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\nhello",
        ),
        odd(
            "a head of 20 KB",
            answer("200 OK", &format!("X-Large: {large}\r\n"), "hello"),
        ),
        odd(
            "150 fields",
            answer("200 OK", &"X-Many: x\r\n".repeat(150), "hello"),
        ),
        odd(
            "chunked with HTTP/1.0",
            "HTTP/1.0 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        odd(
            "204 with a length",
            "HTTP/1.1 204 No Content\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\n",
        ),
        odd(
            "204 that is chunked",
            "HTTP/1.1 204 No Content\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        odd(
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\n",
        ),
        odd("205 with a body", answer("205 Reset Content", "", "hello")),
        odd(
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nX-Origin: s1\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n",
        ),
        odd(
            "bytes behind the body",
            format!(
                "{}HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 4\r\n\r\nevil",
                answer("200 OK", "", "hello")
            ),
        ),
        odd(
            "bytes behind the last chunk",
            "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 4\r\n\r\nevil",
        ),
        // HAProxy waits for another response.
        conversation("odd response: a status below 100")
            .server(saying(
                "HTTP/1.1 099 OK\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\nhello",
            ))
            .send(get("/odd", ""))
            .step(Step::ReadBytes(12))
            .step(Step::Reset),
        odd(
            "204 with a body",
            "HTTP/1.1 204 No Content\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\nhello",
        ),
        odd(
            "304 with a body",
            "HTTP/1.1 304 Not Modified\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\nhello",
        ),
        odd(
            "an interim response with a length",
            format!(
                "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        odd(
            "a length of 2^63",
            "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 9223372036854775808\r\n\r\nhello",
        ),
        conversation("odd response: a body to HEAD")
            .server(once(&[Act::Take, say(answer("200 OK", "", "hello"))]))
            .send("HEAD /odd HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead)
            .ask(get("/next", "")),
        conversation("odd response: bytes on a connection that idles")
            .server(once(&[
                Act::Take,
                say(answer("200 OK", "", "hello")),
                Act::Pause,
                say(answer("200 OK", "", "evil")),
                Act::Hold,
            ]))
            .ask(get("/first", ""))
            .step(Step::Pause)
            .step(Step::Pause)
            .step(Step::Pause)
            .ask(get("/next", "")),
    ]
}

/// Responses that break off.
fn broken() -> Vec<Conversation> {
    let part = "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello";
    let chunk =
        "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello";
    let case = |name: &str, acts: &[Act]| {
        conversation(format!("broken response: {name}"))
            .server(once(acts))
            .ask(get("/odd", ""))
    };
    vec![
        case("closed within a body by length", &[Act::Take, say(part)]),
        case(
            "closed within a body by length, later",
            &[Act::Take, say(part), Act::Pause],
        ),
        case(
            "reset within a body by length",
            &[Act::Take, say(part), Act::Pause, Act::Reset],
        ),
        case(
            "closed within a chunked body, later",
            &[Act::Take, say(chunk), Act::Pause],
        ),
        case(
            "reset within a chunked body",
            &[Act::Take, say(chunk), Act::Pause, Act::Reset],
        ),
        case(
            "a body that ends with the connection",
            &[Act::Take, say(until_close), Act::Pause],
        ),
        case(
            "a body that ends with a reset",
            &[Act::Take, say(until_close), Act::Pause, Act::Reset],
        ),
        conversation("broken response: closed within a body, to POST")
            .server(once(&[Act::Take, say(part), Act::Pause]))
            .ask(post("/odd", "data")),
    ]
}

/// Responses that come before their request has ended.
fn early() -> Vec<Conversation> {
    let head = "POST /early HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\n";
    let refusal = answer("413 Content Too Large", "", "too large");
    let refusal_and_close = answer(
        "413 Content Too Large",
        "Connection: close\r\n",
        "too large",
    );
    vec![
        conversation("early response: the client sends the rest")
            .server(script(&[Act::TakeHead, say(&refusal), Act::TakeBytes(10), Act::Serve]))
            .send(head)
            .read()
            .send("0123456789")
            .ask(get("/next", "")),
        conversation("early response: the server closes")
            .server(once(&[Act::TakeHead, say(&refusal_and_close)]))
            .send(head)
            .read(),
        conversation("early response: the client never sends the rest")
            .server(once(&[Act::TakeHead, say(&refusal), Act::Hold]))
            .send(head)
            .read()
            .step(Step::Shut)
            .ended(),
        conversation("early response: to a chunked request")
            .server(once(&[Act::TakeHead, say(&refusal_and_close)]))
            .send("POST /early HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .read(),
        conversation("early response: within a response the request goes on")
            .server(script(&[
                Act::TakeHead,
                say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello"),
                Act::TakeBytes(10),
                say("again"),
                Act::Serve,
            ]))
            .send(head)
            .step(Step::ReadHead)
            .send("0123456789")
            .step(Step::ReadBytes(10))
            .ask(get("/next", "")),
        conversation("early response: before any request")
            .server(Server::Script(vec![vec![say(answer("200 OK", "", "hello")), Act::Take, Act::Hold]]))
            .ask(get("/", "")),
        conversation("early response: 200 before the body, then close")
            .server(saying(answer("200 OK", "Connection: close\r\n", "fine")))
            .ask(post("/", "data")),
    ]
}
