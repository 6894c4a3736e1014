//! The proxy configuration of each kind of server.

use super::front::{self, Front};
use super::{
    HEALTH_PATH, PROBE_PATH, TrafficTarget, address_of_instance, address_of_web, balancer_at,
    database, encrypted, has_database, has_proxy, location, servers_of, serves,
};
use gaiola_model::config::{BalancerProxy, BalancerTls, Config, HealthCheck};
use gaiola_model::inventory::Ports;
use gaiola_model::placement::{
    CertificateCopy, Door, DoorState, Phase, PlacedInstance, ProxyFiles,
};
use gaiola_model::proxy::{
    Admin, Algorithm, Backend, Bind, Check, CheckKind, ClientCertificates, ClientTimeouts,
    FileOptions, Fixed, Frontend, Mode, Route, Rule, Server, ServerTimeouts, Tls,
};
use gaiola_model::{InstanceName, Placement, ProxyConfig, Revision, ServerName, Tier};
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Paths on the server that a proxy runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Directory of the releases; release 3 is in `3/` below it.
    pub releases: PathBuf,
    /// PEM file of the site's CA.
    pub ca: PathBuf,
    /// PEM file of the server's certificate.
    pub cert: PathBuf,
    /// PEM file of the server's key.
    pub key: PathBuf,
    /// Directory of the site's certificate copies, each named by its digest.
    pub certificates: PathBuf,
}

const MAX_CLIENTS: u32 = 20_000;
/// Between our own servers a connection is established within a millisecond; a lost SYN is resent after a second, which
/// is too late for any useful timeout.
const CONNECT: Duration = Duration::from_millis(250);
/// With TLS a busy server needs the processor to establish one.
const CONNECT_TLS: Duration = Duration::from_millis(500);
const CHECK_CONNECT: Duration = Duration::from_millis(150);

/// Everything the proxy on `server` serves under the placement the store holds at revision `at`, with these of the site's files
/// ([`files_to_serve`](super::files_to_serve)).
///
/// `None`: no proxy runs there (a database server, an application server of a site without a database, or a server
/// that the placement does not know).
pub fn proxy_config(
    placement: &Placement,
    at: Revision,
    server: ServerName,
    paths: &Paths,
    files: &ProxyFiles,
) -> Option<ProxyConfig> {
    let ports = location(placement, server)?.ports;
    let (frontends, backends) = match server.tier {
        Tier::Balancer => {
            let copy = files.certificates.as_ref();
            let certificates = copy.map(|copy| served(copy, paths));
            balancer(placement, server, certificates, paths)
        }
        Tier::Web => {
            let address = address_of_web(placement, server)?;
            web(
                placement,
                address,
                directories(placement, files, paths),
                paths,
            )
        }
        Tier::App if has_proxy(placement, server) => app(placement, server, ports, paths),
        Tier::App | Tier::Database => return None,
    };
    Some(ProxyConfig {
        revision: at,
        server: server.to_string(),
        frontends,
        backends,
        limits: match server.tier {
            Tier::Balancer => settings(placement).limits.clone(),
            Tier::Web | Tier::App | Tier::Database => Vec::new(),
        },
        peers: match server.tier {
            Tier::Balancer => front::peers(placement, server),
            Tier::Web | Tier::App | Tier::Database => None,
        },
        ..ProxyConfig::default()
    })
}

