//! TLS with clients.

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

/// A response's status and body, whose length is told.
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

fn keys(bytes: &[u8]) -> ControlRequest {
    ControlRequest::TicketKeys(bytes.iter().map(|&byte| TicketKey([byte; 32])).collect())
}

/// How the handshake went, after one request, with which a client learns its tickets.
fn kind(wants: &Wants, address: SocketAddr) -> HandshakeKind {
    let mut client = wants.connect(address, "site.test").unwrap();
    assert_eq!(get(&mut client, "/").unwrap().0, 200);
    client.get_ref().conn.handshake_kind().unwrap()
}

#[test]
fn proxies_with_the_same_keys_resume_each_others_sessions() {
    let (authority, origin) = (Authority::new(), Origin::start("s1"));
    let site = authority.issue("site.pem", &["site.test"]);
    let binds = [free_address(), free_address()];
    let [one, other] = binds.map(|bind| {
        Proxy::serving(&tls_config(
            bind,
            &[origin.address],
            std::slice::from_ref(&site),
        ))
    });
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let wants = || authority.client(None, &[version]);
        // Each has its own keys, until they are given some.
        let client = wants();
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Full);
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Resumed);
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Full);
        for proxy in [&one, &other] {
            assert_eq!(proxy.ask(&keys(&[1])), ControlReply::TicketKeys(1));
        }
        let client = wants();
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Full);
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Resumed);
        // A new key seals, the old one still opens.
        one.ask(&keys(&[2, 1]));
        assert_eq!(kind(&client, binds[0]), HandshakeKind::Resumed);
        other.ask(&keys(&[3]));
        assert_eq!(kind(&client, binds[1]), HandshakeKind::Full);
        for proxy in [&one, &other] {
            let byte = if std::ptr::eq(proxy, &one) { 4 } else { 5 };
            proxy.ask(&keys(&[byte]));
        }
    }
    assert!(matches!(one.ask(&keys(&[])), ControlReply::Refused(_)));
}

