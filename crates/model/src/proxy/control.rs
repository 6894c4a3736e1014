//! The language of a proxy's control socket.

use super::{
    HandOver, LateCounts, ProxyConfig, ProxyStat, ServerOrder, SessionsStat, TakenOver, TicketKey,
};
use crate::revision::Revision;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A command to a proxy through its control socket, from the agent or an operator: one JSON value a line, each answered
/// by one [`ControlReply`] on a line, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlRequest {
    /// Apply this configuration; answered once every worker has it.
    Configure(Box<ProxyConfig>),
    /// Encrypt session tickets with the first of these keys and accept all, until the next command. Proxies with the
    /// same keys resume each other's sessions. Without any, a proxy makes its own.
    TicketKeys(Vec<TicketKey>),
    /// Change what happens to connections to one local address (a VIP), on all its ports.
    Admit {
        /// The local address.
        address: std::net::IpAddr,
        /// The desired admission.
        admission: Admission,
        /// `Refuse` is answered when no connection to the address is left, or after this time, whichever is first; the
        /// others are answered at once.
        wait_ms: u64,
    },
    /// Report the state.
    Report,
    /// Wait for a change of a server's health, or of what is served.
    Await {
        /// The number in the last answer; 0 at first.
        after: u64,
        /// Longest wait for an answer.
        wait_ms: u64,
    },
    /// Report all counters.
    Stat,
    /// List the clients' sessions.
    Sessions,
    /// Change one server, until the next configuration; answered once every worker knows.
    SetServer {
        /// The backend's name.
        backend: String,
        /// The server's.
        server: String,
        /// The order.
        order: ServerOrder,
    },
    /// Reset the counts of a rate limit.
    ClearLimit {
        /// Its name.
        name: String,
        /// Only this key: an address, a path or a value as the limit has it. `None`: all keys.
        key: Option<String>,
    },
    /// Hand everything over to a new process, the sender, which then answers with [`Self::TakenOver`].
    TakeOver,
    /// The new process serves: accept nothing more, finish what is open, and go. From then on this connection's other
    /// requests are the new process's.
    TakenOver(TakenOver),
    /// End the oldest process of those that still finish what is open.
    EndOldest,
}

/// What happens to connections to one local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// They are accepted and kept alive.
    Accept,
    /// They are accepted, and each response closes its connection, so that clients come back elsewhere.
    Close,
    /// New ones are left unanswered (their SYN is dropped, so the client retries), idle ones are closed.
    Refuse,
}

/// A proxy's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlReply {
    /// Every worker has this revision.
    Configured(Revision),
    /// The admission is in force; this many connections to the address are left.
    Admitted {
        /// Open connections.
        connections: u64,
    },
    /// This many ticket keys are in use.
    TicketKeys(usize),
    /// The state.
    Report(ProxyReport),
    /// The number of the newest change.
    Changed(u64),
    /// All counters.
    Stat(Box<ProxyStat>),
    /// The clients' sessions.
    Sessions(SessionsStat),
    /// What a new process takes over; counts and sockets follow.
    HandOver(Box<HandOver>),
    /// Nothing more is accepted. What the limits have counted since they were handed over.
    Left(Vec<LateCounts>),
    /// Done.
    Done,
    /// The request was rejected.
    Refused(String),
}

/// A proxy's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// The configuration that every worker has.
    pub revision: Revision,
    /// Client connections that are open.
    pub connections: u64,
    /// Members of all backends.
    pub servers: Vec<ServerReport>,
    /// Earlier processes that still finish what is open. Their connections and requests in flight are counted above.
    #[serde(default)]
    pub old_processes: u32,
}

/// The state of one member of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// The backend's name.
    pub backend: String,
    /// The member's name.
    pub server: String,
    /// Whether it takes traffic: checked up, and not ejected.
    pub up: bool,
    /// Whether it serves although its checks took it down: it accepts connections, and there are too few others.
    #[serde(default)]
    pub busy: bool,
    /// The last check's result in words: `HTTP 200 in 2 ms`, `connection refused`.
    pub reason: String,
    /// Requests or sessions in flight.
    pub in_flight: u64,
    /// What became of its requests since the member was configured.
    #[serde(default)]
    pub results: Results,
}

/// What became of the requests that were sent to a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Responses that have begun,
    pub answers: u64,
    /// and the sum of the times until they did, in nanoseconds.
    pub nanos: u64,
    /// Those among them with a status of 500 or above.
    pub errors: u64,
    /// Requests without a valid answer.
    pub unanswered: u64,
}

impl Results {
    /// Requests that have an end.
    pub const fn requests(&self) -> u64 {
        self.answers.saturating_add(self.unanswered)
    }

    /// Those among them that the member failed.
    pub const fn failed(&self) -> u64 {
        self.errors.saturating_add(self.unanswered)
    }

    /// The mean time until a response began; `None`: none has.
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.nanos.checked_div(self.answers)?;
        Some(Duration::from_nanos(nanos))
    }

    /// What came since `earlier`, of counts that began anew if they are lower now.
    pub const fn since(&self, earlier: &Self) -> Self {
        if self.answers < earlier.answers || self.unanswered < earlier.unanswered {
            return *self;
        }
        Self {
            answers: self.answers - earlier.answers,
            nanos: self.nanos.saturating_sub(earlier.nanos),
            errors: self.errors.saturating_sub(earlier.errors),
            unanswered: self.unanswered - earlier.unanswered,
        }
    }

    /// Both together.
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            answers: self.answers.saturating_add(other.answers),
            nanos: self.nanos.saturating_add(other.nanos),
            errors: self.errors.saturating_add(other.errors),
            unanswered: self.unanswered.saturating_add(other.unanswered),
        }
    }
}
