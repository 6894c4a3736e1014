//! Servers that fail, and what the client sees of it.

use super::harness::*;
use gaiola_model::proxy::{Algorithm, Check, CheckKind, Mode, OnMarkedDown, Route, Rule};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

fn check() -> Check {
    Check {
        kind: CheckKind::Http { path: "/up".into() },
        port: None,
        host: None,
        headers: std::collections::BTreeMap::new(),
        status: Vec::new(),
        interval: Duration::from_millis(50),
        fast_interval: Duration::from_millis(20),
        connect: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 2,
    }
}

#[test]
fn a_dead_server_costs_no_request() {
    let (origin, bind) = (Origin::start("s2"), free_address());
    let proxy = Proxy::serving(&config(bind, &[free_address(), origin.address]));
    let mut client = Client::connect(bind);
    for n in 0..20 {
        client.send(&format!(
            "POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(client.response().text(), format!("s2 POST /{n} HTTP/1.1"));
    }
    let lines = proxy.log_lines(20);
    assert!(lines.iter().any(|line| line["retries"] == 1), "{lines:?}");
    assert_eq!(lines[19]["retries"], 0, "it is ejected");
    let servers = proxy.report().servers;
    assert!(!servers[0].up, "{servers:?}");
    assert!(
        servers[0].reason.contains("connection refused"),
        "{servers:?}"
    );
}

#[test]
fn without_any_server_the_client_gets_503_and_may_ask_again() {
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[free_address()]));
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/").status, 503);
    assert_eq!(client.get("/").status, 503);
    let line = &proxy.log_lines(2)[0];
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("s1: connection refused"), "{reason}");
}

#[test]
fn a_stale_connection_costs_no_request() {
    // It closes each connection after one answer, and says so to nobody.
    let origin = Origin::with(|connection| {
        connection.request();
        connection.answer("once");
    });
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "once");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let response = client.response();
        // One that crosses with the close must not be repeated, for it may have been carried out.
        assert!(matches!(response.status, 200 | 502), "{response:?}");
    }
    assert!(proxy.report().servers[0].up);
}

#[test]
fn a_get_whose_server_dies_is_asked_elsewhere_and_a_post_is_not() {
    let seen = Arc::new(AtomicUsize::new(0));
    let posts = Arc::clone(&seen);
    let dying = Origin::with(move |connection| {
        if connection
            .request()
            .is_some_and(|request| request.line.starts_with("POST"))
        {
            posts.fetch_add(1, Ordering::SeqCst);
        }
    });
    let well = Origin::start("well");
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[dying.address, well.address]));
    for _ in 0..2 {
        assert_eq!(Client::connect(bind).get("/").text(), "well GET / HTTP/1.1");
    }
    drop(proxy);
    let proxy = Proxy::serving(&config(bind, &[dying.address]));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.response().status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let line = &proxy.log_lines(1)[0];
    assert!(
        line["reason"].as_str().unwrap().contains("not idempotent"),
        "{line}"
    );
}

#[test]
fn a_silent_server_causes_504() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.client.is_closed();
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].timeouts.response = Duration::from_millis(100);
    let _proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 504);
}

#[test]
fn a_malformed_response_causes_502() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/").status, 502);
}

#[test]
fn a_response_that_breaks_off_is_seen_to_break_off() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.exactly(4), b"half");
    assert!(client.is_closed());
}

