//! What one worker serves: the configuration joined with its part of every member's state, for fast access.

mod backend;
mod server;

pub(super) use backend::{Backend, NoServer, Permit, Want};
pub(super) use server::{Idle, Interrupt, Interrupted, Server};

use super::counters::{Counters, Series};
use super::limits::{InFlightGuard, Limiter};
use super::log::Load;
use super::orders::{FrontendShare, Orders};
use super::rules::{Guide, Page};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{self, Address, Bind, Mode};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A configuration in force on one worker. It is immutable, except for the health of its servers.
#[derive(Default)]
pub(super) struct WorkerConfig {
    config: Arc<ProxyConfig>,
    frontends: Vec<Frontend>,
    backends: Vec<Rc<Backend>>,
    limits: Vec<Arc<Limiter>>,
}

/// One frontend.
pub(super) struct Frontend {
    /// Its connections on all workers.
    pub(super) share: Arc<FrontendShare>,
    /// Its per-request settings.
    pub(super) guide: Guide,
    /// The backends that its mode refers to.
    backends: Vec<Option<usize>>,
    /// Counters by backend and server, indexed as in the configuration; last in each backend, requests without a
    /// server.
    series: Vec<Vec<Arc<Series>>>,
    /// Counters of requests answered with files, and of those without a backend.
    files: Arc<Series>,
    nowhere: Arc<Series>,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServedBy {
    /// By the worker itself.
    Nowhere,
    /// With a file.
    Files,
    /// By the worker on behalf of a backend that had no server available.
    Backend(usize),
    /// By a server of a backend.
    Server(usize, usize),
}

impl WorkerConfig {
    /// Builds what `orders` describe, reusing the servers of `before` that stay.
    pub(super) fn new(
        orders: &Orders,
        before: &Self,
        counters: &Counters,
        worker: usize,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let config = orders.config.clone().unwrap_or_default();
        let old: HashMap<_, _> = before
            .servers()
            .map(|server| (Arc::as_ptr(&server.member), server))
            .collect();
        let backends = orders
            .backends
            .iter()
            .zip(&config.backends)
            .map(|(orders, backend)| {
                let server = |member: &Arc<_>| match old.get(&Arc::as_ptr(member)) {
                    Some(&same) => Rc::clone(same),
                    None => {
                        let all = Arc::clone(&orders.in_flight);
                        Rc::new(Server::new(Arc::clone(member), all, worker))
                    }
                };
                let members = orders.members.iter().zip(&backend.servers);
                let servers = members.zip(orders.tls.iter());
                let servers = servers.map(|(((member, _), config), tls)| {
                    let server = server(member);
                    server.set_tls(config.tls.as_ref(), tls.clone());
                    server
                });
                let mut backends = before.backends();
                let before = backends.find(|before| before.config.name == backend.name);
                let rng = rng.fork();
                Rc::new(Backend::new(
                    backend,
                    servers.collect(),
                    orders,
                    before,
                    rng,
                ))
            });
        let backends: Vec<_> = backends.collect();
        let shares = orders.frontends.iter().zip(&orders.guides);
        let frontends = config.frontends.iter().zip(shares);
        let frontends = frontends
            .map(|(frontend, (share, guide))| Frontend {
                guide: Guide::clone(guide),
                ..Frontend::new(frontend, share, &config, counters)
            })
            .collect();
        let serving = Self {
            config,
            frontends,
            backends,
            limits: orders.limits.clone(),
        };
        serving.take_health(orders);
        serving
    }

    /// Applies the servers' health.
    pub(super) fn take_health(&self, orders: &Orders) {
        for (backend, orders) in self.backends.iter().zip(&orders.backends) {
            let health: Vec<_> = orders.members.iter().map(|(_, health)| *health).collect();
            backend.take_health(&health);
        }
    }

    /// `next` replaces it: servers that `next` lacks take no more traffic.
    pub(super) fn supersede(&self, next: &Self) {
        let stay: HashSet<_> = next.servers().map(Rc::as_ptr).collect();
        for server in self.servers() {
            if !stay.contains(&Rc::as_ptr(server)) {
                server.retire();
            }
        }
        self.backends().for_each(Backend::supersede);
    }

    /// Every backend.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().map(|backend| &**backend)
    }

