//! TLS with servers.

use super::authority::Authority;
use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{CheckKind, ControlReply, ControlRequest, ProxyVersion, ServerTls};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server has seen of a connection: the name that was asked for, and whether the session was known.
type Seen = Arc<Mutex<Vec<(Option<String>, HandshakeKind)>>>;

/// How a server ends a connection.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// It does not: it gives each request's body back.
    Never,
    /// After one answer without a length.
    Good,
    /// As `Good`, but without an end of TLS.
    Cut,
}

/// A server with the certificate of a file.
fn origin(authority: &Authority, file: &Path, demands: bool, end: End) -> (SocketAddr, Seen) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = if demands {
        let roots = Arc::new(authority.roots());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        builder.build().unwrap()
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let (chain, key) = authority.read(file);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(connection, stream.unwrap());
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || serve(BufReader::new(stream), &kept, end));
        }
    });
    (address, seen)
}

fn serve(
    mut stream: BufReader<StreamOwned<ServerConnection, std::net::TcpStream>>,
    seen: &Seen,
    end: End,
) {
    let mut first = true;
    loop {
        let (mut length, mut lines) = (0, 0);
        loop {
            let mut line = String::new();
            if !stream.read_line(&mut line).is_ok_and(|len| len > 0) {
                return;
            }
            lines += 1;
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                None if lines > 1 => break,
                _ => {}
            }
        }
        if std::mem::take(&mut first) {
            let connection = &stream.get_ref().conn;
            let name = connection.server_name().map(String::from);
            let kind = connection.handshake_kind().unwrap();
            seen.lock().unwrap().push((name, kind));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let stream = stream.get_mut();
        if end != End::Never {
            // Its answer ends with the connection.
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
            if end == End::Good {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream.flush().unwrap();
    }
}

fn tls_config(bind: SocketAddr, server: SocketAddr, tls: ServerTls) -> ProxyConfig {
    let mut config = config(bind, &[server]);
    config.backends[0].servers[0].tls = Some(tls);
    config.backends[0].timeouts.connect = Duration::from_secs(5);
    config
}

fn by(authority: &Authority, host: &str) -> ServerTls {
    ServerTls {
        ca: Some(authority.file("ca")),
        host: Some(host.into()),
        ..ServerTls::default()
    }
}

fn status(tls: ServerTls, server: SocketAddr) -> (u16, String) {
    let bind = free_address();
    let proxy = Proxy::serving(&tls_config(bind, server, tls));
    let status = Client::connect(bind).get("/").status;
    let reason = proxy.log_lines(1)[0]["reason"]
        .as_str()
        .unwrap_or("")
        .into();
    (status, reason)
}

#[test]
fn large_bodies_pass_both_ways_on_kept_connections() {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let (server, seen) = origin(&authority, &file, false, End::Never);
    let bind = free_address();
    let _proxy = Proxy::serving(&tls_config(bind, server, by(&authority, "app.test")));
    let mut client = Client::connect(bind);
    for length in [1, 16_384, 100_000, 3_000_000] {
        let body: Vec<_> = (0..length)
            .map(|n: u32| n.to_le_bytes()[n as usize % 3])
            .collect();
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.stream.write_all(&body).unwrap();
        let response = client.response();
        assert!(response.status == 200 && response.body == body, "{length}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, [(Some("app.test".into()), HandshakeKind::Full)]);
}

#[test]
fn sessions_with_a_server_are_resumed() {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let (server, seen) = origin(&authority, &file, false, End::Good);
    let bind = free_address();
    let _proxy = Proxy::serving(&tls_config(bind, server, by(&authority, "app.test")));
    for _ in 0..3 {
        assert_eq!(Client::connect(bind).get("/").text(), "hello");
    }
    let kinds: Vec<_> = seen.lock().unwrap().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert_eq!(kinds[2], HandshakeKind::Resumed);
}

#[test]
fn a_certificate_that_is_not_as_it_should_be_gets_no_request() {
    let (trusted, foreign) = (Authority::new(), Authority::new());
    let file = trusted.issue("app.pem", &["app.test", "127.0.0.1"]);
    let (server, seen) = origin(&trusted, &file, false, End::Never);
    assert_eq!(status(by(&trusted, "app.test"), server).0, 200);
    let (code, reason) = status(by(&trusted, "other.test"), server);
    assert!(code == 503 && reason.contains("other.test"), "{reason}");
    let own = ServerTls {
        ca: Some(trusted.issue_own("own.pem", "own.test")),
        ..by(&trusted, "own.test")
    };
    let (itself, _) = origin(&trusted, &trusted.file("own.pem"), false, End::Never);
    let (code, reason) = status(own, itself);
    assert!(
        code == 503 && reason.contains("authority's own"),
        "{reason}"
    );
    let (code, reason) = status(by(&foreign, "app.test"), server);
    assert!(code == 503 && reason.contains("certificate"), "{reason}");
    // Without a name it is for the address; the name that is asked for may be another one.
    let bare = ServerTls {
        host: None,
        ..by(&trusted, "")
    };
    assert_eq!(status(bare.clone(), server).0, 200);
    let asked = ServerTls {
        sni: Some("other.test".into()),
        ..by(&trusted, "app.test")
    };
    assert_eq!(status(asked, server).0, 200);
    let blind = ServerTls {
        verify: false,
        ..by(&foreign, "app.test")
    };
    assert_eq!(status(blind, server).0, 200);
    let names: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    let [app, other] = ["app.test", "other.test"].map(|name| Some(name.to_owned()));
    assert_eq!(names, [app.clone(), None, other, app]);
}

#[test]
fn a_server_may_demand_a_certificate() {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let own = authority.issue("own.pem", &["proxy.test"]);
    let (server, _) = origin(&authority, &file, true, End::Never);
    assert_ne!(status(by(&authority, "app.test"), server).0, 200);
    let with = ServerTls {
        certificate: Some(own),
        ..by(&authority, "app.test")
    };
    assert_eq!(status(with, server).0, 200);
}

#[test]
fn an_answer_that_is_cut_off_is_not_taken_for_whole() {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let (server, _) = origin(&authority, &file, false, End::Cut);
    let bind = free_address();
    let proxy = Proxy::serving(&tls_config(bind, server, by(&authority, "app.test")));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n");
    let head = client.head();
    assert_eq!(head.status, 200);
    let _ = client.is_closed();
    let reason = proxy.log_lines(1)[0]["reason"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    assert!(reason.contains("cut off"), "{reason:?}");
}

#[test]
fn a_server_gets_close_notify_when_its_connection_is_no_longer_needed() {
    let authority = Authority::new();
    let (chain, key) = authority.read(&authority.issue("app.pem", &["app.test"]));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let connection = ServerConnection::new(config.into()).unwrap();
        let mut stream = StreamOwned::new(connection, listener.accept().unwrap().0);
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        stream.write_all(answer).unwrap();
        // Without an end of TLS this is an error.
        stream.read(&mut request).unwrap()
    });
    let bind = free_address();
    let mut config = tls_config(bind, server, by(&authority, "app.test"));
    let proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).get("/").text(), "hello");
    config.backends[0].servers.clear();
    config.revision.0 += 1;
    proxy.configure(&config);
    assert_eq!(serving.join().unwrap(), 0);
}

#[test]
fn checks_speak_tls_with_a_server_that_does() {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let (server, _) = origin(&authority, &file, false, End::Good);
    let mut config = tls_config(free_address(), server, by(&authority, "app.test"));
    config.backends[0].check = Some(patient_check(CheckKind::Http { path: "/".into() }));
    let proxy = Proxy::serving(&config);
    let reason = || proxy.report().servers[0].reason.clone();
    eventually("it is up", || reason().starts_with("HTTP 200"));
    config.revision.0 += 1;
    config.backends[0].check = Some(patient_check(CheckKind::Tls));
    proxy.configure(&config);
    eventually("the handshake is enough", || {
        reason().starts_with("TLS handshake in")
    });
    config.revision.0 += 1;
    config.backends[0].servers[0].tls = Some(by(&authority, "other.test"));
    proxy.configure(&config);
    eventually("it is down", || !proxy.report().servers[0].up);
    assert!(reason().contains("other.test"), "{}", reason());
}

#[test]
fn why_there_is_no_tls_is_reported_in_words() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let file = authority.issue("app.pem", &["app.test"]);
    let (server, _) = origin(&authority, &file, false, End::Good);
    let (demanding, _) = origin(&authority, &file, true, End::Good);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"220 plain.test ESMTP\r\n");
            // Closing with bytes unread would be a reset, which may overtake what was said.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let proxy = Proxy::start();
    let mut revision = 0;
    for (server, tls, words) in [
        (
            server,
            by(&foreign, "app.test"),
            "signed with another key than that of the authority",
        ),
        (
            server,
            by(&authority, "other.test"),
            "its certificate is not for other.test; say in `host`",
        ),
        (
            demanding,
            by(&authority, "app.test"),
            "it demands a certificate",
        ),
        (plain, by(&authority, "app.test"), "it does not speak TLS"),
    ] {
        let mut config = tls_config(free_address(), server, tls);
        config.backends[0].check = Some(patient_check(CheckKind::Http { path: "/".into() }));
        revision += 1;
        config.revision.0 = revision;
        proxy.configure(&config);
        let reason = || proxy.report().servers[0].reason.clone();
        eventually(words, || reason().contains(words));
    }
}

