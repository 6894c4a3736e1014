//! Messages that are as they should be, in every form.

use crate::conversation::{
    Act, Conversation, Step, answer, conversation, get, post, say, saying, script,
};

pub(crate) fn all() -> Vec<Conversation> {
    requests()
        .into_iter()
        .chain(targets())
        .chain(responses())
        .chain(continues())
        .collect()
}

fn requests() -> Vec<Conversation> {
    let chunked = "POST /c HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n";
    let ask = |name: &str, request: String| conversation(name).ask(request);
    let large = "x".repeat(100_000);
    vec![
        ask("GET", get("/", "")),
        ask("GET with a body", "GET /b HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\n\r\nhello".into()),
        ask("GET with a chunked body", "GET /b HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()),
        ask("GET with an empty body", get("/b", "Content-Length: 0\r\n")),
        ask("POST by length", post("/p", "hello")),
        ask("POST without a body", "POST /p HTTP/1.1\r\nHost: site\r\n\r\n".into()),
        ask("POST of nothing", post("/p", "")),
        ask("POST of 100 KB", post("/p", &large)),
        ask("DELETE with a body", post("/p", "hello").replace("POST", "DELETE")),
        ask("OPTIONS", "OPTIONS / HTTP/1.1\r\nHost: site\r\n\r\n".into()),
        ask("TRACE", "TRACE / HTTP/1.1\r\nHost: site\r\n\r\n".into()),
        ask("a method of its own", "PROPFIND /dav HTTP/1.1\r\nHost: site\r\nDepth: 1\r\n\r\n".into()),
        ask("a method in small letters", "get / HTTP/1.1\r\nHost: site\r\n\r\n".into()),
        ask("POST in one chunk", format!("{chunked}5\r\nhello\r\n0\r\n\r\n")),
        ask("POST in several chunks", format!("{chunked}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")),
        ask("POST of no chunk", format!("{chunked}0\r\n\r\n")),
        ask("a chunk size in capitals", format!("{chunked}A\r\n0123456789\r\n0\r\n\r\n")),
        ask("a chunk size with zeros before it", format!("{chunked}0005\r\nhello\r\n0\r\n\r\n")),
        ask("a last chunk of several zeros", format!("{chunked}5\r\nhello\r\n000\r\n\r\n")),
        ask("chunk extensions", format!("{chunked}5;a=b;c=\"d e\"\r\nhello\r\n0;last\r\n\r\n")),
        ask("trailers", format!("{chunked}5\r\nhello\r\n0\r\nX-One: 1\r\nX-Two: 2\r\n\r\n")),
        ask("Chunked with a capital", "POST /c HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()),
        ask("spaces around chunked", "POST /c HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: \t chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()),
        ask("an empty line first", format!("\r\n{}", get("/", ""))),
        ask("a body of bytes beyond text", "POST /p HTTP/1.1\r\nHost: site\r\nContent-Length: 6\r\n\r\n\0\r\n\x7f\u{e9}".into()),
        conversation("a head in pieces").pieces(["GE", "T / HT", "TP/1.1\r", "\nHost: site\r\n", "\r", "\n"]).read(),
        conversation("a body in pieces").pieces(["POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\n01", "234", "56789"]).read(),
        conversation("chunks in pieces").pieces([chunked, "5", "\r", "\nhe", "llo\r", "\n0\r\n", "\r", "\n"]).read(),
        conversation("trailers in pieces").pieces([&format!("{chunked}5\r\nhello\r\n0"), "\r\nX-", "One: 1\r", "\n\r", "\n"]).read(),
        conversation("100 KB in chunks").send(chunked).send(format!("186a0\r\n{large}\r\n0\r\n\r\n")).read(),
        conversation("HEAD").send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n").step(Step::ReadHead),
        ask("HTTP/1.0 without a Host", "GET / HTTP/1.0\r\n\r\n".into()),
        ask("HTTP/1.0 with a Host", "GET / HTTP/1.0\r\nHost: site\r\n\r\n".into()),
        ask("HTTP/1.0 with a body", "POST / HTTP/1.0\r\nHost: site\r\nContent-Length: 5\r\n\r\nhello".into()),
        conversation("the client sends no more after its request").send(get("/", "")).step(Step::Shut).read(),
        conversation("the client sends no more within its body")
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello")
            .step(Step::Shut)
            .read(),
        conversation("the client sends no more within its head").send("GET / HTTP/1.1\r\nHo").step(Step::Shut).ended(),
        conversation("the client says nothing at all").step(Step::Shut).ended(),
        conversation("the client resets within its body")
            .server(script(&[Act::Take]))
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello")
            .step(Step::Pause)
            .step(Step::Reset)
            .step(Step::Await(1)),
    ]
}

fn targets() -> Vec<Conversation> {
    [
        ("with a query", "/a?b=c&d"),
        ("an empty query", "/a?"),
        ("question marks in a query", "/a?b?c"),
        ("percent signs", "/%61%2f%2F"),
        ("a percent sign alone", "/100%"),
        ("a percent sign and no number", "/%zz"),
        ("an encoded NUL", "/a%00b"),
        ("an encoded line end", "/a%0d%0ab"),
        ("dots", "/a/../b/./c"),
        ("two slashes first", "//a"),
        ("two slashes within", "/a//b"),
        ("a backslash", "/a\\b"),
        ("braces and bars", "/{a}|b^c`"),
        ("quotes and angles", "/\"<a>\""),
        ("a semicolon", "/a;b=c"),
        ("brackets and colons", "/a[1]:b@c"),
        ("absolute, of the same host", "http://site/x?y"),
        ("absolute, of another host", "http://other/x"),
        ("absolute, with a port", "http://site:8080/x"),
        ("absolute, without a path", "http://site"),
        ("absolute, with a query and no path", "http://site?x"),
        ("absolute, of https", "https://site/x"),
        ("absolute, in capitals", "HTTP://SITE/x"),
    ]
    .into_iter()
    .map(|(name, target)| conversation(format!("target: {name}")).ask(get(target, "")))
    .chain([
        conversation("target: an asterisk for OPTIONS")
            .ask("OPTIONS * HTTP/1.1\r\nHost: site\r\n\r\n"),
        conversation("target: absolute, without a path, for OPTIONS")
            .ask("OPTIONS http://site HTTP/1.1\r\nHost: site\r\n\r\n"),
        conversation("target: a Host with a port").ask("GET / HTTP/1.1\r\nHost: site:8080\r\n\r\n"),
        conversation("target: a Host of IPv6").ask("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        conversation("target: a Host in capitals").ask("GET / HTTP/1.1\r\nHost: SITE\r\n\r\n"),
        conversation("target: a Host with a dot at its end")
            .ask("GET / HTTP/1.1\r\nHost: site.\r\n\r\n"),
        conversation("target: a Host with an underscore")
            .ask("GET / HTTP/1.1\r\nHost: my_site\r\n\r\n"),
        conversation("target: a Host with a colon and no port")
            .ask("GET / HTTP/1.1\r\nHost: site:\r\n\r\n"),
    ])
    .collect()
}

fn responses() -> Vec<Conversation> {
    let case = |name: &str, response: String| {
        conversation(format!("response: {name}"))
            .server(saying(response))
            .ask(get("/", ""))
    };
    let chunked = "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "5\r\nhello\r\n0\r\n";
    let old = |name: &str, request: &str, response: &str| {
        conversation(format!("response: {name}"))
            .server(saying(response))
            .ask(request)
    };
    vec![
        case("by length", answer("200 OK", "", "hello")),
        case("of nothing", answer("200 OK", "", "")),
        case("of 100 KB", answer("200 OK", "", &"x".repeat(100_000))),
        case("of 3 MB", answer("200 OK", "", &"x".repeat(3_000_000))),
        case("chunked", format!("{chunked}{body}\r\n")),
        case("chunked, of nothing", format!("{chunked}0\r\n\r\n")),
        case(
            "chunked, 100 KB",
            format!("{chunked}186a0\r\n{}\r\n0\r\n\r\n", "x".repeat(100_000)),
        ),
        case(
            "chunked, with trailers",
            format!("{chunked}{body}X-One: 1\r\n\r\n"),
        ),
        case("404", answer("404 Not Found", "", "nothing here")),
        case("500", answer("500 Internal Server Error", "", "oh")),
        case(
            "503",
            answer("503 Service Unavailable", "Retry-After: 7\r\n", "later"),
        ),
        case("a reason of its own", answer("200 Wonderful", "", "hello")),
        case(
            "204",
            "HTTP/1.1 204 No Content\r\nX-Origin: s1\r\n\r\n".into(),
        ),
        case(
            "304",
            "HTTP/1.1 304 Not Modified\r\nX-Origin: s1\r\nETag: \"x\"\r\n\r\n".into(),
        ),
        case(
            "a redirect",
            answer("302 Found", "Location: http://elsewhere/\r\n", ""),
        ),
        case(
            "401 with a challenge",
            answer(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"x\"\r\n",
                "",
            ),
        ),
        case(
            "one that closes",
            answer("200 OK", "Connection: close\r\n", "hello"),
        ),
        case(
            "103 first",
            format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        case(
            "several interim ones first",
            format!(
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        case(
            "100 that nobody waits for",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        conversation("response: until the end")
            .server(script(&[
                Act::Take,
                say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello"),
                Act::Pause,
                say(" you"),
            ]))
            .ask(get("/", "")),
        conversation("response: of HTTP/1.0 until the end")
            .server(script(&[
                Act::Take,
                say("HTTP/1.0 200 OK\r\nX-Origin: s1\r\n\r\nhello"),
            ]))
            .ask(get("/", "")),
        conversation("response: in pieces")
            .server(script(&[
                Act::Take,
                say("HTTP/1.1 200 OK\r\nX-Or"),
                Act::Pause,
                say("igin: s1\r\nContent-Length: 5\r"),
                Act::Pause,
                say("\n\r\nhe"),
                Act::Pause,
                say("llo"),
                Act::Hold,
            ]))
            .ask(get("/", "")),
        conversation("response: chunks in pieces")
            .server(script(&[
                Act::Take,
                say(chunked),
                Act::Pause,
                say("5"),
                Act::Pause,
                say("\r\nhel"),
                Act::Pause,
                say("lo\r"),
                Act::Pause,
                say("\n0\r\n\r\n"),
                Act::Hold,
            ]))
            .ask(get("/", "")),
        conversation("response: head first, body later")
            .server(script(&[
                Act::Take,
                say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 5\r\n\r\n"),
                Act::Pause,
                say("hello"),
                Act::Hold,
            ]))
            .ask(get("/", "")),
        old(
            "chunked, to HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: site\r\n\r\n",
            &format!("{chunked}{body}\r\n"),
        ),
        old(
            "chunked with trailers, to HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: site\r\n\r\n",
            &format!("{chunked}{body}X-One: 1\r\n\r\n"),
        ),
        old(
            "chunked, to HTTP/1.0 that would keep the connection",
            "GET / HTTP/1.0\r\nHost: site\r\nConnection: keep-alive\r\n\r\n",
            &format!("{chunked}{body}\r\n"),
        ),
        old(
            "interim, to HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: site\r\n\r\n",
            &format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        conversation("response: to HEAD, by length")
            .server(saying(
                "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 1000\r\n\r\n",
            ))
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
        conversation("response: to HEAD, chunked")
            .server(saying(chunked))
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
        conversation("response: to HEAD, without a length")
            .server(saying("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\n"))
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
        conversation("response: 404 to HEAD")
            .server(saying(
                "HTTP/1.1 404 Not Found\r\nX-Origin: s1\r\nContent-Length: 12\r\n\r\n",
            ))
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
    ]
}

/// `Expect: 100-continue`.
fn continues() -> Vec<Conversation> {
    let head = "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    vec![
        conversation("expect: the server says continue")
            .server(script(&[Act::TakeHead, say("HTTP/1.1 100 Continue\r\n\r\n"), Act::TakeBytes(5), say(answer("200 OK", "", "fine")), Act::Hold]))
            .send(head)
            .step(Step::ReadBytes(25))
            .send("hello")
            .read(),
        conversation("expect: the server refuses")
            .server(script(&[Act::TakeHead, say(answer("417 Expectation Failed", "Connection: close\r\n", "no")), Act::Hold]))
            .ask(head),
        conversation("expect: the server refuses and would keep the connection")
            .server(script(&[Act::TakeHead, say(answer("417 Expectation Failed", "", "no")), Act::Hold]))
            .ask(head),
        conversation("expect: the client does not wait")
            .server(script(&[Act::TakeHead, say("HTTP/1.1 100 Continue\r\n\r\n"), Act::TakeBytes(5), say(answer("200 OK", "", "fine")), Act::Hold]))
            .send(head)
            .send("hello")
            .read(),
        conversation("expect: the server never says continue")
            .send(head)
            .step(Step::Pause)
            .send("hello")
            .read(),
        conversation("expect: without a body").ask(get("/", "Expect: 100-continue\r\n")),
        conversation("expect: with HTTP/1.0").ask("POST / HTTP/1.0\r\nHost: site\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"),
        conversation("expect: something else").ask(post("/", "hello").replace("\r\n\r\n", "\r\nExpect: wonders\r\n\r\n")),
    ]
}
