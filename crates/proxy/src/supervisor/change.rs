//! Applying a new configuration: everything that can fail is done before the workers receive it.

use super::admission::refuse;
use super::error::{BackendError, ConfigError, Twice};
use super::{Role, Supervisor, WatchedBackend};
use crate::check::{Before, Watched};
use crate::clock::since_epoch;
use crate::counters::Counters;
use crate::limits::Limiter;
use crate::listen::{self, Listener};
use crate::orders::{FrontendShare, InFlight, Member, Orders};
use crate::rules;
use crate::tls::{Binds, Servers};
use gaiola_core::health::LastResort;
use gaiola_core::sticky;
use gaiola_model::proxy::{
    Admission, Algorithm, Backend, Bind, Check, CheckKind, KnownServer, OnMarkedDown, ProxyConfig,
    Server, SlowEjection, SocketUse,
};
use gaiola_model::{ProxyConfig as Config, Revision};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for first probes before a configuration takes effect.
const FIRST_PROBES: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Applies a configuration, and returns once every worker has it.
    pub(crate) async fn configure(&self, config: Config) -> Result<Revision, ConfigError> {
        let _changing = self.changing.lock().await;
        let revision = config.revision;
        // A process that leaves takes what the new one serves, which counts anew.
        if revision < self.revision.get() && !self.orders().leaving {
            let held = self.revision.get();
            return Err(ConfigError::Older { revision, held });
        }
        let taken = self.put_in_force(config).await;
        self.count_reload(taken.is_ok());
        taken?;
        self.tell_old_of_config().await;
        Ok(revision)
    }

    /// Applies a configuration no older than the current one. The caller holds `changing`, so that changes are
    /// serialized.
    pub(super) async fn put_in_force(&self, config: Config) -> Result<(), ConfigError> {
        validate(&config)?;
        let revision = config.revision;
        let servers = Servers::read(&config)?;
        let tls = Binds::read(&config, &self.tickets)?;
        let guides = rules::guides(&config)?;
        let limits = self.limits(&config);
        let listeners = self.bind(&config)?;
        let backends = self.watch(&config, &servers);
        first_probes(&backends).await;
        permit(&config, &listeners)?;
        let config = Arc::new(config);
        let seq = self.take(&config, backends, |orders| {
            orders.listeners = self.release(listeners);
            orders.tls = Arc::new(tls);
            orders.guides = guides;
            orders.limits = limits;
        });
        // What it does not use is closed.
        self.inherited.take();
        self.servers.replace(Rc::new(servers));
        self.applied(seq).await?;
        self.revision.set(revision);
        self.ready.set(true);
        self.counters().for_each(Counters::forget_series);
        self.warn_of_descriptors(&config);
        Ok(())
    }

    /// A session takes two connections, and splicing two more descriptors; users of `maxconn` rely on having them.
    fn warn_of_descriptors(&self, config: &Config) {
        let all: u64 = config
            .frontends
            .iter()
            .map(|frontend| u64::from(frontend.maxconn))
            .sum();
        let Some(limit) = getrlimit(Resource::Nofile).current else {
            return;
        };
        if self.maxconn.replace(all) != all && 2 * all > limit {
            tracing::warn!(
                limit,
                maxconn = all,
                "the frontends' maxconn is more than the limit of descriptors (LimitNOFILE) allows: two a connection"
            );
        }
    }

    /// Applies a configuration that differs from the current one only in weights and states of servers. No file is read
    /// again. The caller holds `changing`.
    pub(super) async fn change_servers(&self, config: Config) -> Result<(), ConfigError> {
        validate(&config)?;
        let servers = Rc::clone(&self.servers.borrow());
        let backends = self.watch(&config, &servers);
        first_probes(&backends).await;
        let seq = self.take(&Arc::new(config), backends, |_| {});
        self.applied(seq).await?;
        self.tell_old_of_config().await;
        Ok(())
    }

    /// Publishes a configuration and its backends, and further changes with them.
    fn take(
        &self,
        config: &Arc<Config>,
        backends: Vec<WatchedBackend>,
        also: impl FnOnce(&mut Orders),
    ) -> u64 {
        for (backend, watched) in config.backends.iter().zip(&backends) {
            for (server, watched) in backend.servers.iter().zip(&watched.members) {
                watched.set_admin(server.admin);
            }
        }
        let replaced = self.backends.replace(backends);
        let seq = self.publish(|orders| {
            orders.frontends = shares(config, &orders.frontends);
            orders.backends = self.backend_orders();
            orders.config = Some(Arc::clone(config));
            also(orders);
        });
        // Shares may grow from now on.
        self.health_changed.notify_one();
        self.keep_leaving(replaced);
        seq
    }

    /// The current configuration, and its limits with their counts.
    pub(crate) fn limits_in_force(&self) -> (Option<Arc<Config>>, Vec<Arc<Limiter>>) {
        let orders = self.orders();
        (orders.config.clone(), orders.limits.clone())
    }

    /// Unchanged limits keep their counts.
    fn limits(&self, config: &Config) -> Vec<Arc<Limiter>> {
        let orders = self.orders();
        let secret = match &config.limit_secret {
            Some(secret) => secret.as_bytes(),
            None => &self.limit_secret,
        };
        let inherited = self.inherited.borrow();
        let limiter = |limit| {
            let mut old = orders.limits.iter();
            if let Some(old) = old.find(|old| old.is_for(limit, secret)) {
                return Arc::clone(old);
            }
            let new = Limiter::new(limit, secret);
            let mut handed = inherited.limits.iter();
            if let Some((_, counts)) = handed.find(|(identity, _)| *identity == new.identity) {
                new.import(counts, since_epoch());
            }
            Arc::new(new)
        };
        config.limits.iter().map(limiter).collect()
    }

    /// Kept and new listeners. Removed ones close once no worker has them.
    fn bind(&self, config: &Config) -> Result<Vec<Arc<Listener>>, ConfigError> {
        let orders = self.orders();
        if orders.leaving {
            return Ok(Vec::new());
        }
        let binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
        let refused: BTreeSet<_> = orders
            .admissions
            .iter()
            .filter(|(_, admission)| **admission == Admission::Refuse)
            .map(|(&address, _)| address)
            .collect();
        let (mut listeners, mut mistakes) = (Vec::new(), Vec::new());
        for bind in binds {
            let kept = orders
                .listeners
                .iter()
                .find(|listener| listener.address == bind.address);
            let listener = match kept {
                Some(kept) => Ok(Arc::clone(kept)),
                None => self.listen(bind).map(Arc::new),
            };
            match listener {
                Ok(listener) => listeners.push(listener),
                Err(error) => mistakes.push((bind.address.clone(), error)),
            }
        }
        if !mistakes.is_empty() {
            return Err(ConfigError::Bind(mistakes));
        }
        refuse(&listeners, &refused)?;
        Ok(listeners)
    }

    /// Listens on an address, with the sockets of the process that this one takes over from if it has some.
    fn listen(&self, bind: &Bind) -> io::Result<Listener> {
        let (workers, inherited) = (self.workers.len(), self.inherited.borrow());
        let sockets = inherited.sockets(&SocketUse::Listener(bind.address.clone()))?;
        if !sockets.is_empty() {
            return Listener::inherit(bind, sockets, workers);
        }
        match *self.held.borrow() {
            // Clients would wait in vain if this process failed now.
            Some(_) => Listener::prepare(bind, workers),
            None => Listener::bind(bind, workers),
        }
    }

    fn watch(&self, config: &Config, servers: &Servers) -> Vec<WatchedBackend> {
        let old = self.backends.borrow();
        config
            .backends
            .iter()
            .map(|backend| {
                let before = old.iter().find(|before| before.name == backend.name);
                self.watch_backend(backend, servers, before)
            })
            .collect()
    }

    /// Keeps unchanged members, and starts watching the others.
    fn watch_backend(
        &self,
        backend: &Backend,
        servers: &Servers,
        before: Option<&WatchedBackend>,
    ) -> WatchedBackend {
        let queue = before.map_or_else(Arc::default, |before| Arc::clone(&before.queue));
        let in_flight = match before {
            Some(before) => Arc::clone(&before.in_flight),
            None => Arc::new(InFlight::new(self.workers.len())),
        };
        let watch = |server: &Server| {
            let old = before.and_then(|before| find(&before.members, server));
            let check = check_of(backend, server);
            let check = (check.as_ref(), backend.ejection);
            let tls = servers.check(&backend.name, &server.name);
            let stays = |old: &&Rc<Watched>| old.stays_with(server.admin, check, tls.is_some());
            if let Some(old) = old.filter(stays) {
                return Rc::clone(old);
            }
            let member = match old {
                Some(old) => Arc::clone(&old.member),
                None => self.member(backend, server),
            };
            let changed = &self.health_changed;
            let inherited = self.inherited.borrow();
            let known = |known: &&KnownServer| {
                let is_backend = known.backend == backend.name;
                is_backend && known.server == server.name && known.address == server.address
            };
            let old = match (old, inherited.health.iter().find(known)) {
                (Some(old), _) => Before::Watched(old),
                (None, Some(known)) => Before::Handed(known),
                (None, None) => Before::Nothing,
            };
            Rc::new(Watched::start(
                member,
                server.admin,
                check,
                tls,
                old,
                changed,
            ))
        };
        let members = backend.servers.iter().map(watch).collect();
        let tls = |server: &Server| servers.of(&backend.name, &server.name);
        WatchedBackend {
            tls: backend.servers.iter().map(tls).collect(),
            name: backend.name.clone(),
            slow_start: backend.slow_start,
            slow_ejection: backend.slow_ejection,
            queue,
            in_flight,
            members,
            ejection: backend.ejection,
            last_resort: last_resort(backend),
            exclusive: backend.exclusive,
            roles: backend.servers.iter().map(role).collect(),
        }
    }

    /// A member that returns while its last requests are still in flight is the same value as before.
    fn member(&self, backend: &Backend, server: &Server) -> Arc<Member> {
        let leaving = self.leaving.borrow();
        let same = leaving
            .iter()
            .find(|member| member.backend == backend.name && member.is(server));
        match same {
            Some(same) => Arc::clone(same),
            None => Arc::new(Member::new(&backend.name, server, self.workers.len())),
        }
    }

    /// Members that were not kept are reported until they have no requests in flight.
    fn keep_leaving(&self, replaced: Vec<WatchedBackend>) {
        let gone = replaced.into_iter().flat_map(|backend| backend.members);
        let mut leaving = self.leaving.borrow_mut();
        leaving.extend(gone.map(|watched| Arc::clone(&watched.member)));
        let backends = self.backends.borrow();
        let configured = |member: &Arc<Member>| {
            let mut all = backends.iter().flat_map(|backend| &backend.members);
            all.any(|watched| Arc::ptr_eq(&watched.member, member))
        };
        leaving.retain(|member| !configured(member));
    }
}

