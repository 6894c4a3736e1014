//! Detects proxies that forward to themselves.

use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{Address, Backend, Frontend, Mode};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whether requests to a server at this address arrive at one of the frontends, and from there may reach the same
/// server again. `is_ours` returns whether this machine has an address.
///
/// ```
/// use gaiola_core::route::comes_back;
/// use gaiola_model::ProxyConfig;
/// use gaiola_model::proxy::{Backend, Bind, Frontend, Mode, Refusal, Server};
/// use std::net::SocketAddr;
///
/// let own: SocketAddr = "127.0.0.1:80".parse().unwrap();
/// let mode = Mode::Tcp { backend: "app".into(), refusal: Refusal::Close, sni: Vec::new() };
/// let config = ProxyConfig {
///     frontends: vec![Frontend::new("www", vec![Bind::new("0.0.0.0:80".parse::<SocketAddr>().unwrap())], mode)],
///     backends: vec![Backend::new("app", vec![Server::new("a", own)])],
///     ..ProxyConfig::default()
/// };
/// assert!(comes_back(&config, &own.into(), &|address| address.is_loopback()));
/// assert!(!comes_back(&config, &own.into(), &|_| false));
/// ```
pub fn comes_back(
    config: &ProxyConfig,
    server: &Address,
    is_ours: &dyn Fn(IpAddr) -> bool,
) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![server];
    while let Some(address) = ahead.pop() {
        let listens = |frontend: &&Frontend| {
            let mut binds = frontend.binds.iter();
            binds.any(|bind| leads_to(address, &bind.address, is_ours))
        };
        for frontend in config.frontends.iter().filter(listens) {
            for backend in backends(config, frontend) {
                let addresses = backend.servers.iter().map(|server| &server.address);
                ahead.extend(addresses.clone().filter(|address| seen.insert(*address)));
            }
        }
        if seen.contains(server) {
            return true;
        }
    }
    false
}

/// Whether a connection to `server` arrives at `bind`.
fn leads_to(server: &Address, bind: &Address, is_ours: &dyn Fn(IpAddr) -> bool) -> bool {
    match (server.tcp(), bind.tcp()) {
        _ if server == bind => true,
        (Some(server), Some(bind)) => {
            server.port() == bind.port()
                && server.is_ipv4() == bind.is_ipv4()
                && bind.ip().is_unspecified()
                && is_ours(server.ip())
        }
        _ => false,
    }
}

/// All backends that a frontend may send to.
fn backends<'a>(config: &'a ProxyConfig, frontend: &'a Frontend) -> Vec<&'a Backend> {
    let mut names: Vec<&str> = match &frontend.mode {
        Mode::Http { routes, .. } => routes
            .iter()
            .filter_map(|it| it.backend.as_deref())
            .collect(),
        Mode::Tcp { backend, sni, .. } => {
            let named = sni.iter().map(|route| &*route.backend);
            named.chain([&**backend]).collect()
        }
    };
    let mut found: Vec<&Backend> = Vec::new();
    while let Some(name) = names.pop() {
        let backend = config.backends.iter().find(|backend| backend.name == name);
        if let Some(backend) = backend.filter(|it| found.iter().all(|other| other.name != it.name))
        {
            names.extend(backend.fallback.as_deref());
            found.push(backend);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::{Bind, Refusal, Route, Server};

    fn address(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    /// Frontends by their ports, each with the port of its backend's only server.
    fn config(ways: &[(u16, u16)]) -> ProxyConfig {
        let name = |port: u16| format!("b{port}");
        let frontend = |(bind, _): &(u16, u16)| {
            let mode = match bind % 2 {
                0 => Mode::Http {
                    routes: vec![Route::to(name(*bind))],
                    trusted: Vec::new(),
                },
                _ => Mode::Tcp {
                    backend: name(*bind),
                    refusal: Refusal::Close,
                    sni: Vec::new(),
                },
            };
            Frontend::new("f", vec![Bind::new(address(*bind))], mode)
        };
        let backend = |(bind, server): &(u16, u16)| {
            Backend::new(name(*bind), vec![Server::new("s", address(*server))])
        };
        ProxyConfig {
            frontends: ways.iter().map(frontend).collect(),
            backends: ways.iter().map(backend).collect(),
            ..ProxyConfig::default()
        }
    }

    fn goes_round(ways: &[(u16, u16)], server: u16) -> bool {
        comes_back(&config(ways), &address(server), &|_| true)
    }

    #[test]
    fn a_frontend_may_be_another_ones_server_but_not_its_own() {
        assert!(goes_round(&[(2, 2)], 2));
        assert!(goes_round(&[(1, 2), (2, 3), (3, 1)], 2));
        assert!(!goes_round(&[(1, 2), (2, 9)], 2));
        assert!(!goes_round(&[(1, 2), (2, 9)], 9));
    }

    #[test]
    fn a_backend_that_stands_in_counts() {
        let mut config = config(&[(1, 8), (2, 1)]);
        assert!(!comes_back(&config, &address(1), &|_| true));
        config.backends[0].fallback = Some("b2".into());
        assert!(comes_back(&config, &address(1), &|_| true));
    }
}
