//! The cookie that keeps a client at its server.

use crate::conversation::{
    Act, Conversation, Server, answer, conversation, get, say, script, serving,
};
use crate::setup::{Setup, Toml};

const NAMES: [&str; 2] = ["cookie one", "cookie two"];
const GAIOLA_NAMES: [&str; 2] = ["cookie = 'one'", "cookie = 'two'"];

const INSERT: Setup = Setup {
    backend: "cookie SRV insert",
    servers: NAMES,
    gaiola: Toml {
        backend: "sticky = { cookie = 'SRV' }",
        servers: GAIOLA_NAMES,
        ..Toml::plain()
    },
    ..Setup::plain()
};

const INDIRECT: Setup = Setup {
    backend: "cookie SRV insert indirect",
    servers: NAMES,
    gaiola: Toml {
        backend: "sticky = { cookie = 'SRV', indirect = true }",
        servers: GAIOLA_NAMES,
        ..Toml::plain()
    },
    ..Setup::plain()
};

const NO_CACHE: Setup = Setup {
    backend: "cookie SRV insert indirect nocache",
    servers: NAMES,
    gaiola: Toml {
        backend: "sticky = { cookie = 'SRV', indirect = true, nocache = true }",
        servers: GAIOLA_NAMES,
        ..Toml::plain()
    },
    ..Setup::plain()
};

const ATTRIBUTES: Setup = Setup {
    backend: "cookie SRV insert indirect httponly secure domain example.org attr SameSite=Lax",
    servers: NAMES,
    gaiola: Toml {
        backend: "sticky = { cookie = 'SRV', indirect = true, http_only = true, secure = true, domain = 'example.org', same_site = 'lax' }",
        servers: GAIOLA_NAMES,
        ..Toml::plain()
    },
    ..Setup::plain()
};

const DRAINED: Setup = Setup {
    backend: "cookie SRV insert indirect",
    servers: ["cookie one weight 0", "cookie two"],
    gaiola: Toml {
        backend: "sticky = { cookie = 'SRV', indirect = true }",
        servers: ["cookie = 'one', weight = 0", "cookie = 'two'"],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const BY_HEADER: Setup = Setup {
    backend: "balance hdr(X-Key)
    hash-type consistent",
    gaiola: Toml {
        backend: "balance = 'hash'\nhash = { on = 'header', name = 'X-Key', bound = 'none' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

pub(crate) fn all() -> Vec<Conversation> {
    let case = |name: &str, setup: Setup| {
        conversation(format!("sticky: {name}"))
            .setup(setup)
            .servers([serving(), serving()])
    };
    let with = |cookie: &str| get("/", &format!("Cookie: {cookie}\r\n"));
    vec![
        case("a new client", INSERT).ask(get("/", "")),
        case("a client that comes back", INSERT)
            .ask(with("SRV=two"))
            .ask(with("SRV=two")),
        case("each client its own", INSERT)
            .ask(with("SRV=two"))
            .ask(with("SRV=one"))
            .ask(with("SRV=two")),
        case("a cookie among others", INSERT).ask(with("a=b; SRV=two; c=d")),
        case("the cookie in a second field", INSERT)
            .ask(get("/", "Cookie: a=b\r\nCookie: SRV=two\r\n")),
        case("a name that nobody has", INSERT).ask(with("SRV=three")),
        case("an empty name", INSERT).ask(with("SRV=")),
        case("a name in capitals", INSERT).ask(with("SRV=TWO")),
        case("a cookie that only ends so", INSERT).ask(with("XSRV=two")),
        case("a cookie in another case", INSERT).ask(with("srv=two")),
        case("a name in quotes", INSERT).ask(with("SRV=\"two\"")),
        case("the cookie twice", INSERT).ask(with("SRV=two; SRV=one")),
        case("indirect, a new client", INDIRECT).ask(get("/", "")),
        case("indirect, the server does not see it", INDIRECT).ask(with("SRV=two")),
        case("indirect, first among others", INDIRECT).ask(with("SRV=two; a=b")),
        case("indirect, last among others", INDIRECT).ask(with("a=b; SRV=two")),
        case("indirect, between others", INDIRECT).ask(with("a=b; SRV=two; c=d")),
        case("indirect, a name that nobody has", INDIRECT).ask(with("a=b; SRV=three")),
        case("nocache, a new client", NO_CACHE).ask(get("/", "")),
        case("nocache, a client that comes back", NO_CACHE).ask(with("SRV=two")),
        case("attributes", ATTRIBUTES).ask(get("/", "")),
        case("a drained server keeps its clients", DRAINED)
            .ask(with("SRV=one"))
            .ask(get("/", "")),
        case("its server refuses", INDIRECT)
            .servers([serving(), Server::Refusing])
            .ask(with("SRV=two")),
        case("its server hangs up", INDIRECT)
            .servers([serving(), script(&[Act::Take])])
            .ask(with("SRV=two")),
        case("its server answers an error", INDIRECT)
            .servers([
                serving(),
                script(&[
                    Act::Take,
                    say(answer("500 Internal Server Error", "", "oh")),
                    Act::Serve,
                ]),
            ])
            .ask(with("SRV=two")),
        case("the server sets the cookie itself", INDIRECT)
            .servers([
                script(&[
                    Act::Take,
                    say(answer(
                        "200 OK",
                        "Set-Cookie: SRV=evil\r\nSet-Cookie: a=b\r\n",
                        "hello",
                    )),
                    Act::Serve,
                ]),
                serving(),
            ])
            .ask(get("/", "")),
        case("all its servers refuse", INSERT)
            .servers([Server::Refusing, Server::Refusing])
            .ask(get("/", "")),
        case("the same key, the same server", BY_HEADER)
            .servers([serving()])
            .ask(get("/1", "X-Key: a\r\n"))
            .ask(get("/2", "X-Key: a\r\n")),
    ]
}