/// Sets the permissions of Unix socket files; listeners are in the order of their binds.
fn permit(config: &Config, listeners: &[Arc<Listener>]) -> Result<(), ConfigError> {
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
    for (bind, listener) in binds.zip(listeners) {
        listener
            .permit(bind.permissions)
            .map_err(|error| ConfigError::Permissions {
                address: bind.address.clone(),
                error,
            })?;
    }
    Ok(())
}

/// Members that failed their checks by silence do not serve where sessions are shut down on `down`.
fn last_resort(backend: &Backend) -> LastResort {
    if backend.fallback.is_some() {
        LastResort::Fallback
    } else if backend.on_marked_down == OnMarkedDown::ClosePooled {
        LastResort::Silent
    } else {
        LastResort::Nothing
    }
}

const fn role(server: &Server) -> Role {
    Role {
        wanted: server.is_wanted(),
        spare: server.spare,
    }
}

/// The backend's check, with the server's own path and port if it has them.
fn check_of(backend: &Backend, server: &Server) -> Option<Check> {
    let mut check = backend.check.clone()?;
    check.port = server.check_port.or(check.port);
    if let Some(own) = &server.check_path {
        match &mut check.kind {
            CheckKind::Http { path } | CheckKind::Https { path, .. } => path.clone_from(own),
            CheckKind::Tcp | CheckKind::Tls | CheckKind::Postgres { .. } => {}
        }
    }
    Some(check)
}

