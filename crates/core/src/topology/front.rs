//! A balancer's frontends: the routes and rules of the site's file, in front of the tier behind.

mod maintenance;

use super::proxy::{host, probe_route};
use super::{location, servers_of};
use gaiola_model::config::BalancerProxy;
use gaiola_model::placement::Maintenance;
use gaiola_model::proxy::{
    Allowance, Bind, Compression, Conditions, Ejection, Fixed, Frontend, Mode, Observe, Peers,
    Route, Rule, ServerTimeouts,
};
use gaiola_model::{Placement, ServerName, Tier};
use ipnet::IpNet;
use std::time::Duration;

/// Status of a request for a name that the site is not served under (RFC 9110, section 15.5.20).
const MISDIRECTED: u16 = 421;
/// Usual limit of a frontend's connections.
const MAX_CLIENTS: u32 = 20_000;
/// How much longer a balancer waits for a response than a web server does, so that the hop next to a failure reports it.
const HOP: Duration = Duration::from_secs(15);

/// What the frontends of one balancer have in common.
pub(super) struct Front<'a> {
    /// The file's settings.
    pub(super) proxy: &'a BalancerProxy,
    /// The backend of all requests that no rule answers.
    pub(super) target: &'a str,
    /// How responses are compressed, where no route says otherwise.
    pub(super) compress: Option<&'a Compression>,
    /// Senders that are believed.
    pub(super) trusted: &'a [IpNet],
    /// What another balancer in front checks.
    pub(super) health: Route,
    /// Whether clients that use another name are led to HTTPS.
    pub(super) to_https: bool,
    /// Whether clients are refused.
    pub(super) maintenance: Option<&'a Maintenance>,
}

impl Front<'_> {
    /// A frontend whose requests meet these rules first.
    pub(super) fn frontend(&self, name: &str, binds: Vec<Bind>, first: &[Rule]) -> Frontend {
        let mode = Mode::Http {
            routes: self.routes(first),
            trusted: self.trusted.to_vec(),
        };
        Frontend {
            maxconn: self.proxy.maxconn.unwrap_or(MAX_CLIENTS),
            timeouts: self.proxy.client_timeouts.clone().unwrap_or_default(),
            connection_limit: self.proxy.connection_limit.clone(),
            pages: self.proxy.error_pages.clone(),
            return_request_id: true,
            ..Frontend::new(name, binds, mode)
        }
    }

    fn routes(&self, first: &[Rule]) -> Vec<Route> {
        let checks = [probe_route(), self.health.clone()].into_iter();
        let mut served: Vec<Route> = self.aliases(first).into_iter().collect();
        let own = self.proxy.routes.iter().cloned();
        let rest = Route {
            compress: self.compress.cloned(),
            ..Route::default()
        };
        served.extend(own.chain([rest]).map(|route| self.through(first, route)));
        served.extend(self.other_hosts());
        match self.maintenance {
            Some(set) => checks.chain(maintenance::refusing(served, set)).collect(),
            None => checks.chain(served).collect(),
        }
    }

    /// A route of the file, with the rules before its own and what it leaves to `[balancer]`.
    fn through(&self, first: &[Rule], mut route: Route) -> Route {
        let before = first.iter().chain(&self.proxy.rules).cloned();
        route.rules.splice(0..0, before);
        if route.when.hosts.is_empty() {
            route.when.hosts.clone_from(&self.proxy.hosts);
        }
        route.allowance.body = route.allowance.body.or(self.proxy.max_body);
        route.allowance.head = route.allowance.head.or(self.proxy.max_head);
        route.backend = Some(self.target.to_owned());
        route
    }

    /// Other names lead to the site's own, with the method and the body.
    fn aliases(&self, first: &[Rule]) -> Option<Route> {
        let own = self.proxy.host()?;
        let scheme = if self.to_https { "https" } else { "{scheme}" };
        let hsts = first.iter().filter(|rule| matches!(rule, Rule::Hsts(_)));
        let redirect = Rule::Redirect {
            status: 308,
            to: format!("{scheme}://{own}{{path}}{{query}}"),
        };
        let route = Route {
            when: Conditions {
                hosts: self.proxy.aliases.clone(),
                ..Conditions::default()
            },
            rules: hsts
                .chain(&self.proxy.rules)
                .cloned()
                .chain([redirect])
                .collect(),
            ..Route::default()
        };
        (!self.proxy.aliases.is_empty()).then_some(route)
    }

    /// What a request for any other name gets.
    fn other_hosts(&self) -> Option<Route> {
        let refused = Rule::Return(Fixed {
            status: MISDIRECTED,
            content_type: "text/plain; charset=utf-8".into(),
            body: String::new(),
            needs: None,
        });
        let rules = self.proxy.rules.iter().cloned().chain([refused]);
        let route = Route {
            rules: rules.collect(),
            ..Route::default()
        };
        (!self.proxy.hosts.is_empty()).then_some(route)
    }
}

