//! What becomes of header fields on their way.

use crate::conversation::{Conversation, answer, conversation, get, saying};
use crate::setup::{Setup, Toml};

pub(crate) fn all() -> Vec<Conversation> {
    let requests = REQUESTS.iter().map(|(name, fields)| {
        conversation(format!("request fields: {name}")).ask(get("/", fields))
    });
    let responses = RESPONSES.iter().map(|(name, fields)| {
        conversation(format!("response fields: {name}"))
            .server(saying(answer("200 OK", fields, "hello")))
            .ask(get("/", ""))
    });
    requests.chain(responses).chain(edits()).collect()
}

const REQUESTS: &[(&str, &str)] = &[
    ("the same twice", "X-Two: one\r\nX-Two: two\r\n"),
    ("an empty value", "X-Empty:\r\nX-Blank:   \r\n"),
    ("white space around a value", "X-Space: \t value \t\r\n"),
    ("no white space before a value", "X-Close:value\r\n"),
    ("white space within a value", "X-Space: one  two\tthree\r\n"),
    ("letters beyond ASCII", "X-Text: grün\r\n"),
    ("names of all allowed signs", "X!#$%&'*+.^_`|~9: x\r\n"),
    ("Connection: close", "Connection: close\r\n"),
    ("Connection: keep-alive", "Connection: keep-alive\r\n"),
    (
        "Keep-Alive",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
    ),
    (
        "a field that Connection names",
        "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n",
    ),
    (
        "Connection names a field that is not there",
        "Connection: X-None\r\nX-End: 2\r\n",
    ),
    ("Connection names Host", "Connection: Host\r\n"),
    (
        "Connection names Content-Length",
        "Connection: Content-Length\r\nContent-Length: 0\r\n",
    ),
    (
        "Connection names X-Forwarded-For",
        "Connection: X-Forwarded-For\r\n",
    ),
    (
        "Connection names Cookie",
        "Connection: Cookie\r\nCookie: a=b\r\n",
    ),
    (
        "Connection names Authorization",
        "Connection: Authorization\r\nAuthorization: Basic YTpi\r\n",
    ),
    ("Proxy-Connection", "Proxy-Connection: keep-alive\r\n"),
    ("Proxy-Authorization", "Proxy-Authorization: Basic YTpi\r\n"),
    ("Proxy", "Proxy: http://evil/\r\n"),
    ("TE", "TE: trailers, deflate\r\n"),
    (
        "TE that Connection names",
        "Connection: TE\r\nTE: trailers\r\n",
    ),
    ("Trailer", "Trailer: X-One\r\n"),
    ("Upgrade without Connection", "Upgrade: websocket\r\n"),
    (
        "Upgrade to HTTP/2",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n",
    ),
    (
        "X-Forwarded-For of a client",
        "X-Forwarded-For: 192.0.2.1\r\n",
    ),
    (
        "X-Forwarded-For of a client, twice",
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n",
    ),
    (
        "X_Forwarded_For of a client",
        "X_Forwarded_For: 192.0.2.1\r\n",
    ),
    (
        "X-Forwarded-Proto of a client",
        "X-Forwarded-Proto: https\r\n",
    ),
    ("X-Forwarded-Host of a client", "X-Forwarded-Host: evil\r\n"),
    ("Forwarded of a client", "Forwarded: for=192.0.2.1\r\n"),
    ("X-Real-IP of a client", "X-Real-IP: 192.0.2.1\r\n"),
    ("Via", "Via: 1.1 other\r\n"),
    ("several cookies", "Cookie: a=b; c=d\r\nCookie: e=f\r\n"),
    ("Authorization", "Authorization: Basic YTpi\r\n"),
    ("Max-Forwards", "Max-Forwards: 0\r\n"),
    (
        "Via, from itself a few times",
        "Via: 1.1 lb1, 1.1 lb1, 1.1 lb1\r\n",
    ),
    (
        "Via, from itself again and again",
        "Via: 1.1 lb1, 1.1 lb1, 1.1 lb1, 1.1 lb1, 1.1 lb1\r\n",
    ),
    ("a range", "Range: bytes=0-3\r\n"),
    (
        "conditions",
        "If-None-Match: \"x\"\r\nIf-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
    ),
    ("Accept-Encoding", "Accept-Encoding: gzip\r\n"),
    (
        "ten of one name",
        "X-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\nX-A: 1\r\n",
    ),
];

