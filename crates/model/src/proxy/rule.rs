//! What a route asks of a request before it takes it, and what it does with it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// What must hold of a request besides the route's path prefix. All parts must; a part that is empty always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Any of these: `example.com`, or `*.example.com` for every name below it but not itself. Case and port are
    /// ignored.
    pub hosts: Vec<String>,
    /// Any of these.
    pub paths: Vec<PathMatch>,
    /// Any of these; methods tell capitals from small letters.
    pub methods: Vec<String>,
    /// Each of these.
    pub headers: Vec<HeaderMatch>,
    /// Each of these.
    pub query: Vec<QueryMatch>,
    /// Each of these.
    pub cookies: Vec<CookieMatch>,
    /// The client's address is in any of these. Whose request it is that comes from a trusted sender,
    /// `X-Forwarded-For` tells, here as in rules and limits.
    pub sources: Vec<IpNet>,
}

/// How a path is compared: percent-decoded, without empty segments, `.` and `..` resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// It is this.
    Exact(String),
    /// It is this or lies below it, as with [`super::Route::path_prefix`].
    Prefix(String),
    /// This regular expression is found in it; `^` and `$` tie it to the ends.
    Regex(String),
}

/// What is asked of the header fields of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Their name, in whatever case.
    pub name: String,
    /// What must hold of their values.
    pub wanted: Wanted<ValueMatch>,
}

/// What must hold of the values that something has in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted<T> {
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
    /// It is this.
    Equals(String),
    /// This regular expression is found in it.
    Regex(String),
}

/// What is asked of the query's parameters of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Their name, decoded.
    pub name: String,
    /// What must hold of their values, decoded.
    pub wanted: Wanted<String>,
}

/// What is asked of the cookies of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieMatch {
    /// Their name, in this case.
    pub name: String,
    /// What must hold of their values, without quotes around them. A cookie with an empty one counts as none.
    pub wanted: Wanted<ValueMatch>,
}

/// What is done with a request. A route's rules are gone through in their order until one of them answers; those that
/// change header fields hold for every request of the route, whoever answers it.
///
/// Texts that are marked so may name what is known of the request: `{client}` (the client's address), `{host}` (without
/// port), `{path}`, `{query}` (with its `?`, or nothing), `{method}`, `{scheme}`, `{request_id}`, `{server}` (our own
/// name). `{{` and `}}` stand for the braces themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// 403.
    Deny,
    /// 401 unless the request has a user's name and password.
    Auth(BasicAuth),
    /// 429 when the [`Limit`] of this name is reached.
    Limit(String),
    /// An answer that sends the client elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A text with variables: `https://{host}{path}{query}`.
        to: String,
    },
    /// A fixed answer.
    Return(Fixed),
    /// Another path is asked for from here on.
    Rewrite(Rewrite),
    /// The server is told this host, a text with variables; `X-Forwarded-Host` keeps the client's.
    Host(String),
    /// A field of the request that is sent on.
    RequestHeader(HeaderEdit),
    /// A field of every answer.
    ResponseHeader(HeaderEdit),
    /// `Strict-Transport-Security` with this value in every answer to a request that came by HTTPS (RFC 6797, section 7.2).
    Hsts(String),
}

impl Rule {
    /// Where [`Self::to_https`] sends a client.
    pub const HTTPS: &str = "https://{host}{path}{query}";

    /// The same over TLS, with this status. A request that came so already is not sent there once more.
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

    /// Has browsers come by HTTPS only for so long (RFC 6797); `further` directives stand behind, each after a `; `.
    pub fn hsts(max_age: Duration, further: &str) -> Self {
        Self::Hsts(format!("max-age={}{further}", max_age.as_secs()))
    }
}

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// What the browser shows.
    pub realm: String,
    /// Names are unique.
    pub users: Vec<User>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, without a colon.
    pub name: String,
    /// What is kept of the password: `$2b$...` (bcrypt), `$5$...` or `$6$...` (SHA-crypt), or `{SHA256}` and the
    /// digest in base64, which is for long random passwords only.
    pub hash: String,
}

/// An answer that is the same for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// The body. An error without one has the frontend's page for its status.
    pub body: String,
}

/// How a path is rewritten. One that does not match stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rewrite {
    /// The first segments are exchanged.
    Prefix {
        /// These.
        from: String,
        /// For these; `/` strips them.
        to: String,
    },
    /// What a regular expression finds is exchanged.
    Regex {
        /// The expression.
        pattern: String,
        /// For this; `$1` or `${name}` is what a group of the expression found, `$$` a dollar.
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
    /// It is left out.
    Remove {
        /// The field.
        name: String,
    },
}

/// What a route allows a request, where that is not what its frontend and backend do.
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
    /// Most that [`Self::head`] may be.
    pub const MOST_HEAD: u32 = 64 * 1024;
}

/// How much is allowed of those requests that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Unique name; rules refer to it, and share its counts.
    pub name: String,
    /// What they have in common.
    pub key: LimitKey,
    /// How much is allowed.
    pub most: Most,
    /// How many different keys are told apart; beyond them the one that was not seen for longest is forgotten.
    pub keys: u32,
    /// How many bits of an IPv6 address tell clients apart, 32 to 128: whoever has one address has its whole network.
    #[serde(default = "ipv6_prefix")]
    pub ipv6_prefix: u8,
    /// Whether the counts of a rate are told to the proxy's peers and theirs count here.
    #[serde(default)]
    pub shared: bool,
}

impl Limit {
    /// So much for each client address, for 100,000 of them.
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

/// What a customer of most providers has.
const fn ipv6_prefix() -> u8 {
    64
}

/// What requests have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitKey {
    /// The client's address, of IPv6 the first [`Limit::ipv6_prefix`] bits.
    #[default]
    Source,
    /// The network of the client's address: 24 bits of IPv4, [`Limit::ipv6_prefix`] of IPv6.
    Network,
    /// The value of this header field; all requests without it are one.
    Header(String),
    /// The path.
    Path,
}

/// How much a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Most {
    /// So many requests in every window of time.
    Rate {
        /// Requests.
        requests: u32,
        /// The window: 1 s to 1 day.
        window: Duration,
    },
    /// So many requests at a time, upgraded connections among them. Each proxy counts its own.
    Concurrent(u32),
}

/// What one balancer tells the others of a limit: so many more requests were allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The hashed key.
    pub key: u64,
    /// The number of the window since the Unix epoch.
    pub window: u64,
    /// How many more than it told before.
    pub more: u32,
}

/// Balancers that tell each other the counts of their shared limits, over UDP. All have the same `limit_secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Where this one hears the others, and speaks from.
    pub address: SocketAddr,
    /// The others' addresses.
    pub others: Vec<SocketAddr>,
}
