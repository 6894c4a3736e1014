//! Mutual TLS between the tiers, with the certificates of the site.
//!
//! Every server has a certificate for its address, by the site's authority, and accepts nobody without one. A web server speaks TLS
//! at its usual port. An instance speaks none: it listens on the loopback, and the proxy of its server at the same port of the
//! server's address. PostgreSQL has TLS of its own, which the application servers' proxies ask it for.

use super::{Paths, TrafficTarget, address_of_instance, instance_listens};
use gaiola_model::placement::{Encryption, ObservedProxy};
use gaiola_model::proxy::{
    Backend, Bind, ClientCertificates, ClientTimeouts, Ejection, Frontend, Mode, Observe, Refusal,
    Server, ServerTimeouts, ServerTls, StartTls, Tls, TlsVersion,
};
use gaiola_model::{InstanceName, Placement, Revision, ServerName, Tier};
use std::time::Duration;

/// Most connections to one instance.
const MAX_CONNECTIONS: u32 = 20_000;
/// Silence that ends a connection to an instance. Whoever sends to it gives up before, at the end of a tunnel of an hour.
const SILENCE: Duration = Duration::from_secs(2 * 3600);
/// Less than a sender waits for a connection: then it is told, and tries another instance.
const CONNECT: Duration = Duration::from_millis(150);

/// TLS of a web server's clients; `None`: they speak plain text. Those who are not of the site may speak plain text as long as a
/// door leads to it.
pub(super) fn to_web(placement: &Placement, paths: &Paths) -> Option<Tls> {
    let is_door = placement.doors.values().any(|door| door.tier == Tier::Web);
    let tls = Tls {
        optional: is_door || placement.encryption != Encryption::Required,
        ..of_site(paths)
    };
    Some(tls).filter(|_| !placement.encryption.is_off())
}

/// TLS with a web server.
pub(super) fn with_web(placement: &Placement, paths: &Paths) -> Option<ServerTls> {
    let is_used = placement.encryption >= Encryption::Used;
    is_used.then(|| with_site(paths))
}

/// TLS with a database server. PostgreSQL always accepts it, so that it is used for longer than it is required.
pub(super) fn with_database(placement: &Placement, paths: &Paths) -> Option<ServerTls> {
    let tls = ServerTls {
        starttls: Some(StartTls::Postgres),
        ..with_site(paths)
    };
    Some(tls).filter(|_| !placement.encryption.is_off())
}

/// TLS with a server of the site, which must have a certificate for its address.
pub(super) fn with_site(paths: &Paths) -> ServerTls {
    ServerTls {
        ca: Some(paths.ca.clone()),
        certificate: Some(paths.cert.clone()),
        key: Some(paths.key.clone()),
        ..ServerTls::default()
    }
}

/// TLS with an instance, or rather with the proxy in front of it.
pub(super) fn with_instance(paths: &Paths) -> ServerTls {
    ServerTls {
        server_first: true,
        ..with_site(paths)
    }
}

/// TLS of clients that must have a certificate of the site.
fn of_site(paths: &Paths) -> Tls {
    Tls {
        key: Some(paths.key.clone()),
        min_version: TlsVersion::Tls13,
        client: Some(ClientCertificates {
            ca: paths.ca.clone(),
            pem: None,
            required: true,
        }),
        ..Tls::new(vec![paths.cert.clone()])
    }
}

/// What leads to a server's instances that speak TLS: each keeps its place in the backends of others, with a frontend of its own.
pub(super) fn instances(
    placement: &Placement,
    server: ServerName,
    paths: &Paths,
) -> (Vec<Frontend>, Vec<Backend>) {
    let here = placement.instances.iter();
    let here = here.filter(|(name, placed)| name.server == server && placed.encrypted);
    let both = here.filter_map(|(name, _)| instance(placement, *name, paths));
    both.unzip()
}

/// Whether the process of an instance may be started, with what its server's proxy reports. Where the tiers speak TLS, or come to, the
/// proxy first has to hold the port of an instance behind it, or to have let go of it: a process that listens at every address
/// would otherwise take the port, and the proxy would reject its whole configuration.
pub fn may_start(
    placement: &Placement,
    at: Revision,
    name: InstanceName,
    proxy: Option<&ObservedProxy>,
) -> bool {
    let Some(placed) = placement.instances.get(&name) else {
        return false;
    };
    if placement.encryption.is_off() && !placed.encrypted {
        return true;
    }
    // A placement that was just stored does not say its own revision.
    let since = match placed.since {
        Revision(0) => at,
        since => since,
    };
    proxy.is_some_and(|proxy| proxy.revision >= since)
}

