//! TCP mode, and whose connection it is.

use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{Check, CheckKind, OnMarkedDown, Refusal};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Duration;

pub(super) fn tcp_config(
    bind: SocketAddr,
    servers: &[SocketAddr],
    refusal: Refusal,
) -> ProxyConfig {
    let mut config = config(bind, servers);
    config.frontends = vec![tcp_frontend(bind, "app", refusal)];
    config
}

/// A check that says at once whether somebody listens.
fn quick_check() -> Check {
    Check {
        kind: CheckKind::Tcp,
        port: None,
        host: None,
        headers: std::collections::BTreeMap::new(),
        status: Vec::new(),
        interval: Duration::from_millis(50),
        fast_interval: Duration::from_millis(20),
        connect: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 1,
    }
}

#[test]
fn bytes_pass_both_ways_and_each_side_may_end_first() {
    let origin = Origin::with(|connection| {
        let all = connection.client.rest();
        connection.client.stream.write_all(&all).unwrap();
    });
    let bind = free_address();
    let config = tcp_config(bind, &[free_address(), origin.address], Refusal::Close);
    let proxy = Proxy::serving(&config);
    let bytes = vec![7; 2_000_000];
    for _ in 0..4 {
        let mut client = Client::connect(bind);
        client.stream.write_all(&bytes).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.rest() == bytes);
    }
    let lines = proxy.log_lines(4);
    assert_eq!(lines[0]["bytes"], 2_000_000);
    assert_eq!(lines[0]["server"], "s2");
    let metrics = proxy.admin("/metrics");
    assert!(metrics.text().contains(
        "gaiola_tcp_sessions_total{frontend=\"site\",backend=\"app\",server=\"s2\"} 4\n"
    ));
}

#[test]
fn small_messages_and_bulk_may_follow_each_other() {
    let origin = Origin::with(|connection| {
        let mut bytes = vec![0; 1 << 16];
        loop {
            match std::io::Read::read(&mut connection.client.stream, &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => connection.client.stream.write_all(&bytes[..count]).unwrap(),
            }
        }
    });
    let bind = free_address();
    let proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    let mut client = Client::connect(bind);
    let mut all = 0;
    for size in [1, 16_384, 3_000_000, 5, 1_000_000, 16_385] {
        let bytes: Vec<_> = (0..size)
            .map(|n: u32| n.to_le_bytes()[n as usize % 3])
            .collect();
        let mut writer = client.stream.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        assert!(client.exactly(bytes.len()) == bytes, "{size}");
        writing.join().unwrap();
        all += size;
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.log_lines(1)[0]["bytes"], all);
}

#[test]
fn a_backend_without_a_server_that_is_up_falls_back_to_another() {
    let origin = Origin::with(|connection| {
        let all = connection.client.rest();
        connection.client.stream.write_all(&all).unwrap();
    });
    // No server; one that seems to be up until sessions find it gone, and is ejected then.
    for servers in [vec![], vec![free_address()]] {
        let bind = free_address();
        let mut config = tcp_config(bind, &servers, Refusal::Close);
        config.backends[0].fallback = Some("spare".into());
        let spare = vec![server("s9", origin.address)];
        config.backends.push(backend("spare", spare));
        let proxy = Proxy::serving(&config);
        for session in 1..6 {
            let mut client = Client::connect(bind);
            client.stream.write_all(b"hello").unwrap();
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.rest(), b"hello", "{servers:?}, session {session}");
            let line = proxy.log_lines(session).pop().unwrap();
            assert_eq!(
                (&line["backend"], &line["server"]),
                (&"spare".into(), &"s9".into())
            );
        }
    }
}

/// `SSLRequest`, then what a client says after `N`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0site\0\0";

#[test]
fn a_postgres_client_gets_an_error_when_there_is_no_server() {
    let bind = free_address();
    let mut config = tcp_config(bind, &[free_address()], Refusal::Postgres);
    config.backends[0].timeouts.queue = Duration::from_millis(100);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.stream.write_all(&SSL_REQUEST).unwrap();
    assert_eq!(client.exactly(1), b"N");
    client.stream.write_all(STARTUP).unwrap();
    let error = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(
        error.starts_with('E') && error.contains("\0C57P03\0"),
        "{error:?}"
    );
    assert!(error.contains("SFATAL\0"));
    assert!(
        proxy.log_lines(1)[0]["reason"]
            .as_str()
            .unwrap()
            .contains("connection refused")
    );
}

#[test]
fn a_session_waits_for_a_server_that_comes_up() {
    let address = free_address();
    let bind = free_address();
    let mut config = tcp_config(bind, &[address], Refusal::Postgres);
    config.backends[0].timeouts.queue = LONG;
    config.backends[0].timeouts.queue_when_down = true;
    config.backends[0].check = Some(quick_check());
    let proxy = Proxy::serving(&config);
    eventually("it is down", || !proxy.report().servers[0].up);
    let mut client = Client::connect(bind);
    eventually("it waits", || {
        proxy
            .admin("/metrics")
            .text()
            .contains("gaiola_queue_depth{backend=\"app\"} 1\n")
    });
    let _origin = Origin::on(TcpListener::bind(address).unwrap(), |connection| {
        let line = connection.client.line();
        connection.say(&line);
    });
    client.send("hello\r\n");
    assert_eq!(client.rest(), b"hello");
}

