//! TLS with clients.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, post, say, saying, script,
};
use crate::setup::{Setup, Toml};
use crate::tls::Hello;
use rustls::version::{TLS12, TLS13};

const SITE: Setup = Setup {
    bind: "ssl crt site.pem crt other.pem",
    gaiola: Toml {
        bind: "tls = { certificates = ['site.pem', 'other.pem'] }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const BYTES: Setup = Setup { tcp: true, ..SITE };

const ALPN: Setup = Setup {
    bind: "ssl crt site.pem alpn http/1.1",
    gaiola: Toml {
        bind: "tls = { certificates = 'site.pem', alpn = 'http/1.1' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const NEW: Setup = Setup {
    bind: "ssl crt site.pem ssl-min-ver TLSv1.3",
    gaiola: Toml {
        bind: "tls = { certificates = 'site.pem', min_version = '1.3' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const REQUIRED: Setup = Setup {
    bind: "ssl crt site.pem ca-file ca.pem verify required",
    gaiola: Toml {
        bind: "tls = { certificates = 'site.pem', client_ca = 'ca.pem' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const OPTIONAL: Setup = Setup {
    bind: "ssl crt site.pem ca-file ca.pem verify optional",
    gaiola: Toml {
        bind: "tls = { certificates = 'site.pem', client_ca = 'ca.pem', client_certificate = 'optional' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const TO_HTTPS: Setup = Setup {
    frontend: "http-request redirect scheme https code 308 unless { ssl_fc }",
    gaiola: Toml {
        frontend: "rule = [{ redirect = 'https' }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const FIELDS: Setup = Setup {
    frontend: "http-request redirect location %[ssl_fc,iif(https,http)]://other.test%[path] code 302 if { path /away }
    http-request set-header X-Scheme %[ssl_fc,iif(https,http)]
    http-after-response set-header Strict-Transport-Security max-age=31536000 if { ssl_fc }",
    gaiola: Toml {
        frontend: "rule = [{ hsts = '365d' }, { set_header = 'X-Scheme', value = '{scheme}' }]
route = [{ path_exact = '/away', rule = [{ redirect = '{scheme}://other.test{path}' }] }]",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const HEAD: Setup = Setup {
    frontend: "timeout http-request 400ms",
    gaiola: Toml {
        frontend: "timeouts = { http_request = '400ms' }",
        ..SITE.gaiola
    },
    ..SITE
};

/// HAProxy counts a handshake as the client's silence.
const HANDSHAKE: Setup = Setup {
    frontend: "timeout client 400ms",
    ..HEAD
};

const KEEP_ALIVE: Setup = Setup {
    frontend: "timeout http-keep-alive 400ms",
    gaiola: Toml {
        frontend: "timeouts = { http_keep_alive = '400ms' }",
        ..SITE.gaiola
    },
    ..SITE
};

const OLD: Hello = Hello {
    versions: &[&TLS12],
    ..Hello::plain()
};

const NEWEST: Hello = Hello {
    versions: &[&TLS13],
    ..Hello::plain()
};

/// Of a client that speaks TLS 1.1 at most.
const HELLO_OF_1_1: &[u8] = b"\x16\x03\x01\0\x45\x01\0\0\x41\x03\x02\
    0123456789abcdef0123456789abcdef\0\0\x06\xc0\x09\xc0\x13\0\x2f\x01\0\
    \0\x12\0\x0a\0\x06\0\x04\0\x1d\0\x17\0\x0b\0\x04\x03\0\x01\x02";

pub(crate) fn all() -> Vec<Conversation> {
    [handshakes(), certificates(), requests(), ends(), bytes()].concat()
}

fn case(name: &str, setup: Setup, hello: Hello) -> Conversation {
    conversation(format!("TLS: {name}"))
        .setup(setup)
        .hello(hello)
}

fn usual(name: &str) -> Conversation {
    case(name, SITE, Hello::plain())
}

fn asking(name: Option<&'static str>) -> Hello {
    Hello {
        name,
        ..Hello::plain()
    }
}

fn speaking(protocols: &'static [&'static str]) -> Hello {
    Hello {
        protocols,
        ..Hello::plain()
    }
}

fn over_tls(setup: Setup) -> Setup {
    let bind = SITE.gaiola.bind;
    Setup {
        bind: SITE.bind,
        gaiola: Toml {
            bind,
            ..setup.gaiola
        },
        ..setup
    }
}

/// The handshake, and what comes before and instead of it.
fn handshakes() -> Vec<Conversation> {
    let named = |what: &str, name| case(what, SITE, asking(name)).ask(get("/", ""));
    let raw = |name: &str| conversation(format!("TLS: {name}")).setup(SITE);
    vec![
        named("the name of the first certificate", Some("site.test")),
        named("the name of another certificate", Some("other.test")),
        named("a name in capitals", Some("OTHER.test")),
        named("a name below a wildcard", Some("a.wild.test")),
        named("a name two below a wildcard", Some("a.b.wild.test")),
        named("a name that no certificate is for", Some("nobody.test")),
        named("no name", None),
        case("ALPN of HTTP/1.1", ALPN, speaking(&["http/1.1"])).ask(get("/", "")),
        case(
            "ALPN of HTTP/2 and 1.1",
            ALPN,
            speaking(&["h2", "http/1.1"]),
        )
        .ask(get("/", "")),
        case("ALPN of something unknown", ALPN, speaking(&["spdy/1"])).ask(get("/", "")),
        case("no ALPN where it is offered", ALPN, Hello::plain()).ask(get("/", "")),
        case("ALPN where it is not offered", SITE, speaking(&["h2"])).ask(get("/", "")),
        case("version 1.2", SITE, OLD).ask(get("/", "")),
        case("version 1.2 where 1.3 is needed", NEW, OLD).ask(get("/", "")),
        case("version 1.3 where it is needed", NEW, NEWEST).ask(get("/", "")),
        raw("version 1.1").send(HELLO_OF_1_1).ended(),
        raw("a plain request").send(get("/", "")).ended(),
        raw("garbage").send([0xff; 64]).ended(),
        raw("a client that says nothing and leaves")
            .step(Step::Shut)
            .ended(),
        raw("a handshake that breaks off")
            .send(&HELLO_OF_1_1[..20])
            .step(Step::Pause)
            .step(Step::Shut)
            .ended(),
        raw("a handshake that does not begin")
            .setup(HANDSHAKE)
            .ended(),
        raw("a handshake that does not end")
            .setup(HANDSHAKE)
            .send(&HELLO_OF_1_1[..20])
            .ended(),
    ]
}

/// What clients show.
fn certificates() -> Vec<Conversation> {
    let shows = |certificate| Hello {
        certificate,
        ..Hello::plain()
    };
    let old = |certificate| Hello { certificate, ..OLD };
    let required = |name: &str, hello| {
        case(
            &format!("a certificate is required, {name}"),
            REQUIRED,
            hello,
        )
        .ask(get("/", ""))
    };
    let optional = |name: &str, hello| {
        case(
            &format!("a certificate is asked for, {name}"),
            OPTIONAL,
            hello,
        )
        .ask(get("/", ""))
    };
    vec![
        required("none", shows(None)),
        required("none, version 1.2", old(None)),
        required("a right one", shows(Some("client"))),
        required("a right one, version 1.2", old(Some("client"))),
        required("one of another CA", shows(Some("foreign"))),
        required("one of another CA, version 1.2", old(Some("foreign"))),
        required("one that has expired", shows(Some("expired"))),
        optional("none", shows(None)),
        optional("a right one", shows(Some("client"))),
        optional("one of another CA", shows(Some("foreign"))),
        case(
            "no certificate is asked for, one is there",
            SITE,
            shows(Some("client")),
        )
        .ask(get("/", "")),
    ]
}

/// What goes through.
fn requests() -> Vec<Conversation> {
    let both = |name: &str, setup: Setup, request: &str| {
        let request = get(request, "");
        let plain = conversation(format!("TLS: none, {name}")).setup(setup);
        [
            plain.ask(&request),
            case(name, over_tls(setup), Hello::plain()).ask(&request),
        ]
    };
    let tls_only = |name: &str| case(name, over_tls(FIELDS), Hello::plain());
    let mut all = vec![
        usual("three requests")
            .ask(get("/1", ""))
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        usual("three requests at once")
            .send([get("/1", ""), get("/2", ""), get("/3", "")].concat())
            .read()
            .read()
            .read(),
        usual("a request in pieces")
            .pieces(["GET / HT", "TP/1.1\r\nHost: si", "te\r\n\r\n"])
            .read(),
        usual("a body")
            .ask(post("/", "hello"))
            .ask(get("/next", "")),
        usual("a body of 200 KB").ask(post("/", &"x".repeat(200_000))),
        usual("a response of 200 KB")
            .server(saying(answer("200 OK", "", &"y".repeat(200_000))))
            .ask(get("/", "")),
        usual("Connection: close").ask(get("/", "Connection: close\r\n")),
        usual("a client that says that it came by http").ask(get(
            "/",
            "X-Forwarded-Proto: http\r\nX-Forwarded-For: 192.0.2.1\r\n",
        )),
        usual("a malformed request").send("nonsense\r\n\r\n").read(),
        tls_only("HSTS in an error")
            .server(Server::Refusing)
            .ask(get("/x", "")),
        tls_only("HSTS that the server says itself")
            .server(saying(answer(
                "200 OK",
                "Strict-Transport-Security: max-age=1\r\n",
                "hello",
            )))
            .ask(get("/x", "")),
    ];
    all.extend(both("a redirect to https", TO_HTTPS, "/x?y"));
    all.extend(both("a redirect with the scheme", FIELDS, "/away"));
    all.extend(both("the scheme and HSTS", FIELDS, "/x"));
    all
}

/// How a connection ends: by close_notify, or without.
fn ends() -> Vec<Conversation> {
    let part = "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello";
    let holding = || {
        script(&[
            Act::Take,
            Act::Pause,
            Act::Pause,
            say(answer("200 OK", "", "late")),
            Act::Hold,
        ])
    };
    let until_end = |acts: &[Act]| {
        let head = say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello");
        script(&[&[Act::Take, head, Act::Pause], acts].concat())
    };
    vec![
        usual("close_notify before a request")
            .step(Step::Notify)
            .ended(),
        usual("close_notify between requests")
            .ask(get("/1", ""))
            .step(Step::Notify)
            .ended(),
        usual("an end without close_notify between requests")
            .ask(get("/1", ""))
            .step(Step::Shut)
            .ended(),
        usual("close_notify within a head")
            .send("GET / HTTP/1.1\r\nHo")
            .step(Step::Pause)
            .step(Step::Notify)
            .read(),
        usual("an end without close_notify within a head")
            .send("GET / HTTP/1.1\r\nHo")
            .step(Step::Pause)
            .step(Step::Shut)
            .read(),
        usual("close_notify within a body")
            .send(part)
            .step(Step::Pause)
            .step(Step::Notify)
            .read(),
        usual("an end without close_notify within a body")
            .send(part)
            .step(Step::Pause)
            .step(Step::Shut)
            .read(),
        usual("a reset within a body")
            .send(part)
            .step(Step::Pause)
            .step(Step::Reset),
        usual("close_notify behind a request")
            .server(holding())
            .send(get("/", ""))
            .step(Step::Await(1))
            .step(Step::Notify)
            .read(),
        usual("an end without close_notify behind a request")
            .server(holding())
            .send(get("/", ""))
            .step(Step::Await(1))
            .step(Step::Shut)
            .read(),
        usual("a response until the end")
            .server(until_end(&[]))
            .ask(get("/", "")),
        usual("a response until the end, which is a reset")
            .server(until_end(&[Act::Reset]))
            .ask(get("/", "")),
        usual("a response that breaks off")
            .server(script(&[
                Act::Take,
                say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello"),
                Act::Pause,
            ]))
            .ask(get("/", "")),
        case("a connection that idles", KEEP_ALIVE, Hello::plain())
            .ask(get("/", ""))
            .ended(),
        case("a head that does not end", HEAD, Hello::plain())
            .send("GET / HTTP/1.1\r\nHo")
            .read(),
    ]
}

/// Bytes without HTTP.
fn bytes() -> Vec<Conversation> {
    let tcp = |name: &str, acts: &[Act]| {
        case(&format!("bytes, {name}"), BYTES, Hello::plain()).server(script(acts))
    };
    vec![
        tcp("the server closes", &[Act::TakeBytes(4), say("pong")])
            .send("ping")
            .ended(),
        tcp("the server resets", &[Act::TakeBytes(4), Act::Reset])
            .send("ping")
            .ended(),
        tcp("the client ends by close_notify", &[Act::TakeToEnd])
            .send("all")
            .step(Step::Notify)
            .step(Step::Await(1))
            .ended(),
        tcp("the client ends without close_notify", &[Act::TakeToEnd])
            .send("all")
            .step(Step::Pause)
            .step(Step::Shut)
            .step(Step::Await(1))
            .ended(),
        tcp(
            "the answer comes after close_notify",
            &[Act::TakeBytes(3), Act::Pause, Act::Pause, say("late")],
        )
        .send("all")
        .step(Step::Notify)
        .ended(),
        tcp(
            "the server sends no more",
            &[say("all"), Act::Shut, Act::TakeToEnd],
        )
        .step(Step::ReadBytes(3))
        .send("still here")
        .step(Step::Notify)
        .ended()
        .step(Step::Await(1)),
    ]
}