    /// Every server of every backend.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Rc<Server>> {
        self.backends.iter().flat_map(|backend| backend.servers())
    }

    /// The frontend that listens on `bind`, and the bind itself.
    pub(super) fn frontend(&self, bind: &Address) -> Option<(usize, &Bind)> {
        self.config
            .frontends
            .iter()
            .enumerate()
            .find_map(|(index, frontend)| {
                let bind = frontend.binds.iter().find(|other| other.address == *bind)?;
                Some((index, bind))
            })
    }

    /// A frontend with its configuration.
    pub(super) fn of(&self, frontend: usize) -> (&Frontend, &proxy::Frontend) {
        (&self.frontends[frontend], &self.config.frontends[frontend])
    }

    /// The backend of a frontend's route, in TCP mode 0 or one more than the route for a name, with its index; if none
    /// of its servers is up, its fallback. `None`: the route has none.
    pub(super) fn backend(&self, frontend: usize, route: usize) -> Option<(usize, &Rc<Backend>)> {
        let mut index = self.frontends[frontend].backends[route]?;
        // Fallbacks may form a cycle: as many steps as there are backends reach every one.
        for _ in 0..self.backends.len() {
            if self.backends[index].any_usable() {
                break;
            }
            let Some((next, _)) = self.fallback(index) else {
                break;
            };
            index = next;
        }
        Some((index, &self.backends[index]))
    }

    /// The fallback of a backend, with its index.
    pub(super) fn fallback(&self, index: usize) -> Option<(usize, &Rc<Backend>)> {
        let name = self.backends[index].config.fallback.as_ref()?;
        let mut all = self.backends.iter().enumerate();
        all.find(|(_, other)| other.config.name == *name)
    }

    /// Whether a server of the backend of this name takes traffic.
    pub(super) fn is_up(&self, backend: &str) -> bool {
        let mut all = self.backends();
        let found = all.find(|found| found.config.name == backend);
        found.is_some_and(Backend::any_usable)
    }

    /// Concurrent connections and requests of the process, of the frontend, and of what answered a request.
    pub(super) fn load(&self, frontend: usize, served_by: ServedBy) -> Load {
        let open = |frontend: &Frontend| u64::from(frontend.share.open());
        let (backend, server) = match served_by {
            ServedBy::Nowhere | ServedBy::Files => (0, 0),
            ServedBy::Backend(backend) => (self.backends[backend].load(), 0),
            ServedBy::Server(index, server) => {
                let backend = &self.backends[index];
                let member = &backend.servers()[server].member;
                (backend.load(), member.in_flight())
            }
        };
        Load {
            process: self.frontends.iter().map(open).sum(),
            frontend: open(&self.frontends[frontend]),
            backend,
            server,
        }
    }

    /// One of the configuration's limits.
    pub(super) fn limit(&self, index: usize) -> &Arc<Limiter> {
        &self.limits[index]
    }

    /// Counts a connection of this client while the result is kept; `None` if it exceeds the limit.
    pub(super) fn admit(&self, frontend: usize, client: IpAddr) -> Option<Option<InFlightGuard>> {
        let Some(limit) = self.frontends[frontend].guide.connection_limit else {
            return Some(None);
        };
        let limiter = &self.limits[limit];
        match limiter.key_of(client) {
            Some(key) => limiter.take(key).ok(),
            None => Some(None),
        }
    }

    /// The page for the responses of the proxy itself with this status.
    pub(super) fn page(&self, bind: &Address, status: u16) -> Option<&Page> {
        let (frontend, _) = self.frontend(bind)?;
        self.frontends[frontend].guide.pages.get(&status)
    }

    /// The configuration.
    pub(super) fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// Whether it has an HTTP frontend.
    pub(super) fn serves_http(&self) -> bool {
        let mut frontends = self.config.frontends.iter();
        frontends.any(|frontend| matches!(frontend.mode, Mode::Http { .. }))
    }

    /// Names of the backend and server, `-` for none.
    pub(super) fn names(&self, served_by: ServedBy) -> (&str, &str) {
        match served_by {
            ServedBy::Nowhere => ("-", "-"),
            ServedBy::Files => ("files", "-"),
            ServedBy::Backend(backend) => (&self.config.backends[backend].name, "-"),
            ServedBy::Server(backend, server) => {
                let backend = &self.config.backends[backend];
                (&backend.name, &backend.servers[server].name)
            }
        }
    }
}

/// These backends and all their fallbacks.
fn with_fallbacks(backends: &[Option<usize>], config: &ProxyConfig) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = backends.iter().copied().flatten().collect();
    while let Some(index) = next.pop() {
        if reached.insert(index) {
            let fallback = config.backends[index].fallback.as_ref();
            next.extend(fallback.and_then(|name| {
                let mut all = config.backends.iter();
                all.position(|other| other.name == *name)
            }));
        }
    }
    reached
}

impl Frontend {
    fn new(
        frontend: &proxy::Frontend,
        share: &Arc<FrontendShare>,
        config: &ProxyConfig,
        counters: &Counters,
    ) -> Self {
        let names = frontend.mode.backends();
        let index = |name: &str| {
            let mut all = config.backends.iter();
            all.position(|backend| backend.name == name)
        };
        // The supervisor has checked that every named backend exists.
        let backends = names.into_iter().map(|name| name.and_then(index));
        let backends: Vec<_> = backends.collect();
        let reached = with_fallbacks(&backends, config);
        let series = |(index, backend): (usize, &proxy::Backend)| {
            if !reached.contains(&index) {
                return Vec::new();
            }
            let servers = backend.servers.iter().map(|server| &*server.name);
            servers
                .chain(["-"])
                .map(|server| counters.series([&frontend.name, &backend.name, server]))
                .collect()
        };
        Self {
            share: Arc::clone(share),
            guide: Guide::default(),
            series: config.backends.iter().enumerate().map(series).collect(),
            backends,
            files: counters.series([&frontend.name, "files", "-"]),
            nowhere: counters.series([&frontend.name, "-", "-"]),
        }
    }

    /// The counters for requests that it answered.
    pub(super) fn series(&self, served_by: ServedBy) -> &Series {
        match served_by {
            ServedBy::Nowhere => &self.nowhere,
            ServedBy::Files => &self.files,
            ServedBy::Backend(backend) => self.series[backend].last().unwrap_or(&self.nowhere),
            ServedBy::Server(backend, server) => &self.series[backend][server],
        }
    }
}
