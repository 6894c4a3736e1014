//! Requests that fail: which are sent again, where to, and what the client receives in the end.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, post, say, script, serving,
};
use crate::setup::{Setup, Toml};
use Server::Refusing;

/// Reads a request and closes.
fn hanging_up() -> Server {
    script(&[Act::Take])
}

/// Reads a request and resets.
fn resetting() -> Server {
    script(&[Act::Take, Act::Reset])
}

/// Closes at once.
fn closing() -> Server {
    script(&[])
}

pub(crate) fn all() -> Vec<Conversation> {
    let case = |name: &str, servers: Vec<Server>, request: String| {
        conversation(format!("retries: {name}"))
            .servers(servers)
            .ask(request)
    };
    let refused = "HTTP/1.1 503 Service Unavailable\r\nX-Origin: s1\r\nContent-Length: 0\r\n\r\n";
    let large = "x".repeat(200_000);
    vec![
        case("the first server refuses", vec![Refusing, serving()], get("/", "")),
        case("the first server refuses a POST", vec![Refusing, serving()], post("/", "data")),
        case("two servers refuse", vec![Refusing, Refusing, serving()], get("/", "")),
        case("all servers refuse", vec![Refusing, Refusing], get("/", "")),
        case("the only server refuses", vec![Refusing], get("/", "")),
        case("the only server refuses a POST", vec![Refusing], post("/", "data")),
        conversation("retries: the only server refuses HEAD")
            .server(Refusing)
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
        case("the first server hangs up", vec![hanging_up(), serving()], get("/", "")),
        conversation("retries: the first server hangs up on HEAD")
            .servers([hanging_up(), serving()])
            .send("HEAD / HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead),
        case("the first server hangs up on PUT", vec![hanging_up(), serving()], post("/", "data").replace("POST", "PUT")),
        case("the first server hangs up on DELETE", vec![hanging_up(), serving()], "DELETE / HTTP/1.1\r\nHost: site\r\n\r\n".into()),
        case("the first server hangs up on POST", vec![hanging_up(), serving()], post("/", "data")),
        case("the first server hangs up on PATCH", vec![hanging_up(), serving()], post("/", "data").replace("POST", "PATCH")),
        case("the first server hangs up on a chunked PUT", vec![hanging_up(), serving()], "PUT / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()),
        case("the first server hangs up on a PUT of 200 KB", vec![hanging_up(), serving()], post("/", &large).replace("POST", "PUT")),
        case("the first server resets", vec![resetting(), serving()], get("/", "")),
        case("the first server resets a POST", vec![resetting(), serving()], post("/", "data")),
        case("all servers hang up", vec![hanging_up(), hanging_up()], get("/", "")),
        case("the only server hangs up", vec![hanging_up()], get("/", "")),
        case("the only server hangs up on POST", vec![hanging_up()], post("/", "data")),
        case("the only server resets", vec![resetting()], get("/", "")),
        case("the only server closes at once", vec![closing()], get("/", "")),
        case("the only server answers at the second time", vec![Server::Script(vec![vec![Act::Take], vec![Act::Serve]])], get("/", "")),
        case("the first server breaks off within its head", vec![script(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-Or")]), serving()], get("/", "")),
        case("the first server answers malformed", vec![script(&[Act::Take, say("nonsense\r\n\r\n")]), serving()], get("/", "")),
        case("the first server answers 503", vec![script(&[Act::Take, say(refused), Act::Serve]), serving()], get("/", "")),
        case("the first server breaks off within its body", vec![script(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello"), Act::Pause]), serving()], get("/", "")),
        case("the first server breaks off after an interim response", vec![script(&[Act::Take, say("HTTP/1.1 103 Early Hints\r\n\r\n"), Act::Pause]), serving()], get("/", "")),
        case("a server that is deaf", vec![Server::Deaf, serving()], get("/", "")).setup(CONNECT),
        case("the only server is deaf", vec![Server::Deaf], get("/", "")).setup(CONNECT),
        case("no server is there", vec![serving()], get("/", "")).setup(DISABLED),
        case("the first server is drained", vec![serving(), serving()], get("/1", "")).setup(WEIGHTLESS).ask(get("/2", "")),
        conversation("retries: a spare server takes over").setup(SPARE).servers([Refusing, serving()]).ask(get("/", "")),
        conversation("retries: a spare server is left alone").setup(SPARE).servers([serving(), serving()]).ask(get("/1", "")).ask(get("/2", "")),
        conversation("retries: a connection that was closed meanwhile, and a server that hangs up then")
            .servers([Server::Script(vec![vec![Act::Take, say(answer("200 OK", "", "one"))], vec![Act::Take]])])
            .ask(get("/1", ""))
            .step(Step::Await(2))
            .ask(get("/2", "")),
        conversation("retries: the connection is kept after 502")
            .server(Server::Script(vec![vec![Act::Take, say("nonsense\r\n\r\n")], vec![Act::Serve]]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("retries: the connection is kept after 503")
            .server(Refusing)
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("retries: 503 to a POST whose body has not come")
            .server(Refusing)
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\n")
            .read(),
        conversation("retries: 503 to a POST that waits for 100")
            .server(Refusing)
            .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
            .read(),
    ]
}

const CONNECT: Setup = Setup {
    backend: "timeout connect 400ms",
    gaiola: Toml {
        backend: "timeouts = { connect = '400ms' }",
        ..Toml::plain()
    },
    ..Setup::plain()
};

const DISABLED: Setup = Setup {
    servers: ["disabled"; 2],
    gaiola: Toml {
        servers: ["disabled = true"; 2],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const WEIGHTLESS: Setup = Setup {
    servers: ["weight 0", ""],
    gaiola: Toml {
        servers: ["weight = 0", ""],
        ..Toml::plain()
    },
    ..Setup::plain()
};

const SPARE: Setup = Setup {
    servers: ["", "backup"],
    gaiola: Toml {
        servers: ["", "spare = true"],
        ..Toml::plain()
    },
    ..Setup::plain()
};
