//! Unix sockets, IPv6, and the client address that servers receive.

use super::harness::*;
use gaiola_model::proxy::{Address, CheckKind, ProxyVersion};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n";

/// A server on a Unix socket that answers one request on each connection.
fn unix_origin(path: &std::path::Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let Some(Ok(line)) = lines.next() else {
                continue;
            };
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", line.len());
            stream.write_all((head + &line).as_bytes()).unwrap();
        }
    });
}

pub(super) fn ask(path: &std::path::Path) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(GET).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn clients_and_servers_may_be_on_unix_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let (front, app) = (directory.path().join("front"), directory.path().join("app"));
    unix_origin(&app);
    // A dead process has left its file.
    drop(UnixListener::bind(&front).unwrap());
    let mut config = config(free_address(), &[free_address()]);
    config.frontends[0].binds[0].address = Address::Unix(front.clone());
    config.frontends[0].binds[0].permissions = Some(0o620);
    config.backends[0].servers[0].address = Address::Unix(app.clone());
    config.backends[0].check = Some(patient_check(CheckKind::Http { path: "/up".into() }));
    let mut proxy = Proxy::serving(&config);
    let mode = std::fs::metadata(&front).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    assert!(ask(&front).ends_with("\r\n\r\nGET /a HTTP/1.1"));
    assert_eq!(proxy.log_lines(1)[0]["client"], "unix:1");
    assert!(proxy.report().servers[0].reason.starts_with("HTTP 200"));
    // Another process does not take a socket that is served.
    let other = Proxy::start();
    let reply = other.ask(&gaiola_model::proxy::ControlRequest::Configure(Box::new(
        config.clone(),
    )));
    assert!(
        matches!(&reply, gaiola_model::proxy::ControlReply::Refused(reason) if reason.contains("in use")),
        "{reply:?}"
    );
    assert!(ask(&front).starts_with("HTTP/1.1 200"));
    proxy.signal(rustix::process::Signal::TERM);
    proxy.child.wait().unwrap();
    assert!(!front.exists() && app.exists());
}

#[test]
fn clients_and_servers_may_be_on_ipv6() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let origin = Origin::on(listener, |connection| {
        while let Some(request) = connection.request() {
            connection.answer(&request.line);
        }
    });
    let bind = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::serving(&config(bind, &[origin.address]));
    assert_eq!(Client::connect(bind).get("/a").text(), "GET /a HTTP/1.1");
    let forwarded = origin.requests()[0]
        .field("X-Forwarded-For")
        .unwrap()
        .to_owned();
    assert_eq!(forwarded, "::1");
    assert_eq!(proxy.log_lines(1)[0]["client"], "::1");
}

/// A server that keeps what each connection begins with, and answers requests after a PROXY protocol line.
fn proxied() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let headers = Arc::<Mutex<Vec<_>>>::default();
    let kept = Arc::clone(&headers);
    let origin = Origin::with(move |connection| {
        let line = connection.client.line();
        kept.lock().unwrap().push(line);
        while let Some(request) = connection.request() {
            connection.answer(&request.line);
        }
    });
    (origin, headers)
}

#[test]
fn a_server_gets_the_clients_address_and_the_connection_carries_no_other_client() {
    let ((origin, headers), bind) = (proxied(), free_address());
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].send_proxy = Some(ProxyVersion::V1);
    let _proxy = Proxy::serving(&config);
    let mut clients = [Client::connect(bind), Client::connect(bind)];
    for turn in 0..4 {
        assert_eq!(clients[turn % 2].get("/").status, 200);
    }
    let line = |client: &Client| {
        let from = client.stream.local_addr().unwrap();
        format!(
            "PROXY TCP4 127.0.0.1 {} {} {}",
            bind.ip(),
            from.port(),
            bind.port()
        )
    };
    let [one, other] = clients.each_ref().map(line);
    assert_eq!(*headers.lock().unwrap(), [one, other]);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn an_announced_client_is_passed_on() {
    let (sender, received) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let origin = Origin::with(move |connection| {
        let header = connection.client.exactly(28);
        sender.lock().unwrap().send(header).unwrap();
        connection.say("hello");
    });
    let bind = free_address();
    let mut config = config(bind, &[origin.address]);
    config.frontends = vec![tcp_frontend(bind, "app", Default::default())];
    config.frontends[0].binds[0].proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    config.backends[0].servers[0].send_proxy = Some(ProxyVersion::V2);
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.8 5000 80\r\n");
    assert_eq!(client.rest(), b"hello");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 7, 192, 0, 2, 8, 0x13, 0x88, 0, 80]);
    assert_eq!(received.recv_timeout(LONG).unwrap(), header);
}

#[test]
fn a_check_speaks_for_itself() {
    let ((origin, headers), bind) = (proxied(), free_address());
    let mut config = config(bind, &[origin.address]);
    config.backends[0].servers[0].send_proxy = Some(ProxyVersion::V1);
    config.backends[0].check = Some(patient_check(CheckKind::Http { path: "/up".into() }));
    let proxy = Proxy::serving(&config);
    eventually("it is up", || {
        proxy.report().servers[0].reason.starts_with("HTTP 200")
    });
    assert_eq!(headers.lock().unwrap()[0], "PROXY UNKNOWN");
}

/// A server that answers whoever begins a session as PostgreSQL does.
fn postgres(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&said);
    let origin = Origin::with(move |connection| {
        let startup = connection.client.exactly(20);
        *kept.lock().unwrap() = startup;
        let _ = connection.client.stream.write_all(answer);
    });
    (origin.address, said)
}

#[test]
fn a_postgres_server_is_asked_in_its_own_protocol() {
    let (well, said) = postgres(b"R\0\0\0\x08\0\0\0\0");
    let (starting, _) = postgres(b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting up\0\0");
    let mut config = config(free_address(), &[well, starting]);
    config.backends[0].check = Some(patient_check(CheckKind::Postgres {
        user: "check".into(),
    }));
    let proxy = Proxy::serving(&config);
    eventually("both were asked", || {
        proxy
            .report()
            .servers
            .iter()
            .all(|server| server.reason != "not checked yet")
    });
    let servers = proxy.report().servers;
    assert!(
        servers[0].up && servers[0].reason.starts_with("PostgreSQL in"),
        "{servers:?}"
    );
    assert!(
        !servers[1].up && servers[1].reason == "starting up",
        "{servers:?}"
    );
    assert_eq!(
        *said.lock().unwrap(),
        b"\0\0\0\x14\0\x03\0\0user\0check\0\0"
    );
}
