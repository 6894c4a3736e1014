//! How a request or session ended, and what HAProxy's log calls that: the *termination state*.
//!
//! A [`Cause`] names what happened. Its two letters, the status that the client is answered with, and the words of the
//! log are made here and nowhere else.

/// What a request or session was doing when it ended: HAProxy's second letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its head was being read.
    Request,
    /// It waited for a server.
    Queue,
    /// A connection to the server was being made.
    Connect,
    /// The server's response was awaited.
    Response,
    /// Data was being forwarded to the client.
    Data,
}

/// Why a request or session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Nothing went wrong.
    #[default]
    Completed,
    /// The proxy answered by itself: a redirect, a fixed response, a file.
    Answered,
    /// The proxy answered by itself, since the route has no backend.
    NoBackend,
    /// No frontend of the configuration listens on this address any more.
    NothingServed,
    /// A rule, a limit or the protocol forbids it; the client is answered with `status`.
    Rejected {
        /// What it was doing.
        phase: Phase,
        /// The status of the answer.
        status: u16,
    },
    /// The proxy lacks memory for its head.
    OutOfMemory,
    /// The client closed its connection, or lost it.
    ClientLeft(Phase),
    /// The client sent or took nothing for too long.
    ClientTimedOut(Phase),
    /// No server could be chosen.
    NoServer,
    /// The backend's queue was full.
    QueueFull,
    /// The queue timeout expired.
    QueueTimedOut,
    /// The server refused or closed the connection.
    ServerFailed(Phase),
    /// The server did nothing for too long.
    ServerTimedOut(Phase),
    /// The server's response was malformed.
    BadResponse(Phase),
    /// The server was marked down.
    ServerDown(Phase),
    /// The server's system acknowledges nothing any more.
    ServerDead(Phase),
    /// An operator ended the server's sessions.
    SessionsShutdown(Phase),
}

impl Cause {
    /// HAProxy's two letters: who ended it, and in which phase. A letter in lower case is a timeout (its configuration
    /// manual, "Session state at disconnection").
    ///
    /// ```
    /// use gaiola_core::termination::{Cause, Phase};
    ///
    /// assert_eq!(Cause::ServerTimedOut(Phase::Response).letters(), *b"sH");
    /// assert_eq!(Cause::ServerTimedOut(Phase::Response).status(), Some(504));
    /// ```
    pub const fn letters(self) -> [u8; 2] {
        let (who, phase) = match self {
            Self::Completed => return *b"--",
            Self::Answered | Self::NoBackend => (b'L', Phase::Request),
            Self::NothingServed => (b'P', Phase::Request),
            Self::Rejected { phase, .. } | Self::BadResponse(phase) => (b'P', phase),
            Self::OutOfMemory => (b'R', Phase::Request),
            Self::ClientLeft(phase) => (b'C', phase),
            Self::ClientTimedOut(phase) => (b'c', phase),
            Self::NoServer => (b'S', Phase::Connect),
            Self::QueueFull => (b'P', Phase::Queue),
            Self::QueueTimedOut => (b's', Phase::Queue),
            Self::ServerFailed(phase) => (b'S', phase),
            Self::ServerTimedOut(phase) => (b's', phase),
            Self::ServerDown(phase) | Self::ServerDead(phase) => (b'D', phase),
            Self::SessionsShutdown(phase) => (b'K', phase),
        };
        [who, phase.letter()]
    }

    /// The status that the client is answered with unless a response has begun. 499: it has left, and gets no answer.
    /// `None`: the answer is no error.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Completed | Self::Answered => None,
            Self::Rejected { status, .. } => Some(status),
            Self::NoBackend => Some(404),
            Self::ClientTimedOut(_) => Some(408),
            Self::ClientLeft(_) => Some(499),
            Self::ServerFailed(Phase::Connect) | Self::ServerTimedOut(Phase::Connect) => Some(503),
            Self::ServerTimedOut(_) => Some(504),
            Self::ServerFailed(_)
            | Self::BadResponse(_)
            | Self::ServerDown(_)
            | Self::ServerDead(_)
            | Self::SessionsShutdown(_) => Some(502),
            Self::NothingServed
            | Self::OutOfMemory
            | Self::NoServer
            | Self::QueueFull
            | Self::QueueTimedOut => Some(503),
        }
    }

    /// The words of the log where nothing more precise is known; empty if nothing went wrong.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Completed | Self::Answered => "",
            Self::NoBackend => "its route leads to no backend",
            Self::NothingServed => "nothing is served here any more",
            Self::Rejected { .. } => "a rule, a limit or the protocol forbids it",
            Self::OutOfMemory => "too many heads of this size are being read",
            Self::ClientLeft(Phase::Request) => "the client left within its request's head",
            Self::ClientLeft(Phase::Queue) => "the client left while it waited for a server",
            Self::ClientLeft(Phase::Connect) => "the client left while a server was connected to",
            Self::ClientLeft(Phase::Response) => "the client left",
            Self::ClientLeft(Phase::Data) => "the client left within its response",
            Self::ClientTimedOut(Phase::Request) => "the request's head did not end in time",
            Self::ClientTimedOut(Phase::Data) => "the client took no bytes for too long",
            Self::ClientTimedOut(_) => "the client stopped sending its request",
            Self::NoServer => "no server is up",
            Self::QueueFull => "the queue is full",
            Self::QueueTimedOut => "no server had room within the queue's time",
            Self::ServerFailed(Phase::Data) => "the server closed within its response",
            Self::ServerFailed(_) => "it closed without a response",
            Self::ServerTimedOut(Phase::Data) => "the server stopped within its response",
            Self::ServerTimedOut(_) => "no response in time",
            Self::BadResponse(_) => "the server's response is malformed",
            Self::ServerDown(_) => "the server was marked down",
            Self::ServerDead(_) => "the server is dead: its system acknowledges nothing",
            Self::SessionsShutdown(_) => "the server's sessions were ended by an operator",
        }
    }
}

impl Phase {
    const fn letter(self) -> u8 {
        match self {
            Self::Request => b'R',
            Self::Queue => b'Q',
            Self::Connect => b'C',
            Self::Response => b'H',
            Self::Data => b'D',
        }
    }
}

/// What a request's persistence cookie named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Received {
    /// The backend has no such cookie.
    #[default]
    NoneExpected,
    /// The request had none.
    Absent,
    /// It named no server.
    Invalid,
    /// It named a server that could not be used.
    Down,
    /// It named a server.
    Valid,
}

/// What the response does with the client's persistence cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// Nothing was sent by a backend with such a cookie.
    #[default]
    NoResponse,
    /// It sets none.
    Nothing,
    /// It sets one that names another server.
    Inserted,
    /// It renews the one that the client has.
    Updated,
}

/// A request's persistence cookie, in HAProxy's third and fourth letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieState {
    /// What it named.
    pub received: Received,
    /// What was done with it.
    pub sent: Sent,
}

impl CookieState {
    /// HAProxy's two letters.
    pub const fn letters(self) -> [u8; 2] {
        let received = match self.received {
            Received::NoneExpected => b'-',
            Received::Absent => b'N',
            Received::Invalid => b'I',
            Received::Down => b'D',
            Received::Valid => b'V',
        };
        let sent = match self.sent {
            Sent::NoResponse => b'-',
            Sent::Nothing => b'N',
            Sent::Inserted => b'I',
            Sent::Updated => b'U',
        };
        [received, sent]
    }
}

#[cfg(test)]
mod tests;
