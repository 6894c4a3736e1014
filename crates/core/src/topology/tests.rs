use super::*;
use gaiola_model::Inventory;
use gaiola_model::config::{App, Balancer, Config, Database, Web};
use gaiola_model::placement::{CertificateCopy, ProxyFiles};
use gaiola_model::placement::{Release, ReleaseNumber};
use gaiola_model::proxy::{
    Admin, Compression, Frontend, Mode, ProxyConfig, Rule, SlowEjection, StatusRange,
};
use gaiola_model::{Desired, Revision};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn site(balancers: u16, webs: u16, databases: u16) -> Placement {
    let config = Config {
        site: "site".parse().unwrap(),
        balancer: (balancers > 0).then(|| Balancer {
            servers: balancers,
            listen: vec![80, 8080],
            ..Balancer::default()
        }),
        web: (webs > 0).then(|| Web {
            servers: webs,
            ..Web::default()
        }),
        app: App {
            servers: 2,
            instances: 2,
            run: "run".into(),
            release: None,
            health: "/up".into(),
            maxconn: Some(5),
            grace: Duration::from_secs(10),
            env: Default::default(),
            ..App::new("")
        },
        workers: Default::default(),
        crons: Default::default(),
        database: (databases > 0).then_some(Database {
            servers: databases,
            strict: false,
            ..Database::default()
        }),
        drill: None,
        env: Default::default(),
        env_file: None,
        machines: None,
    };
    let release = Release {
        number: ReleaseNumber(7),
        digest: String::new(),
    };
    let inventory = Inventory::numbered(&config, [10, 77]);
    let desired = Desired::first(config, release, inventory);
    crate::rollout::first(&desired, "test".into())
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

pub(super) fn proxy(placement: &Placement, server: &str) -> ProxyConfig {
    config_of(placement, server.parse().unwrap()).unwrap()
}

/// With all files.
fn config_of(placement: &Placement, server: ServerName) -> Option<ProxyConfig> {
    let files = files_wanted(placement, server);
    proxy_config(placement, Revision(9), server, &paths(), &files)
}

fn names(config: &ProxyConfig) -> Vec<(&str, Vec<&str>)> {
    let backends = config.backends.iter();
    backends
        .map(|backend| {
            let servers = backend.servers.iter().map(|server| server.name.as_str());
            (backend.name.as_str(), servers.collect())
        })
        .collect()
}

#[test]
fn where_there_is_tls_other_ports_send_clients_there() {
    let mut placement = site(1, 0, 0);
    let tls = BalancerTls {
        contents: "d1".into(),
        hsts_days: Some(1),
        ..BalancerTls::new(vec!["a.pem".into(), "folder".into()])
    };
    placement.config.balancer.as_mut().unwrap().tls = Some(tls);
    let vip = |port| SocketAddr::from(([10, 77, 0, 100], port));
    let door = *placement.doors.values().next().unwrap();
    placement.doors.insert(vip(443), door);
    let [plain, secure] = &proxy(&placement, "lb1").frontends[..] else {
        panic!("two frontends");
    };
    let rules = |frontend: &Frontend| match &frontend.mode {
        Mode::Http { routes, .. } => routes[2].rules.clone(),
        Mode::Tcp { .. } => Vec::new(),
    };
    assert_eq!(rules(plain), [Rule::to_https(308)]);
    assert!(plain.binds.iter().all(|bind| bind.tls.is_none()));
    assert_eq!(secure.binds.len(), 1);
    let served = &secure.binds[0].tls.as_ref().unwrap().certificates;
    assert_eq!(
        served,
        &["/certificates/d1/0", "/certificates/d1/1"].map(PathBuf::from)
    );
    assert_eq!(rules(secure), [Rule::Hsts("max-age=86400".into())]);
    for door in placement.doors.values_mut() {
        door.state = DoorState::Open;
    }
    assert_eq!(front_door(&placement), [vip(443)]);
    placement.config.balancer.as_mut().unwrap().tls = None;
    assert_eq!(front_door(&placement).len(), 3);
}

#[test]
fn another_balancer_in_front_is_believed_as_far_as_the_file_says() {
    let mut placement = site(2, 1, 0);
    let balancer = placement.config.balancer.as_mut().unwrap();
    balancer.trust = vec!["192.0.2.0/24".parse().unwrap()];
    let senders = |placement: &Placement| {
        let config = proxy(placement, "lb1");
        let senders = config.frontends[0].binds[0].proxy_protocol_from.iter();
        senders.map(ToString::to_string).collect::<Vec<_>>()
    };
    let trusted = |placement: &Placement, server: &str| {
        let config = proxy(placement, server);
        let Mode::Http { trusted, .. } = &config.frontends[0].mode else {
            panic!("HTTP")
        };
        trusted.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(trusted(&placement, "lb1"), ["192.0.2.0/24"]);
    let through = ["10.77.1.1/32", "10.77.1.2/32", "192.0.2.0/24"];
    assert_eq!(trusted(&placement, "web1"), through);
    assert_eq!(senders(&placement), [""; 0]);
    placement.config.balancer.as_mut().unwrap().accept_proxy = true;
    assert_eq!(senders(&placement), ["192.0.2.0/24"]);
    let web = proxy(&placement, "web1");
    assert_eq!(web.frontends[0].binds[0].proxy_protocol_from, []);
}

#[test]
fn the_health_of_a_balancer_is_good_until_it_leaves() {
    let health = |placement: &Placement| {
        let config = proxy(placement, "lb1");
        let Mode::Http { routes, .. } = &config.frontends[0].mode else {
            panic!("HTTP")
        };
        let [Rule::Return(fixed)] = &routes[1].rules[..] else {
            panic!("an answer")
        };
        assert_eq!(routes[1].path_prefix, HEALTH_PATH);
        (fixed.status, fixed.needs.clone())
    };
    let mut placement = site(2, 1, 0);
    let good = |backend: &str| (200, Some(backend.to_owned()));
    assert_eq!(health(&placement), good("web"));
    assert_eq!(health(&site(2, 0, 0)), good("app"));
    let own = SocketAddr::from(([10, 77, 1, 1], 80));
    let door = *placement.doors.values().next().unwrap();
    placement.doors.insert(own, door);
    assert_eq!(health(&placement).0, 200);
    placement.doors.get_mut(&own).unwrap().state = DoorState::Closing;
    assert_eq!(health(&placement).0, 503, "clients are led elsewhere");
    placement.doors.remove(&own);
    let lb1 = placement.servers.get_mut(&"lb1".parse().unwrap());
    lb1.unwrap().phase = Phase::Drain;
    assert_eq!(health(&placement).0, 503, "it is drained");
}

#[test]
fn a_balancer_without_certificates_serves_as_before_there_were_any() {
    let mut placement = site(1, 1, 0);
    let lb1 = "lb1".parse().unwrap();
    let before = config_of(&placement, lb1).unwrap();
    placement.config.balancer.as_mut().unwrap().tls = Some(BalancerTls {
        contents: "d1".into(),
        ..BalancerTls::new(vec!["a.pem".into()])
    });
    let none = ProxyFiles::default();
    let without = proxy_config(&placement, Revision(9), lb1, &paths(), &none);
    assert_eq!(without.unwrap(), before);
    let files = ProxyFiles {
        certificates: Some(CertificateCopy {
            contents: "d0".into(),
            folders: 2,
        }),
        ..ProxyFiles::default()
    };
    let door = *placement.doors.values().next().unwrap();
    placement.doors.insert(([10, 77, 0, 100], 443).into(), door);
    let config = proxy_config(&placement, Revision(9), lb1, &paths(), &files).unwrap();
    let served = &config.frontends[1].binds[0]
        .tls
        .as_ref()
        .unwrap()
        .certificates;
    let old = ["/certificates/d0/0", "/certificates/d0/1"].map(PathBuf::from);
    assert_eq!(served, &old);
}

#[test]
fn a_web_server_serves_the_files_that_it_has_and_the_members_of_the_placement() {
    let placement = site(1, 1, 0);
    let files = ProxyFiles {
        releases: vec![ReleaseNumber(6)],
        ..ProxyFiles::default()
    };
    let web1 = "web1".parse().unwrap();
    let config = proxy_config(&placement, Revision(9), web1, &paths(), &files).unwrap();
    let Mode::Http { routes, .. } = &config.frontends[0].mode else {
        panic!("HTTP")
    };
    assert_eq!(routes[1].files, [PathBuf::from("/releases/6/public")]);
    assert_eq!(names(&config), names(&proxy(&placement, "web1")));
}

#[test]
fn web_servers_answer_for_missing_files_except_at_the_paths_of_the_app_tier() {
    let mut placement = site(1, 1, 0);
    let web = placement.config.web.as_mut().unwrap();
    web.files.tries = vec!["/index.html".into()];
    web.app_paths = vec!["/api".into()];
    web.compress = Some(Compression::default());
    let config = proxy(&placement, "web1");
    let Mode::Http { routes, .. } = &config.frontends[0].mode else {
        panic!("HTTP")
    };
    let served = |route: &gaiola_model::proxy::Route| {
        (route.path_prefix.clone(), route.file_options.tries.len())
    };
    let served: Vec<_> = routes[1..].iter().map(served).collect();
    assert_eq!(served, [("/api".into(), 0), ("/".into(), 1)]);
    let to_app = |route: &gaiola_model::proxy::Route| {
        route.backend.as_deref() == Some("app") && !route.files.is_empty()
    };
    assert!(routes[1..].iter().all(to_app));
    assert!(routes[1..].iter().all(|route| route.compress.is_some()));
}

#[test]
fn each_tier_leads_to_the_next() {
    let placement = site(2, 2, 2);
    let lb = proxy(&placement, "lb1");
    assert_eq!(names(&lb), [("web", vec!["web1", "web2"])]);
    let binds = lb.frontends[0]
        .binds
        .iter()
        .map(|bind| bind.address.to_string());
    let doors = [
        "10.77.0.100:80",
        "10.77.0.100:8080",
        "10.77.0.101:80",
        "10.77.0.101:8080",
    ];
    assert_eq!(binds.collect::<Vec<_>>(), doors);
    let web = proxy(&placement, "web2");
    let instances = vec!["app1.1", "app1.2", "app2.1", "app2.2"];
    assert_eq!(names(&web), [("app", instances)]);
    assert_eq!(
        web.backends[0].servers[3].address.to_string(),
        "10.77.3.2:3002"
    );
    assert_eq!(
        web.backends[0].servers[3].maxconn,
        Some(3),
        "5 are shared by two web servers"
    );
    let Mode::Http { routes, trusted } = &web.frontends[0].mode else {
        panic!("HTTP")
    };
    assert_eq!(
        routes[1].files,
        [std::path::PathBuf::from("/releases/7/public")]
    );
    assert_eq!(
        trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.77.1.1/32", "10.77.1.2/32"]
    );
    let app = proxy(&placement, "app1");
    let databases = vec!["db1", "db2"];
    assert_eq!(
        names(&app),
        [("primary", databases.clone()), ("standbys", databases)]
    );
    assert_eq!(app.backends[1].fallback.as_deref(), Some("primary"));
    assert!(app.backends[0].exclusive && !app.backends[1].exclusive);
}

#[test]
fn reads_without_a_standby_are_not_held_up_by_the_limit_of_writes() {
    let mut placement = site(1, 1, 2);
    placement.config.database.as_mut().unwrap().maxconn = Some(2);
    let app = proxy(&placement, "app1");
    let limits = app.backends.iter().map(|backend| {
        let limit = backend.servers[0].maxconn;
        (backend.name.as_str(), limit, backend.fallback.as_deref())
    });
    assert_eq!(
        limits.collect::<Vec<_>>(),
        [
            ("primary", Some(2), None),
            ("standbys", None, Some("reads")),
            ("reads", None, None)
        ]
    );
}

#[test]
fn a_tier_that_is_left_out_is_skipped() {
    let placement = site(1, 0, 0);
    assert_eq!(proxy(&placement, "lb1").backends[0].name, "app");
    let app = "app1".parse().unwrap();
    assert_eq!(config_of(&placement, app), None);
}

#[test]
fn a_drained_server_drains_with_its_instances_but_the_primary_stays_until_another_is() {
    let mut placement = site(1, 2, 2);
    for server in ["web1", "app1", "db1"] {
        placement
            .servers
            .get_mut(&server.parse().unwrap())
            .unwrap()
            .phase = Phase::Drain;
    }
    let admins = |server: &str, backend: usize| {
        let config = proxy(&placement, server);
        let servers = config.backends[backend].servers.iter();
        servers.map(|server| server.admin).collect::<Vec<_>>()
    };
    assert_eq!(admins("lb1", 0), [Admin::Drain, Admin::Ready]);
    assert_eq!(
        admins("web1", 0),
        [Admin::Drain, Admin::Drain, Admin::Ready, Admin::Ready]
    );
    assert_eq!(admins("app1", 0), [Admin::Ready, Admin::Ready]);
    assert_eq!(admins("app1", 1), [Admin::Drain, Admin::Ready]);
}

#[test]
fn senders_are_exactly_those_whose_configuration_names_the_member() {
    for (mut placement, past_web) in [
        (site(2, 2, 2), true),
        (site(2, 2, 2), false),
        (site(2, 0, 1), true),
    ] {
        placement.past_web = past_web;
        let instances = placement
            .instances
            .keys()
            .map(|name| TrafficTarget::Instance(*name));
        let members = placement
            .servers
            .keys()
            .map(|server| TrafficTarget::Server(*server))
            .chain(instances);
        for member in members {
            let named = |server: &ServerName| {
                let config = config_of(&placement, *server).unwrap_or_default();
                let mut servers = config.backends.iter().flat_map(|backend| &backend.servers);
                servers.any(|server| server.name == member.to_string())
            };
            let naming: Vec<ServerName> = placement.servers.keys().copied().filter(named).collect();
            assert_eq!(senders(&placement, member), naming, "{member}");
        }
    }
}

#[test]
fn each_balancer_is_home_to_one_vip_and_next_to_another() {
    let placement = site(3, 1, 0);
    let of = |server: &str| {
        let routers = vip_priorities(&placement, server.parse().unwrap());
        routers
            .iter()
            .map(|router| (router.vrid, router.priority))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("lb1"), [(100, 250), (101, 230), (102, 240)]);
    assert_eq!(of("lb2"), [(100, 240), (101, 250), (102, 230)]);
    assert_eq!(of("lb3"), [(100, 230), (101, 240), (102, 250)]);
    assert_eq!(of("web1"), []);
}

#[test]
fn priorities_of_a_vip_differ_however_many_balancers_there_are() {
    for count in (1..=12).chain([70]) {
        let placement = site(count, 0, 0);
        let first: IpAddr = [10, 77, 0, 100].into();
        let mut seen = BTreeSet::new();
        for server in servers_of(&placement, Tier::Balancer) {
            let routers = vip_priorities(&placement, server);
            let router = routers
                .into_iter()
                .find(|router| router.vip == first)
                .unwrap();
            assert!(seen.insert(router.priority), "{count} balancers");
            assert_eq!(router.priority == 250, server.number == 1);
        }
    }
}

#[test]
fn vips_of_a_drained_balancer_move_to_the_others() {
    let mut placement = site(2, 1, 0);
    let lb2 = "lb2".parse().unwrap();
    placement.servers.get_mut(&lb2).unwrap().phase = Phase::Drain;
    placement.vips = homes(&placement);
    assert!(placement.vips.values().all(|home| home.number == 1));
    assert_eq!(vip_priorities(&placement, lb2), []);
}

#[test]
fn servers_that_share_no_address_with_a_balancer_relay_between_balancers() {
    let mut placement = site(2, 2, 0);
    let [lb1, web1]: [ServerName; 2] = ["lb1", "web1"].map(|name| name.parse().unwrap());
    let relays = |placement: &Placement| {
        let ways = keeper_ways(placement, lb1).unwrap();
        let balancers = ways.balancers.iter().map(ToString::to_string);
        assert_eq!(balancers.collect::<Vec<_>>(), ["10.77.1.2:9181"]);
        let relays = ways.relays.iter().map(|relay| relay.ip().to_string());
        relays.collect::<Vec<_>>()
    };
    // Not all of the same number, which may share a rack.
    let all = ["10.77.2.1", "10.77.2.2", "10.77.3.2"];
    assert_eq!(relays(&placement), all);
    let both = ["10.77.1.1:9181", "10.77.1.2:9181"].map(|at| at.parse().unwrap());
    assert_eq!(relayed_keepers(&placement, web1), both);
    assert_eq!(relayed_keepers(&placement, lb1), []);
    assert_eq!(keeper_ways(&placement, web1), None);

    // web1 on lb2's machine, web2 on app1's.
    let mut stands = |server: &str, at: [u8; 4]| {
        let placed = placement.servers.get_mut(&server.parse().unwrap());
        placed.unwrap().location.address = at.into();
    };
    stands("web1", [10, 77, 1, 2]);
    stands("web2", [10, 77, 3, 1]);
    assert_eq!(relays(&placement), ["10.77.3.1", "10.77.3.2"]);
}

#[test]
fn clients_are_led_to_open_doors_only() {
    let mut placement = site(2, 1, 0);
    assert_eq!(front_door(&placement), [], "nothing is ready yet");
    placement.doors.values_mut().next().unwrap().state = DoorState::Open;
    let door = "10.77.0.100:80".parse().unwrap();
    assert_eq!(front_door(&placement), [door]);
    assert!(speaks_proxy_protocol(&placement, door));
}

#[test]
fn instances_are_checked_as_the_file_says() {
    let mut placement = site(1, 1, 0);
    let check = |placement: &Placement| {
        let backends = proxy(placement, "web1").backends;
        backends[0].check.clone().unwrap()
    };
    let usual = check(&placement);
    assert_eq!(usual.host.as_deref(), Some("localhost"));
    assert!(usual.accepts(200) && !usual.accepts(302));
    assert_eq!(usual.interval, Duration::from_millis(300));
    let set = &mut placement.config.app.check;
    set.host = Some("shop.example".into());
    set.headers = [("X-Probe".into(), "1".into())].into();
    set.status = vec![StatusRange::only(204)];
    (set.interval, set.fall) = (Some(Duration::from_secs(2)), Some(5));
    set.port = Some(9000);
    let own = check(&placement);
    assert_eq!(own.host.as_deref(), Some("shop.example"));
    assert!(own.accepts(204) && !own.accepts(200));
    assert_eq!((own.interval, own.fall), (Duration::from_secs(2), 5));
    assert_eq!(own.headers["X-Probe"], "1");
    let servers = &proxy(&placement, "web1").backends[0].servers;
    assert!(servers.iter().all(|server| server.check_port == Some(9000)));
}

#[test]
fn an_instance_takes_as_much_as_the_file_says() {
    let mut placement = site(1, 1, 0);
    let app = &mut placement.config.app;
    (app.maxconn, app.queue_size) = (None, Some(7));
    app.slow_ejection = Some(SlowEjection {
        factor: 300,
        after: Duration::from_secs(10),
    });
    let backend = &proxy(&placement, "web1").backends[0];
    assert!(
        backend
            .servers
            .iter()
            .all(|server| server.maxconn.is_none())
    );
    assert_eq!(backend.timeouts.queue_size, 7);
    assert_eq!(backend.slow_ejection, placement.config.app.slow_ejection);
    assert!(!backend.count_tunnels);
}