#[test]
fn checks_take_a_server_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&well);
    let origin = Origin::with(move |connection| {
        while let Some(request) = connection.request() {
            let status = if request.path() == "/up" && !answer.load(Ordering::SeqCst) {
                "500 Sick"
            } else {
                "200 OK"
            };
            connection.say(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].check = Some(check());
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 200);
    assert!(proxy.report().servers[0].reason.starts_with("HTTP 200"));
    well.store(false, Ordering::SeqCst);
    eventually("it is down", || {
        Client::connect(bind).get("/").status == 503
    });
    let metrics = proxy.admin("/metrics");
    assert!(
        metrics
            .text()
            .contains("gaiola_server_up{backend=\"app\",server=\"s1\"} 0\n")
    );
    well.store(true, Ordering::SeqCst);
    eventually("it is up", || Client::connect(bind).get("/").status == 200);
    assert!(proxy.report().servers[0].up);
}

#[test]
fn sessions_of_a_server_that_goes_down_are_shut_where_that_is_wanted() {
    let well = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&well);
    let origin = Origin::with(move |connection| {
        let request = connection.request().unwrap();
        if request.path() == "/up" && answer.load(Ordering::SeqCst) {
            connection.answer("up");
        } else if request.path() != "/up" {
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            connection.client.is_closed();
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].check = Some(check());
    config.backends[0].on_marked_down = OnMarkedDown::ShutdownSessions;
    // So that no timer wakes what the interruption must wake.
    config.backends[0].timeouts.connect = LONG;
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.exactly(4), b"half");
    well.store(false, Ordering::SeqCst);
    assert!(client.is_closed());
}

#[test]
fn no_server_has_more_requests_than_its_maxconn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (Arc::clone(&now), Arc::clone(&most));
    let origin = Origin::with(move |connection| {
        while let Some(_request) = connection.request() {
            let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            counted.fetch_sub(1, Ordering::SeqCst);
            connection.answer("done");
        }
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].maxconn = Some(2);
    config.backends[0].algorithm = Algorithm::LeastConn;
    config.backends[0].timeouts.queue = LONG;
    let _proxy = Proxy::serving(&config);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(bind);
                for _ in 0..10 {
                    assert_eq!(client.get("/").text(), "done");
                }
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_queue_that_is_full_or_too_slow_causes_503() {
    let held = Arc::new(Barrier::new(2));
    let release = Arc::clone(&held);
    let origin = Origin::with(move |connection| {
        connection.request();
        release.wait();
        connection.answer("done");
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].timeouts.queue = Duration::from_millis(50);
    let proxy = Proxy::serving(&config);
    let mut first = Client::connect(bind);
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    assert_eq!(Client::connect(bind).get("/").status, 503);
    config.revision.0 += 1;
    config.backends[0].timeouts.queue_size = 0;
    proxy.configure(&config);
    assert_eq!(Client::connect(bind).get("/").status, 503);
    held.wait();
    assert_eq!(first.response().text(), "done");
    let lines = proxy.log_lines(3);
    let reasons: Vec<_> = lines
        .iter()
        .map(|line| line["reason"].as_str().unwrap_or(""))
        .collect();
    assert!(
        reasons.contains(&"no server had room within the queue's time"),
        "{reasons:?}"
    );
    assert!(reasons.contains(&"the queue is full"), "{reasons:?}");
}

#[test]
fn a_client_that_leaves_the_queue_asks_no_server() {
    let ((origin, held), bind) = (Origin::holding(), free_address());
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].maxconn = Some(1);
    let proxy = Proxy::serving(&config);
    let mut first = Client::connect(bind);
    first.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    let mut leaving = Client::connect(bind);
    leaving.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nda");
    leaving.send("ta");
    let mut staying = Client::connect(bind);
    staying.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nda");
    drop(leaving);
    let line = &proxy.log_lines(1)[0];
    assert_eq!(line["status"], 499);
    let reason = "the client left while it waited for a server";
    assert_eq!(line["reason"], reason);
    staying.send("ta");
    held.wait();
    assert_eq!(first.response().text(), "done");
    assert_eq!(staying.response().text(), "done");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_server_that_comes_back_is_found_again() {
    let address = free_address();
    let bind = free_address();
    let mut config = config(bind, &[address]);
    config.backends[0].check = Some(check());
    let _proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").status, 503);
    let origin = Origin::on(TcpListener::bind(address).unwrap(), |connection| {
        while connection.request().is_some() {
            connection.answer("back");
        }
    });
    eventually("it is up", || Client::connect(bind).get("/").status == 200);
    assert_eq!(Client::connect(bind).get("/").text(), "back");
    drop(origin);
}

#[test]
fn a_request_that_waits_is_answered_as_a_new_configuration_says() {
    let hanging = Origin::with(|connection| {
        connection.request();
        // Says nothing until the other side gives up.
        connection.client.is_closed();
    });
    let bind = free_address();
    let mut config = config(bind, &[hanging.address]);
    config.backends[0].servers[0].maxconn = Some(1);
    config.backends[0].timeouts.queue = LONG;
    let proxy = Proxy::serving(&config);
    let mut first = Client::connect(bind);
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    let mut waiting = Client::connect(bind);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("another one waits", || {
        let metrics = proxy.admin("/metrics");
        metrics
            .text()
            .contains("gaiola_queue_depth{backend=\"app\"} 1\n")
    });
    // Neither the backend nor the server that it waits for is there any more.
    let Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    *routes = vec![Route {
        rules: vec![Rule::Deny],
        ..Route::default()
    }];
    config.backends.clear();
    config.revision.0 += 1;
    proxy.configure(&config);
    assert_eq!(waiting.response().status, 403);
    assert_eq!(Client::connect(bind).get("/").status, 403);
}

#[test]
fn what_a_server_has_left_of_a_body_is_no_request() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&asked);
    let origin = Origin::with(move |connection| {
        if let Some(head) = connection.head() {
            all.lock().unwrap().push(head.line);
            connection.say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    // More than sockets hold.
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(600_000);
    for _ in 0..10 {
        let mut client = Client::connect(bind);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // It is answered, and closed, before all of this is written.
        let _ = client.stream.write_all((head + &body).as_bytes());
        let mut answer = Vec::new();
        let _ = client.stream.read_to_end(&mut answer);
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1").count();
        assert!(answers <= 1, "{}", String::from_utf8_lossy(&answer));
    }
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|line| line.starts_with("POST /")),
        "{asked:?}"
    );
}
