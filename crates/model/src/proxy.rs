//! A proxy's configuration: frontends, routes, backends and servers, with HAProxy's meanings.

mod address;
mod rule;
mod stat;
mod sticky;
mod tls;

pub use address::{Address, BadAddress};
pub use rule::{
    Allowance, BasicAuth, Conditions, CookieMatch, Count, Fixed, HeaderEdit, HeaderMatch, Limit,
    LimitKey, Most, PathMatch, Peers, QueryMatch, Rewrite, Rule, User, ValueMatch, Wanted,
};
pub use stat::{
    BackendStat, FrontendStat, LimitStat, ProxyStat, ServerOrder, ServerStat, SessionStat,
    SessionState, SessionsStat, Totals,
};
pub use sticky::{SameSite, Secret, Sticky, StickyFault};
pub use tls::{
    BadTicketKey, ClientCertificates, ServerTls, SharedTickets, TicketKey, Tls, TlsVersion,
};

use crate::placement::Revision;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything one proxy process serves. It is immutable: a change is a new one with a higher revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// The placement it was made from; a proxy rejects one older than its own.
    pub revision: Revision,
    /// The name of the server it runs on; part of `Via`, logs and metrics.
    pub server: String,
    /// Listeners and what happens to their connections.
    pub frontends: Vec<Frontend>,
    /// The backends. Routes and frontends refer to them by `Backend::name`.
    pub backends: Vec<Backend>,
    /// Limits that routes refer to by name.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Secret for hashing the keys of limits, the same on all proxies that exchange counts. Without one each process
    /// makes its own.
    #[serde(default)]
    pub limit_secret: Option<String>,
    /// Other proxies that count shared limits with this one.
    #[serde(default)]
    pub peers: Option<Peers>,
}

/// Listeners, and what happens to the connections they accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// Unique name, used in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// Its protocol.
    pub mode: Mode,
    /// Most connections at a time; more wait in the listen queue.
    pub maxconn: u32,
    /// Timeouts on the client's side.
    pub timeouts: ClientTimeouts,
    /// Name of a [`Limit`] by client address or network that counts connections here; one beyond it is closed unserved.
    #[serde(default)]
    pub connection_limit: Option<String>,
    /// Files with the bodies of our own responses with these statuses. They are read with the configuration.
    #[serde(default)]
    pub error_pages: BTreeMap<u16, PathBuf>,
}

impl Frontend {
    /// A frontend with these binds and this mode, and defaults for the rest.
    pub fn new(name: impl Into<String>, binds: Vec<Bind>, mode: Mode) -> Self {
        Self {
            name: name.into(),
            binds,
            mode,
            maxconn: 20_000,
            timeouts: ClientTimeouts::default(),
            connection_limit: None,
            error_pages: BTreeMap::new(),
        }
    }
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The address. It may be an IP address that this server does not hold now (a VIP): it is bound with `IP_FREEBIND`.
    pub address: Address,
    /// Peers that must begin each connection with a PROXY protocol header. It is not accepted from any other peer.
    /// Peers on a Unix socket count as 127.0.0.1.
    pub proxy_protocol_from: Vec<IpNet>,
    /// TLS, if clients should use it.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Permissions of a Unix socket; `None`: according to the process' umask.
    #[serde(default)]
    pub permissions: Option<u32>,
}

impl Bind {
    /// This address, with defaults for the rest.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            proxy_protocol_from: Vec::new(),
            tls: None,
            permissions: None,
        }
    }
}

/// A frontend's protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP/1.1.
    Http {
        /// First match wins; a request without a match gets 404.
        routes: Vec<Route>,
        /// Senders whose `X-Forwarded-*` and `X-Request-ID` are kept and extended; those of others are replaced.
        trusted: Vec<IpNet>,
    },
    /// Bytes, copied both ways.
    Tcp {
        /// Name of the backend.
        backend: String,
        /// What a client receives when no server is available.
        refusal: Refusal,
        /// Backends by the server name that TLS clients request (SNI); the first match wins. Clients without a match,
        /// or that do not use TLS, go to `backend`. If there are any, a client must send first.
        #[serde(default)]
        sni: Vec<SniRoute>,
    },
}

impl Mode {
    /// The backends it leads to: those of its routes, or in TCP mode the default one and then those for names.
    pub fn backends(&self) -> Vec<Option<&str>> {
        match self {
            Self::Http { routes, .. } => {
                let backends = routes.iter().map(|route| route.backend.as_deref());
                backends.collect()
            }
            Self::Tcp { backend, sni, .. } => {
                let sni = sni.iter().map(|route| &*route.backend);
                std::iter::once(&**backend).chain(sni).map(Some).collect()
            }
        }
    }
}

/// Server names requested by TLS clients, and the backend for their connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SniRoute {
    /// Host names in lower case; `*.example.org` takes every name below `example.org`.
    pub names: Vec<String>,
    /// Name of the backend.
    pub backend: String,
}

/// What a TCP client receives when no server is available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// The connection is closed.
    #[default]
    Close,
    /// PostgreSQL's error 57P03 (cannot_connect_now), after reading the client's startup message.
    Postgres,
}

