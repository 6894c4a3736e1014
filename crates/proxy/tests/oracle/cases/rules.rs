//! What routes and rules answer.

use crate::conversation::{Conversation, Step, conversation, get, post};
use crate::setup::{Setup, Toml};

const ROUTES: Setup = Setup {
    frontend: "http-request deny if { path,url_dec -m beg /private/ } or { path,url_dec /private }
    http-request redirect location /elsewhere?from=%[path] code 302 if { path /old }
    http-request redirect location https://%[req.hdr(host),field(1,:)]%[pathq] code 308 if { path -m beg /tls/ }
    http-request return status 418 content-type text/x-fixed string \"short and stout\" if { path /fixed }
    http-request deny if { method PURGE }
    http-request deny if { req.hdr(X-Kind) -m str evil }
    http-request deny if { url_param(kind) -m str evil }
    http-request deny if { req.hdr(host),field(1,:),lower evil.example }
    http-request deny if { path -m reg \\.php$ }",
    gaiola: Toml {
        frontend: r"route = [
    { path = '/private', rule = [{ deny = true }] },
    { path_exact = '/old', rule = [{ redirect = '/elsewhere?from={path}', status = 302 }] },
    { path = '/tls', rule = [{ redirect = 'https' }] },
    { path_exact = '/fixed', rule = [{ return = 418, content_type = 'text/x-fixed', body = 'short and stout' }] },
    { method = 'PURGE', rule = [{ deny = true }] },
    { header = { X-Kind = 'evil' }, rule = [{ deny = true }] },
    { query = { kind = 'evil' }, rule = [{ deny = true }] },
    { host = 'evil.example', rule = [{ deny = true }] },
    { path_regex = '\.php$', rule = [{ deny = true }] },
]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

/// What lacks the thing that its path names is denied.
const ABSENT: Setup = Setup {
    frontend: "http-request deny if { path /header } !{ req.hdr(X-Kind) -m found }
    http-request deny if { path /query } !{ url_param(kind) -m found }
    http-request deny if { path /cookie } !{ req.cook(id) -m found }",
    gaiola: Toml {
        frontend: "route = [
    { path = '/header', header = { X-Kind = false }, rule = [{ deny = true }] },
    { path = '/query', query = { kind = false }, rule = [{ deny = true }] },
    { path = '/cookie', cookie = { id = false }, rule = [{ deny = true }] },
]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const STRIP: Setup = Setup {
    frontend: "http-request replace-path ^/api(/.*)?$ /v1\\1 if { path -m reg ^/api(/|$) }",
    gaiola: Toml {
        frontend: "rule = [{ rewrite = '/api', to = '/v1' }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const REGEX: Setup = Setup {
    frontend: "http-request replace-path ^/user/([0-9]+)$ /u/\\1",
    gaiola: Toml {
        frontend: "rule = [{ rewrite_regex = '^/user/([0-9]+)$', to = '/u/$1' }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const AUTH: Setup = Setup {
    // The line that HAProxy's own lists of users would need stands in no backend.
    frontend: "http-request auth realm area unless { req.hdr(Authorization) -m str \"Basic YWRhOnNlY3JldA==\" }",
    gaiola: Toml {
        frontend: "rule = [{ auth = 'BACKEND' }]",
        // `secret`
        sections: "[users.BACKEND]
realm = 'area'
user = { ada = '{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const BODY: Setup = Setup {
    frontend: "http-request deny deny_status 413 if { req.body_size gt 10 }",
    gaiola: Toml {
        frontend: "route = [{ method = 'POST', max_body = '10B', backend = 'BACKEND' }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const RATE: Setup = Setup {
    frontend: "stick-table type string len 32 size 1k expire 1h store http_req_rate(1h)
    http-request track-sc0 req.hdr(X-Key)
    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 2 }",
    gaiola: Toml {
        frontend: "rule = [{ limit = 'BACKEND' }]",
        sections: "[limit.BACKEND]
rate = '2/1h'
by = 'header:X-Key'",
        ..Toml::plain()
    },
    ..Setup::plain()
};

pub(crate) fn all() -> Vec<Conversation> {
    let routed = |name: &str, request: String| {
        conversation(format!("rules: {name}"))
            .setup(ROUTES)
            .ask(request)
    };
    let other = |name: &str, setup: Setup, request: String| {
        conversation(format!("rules: {name}"))
            .setup(setup)
            .ask(request)
    };
    let user = |digits: &str| get("/", &format!("Authorization: Basic {digits}\r\n"));
    let keyed = |path: &str, key: &str| get(path, &format!("X-Key: {key}\r\n"));
    vec![
        routed("a path that is denied", get("/private/x", "")).ask(get("/next", "")),
        routed("the path itself is denied", get("/private", "")),
        routed("a path that only begins so", get("/privateer", "")),
        routed("a denied path, percent-encoded", get("/%70rivate/x", "")),
        routed("a denied path behind dots", get("/a/../private/x", "")),
        routed("a denied path behind two slashes", get("//private/x", "")),
        routed("a denied path with a parameter", get("/private;x=1", "")),
        routed(
            "a denied path behind a parameter alone",
            get("/;/private/x", ""),
        ),
        routed(
            "a denied path behind dots with a parameter",
            get("/a/..;/private/x", ""),
        ),
        routed(
            "a POST that is denied, and what follows it",
            post("/private/x", "data"),
        )
        .ask(get("/next", "")),
        routed("a redirect", get("/old", "")).ask(get("/next", "")),
        routed("a redirect to https", get("/tls/x?y=1", "")),
        routed(
            "a redirect to https of a Host with a port",
            get("/tls/x", "").replace("Host: site", "Host: site:80"),
        ),
        routed("a fixed answer", get("/fixed", "")).ask(get("/next", "")),
        routed(
            "a method that is denied",
            "PURGE / HTTP/1.1\r\nHost: site\r\n\r\n".into(),
        ),
        routed("a field that is denied", get("/", "X-Kind: evil\r\n")),
        routed("a field of another value", get("/", "X-Kind: evil?\r\n")),
        routed(
            "the second of two values is denied",
            get("/", "X-Kind: good\r\nX-Kind: evil\r\n"),
        ),
        routed("a parameter that is denied", get("/?a=b&kind=evil", "")),
        routed(
            "a parameter that is denied, percent-encoded",
            get("/?kind=%65vil", ""),
        ),
        routed("a parameter of another value", get("/?kind=evil1", "")),
        routed(
            "a host that is denied",
            get("/", "").replace("Host: site", "Host: EVIL.example:80"),
        ),
        routed(
            "a host that only ends so",
            get("/", "").replace("Host: site", "Host: not-evil.example"),
        ),
        routed(
            "a path that is denied by a regular expression",
            get("/x.php", ""),
        ),
        routed("a query does not count for it", get("/x?y=z.php", "")),
        other(
            "a field that is absent",
            ABSENT,
            get("/header", "X-Kin: 1\r\n"),
        )
        .ask(get("/header", "x-kind: 1\r\n")),
        other(
            "a field without a value",
            ABSENT,
            get("/header", "X-Kind:\r\n"),
        ),
        other(
            "a parameter that is absent",
            ABSENT,
            get("/query?kin=1", ""),
        )
        .ask(get("/query?a&kind=1", "")),
        other(
            "a parameter with an empty value",
            ABSENT,
            get("/query?kind=", ""),
        ),
        other(
            "a cookie that is absent",
            ABSENT,
            get("/cookie", "Cookie: ID=1; i=2\r\n"),
        )
        .ask(get("/cookie", "Cookie: a=1; id=2\r\n")),
        other(
            "a cookie with an empty value",
            ABSENT,
            get("/cookie", "Cookie: id=\r\n"),
        ),
        other("a prefix that is exchanged", STRIP, get("/api/x?y=1", "")),
        other("a prefix alone that is exchanged", STRIP, get("/api", "")),
        other("a prefix that is not quite it", STRIP, get("/apis", "")),
        other(
            "an expression that is exchanged",
            REGEX,
            get("/user/12", ""),
        ),
        other(
            "an expression that does not match",
            REGEX,
            get("/user/x", ""),
        ),
        other("no password", AUTH, get("/", "")).ask(user("YWRhOnNlY3JldA==")),
        other("a wrong password", AUTH, user("YWRhOndyb25n")),
        other("the right password", AUTH, user("YWRhOnNlY3JldA==")),
        other(
            "a body that is not too large",
            BODY,
            post("/", "0123456789"),
        ),
        other("a body that is too large", BODY, post("/", "0123456789x")),
        other(
            "a body that is too large and waits for 100",
            BODY,
            "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
                .into(),
        ),
        other("two of a key, then one too many", RATE, keyed("/1", "a"))
            .ask(keyed("/2", "a"))
            .ask(keyed("/3", "a"))
            .ask(keyed("/4", "b")),
        conversation("rules: a redirect of HEAD")
            .setup(ROUTES)
            .send("HEAD /old HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead)
            .ask(get("/next", "")),
        conversation("rules: a redirect of a POST whose body has not come")
            .setup(ROUTES)
            .ask("POST /old HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\n"),
        conversation("rules: a redirect of HTTP/1.0")
            .setup(ROUTES)
            .ask("GET /old HTTP/1.0\r\nHost: site\r\n\r\n"),
    ]
}
