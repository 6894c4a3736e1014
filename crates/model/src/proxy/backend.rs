//! Pools of servers: how a member is chosen, ejected and waited for.

use super::{Check, Server, Sticky};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A pool of servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Unique name, used in logs and metrics.
    pub name: String,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// Its members.
    pub servers: Vec<Server>,
    /// Active health check; without one every server counts as up.
    pub check: Option<Check>,
    /// Timeouts on the server's side.
    pub timeouts: ServerTimeouts,
    /// What happens to sessions when a server goes down.
    pub on_marked_down: OnMarkedDown,
    /// Name of the backend that takes over, with its own timeouts, while no member of this one is up.
    #[serde(default)]
    pub fallback: Option<String>,
    /// Whether all spare servers take traffic together when needed, rather than only the first of them.
    #[serde(default)]
    pub all_spares: bool,
    /// How long a recovered server takes to reach its full share, starting at a sixteenth. `None`: no slow start.
    #[serde(default)]
    pub slow_start: Option<Duration>,
    /// When to eject a server that answers later than the others. `None`: never.
    #[serde(default)]
    pub slow_ejection: Option<SlowEjection>,
    /// When to eject a server whose requests fail, whatever its checks say.
    #[serde(default)]
    pub ejection: Ejection,
    /// Whether at most one server may be up, such as a database's primary: while several are, none takes new sessions.
    #[serde(default)]
    pub exclusive: bool,
    /// The cookie that keeps a client on its server. HTTP only.
    #[serde(default)]
    pub sticky: Option<Sticky>,
    /// Whether a request whose connection has switched to another protocol (WebSocket) goes on counting towards its server's
    /// maxconn. Default `true`, as in HAProxy.
    #[serde(default = "counts")]
    pub count_tunnels: bool,
}

const fn counts() -> bool {
    true
}

impl Backend {
    /// These servers by round robin, without checks.
    pub fn new(name: impl Into<String>, servers: Vec<Server>) -> Self {
        Self {
            name: name.into(),
            algorithm: Algorithm::default(),
            servers,
            check: None,
            timeouts: ServerTimeouts::default(),
            on_marked_down: OnMarkedDown::default(),
            fallback: None,
            all_spares: false,
            slow_start: None,
            slow_ejection: None,
            ejection: Ejection::default(),
            exclusive: false,
            sticky: None,
            count_tunnels: true,
        }
    }
}

/// How a server is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// One after another, smoothly by weight.
    #[default]
    RoundRobin,
    /// The server with the fewest requests in flight for its weight.
    LeastConn,
    /// Of two servers drawn by weight, the one with fewer requests in flight for its weight.
    Random,
    /// The first server with room, in the configuration's order.
    First,
    /// The same server for the same key, by consistent hashing; a request without the key goes round robin.
    Hash {
        /// What is hashed.
        key: HashKey,
        /// Most requests in flight to one server, in percent of its share of all; beyond that the next one on the ring
        /// is taken. At least 100; `None`: no bound.
        bound: Option<u16>,
    },
}

impl Algorithm {
    /// Default bound of [`Self::Hash`]: a quarter more than a server's share.
    pub const USUAL_BOUND: u16 = 125;
}

/// The hash key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashKey {
    /// Client address.
    Source,
    /// The path as sent.
    Uri {
        /// With the query, if there is one.
        query: bool,
        /// Only this many of its directories: with 1, `/a/b/c` counts as `/a`. 0: all of it.
        depth: u16,
    },
    /// The value of the first header field of this name.
    Header(String),
    /// The value of the cookie of this name.
    Cookie(String),
}

/// When to eject a server that answers later than the others: never more than a third of a backend's servers at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowEjection {
    /// Percent of the others' median that its mean response time must exceed. More than 100.
    pub factor: u16,
    /// For this long without interruption.
    pub after: Duration,
}

/// When to eject a server whose requests fail: passive checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// What counts as an error.
    pub observe: Observe,
    /// Errors in a row until ejection.
    pub error_limit: u32,
    /// Duration of the first ejection; each one soon after doubles it.
    pub time: Duration,
    /// Longest ejection.
    pub max_time: Duration,
    /// Most servers of the backend, in percent, that are ejected at a time for errors of their requests; one may always
    /// be. A server that does not accept connections does not count.
    pub max_share: u8,
}

impl Default for Ejection {
    /// Three errors of any kind; 1 s, doubling up to 30 s; a third of the servers.
    fn default() -> Self {
        Self {
            observe: Observe::default(),
            error_limit: 3,
            time: Duration::from_secs(1),
            max_time: Duration::from_secs(30),
            max_share: 33,
        }
    }
}

/// What is observed of a server's traffic. A status of 500 is an answer, no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observe {
    /// Nothing.
    None,
    /// Failed connections.
    Layer4,
    /// These, and unanswered requests: their connection ends, or no response begins in time.
    #[default]
    Layer7,
}

/// What happens to a member's sessions when it is marked down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMarkedDown {
    /// Pooled connections are closed and requests in flight may still end. HTTP backends.
    #[default]
    ClosePooled,
    /// All its sessions are closed at once, so that no client stays connected to a deposed primary.
    ShutdownSessions,
}

/// Timeouts on the server's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTimeouts {
    /// Until a connection is established, including TLS if used.
    pub connect: Duration,
    /// Waiting for a server with room, or for one that is up (`queue_when_down`).
    pub queue: Duration,
    /// Until the head of the response, counted from the last byte sent, and between two pieces of its body.
    pub response: Duration,
    /// Age of unacknowledged bytes on an upstream connection (TCP_USER_TIMEOUT).
    pub user: Duration,
    /// Idle time after which a pooled connection is closed.
    pub pooled: Duration,
    /// With `true` a session waits while no server is up, until `queue` has passed since the last one went down; with
    /// `false` it fails at once.
    pub queue_when_down: bool,
    /// Most waiting sessions; a further one is rejected.
    pub queue_size: u32,
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(500),
            queue: Duration::from_secs(5),
            response: Duration::from_secs(30),
            user: Duration::from_secs(1),
            pooled: Duration::from_secs(30),
            queue_when_down: false,
            queue_size: 1024,
        }
    }
}