/// Whom a balancer exchanges the counts of shared limits with: the others, at their inner addresses. The datagrams have the number of
/// the proxy's port, where it listens for TCP alone otherwise.
pub(super) fn peers(placement: &Placement, server: ServerName) -> Option<Peers> {
    let section = placement.config.balancer.as_ref()?;
    let address = |server| {
        let location = location(placement, server)?;
        Some(location.socket(location.ports.proxy))
    };
    let others = servers_of(placement, Tier::Balancer).filter(|other| *other != server);
    let others: Vec<_> = others.filter_map(address).collect();
    let counts = section.proxy.shares_limits() && !others.is_empty();
    counts.then_some(Peers {
        address: address(server)?,
        others,
    })
}

/// Timeouts of instances for a `sender` of this tier. A web server waits as long as any route allows: the balancer knows the route, and
/// ends the wait.
pub(super) fn timeouts(proxy: &BalancerProxy, sender: Tier) -> ServerTimeouts {
    let usual = proxy.server_timeouts.clone().unwrap_or_default();
    let longest = proxy
        .routes
        .iter()
        .filter_map(|route| route.allowance.response);
    let response = match sender {
        Tier::Web => longest.fold(usual.response, Duration::max),
        _ => usual.response,
    };
    // The others are between our own servers.
    ServerTimeouts {
        response,
        queue: usual.queue,
        ..ServerTimeouts::default()
    }
}

/// How long a balancer waits for a web server.
pub(super) fn patience_with_web(proxy: &BalancerProxy) -> Duration {
    let instances = timeouts(proxy, Tier::Balancer);
    let usual = ServerTimeouts::default();
    let longer = instances.queue.saturating_sub(usual.queue);
    instances.response + longer + HOP
}

/// What counts against a web server. Where a wait is the file's to say, a balancer's may end before the web server's: the slow instance is
/// not the web server's fault, and one that hangs is found by its check.
pub(super) fn ejection_of_web(proxy: &BalancerProxy) -> Ejection {
    let waits = proxy.routes.iter();
    let mut waits = waits.filter_map(|route| route.allowance.response);
    let observe = match proxy.server_timeouts.is_some() || waits.next().is_some() {
        true => Observe::Layer4,
        false => Ejection::default().observe,
    };
    Ejection {
        observe,
        ..Ejection::default()
    }
}

/// Connections of a web server: all that the balancers may have, of clients and of waiting ones.
pub(super) fn connections_behind(placement: &Placement, usual: u32) -> u32 {
    let section = placement.config.balancer.as_ref();
    let most = section.and_then(|balancer| balancer.proxy.maxconn);
    let balancers = u32::try_from(balancers(placement).len()).unwrap_or(u32::MAX);
    most.map_or(usual, |most| most.saturating_mul(balancers).max(usual))
}

/// What a web server passes on: heads as large as the balancers do.
pub(super) fn allowance_behind(proxy: &BalancerProxy) -> Allowance {
    let routes = proxy.routes.iter().map(|route| route.allowance.head);
    let any = routes.chain([proxy.max_head]).flatten().next();
    Allowance {
        head: any.map(|_| Allowance::MOST_HEAD),
        ..Allowance::default()
    }
}

/// Addresses of all balancers.
pub(super) fn balancers(placement: &Placement) -> Vec<IpNet> {
    let balancers = servers_of(placement, Tier::Balancer);
    let addresses = balancers.filter_map(|server| Some(host(location(placement, server)?.address)));
    addresses.collect()
}

#[cfg(test)]
mod tests;
