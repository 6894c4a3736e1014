//! What HTTP/1.1 asks of a proxy.

use super::harness::*;
use std::net::Shutdown;

#[test]
fn connections_are_kept_on_both_sides() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for _ in 0..5 {
        let response = client.get("/a?b");
        assert_eq!(
            (response.status, response.text()),
            (200, "s1 GET /a?b HTTP/1.1")
        );
    }
    assert_eq!(origin.accepted(), 1);
    let seen = &origin.requests()[4];
    assert_eq!(seen.field("Host"), Some("site"));
    assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.field("Via"), Some("1.1 lb1"));
    let id = seen.field("X-Request-ID").unwrap().to_owned();
    let lines = proxy.log_lines(5);
    assert_eq!(lines[4]["request_id"], id);
    assert_eq!(lines[4]["server"], "s1");
    assert_eq!(lines[4]["status"], 200);
    assert_eq!(lines[4]["path"], "/a");
    let metrics = proxy.admin("/metrics");
    let line = "gaiola_http_requests_total{frontend=\"site\",backend=\"app\",server=\"s1\",code=\"200\"} 5\n";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    assert_eq!(proxy.report().servers[0].in_flight, 0);
}

#[test]
fn bodies_pass_in_both_framings_and_of_any_size() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let body = String::from_utf8(request.body).unwrap();
            if request.line.contains("/chunked") {
                connection.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for part in body.as_bytes().chunks(10_000) {
                    let part = std::str::from_utf8(part).unwrap();
                    connection.say(&format!("{:x}\r\n{part}\r\n", part.len()));
                }
                connection.say("0\r\n\r\n");
            } else {
                connection.answer(&body);
            }
        }
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    for size in [0, 1, 1000, 16_384, 100_000, 3_000_000] {
        let body: String = (0..size)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        for path in ["/plain", "/chunked"] {
            let mut writer = client.stream.try_clone().unwrap();
            let sent = body.clone();
            let writing = std::thread::spawn(move || {
                use std::io::Write;
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                    sent.len()
                );
                writer
                    .write_all(format!("{head}{sent}").as_bytes())
                    .unwrap();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                writer.write_all(head.as_bytes()).unwrap();
                for part in sent.as_bytes().chunks(7000) {
                    writer
                        .write_all(format!("{:x}\r\n", part.len()).as_bytes())
                        .unwrap();
                    writer.write_all(part).unwrap();
                    writer.write_all(b"\r\n").unwrap();
                }
                writer.write_all(b"0\r\n\r\n").unwrap();
            });
            for framing in ["length", "chunks"] {
                let response = client.response();
                assert_eq!(response.status, 200);
                assert!(response.body == body.as_bytes(), "{size} {path} {framing}");
            }
            writing.join().unwrap();
        }
    }
}

#[test]
fn head_has_no_body_and_the_connection_goes_on() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            if request.line.starts_with("HEAD") {
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            } else {
                connection.answer("after")
            };
        }
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("500"));
    assert_eq!(client.get("/").text(), "after");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let origin = Origin::with(|connection| {
        let mut request = connection.head().unwrap();
        assert_eq!(request.field("Expect"), Some("100-continue"));
        connection.say("HTTP/1.1 100 Continue\r\n\r\n");
        connection.body(&mut request);
        let text = String::from_utf8(request.body).unwrap();
        connection.answer(&text);
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("body");
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "body"));
}

#[test]
fn a_server_may_answer_before_it_has_the_whole_request() {
    let origin = Origin::with(|connection| {
        let request = connection.head().unwrap();
        if request.line.contains("/early") {
            connection.say(
                "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst");
    let response = client.response();
    assert_eq!(response.status, 413);
    assert_eq!(response.field("Connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let origin = Origin::with(|connection| {
        let request = connection.head().unwrap();
        assert_eq!(request.field("Upgrade"), Some("websocket"));
        assert_eq!(request.field("Connection"), Some("upgrade"));
        connection.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello");
        let line = connection.client.line();
        connection.say(&format!("echo {line}\r\n"));
    });
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    let response = client.head();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("Upgrade"), Some("websocket"));
    assert_eq!(client.exactly(5), b"hello");
    client.send("what I say\r\n");
    assert_eq!(client.line(), "echo what I say");
    assert!(client.is_closed());
    drop(client);
    assert_eq!(proxy.log_lines(1)[0]["status"], 101);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    let requests: String = (0..50)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
        .collect();
    client.send(&requests);
    for n in 0..50 {
        assert_eq!(client.response().text(), format!("s1 POST /{n} HTTP/1.1"));
    }
}

#[test]
fn what_smuggling_lives_on_is_refused_and_the_connection_closed() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let bad = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    for request in bad {
        let mut client = Client::connect(bind);
        client.send(request);
        let response = client.response();
        assert_eq!(response.status, 400, "{request:?}");
        assert_eq!(response.field("Connection"), Some("close"), "{request:?}");
        assert!(client.is_closed(), "{request:?}");
    }
    assert!(origin.requests().is_empty());
    let lines = proxy.log_lines(bad.len());
    assert!(
        lines
            .iter()
            .all(|line| line["status"] == 400 && line["reason"] != "")
    );
}

#[test]
fn old_clients_get_plain_bodies_and_an_end() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!(response.field("Transfer-Encoding"), None);
    assert_eq!(response.text(), "abcde");
}

#[test]
fn a_body_that_ends_with_its_connection_is_passed_on_whole() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.say("HTTP/1.0 200 OK\r\n\r\nto the end");
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    let response = client.get("/");
    assert_eq!(response.text(), "to the end");
    assert_eq!(response.field("Connection"), Some("close"));
}

#[test]
fn a_client_that_leaves_frees_its_server() {
    let (sender, left) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::with(move |connection| {
        connection.request();
        assert!(connection.client.is_closed());
        sender.lock().unwrap().send(()).unwrap();
    });
    let bind = free_address();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    client.stream.shutdown(Shutdown::Both).unwrap();
    left.recv_timeout(LONG).unwrap();
    eventually("it is over", || proxy.report().servers[0].in_flight == 0);
    assert_eq!(proxy.log_lines(1)[0]["status"], 499);
}

#[test]
fn a_slow_head_gets_408() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].timeouts.request_head = std::time::Duration::from_millis(100);
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().status, 408);
    assert!(client.is_closed());
    let mut silent = Client::connect(bind);
    assert_eq!(silent.rest(), b"");
}

#[test]
fn a_path_without_a_route_is_not_found() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let gaiola_model::proxy::Mode::Http { routes, .. } = &mut config.frontends[0].mode else {
        unreachable!()
    };
    routes[0].path_prefix = "/api".into();
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/other").status, 404);
    assert_eq!(client.get("/api/x").status, 200);
}