#[test]
fn clients_are_asked_for_certificates() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (origin, bind) = (Origin::start("s1"), free_address());
    let site = ours.issue("site.pem", &["site.test"]);
    let good = ours.issue("good.pem", &["client.test"]);
    let bad = theirs.issue("bad.pem", &["client.test"]);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let demand = |config: &mut ProxyConfig, required| {
        config.frontends[0].binds[0].tls.as_mut().unwrap().client = Some(ClientCertificates {
            ca: ours.file("ca"),
            required,
        });
    };
    let asked = |own: Option<&Path>| {
        let wants = ours.client(own, rustls::ALL_VERSIONS);
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
    let wants = ours.any();
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
    // A client hears of its failure before it is counted.
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
fn every_mistake_in_certificate_files_is_reported() {
    let (authority, bind) = (Authority::new(), free_address());
    let good = authority.issue("good.pem", &["site.test"]);
    let other = authority.issue("other.pem", &["site.test"]);
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    let (cert, key) = (read(&good), read(&other));
    let (cert, key) = (
        cert.split_once("-----BEGIN PRIVATE").unwrap().0,
        key.split_once("-----END CERTIFICATE-----").unwrap().1,
    );
    let write = |name: &str, text: &str| {
        let file = authority.file(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = [
        authority.file("missing.pem"),
        write("text.pem", "hello"),
        write("keyless.pem", cert),
        write("mixed.pem", &format!("{cert}{key}")),
        good.clone(),
    ];
    write("good.pem.ocsp", "not DER");
    let mut config = tls_config(bind, &[], &files);
    let proxy = Proxy::start();
    let reason = refused(&proxy, &config);
    for part in [
        "missing.pem cannot be used: there is no such file",
        "text.pem cannot be used: there is no certificate",
        "keyless.pem.key",
        "mixed.pem cannot be used: the key is not the certificate's",
        "good.pem.ocsp cannot be used",
    ] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    // The key may stand beside its certificate.
    write(
        "keyless.pem.key",
        read(&good)
            .split_once("-----END CERTIFICATE-----")
            .unwrap()
            .1,
    );
    let tls = config.frontends[0].binds[0].tls.as_mut().unwrap();
    tls.certificates = vec![files[2].clone()];
    proxy.configure(&config);
    assert!(authority.any().connect(bind, "site.test").is_ok());
}

#[test]
fn new_certificates_are_for_new_connections() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let file = authority.issue("site.pem", &["site.test"]);
    let old = leaf_of(&file);
    let mut config = tls_config(bind, &[origin.address], std::slice::from_ref(&file));
    let proxy = Proxy::serving(&config);
    let wants = authority.any();
    let mut first = wants.connect(bind, "site.test").unwrap();
    assert_eq!(get(&mut first, "/").unwrap().0, 200);
    authority.issue("site.pem", &["site.test"]);
    config.revision.0 += 1;
    proxy.configure(&config);
    assert_eq!(get(&mut first, "/").unwrap().0, 200);
    let second = authority.any().connect(bind, "site.test").unwrap();
    assert!(leaf(&second) == leaf_of(&file) && leaf(&second) != old);
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

/// A value in DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = u8::try_from(content.len()).unwrap();
    let head = if len < 128 {
        vec![tag, len]
    } else {
        vec![tag, 0x81, len]
    };
    [head, content].concat()
}

/// An OCSP response that says that the certificate with this serial number is good (RFC 6960, section 4.2.1). Nobody
/// checks its signature here.
fn good(serial: &[u8], until: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let time = |text| der(0x18, &[text]);
    let sha256 = der(SEQUENCE, &[b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01"]);
    let (hash, serial) = (der(0x04, &[&[7; 32]]), der(0x02, &[serial]));
    let id = der(SEQUENCE, &[&sha256, &hash, &hash, &serial]);
    let next = der(0xa0, &[&time(until)]);
    let single = der(
        SEQUENCE,
        &[&id, b"\x80\x00", &time(b"20260101000000Z"), &next],
    );
    let responder = der(0xa2, &[&der(0x04, &[&[7; 20]])]);
    let all = der(SEQUENCE, &[&single]);
    let data = der(SEQUENCE, &[&responder, &time(b"20260101000000Z"), &all]);
    let basic = der(SEQUENCE, &[&data, &sha256, b"\x03\x02\x00\x00"]);
    let kind = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01";
    let bytes = der(SEQUENCE, &[kind, &der(0x04, &[&basic])]);
    der(SEQUENCE, &[b"\x0a\x01\x00", &der(0xa0, &[&bytes])])
}

/// The serial number of a certificate.
fn serial(certificate: &[u8]) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.raw_serial().to_vec()
}

#[test]
fn an_ocsp_response_beside_the_certificate_is_stapled_while_it_holds() {
    let (authority, origin, bind) = (Authority::new(), Origin::start("s1"), free_address());
    let site = authority.issue("site.pem", &["site.test"]);
    let serial = serial(&leaf_of(&site));
    let staple = |response: &[u8]| {
        std::fs::write(authority.file("site.pem.ocsp"), response).unwrap();
    };
    let (holds, held) = (
        good(&serial, b"20991231235959Z"),
        good(&serial, b"20260102000000Z"),
    );
    staple(&holds);
    let mut config = tls_config(bind, &[origin.address], &[site]);
    let proxy = Proxy::serving(&config);
    assert_eq!(stapled(bind), holds);
    config.revision.0 += 1;
    staple(&held);
    proxy.configure(&config);
    assert_eq!(stapled(bind), b"");
    for (response, why) in [
        (
            good(b"\x01\x02", b"20991231235959Z"),
            "it is of another certificate",
        ),
        (
            b"\x30\x03\x0a\x01\x06".to_vec(),
            "an error of the authority: Unauthorized",
        ),
        (b"not DER".to_vec(), "it is no OCSP response in DER"),
    ] {
        config.revision.0 += 1;
        staple(&response);
        match proxy.ask(&ControlRequest::Configure(Box::new(config.clone()))) {
            ControlReply::Refused(reason) => {
                assert!(
                    reason.contains("site.pem.ocsp cannot be used: "),
                    "{reason}"
                );
                assert!(reason.contains(why), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What is stapled to the certificate that a client gets.
fn stapled(bind: SocketAddr) -> Vec<u8> {
    #[derive(Debug)]
    struct Seen(std::sync::Mutex<Vec<u8>>, rustls::crypto::CryptoProvider);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Seen {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            ocsp: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            *self.0.lock().unwrap() = ocsp.to_vec();
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.1.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let seen = Arc::new(Seen(Default::default(), provider.clone()));
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let mut client = Wants(config.into()).connect(bind, "site.test").unwrap();
    assert_eq!(get(&mut client, "/").unwrap().0, 200);
    let seen = seen.0.lock().unwrap();
    seen.clone()
}

/// A TCP frontend on `bind` that leads to one of two sites with TLS, `one.test` and all below `two.test`; what asks for
/// another one goes to a server that says hello.
fn by_name(authority: &Authority, bind: SocketAddr) -> (ProxyConfig, [PathBuf; 2]) {
    let sites = [free_address(), free_address()];
    let files = [
        authority.issue("one.pem", &["one.test"]),
        authority.issue("two.pem", &["*.two.test"]),
    ];
    let hello = Origin::with(|connection| {
        connection.say("hello");
    });
    let app = Origin::start("s1");
    let mut config = config(bind, &[app.address]);
    let mut front = tcp_frontend(bind, "hello", Default::default());
    let Mode::Tcp { sni, .. } = &mut front.mode else {
        unreachable!("it was just made");
    };
    for (index, (name, site)) in ["one.test", "*.two.test"]
        .into_iter()
        .zip(sites)
        .enumerate()
    {
        let backend_name = format!("site{index}");
        sni.push(SniRoute {
            names: vec![name.into()],
            backend: backend_name.clone(),
        });
        let mut frontend = http_frontend(site, "app");
        frontend.name = backend_name.clone();
        frontend.binds[0].tls = Some(Tls::new(vec![files[index].clone()]));
        config.frontends.push(frontend);
        config
            .backends
            .push(backend(&backend_name, vec![server("s1", site)]));
    }
    config.frontends[0] = Frontend {
        name: "front".into(),
        ..front
    };
    config
        .backends
        .push(backend("hello", vec![server("s1", hello.address)]));
    (config, files)
}

#[test]
fn a_connection_goes_where_the_name_that_it_asks_for_leads() {
    let (authority, bind) = (Authority::new(), free_address());
    let (config, files) = by_name(&authority, bind);
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    for (name, file) in [("one.test", &files[0]), ("www.two.test", &files[1])] {
        let mut client = wants.connect(bind, name).unwrap();
        assert!(leaf(&client) == leaf_of(file), "{name}");
        assert_eq!(get(&mut client, "/").unwrap().0, 200);
    }
    assert!(wants.connect(bind, "three.test").is_err());
    let mut plain = Client::connect(bind);
    plain.send("no TLS");
    assert_eq!(plain.exactly(5), b"hello");
}

#[test]
fn the_name_decides_as_well_where_tls_ends_here() {
    let (authority, bind) = (Authority::new(), free_address());
    let (mut config, _) = by_name(&authority, bind);
    let own = authority.issue("own.pem", &["one.test", "three.test"]);
    config.frontends[0].binds[0].tls = Some(Tls::new(vec![own]));
    let inner = Origin::with(|connection| {
        connection.say("one");
    });
    config.backends[1].servers[0].address = inner.address.into();
    let _proxy = Proxy::serving(&config);
    let wants = authority.any();
    for (name, answer) in [("one.test", "one"), ("three.test", "hello")] {
        let mut client = wants.connect(bind, name).unwrap();
        let mut said = vec![0; answer.len()];
        client.read_exact(&mut said).unwrap();
        assert_eq!(said, answer.as_bytes(), "{name}");
    }
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for_long() {
    let (authority, bind) = (Authority::new(), free_address());
    let (mut config, _) = by_name(&authority, bind);
    config.frontends[0].timeouts.request_head = std::time::Duration::from_millis(200);
    let _proxy = Proxy::serving(&config);
    assert_eq!(Client::connect(bind).rest(), b"");
    let mut endless = Client::connect(bind);
    // A record that is never whole; what came of it is passed on to nobody.
    endless
        .stream
        .write_all(b"\x16\x03\x01\x3f\xff\x01")
        .unwrap();
    assert_eq!(endless.rest(), b"");
}
