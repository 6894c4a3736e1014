//! Listeners, and what happens to the connections they accept.

use super::{Address, Allowance, Compression, Conditions, FileOptions, Rule, Tls};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Name of a [`Limit`](super::Limit) by client address or network that counts connections here; one beyond it is closed unserved.
    #[serde(default)]
    pub connection_limit: Option<String>,
    /// Files with the bodies of our own responses with these statuses. They are read with the configuration.
    #[serde(default)]
    pub error_pages: BTreeMap<u16, PathBuf>,
    /// The same bodies, where they come with the configuration instead of from files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pages: BTreeMap<u16, InlinePage>,
    /// Whether responses have the request's id in `X-Request-ID`, in place of a server's own. Ours have it always.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub return_request_id: bool,
}

/// The body of an error, with its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlinePage {
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: String,
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
            pages: BTreeMap::new(),
            return_request_id: false,
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
    /// How they are served.
    #[serde(default, skip_serializing_if = "FileOptions::is_default")]
    pub file_options: FileOptions,
    /// How responses are compressed; `None`: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compression>,
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
            file_options: FileOptions::default(),
            compress: None,
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
