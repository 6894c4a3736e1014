//! What a proxy reports to an operator, and what an operator may change on it.

use super::{Address, Admin, Limit};
use crate::revision::Revision;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// An operator's order for one server. It holds until the next configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerOrder {
    /// Its weight, 0 to [`Server::MOST_WEIGHT`](super::Server::MOST_WEIGHT).
    Weight(u16),
    /// Whether it takes traffic.
    State(Admin),
    /// Its sessions are closed at once. Requests that may be repeated are retried elsewhere.
    EndSessions,
}

/// All counters and the current state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStat {
    /// The name of the server that the proxy runs on.
    pub name: String,
    /// The configuration that every worker has.
    pub revision: Revision,
    /// How long the process has run.
    pub uptime_seconds: u64,
    /// Frontends. Like all that follows, in the configuration's order.
    pub frontends: Vec<FrontendStat>,
    /// Backends.
    pub backends: Vec<BackendStat>,
    /// Servers of all backends.
    pub servers: Vec<ServerStat>,
    /// Limits of rate and number.
    pub limits: Vec<LimitStat>,
}

/// Finished requests and TCP sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Their number.
    pub total: u64,
    /// Requests answered with a status from 400 to 499; 499: the client left.
    pub status_4xx: u64,
    /// Requests answered with a status from 500 to 599.
    pub status_5xx: u64,
    /// Number of retries.
    pub retries: u64,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendStat {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub binds: Vec<Address>,
    /// Open client connections.
    pub connections: u32,
    /// Most open client connections.
    pub maxconn: u32,
    /// What has finished.
    pub totals: Totals,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStat {
    /// Its name.
    pub name: String,
    /// Requests waiting for a server.
    pub waiting: u64,
    /// Requests and sessions in flight.
    pub in_flight: u64,
    /// Whether servers serve although their checks took them down, for lack of others.
    #[serde(default)]
    pub panic: bool,
    /// What has finished, with and without a server.
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
    /// Its desired state.
    pub state: Admin,
    /// Whether it is up: checked, and not ejected.
    pub up: bool,
    /// Whether it serves although its checks took it down: it accepts connections, and there are too few others.
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
    /// Requests and sessions in flight.
    pub in_flight: u64,
    /// Most requests and sessions in flight.
    pub maxconn: Option<u32>,
    /// What has finished.
    pub totals: Totals,
}

impl ServerStat {
    /// HAProxy's word for its state, except `busy`, which HAProxy does not have.
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
    /// Its configuration.
    pub limit: Limit,
    /// Current number of keys.
    pub known: u64,
}

/// Activity on clients' connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsStat {
    /// Number of open connections.
    pub total: u64,
    /// Active ones first, the longest-running at the top, then the others by age; truncated if there are many.
    pub sessions: Vec<SessionStat>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStat {
    /// Client address; on a Unix socket 127.0.0.1 and port 0.
    pub client: SocketAddr,
    /// The frontend's name; `None`: no longer configured.
    pub frontend: Option<String>,
    /// The backend whose server it waits for or has.
    pub backend: Option<String>,
    /// That server.
    pub server: Option<String>,
    /// Its current state.
    pub state: SessionState,
    /// Duration of the current activity.
    pub busy_ms: Option<u64>,
    /// Time since it was opened.
    pub age_ms: u64,
    /// Requests so far, including the current one; 1 for TCP.
    pub requests: u64,
}

/// The activity on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Just accepted: waiting for a PROXY protocol header, for TLS or for a server name.
    Opening,
    /// Waiting for a request.
    Idle,
    /// A request is evaluated, or answered without a server.
    Request,
    /// Waiting for a server.
    Queue,
    /// A server has the request: it is being sent or answered, or both sides have switched to another protocol.
    Server,
    /// A TCP session in progress.
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
