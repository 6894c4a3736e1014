//! TLS settings of each bind and each server, read from files and checked before they take effect.

mod beside;
mod certificates;
mod error;
mod files;
mod pem;
mod servers;
mod staple;
mod starttls;
mod tickets;
mod words;

pub use beside::all as beside;
pub use error::{TlsError, TlsFileError};
pub(super) use files::Files;
pub use servers::trusting;
pub(super) use servers::{ServerSettings, Servers};
pub use staple::BadStaple;
pub(super) use tickets::Tickets;
pub(super) use words::in_words;

use certificates::Certificates;
use gaiola_model::proxy::{Address, Bind, ClientCertificates, ProxyConfig, Tls, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tickets::FrontendTickets;

/// Settings of each bind with TLS.
#[derive(Default)]
pub(super) struct Binds(BTreeMap<Address, Arc<ServerConfig>>);

impl Binds {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// Every mistake: the file, what is wrong with it, and what to do.
    pub(super) fn read(config: &ProxyConfig, tickets: &Arc<Tickets>) -> Result<Self, TlsError> {
        let (mut all, mut mistakes) = (BTreeMap::new(), Vec::new());
        for frontend in &config.frontends {
            for bind in &frontend.binds {
                let Some(tls) = &bind.tls else { continue };
                if let Some(settings) = read(&frontend.name, bind, tls, tickets, &mut mistakes) {
                    all.insert(bind.address.clone(), Arc::new(settings));
                }
            }
        }
        TlsError::unless_any(mistakes).map(|()| Self(all))
    }

    /// Settings of this bind; `None`: no TLS.
    pub(super) fn of(&self, bind: &Address) -> Option<Arc<ServerConfig>> {
        self.0.get(bind).cloned()
    }
}

/// Settings of one bind; `None` after a mistake.
fn read(
    frontend: &str,
    bind: &Bind,
    tls: &Tls,
    tickets: &Arc<Tickets>,
    mistakes: &mut Vec<TlsError>,
) -> Option<ServerConfig> {
    if bind.address.tcp().is_none() {
        mistakes.push(TlsError::BindNotTcp(bind.address.clone()));
    }
    let before = mistakes.len();
    let provider = provider();
    let certificates =
        Certificates::read(&tls.certificates, tls.key.as_deref(), &provider, mistakes);
    if certificates.is_none() && mistakes.len() == before {
        mistakes.push(TlsError::NoBindCertificate(bind.address.clone()));
    }
    let clients = match &tls.client {
        None => Ok((WebPkiClientVerifier::no_client_auth(), Sha256::new())),
        Some(clients) => verifier_of(clients, &provider),
    };
    let clients = clients.map_err(|mistake| mistakes.push(mistake)).ok();
    let (certificates, (verifier, digest)) = (certificates?, clients?);
    certificates.warn();
    let context = digest.chain_update(frontend).finalize();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| {
            mistakes.push(TlsError::Bind {
                address: bind.address.clone(),
                error,
            })
        })
        .ok()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificates));
    config.ticketer = Arc::new(FrontendTickets::new(tickets, context.into()));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into()).collect();
    Some(config)
}

/// Reads certificates as a bind does.
///
/// # Errors
/// Every mistake: the file, what is wrong with it, and what to do.
pub fn check_certificates(paths: &[PathBuf]) -> Result<(), TlsError> {
    let mut mistakes = Vec::new();
    let found = Certificates::read(paths, None, &provider(), &mut mistakes);
    match (found, mistakes.is_empty()) {
        (Some(_), true) => Ok(()),
        (None, true) => Err(TlsError::NoCertificate),
        (_, false) => Err(TlsError::Several(mistakes)),
    }
}

/// The cryptography provider.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match oldest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}

/// The verifier of client certificates, and a digest of its requirements: a session established under other
/// requirements is not resumed under these.
fn verifier_of(
    ClientCertificates { ca, pem, required }: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Sha256), TlsError> {
    let mut digest = Sha256::new_with_prefix([u8::from(*required), 1]);
    let roots = roots(ca, pem.as_deref(), &mut digest)?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    let builder = if *required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let verifier = builder.build();
    let verifier = verifier.map_err(|error| pem::unusable(ca, TlsFileError::Verifier(error)))?;
    Ok((verifier, digest))
}

/// The CAs in a file, which may have been read already. They are added to the digest.
fn roots(
    path: &Path,
    contents: Option<&str>,
    digest: &mut Sha256,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = match contents {
        Some(text) => pem::certificates_in(path, text.as_bytes()),
        None => pem::certificates(path),
    };
    for root in found? {
        digest.update(&root);
        roots
            .add(root)
            .map_err(|_| pem::unusable(path, TlsFileError::NoCa))?;
    }
    Ok(roots)
}
