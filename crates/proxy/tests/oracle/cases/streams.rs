//! Bytes without HTTP, and the PROXY protocol before them.

use crate::conversation::{Act, Conversation, Server, Step, conversation, get, say, script};
use crate::setup::{Setup, Toml};

const TCP: Setup = Setup {
    tcp: true,
    ..Setup::plain()
};

const TCP_IDLE: Setup = Setup {
    frontend: "timeout client 400ms",
    backend: "timeout server 400ms
    timeout tunnel 400ms",
    gaiola: Toml {
        frontend: "timeouts = { tunnel = '400ms' }",
        ..Toml::plain()
    },
    ..TCP
};

/// How long Gaiola tries again; HAProxy does so as often as `retries` says, once a second.
const TCP_QUEUE: Setup = Setup {
    gaiola: Toml {
        backend: "timeouts = { queue = '400ms' }",
        ..Toml::plain()
    },
    ..TCP
};

const ACCEPT: Setup = Setup {
    bind: "accept-proxy",
    gaiola: Toml {
        bind: "accept_proxy = '127.0.0.0/8'",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const PASS_ON_V1: Setup = Setup {
    servers: ["send-proxy"; 2],
    gaiola: Toml {
        servers: ["send_proxy = 'v1'"; 2],
        ..ACCEPT.gaiola
    },
    ..ACCEPT
};

const PASS_ON_V2: Setup = Setup {
    servers: ["send-proxy-v2"; 2],
    gaiola: Toml {
        servers: ["send_proxy = 'v2'"; 2],
        ..ACCEPT.gaiola
    },
    ..ACCEPT
};

/// A header of version 1.
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n";
/// The same of version 2: 192.0.2.1:1000 to 192.0.2.2:80 over TCP.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\0\x50";
/// A header of version 2 that speaks of nobody.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

pub(crate) fn all() -> Vec<Conversation> {
    let tcp = |name: &str, server: Server| {
        conversation(format!("bytes: {name}"))
            .setup(TCP)
            .server(server)
    };
    let proxy = |name: &str, bytes: &[u8]| {
        let mut all = bytes.to_vec();
        all.extend_from_slice(get("/", "").as_bytes());
        conversation(format!("PROXY: {name}"))
            .setup(ACCEPT)
            .ask(all)
    };
    let echo = |acts: &[Act]| script(acts);
    vec![
        tcp(
            "both talk, the server closes",
            echo(&[Act::TakeBytes(4), say("pong")]),
        )
        .send("ping")
        .ended(),
        tcp(
            "the server speaks first",
            echo(&[say("220 hello\r\n"), Act::TakeBytes(4)]),
        )
        .step(Step::ReadBytes(11))
        .send("quit")
        .ended(),
        tcp("the client sends no more", echo(&[Act::TakeToEnd]))
            .send("all")
            .step(Step::Shut)
            .step(Step::Await(1))
            .ended(),
        tcp(
            "the server sends no more",
            echo(&[say("all"), Act::Shut, Act::TakeToEnd]),
        )
        .step(Step::ReadBytes(3))
        .send("still here")
        .step(Step::Shut)
        .ended()
        .step(Step::Await(1)),
        tcp(
            "the answer comes after the client's end",
            echo(&[Act::TakeBytes(3), Act::Pause, Act::Pause, say("late")]),
        )
        .send("all")
        .step(Step::Shut)
        .ended(),
        tcp(
            "the client resets",
            echo(&[Act::TakeBytes(3), Act::TakeToEnd]),
        )
        .send("all")
        .step(Step::Await(1))
        .step(Step::Reset)
        .step(Step::Await(2)),
        tcp("the server resets", echo(&[Act::TakeBytes(3), Act::Reset]))
            .send("all")
            .ended(),
        tcp(
            "much is said",
            echo(&[say("x".repeat(500_000)), Act::TakeBytes(500_000)]),
        )
        .step(Step::ReadBytes(500_000))
        .send("y".repeat(500_000))
        .ended(),
        tcp("the only server refuses", Server::Refusing)
            .setup(TCP_QUEUE)
            .send("all")
            .ended(),
        tcp("the server closes at once", echo(&[])).ended(),
        conversation("bytes: the first server refuses")
            .setup(TCP)
            .servers([Server::Refusing, echo(&[Act::TakeBytes(4), say("pong")])])
            .send("ping")
            .ended(),
        tcp("both are silent", echo(&[Act::Hold]))
            .setup(TCP_IDLE)
            .send("hello")
            .ended(),
        proxy("version 1", V1),
        proxy(
            "version 1 of IPv6",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n",
        ),
        proxy("version 1 of nobody", b"PROXY UNKNOWN\r\n"),
        proxy("version 2", V2),
        proxy("version 2 of nobody", V2_LOCAL),
        proxy("none", b""),
        proxy(
            "version 1, an address too few",
            b"PROXY TCP4 192.0.2.1 1000 80\r\n",
        ),
        proxy(
            "version 1, no address",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1000 80\r\n",
        ),
        proxy(
            "version 1, a port too large",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 100000 80\r\n",
        ),
        proxy(
            "version 1, ended by a line feed",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\n",
        ),
        proxy(
            "version 1 without an end",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        ),
        proxy(
            "version 2 of another version",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\0\x50",
        ),
        proxy(
            "version 2 that is too short",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xc0\0\x02\x01",
        ),
        conversation("PROXY: version 2 in pieces")
            .setup(ACCEPT)
            .pieces([&V2[..7], &V2[7..20], &V2[20..]])
            .ask(get("/", "")),
        conversation("PROXY: passed on as version 1")
            .setup(PASS_ON_V1)
            .server(script(&[Act::TakeBytes(V1.len()), Act::Serve]))
            .send(V1)
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("PROXY: passed on as version 2")
            .setup(PASS_ON_V2)
            .server(script(&[Act::TakeBytes(V2.len()), Act::Serve]))
            .send(V2)
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("PROXY: two clients do not share a connection")
            .setup(PASS_ON_V1)
            .server(script(&[Act::TakeBytes(V1.len()), Act::Serve]))
            .send(V1)
            .ask(get("/1", ""))
            .open()
            .send("PROXY TCP4 192.0.2.3 192.0.2.2 1000 80\r\n")
            .ask(get("/2", "")),
    ]
}
