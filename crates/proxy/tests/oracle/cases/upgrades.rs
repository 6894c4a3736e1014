//! Connections that change to another protocol.

use crate::conversation::{
    Act, Conversation, Server, Step, answer, conversation, get, say, saying, script,
};

pub(crate) fn all() -> Vec<Conversation> {
    let ask = get("/echo", "Connection: Upgrade\r\nUpgrade: echo\r\n");
    let yes = "HTTP/1.1 101 Switching Protocols\r\nX-Origin: s1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let case = |name: &str| conversation(format!("upgrade: {name}"));
    vec![
        case("both talk, the server closes")
            .server(script(&[Act::TakeHead, say(yes), Act::TakeBytes(4), say("pong")]))
            .ask(&ask)
            .send("ping")
            .ended(),
        case("WebSocket")
            .server(script(&[
                Act::TakeHead,
                say(format!("HTTP/1.1 101 Switching Protocols\r\nX-Origin: s1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n")),
                Act::TakeBytes(4),
                say("pong"),
            ]))
            .ask(get("/ws", &format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}")))
            .send("ping")
            .ended(),
        case("WebSocket without a key").ask(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n")),
        case("the server speaks first")
            .server(script(&[Act::TakeHead, say(format!("{yes}welcome")), Act::TakeBytes(4), say("pong")]))
            .ask(&ask)
            .step(Step::ReadBytes(7))
            .send("ping")
            .ended(),
        case("the client speaks before it is answered")
            .server(script(&[Act::TakeHead, Act::Pause, say(yes), Act::TakeBytes(4), say("pong")]))
            .send(format!("{ask}ping"))
            .read()
            .ended(),
        case("the client sends no more")
            .server(script(&[Act::TakeHead, say(yes), Act::TakeToEnd]))
            .ask(&ask)
            .send("bye")
            .step(Step::Shut)
            .step(Step::Await(2))
            .ended(),
        case("the server sends no more")
            .server(script(&[Act::TakeHead, say(yes), say("bye"), Act::Shut, Act::TakeToEnd]))
            .ask(&ask)
            .step(Step::ReadBytes(3))
            .send("still here")
            .step(Step::Shut)
            .ended()
            .step(Step::Await(2)),
        case("the client resets")
            .server(script(&[Act::TakeHead, say(yes), Act::TakeBytes(4), Act::TakeToEnd]))
            .ask(&ask)
            .send("ping")
            .step(Step::Await(2))
            .step(Step::Reset)
            .step(Step::Await(3)),
        case("the server resets")
            .server(script(&[Act::TakeHead, say(yes), Act::TakeBytes(4), Act::Reset]))
            .ask(&ask)
            .send("ping")
            .ended(),
        case("much is said")
            .server(script(&[Act::TakeHead, say(yes), say("x".repeat(300_000)), Act::TakeBytes(300_000)]))
            .ask(&ask)
            .step(Step::ReadBytes(300_000))
            .send("y".repeat(300_000))
            .ended(),
        case("the server does not want it")
            .server(Server::Script(vec![vec![Act::Take, say(answer("200 OK", "", "no")), Act::Serve]]))
            .ask(&ask)
            .ask(get("/next", "")),
        case("the server does not want it, and the next request is there already")
            .server(Server::Script(vec![vec![Act::Take, say(answer("200 OK", "", "no")), Act::Serve]]))
            .send(format!("{ask}{}", get("/next", "")))
            .read()
            .read(),
        case("the server changes to another protocol than it was asked for")
            .server(script(&[Act::TakeHead, say(yes.replace("echo", "other")), Act::TakeBytes(4), say("pong")]))
            .ask(&ask)
            .send("ping")
            .ended(),
        case("the server says 426")
            .server(saying(answer("426 Upgrade Required", "Connection: upgrade\r\nUpgrade: other\r\n", "")))
            .ask(get("/", "")),
        case("with HTTP/1.0").ask("GET / HTTP/1.0\r\nHost: site\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"),
        case("without Connection")
            .ask(get("/", "Upgrade: echo\r\n")),
        case("with a body")
            .server(script(&[Act::Take, say(yes), Act::TakeBytes(4), say("pong")]))
            .ask("POST / HTTP/1.1\r\nHost: site\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 5\r\n\r\nhello")
            .send("ping")
            .step(Step::Pause)
            .step(Step::Shut)
            .ended(),
        case("to one of two protocols")
            .server(script(&[Act::TakeHead, say(yes), Act::TakeBytes(4), say("pong")]))
            .ask(get("/", "Connection: Upgrade\r\nUpgrade: other, echo\r\n"))
            .send("ping")
            .ended(),
    ]
}