/// Every VIP and port leads to the web tier, or to the instances if there is none. TLS has a port of its own, and the
/// other ports redirect there; without certificates neither exists.
///
/// While the web tier is added or removed both backends exist, so that the new one is found up before traffic switches
/// to it.
fn balancer(
    placement: &Placement,
    server: ServerName,
    certificates: Option<Tls>,
    paths: &Paths,
) -> (Vec<Frontend>, Vec<Backend>) {
    let has_web = servers_of(placement, Tier::Web).next().is_some();
    let target = if placement.through_web { "web" } else { "app" };
    let doors = placement.doors.iter();
    let is_anothers = |at: &SocketAddr| {
        let whose = balancer_at(placement, at.ip());
        whose.is_some_and(|whose| whose != server)
    };
    let doors = doors.filter(|(at, door)| door.tier == Tier::Balancer && !is_anothers(at));
    let (secure, plain): (Vec<_>, Vec<_>) = doors
        .map(|(address, _)| door_bind(placement, *address))
        .partition(|bind| is_https(placement, bind));
    let tls = placement.config.tls().zip(certificates);
    let tls = tls.map(|(tls, certificates)| (tls, with_clients(tls, certificates)));
    let redirect = tls.as_ref().filter(|(tls, _)| tls.redirect);
    let redirect = redirect.map(|_| Rule::to_https(308));
    let section = placement.config.balancer.as_ref();
    let front = Front {
        proxy: &settings(placement),
        target,
        compress: section.and_then(|balancer| balancer.compress.as_ref()),
        trusted: section.map_or(&[][..], |balancer| &balancer.trust),
        health: health_route(leaves(placement, server), target),
        to_https: redirect.is_some(),
        maintenance: placement.maintenance.as_ref(),
    };
    let mut frontends = vec![front.frontend("http", plain, redirect.as_slice())];
    if let Some((tls, certificates)) = tls {
        let secure = secure.into_iter().map(|bind| Bind {
            tls: Some(certificates.clone()),
            ..bind
        });
        let hsts = tls.hsts_days.map(hsts);
        frontends.push(front.frontend("https", secure.collect(), hsts.as_slice()));
    }
    let mut backends = Vec::new();
    if has_web {
        backends.push(web_backend(placement, paths));
    }
    if placement.past_web {
        backends.push(app_backend(placement, Tier::Balancer, paths));
    }
    (frontends, backends)
}

/// Whether a balancer should get no more clients: it is drained, or every door at its own address is closing.
fn leaves(placement: &Placement, server: ServerName) -> bool {
    let own = location(placement, server).map(|location| location.address);
    let doors = placement.doors.iter();
    let mut own = doors.filter(|(at, door)| door.tier == Tier::Balancer && Some(at.ip()) == own);
    let is_closing = |(_, door): (_, &Door)| door.state == DoorState::Closing;
    !serves(placement, server) || own.clone().next().is_some() && own.all(is_closing)
}

fn is_https(placement: &Placement, bind: &Bind) -> bool {
    let door = bind.address.tcp();
    door.is_some_and(|door| super::is_https(placement, door))
}

/// The certificate copies: each file or folder in the file's list is a folder there, named by its number.
fn served(copy: &CertificateCopy, paths: &Paths) -> Tls {
    let folder = paths.certificates.join(&copy.contents);
    let numbers = 0..copy.folders;
    Tls::new(
        numbers
            .map(|number| folder.join(number.to_string()))
            .collect(),
    )
}

/// Where a web server searches, in each of its releases.
fn directories(placement: &Placement, files: &ProxyFiles, paths: &Paths) -> Vec<PathBuf> {
    let root = placement.config.web.as_ref().map(|web| &web.root);
    let directory = |release| Some(paths.releases.join(format!("{release}")).join(root?));
    files.releases.iter().filter_map(directory).collect()
}

/// The certificates, with what the file asks of clients.
fn with_clients(tls: &BalancerTls, certificates: Tls) -> Tls {
    Tls {
        min_version: tls.min_version,
        client: tls.clients.as_ref().map(|clients| ClientCertificates {
            ca: "client_ca".into(),
            pem: Some(clients.pem.clone()),
            required: clients.required,
        }),
        ..certificates
    }
}

/// What `[balancer]` sets in the words of a proxy's file.
fn settings(placement: &Placement) -> Cow<'_, BalancerProxy> {
    let section = placement.config.balancer.as_ref();
    section.map_or_else(Cow::default, |section| Cow::Borrowed(&section.proxy))
}

fn hsts(days: u16) -> Rule {
    Rule::hsts(Duration::from_secs(u64::from(days) * 24 * 60 * 60), "")
}

/// A static file if it exists, the app tier otherwise.
fn web(
    placement: &Placement,
    address: SocketAddr,
    files: Vec<PathBuf>,
    paths: &Paths,
) -> (Vec<Frontend>, Vec<Backend>) {
    let settings = settings(placement);
    let mut trusted = front::balancers(placement);
    if trusted.is_empty() {
        trusted.clone_from(&placement.network.trusted);
    }
    // Balancers pass on what these say: the client is the last address of none of them.
    let section = placement.config.balancer.iter();
    trusted.extend(section.flat_map(|balancer| &balancer.trust));
    let mode = Mode::Http {
        routes: web_routes(placement, files, &settings),
        trusted,
    };
    let bind = Bind {
        tls: encrypted::to_web(placement, paths),
        ..bind(placement, address)
    };
    (
        vec![Frontend {
            maxconn: front::connections_behind(placement, MAX_CLIENTS),
            timeouts: behind(&settings),
            ..http_frontend("http", vec![bind], mode)
        }],
        vec![app_backend(placement, Tier::Web, paths)],
    )
}

