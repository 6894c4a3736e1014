//! Mutual TLS from proxy to proxy, as the tiers of a site speak it with each other.

mod postgres;

use super::authority::Authority;
use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{
    Backend, Bind, Check, CheckKind, ClientCertificates, Ejection, Frontend, Mode, Observe,
    OnMarkedDown, Refusal, Route, ServerTimeouts, ServerTls, Tls,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An authority, and the certificate that every server of this test has.
struct Site {
    authority: Authority,
    certificate: PathBuf,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::new();
        let names = free_address().ip().to_string();
        let certificate = authority.issue("own.pem", &["127.0.0.1", &names]);
        Self {
            authority,
            certificate,
        }
    }

    fn ca(&self) -> PathBuf {
        self.authority.file("ca")
    }

    /// TLS of clients that must have a certificate of the site.
    fn to_clients(&self) -> Tls {
        Tls {
            key: Some(self.certificate.clone()),
            client: Some(ClientCertificates {
                ca: self.ca(),
                pem: None,
                required: true,
            }),
            ..Tls::new(vec![self.certificate.clone()])
        }
    }

    fn to_servers(&self) -> ServerTls {
        ServerTls {
            ca: Some(self.ca()),
            certificate: Some(self.certificate.clone()),
            server_first: true,
            ..ServerTls::default()
        }
    }

    /// A proxy in front of an instance, as application servers have it.
    fn in_front_of(&self, bind: SocketAddr, instance: SocketAddr) -> ProxyConfig {
        let tls = Tls {
            server_first: true,
            ..self.to_clients()
        };
        let mut config = config(bind, &[instance]);
        config.frontends = vec![tcp_frontend(bind, "app", Refusal::Close)];
        config.frontends[0].binds[0].tls = Some(tls);
        config.frontends[0].timeouts.request_head = Duration::from_millis(500);
        config.backends[0] = Backend {
            timeouts: ServerTimeouts {
                queue: Duration::ZERO,
                ..ServerTimeouts::default()
            },
            ejection: Ejection {
                observe: Observe::None,
                ..Ejection::default()
            },
            ..config.backends[0].clone()
        };
        config
    }

    /// A proxy that speaks TLS with these servers.
    fn sending_to(&self, bind: SocketAddr, servers: &[SocketAddr]) -> ProxyConfig {
        let mut config = config(bind, servers);
        for server in &mut config.backends[0].servers {
            server.tls = Some(self.to_servers());
        }
        config.backends[0].timeouts.connect = LONG;
        config
    }

    /// What a client without a certificate gets for a request: nothing.
    fn stranger(&self, address: SocketAddr) -> std::io::Result<Vec<u8>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_no_client_auth();
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LONG))?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    }
}

#[test]
fn requests_pass_three_tiers_and_a_client_without_a_certificate_none() {
    let site = Site::new();
    let origin = Origin::start("instance");
    let [lb, web, app] = [(); 3].map(|()| free_address());
    let _app = Proxy::serving(&site.in_front_of(app, origin.address));
    let mut config = site.sending_to(web, &[app]);
    config.frontends[0].binds[0].tls = Some(site.to_clients());
    config.frontends[0].mode = Mode::Http {
        routes: vec![Route::to("app")],
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
    };
    let _web = Proxy::serving(&config);
    let _lb = Proxy::serving(&site.sending_to(lb, &[web]));
    let mut client = Client::connect(lb);
    for _ in 0..20 {
        assert_eq!(client.get("/a").text(), "instance GET /a HTTP/1.1");
    }
    // Connections between the tiers are kept.
    assert_eq!(origin.accepted.load(Ordering::SeqCst), 1);
    // The instance learns what the balancer saw of the client, who spoke plain text.
    let request = origin.requests.lock().unwrap()[0].clone();
    assert_eq!(request.field("X-Forwarded-Proto"), Some("http"));
    for inner in [web, app] {
        let answer = site.stranger(inner);
        let refused = answer.as_ref().is_err_and(|error| {
            let words = error.to_string();
            words.contains("CertificateRequired") || error.kind() == ErrorKind::ConnectionReset
        });
        assert!(refused, "{answer:?}");
        let mut plain = Client::connect(inner);
        plain.send("GET /plain HTTP/1.1\r\nHost: site\r\n\r\n");
        let mut all = Vec::new();
        let _ = plain.reader.read_to_end(&mut all);
        assert!(!all.starts_with(b"HTTP/"), "{all:?}");
    }
    let paths: Vec<String> = origin
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.path().into())
        .collect();
    assert!(paths.iter().all(|path| path == "/a"), "{paths:?}");
}

#[test]
fn an_instance_that_is_gone_is_a_connection_that_was_not_made() {
    let site = Site::new();
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            connection.answer(&format!("got {}", request.body.len()));
        }
    });
    let [web, dead, alive] = [(); 3].map(|()| free_address());
    let gone = site.in_front_of(dead, free_address());
    let mut gone = Proxy::serving(&gone);
    let _alive = Proxy::serving(&site.in_front_of(alive, origin.address));
    let web_proxy = Proxy::serving(&site.sending_to(web, &[dead, alive]));
    // Not even a request that must not be repeated is lost.
    for _ in 0..10 {
        let mut client = Client::connect(web);
        client.send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\n\r\nhello");
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, "got 5"));
    }
    let retried = web_proxy.log_lines(10);
    assert!(
        retried.iter().any(|line| line["retries"] != 0),
        "{retried:?}"
    );
    assert!(
        retried.iter().all(|line| line["server"] == "s2"),
        "{retried:?}"
    );
    // It resets the connection before it answers the handshake.
    let mut client = Client::connect(dead);
    client.stream.write_all(&[22, 3, 1, 0, 1]).unwrap();
    let mut byte = [0];
    let end = client.stream.read(&mut byte).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    let counted = "gaiola_tcp_sessions_total{frontend=\"site\",backend=\"app\",server=\"s1\"}";
    assert!(gone.admin("/metrics").text().contains(counted));
    // Whoever sends logs it: checks would fill this log. It is written at the end, if not before.
    gone.signal(rustix::process::Signal::TERM);
    gone.child.wait().unwrap();
    let log = std::fs::read_to_string(gone.file("access.log")).unwrap();
    assert_eq!(log, "");
}

