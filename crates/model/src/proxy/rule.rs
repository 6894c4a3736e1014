//! A route's conditions on a request, and the rules it applies.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// What must hold of a request besides the route's path prefix. All parts must hold; an empty part always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Any of these: `example.com`, or `*.example.com` for every name below it but not itself. Case and port are
    /// ignored.
    pub hosts: Vec<String>,
    /// Any of these.
    pub paths: Vec<PathMatch>,
    /// Any of these, case-sensitive.
    pub methods: Vec<String>,
    /// Each of these.
    pub headers: Vec<HeaderMatch>,
    /// Each of these.
    pub query: Vec<QueryMatch>,
    /// Each of these.
    pub cookies: Vec<CookieMatch>,
    /// The client address is in any of these networks. As in rules and limits, `X-Forwarded-For` determines the client
    /// address if the sender is trusted.
    pub sources: Vec<IpNet>,
}

/// How a path is compared: percent-decoded, without empty segments, `.` and `..` resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// It equals this.
    Exact(String),
    /// It is this or lies below it, as with [`super::Route::path_prefix`].
    Prefix(String),
    /// This regular expression matches in it; `^` and `$` anchor it.
    Regex(String),
}

/// A condition on the header fields of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Their name, in any case.
    pub name: String,
    /// What must hold of their values.
    pub wanted: Presence<ValueMatch>,
}

/// What must hold of the values of a field, parameter or cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence<T> {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// One of them is one of these.
    OneOf(Vec<T>),
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueMatch {
    /// It equals this.
    Equals(String),
    /// This regular expression matches in it.
    Regex(String),
}

/// A condition on the query's parameters of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Their name, decoded.
    pub name: String,
    /// What must hold of their values, decoded.
    pub wanted: Presence<String>,
}

/// A condition on the cookies of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieMatch {
    /// Their name, case-sensitive.
    pub name: String,
    /// What must hold of their values, without quotes. An empty value counts as no cookie.
    pub wanted: Presence<ValueMatch>,
}

/// A rule for requests. A route's rules are applied in order until one of them answers; those that change header fields
/// apply to every request of the route, whoever answers it.
///
/// Texts with variables may contain `{client}` (client address), `{host}` (without port), `{path}`, `{query}` (with its
/// `?`, or empty), `{method}`, `{scheme}`, `{request_id}` and `{server}` (our own name). `{{` and `}}` stand for the
/// braces themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// 403.
    Deny,
    /// 401 unless the request has a valid user name and password.
    Auth(BasicAuth),
    /// 429 when the [`Limit`] of this name is reached.
    Limit(String),
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A text with variables: `https://{host}{path}{query}`.
        to: String,
    },
    /// A fixed answer.
    Return(Fixed),
    /// Another path from here on.
    Rewrite(Rewrite),
    /// The `Host` sent to the server, a text with variables; `X-Forwarded-Host` keeps the client's.
    Host(String),
    /// A field of the forwarded request.
    RequestHeader(HeaderEdit),
    /// A field of every answer.
    ResponseHeader(HeaderEdit),
    /// `Strict-Transport-Security` with this value in every response to a request over HTTPS (RFC 6797, section 7.2).
    Hsts(String),
}

impl Rule {
    /// The target of [`Self::to_https`].
    pub const HTTPS: &str = "https://{host}{path}{query}";

    /// A redirect to the same address over TLS, with this status. A request that already uses TLS passes.
    pub fn to_https(status: u16) -> Self {
        Self::Redirect {
            status,
            to: Self::HTTPS.into(),
        }
    }

    /// Whether it is [`Self::to_https`].
    pub fn is_to_https(&self) -> bool {
        matches!(self, Self::Redirect { to, .. } if to == Self::HTTPS)
    }

    /// Has browsers use only HTTPS for this long (RFC 6797); `further` directives are appended, each after a `; `.
    pub fn hsts(max_age: Duration, further: &str) -> Self {
        Self::Hsts(format!("max-age={}{further}", max_age.as_secs()))
    }
}