fn instance(
    placement: &Placement,
    name: InstanceName,
    paths: &Paths,
) -> Option<(Frontend, Backend)> {
    let outside = address_of_instance(placement, name)?;
    let inside = instance_listens(placement, name)?;
    let title = TrafficTarget::Instance(name).to_string();
    let bind = Bind {
        tls: Some(Tls {
            server_first: true,
            ..of_site(paths)
        }),
        ..Bind::new(outside)
    };
    let mode = Mode::Tcp {
        backend: title.clone(),
        refusal: Refusal::Close,
        sni: Vec::new(),
    };
    let frontend = Frontend {
        maxconn: MAX_CONNECTIONS,
        timeouts: ClientTimeouts {
            tunnel: SILENCE,
            ..ClientTimeouts::default()
        },
        ..Frontend::new(title.clone(), vec![bind], mode)
    };
    Some((frontend, backend(title, Server::new("instance", inside))))
}

/// One attempt, and no opinion: whether the instance takes requests is for those to decide who send them.
fn backend(title: String, instance: Server) -> Backend {
    Backend {
        timeouts: ServerTimeouts {
            connect: CONNECT,
            queue: Duration::ZERO,
            ..ServerTimeouts::default()
        },
        ejection: Ejection {
            observe: Observe::None,
            ..Ejection::default()
        },
        ..Backend::new(title, vec![instance])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout;
    use crate::topology::{PROBE_PATH, files_wanted, proxy_config};
    use gaiola_model::config::{App, Balancer, Config, Database, Machine, Machines, Web};
    use gaiola_model::placement::{Desired, Door, DoorState, Release, ReleaseNumber};
    use gaiola_model::{Inventory, ProxyConfig};

    /// A site that encrypts, with everything on one machine but a second application server.
    fn site() -> Placement {
        let mut config = Config::new("shop".parse().unwrap(), App::new("run"));
        config.balancer = Some(Balancer::default());
        config.web = Some(Web::default());
        config.database = Some(Database::default());
        let on = |name: &str, last: u8| {
            let machine = Machine {
                address: Some([10, 0, 0, last].into()),
                ..Machine::new(format!("m{last}"))
            };
            (name.parse().unwrap(), machine)
        };
        let servers = ["lb1", "web1", "app1", "db1"].map(|name| on(name, 1));
        config.set_machines(Machines {
            servers: servers.into_iter().chain([on("app2", 2)]).collect(),
            encrypt: true,
            ..Machines::default()
        });
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::on_machines(&config, None).unwrap();
        rollout::first(&Desired::first(config, release, inventory), "a".into())
    }

    fn paths() -> Paths {
        Paths {
            releases: "/releases".into(),
            ca: "ca.pem".into(),
            cert: "cert.pem".into(),
            key: "key.pem".into(),
            certificates: "/certificates".into(),
        }
    }

    fn proxy(placement: &Placement, server: &str) -> Option<ProxyConfig> {
        let server = server.parse().unwrap();
        let files = files_wanted(placement, server);
        proxy_config(placement, Revision(9), server, &paths(), &files)
    }

    /// What an older placement says: everything is in plain text.
    fn plain(mut placement: Placement) -> Placement {
        placement.encryption = Encryption::Off;
        let placed = placement.instances.values_mut();
        placed.for_each(|placed| placed.encrypted = false);
        placement
    }

    #[test]
    fn a_new_site_speaks_tls_between_its_tiers_from_the_start() {
        let placement = site();
        assert_eq!(placement.encryption, Encryption::Required);
        let lb = proxy(&placement, "lb1").unwrap();
        let web = &lb.backends[0].servers[0];
        assert_eq!(web.tls, Some(with_site(&paths())));
        // The port of the traffic is what is checked.
        assert_eq!(
            (web.check_port, web.check_path.as_deref()),
            (None, Some(PROBE_PATH))
        );
        let web = proxy(&placement, "web1").unwrap();
        let bind = &web.frontends[0].binds[0];
        let tls = bind.tls.as_ref().unwrap();
        assert!(!tls.optional && tls.client.as_ref().unwrap().required);
        let members = &web.backends[0].servers;
        let reached: Vec<String> = members.iter().map(|m| m.address.to_string()).collect();
        assert_eq!(reached, ["10.0.0.1:3001", "10.0.0.2:3001"]);
        assert!(
            members
                .iter()
                .all(|member| member.tls == Some(with_instance(&paths())))
        );
    }

    #[test]
    fn an_instance_is_on_the_loopback_behind_its_servers_proxy() {
        let app = proxy(&site(), "app1").unwrap();
        let frontend = &app.frontends[0];
        let bind = &frontend.binds[0];
        assert_eq!(bind.address.to_string(), "10.0.0.1:3001");
        let tls = bind.tls.as_ref().unwrap();
        assert!(tls.server_first && tls.client.as_ref().unwrap().required);
        let backend = &app.backends[0];
        assert_eq!((&*frontend.name, &*backend.name), ("app1.1", "app1.1"));
        assert_eq!(backend.servers[0].address.to_string(), "127.0.0.1:3001");
        assert_eq!(backend.servers[0].tls, None);
        let listens = instance_listens(&site(), "app1.1".parse().unwrap());
        assert_eq!(listens, Some(([127, 0, 0, 1], 3001).into()));
        assert_eq!(proxy(&site(), "app2").unwrap().frontends[0].name, "app2.1");
    }

    #[test]
    fn the_database_is_asked_for_tls_at_its_port_and_checked_as_before() {
        let app = proxy(&site(), "app1").unwrap();
        for backend in &app.backends[1..] {
            let server = &backend.servers[0];
            let tls = server.tls.as_ref().unwrap();
            assert_eq!(tls.starttls, Some(StartTls::Postgres), "{}", backend.name);
            assert!(tls.verify && tls.ca == Some(paths().ca) && tls.key == Some(paths().key));
            assert_eq!(server.check_port, Some(8008));
        }
    }

    #[test]
    fn in_plain_text_nothing_is_as_if_there_was_tls() {
        let placement = plain(site());
        for server in ["lb1", "web1", "app1"] {
            let config = proxy(&placement, server).unwrap();
            let binds = config.frontends.iter().flat_map(|frontend| &frontend.binds);
            assert!(binds.into_iter().all(|bind| bind.tls.is_none()), "{server}");
            let servers = config.backends.iter().flat_map(|backend| &backend.servers);
            assert!(
                servers.into_iter().all(|server| server.tls.is_none()),
                "{server}"
            );
        }
        let listens = instance_listens(&placement, "app1.1".parse().unwrap());
        assert_eq!(listens, Some(([10, 0, 0, 1], 3001).into()));
    }

    #[test]
    fn an_application_server_without_a_database_has_a_proxy_for_its_instances() {
        let mut placement = plain(site());
        placement.config.database = None;
        placement.servers.remove(&"db1".parse().unwrap());
        assert_eq!(proxy(&placement, "app1"), None);
        placement.encryption = Encryption::Accepted;
        assert_eq!(proxy(&placement, "app1").unwrap().frontends, []);
        placement.encryption = Encryption::Off;
        // On the way back the proxy stays as long as an instance needs it.
        let first = "app1.1".parse().unwrap();
        placement.instances.get_mut(&first).unwrap().encrypted = true;
        assert_eq!(proxy(&placement, "app1").unwrap().frontends.len(), 1);
        assert_eq!(proxy(&placement, "app2"), None);
    }

    #[test]
    fn an_instance_is_started_once_the_proxy_in_front_of_it_has_its_port() {
        let mut placement = site();
        let name = "app1.1".parse().unwrap();
        let may = |placement: &Placement, revision: Option<u64>| {
            let proxy = revision.map(|revision| ObservedProxy {
                revision: Revision(revision),
                ..ObservedProxy::default()
            });
            may_start(placement, Revision(9), name, proxy.as_ref())
        };
        // What was just stored has no revision of its own.
        assert_eq!(
            [None, Some(8), Some(9)].map(|at| may(&placement, at)),
            [false, false, true]
        );
        placement.instances.get_mut(&name).unwrap().since = Revision(4);
        assert_eq!(
            [None, Some(3), Some(4)].map(|at| may(&placement, at)),
            [false, false, true]
        );
        // On the way back its port is the proxy's until that has let go of it.
        placement.instances.get_mut(&name).unwrap().encrypted = false;
        assert!(!may(&placement, Some(3)) && may(&placement, Some(4)));
        placement.encryption = Encryption::Off;
        assert!(may(&placement, None));
    }

    /// What a sender may do, a listener accepts: at the same step, and at the steps beside it, since not all servers are at one.
    #[test]
    fn at_every_step_what_is_sent_is_accepted_by_servers_a_step_behind_or_ahead() {
        let steps = Encryption::STEPS.map(|step| {
            let mut placement = site();
            placement.encryption = step;
            let lb = proxy(&placement, "lb1").unwrap();
            let web = proxy(&placement, "web1").unwrap();
            let bind = web.frontends[0].binds[0].tls.clone();
            (lb.backends[0].servers[0].tls.is_some(), bind)
        });
        for pair in steps.windows(2) {
            for (sends, accepts) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (tls, bind) = (pair[sends].0, &pair[accepts].1);
                let fits = match bind {
                    None => !tls,
                    Some(bind) => tls || bind.optional,
                };
                assert!(fits, "{pair:?}");
            }
        }
    }

    #[test]
    fn clients_at_the_doors_of_web_servers_are_not_asked_for_a_certificate() {
        let mut placement = site();
        let door = Door {
            tier: Tier::Web,
            state: DoorState::Open,
            since: Revision(1),
        };
        placement.doors.insert(([10, 0, 0, 1], 8000).into(), door);
        let web = proxy(&placement, "web1").unwrap();
        assert!(web.frontends[0].binds[0].tls.as_ref().unwrap().optional);
    }
}
