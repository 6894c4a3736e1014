//! TLS with servers.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, post, say, script, serving,
};
use crate::setup::{Setup, Toml};

const VERIFIED: Setup = Setup {
    servers: ["ssl verify required ca-file ca.pem verifyhost server.test sni str(server.test)"; 2],
    gaiola: Toml {
        servers: ["tls = { ca = 'ca.pem', host = 'server.test' }"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const NOT_VERIFIED: Setup = Setup {
    servers: ["ssl verify none"; 2],
    gaiola: Toml {
        servers: ["tls = { verify = false }"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const OWN: Setup = Setup {
    servers: ["ssl verify required ca-file ca.pem verifyhost server.test sni str(server.test) crt client.pem";
        2],
    gaiola: Toml {
        servers: ["tls = { ca = 'ca.pem', host = 'server.test', certificate = 'client.pem' }"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const SHORT: Setup = Setup {
    backend: "timeout connect 400ms",
    gaiola: Toml {
        backend: "timeouts = { connect = '400ms' }",
        ..VERIFIED.gaiola
    },
    ..VERIFIED
};

const BYTES: Setup = Setup {
    tcp: true,
    ..VERIFIED
};

pub(crate) fn all() -> Vec<Conversation> {
    let case = |name: &str, setup: Setup, server: Server| {
        conversation(format!("TLS to servers: {name}"))
            .setup(setup)
            .server(server)
    };
    let with = |name: &str, setup: Setup, certificate| {
        case(name, setup, over(certificate, &[Act::Serve])).ask(get("/", ""))
    };
    let until_end = |acts: &[Act]| {
        let head = say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello");
        over("server", &[&[Act::Take, head, Act::Pause], acts].concat())
    };
    let part = say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello");
    vec![
        with("a right certificate", VERIFIED, "server")
            .ask(post("/", "hello"))
            .ask(get("/2", "")),
        with("a certificate for another name", VERIFIED, "other"),
        with("a certificate of another CA", VERIFIED, "foreign"),
        with("a certificate that has expired", VERIFIED, "expired"),
        with(
            "a certificate that nobody verifies",
            NOT_VERIFIED,
            "foreign",
        ),
        case(
            "a POST, and a certificate of another CA",
            VERIFIED,
            over("foreign", &[Act::Serve]),
        )
        .ask(post("/", "data")),
        case(
            "the first server's certificate is another CA's",
            VERIFIED,
            serving(),
        )
        .servers([
            over("foreign", &[Act::Serve]),
            over("server", &[Act::Serve]),
        ])
        .ask(get("/", "")),
        case(
            "a server that asks for a certificate and gets it",
            OWN,
            script(&[Act::MutualTls("server"), Act::Serve]),
        )
        .ask(get("/", "")),
        case(
            "a server that asks for a certificate and gets none",
            VERIFIED,
            script(&[Act::MutualTls("server"), Act::Serve]),
        )
        .ask(get("/", "")),
        case(
            "a server that speaks no TLS",
            VERIFIED,
            script(&[Act::TakeBytes(1), say("HTTP/1.1 400 Bad Request\r\n\r\n")]),
        )
        .ask(get("/", "")),
        case(
            "a server that hangs up in the handshake",
            VERIFIED,
            script(&[Act::TakeBytes(1)]),
        )
        .ask(get("/", "")),
        case(
            "a server that is silent in the handshake",
            SHORT,
            script(&[Act::Hold]),
        )
        .ask(get("/", "")),
        case("a body of 200 KB", VERIFIED, over("server", &[Act::Serve]))
            .ask(post("/", &"x".repeat(200_000))),
        case(
            "a response until close_notify",
            VERIFIED,
            until_end(&[Act::Notify]),
        )
        .ask(get("/", "")),
        case(
            "a response until close_notify, and a connection left open",
            VERIFIED,
            until_end(&[Act::Notify, Act::Hold]),
        )
        .ask(get("/", "")),
        case(
            "a response until the end without close_notify",
            VERIFIED,
            until_end(&[]),
        )
        .ask(get("/", "")),
        case(
            "a response until a reset",
            VERIFIED,
            until_end(&[Act::Reset]),
        )
        .ask(get("/", "")),
        case(
            "a response that breaks off with close_notify",
            VERIFIED,
            over("server", &[Act::Take, part.clone(), Act::Notify]),
        )
        .ask(get("/", "")),
        case(
            "a response that breaks off without close_notify",
            VERIFIED,
            over("server", &[Act::Take, part]),
        )
        .ask(get("/", "")),
        case(
            "a server that hangs up on a request",
            VERIFIED,
            over("server", &[Act::Take, Act::Notify]),
        )
        .ask(get("/", "")),
        case(
            "a kept connection that ends by close_notify alone",
            VERIFIED,
            Server::Script(vec![
                vec![
                    Act::Tls("server"),
                    Act::Take,
                    say(answer("200 OK", "", "one")),
                    Act::Notify,
                    Act::Hold,
                ],
                vec![Act::Tls("server"), Act::Serve],
            ]),
        )
        .ask(get("/1", ""))
        .step(Step::Pause)
        .ask(get("/2", "")),
        case(
            "bytes, the server ends by close_notify",
            BYTES,
            over("server", &[Act::TakeBytes(4), say("pong"), Act::Notify]),
        )
        .send("ping")
        .ended(),
        case(
            "bytes, the server ends without close_notify",
            BYTES,
            over("server", &[Act::TakeBytes(4), say("pong")]),
        )
        .send("ping")
        .ended(),
        case(
            "bytes, the client sends no more",
            BYTES,
            over("server", &[Act::TakeToEnd, Act::Notify]),
        )
        .send("all")
        .step(Step::Await(1))
        .step(Step::Shut)
        .step(Step::Await(3))
        .ended(),
    ]
}

/// A server that does this over TLS, with the certificate of this name.
fn over(certificate: &'static str, acts: &[Act]) -> Server {
    script(&[&[Act::Tls(certificate)], acts].concat())
}
