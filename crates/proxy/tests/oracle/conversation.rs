//! What a conversation is: what the client does, and what the servers do with each connection.

use super::setup::Setup;
use super::tls::Hello;

/// A scripted conversation.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) name: String,
    pub(crate) setup: Setup,
    /// What the client offers where it speaks TLS.
    pub(crate) hello: Option<Hello>,
    pub(crate) steps: Vec<Step>,
    pub(crate) servers: Vec<Server>,
}

/// What the client does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Opens another connection, which the steps from here on are about. The first one is open already.
    Open,
    /// The steps from here on are about the connection of this number, from 1 on.
    On(usize),
    Send(Vec<u8>),
    /// Lets what was sent arrive by itself.
    Pause,
    /// Reads a response, and the interim ones before it.
    Read,
    /// Reads the response to HEAD.
    ReadHead,
    /// Reads this number of bytes, whatever they are.
    ReadBytes(usize),
    /// Ends TLS by its close_notify, and leaves the connection open.
    Notify,
    /// Sends no more; with TLS without a close_notify.
    Shut,
    /// Closes with a reset.
    Reset,
    /// Reads all that comes until the proxy closes.
    ReadToEnd,
    /// Waits until this number of things has happened at the servers: a request or an end was noted, or a script is over.
    Await(usize),
}

/// A server of the backend.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    /// What it does with each connection; the last one is done with all that follow.
    Script(Vec<Vec<Act>>),
    /// Nobody listens.
    Refusing,
    /// It listens, and its queue is full.
    Deaf,
}

/// What a server does next. It closes the connection after the last act, with TLS without a close_notify.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Speaks TLS from here on, with the certificate of this name.
    Tls(&'static str),
    /// The same, and asks for a certificate.
    MutualTls(&'static str),
    /// Takes a whole request.
    Take,
    /// Takes a request's head.
    TakeHead,
    /// Takes this number of bytes, whatever they are.
    TakeBytes(usize),
    Say(Vec<u8>),
    Pause,
    /// Ends TLS by its close_notify, and leaves the connection open.
    Notify,
    /// Sends no more; with TLS without a close_notify.
    Shut,
    /// Closes with a reset.
    Reset,
    /// Notes all bytes up to the end of the connection; the conversation has to await it.
    TakeToEnd,
    /// Keeps the connection open until the proxy closes it.
    Hold,
    /// Answers all requests with its name and what was asked.
    Serve,
}

/// The usual conversation: one server that answers, and nothing said yet.
pub(crate) fn conversation(name: impl Into<String>) -> Conversation {
    Conversation {
        name: name.into(),
        setup: Setup::plain(),
        hello: None,
        steps: Vec::new(),
        servers: vec![serving()],
    }
}

/// A server that answers everything.
pub(crate) fn serving() -> Server {
    Server::Script(vec![vec![Act::Serve]])
}

/// A server that takes a whole request, says this, and waits for the end.
pub(crate) fn saying(bytes: impl AsRef<[u8]>) -> Server {
    script(&[Act::Take, say(bytes), Act::Hold])
}

/// A server that does this with every connection.
pub(crate) fn script(acts: &[Act]) -> Server {
    Server::Script(vec![acts.to_vec()])
}

pub(crate) fn say(bytes: impl AsRef<[u8]>) -> Act {
    Act::Say(bytes.as_ref().to_vec())
}

/// A response with a body of this length, marked as the server's.
pub(crate) fn answer(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nX-Origin: s1\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

/// A GET with these fields, each with its line end.
pub(crate) fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: site\r\n{fields}\r\n")
}

/// A POST with a body of this length.
pub(crate) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: site\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl Conversation {
    pub(crate) fn setup(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// The client speaks TLS.
    pub(crate) fn hello(mut self, hello: Hello) -> Self {
        self.hello = Some(hello);
        self
    }

    pub(crate) fn servers(mut self, servers: impl Into<Vec<Server>>) -> Self {
        self.servers = servers.into();
        self
    }

    /// The only server.
    pub(crate) fn server(self, server: Server) -> Self {
        self.servers([server])
    }

    pub(crate) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Sends the pieces so that each arrives by itself.
    pub(crate) fn pieces<T: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = T>) -> Self {
        for piece in pieces {
            self = self.send(piece).step(Step::Pause);
        }
        self
    }

    pub(crate) fn read(self) -> Self {
        self.step(Step::Read)
    }

    /// Sends and reads the response.
    pub(crate) fn ask(self, bytes: impl AsRef<[u8]>) -> Self {
        self.send(bytes).read()
    }

    pub(crate) fn open(self) -> Self {
        self.step(Step::Open)
    }

    pub(crate) fn ended(self) -> Self {
        self.step(Step::ReadToEnd)
    }
}