/// Files first, then the app tier: at once for its own paths, and elsewhere where nothing answers in a missing file's place.
fn web_routes(placement: &Placement, files: Vec<PathBuf>, settings: &BalancerProxy) -> Vec<Route> {
    let section = placement.config.web.as_ref();
    let app_paths = section.map_or(&[][..], |web| &web.app_paths);
    let options = section.map(|web| web.files.clone()).unwrap_or_default();
    let compress = section.and_then(|web| web.compress.clone());
    let own = app_paths.iter().map(|path| Route {
        path_prefix: path.clone(),
        file_options: FileOptions {
            tries: Vec::new(),
            not_found: None,
            ..options.clone()
        },
        compress: compress.clone(),
        files: files.clone(),
        allowance: front::allowance_behind(settings),
        ..Route::to("app")
    });
    let mut routes = vec![probe_route()];
    routes.extend(own);
    routes.push(Route {
        file_options: options,
        compress: compress.clone(),
        files,
        allowance: front::allowance_behind(settings),
        ..Route::to("app")
    });
    routes
}

/// The balancers' clients may be silent for as long behind them.
fn behind(settings: &BalancerProxy) -> ClientTimeouts {
    let usual = ClientTimeouts::default();
    settings
        .client_timeouts
        .as_ref()
        .map_or(usual.clone(), |set| ClientTimeouts {
            idle: set.idle.max(usual.idle),
            tunnel: set.tunnel.max(usual.tunnel),
            body_rate: set.body_rate.min(usual.body_rate),
            ..usual
        })
}

/// The instances that speak TLS, and the local ports of the database.
fn app(
    placement: &Placement,
    server: ServerName,
    ports: Ports,
    paths: &Paths,
) -> (Vec<Frontend>, Vec<Backend>) {
    let (mut frontends, mut backends) = encrypted::instances(placement, server, paths);
    if has_database(placement) {
        let (local, primary) = database::local_ports(placement, ports, paths);
        frontends.extend(local);
        backends.extend(primary);
    }
    (frontends, backends)
}

/// The web servers, checked for the readiness of their proxies. Power loss is detected after 250 + 150 + 100 + 150 ms
/// at most, a hang after 950.
///
/// A balancer waits longer for a response than a web server does, so that the hop next to the failure reports it.
///
/// With TLS it is the port of the traffic that is checked: a certificate that is not accepted takes a server down.
fn web_backend(placement: &Placement, paths: &Paths) -> Backend {
    let member = |server| {
        let location = location(placement, server)?;
        let tls = encrypted::with_web(placement, paths);
        Some(Server {
            admin: server_admin(placement, server),
            check_port: tls.is_none().then_some(location.ports.proxy),
            check_path: tls.is_some().then(|| PROBE_PATH.into()),
            tls,
            ..Server::new(
                TrafficTarget::Server(server).to_string(),
                location.socket(location.ports.web),
            )
        })
    };
    let members: Vec<Server> = servers_of(placement, Tier::Web)
        .filter_map(member)
        .collect();
    Backend {
        check: Some(Check {
            kind: CheckKind::Http {
                path: "/readyz".into(),
            },
            port: None,
            host: None,
            headers: BTreeMap::new(),
            status: Vec::new(),
            interval: Duration::from_millis(250),
            fast_interval: Duration::from_millis(100),
            connect: CHECK_CONNECT,
            timeout: Duration::from_millis(300),
            rise: 2,
            fall: 2,
        }),
        timeouts: ServerTimeouts {
            connect: to_connect(&members),
            response: front::patience_with_web(&settings(placement)),
            ..ServerTimeouts::default()
        },
        ejection: front::ejection_of_web(&settings(placement)),
        ..Backend::new("web", members)
    }
}