fn find<'a>(members: &'a [Rc<Watched>], server: &Server) -> Option<&'a Rc<Watched>> {
    members.iter().find(|watched| watched.member.is(server))
}

async fn first_probes(backends: &[WatchedBackend]) {
    let all = async {
        for watched in backends.iter().flat_map(|backend| &backend.members) {
            watched.proven().await;
        }
    };
    // Slower ones count as `core::health` decides.
    let _ = tokio::time::timeout(FIRST_PROBES, all).await;
}

fn shares(config: &Config, before: &[Arc<FrontendShare>]) -> Vec<Arc<FrontendShare>> {
    let share = |name: &str| match before.iter().find(|share| share.name == name) {
        Some(same) => Arc::clone(same),
        None => Arc::new(FrontendShare::new(name)),
    };
    config
        .frontends
        .iter()
        .map(|frontend| share(&frontend.name))
        .collect()
}

/// Reports references to undefined names, and duplicates.
///
/// # Errors
/// The first mistake.
pub(crate) fn validate(config: &ProxyConfig) -> Result<(), ConfigError> {
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
    listen::addresses(binds).map_err(|twice| ConfigError::BoundTwice(twice.clone()))?;
    if config.peers.is_some() && config.limit_secret.is_none() {
        return Err(ConfigError::PeersWithoutSecret);
    }
    unique(
        "frontend",
        config.frontends.iter().map(|frontend| &*frontend.name),
    )?;
    unique(
        "backend",
        config.backends.iter().map(|backend| &*backend.name),
    )?;
    for backend in &config.backends {
        check(backend).map_err(|why| ConfigError::Backend {
            backend: backend.name.clone(),
            why,
        })?;
    }
    for frontend in &config.frontends {
        for name in frontend.mode.backends().into_iter().flatten() {
            if !config.backends.iter().any(|backend| backend.name == name) {
                return Err(ConfigError::NoBackend {
                    frontend: frontend.name.clone(),
                    backend: name.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Checks how a backend's servers are named and chosen.
fn check(backend: &Backend) -> Result<(), BackendError> {
    unique("server", backend.servers.iter().map(|server| &*server.name))?;
    let most = Server::MOST_WEIGHT;
    if let Some(server) = backend.servers.iter().find(|server| server.weight > most) {
        return Err(BackendError::Weight(server.name.clone()));
    }
    if let Algorithm::Hash {
        bound: Some(..100), ..
    } = backend.algorithm
    {
        return Err(BackendError::HashBound);
    }
    if let Some(SlowEjection { factor: ..=100, .. }) = backend.slow_ejection {
        return Err(BackendError::EjectionFactor);
    }
    match sticky::fault(backend) {
        Some(fault) => Err(BackendError::Sticky(fault)),
        None => Ok(()),
    }
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), Twice> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let name = name.to_owned();
            return Err(Twice { what, name });
        }
    }
    Ok(())
}
