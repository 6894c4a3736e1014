//! Cookies that keep a client on its server.

use super::*;

/// A cookie as the client sends it back.
fn cookie(response: &Response) -> String {
    let set = response.field("Set-Cookie").expect("a cookie is set");
    let (pair, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/; HttpOnly");
    format!("Cookie: theme=dark; {pair}\r\n")
}

fn sticky() -> Sticky {
    Sticky {
        indirect: true,
        nocache: true,
        http_only: true,
        key: Some(Secret("0123456789abcdef".into())),
        ..Sticky::new("at")
    }
}

#[test]
fn a_client_stays_with_its_server_until_that_dies() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::RoundRobin);
    config.backends[0].sticky = Some(sticky());
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let first = client.get("/");
    assert_eq!(first.field("Cache-Control"), Some("private"));
    let (name, sent) = (first.text().to_owned(), cookie(&first));
    assert!(
        !sent.contains(&name) && !sent.contains("127.0.0.1"),
        "{sent}"
    );
    for _ in 0..6 {
        let response = ask(&mut Client::connect(bind), "/", &sent);
        assert_eq!(response.text(), name);
        assert_eq!(response.field("Set-Cookie"), None);
        assert_eq!(response.field("Cache-Control"), None);
    }
    let index = usize::from(name == "s2");
    let seen = pair.origins[index].requests();
    assert_eq!(seen.last().unwrap().field("Cookie"), Some("theme=dark"));
    // A server that drains keeps its clients, and gets no others.
    config.backends[0].servers[index].admin = Admin::Drain;
    proxy.configure(&config);
    assert_eq!(ask(&mut client, "/", &sent).text(), name);
    assert!(!names(&mut client, 4).contains(&name));
    // One that listens no more loses them.
    config.backends[0].servers[index].address = free_address().into();
    for admin in [Admin::Ready, Admin::Maint] {
        config.backends[0].servers[index].admin = admin;
        proxy.configure(&config);
        let response = ask(&mut client, "/", &sent);
        assert_ne!(response.text(), name);
        assert_ne!(cookie(&response), sent);
    }
}

#[test]
fn a_cookie_that_was_not_signed_by_us_is_passed_over() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::First);
    let named = |server: &Server| Server {
        cookie: Some(server.name.clone()),
        ..server.clone()
    };
    config.backends[0].servers = config.backends[0].servers.iter().map(named).collect();
    config.backends[0].sticky = Some(Sticky::new("at"));
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(ask(&mut client, "/", "Cookie: at=s2\r\n").text(), "s2");
    config.backends[0].sticky = Some(sticky());
    proxy.configure(&config);
    for forged in ["at=s2", "at=s2.00000000000000000000000000000000", "at="] {
        let response = ask(&mut client, "/", &format!("Cookie: {forged}\r\n"));
        assert_eq!(response.text(), "s1");
        assert!(cookie(&response).contains("at=s1."));
    }
}

#[test]
fn who_has_a_cookie_waits_for_its_server() {
    let pair = Pair::start();
    let bind = free_address();
    let mut config = pair.config(bind, Algorithm::First);
    config.backends[0].sticky = Some(sticky());
    config.backends[0].servers[0].maxconn = Some(1);
    let proxy = Proxy::serving(&config);
    let sent = cookie(&Client::connect(bind).get("/"));
    let mut busy = hold(bind, &proxy, 1);
    let mut waiting = Client::connect(bind);
    waiting.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n"));
    eventually("it waits", || {
        let metrics = proxy.admin("/metrics");
        metrics
            .text()
            .contains("gaiola_queue_depth{backend=\"app\"} 1\n")
    });
    assert_eq!(Client::connect(bind).get("/").text(), "s2");
    pair.release();
    assert_eq!(busy.response().text(), "s1");
    assert_eq!(waiting.response().text(), "s1");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bind = free_address();
    let proxy = Proxy::start();
    let refused = |change: &dyn Fn(&mut ProxyConfig)| {
        let mut config = config(bind, &[free_address()]);
        change(&mut config);
        match proxy.ask(&ControlRequest::Configure(Box::new(config))) {
            ControlReply::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let heavy = refused(&|config| config.backends[0].servers[0].weight = 257);
    assert!(heavy.contains("its weight is above 256"), "{heavy}");
    let cookie = refused(&|config| config.backends[0].sticky = Some(Sticky::new("a;b")));
    assert!(cookie.contains("is not a name for a cookie"), "{cookie}");
    let bound = refused(&|config| {
        config.backends[0].algorithm = Algorithm::Hash {
            key: HashKey::Source,
            bound: Some(99),
        };
    });
    assert!(bound.contains("below 100 percent"), "{bound}");
}