/// The instances. Their check is patient: a busy instance answers late and must not be taken for lost. A server that
/// has lost power accepts no connection, which is detected after 300 + 150 + 100 + 150 ms at most.
fn app_backend(placement: &Placement, sender: Tier, paths: &Paths) -> Backend {
    let senders = servers_of(placement, sender).count();
    let section = &placement.config.app;
    let member = |(name, placed): (&InstanceName, &PlacedInstance)| {
        let address = address_of_instance(placement, *name)?;
        Some(Server {
            maxconn: section.maxconn.map(|all| share(all, senders)),
            admin: match placed.phase {
                Phase::Serve => server_admin(placement, name.server),
                Phase::Drain => Admin::Drain,
            },
            check_path: placed.health.clone(),
            check_port: section.check.port.filter(|_| !placed.encrypted),
            tls: placed.encrypted.then(|| encrypted::with_instance(paths)),
            ..Server::new(TrafficTarget::Instance(*name).to_string(), address)
        })
    };
    let members: Vec<Server> = placement.instances.iter().filter_map(member).collect();
    let settings = settings(placement);
    let timeouts = front::timeouts(&settings, sender);
    Backend {
        algorithm: settings.algorithm.clone().unwrap_or(Algorithm::LeastConn),
        sticky: settings.sticky.clone(),
        slow_start: settings.slow_start,
        check: Some(instance_check(&placement.config)),
        ejection: section.ejection.unwrap_or_default(),
        slow_ejection: section.slow_ejection,
        count_tunnels: section.count_tunnels,
        timeouts: ServerTimeouts {
            connect: to_connect(&members),
            queue_size: section.queue_size.unwrap_or(timeouts.queue_size),
            ..timeouts
        },
        ..Backend::new("app", members)
    }
}

/// How proxies check an instance.
fn instance_check(config: &Config) -> Check {
    const FAST: Duration = Duration::from_millis(100);
    let set = &config.app.check;
    let interval = set.interval.unwrap_or(Duration::from_millis(300));
    Check {
        kind: CheckKind::Http {
            path: config.app.health.clone(),
        },
        port: None,
        host: Some(config.health_host().into()),
        headers: set.headers.clone(),
        status: match &*set.status {
            [] => vec![HealthCheck::STATUS],
            set => set.to_vec(),
        },
        interval,
        fast_interval: FAST.min(interval),
        connect: CHECK_CONNECT,
        timeout: set.timeout.unwrap_or(Duration::from_secs(1)),
        rise: 2,
        fall: set.fall.unwrap_or(2),
    }
}

/// How long a connection to one of them may take.
fn to_connect(members: &[Server]) -> Duration {
    let with_tls = members.iter().any(|member| member.tls.is_some());
    if with_tls { CONNECT_TLS } else { CONNECT }
}

/// One proxy's share of an instance's limit, rounded up.
fn share(all: u32, senders: usize) -> u32 {
    let senders = u32::try_from(senders).unwrap_or(u32::MAX).max(1);
    all.div_ceil(senders)
}

pub(super) fn server_admin(placement: &Placement, server: ServerName) -> Admin {
    if serves(placement, server) {
        Admin::Ready
    } else {
        Admin::Drain
    }
}

fn http_frontend(name: &str, binds: Vec<Bind>, mode: Mode) -> Frontend {
    Frontend {
        maxconn: MAX_CLIENTS,
        ..Frontend::new(name, binds, mode)
    }
}

/// The target of probes: the proxy answers by itself.
pub(super) fn probe_route() -> Route {
    Route {
        path_prefix: PROBE_PATH.into(),
        rules: vec![Rule::Return(Fixed {
            status: 200,
            content_type: "text/plain".into(),
            body: "ok\n".into(),
            needs: None,
        })],
        ..Route::default()
    }
}

/// What another balancer in front of this one checks.
fn health_route(leaves: bool, target: &str) -> Route {
    let (status, body) = match leaves {
        true => (503, "draining\n"),
        false => (200, "ok\n"),
    };
    Route {
        path_prefix: HEALTH_PATH.into(),
        rules: vec![Rule::Return(Fixed {
            status,
            content_type: "text/plain".into(),
            body: body.into(),
            needs: Some(target.into()),
        })],
        ..Route::default()
    }
}

/// A bind on which only trusted senders may declare the client address.
fn bind(placement: &Placement, address: SocketAddr) -> Bind {
    Bind {
        proxy_protocol_from: placement.network.trusted.clone(),
        ..Bind::new(address)
    }
}

/// A balancer's bind: in front of it there may be senders of the site's file too.
fn door_bind(placement: &Placement, address: SocketAddr) -> Bind {
    let mut bind = bind(placement, address);
    let section = placement.config.balancer.iter();
    let section = section.filter(|balancer| balancer.accept_proxy);
    let senders = section.flat_map(|balancer| &balancer.trust);
    bind.proxy_protocol_from.extend(senders);
    bind
}

pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
