//! TLS with clients.

mod files;
mod resumption;
mod sni;
mod staple;

use super::authority::Authority;
use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{
    ClientCertificates, ControlReply, ControlRequest, Frontend, Mode, Route, SniRoute, TicketKey,
    Tls, TlsVersion,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, StreamOwned, SupportedProtocolVersion,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Authority {
    /// What a client wants: this authority, and its own certificate shown.
    fn client(&self, own: Option<&Path>, versions: &[&'static SupportedProtocolVersion]) -> Wants {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        Wants(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = self.read(own);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }))
    }

    /// A client of any version.
    pub(super) fn any(&self) -> Wants {
        self.client(None, rustls::ALL_VERSIONS)
    }
}

pub(super) struct Wants(Arc<ClientConfig>);

pub(super) type TlsClient = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl Wants {
    /// A connection after its handshake, or why there is none.
    pub(super) fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsClient> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(LONG))?;
        tcp.set_nodelay(true)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(BufReader::new(stream))
    }
}

/// A response's status and body, whose length is stated.
fn response(client: &mut TlsClient) -> std::io::Result<(u16, Vec<u8>)> {
    let mut length = 0;
    let mut status = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(' ') {
            Some(("HTTP/1.1", rest)) => status = rest[..3].parse().unwrap(),
            Some(("Content-Length:", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    Ok((status, body))
}

pub(super) fn get(client: &mut TlsClient, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    write!(
        client.get_mut(),
        "GET {path} HTTP/1.1\r\nHost: site\r\n\r\n"
    )?;
    response(client)
}

/// The name of the certificate that a client gets.
pub(super) fn leaf(client: &TlsClient) -> Vec<u8> {
    client.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
}

pub(super) fn leaf_of(file: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

pub(super) fn tls_config(
    bind: SocketAddr,
    servers: &[SocketAddr],
    certificates: &[PathBuf],
) -> ProxyConfig {
    let mut config = config(bind, servers);
    config.frontends[0].binds[0].tls = Some(Tls::new(certificates.to_vec()));
    config
}

fn refused(proxy: &Proxy, config: &ProxyConfig) -> String {
    match proxy.ask(&ControlRequest::Configure(Box::new(config.clone()))) {
        ControlReply::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_over_tls_are_announced_to_the_server_as_https() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let wants = authority.client(None, &[version]);
        let mut client = wants.connect(bind, "site.test").unwrap();
        for _ in 0..3 {
            let (status, body) = get(&mut client, "/a").unwrap();
            assert_eq!((status, &*body), (200, &b"s1 GET /a HTTP/1.1"[..]));
        }
    }
    let requests = origin.requests();
    assert_eq!(requests[0].field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(proxy.log_lines(6)[0]["status"], 200);
    assert!(
        proxy
            .admin("/metrics")
            .text()
            .contains("gaiola_tls_handshakes_total{result=\"full\"} 2\n")
    );
}

#[test]
fn the_certificate_is_chosen_by_the_name() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let first = authority.issue("first.pem", &["one.test"]);
    let exact = authority.issue("folder/a.pem", &["www.two.test"]);
    let wild = authority.issue("folder/b.pem", &["*.two.test"]);
    let config = tls_config(
        bind,
        &[origin.address],
        &[first.clone(), authority.file("folder")],
    );
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    for (name, file) in [
        ("one.test", &first),
        ("www.two.test", &exact),
        ("WWW.Two.test", &exact),
        ("api.two.test", &wild),
    ] {
        let client = wants.connect(bind, name).unwrap();
        assert!(leaf(&client) == leaf_of(file), "{name}");
    }
    // Whoever asks for another name gets the first one, and does not like it.
    for name in ["other.test", "two.test", "a.b.two.test"] {
        let error = wants.connect(bind, name).unwrap_err();
        assert!(error.to_string().contains("one.test"), "{error}");
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let length = request.body.len();
            connection.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            connection.client.stream.write_all(&request.body).unwrap();
        }
    });
    let (authority, bind) = (Authority::new(), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    let mut client = authority.any().connect(bind, "site.test").unwrap();
    for length in [1, 16_383, 16_384, 16_385, 100_000, 3_000_000] {
        let body: Vec<_> = (0..length)
            .map(|n: u32| n.to_le_bytes()[n as usize % 3])
            .collect();
        let head = format!("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: {length}\r\n\r\n");
        let stream = client.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let (status, back) = response(&mut client).unwrap();
        assert_eq!(status, 200);
        assert!(back == body, "{length}");
    }
}

/// Writes until that comes to a stop; whether it does so before far more was taken than sockets hold.
fn stops(writer: &mut impl Write) -> bool {
    let bytes = vec![7; 1 << 20];
    (0..200).any(|_| writer.write_all(&bytes).is_err())
}

#[test]
fn nobody_is_read_from_faster_than_the_other_side_reads() {
    let soon = Some(std::time::Duration::from_millis(500));
    let (sender, stopped) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::with(move |connection| {
        let request = connection.head().unwrap();
        let sender = sender.lock().unwrap();
        if request.path() == "/down" {
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            let stream = &mut connection.client.stream;
            stream.set_write_timeout(soon).unwrap();
            sender.send(stops(stream)).unwrap();
        } else {
            // It reads nothing, and stays: what is sent to one that has left is read on from, for the sake of the answer.
            sender.send(true).unwrap();
            std::thread::sleep(LONG);
        }
    });
    let (authority, bind) = (Authority::new(), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    // The system must not take a server that does not read for one that has gone.
    config.backends[0].timeouts.user = LONG;
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    let mut down = wants.connect(bind, "site.test").unwrap();
    let stream = down.get_mut();
    write!(stream, "GET /down HTTP/1.1\r\nHost: site\r\n\r\n").unwrap();
    assert!(stopped.recv_timeout(LONG).unwrap());
    let mut up = wants.connect(bind, "site.test").unwrap();
    let stream = up.get_mut();
    let head = "POST /up HTTP/1.1\r\nHost: site\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert!(stopped.recv_timeout(LONG).unwrap());
    stream.sock.set_write_timeout(soon).unwrap();
    // While it cannot write, rustls reads.
    stream.sock.set_read_timeout(soon).unwrap();
    assert!(stops(stream));
}

#[test]
fn a_file_is_sent_over_tls() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let files = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(files.path().join("large.bin"), &bytes).unwrap();
    let mut config = tls_config(bind, &[origin.address], &[site]);
    config.frontends[0].mode = Mode::Http {
        routes: vec![Route {
            files: vec![files.path().into()],
            ..Route::to("app")
        }],
        trusted: Vec::new(),
    };
    let _proxy = Proxy::serving(&config);
    let mut client = authority.any().connect(bind, "site.test").unwrap();
    assert!(get(&mut client, "/large.bin").unwrap() == (200, bytes));
    assert_eq!(get(&mut client, "/a").unwrap().0, 200);
}

#[test]
fn both_sides_talk_on_after_an_upgrade() {
    let origin = Origin::with(|connection| {
        connection.head().unwrap();
        connection.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        let all = connection.client.rest();
        connection.client.stream.write_all(&all).unwrap();
    });
    let (authority, bind) = (Authority::new(), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    let mut client = authority.any().connect(bind, "site.test").unwrap();
    let stream = client.get_mut();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: site\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    )
    .unwrap();
    let bytes = vec![7; 200_000];
    stream.write_all(&bytes).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    assert_eq!(response(&mut client).unwrap().0, 101);
    let mut back = Vec::new();
    // It ends with an end of TLS: anything else would be an error here.
    client.read_to_end(&mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn an_end_that_came_with_text_is_passed_on() {
    let origin = Origin::with(|connection| {
        let all = connection.client.rest();
        connection.client.stream.write_all(&all).unwrap();
    });
    let (authority, bind) = (Authority::new(), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    config.frontends[0].mode = tcp_frontend(bind, "app", Default::default()).mode;
    let _proxy = Proxy::serving(&config);
    let name = ServerName::try_from("site.test").unwrap();
    let mut client = ClientConnection::new(authority.any().0, name).unwrap();
    let mut tcp = TcpStream::connect(bind).unwrap();
    tcp.set_read_timeout(Some(LONG)).unwrap();
    while client.is_handshaking() {
        while client.wants_write() {
            client.write_tls(&mut tcp).unwrap();
        }
        client.read_tls(&mut tcp).unwrap();
        client.process_new_packets().unwrap();
    }
    // All in one piece with the end of the handshake, and the connection stays open.
    client.writer().write_all(b"all").unwrap();
    client.send_close_notify();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    tcp.write_all(&bytes).unwrap();
    let mut back = String::new();
    let mut stream = StreamOwned::new(client, tcp);
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "all");
}

#[test]
fn a_client_that_leaves_before_an_answer_gets_close_notify() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    let wants = authority.any();
    for said in [
        "",
        "GET / HT",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello",
    ] {
        for asked_before in [false, true] {
            let mut client = wants.connect(bind, "site.test").unwrap();
            if asked_before {
                get(&mut client, "/").unwrap();
            }
            let stream = client.get_mut();
            stream.write_all(said.as_bytes()).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            // Anything but an end of TLS would be an error.
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"", "{said}");
        }
    }
}

#[test]
fn a_client_of_unknown_protocols_gets_an_alert() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let tls = config.frontends[0].binds[0].tls.as_mut().unwrap();
    tls.alpn = vec!["http/1.1".into()];
    let _proxy = Proxy::serving(&config);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut wants = authority.client(None, &[version]);
        Arc::make_mut(&mut wants.0).alpn_protocols = vec![b"spdy/1".to_vec()];
        let error = wants.connect(bind, "site.test").unwrap_err().to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
}

#[test]
fn an_answer_without_a_length_ends_as_its_server_ended_it() {
    let origin = Origin::with(|connection| {
        connection.request().unwrap();
        connection.say("HTTP/1.1 200 OK\r\n\r\nall of it");
    });
    let (authority, bind) = (Authority::new(), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    let mut client = authority.any().connect(bind, "site.test").unwrap();
    assert_eq!(get(&mut client, "/").unwrap().0, 200);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "all of it");
}

/// How the handshake went, after one request, with which a client learns its tickets.
fn kind(wants: &Wants, address: SocketAddr) -> HandshakeKind {
    let mut client = wants.connect(address, "site.test").unwrap();
    assert_eq!(get(&mut client, "/").unwrap().0, 200);
    client.get_ref().conn.handshake_kind().unwrap()
}

#[test]
fn clients_are_asked_for_certificates() {
    let (trusted, foreign) = (Authority::new(), Authority::new());
    let (origin, bind) = (Origin::start("s1"), free_address());
    let site = trusted.issue("site.pem", &["site.test"]);
    let good = trusted.issue("good.pem", &["client.test"]);
    let bad = foreign.issue("bad.pem", &["client.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let demand = |config: &mut ProxyConfig, required| {
        config.frontends[0].binds[0].tls.as_mut().unwrap().client = Some(ClientCertificates {
            ca: trusted.file("ca"),
            pem: None,
            required,
        });
    };
    let asked = |own: Option<&Path>| {
        let wants = trusted.client(own, rustls::ALL_VERSIONS);
        let mut client = wants.connect(bind, "site.test")?;
        get(&mut client, "/").map(|(status, _)| status)
    };
    demand(&mut config, true);
    let proxy = Proxy::serving(&config);
    assert_eq!(asked(Some(&good)).unwrap(), 200);
    assert!(asked(Some(&bad)).is_err());
    assert!(asked(None).is_err());
    demand(&mut config, false);
    config.revision.0 += 1;
    proxy.configure(&config);
    assert_eq!(asked(Some(&good)).unwrap(), 200);
    assert!(asked(Some(&bad)).is_err());
    let wants = trusted.any();
    assert_eq!(kind(&wants, bind), HandshakeKind::Full);
    assert_eq!(kind(&wants, bind), HandshakeKind::Resumed);
    // What was opened without a certificate is not resumed where one is demanded.
    demand(&mut config, true);
    config.revision.0 += 1;
    proxy.configure(&config);
    let mut client = wants.connect(bind, "site.test");
    assert!(
        client
            .as_mut()
            .is_ok_and(|client| get(client, "/").is_err())
            || client.is_err()
    );
    // A client notices its failure before it is counted.
    let failed = "gaiola_tls_handshakes_total{result=\"failed\"} 4\n";
    eventually("all four have failed", || {
        proxy.admin("/metrics").text().contains(failed)
    });
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let tls = config.frontends[0].binds[0].tls.as_mut().unwrap();
    tls.min_version = TlsVersion::Tls13;
    let _proxy = Proxy::serving(&config);
    let old = authority.client(None, &[&rustls::version::TLS12]);
    assert!(old.connect(bind, "site.test").is_err());
    assert!(authority.any().connect(bind, "site.test").is_ok());
}

#[test]
fn a_connection_that_does_not_speak_tls_is_closed() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    config.frontends[0].timeouts.request_head = std::time::Duration::from_millis(200);
    let proxy = Proxy::serving(&config);
    let mut plain = Client::connect(bind);
    plain.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n");
    assert!(!plain.rest().starts_with(b"HTTP/"));
    assert_eq!(Client::connect(bind).rest(), b"");
    let failed = "gaiola_tls_handshakes_total{result=\"failed\"} 2\n";
    eventually("both have failed", || {
        proxy.admin("/metrics").text().contains(failed)
    });
}

#[test]
fn keys_may_be_changed_within_a_connection() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let _proxy = Proxy::serving(&tls_config(bind, &[origin.address], &[site]));
    let wants = authority.client(None, &[&rustls::version::TLS13]);
    let mut client = wants.connect(bind, "site.test").unwrap();
    for _ in 0..3 {
        client.get_mut().conn.refresh_traffic_keys().unwrap();
        assert_eq!(get(&mut client, "/").unwrap().0, 200);
    }
}