#[test]
fn where_one_server_at_most_may_be_up_none_of_two_takes_a_session() {
    let echo = |connection: &mut Accepted| {
        let line = connection.client.line();
        connection.say(&line);
    };
    let (first, second) = (Origin::with(echo), Origin::with(echo));
    let bind = free_address();
    let mut config = tcp_config(bind, &[first.address, second.address], Refusal::Close);
    config.backends[0].exclusive = true;
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).rest(), b"");
    config.backends[0].servers.pop();
    config.revision.0 += 1;
    proxy.configure(&config);
    let mut client = Client::connect(bind);
    client.send("hello\r\n");
    assert_eq!(client.rest(), b"hello");
}

#[test]
fn a_session_does_not_wait_for_a_server_that_has_been_down_for_longer() {
    let bind = free_address();
    let mut config = tcp_config(bind, &[free_address()], Refusal::Close);
    config.backends[0].timeouts.queue = Duration::from_millis(500);
    config.backends[0].timeouts.queue_when_down = true;
    config.backends[0].check = Some(quick_check());
    let proxy = Proxy::serving(&config);
    eventually("it is down", || !proxy.report().servers[0].up);
    // However long this one waits: when it is refused, the queue's time has passed.
    assert_eq!(Client::connect(bind).rest(), b"");
    assert_eq!(Client::connect(bind).rest(), b"");
    let lines = proxy.log_lines(2);
    assert_eq!(lines[1]["reason"], lines[0]["reason"]);
    // Two workers' lines come in any order. The second would wait for all of the queue's time, if it waited.
    let waited = lines.iter().map(|line| line["queue_ms"].as_f64().unwrap());
    assert!(waited.fold(f64::MAX, f64::min) < 250.0, "{lines:?}");
}

#[test]
fn sessions_to_a_server_that_goes_down_are_closed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let checks = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = free_address();
    let mut config = tcp_config(bind, &[listener.local_addr().unwrap()], Refusal::Close);
    config.backends[0].on_marked_down = OnMarkedDown::ShutdownSessions;
    config.backends[0].check = Some(Check {
        port: Some(checks.local_addr().unwrap().port()),
        ..quick_check()
    });
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let (_session, _) = listener.accept().unwrap();
    eventually("it is in flight", || {
        proxy.report().servers[0].in_flight == 1
    });
    drop(checks);
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.report().servers[0].in_flight, 0);
    assert_eq!(
        proxy.log_lines(1)[0]["reason"],
        "the server was marked down"
    );
}

#[test]
fn a_proxy_header_names_the_client_where_it_is_wanted() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].binds[0].proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.8 5000 80\r\n");
    assert_eq!(client.get("/").status, 200);
    let mut client = Client::connect(bind);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 9, 192, 0, 2, 8, 1, 1, 0, 80]);
    client.stream.write_all(&header).unwrap();
    assert_eq!(client.get("/").status, 200);
    let clients: Vec<_> = origin
        .requests()
        .iter()
        .map(|request| request.field("X-Forwarded-For").unwrap().to_owned())
        .collect();
    assert_eq!(clients, ["192.0.2.7", "192.0.2.9"]);
    // Two workers may have served them, and either may be first in the log.
    let lines = proxy.log_lines(2);
    assert!(lines.iter().any(|line| line["client"] == "192.0.2.7"));
    let mut without = Client::connect(bind);
    without.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(without.rest(), b"");
}

#[test]
fn a_proxy_header_from_anybody_else_is_a_bad_request() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    config.frontends[0].binds[0].proxy_protocol_from = vec!["192.0.2.0/24".parse().unwrap()];
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.8 5000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 400);
}

#[test]
fn a_server_that_accepts_is_connected_to_once() {
    let (sender, connections) = channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::with(move |connection| {
        sender.lock().unwrap().send(()).unwrap();
        connection.say("hello");
    });
    let bind = free_address();
    let _proxy = Proxy::serving(&tcp_config(bind, &[origin.address], Refusal::Close));
    assert_eq!(Client::connect(bind).rest(), b"hello");
    connections.recv_timeout(LONG).unwrap();
    assert!(connections.try_recv().is_err());
}

#[test]
fn a_server_that_refuses_is_tried_four_times() {
    let (bind, nobody) = (free_address(), free_address());
    let proxy = Proxy::serving(&tcp_config(bind, &[nobody], Refusal::Close));
    assert!(Client::connect(bind).is_closed());
    let line = &proxy.log_lines(1)[0];
    assert_eq!(line["retries"], 3, "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("connection refused"), "{reason}");
}
