//! Limits of requests and of connections.

use super::*;

#[test]
fn a_rate_is_limited_by_what_requests_have_in_common() {
    let (app, bind) = (Origin::start("app"), free_address());
    let mut config = with_rules(bind, &app, vec![Rule::Limit("by-key".into())]);
    config.limits = vec![Limit {
        key: LimitKey::Header("X-Key".into()),
        ..Limit::new(
            "by-key",
            Most::Rate {
                requests: 3,
                window: Duration::from_secs(86_400),
            },
        )
    }];
    let proxy = Proxy::serving(&config);
    let get = |key: &str| {
        // Each on a connection of its own: some worker has it.
        let mut client = Client::connect(bind);
        ask(
            &mut client,
            "GET",
            "/",
            &format!("Host: a\r\nX-Key: {key}\r\n"),
        )
    };
    for _ in 0..3 {
        assert_eq!(get("one").status, 200);
    }
    let refused = get("one");
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.field("Retry-After").unwrap().parse().unwrap();
    assert!((1..=2 * 86_400).contains(&wait), "{wait}");
    assert_reported(&proxy, "limit by-key: 3 requests in 86400 s are reached");
    assert_eq!(get("two").status, 200);
    // A change of something else forgets no counts.
    config.revision.0 += 1;
    config.frontends[0].maxconn += 1;
    proxy.configure(&config);
    assert_eq!(get("one").status, 429);
    assert_eq!(app.requests().len(), 4);
}

#[test]
fn clients_behind_a_trusted_proxy_are_distinguished() {
    let (app, bind) = (Origin::start("app"), free_address());
    let mut config = with_rules(bind, &app, vec![Rule::Limit("by-client".into())]);
    let Mode::Http { trusted, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    trusted.push("127.0.0.0/8".parse().unwrap());
    let window = Duration::from_secs(86_400);
    config.limits = vec![Limit::new(
        "by-client",
        Most::Rate {
            requests: 1,
            window,
        },
    )];
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for (address, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)] {
        let fields = format!("Host: a\r\nX-Forwarded-For: 1.1.1.1, {address}\r\n");
        assert_eq!(ask(&mut client, "GET", "/", &fields).status, status);
    }
}

#[test]
fn requests_in_flight_are_limited_by_client() {
    let (held, bind) = (Arc::new(Barrier::new(2)), free_address());
    let release = Arc::clone(&held);
    let app = Origin::with(move |connection| {
        while connection.request().is_some() {
            release.wait();
            connection.answer("done");
        }
    });
    let mut config = with_rules(bind, &app, vec![Rule::Limit("at-a-time".into())]);
    config.limits = vec![Limit::new("at-a-time", Most::Concurrent(1))];
    let proxy = Proxy::serving(&config);
    let mut first = Client::connect(bind);
    for _ in 0..2 {
        first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it is in flight", || {
            proxy.report().servers[0].in_flight == 1
        });
        let refused = Client::connect(bind).get("/");
        assert_eq!(refused.status, 429);
        assert_eq!(refused.field("Retry-After"), Some("1"));
        held.wait();
        assert_eq!(first.response().text(), "done");
    }
}

#[test]
fn connections_are_limited_by_client() {
    let (app, bind) = (Origin::start("app"), free_address());
    let mut config = config(bind, &[app.address]);
    config.limits = vec![Limit::new("open", Most::Concurrent(2))];
    config.frontends[0].connection_limit = Some("open".into());
    let unlimited = free_address();
    config.frontends.push(Frontend {
        name: "unlimited".into(),
        ..http_frontend(unlimited, "app")
    });
    let proxy = Proxy::serving(&config);
    let mut open: Vec<_> = (0..2).map(|_| Client::connect(bind)).collect();
    for client in &mut open {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(Client::connect(bind).rest(), b"");
    assert_eq!(open[1].get("/").status, 200);
    let refused = |frontend: &str, count: u64| {
        let line = format!("gaiola_connections_refused_total{{frontend=\"{frontend}\"}} {count}\n");
        proxy.admin("/metrics").text().contains(&line)
    };
    eventually("it is counted", || refused("site", 1));
    assert_eq!(Client::connect(unlimited).get("/").status, 200);
    assert!(refused("site", 1) && refused("unlimited", 0));
    open.pop();
    eventually("another may come", || {
        let mut client = Client::connect(bind);
        client
            .stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .is_ok()
            && !client.is_closed()
    });
}

#[test]
fn peers_count_shared_limits_together() {
    let app = Origin::start("app");
    let own: Vec<_> = (0..2).map(|_| free_address()).collect();
    let day = Duration::from_secs(86_400);
    let most = Most::Rate {
        requests: 3,
        window: day,
    };
    let limit = Limit {
        key: LimitKey::Header("X-Key".into()),
        shared: true,
        ..Limit::new("together", most)
    };
    let serving = |number: usize| {
        let bind = free_address();
        let mut config = with_rules(bind, &app, vec![Rule::Limit("together".into())]);
        config.limits = vec![limit.clone()];
        config.limit_secret = Some("a secret of all of us".into());
        config.peers = Some(Peers {
            address: own[number],
            others: vec![own[1 - number]],
        });
        (Proxy::serving(&config), bind)
    };
    let (_first, one) = serving(0);
    let (_second, two) = serving(1);
    let status = |bind, key: u32| {
        let fields = format!("Host: a\r\nX-Key: {key}\r\n");
        ask(&mut Client::connect(bind), "GET", "/", &fields).status
    };
    // Alone it would allow the first request of each key.
    let mut key = 0;
    eventually(
        "the second one refuses what the first one has allowed",
        || {
            key += 1;
            while status(one, key) == 200 {}
            std::thread::sleep(Duration::from_millis(400));
            status(two, key) == 429
        },
    );
}

#[test]
fn peers_need_a_secret() {
    let proxy = Proxy::start();
    let mut config = config(free_address(), &[]);
    config.peers = Some(Peers {
        address: free_address(),
        others: Vec::new(),
    });
    let reply = proxy.ask(&ControlRequest::Configure(Box::new(config)));
    assert!(
        matches!(&reply, ControlReply::Refused(why) if why.contains("limit_secret")),
        "{reply:?}"
    );
}
