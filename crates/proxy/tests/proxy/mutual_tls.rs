//! Checks over mutual TLS, as Patroni's REST API is asked.

use super::harness::*;
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::{Check, CheckKind, ControlReply, ControlRequest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A CA and one certificate of it for 127.0.0.1, as files and as a server's settings.
fn certificates(directory: &Path) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("cert.pem", cert.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

/// Answers checks as Patroni does: 200 while it has the role, 503 else.
fn patroni(settings: Arc<ServerConfig>, is_primary: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&settings)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut request = [0; 1024];
            // A client without a certificate fails here.
            let Ok(len @ 1..) = stream.read(&mut request) else {
                continue;
            };
            assert!(request[..len].starts_with(b"GET /primary HTTP/1.1\r\n"));
            let status = if is_primary.load(Ordering::SeqCst) {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let _ = stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n{{}}").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

fn config_with_check(bind: SocketAddr, server: SocketAddr, port: u16, pki: &Path) -> ProxyConfig {
    let mut config = config(bind, &[server]);
    let kind = CheckKind::Https {
        path: "/primary".into(),
        ca: pki.join("ca.pem"),
        cert: pki.join("cert.pem"),
        key: pki.join("key.pem"),
    };
    config.backends[0].check = Some(Check {
        port: Some(port),
        ..patient_check(kind)
    });
    config
}

#[test]
fn the_role_is_learned_over_mutual_tls() {
    let pki = tempfile::tempdir().unwrap();
    let is_primary = Arc::new(AtomicBool::new(true));
    let check = patroni(certificates(pki.path()), Arc::clone(&is_primary));
    let (origin, bind) = (Origin::start("s1"), free_address());
    let config = config_with_check(bind, origin.address, check.port(), pki.path());
    let proxy = Proxy::serving(&config);
    eventually("it is up", || Client::connect(bind).get("/").status == 200);
    assert!(proxy.report().servers[0].reason.starts_with("HTTP 200"));
    is_primary.store(false, Ordering::SeqCst);
    eventually("it is down", || !proxy.report().servers[0].up);
    assert!(proxy.report().servers[0].reason.starts_with("HTTP 503"));
}

#[test]
fn a_stranger_is_not_believed() {
    let (trusted, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(trusted.path());
    let check = patroni(
        certificates(foreign.path()),
        Arc::new(AtomicBool::new(true)),
    );
    let (origin, bind) = (Origin::start("s1"), free_address());
    let config = config_with_check(bind, origin.address, check.port(), trusted.path());
    let proxy = Proxy::serving(&config);
    eventually("it was asked", || {
        proxy.report().servers[0].reason != "not checked yet"
    });
    let server = &proxy.report().servers[0];
    assert!(
        !server.up && server.reason.contains("certificate"),
        "{server:?}"
    );
}

#[test]
fn missing_certificates_refuse_the_configuration() {
    let pki = tempfile::tempdir().unwrap();
    let config = config_with_check(free_address(), free_address(), 1, pki.path());
    let proxy = Proxy::start();
    let reply = proxy.ask(&ControlRequest::Configure(Box::new(config)));
    let ControlReply::Refused(reason) = reply else {
        panic!("{reply:?}");
    };
    assert!(reason.contains("ca.pem"), "{reason}");
}