/// Conditions, and where a request that meets them goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The path must be this or lie below it: `/api` matches `/api/x`, not `/apis`; `/` matches every path.
    pub path_prefix: String,
    /// What else must hold.
    #[serde(default)]
    pub when: Conditions,
    /// Rules applied to the request before it is answered.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Limits on the request.
    #[serde(default)]
    pub allowance: Allowance,
    /// Directories searched for a file first, in this order; the request goes to `backend` if none has it. Only GET and
    /// HEAD are answered with files.
    pub files: Vec<PathBuf>,
    /// Name of the backend. Without one, a request that neither a rule nor a file answers gets 404.
    #[serde(default)]
    pub backend: Option<String>,
}

impl Default for Route {
    /// Matches every request and leads nowhere.
    fn default() -> Self {
        Self {
            path_prefix: "/".into(),
            when: Conditions::default(),
            rules: Vec::new(),
            allowance: Allowance::default(),
            files: Vec::new(),
            backend: None,
        }
    }
}

impl Route {
    /// Sends every request to this backend.
    pub fn to(backend: impl Into<String>) -> Self {
        Self {
            backend: Some(backend.into()),
            ..Self::default()
        }
    }
}

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

/// One member of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Unique within the backend, used in logs and metrics: `web1`, `app2.3`.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Its share of the requests, 0 to 256; 0 takes only those whose cookie names it. Default 1.
    pub weight: u16,
    /// Most requests at a time; more wait in the queue. `None`: no limit.
    pub maxconn: Option<u32>,
    /// Its state as the operator or a roll-out wants it.
    pub admin: Admin,
    /// The path for its check, if not the backend's.
    #[serde(default)]
    pub check_path: Option<String>,
    /// The port for its check, if not the backend's.
    #[serde(default)]
    pub check_port: Option<u16>,
    /// Whether it takes traffic only while no other server of its backend does, or for the last attempt of a request
    /// that others have failed.
    #[serde(default)]
    pub spare: bool,
    /// Its name in the backend's cookie. `None`: a number derived from its name.
    #[serde(default)]
    pub cookie: Option<String>,
    /// TLS to this server, if it uses it. Checks use it too, unless they have a port of their own.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Each connection begins with a PROXY protocol header of this version, which carries the client address. Such a
    /// connection carries one client's requests only. Checks send a header too, unless they have a port of their own.
    #[serde(default)]
    pub send_proxy: Option<ProxyVersion>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Server {
    /// The highest weight.
    pub const MOST_WEIGHT: u16 = 256;

    /// A server with the default share and no limit.
    pub fn new(name: impl Into<String>, address: impl Into<Address>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            weight: 1,
            maxconn: None,
            admin: Admin::Ready,
            check_path: None,
            check_port: None,
            spare: false,
            cookie: None,
            tls: None,
            send_proxy: None,
        }
    }

    /// Whether it should take new traffic while it is up: it is ready, and has a weight.
    pub const fn is_wanted(&self) -> bool {
        matches!(self.admin, Admin::Ready) && self.weight > 0
    }
}

/// Desired state of a member, whatever its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Takes traffic while it is up.
    #[default]
    Ready,
    /// Takes only new requests whose cookie names it; those in flight end.
    Drain,
    /// Takes nothing and is not checked.
    Maint,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it probes.
    pub kind: CheckKind,
    /// Port to probe instead of the server's own.
    pub port: Option<u16>,
    /// `http`: the `Host` to send. `None`: [`Self::HOST`].
    #[serde(default)]
    pub host: Option<String>,
    /// Probe interval while nothing changes.
    pub interval: Duration,
    /// Probe interval while up with a failure, or down with a success.
    pub fast_interval: Duration,
    /// Connect timeout of a probe: a server that has lost power does not answer at all.
    pub connect: Duration,
    /// Timeout of a whole probe.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

impl Check {
    /// Default `Host` of `http`: a name, because some frameworks answer 400 to an address.
    pub const HOST: &str = "localhost";
}

/// What a health check probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// `GET path` is answered with a status from 200 to 399.
    Http {
        /// The path to request.
        path: String,
    },
    /// A TLS handshake succeeds: configured as the server's `tls`, or accepting any certificate without that.
    Tls,
    /// A PostgreSQL server proceeds with a client of this name: it requests a password, or nothing.
    Postgres {
        /// The name of the user, who need not exist.
        user: String,
    },
    /// As `Http`, over mutual TLS, only 200 counting: Patroni's REST API.
    Https {
        /// The path to request: `/primary` or `/replica`.
        path: String,
        /// PEM file of the CA.
        ca: PathBuf,
        /// PEM file of our certificate.
        cert: PathBuf,
        /// PEM file of our key.
        key: PathBuf,
    },
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

/// Timeouts on the client's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTimeouts {
    /// From a request's first byte to the end of its head.
    pub request_head: Duration,
    /// Idle time between two requests on one connection.
    pub keep_alive: Duration,
    /// Silence of a client that should send or receive a body.
    pub idle: Duration,
    /// Silence of both sides of a tunnel (Upgrade, TCP mode).
    pub tunnel: Duration,
    /// Lowest average rate of a request's body in bytes per second, checked after the first `idle` and counting only
    /// the time spent waiting for the client; 0: any.
    #[serde(default = "body_rate")]
    pub body_rate: u32,
}

const fn body_rate() -> u32 {
    100
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            tunnel: Duration::from_secs(3600),
            body_rate: body_rate(),
        }
    }
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
}