const RESPONSES: &[(&str, &str)] = &[
    ("the same twice", "X-Two: one\r\nX-Two: two\r\n"),
    (
        "several cookies",
        "Set-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\n",
    ),
    ("an empty value", "X-Empty:\r\n"),
    ("Connection: close", "Connection: close\r\n"),
    (
        "Connection: keep-alive",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
    ),
    (
        "a field that Connection names",
        "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n",
    ),
    (
        "Connection names Set-Cookie",
        "Connection: Set-Cookie\r\nSet-Cookie: a=b\r\n",
    ),
    ("Proxy-Connection", "Proxy-Connection: keep-alive\r\n"),
    ("Proxy-Authenticate", "Proxy-Authenticate: Basic\r\n"),
    ("Upgrade", "Upgrade: h2c\r\nConnection: upgrade\r\n"),
    ("Server", "Server: other/1.0\r\n"),
    ("Date", "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
    ("Trailer", "Trailer: X-One\r\n"),
    (
        "Content-Encoding",
        "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n",
    ),
    (
        "Strict-Transport-Security",
        "Strict-Transport-Security: max-age=1\r\n",
    ),
    (
        "Age and Cache-Control",
        "Age: 3\r\nCache-Control: max-age=60\r\n",
    ),
    ("letters beyond ASCII", "X-Text: grün\r\n"),
];

const REQUEST_EDITS: Setup = Setup {
    frontend: "http-request set-header X-Set %[src]
    http-request add-header X-Add more
    http-request del-header X-Remove
    http-request set-header X-Path %[path]
    http-request set-header X-Method %[method]",
    gaiola: Toml {
        frontend: "rule = [
    { set_header = 'X-Set', value = '{client}' },
    { add_header = 'X-Add', value = 'more' },
    { remove_header = 'X-Remove' },
    { set_header = 'X-Path', value = '{path}' },
    { set_header = 'X-Method', value = '{method}' },
]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const RESPONSE_EDITS: Setup = Setup {
    frontend: "http-after-response set-header X-Set fixed
    http-after-response add-header X-Add more
    http-after-response del-header X-Remove",
    gaiola: Toml {
        frontend: "rule = [
    { set_response_header = 'X-Set', value = 'fixed' },
    { add_response_header = 'X-Add', value = 'more' },
    { remove_response_header = 'X-Remove' },
]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const HOST: Setup = Setup {
    frontend: "http-request set-header Host inner.example",
    gaiola: Toml {
        frontend: "rule = [{ host = 'inner.example' }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

fn edits() -> Vec<Conversation> {
    let request = |name: &str, fields: &str| {
        conversation(format!("edits of the request: {name}"))
            .setup(REQUEST_EDITS)
            .ask(get("/p?q", fields))
    };
    let response = |name: &str, response: String| {
        conversation(format!("edits of the response: {name}"))
            .setup(RESPONSE_EDITS)
            .server(saying(response))
            .ask(get("/", ""))
    };
    vec![
        request("nothing there before", ""),
        request(
            "all there before",
            "X-Set: old\r\nX-Add: one\r\nX-Remove: a\r\nX-Remove: b\r\n",
        ),
        request(
            "in another case",
            "x-set: old\r\nX-SET: old\r\nx-REMOVE: a\r\n",
        ),
        request(
            "spelled with underscores",
            "X_Set: old\r\nx_remove: a\r\nX_Add: b\r\n",
        ),
        request(
            "names that only begin so",
            "X-Settled: old\r\nX-Removed: a\r\n",
        ),
        response("nothing there before", answer("200 OK", "", "hello")),
        response(
            "all there before",
            answer(
                "200 OK",
                "X-Set: old\r\nX-Add: one\r\nX-Remove: a\r\nX-Remove: b\r\n",
                "hello",
            ),
        ),
        response(
            "Connection names what is set",
            answer("200 OK", "Connection: X-Set\r\nX-Set: old\r\n", "hello"),
        ),
        response(
            "of an error",
            answer("500 Internal Server Error", "X-Remove: a\r\n", "oh"),
        ),
        response(
            "of 304",
            "HTTP/1.1 304 Not Modified\r\nX-Origin: s1\r\nX-Set: old\r\n\r\n".into(),
        ),
        response(
            "interim ones are not changed",
            format!(
                "HTTP/1.1 103 Early Hints\r\nX-Remove: a\r\n\r\n{}",
                answer("200 OK", "", "hello")
            ),
        ),
        conversation("edits of the response: one of the proxy's own")
            .setup(RESPONSE_EDITS)
            .server(crate::conversation::Server::Refusing)
            .ask(get("/", "")),
        conversation("edits of the request: another Host")
            .setup(HOST)
            .ask(get("/", "")),
        conversation("edits of the request: another Host for an absolute target")
            .setup(HOST)
            .ask(get("http://site/x", "")),
        conversation("edits of the request: another Host where there was none")
            .setup(HOST)
            .ask("GET / HTTP/1.0\r\n\r\n"),
    ]
}