/// Users with access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// The realm that the browser shows.
    pub realm: String,
    /// Names are unique.
    pub users: Vec<User>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, without a colon.
    pub name: String,
    /// Hash of the password: `$2b$...` (bcrypt), `$5$...` or `$6$...` (SHA-crypt), or `{SHA256}` and the digest in
    /// base64, which is for long random passwords only.
    pub hash: String,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// The body. Without one, an error uses the frontend's page for its status.
    pub body: String,
    /// Name of a backend: while no server of it takes traffic, the answer is 503 instead (HAProxy: `monitor fail if { nbsrv(NAME) lt 1 }`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

/// How a path is rewritten. One that does not match stays unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rewrite {
    /// Replaces leading segments.
    Prefix {
        /// These.
        from: String,
        /// Their replacement; `/` strips them.
        to: String,
    },
    /// Replaces the match of a regular expression.
    Regex {
        /// The expression.
        pattern: String,
        /// The replacement; `$1` or `${name}` is a group of the expression, `$$` a dollar sign.
        to: String,
    },
}

/// How a header field is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderEdit {
    /// It has this value and no other.
    Set {
        /// The field.
        name: String,
        /// A text with variables.
        value: String,
    },
    /// It has this value too.
    Add {
        /// The field.
        name: String,
        /// A text with variables.
        value: String,
    },
    /// It is removed.
    Remove {
        /// The field.
        name: String,
    },
}

/// A route's limits on a request, if they differ from those of its frontend and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// Most bytes of a request's body; a larger one is answered 413.
    pub body: Option<u64>,
    /// Most bytes of a request's head, up to [`Self::MOST_HEAD`]; a larger one is answered 431.
    pub head: Option<u32>,
    /// Instead of [`super::ServerTimeouts::response`].
    pub response: Option<Duration>,
    /// Instead of [`super::ServerTimeouts::queue`].
    pub queue: Option<Duration>,
}

impl Allowance {
    /// Upper limit of [`Self::head`].
    pub const MOST_HEAD: u32 = 64 * 1024;
}

/// How many requests that share a key are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Unique name; rules refer to it, and share its counts.
    pub name: String,
    /// The key.
    pub key: LimitKey,
    /// How much is allowed.
    pub most: Most,
    /// Capacity in keys; beyond it the least recently seen one is evicted.
    pub keys: u32,
    /// Prefix length that identifies an IPv6 client, 32 to 128: whoever has one address has its whole network.
    #[serde(default = "ipv6_prefix")]
    pub ipv6_prefix: u8,
    /// Whether the counts of a rate are exchanged with the proxy's peers.
    #[serde(default)]
    pub shared: bool,
}

impl Limit {
    /// This limit for each client address, for 100,000 of them.
    pub fn new(name: impl Into<String>, most: Most) -> Self {
        Self {
            name: name.into(),
            key: LimitKey::Source,
            most,
            keys: 100_000,
            ipv6_prefix: ipv6_prefix(),
            shared: false,
        }
    }
}

/// The prefix that most providers assign to a customer.
const fn ipv6_prefix() -> u8 {
    64
}

/// The key that requests share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitKey {
    /// Client address; for IPv6 its first [`Limit::ipv6_prefix`] bits.
    #[default]
    Source,
    /// The network of the client address: 24 bits of IPv4, [`Limit::ipv6_prefix`] of IPv6.
    Network,
    /// The value of this header field; all requests without it share a key.
    Header(String),
    /// The path.
    Path,
}

/// How much a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Most {
    /// This many requests in every window of time.
    Rate {
        /// Requests.
        requests: u32,
        /// The window: 1 s to 1 day.
        window: Duration,
    },
    /// This many requests at a time, including upgraded connections. Each proxy counts its own.
    Concurrent(u32),
}

/// A count that one balancer sends to the others: this many more requests were allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The hashed key.
    pub key: u64,
    /// The number of the window since the Unix epoch.
    pub window: u64,
    /// The increase since its last count.
    pub more: u32,
}

/// Balancers that exchange the counts of their shared limits, over UDP. All have the same `limit_secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// This one's address for receiving and sending.
    pub address: SocketAddr,
    /// The others' addresses.
    pub others: Vec<SocketAddr>,
}
