//! The site's own certificate authority, and mutual TLS with it alone.
//!
//! Every server has one directory with `ca.pem`, `cert.pem` and `key.pem`; etcd, Patroni, libpq and our own processes
//! all read these three files. One certificate is both the server and the client certificate. A server makes its key itself
//! ([`Subject`]) and nobody else reads it: the [`Authority`] signs a request, which names the server and has been signed by
//! that key.

mod authority;
mod certificate;
mod files;
mod subject;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Issued};
pub use certificate::RequestError;
pub use subject::Subject;

use files::read;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File name of the authority's certificate, in the authority's directory and in each server's.
pub const CA: &str = "ca.pem";
/// File name of a server's certificate.
pub const CERT: &str = "cert.pem";
/// File name of a server's key.
pub const KEY: &str = "key.pem";
/// File name of the authority's key; no server has it, nor any machine without a member of the store.
const CA_KEY: &str = "ca-key.pem";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The authority's certificate exists without its key, so no certificate that servers trust can be issued.
    #[error("{} exists, but its key {} does not: restore the key, or remove the certificate to create another authority", cert.display(), key.display())]
    KeyLost {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A key or certificate could not be generated or parsed.
    #[error("cannot create or read the certificate of {name}")]
    Certificate {
        /// The name of its owner.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A request is not one that the authority signs.
    #[error("the request for a certificate of {name} is rejected")]
    Request {
        /// The server that it must be for.
        name: String,
        /// Why.
        source: RequestError,
    },
    /// A certificate that was issued is not the requested one.
    #[error(
        "the certificate that was issued to {name} is not from its authority, or not for its key and addresses"
    )]
    NotRequested {
        /// The name of its owner.
        name: String,
    },
    /// A PEM file does not contain the expected item.
    #[error("{} is not a PEM file with the certificate or key that it should have", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The files of a directory are no valid TLS configuration.
    #[error("cannot use the certificates in {}", dir.display())]
    Tls {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// TLS of a client that presents the certificate in `dir` and trusts only servers of its authority. Speaks HTTP/1.1.
pub fn client_config(dir: &Path) -> Result<Arc<ClientConfig>, PkiError> {
    let failed = |source| PkiError::Tls {
        dir: dir.into(),
        source,
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(dir)?)
        .with_client_auth_cert(certificates(&dir.join(CERT))?, private_key(dir)?)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of a server that presents the certificate in `dir` and rejects clients without one of its authority.
pub fn server_config(dir: &Path) -> Result<Arc<ServerConfig>, PkiError> {
    let failed = |source| PkiError::Tls {
        dir: dir.into(),
        source,
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(dir)?, provider())
        .build()
        .map_err(|error| failed(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&dir.join(CERT))?, private_key(dir)?)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The common name of a certificate that a peer has presented, which TLS has verified.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = gaiola_wire::x509::decode(certificate).ok()?;
    certificate.common_names.into_iter().next()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(dir: &Path) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&dir.join(CA))? {
        roots.add(certificate).map_err(|source| PkiError::Tls {
            dir: dir.into(),
            source,
        })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    parse(&read(path)?).map_err(|source| PkiError::Pem {
        path: path.into(),
        source,
    })
}

fn parse(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

fn private_key(dir: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let path = dir.join(KEY);
    PrivateKeyDer::from_pem_slice(read(&path)?.as_bytes())
        .map_err(|source| PkiError::Pem { path, source })
}