#[test]
fn mistakes_in_a_servers_settings_are_reported() {
    let proxy = Proxy::start();
    let mut wrong = ServerTls {
        ca: Some("/nowhere/ca.pem".into()),
        ..ServerTls::default()
    };
    for (word, tls) in [
        ("/nowhere/ca.pem", wrong.clone()),
        ("neither a host name", {
            wrong.host = Some("a b".into());
            wrong
        }),
    ] {
        let config = tls_config(free_address(), free_address(), tls);
        let reply = proxy.ask(&ControlRequest::Configure(Box::new(config)));
        assert!(
            matches!(&reply, ControlReply::Refused(reason) if reason.contains(word)),
            "{reply:?}"
        );
    }
}

/// How connections to a server with TLS end that were idle for longer than they may.
fn ends(send_proxy: bool) -> Vec<String> {
    let authority = Authority::new();
    let file = authority.issue("app.pem", &["app.test"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = authority.read(&file);
    let tls = Arc::new(
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ends = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&ends);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (tls, kept) = (Arc::clone(&tls), Arc::clone(&kept));
            let mut tcp = stream.unwrap();
            std::thread::spawn(move || {
                if send_proxy {
                    let mut byte = [0];
                    while byte != [b'\n'] {
                        tcp.read_exact(&mut byte).unwrap();
                    }
                }
                let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), tcp);
                let mut all = Vec::new();
                let end = loop {
                    let mut some = [0; 4096];
                    match stream.read(&mut some) {
                        Ok(0) => break "a good end".to_owned(),
                        Ok(count) => all.extend(&some[..count]),
                        Err(error) => break format!("{:?}", error.kind()),
                    }
                    if all.ends_with(b"\r\n\r\n") {
                        all.clear();
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .unwrap();
                        stream.flush().unwrap();
                    }
                };
                kept.lock().unwrap().push(end);
            });
        }
    });
    let bind = free_address();
    let mut config = tls_config(bind, address, by(&authority, "app.test"));
    if send_proxy {
        config.backends[0].servers[0].send_proxy = Some(ProxyVersion::V1);
    }
    config.backends[0].timeouts.pooled = Duration::from_millis(300);
    let _proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/").status, 200);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(client.get("/").status, 200);
    eventually("the first has ended", || !ends.lock().unwrap().is_empty());
    ends.lock().unwrap().clone()
}

#[test]
fn a_connection_that_grows_too_old_ends_well() {
    assert_eq!(
        ends(false),
        ["a good end"],
        "of those that all clients share"
    );
    assert_eq!(
        ends(true),
        ["a good end"],
        "of one that is a single client's"
    );
}
