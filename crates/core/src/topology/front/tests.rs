use super::super::tests::{proxy, site};
use super::*;
use gaiola_model::ProxyConfig;
use gaiola_model::config::BalancerTls;
use gaiola_model::proxy::{
    Algorithm, Backend, ClientTimeouts, HeaderEdit, InlinePage, Limit, Most, PathMatch, Sticky,
};

fn with(placement: &mut Placement, set: impl FnOnce(&mut BalancerProxy)) {
    set(&mut placement.config.balancer.as_mut().unwrap().proxy);
}

fn routes(config: &ProxyConfig) -> &[Route] {
    match &config.frontends[0].mode {
        Mode::Http { routes, .. } => routes,
        Mode::Tcp { .. } => &[],
    }
}

fn backend<'a>(config: &'a ProxyConfig, name: &str) -> &'a Backend {
    let mut backends = config.backends.iter();
    backends.find(|backend| backend.name == name).unwrap()
}

#[test]
fn the_files_routes_come_first_and_lead_to_the_tier_behind() {
    let mut placement = site(1, 1, 0);
    with(&mut placement, |proxy| {
        proxy.rules = vec![Rule::Limit("all".into())];
        proxy.routes = vec![Route {
            path_prefix: "/admin".into(),
            rules: vec![Rule::Deny],
            ..Route::default()
        }];
        proxy.max_body = Some(1000);
    });
    let config = proxy(&placement, "lb1");
    let [_probe, _health, admin, rest] = routes(&config) else {
        panic!("{:?}", routes(&config))
    };
    assert_eq!(admin.rules, [Rule::Limit("all".into()), Rule::Deny]);
    assert_eq!(rest.rules, [Rule::Limit("all".into())]);
    for route in [admin, rest] {
        assert_eq!(route.backend.as_deref(), Some("web"));
        assert_eq!(route.allowance.body, Some(1000));
    }
    assert!(config.frontends[0].return_request_id);
}

#[test]
fn other_names_are_redirected_or_refused() {
    let mut placement = site(1, 1, 0);
    with(&mut placement, |proxy| {
        proxy.hosts = vec!["shop.example".into(), "*.shop.example".into()];
        proxy.aliases = vec!["www.shop.example".into()];
        proxy.routes = vec![Route {
            when: Conditions {
                paths: vec![PathMatch::Prefix("/x".into())],
                ..Conditions::default()
            },
            ..Route::default()
        }];
    });
    let config = proxy(&placement, "lb1");
    let [_, _, alias, own, rest, others] = routes(&config) else {
        panic!("{:?}", routes(&config))
    };
    assert_eq!(alias.when.hosts, ["www.shop.example"]);
    let to = |scheme: &str| Rule::Redirect {
        status: 308,
        to: format!("{scheme}://shop.example{{path}}{{query}}"),
    };
    assert_eq!(alias.rules, [to("{scheme}")]);
    for route in [own, rest] {
        assert_eq!(route.when.hosts, ["shop.example", "*.shop.example"]);
    }
    let [Rule::Return(refused)] = &others.rules[..] else {
        panic!("{others:?}")
    };
    assert_eq!((refused.status, &others.backend), (421, &None));
    assert_eq!(placement.config.health_host(), "shop.example");

    // With HTTPS the redirect leads there at once.
    let tls = BalancerTls::new(vec!["a.pem".into()]);
    placement.config.balancer.as_mut().unwrap().tls = Some(tls);
    let config = proxy(&placement, "lb1");
    assert_eq!(routes(&config)[2].rules, [to("https")]);
}

