//! The site's own certificate authority, and mutual TLS with it alone.
//!
//! Every server has one directory with `ca.pem`, `cert.pem` and `key.pem`; etcd, Patroni, libpq and our own processes
//! all read these three files. One certificate is both the server and the client certificate.

mod certificate;
mod files;

use certificate::{Names, authority_params, is_authority};
use files::{make_directory, read, write};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File name of the authority's certificate, in the authority's directory and in each server's.
pub const CA: &str = "ca.pem";
/// File name of a server's certificate.
pub const CERT: &str = "cert.pem";
/// File name of a server's key.
pub const KEY: &str = "key.pem";
/// File name of the authority's key; no server has it.
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
    /// The authority's certificate was not made by Gaiola, or is not of the key beside it.
    #[error("{} is not the certificate of a site's authority with its key: restore both, or remove both to create another authority", cert.display())]
    Foreign {
        /// The certificate.
        cert: PathBuf,
    },
    /// A key or certificate could not be generated or parsed.
    #[error("cannot create or read the certificate of {name}")]
    Certificate {
        /// The name of its owner.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A PEM file does not contain the expected item.
    #[error("{} is not a PEM file with the certificate or key that it should have", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
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

/// What [`Authority::issue`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// New files were written, owned by the calling user.
    Anew,
    /// The existing files are good and were kept.
    Kept,
}