/// Of another server a reset does not say that it took nothing.
#[test]
fn a_reset_in_the_handshake_is_a_refusal_only_of_a_server_that_connects_first() {
    let site = Site::new();
    let app = free_address();
    let _app = Proxy::serving(&site.in_front_of(app, free_address()));
    for (server_first, words) in [(true, "refused"), (false, "reset")] {
        let bind = free_address();
        let mut config = site.sending_to(bind, &[app]);
        let tls = config.backends[0].servers[0].tls.as_mut().unwrap();
        tls.server_first = server_first;
        let web = Proxy::serving(&config);
        assert!(Client::connect(bind).get("/").status >= 502);
        let line = web.log_lines(1).remove(0);
        assert!(line["reason"].as_str().unwrap().contains(words), "{line}");
    }
}

#[test]
fn a_client_that_says_nothing_takes_no_connection_of_an_instance() {
    let site = Site::new();
    let origin = Origin::start("instance");
    let app = free_address();
    let _app = Proxy::serving(&site.in_front_of(app, origin.address));
    let mut silent = Client::connect(app);
    assert!(silent.is_closed());
    assert_eq!(origin.accepted.load(Ordering::SeqCst), 0);
}

#[test]
fn a_bind_may_take_plain_text_until_everyone_speaks_tls() {
    let site = Site::new();
    let origin = Origin::start("instance");
    let [lb, plain_lb, web] = [(); 3].map(|()| free_address());
    let mut config = config(web, &[origin.address]);
    config.frontends[0].binds[0].tls = Some(Tls {
        optional: true,
        ..site.to_clients()
    });
    let web_proxy = Proxy::serving(&config);
    let secure = Proxy::serving(&site.sending_to(lb, &[web]));
    let _plain = Proxy::serving(&super::harness::config(plain_lb, &[web]));
    let mut clients = [lb, plain_lb, web].map(Client::connect);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    // A head that comes byte by byte is plain text too.
    let mut slow = Client::connect(web);
    for byte in b"GET /slow HTTP/1.1\r\nHost: site\r\n\r\n" {
        slow.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(slow.response().status, 200);
    // Then nobody speaks it any more, and it is refused, on connections that are open too.
    config.frontends[0].binds[0].tls = Some(site.to_clients());
    web_proxy.configure(&config);
    let [over_tls, through_plain, plain] = &mut clients;
    assert_eq!(over_tls.get("/").status, 200);
    assert!(through_plain.get("/").status >= 500);
    assert!(plain.is_closed());
    let mut late = Client::connect(web);
    late.send("GET /late HTTP/1.1\r\nHost: site\r\n\r\n");
    let mut all = Vec::new();
    let _ = late.reader.read_to_end(&mut all);
    assert!(!all.starts_with(b"HTTP/"), "{all:?}");
    drop(secure);
}

/// A sender that changes over to TLS does not use connections from before for it.
#[test]
fn a_sender_that_changes_over_loses_no_request() {
    let site = Site::new();
    let origin = Origin::start("instance");
    let [lb, web] = [(); 2].map(|()| free_address());
    let mut config = config(web, &[origin.address]);
    config.frontends[0].binds[0].tls = Some(Tls {
        optional: true,
        ..site.to_clients()
    });
    let _web = Proxy::serving(&config);
    let plain = super::harness::config(lb, &[web]);
    let secure = site.sending_to(lb, &[web]);
    let sender = Proxy::serving(&plain);
    let mut client = Client::connect(lb);
    for config in [&plain, &secure, &plain, &secure] {
        sender.configure(config);
        for _ in 0..5 {
            client.send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 1\r\n\r\nx");
            assert_eq!(client.response().status, 200);
        }
    }
}

/// Its TLS is how a server is reached, and no other server: what is in flight to it is still known.
#[test]
fn a_session_from_before_tls_is_closed_when_its_server_goes_down() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let checks = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = free_address();
    let mut backend = backend("db", vec![server("db1", listener.local_addr().unwrap())]);
    backend.on_marked_down = OnMarkedDown::ShutdownSessions;
    backend.check = Some(Check {
        port: Some(checks.local_addr().unwrap().port()),
        fall: 1,
        ..patient_check(CheckKind::Tcp)
    });
    let mut config = tcp(bind, backend, Refusal::Close);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let (_session, _) = listener.accept().unwrap();
    config.backends[0].servers[0].tls = Some(site.to_servers());
    proxy.configure(&config);
    let known: Vec<u64> = proxy.report().servers.iter().map(|s| s.in_flight).collect();
    assert_eq!(known, [1]);
    drop(checks);
    assert_eq!(client.rest(), b"");
}

/// One frontend in TCP mode.
fn tcp(bind: SocketAddr, backend: Backend, refusal: Refusal) -> ProxyConfig {
    let mode = Mode::Tcp {
        backend: backend.name.clone(),
        refusal,
        sni: Vec::new(),
    };
    ProxyConfig {
        frontends: vec![Frontend::new("local", vec![Bind::new(bind)], mode)],
        backends: vec![backend],
        ..config(bind, &[])
    }
}