fn maintenance(allow: &[&str]) -> Maintenance {
    Maintenance {
        since: "2026-01-02T03:04:05.678Z".into(),
        by: "ann@laptop".into(),
        page: Some(InlinePage {
            content_type: "text/html; charset=utf-8".into(),
            body: "back at noon".into(),
        }),
        allow: nets(allow),
        retry_after: 60,
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn during_maintenance_checks_are_answered_and_everything_else_is_refused() {
    let mut placement = site(1, 1, 0);
    with(&mut placement, |proxy| {
        proxy.hosts = vec!["shop.example".into()];
        proxy.aliases = vec!["www.shop.example".into()];
    });
    let before = ["lb1", "web1"].map(|server| proxy(&placement, server));
    placement.maintenance = Some(maintenance(&[]));
    let config = proxy(&placement, "lb1");
    let [probe, health, refused] = routes(&config) else {
        panic!("{:?}", routes(&config))
    };
    assert_eq!(
        [probe, health],
        [&routes(&before[0])[0], &routes(&before[0])[1]]
    );
    assert_eq!(
        (&refused.when, &refused.backend),
        (&Conditions::default(), &None)
    );
    let set = |name: &str, value: &str| {
        Rule::ResponseHeader(HeaderEdit::Set {
            name: name.into(),
            value: value.into(),
        })
    };
    let fixed = Fixed {
        status: 503,
        content_type: "text/html; charset=utf-8".into(),
        body: "back at noon".into(),
        needs: None,
    };
    let rules = [
        set("Retry-After", "60"),
        set("Cache-Control", "no-store"),
        Rule::Return(fixed),
    ];
    assert_eq!(refused.rules, rules);
    // Web servers go on: those who are allowed reach them.
    assert_eq!(proxy(&placement, "web1"), before[1]);
    placement.maintenance = None;
    assert_eq!(proxy(&placement, "lb1"), before[0]);
}

#[test]
fn allowed_networks_have_the_files_routes_where_these_take_them() {
    let mut placement = site(1, 1, 0);
    let from = |sources: &[&str]| Route {
        when: Conditions {
            sources: nets(sources),
            ..Conditions::default()
        },
        ..Route::default()
    };
    with(&mut placement, |proxy| {
        proxy.routes = vec![
            from(&["10.1.0.0/16", "192.0.2.0/24"]),
            from(&["10.9.9.0/24"]),
            from(&["198.51.100.0/24"]),
        ];
    });
    placement.maintenance = Some(maintenance(&["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]));
    let config = proxy(&placement, "lb1");
    let [_, _, both, inner, rest, refused] = routes(&config) else {
        panic!("{:?}", routes(&config))
    };
    assert_eq!(both.when.sources, nets(&["10.1.0.0/16", "192.0.2.7/32"]));
    assert_eq!(inner.when.sources, nets(&["10.9.9.0/24"]));
    assert_eq!(
        rest.when.sources,
        nets(&["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"])
    );
    assert!(refused.when.sources.is_empty() && refused.rules.len() == 3);
}

#[test]
fn balancers_count_together_at_their_inner_addresses() {
    let mut placement = site(3, 1, 0);
    assert_eq!(proxy(&placement, "lb1").peers, None);
    let rate = Most::Rate {
        requests: 5,
        window: Duration::from_secs(60),
    };
    with(&mut placement, |proxy| {
        proxy.limits = vec![Limit {
            shared: true,
            ..Limit::new("logins", rate)
        }];
    });
    let config = proxy(&placement, "lb2");
    assert_eq!(config.limits[0].name, "logins");
    let peers = config.peers.unwrap();
    let port = |address: &str| address.parse::<std::net::SocketAddr>().unwrap();
    assert_eq!(peers.address, port("10.77.1.2:9180"));
    assert_eq!(peers.others, ["10.77.1.1:9180", "10.77.1.3:9180"].map(port));
    let web = proxy(&placement, "web1");
    assert!(web.limits.is_empty() && web.peers.is_none());
    assert_eq!(proxy(&site(1, 1, 0), "lb1").peers, None);
}

#[test]
fn the_tier_that_chooses_instances_keeps_clients_at_them() {
    let mut placement = site(1, 1, 0);
    with(&mut placement, |proxy| {
        proxy.sticky = Some(Sticky::new("SERVERID"));
        proxy.algorithm = Some(Algorithm::RoundRobin);
        proxy.slow_start = Some(Duration::from_secs(9));
    });
    let (front, web) = (proxy(&placement, "lb1"), proxy(&placement, "web1"));
    let app = backend(&web, "app");
    assert_eq!(app.sticky, Some(Sticky::new("SERVERID")));
    assert_eq!(
        (&app.algorithm, app.slow_start),
        (&Algorithm::RoundRobin, Some(Duration::from_secs(9)))
    );
    assert_eq!(backend(&front, "web").sticky, None);
    let mut placement = site(1, 0, 0);
    with(&mut placement, |proxy| {
        proxy.sticky = Some(Sticky::new("SERVERID"))
    });
    let front = proxy(&placement, "lb1");
    assert!(backend(&front, "app").sticky.is_some());
}

#[test]
fn the_hop_next_to_an_instance_waits_as_long_as_any_route_allows() {
    let mut placement = site(1, 1, 0);
    let waits = |placement: &Placement| {
        let (front, web) = (proxy(placement, "lb1"), proxy(placement, "web1"));
        let response = |config, name| backend(config, name).timeouts.response.as_secs();
        (response(&front, "web"), response(&web, "app"))
    };
    assert_eq!(waits(&placement), (45, 30));
    with(&mut placement, |proxy| {
        proxy.server_timeouts = Some(ServerTimeouts {
            response: Duration::from_secs(60),
            ..ServerTimeouts::default()
        });
        proxy.routes = vec![Route {
            allowance: Allowance {
                response: Some(Duration::from_secs(300)),
                head: Some(30_000),
                ..Allowance::default()
            },
            ..Route::default()
        }];
        proxy.client_timeouts = Some(ClientTimeouts {
            tunnel: Duration::from_secs(9000),
            ..ClientTimeouts::default()
        });
    });
    assert_eq!(waits(&placement), (75, 300));
    let web = proxy(&placement, "web1");
    assert_eq!(web.frontends[0].timeouts.tunnel, Duration::from_secs(9000));
    assert_eq!(routes(&web)[1].allowance.head, Some(Allowance::MOST_HEAD));
}
