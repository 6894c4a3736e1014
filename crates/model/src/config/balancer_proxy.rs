//! What `[balancer]` says in the words of a proxy's file (`docs/proxy.md`): `wire::proxy_file` reads both.

use crate::proxy::{
    Algorithm, ClientTimeouts, HeaderEdit, InlinePage, Limit, Most, Route, Rule, ServerTimeouts,
    Sticky,
};
use crate::proxy_file::{LogFormat, LogTarget};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How the balancers treat requests, and how the tier that chooses instances chooses them. The default leaves all as it is without
/// any of these settings.
///
/// ```
/// use gaiola_model::config::BalancerProxy;
/// assert!(BalancerProxy::default().is_usual());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerProxy {
    /// The names that the site is served under, `*.example.com` among them; the first is a plain one, and the site's own. Requests for
    /// others are answered 421. Empty: any name is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Names that are redirected to the first of `hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Rules for every request, before those of its route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Routes, without a backend: what their rules do not answer goes to the tier behind the balancers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Limits that rules refer to. Rates are counted for all balancers together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// The limit that counts connections; one beyond it is closed unserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<String>,
    /// Most connections of clients at a time, of each frontend of a balancer. `None`: 20000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxconn: Option<u32>,
    /// Most bytes of a request's body, where its route does not say. `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    /// Most bytes of a request's head, where its route does not say. `None`: the proxy's usual limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_head: Option<u32>,
    /// Bodies of the balancers' own responses with these statuses.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: BTreeMap<u16, InlinePage>,
    /// Where and how requests are logged. `None`: JSON in a file of each balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<BalancerLog>,
    /// Timeouts of clients. `None`: the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_timeouts: Option<ClientTimeouts>,
    /// `timeouts.server` and `timeouts.queue`, of instances. `None`: the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_timeouts: Option<ServerTimeouts>,
    /// How an instance is chosen. `None`: the least connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The cookie that keeps a client at its instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// How long an instance that comes up takes to reach its full share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
}

/// `access_log` of `[balancer]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerLog {
    /// Where lines go. `None`: to a file of each balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<LogTarget>,
    /// Their format. Default JSON.
    #[serde(default)]
    pub format: LogFormat,
}

impl BalancerProxy {
    /// Whether nothing is set.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The site's own name.
    pub fn host(&self) -> Option<&str> {
        self.hosts.first().map(String::as_str)
    }

    /// Whether balancers count any limit together.
    pub fn shares_limits(&self) -> bool {
        let shared = |limit: &Limit| limit.shared && matches!(limit.most, Most::Rate { .. });
        self.limits.iter().any(shared)
    }

    /// The settings without what others must not see: hashes of passwords, and the key that signs cookies.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        let routes = self.routes.iter_mut().map(|route| &mut route.rules);
        for rule in routes.chain([&mut self.rules]).flatten() {
            match rule {
                Rule::Auth(auth) => {
                    let users = auth.users.iter_mut();
                    users.for_each(|user| user.hash = "***".into());
                }
                Rule::RequestHeader(
                    HeaderEdit::Set { value, .. } | HeaderEdit::Add { value, .. },
                ) => {
                    *value = "***".into();
                }
                _ => {}
            }
        }
        if let Some(sticky) = &mut self.sticky {
            sticky.key = None;
        }
        self
    }
}
