//! The owner of a certificate: a process of the site, which makes its own key.

use super::certificate::{Names, is_of};
use super::files::{give, make_directory, read, write};
use super::{CA, CERT, KEY, PkiError, parse, provider};
use gaiola_os::process::User;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The owner of a key and, once it has been issued, of its certificate.
///
/// The certificate is for its addresses and 127.0.0.1, with its name as common name. It has no DNS name: nothing here uses
/// one, and Patroni's HTTP library would need another module to read it.
#[derive(Debug)]
pub struct Subject {
    name: String,
    names: Names,
    dir: PathBuf,
    user: Option<User>,
}

impl Subject {
    /// The owner `name` with these addresses, whose files are in `dir` and belong to `user`; `None`: to the calling user.
    pub fn new(name: &str, addresses: &[IpAddr], dir: &Path, user: Option<User>) -> Self {
        Self {
            name: name.into(),
            names: Names::new(name, addresses),
            dir: dir.into(),
            user,
        }
    }

    /// Whether the files are complete, from the authority with the certificate `ca` (PEM), match each other, are for these names
    /// and not about to expire.
    pub fn is_certified(&self, ca: &str) -> bool {
        let file = |name| read(&self.dir.join(name)).ok();
        let (Some(held), Some(certificate), Some(key)) = (file(CA), file(CERT), file(KEY)) else {
            return false;
        };
        held == ca && self.matches(ca, &certificate, &key)
    }

    /// A request for a certificate (PKCS#10 in PEM), signed by the key in the directory. Where there is none that fits, it is made,
    /// mode 0600.
    pub fn request(&self) -> Result<String, PkiError> {
        let failed = |source| PkiError::Certificate {
            name: self.name.clone(),
            source,
        };
        let key = match self.key()? {
            Some(key) => key,
            None => self.make_key()?,
        };
        let request = self.names.request_params().serialize_request(&key);
        request.and_then(|request| request.pem()).map_err(failed)
    }

    /// Writes the certificate that was issued on a [`request`](Self::request), and that of the authority. Any other is rejected.
    pub fn accept(&self, ca: &str, certificate: &str) -> Result<(), PkiError> {
        let key = read(&self.dir.join(KEY))?;
        if !self.matches(ca, certificate, &key) {
            return Err(PkiError::NotRequested {
                name: self.name.clone(),
            });
        }
        self.write(CA, ca, 0o644)?;
        self.write(CERT, certificate, 0o644)
    }

    /// Gives the directory and its files to their user, who may be another one since they were written.
    pub fn own(&self) -> Result<(), PkiError> {
        let Some(user) = self.user else {
            return Ok(());
        };
        give(&self.dir, user)?;
        [CA, CERT, KEY]
            .iter()
            .try_for_each(|name| give(&self.dir.join(name), user))
    }

    fn matches(&self, ca: &str, certificate: &str, key: &str) -> bool {
        let (Ok(ca), Ok(chain)) = (parse(ca), parse(certificate)) else {
            return false;
        };
        let Ok(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else {
            return false;
        };
        chain.first().is_some_and(|certificate| {
            is_of(&ca, certificate)
                && Names::of_lasting(certificate).is_some_and(|names| names == self.names)
        }) && CertifiedKey::from_der(chain, key, &provider()).is_ok()
    }

    fn key(&self) -> Result<Option<KeyPair>, PkiError> {
        match read(&self.dir.join(KEY)) {
            Err(PkiError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            text => Ok(KeyPair::from_pem(&text?)
                .ok()
                .filter(|key| key.is_compatible(&PKCS_ECDSA_P256_SHA256))),
        }
    }

    fn make_key(&self) -> Result<KeyPair, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| {
            PkiError::Certificate {
                name: self.name.clone(),
                source,
            }
        })?;
        make_directory(&self.dir)?;
        self.write(KEY, &key.serialize_pem(), 0o600)?;
        Ok(key)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), PkiError> {
        write(&self.dir.join(name), text.as_bytes(), mode, self.user)
    }
}
