//! TLS settings for servers, read from files and checked before they take effect.

use super::error::{TlsError, TlsFileError};
use super::{pem, starttls};
use crate::io::{Side, Stream, TlsStream};
use gaiola_model::proxy::{Address, Backend, CheckKind, ProxyConfig, Server, ServerTls, StartTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the CAs that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Sessions per server that are kept for resumption.
const SESSIONS: usize = 64;

/// TLS settings for one server. Sessions are resumed, which spares both sides most of a handshake.
#[derive(Clone)]
pub(crate) struct ServerSettings {
    config: Arc<ClientConfig>,
    /// Sent as SNI, and verified unless another name is configured.
    name: ServerName<'static>,
    starttls: Option<StartTls>,
    server_first: bool,
}

impl ServerSettings {
    /// Starts TLS over an established connection.
    ///
    /// # Errors
    /// Why it failed. A reset counts as a refused connection where the other side connects first: so it says that nothing is behind it.
    pub(crate) async fn encrypt(&self, mut stream: Stream) -> io::Result<Stream> {
        match self.starttls {
            Some(StartTls::Postgres) => starttls::ask_postgres(&mut stream).await?,
            None => {}
        }
        let encrypted = self.shake_hands(stream).await;
        encrypted.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionReset if self.server_first => {
                io::ErrorKind::ConnectionRefused.into()
            }
            _ => error,
        })
    }

    async fn shake_hands(&self, stream: Stream) -> io::Result<Stream> {
        let Stream::Tcp(tcp) = stream else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let side = UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let side = Side::Client(side.map_err(io::Error::other)?);
        // The future is large; a request should hold memory for it only while it runs.
        let stream = Box::pin(TlsStream::handshake(tcp, side, &[])).await?;
        Ok(Stream::Tls(stream))
    }
}

/// TLS settings for the servers of a configuration and for their checks, by backend and server.
#[derive(Default)]
pub(crate) struct Servers {
    traffic: BTreeMap<(String, String), ServerSettings>,
    checks: BTreeMap<(String, String), ServerSettings>,
}

impl Servers {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// Every mistake: the file, what is wrong with it, and what to do.
    pub(crate) fn read(config: &ProxyConfig) -> Result<Self, TlsError> {
        let (mut all, mut mistakes) = (Self::default(), Vec::new());
        // Servers that share a file share its mistake.
        let mut known = BTreeSet::new();
        let mut reading = Reading::default();
        for backend in &config.backends {
            for server in &backend.servers {
                if let Err(mistake) = all.add(backend, server, &mut reading)
                    && known.insert(mistake.to_string())
                {
                    mistakes.push(mistake);
                }
            }
        }
        TlsError::unless_any(mistakes).map(|()| all)
    }

    fn add(
        &mut self,
        backend: &Backend,
        server: &Server,
        reading: &mut Reading,
    ) -> Result<(), TlsError> {
        let key = || (backend.name.clone(), server.name.clone());
        let settings = server.tls.as_ref();
        let settings = settings.map(|tls| reading.server(tls, &server.address));
        let settings = settings.transpose()?;
        let check = match &backend.check {
            Some(check) => {
                let has_port = server.check_port.or(check.port).is_some();
                reading.check(&check.kind, has_port, server, &settings)?
            }
            None => None,
        };
        if let Some(settings) = settings {
            self.traffic.insert(key(), settings);
        }
        if let Some(check) = check {
            self.checks.insert(key(), check);
        }
        Ok(())
    }

    /// Settings for a server; `None`: no TLS.
    pub(crate) fn of(&self, backend: &str, server: &str) -> Option<ServerSettings> {
        self.traffic.get(&(backend.into(), server.into())).cloned()
    }

    /// As [`Self::of`], for its check.
    pub(crate) fn check(&self, backend: &str, server: &str) -> Option<ServerSettings> {
        self.checks.get(&(backend.into(), server.into())).cloned()
    }
}

/// Client settings that accept any server certificate: for measurements, never for anything that matters.
///
/// # Errors
/// The cryptography is unsuitable.
pub fn trusting() -> Result<Arc<ClientConfig>, TlsError> {
    let reading = Reading::default();
    let verifier = Verifier::new(None, None, &reading.provider);
    let any = std::net::IpAddr::from([127, 0, 0, 1]);
    Ok(reading.settings(verifier, None, any.into())?.config)
}

