//! What a proxy tells an operator, and what an operator may change of it.

use super::{Address, Admin, Limit};
use crate::placement::Revision;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What an operator wants of one server. It holds until the next configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerOrder {
    /// Its weight, 0 to [`Server::MOST_WEIGHT`](super::Server::MOST_WEIGHT).
    Weight(u16),
    /// Whether it takes traffic.
    State(Admin),
    /// Its sessions end at once. Requests that may be repeated go on elsewhere.
    EndSessions,
}

/// Everything that is counted, and how things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStat {
    /// The name of the server that the proxy runs on.
    pub name: String,
    /// The configuration that every worker has.
    pub revision: Revision,
    /// How long the process has run.
    pub uptime_seconds: u64,
    /// In the configuration's order, as all that follows.
    pub frontends: Vec<FrontendStat>,
    /// Backends.
    pub backends: Vec<BackendStat>,
    /// Servers of all backends.
    pub servers: Vec<ServerStat>,
    /// Limits of rate and number.
    pub limits: Vec<LimitStat>,
}

/// Requests, and TCP sessions, that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All of them.
    pub total: u64,
    /// Requests that were answered with a status from 400 to 499; 499: the client left.
    pub status_4xx: u64,
    /// And from 500 to 599.
    pub status_5xx: u64,
    /// How often one was sent once more.
    pub retries: u64,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendStat {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub binds: Vec<Address>,
    /// Client connections that are open, and how many may be.
    pub connections: u32,
    /// The most that may be open.
    pub maxconn: u32,
    /// What has ended.
    pub totals: Totals,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStat {
    /// Its name.
    pub name: String,
    /// Requests that wait for a server.
    pub waiting: u64,
    /// Requests and sessions that have not ended.
    pub in_flight: u64,
    /// Whether servers serve although their checks took them out, for lack of others.
    #[serde(default)]
    pub panic: bool,
    /// What has ended, with and without a server.
    pub totals: Totals,
}

/// A member of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStat {
    /// The backend's name.
    pub backend: String,
    /// Its name.
    pub server: String,
    /// Where it listens.
    pub address: Address,
    /// What is wanted of it.
    pub state: Admin,
    /// Whether it is up: checked, and not ejected.
    pub up: bool,
    /// Whether it serves although its checks took it out: it accepts connections, and there are too few others.
    #[serde(default)]
    pub busy: bool,
    /// The last check's result, or why it was ejected, in words.
    pub check: String,
    /// How long ago it last went up or down, or into another `state`.
    pub changed_seconds: u64,
    /// Its weight.
    pub weight: u16,
    /// Whether it takes traffic only while no other server does.
    pub spare: bool,
    /// Requests and sessions that have not ended.
    pub in_flight: u64,
    /// The most that may be.
    pub maxconn: Option<u32>,
    /// What has ended.
    pub totals: Totals,
}

impl ServerStat {
    /// What HAProxy calls its state; it has no word for one that is busy.
    pub const fn word(&self) -> &'static str {
        match (self.state, self.up) {
            (Admin::Maint, _) => "MAINT",
            (Admin::Ready, false) if self.busy => "BUSY",
            (_, false) => "DOWN",
            (Admin::Drain, true) => "DRAIN",
            (Admin::Ready, true) => "UP",
        }
    }
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStat {
    /// What is configured.
    pub limit: Limit,
    /// How many keys it knows now.
    pub known: u64,
}

/// What is done on clients' connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsStat {
    /// How many are open.
    pub total: u64,
    /// Those where something is under way, the longest first, and then the others by age; of many not all.
    pub sessions: Vec<SessionStat>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStat {
    /// Whose it is; on a Unix socket 127.0.0.1 and port 0.
    pub client: SocketAddr,
    /// The frontend's name; `None`: it is no longer configured.
    pub frontend: Option<String>,
    /// The backend that a server is waited for of, or that has one for it.
    pub backend: Option<String>,
    /// That server.
    pub server: Option<String>,
    /// What is done now.
    pub state: SessionState,
    /// How long what is under way has taken.
    pub busy_ms: Option<u64>,
    /// How long ago it was opened.
    pub age_ms: u64,
    /// Requests so far, the one that is under way among them; of TCP one.
    pub requests: u64,
}

/// What is done on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It has just been accepted: a PROXY protocol header, TLS or the name of a server is awaited.
    Opening,
    /// A request is awaited.
    Idle,
    /// A request is looked at, or answered without a server.
    Request,
    /// It waits for a server.
    Queue,
    /// A server has it: it is sent, answered, or both sides have gone over to another protocol.
    Server,
    /// A TCP session is copied.
    Tunnel,
}

impl SessionState {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Idle => "idle",
            Self::Request => "request",
            Self::Queue => "queue",
            Self::Server => "server",
            Self::Tunnel => "tunnel",
        }
    }
}
