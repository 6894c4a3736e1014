//! Which connections are used again, on both sides.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, post, say, saying, serving,
};
use crate::setup::{Setup, Toml};

/// The first client's connections are of use to the second one.
pub(crate) fn all() -> Vec<Conversation> {
    let once = |acts: &[Act]| Server::Script(vec![acts.to_vec(), vec![Act::Serve]]);
    let old = "GET / HTTP/1.0\r\nHost: site\r\n";
    vec![
        conversation("reuse: three requests on one connection")
            .ask(get("/1", ""))
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        conversation("reuse: bodies between them")
            .ask(post("/1", "one"))
            .ask("POST /2 HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n")
            .ask(get("/3", "")),
        conversation("reuse: HEAD between them")
            .ask(get("/1", ""))
            .send("HEAD /2 HTTP/1.1\r\nHost: site\r\n\r\n")
            .step(Step::ReadHead)
            .ask(get("/3", "")),
        conversation("reuse: pipelined")
            .send([get("/1", ""), get("/2", ""), get("/3", "")].concat())
            .read()
            .read()
            .read(),
        conversation("reuse: pipelined with bodies")
            .send([post("/1", "one"), post("/2", "two"), get("/3", "")].concat())
            .read()
            .read()
            .read(),
        conversation("reuse: pipelined, and the first one closes")
            .send([get("/1", "Connection: close\r\n"), get("/2", "")].concat())
            .read()
            .read(),
        conversation("reuse: pipelined behind a response that closes")
            .server(once(&[Act::Take, say(answer("200 OK", "Connection: close\r\n", "bye"))]))
            .send([get("/1", ""), get("/2", "")].concat())
            .read()
            .read(),
        conversation("reuse: pipelined, cut within the second head")
            .pieces([format!("{}GET /2 HT", get("/1", "")), "TP/1.1\r\nHost: site\r\n\r\n".into()])
            .read()
            .read(),
        conversation("reuse: an empty line between two requests")
            .ask(post("/1", "one"))
            .ask(format!("\r\n{}", get("/2", ""))),
        conversation("reuse: the client closes").ask(get("/1", "Connection: close\r\n")).ended(),
        conversation("reuse: the client closes among other options").ask(get("/1", "Connection: foo, CLOSE\r\n")).ended(),
        conversation("reuse: the client says close and keep-alive").ask(get("/1", "Connection: close, keep-alive\r\n")).ended(),
        conversation("reuse: the server closes").server(once(&[Act::Take, say(answer("200 OK", "Connection: close\r\n", "bye"))]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("reuse: the server closes without saying so").server(once(&[Act::Take, say(answer("200 OK", "", "bye"))]))
            .ask(get("/1", ""))
            .step(Step::Await(2))
            .ask(get("/2", "")),
        conversation("reuse: the server closes without saying so, before a POST").server(once(&[Act::Take, say(answer("200 OK", "", "bye"))]))
            .ask(get("/1", ""))
            .step(Step::Await(2))
            .ask(post("/2", "data")),
        conversation("reuse: the server resets an idle connection").server(once(&[Act::Take, say(answer("200 OK", "", "bye")), Act::Pause, Act::Reset]))
            .ask(get("/1", ""))
            .step(Step::Await(2))
            .ask(get("/2", "")),
        conversation("reuse: the server answers with HTTP/1.0").server(once(&[Act::Take, say("HTTP/1.0 200 OK\r\nX-Origin: s1\r\nContent-Length: 3\r\n\r\nold"), Act::Hold]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("reuse: the server answers with HTTP/1.0 and keeps the connection").server(saying_twice("HTTP/1.0 200 OK\r\nX-Origin: s1\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold"))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("reuse: a body that ends with the server's connection").server(once(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello")]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("reuse: HTTP/1.0 closes").ask(format!("{old}\r\n")).ended(),
        conversation("reuse: HTTP/1.0 keeps the connection where asked")
            .ask(format!("{old}Connection: keep-alive\r\n\r\n"))
            .ask(format!("{old}Connection: keep-alive\r\n\r\n")),
        conversation("reuse: HTTP/1.0, and a body without a length")
            .server(once(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\n\r\nhello")]))
            .ask(format!("{old}Connection: keep-alive\r\n\r\n"))
            .ended(),
        conversation("reuse: HTTP/1.0 after HTTP/1.1").ask(get("/1", "")).ask(format!("{old}\r\n")).ended(),
        conversation("reuse: another client, the same server's connection")
            .ask(get("/1", ""))
            .open()
            .ask(get("/2", "")),
        conversation("reuse: another client after the first has gone")
            .ask(get("/1", "Connection: close\r\n"))
            .ended()
            .open()
            .ask(get("/2", "")),
        conversation("reuse: another client's POST").ask(get("/1", "")).open().ask(post("/2", "data")),
        private("NTLM", "401 Unauthorized", "WWW-Authenticate: NTLM\r\n"),
        private("Negotiate among others", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"a, b\", Negotiate\r\n"),
        private("NTLM in a line of its own", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM\r\n"),
        private("Basic binds nothing", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"NTLM\"\r\n"),
        conversation("reuse: two clients at a time")
            .server(once(&[Act::TakeHead, Act::TakeBytes(5), say(answer("200 OK", "", "slow")), Act::Serve]))
            .send("POST /1 HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\n\r\n")
            .step(Step::Await(1))
            .open()
            .ask(get("/2", ""))
            .step(Step::On(1))
            .ask("hello"),
        conversation("reuse: not after a response that came early")
            .server(once(&[Act::TakeHead, say(answer("200 OK", "", "early")), Act::Hold]))
            .send("POST /1 HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\n\r\n")
            .read()
            .open()
            .ask(get("/2", "")),
        conversation("reuse: not after a response that the client left")
            .server(once(&[Act::Take, say("HTTP/1.1 200 OK\r\nX-Origin: s1\r\nContent-Length: 10\r\n\r\nhello"), Act::TakeToEnd]))
            .send(get("/1", ""))
            .step(Step::ReadBytes(15))
            .step(Step::Reset)
            .step(Step::Await(2))
            .open()
            .ask(get("/2", "")),
        conversation("reuse: two servers in turn")
            .servers([serving(), serving()])
            .ask(get("/1", ""))
            .ask(get("/2", ""))
            .ask(get("/3", ""))
            .ask(get("/4", "")),
        conversation("reuse: two servers by weight")
            .setup(WEIGHTS)
            .servers([serving(), serving()])
            .ask(get("/1", ""))
            .ask(get("/2", ""))
            .ask(get("/3", ""))
            .ask(get("/4", ""))
            .ask(get("/5", ""))
            .ask(get("/6", "")),
        conversation("reuse: an error of the server keeps the connection")
            .server(once(&[Act::Take, say(answer("500 Internal Server Error", "", "oh")), Act::Serve]))
            .ask(get("/1", ""))
            .ask(get("/2", "")),
        conversation("reuse: 304 and 204 keep the connection")
            .server(once(&[
                Act::Take,
                say("HTTP/1.1 304 Not Modified\r\nX-Origin: s1\r\n\r\n"),
                Act::Take,
                say("HTTP/1.1 204 No Content\r\nX-Origin: s1\r\n\r\n"),
                Act::Serve,
            ]))
            .ask(get("/1", ""))
            .ask(get("/2", ""))
            .ask(get("/3", "")),
        conversation("reuse: one who keeps quiet in between does no harm")
            .server(saying(answer("200 OK", "", "one")))
            .ask(get("/1", ""))
            .step(Step::Shut)
            .ended(),
    ]
}

/// A client that was asked for such a proof asks again, and then another one does; two servers take turns.
fn private(what: &str, status: &str, challenge: &str) -> Conversation {
    let asks = [Act::Take, say(answer(status, challenge, "")), Act::Serve];
    let server = || Server::Script(vec![asks.to_vec(), vec![Act::Serve], vec![Act::Serve]]);
    conversation(format!("reuse: private, {what}"))
        .servers([server(), server()])
        .ask(get("/1", ""))
        .ask(get("/2", ""))
        .ask(get("/3", ""))
        .open()
        .ask(get("/4", ""))
        .ask(get("/5", ""))
}

fn saying_twice(response: &str) -> Server {
    Server::Script(vec![
        vec![
            Act::Take,
            say(response),
            Act::Take,
            say(response),
            Act::Hold,
        ],
        vec![Act::Serve],
    ])
}

const WEIGHTS: Setup = Setup {
    servers: ["weight 2", "weight 1"],
    gaiola: Toml {
        servers: ["weight = 2", "weight = 1"],
        ..Toml::plain()
    },
    ..Setup::plain()
};