/// The site's certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// The authority in `dir`, a directory that is made with mode 0700 where it is missing.
    pub fn create_or_load(dir: &Path) -> Result<Self, PkiError> {
        let (cert, key) = (dir.join(CA), dir.join(CA_KEY));
        match (cert.exists(), key.exists()) {
            (true, true) => Self::load(&cert, &key),
            (true, false) => Err(PkiError::KeyLost { cert, key }),
            // The certificate is written last: a key alone is left over from a crash.
            (false, _) => Self::create(dir),
        }
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` (mode 0600) of the server `name` into `dir`.
    ///
    /// The certificate is for `addresses` and 127.0.0.1, with `name` as its common name. It has no DNS name: nothing here uses
    /// one, and Patroni's HTTP library would need another module to read it. Files that are complete, from this authority, for
    /// these names, and not about to expire are left alone, so this may be called at every start.
    pub fn issue(&self, name: &str, addresses: &[IpAddr], dir: &Path) -> Result<Issued, PkiError> {
        let wanted = Names::new(name, addresses);
        if self.is_good(&wanted, dir) {
            return Ok(Issued::Kept);
        }
        let failed = |source| PkiError::Certificate {
            name: name.into(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let params = wanted.params().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;

        make_directory(dir)?;
        write(&dir.join(CA), self.certificate.as_bytes(), 0o644)?;
        write(&dir.join(KEY), key.serialize_pem().as_bytes(), 0o600)?;
        write(&dir.join(CERT), cert.pem().as_bytes(), 0o644)?;
        Ok(Issued::Anew)
    }

    fn load(cert: &Path, key: &Path) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Certificate {
            name: cert.display().to_string(),
            source,
        };
        let certificate = read(cert)?;
        let key = KeyPair::from_pem(&read(key)?).map_err(failed)?;
        match certificates(cert)?.first() {
            Some(der) if is_authority(der, &key) => Ok(Self {
                issuer: Issuer::new(authority_params(), key),
                certificate,
            }),
            Some(_) | None => Err(PkiError::Foreign { cert: cert.into() }),
        }
    }

    fn create(dir: &Path) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Certificate {
            name: dir.display().to_string(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let params = authority_params();
        let certificate = params.self_signed(&key).map_err(failed)?.pem();

        make_directory(dir)?;
        write(&dir.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
        write(&dir.join(CA), certificate.as_bytes(), 0o644)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// Whether the files in `dir` are from this authority, match each other, and will be valid for a while.
    fn is_good(&self, wanted: &Names, dir: &Path) -> bool {
        read(&dir.join(CA)).is_ok_and(|ca| ca == self.certificate)
            && client_config(dir).is_ok()
            && certificates(&dir.join(CERT))
                .ok()
                .and_then(|chain| Names::of_lasting(chain.first()?))
                .is_some_and(|names| names == *wanted)
    }
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
    CertificateDer::pem_slice_iter(read(path)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| PkiError::Pem {
            path: path.into(),
            source,
        })
}

fn private_key(dir: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let path = dir.join(KEY);
    PrivateKeyDer::from_pem_slice(read(&path)?.as_bytes())
        .map_err(|source| PkiError::Pem { path, source })
}

#[cfg(test)]
mod tests {
    use super::certificate::valid_for;
    use super::*;
    use std::fs;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 4, 1));

    fn cert(dir: &Path) -> String {
        fs::read_to_string(dir.join(CERT)).unwrap()
    }

    #[test]
    fn an_authority_outlives_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::create_or_load(dir.path()).unwrap();
        let again = Authority::create_or_load(dir.path()).unwrap();
        assert_eq!(first.certificate, again.certificate);

        let server = dir.path().join("db1");
        assert_eq!(
            first.issue("db1", &[ADDRESS], &server).unwrap(),
            Issued::Anew
        );
        assert_eq!(
            again.issue("db1", &[ADDRESS], &server).unwrap(),
            Issued::Kept
        );
    }

    #[test]
    fn a_lost_authority_key_is_named_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create_or_load(dir.path()).unwrap();
        let before = fs::read(dir.path().join(CA)).unwrap();
        fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        let error = Authority::create_or_load(dir.path()).unwrap_err();
        assert!(matches!(error, PkiError::KeyLost { .. }), "{error}");
        assert_eq!(fs::read(dir.path().join(CA)).unwrap(), before);
    }

    #[test]
    fn a_certificate_of_another_key_or_subject_is_no_authority() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        Authority::create_or_load(&one).unwrap();
        Authority::create_or_load(&other).unwrap();
        let foreign = |dir| {
            let error = Authority::create_or_load(dir).unwrap_err();
            matches!(error, PkiError::Foreign { .. })
        };
        fs::copy(one.join(CA_KEY), other.join(CA_KEY)).unwrap();
        assert!(foreign(&other));

        let key = KeyPair::from_pem(&fs::read_to_string(one.join(CA_KEY)).unwrap()).unwrap();
        let mut params = authority_params();
        params.distinguished_name = super::certificate::common_name("another");
        let another = params.self_signed(&key).unwrap().pem();
        fs::write(one.join(CA), another).unwrap();
        assert!(foreign(&one));
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(dir.path()).unwrap();
        authority.issue("db1", &[ADDRESS], dir.path()).unwrap();
        for key in [CA_KEY, KEY] {
            let mode = fs::metadata(dir.path().join(key))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn changed_addresses_a_torn_file_and_another_authority_bring_a_new_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(&dir.path().join("ca")).unwrap();
        let server = dir.path().join("db1");
        authority.issue("db1", &[ADDRESS], &server).unwrap();
        let first = cert(&server);

        let more = [ADDRESS, "fd00::1".parse().unwrap()];
        assert_eq!(
            authority.issue("db1", &more, &server).unwrap(),
            Issued::Anew
        );
        assert_eq!(
            authority.issue("db1", &more, &server).unwrap(),
            Issued::Kept
        );
        assert_ne!(cert(&server), first);

        fs::write(server.join(KEY), "").unwrap();
        assert_eq!(
            authority.issue("db1", &more, &server).unwrap(),
            Issued::Anew
        );

        let other = Authority::create_or_load(&dir.path().join("other")).unwrap();
        assert_eq!(other.issue("db1", &more, &server).unwrap(), Issued::Anew);
    }

    #[test]
    fn a_certificate_near_its_end_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(dir.path()).unwrap();
        let names = Names::new("db1", &[ADDRESS]);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = names.params().unwrap();
        valid_for(&mut params, 1);
        params.not_after = params.not_before + std::time::Duration::from_secs(30 * 24 * 3600);
        let ending = params.signed_by(&key, &authority.issuer).unwrap();
        assert_eq!(Names::of_lasting(ending.der()), None);
        let lasting = names.params().unwrap().signed_by(&key, &authority.issuer);
        assert_eq!(Names::of_lasting(lasting.unwrap().der()), Some(names));
    }
}