/// What servers share while their files are read.
pub(super) struct Reading {
    provider: Arc<CryptoProvider>,
    verifiers: BTreeMap<PathBuf, Arc<WebPkiServerVerifier>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            provider: super::provider(),
            verifiers: BTreeMap::new(),
        }
    }
}

impl Reading {
    fn server(&mut self, tls: &ServerTls, address: &Address) -> Result<ServerSettings, TlsError> {
        let Some(ip) = address.ip() else {
            return Err(TlsError::ServerNotTcp(address.clone()));
        };
        let names = [&tls.sni, &tls.host].map(|name| name.as_deref().map(parse).transpose());
        let [sni, host] = names;
        let (sni, host) = (sni?, host?);
        let name = sni.or(host.clone());
        let verifier = if tls.verify {
            Some(self.verifier(tls.ca.as_deref())?)
        } else {
            None
        };
        let own = tls.certificate.as_deref();
        let identity = own.map(|own| self.identity(own, tls.key.as_deref().unwrap_or(own)));
        let identity = identity.transpose()?;
        let verifier = Verifier::new(verifier, host, &self.provider);
        let settings = self.settings(verifier, identity, name.unwrap_or(ip.into()))?;
        Ok(ServerSettings {
            starttls: tls.starttls,
            server_first: tls.server_first,
            ..settings
        })
    }

    fn check(
        &mut self,
        kind: &CheckKind,
        has_port: bool,
        server: &Server,
        settings: &Option<ServerSettings>,
    ) -> Result<Option<ServerSettings>, TlsError> {
        match kind {
            CheckKind::Https { ca, cert, key, .. } => {
                let Some(ip) = server.address.ip() else {
                    return Err(TlsError::CheckNotTcp(server.address.clone()));
                };
                let verifier = Some(self.verifier(Some(ca))?);
                let identity = self.identity(cert, key)?;
                let verifier = Verifier::new(verifier, None, &self.provider);
                self.settings(verifier, Some(identity), ip.into()).map(Some)
            }
            CheckKind::Tls if settings.is_none() => {
                let any = ServerTls {
                    verify: false,
                    ..ServerTls::default()
                };
                self.server(&any, &server.address).map(Some)
            }
            CheckKind::Tls => Ok(settings.clone()),
            CheckKind::Tcp | CheckKind::Http { .. } | CheckKind::Postgres { .. } => {
                Ok(settings.clone().filter(|_| !has_port))
            }
        }
    }

    fn settings(
        &self,
        verifier: Verifier,
        identity: Option<CertifiedKey>,
        name: ServerName<'static>,
    ) -> Result<ServerSettings, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Cryptography)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(ServerSettings {
            config: Arc::new(config),
            name,
            starttls: None,
            server_first: false,
        })
    }

    /// Reads the proxy's own certificate and its key.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub(super) fn identity(
        &self,
        certificate: &Path,
        key: &Path,
    ) -> Result<CertifiedKey, TlsError> {
        let chain = pem::certificates(certificate)?;
        pem::certified(certificate, chain, pem::needed_key(key)?, &self.provider)
    }

    /// A verifier for certificates issued by the CAs of a file, or by the system's.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub(super) fn verifier(
        &mut self,
        ca: Option<&Path>,
    ) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let path = ca.map_or_else(system_roots, |ca| Ok(ca.into()))?;
        if let Some(known) = self.verifiers.get(&path) {
            return Ok(Arc::clone(known));
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(pem::certificates(&path)?);
        if added == 0 || ignored > 0 && ca.is_some() {
            return Err(pem::unusable(&path, TlsFileError::NoCa));
        }
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier =
            verifier.map_err(|error| pem::unusable(&path, TlsFileError::Verifier(error)))?;
        self.verifiers.insert(path, Arc::clone(&verifier));
        Ok(verifier)
    }
}

fn parse(name: &str) -> Result<ServerName<'static>, TlsError> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|_| TlsError::Name(name.to_owned()))
}

fn system_roots() -> Result<PathBuf, TlsError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || SYSTEM_ROOTS.iter().map(PathBuf::from);
    named
        .or_else(|| usual().find(|path| path.is_file()))
        .ok_or(TlsError::NoSystemRoots)
}

/// Verifies a server's certificate, unless verification is off.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// The name it must be for, if not the one sent as SNI.
    host: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        inner: Option<Arc<WebPkiServerVerifier>>,
        host: Option<ServerName<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        Self {
            inner,
            host,
            provider: Arc::clone(provider),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.host.as_ref().unwrap_or(name);
        match &self.inner {
            Some(inner) => inner.verify_server_cert(certificate, chain, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
