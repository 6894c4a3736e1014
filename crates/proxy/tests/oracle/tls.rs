//! TLS of clients and servers, and the certificates that they and the proxies have.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// What a client offers.
#[derive(Clone, Copy)]
pub(crate) struct Hello {
    /// The name that it asks for.
    pub(crate) name: Option<&'static str>,
    /// The protocols that it would speak (ALPN).
    pub(crate) protocols: &'static [&'static str],
    /// The certificate that it shows when it is asked, by the file's name.
    pub(crate) certificate: Option<&'static str>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

impl Hello {
    /// Asks for a name that the first certificate is for.
    pub(crate) const fn plain() -> Self {
        Self {
            name: Some("site.test"),
            protocols: &[],
            certificate: None,
            versions: rustls::ALL_VERSIONS,
        }
    }
}

/// A certificate in `NAME.pem`, and what it is for.
struct Certificate {
    name: &'static str,
    pem: String,
}

/// The certificates, which both proxies find in their directory.
static CERTIFICATES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let (trusted, foreign) = (Authority::new("trusted"), Authority::new("foreign"));
    vec![
        Certificate {
            name: "ca",
            pem: trusted.pem.clone(),
        },
        trusted.issue("site", &["site.test"], 4096),
        trusted.issue("other", &["other.test", "*.wild.test"], 4096),
        trusted.issue("server", &["server.test"], 4096),
        trusted.issue("expired", &["server.test"], 2000),
        trusted.issue("client", &["client.test"], 4096),
        foreign.issue("foreign", &["server.test"], 4096),
    ]
});

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self, name: &'static str, hosts: &[&str], until: i32) -> Certificate {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.into()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            name,
            pem: signed.pem() + &key.serialize_pem(),
        }
    }
}

/// Writes all certificates, each as `NAME.pem`.
pub(crate) fn write_certificates(directory: &Path) {
    for Certificate { name, pem } in &*CERTIFICATES {
        std::fs::write(directory.join(format!("{name}.pem")), pem).unwrap();
    }
}

/// What was agreed upon, as far as one side sees it.
pub(crate) fn described(connection: &Connection) -> String {
    let version = connection.protocol_version();
    let mut text = format!("{:?}", version.expect("the handshake is over"));
    if let Connection::Server(server) = connection {
        let name = server.server_name().unwrap_or("nobody");
        text.push_str(&format!(", for {name}"));
    }
    if let Some(name) = shown(connection) {
        text.push_str(&format!(", certificate {name}"));
    }
    if let Some(protocol) = connection.alpn_protocol() {
        text.push_str(&format!(", protocol {}", protocol.escape_ascii()));
    }
    text
}

/// The name of the certificate that the other side has shown.
fn shown(connection: &Connection) -> Option<&'static str> {
    let leaf = connection.peer_certificates()?.first()?;
    let all = &mut CERTIFICATES.iter().filter(|it| it.name != "ca");
    all.find(|it| der(it.name).0[0] == *leaf).map(|it| it.name)
}

fn der(name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pem = pem(name);
    let certificate = CertificateDer::from_pem_slice(pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    (vec![certificate], key)
}

fn pem(name: &str) -> &'static [u8] {
    let all = &mut CERTIFICATES.iter();
    let found = all.find(|it| it.name == name);
    found.expect("there is such a certificate").pem.as_bytes()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that takes every certificate.
pub(crate) fn client(hello: &Hello) -> Connection {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(hello.versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider())));
    let mut config = match hello.certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let (chain, key) = der(name);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = hello.protocols.iter().map(|&it| it.into()).collect();
    let name = match hello.name {
        Some(name) => ServerName::try_from(name).unwrap(),
        None => IpAddr::from([127, 0, 0, 1]).into(),
    };
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    client.set_buffer_limit(None);
    client.into()
}

/// A server with this certificate, which may ask for a client certificate.
pub(crate) fn server(certificate: &str, asks: bool) -> Connection {
    let verifier = if asks {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pem("ca")).unwrap();
        roots.add(ca).unwrap();
        let roots = Arc::new(roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        builder.build().unwrap()
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let (chain, key) = der(certificate);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    server.set_buffer_limit(None);
    server.into()
}

/// Takes every certificate: which one it was is written down.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
