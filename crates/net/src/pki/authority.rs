//! The authority: its own key and certificate, and the requests that it signs.

use super::certificate::{Names, authority_params};
use super::files::{make_directory, read, write};
use super::{CA, CA_KEY, PkiError, Subject};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::net::IpAddr;
use std::path::Path;

/// Whether a certificate was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// A new one was written.
    New,
    /// The existing files are good and were kept.
    Kept,
}

/// The site's certificate authority.
#[derive(Debug)]
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
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

    /// The authority in `dir`; `None`: there is none.
    pub fn load_from(dir: &Path) -> Result<Option<Self>, PkiError> {
        Self::is_in(dir)
            .then(|| Self::load(&dir.join(CA), &dir.join(CA_KEY)))
            .transpose()
    }

    /// Whether `dir` has an authority.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(CA).exists() && dir.join(CA_KEY).exists()
    }

    /// Its certificate and its key, in PEM: for another machine that is to sign.
    pub fn export(&self) -> (&str, String) {
        (&self.certificate, self.issuer.key().serialize_pem())
    }

    /// Keeps what [`export`](Self::export) gave on another machine in `dir`. Anything that is no authority is rejected.
    pub fn import(dir: &Path, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let authority = Self::read(certificate, key, dir)?;
        make_directory(dir)?;
        write(&dir.join(CA_KEY), key.as_bytes(), 0o600, None)?;
        write(&dir.join(CA), certificate.as_bytes(), 0o644, None)?;
        Ok(authority)
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a request (PKCS#10 in PEM), and returns the certificate in PEM.
    ///
    /// The request must name `name` and exactly `addresses` and 127.0.0.1, and be signed by the key that is in it. Whatever else
    /// it asks for is not granted: usage and validity are the same for all.
    pub fn sign(
        &self,
        name: &str,
        addresses: &[IpAddr],
        request: &str,
    ) -> Result<String, PkiError> {
        let wanted = Names::new(name, addresses);
        let request = wanted.check(request).map_err(|source| PkiError::Request {
            name: name.into(),
            source,
        })?;
        wanted
            .params()
            .signed_by(&request.public_key, &self.issuer)
            .map(|certificate| certificate.pem())
            .map_err(|source| PkiError::Certificate {
                name: name.into(),
                source,
            })
    }

    /// Both sides at once, for a process that has the authority itself: requests the certificate of `name` with a key in `dir`,
    /// which belongs to the calling user, and signs it. It may be called at every start.
    pub fn issue(&self, name: &str, addresses: &[IpAddr], dir: &Path) -> Result<Issued, PkiError> {
        let subject = Subject::new(name, addresses, dir, None);
        if subject.is_certified(&self.certificate) {
            return Ok(Issued::Kept);
        }
        let certificate = self.sign(name, addresses, &subject.request()?)?;
        subject.accept(&self.certificate, &certificate)?;
        Ok(Issued::New)
    }

    fn load(cert: &Path, key: &Path) -> Result<Self, PkiError> {
        Self::read(&read(cert)?, &read(key)?, cert)
    }

    fn read(certificate: &str, key: &str, from: &Path) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Certificate {
            name: from.display().to_string(),
            source,
        };
        let key = KeyPair::from_pem(key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(failed)?;
        Ok(Self {
            issuer,
            certificate: certificate.into(),
        })
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
        write(
            &dir.join(CA_KEY),
            key.serialize_pem().as_bytes(),
            0o600,
            None,
        )?;
        write(&dir.join(CA), certificate.as_bytes(), 0o644, None)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }
}
