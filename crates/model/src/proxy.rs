//! A proxy's configuration: frontends, routes, backends and servers, with HAProxy's meanings.

mod address;
mod backend;
mod check;
mod control;
mod frontend;
mod rule;
mod server;
mod stat;
mod sticky;
mod take_over;
mod tls;

pub use address::{Address, BadAddress};
pub use backend::{
    Algorithm, Backend, Ejection, HashKey, Observe, OnMarkedDown, ServerTimeouts, SlowEjection,
};
pub use check::{Check, CheckKind, StatusRange};
pub use control::{Admission, ControlReply, ControlRequest, ProxyReport, Results, ServerReport};
pub use frontend::{Bind, ClientTimeouts, Frontend, InlinePage, Mode, Refusal, Route, SniRoute};
pub use rule::{
    Allowance, BasicAuth, Conditions, CookieMatch, Count, Fixed, HeaderEdit, HeaderMatch, Limit,
    LimitKey, Most, PathMatch, Peers, Presence, QueryMatch, Rewrite, Rule, User, ValueMatch,
};
pub use server::{Admin, ProxyVersion, Server};
pub use stat::{
    BackendStat, FrontendStat, LimitStat, ProxyStat, ServerOrder, ServerStat, SessionStat,
    SessionState, SessionsStat, Totals,
};
pub use sticky::{SameSite, Secret, Sticky, StickyFault};
pub use take_over::{
    Ejected, HandOver, HandedLimit, HandedSocket, KnownCheck, KnownEjection, KnownHealth,
    KnownServer, LateCounts, SocketUse, Symptom, TakenOver,
};
pub use tls::{
    BadTicketKey, ClientCertificates, ServerTls, SharedTickets, StartTls, TicketKey, Tls,
    TlsVersion,
};

pub use crate::content::{CacheControl, Compression, FileOptions, FilePattern};

use crate::revision::Revision;
use serde::{Deserialize, Serialize};

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
