//! Servers whose requests fail although their checks pass, and what their checks ask.

use super::harness::*;
use gaiola_model::proxy::{Admin, Check, CheckKind, Observe, Server, Sticky};
use std::time::Duration;

fn check() -> Check {
    patient_check(CheckKind::Http { path: "/up".into() })
}

/// A server that answers with its name, but for one page, which it does not survive.
fn fragile(name: &'static str) -> Origin {
    Origin::with(move |connection| {
        while let Some(request) = connection.request() {
            if request.path() == "/bad" {
                return;
            }
            connection.answer(name);
        }
    })
}

fn post_bad(client: &mut Client) -> u16 {
    client.send("POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    client.response().status
}

#[test]
fn one_bad_page_sends_nobody_to_the_spare() {
    let origins = ["s1", "s2", "s3", "s4"].map(fragile);
    let bind = free_address();
    let mut config = config(bind, &origins.each_ref().map(|origin| origin.address));
    config.backends[0].servers[3].spare = true;
    config.backends[0].sticky = Some(Sticky::new("at"));
    // Nothing brings one back before the test is over.
    config.backends[0].ejection.time = LONG;
    let proxy = Proxy::serving(&config);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let response = Client::connect(bind).get("/");
        let cookie = response.field("Set-Cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        clients.push((response.text().to_owned(), cookie));
    }
    let mut client = Client::connect(bind);
    for _ in 0..24 {
        assert_eq!(post_bad(&mut client), 502);
    }
    let up = || {
        proxy
            .report()
            .servers
            .iter()
            .filter(|server| server.up)
            .count()
    };
    eventually("one is out, and no more", || up() == 3);
    for (name, cookie) in &clients {
        let mut client = Client::connect(bind);
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"
        ));
        assert_eq!(client.response().text(), name, "it stays at its server");
        assert_ne!(Client::connect(bind).get("/").text(), "s4");
    }
    assert_eq!(up(), 3);
    assert!(origins[3].requests().is_empty());
}

#[test]
fn what_is_observed_of_traffic_may_be_nothing() {
    let origins = ["s1", "s2"].map(fragile);
    let bind = free_address();
    let mut config = config(bind, &origins.each_ref().map(|origin| origin.address));
    config.backends[0].ejection.observe = Observe::None;
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    for _ in 0..10 {
        assert_eq!(post_bad(&mut client), 502);
    }
    assert!(proxy.report().servers.iter().all(|server| server.up));
    config.backends[0].ejection.observe = Observe::Layer7;
    config.revision.0 += 1;
    proxy.configure(&config);
    for _ in 0..10 {
        assert_eq!(post_bad(&mut client), 502);
    }
    eventually("one is out", || {
        proxy.report().servers.iter().any(|server| !server.up)
    });
}

#[test]
fn a_check_has_its_answer_though_the_connection_stays_open() {
    let origin = Origin::start("s1");
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].check = Some(Check {
        timeout: Duration::from_millis(90),
        ..check()
    });
    let proxy = Proxy::serving(&config);
    eventually("it is up", || {
        let server = proxy.report().servers.remove(0);
        server.up && server.reason.starts_with("HTTP 200 in ")
    });
}

#[test]
fn a_check_asks_for_a_name() {
    let origin = Origin::start("s1");
    let mut config = config(free_address(), &[origin.address]);
    config.backends[0].check = Some(check());
    let proxy = Proxy::serving(&config);
    let asked_for = |host: &str| {
        let requests = origin.requests();
        let last = requests.last().and_then(|request| request.field("Host"));
        last == Some(host)
    };
    eventually("localhost is asked for", || asked_for("localhost"));
    config.backends[0].check.as_mut().unwrap().host = Some("www.example.org".into());
    config.revision.0 += 1;
    proxy.configure(&config);
    eventually("another host is", || asked_for("www.example.org"));
}

#[test]
fn drained_is_not_down() {
    let origin = Origin::start("s1");
    let bind = free_address();
    let mut config = config(bind, &[origin.address, origin.address]);
    let admin = |server: &mut Server, admin| server.admin = admin;
    admin(&mut config.backends[0].servers[0], Admin::Drain);
    admin(&mut config.backends[0].servers[1], Admin::Maint);
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 503);
    let line = &proxy.log_lines(1)[0];
    let reason = "every server is drained, under maintenance or without a weight";
    assert_eq!(line["reason"], reason);
}
