//! Each wait that ends, one at a time; all others are long. And who has to wait at all.

use crate::conversation::{
    Act, Conversation, Step, answer, conversation, get, say, script, serving,
};
use crate::setup::{Setup, Toml};

const HEAD: Setup = Setup {
    frontend: "timeout http-request 400ms",
    gaiola: Toml {
        frontend: "timeouts = { http_request = '400ms' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const KEEP_ALIVE: Setup = Setup {
    frontend: "timeout http-keep-alive 400ms",
    gaiola: Toml {
        frontend: "timeouts = { http_keep_alive = '400ms' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const CLIENT: Setup = Setup {
    frontend: "timeout client 400ms",
    // Without it HAProxy waits for the server.
    backend: "timeout server 1s",
    gaiola: Toml {
        frontend: "timeouts = { client = '400ms' }",
        backend: "timeouts = { server = '1s' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const SERVER: Setup = Setup {
    backend: "timeout server 400ms",
    gaiola: Toml {
        backend: "timeouts = { server = '400ms' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const QUEUE: Setup = Setup {
    backend: "timeout queue 400ms",
    servers: ["maxconn 1"; 2],
    gaiola: Toml {
        backend: "timeouts = { queue = '400ms' }",
        servers: ["maxconn = 1"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const ONE_AT_A_TIME: Setup = Setup {
    servers: ["maxconn 1"; 2],
    gaiola: Toml {
        servers: ["maxconn = 1"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const LEAST_CONN: Setup = Setup {
    backend: "balance leastconn",
    gaiola: Toml {
        backend: "balance = 'leastconn'",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const FIRST: Setup = Setup {
    backend: "balance first",
    gaiola: Toml {
        backend: "balance = 'first'",
        servers: ["maxconn = 1"; 2],
        ..Toml::plain()
    },
    ..ONE_AT_A_TIME
};

const TUNNEL: Setup = Setup {
    backend: "timeout tunnel 400ms",
    gaiola: Toml {
        frontend: "timeouts = { tunnel = '400ms' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

pub(crate) fn all() -> Vec<Conversation> {
    let part = "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello";
    let chunk =
        "HTTP/1.1 200 OK\r\nX-Origin: s1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let case = |name: &str, setup: Setup| conversation(format!("timeouts: {name}")).setup(setup);
    vec![
        case("a head that does not end", HEAD).send("GET / HTTP/1.1\r\nHost: si").read(),
        case("a request line that does not end", HEAD).send("GET").read(),
        case("a client that says nothing", HEAD).ended(),
        case("a client that says an empty line", HEAD).send("\r\n").read(),
        case("a second head that does not end", HEAD).ask(get("/1", "")).send("GET /2 HT").read(),
        case("a connection that idles", KEEP_ALIVE).ask(get("/", "")).ended(),
        case("a body that does not come", CLIENT)
            .server(script(&[Act::Take]))
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\n")
            .read(),
        case("a body that does not end", CLIENT)
            .server(script(&[Act::Take]))
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello")
            .read(),
        case("a chunked body that does not end", CLIENT)
            .server(script(&[Act::Take]))
            .send("POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .read(),
        case("a server that does not answer", SERVER).server(script(&[Act::Take, Act::Hold])).ask(get("/", "")),
        case("a server that does not answer POST", SERVER)
            .server(script(&[Act::Take, Act::Hold]))
            .ask(crate::conversation::post("/", "data")),
        case("one of two servers does not answer", SERVER)
            .servers([script(&[Act::Take, Act::Hold]), serving()])
            .ask(get("/", "")),
        case("a server that stops within its head", SERVER)
            .server(script(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-"), Act::Hold]))
            .ask(get("/", "")),
        case("a server that stops after an interim response", SERVER)
            .server(script(&[Act::Take, say("HTTP/1.1 103 Early Hints\r\n\r\n"), Act::Hold]))
            .ask(get("/", "")),
        case("a server that stops within its body", SERVER).server(script(&[Act::Take, say(part), Act::Hold])).ask(get("/", "")),
        case("a server that stops within its chunks", SERVER).server(script(&[Act::Take, say(chunk), Act::Hold])).ask(get("/", "")),
        case("the connection after 504", SERVER)
            .server(crate::conversation::Server::Script(vec![vec![Act::Take, Act::Hold], vec![Act::Serve]]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        case("no server has room in time", QUEUE)
            .server(script(&[Act::Take, Act::Hold]))
            .send(get("/1", ""))
            .step(Step::Await(1))
            .open()
            .ask(get("/2", "")),
        case("a server has room in time", ONE_AT_A_TIME)
            .server(script(&[Act::Take, Act::Pause, Act::Pause, Act::Pause, say(answer("200 OK", "", "slow")), Act::Serve]))
            .send(get("/1", ""))
            .step(Step::Await(1))
            .open()
            .send(get("/2", ""))
            .step(Step::On(1))
            .read()
            .step(Step::On(2))
            .read(),
        case("two servers with room for one each", ONE_AT_A_TIME)
            .servers([script(&[Act::Take, Act::Hold]), serving()])
            .send(get("/1", ""))
            .step(Step::Await(1))
            .open()
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        case("the least busy server", LEAST_CONN)
            .servers([script(&[Act::Take, Act::Hold]), serving()])
            .send(get("/1", ""))
            .step(Step::Await(1))
            .open()
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        case("the first server with room", FIRST)
            .servers([script(&[Act::Take, Act::Hold]), serving()])
            .send(get("/1", ""))
            .step(Step::Await(1))
            .open()
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        case("a tunnel that idles", TUNNEL)
            .server(script(&[Act::TakeHead, say("HTTP/1.1 101 Switching Protocols\r\nX-Origin: s1\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"), Act::TakeToEnd]))
            .ask(get("/", "Connection: upgrade\r\nUpgrade: echo\r\n"))
            .ended()
            .step(Step::Await(2)),
        case("the client leaves while the server thinks", HEAD)
            .server(script(&[Act::Take, Act::TakeToEnd]))
            .send(get("/", ""))
            .step(Step::Await(1))
            .step(Step::Reset)
            .step(Step::Await(2)),
    ]
}
