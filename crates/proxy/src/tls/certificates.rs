//! The certificates of a bind, and the choice among them for a client.

use super::beside::{self, OCSP};
use super::error::{TlsError, TlsFileError};
use super::pem;
use super::staple;
use crate::clock::since_epoch;
use gaiola_wire::x509;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Certificates by server name.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Those of the first file.
    default: Arc<ServedCertificate>,
    /// By name in lower case, `*.example.org` with its star. Several for one name differ in key type.
    named: HashMap<String, Vec<Arc<ServedCertificate>>>,
    /// What clients may object to, as text.
    warnings: Vec<String>,
}

/// A certificate as sent to clients.
#[derive(Debug)]
struct ServedCertificate {
    plain: Arc<CertifiedKey>,
    /// With its OCSP response, and the end of that response's validity since 1970.
    stapled: Option<(Arc<CertifiedKey>, Option<Duration>)>,
}

impl ServedCertificate {
    fn now(&self) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, None)) => stapled,
            Some((stapled, Some(until))) if since_epoch() < *until => stapled,
            Some(_) | None => &self.plain,
        }
    }
}

/// A certificate with its chain and key.
struct Read {
    certificate: ServedCertificate,
    names: Vec<String>,
    warnings: Vec<String>,
}

impl Certificates {
    /// Reads files and folders in order, folders by file name. Mistakes are added to `mistakes`; `None` if there is no
    /// certificate at all. `key`: the file of their common key, if they have one.
    pub(super) fn read(
        paths: &[PathBuf],
        key: Option<&Path>,
        provider: &CryptoProvider,
        mistakes: &mut Vec<TlsError>,
    ) -> Option<Self> {
        let mut all: Option<Self> = None;
        for path in paths {
            let files = files(path).unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                Vec::new()
            });
            for file in files {
                match read(&file, key, provider) {
                    Ok(read) => {
                        let certificate = Arc::new(read.certificate);
                        let all = all.get_or_insert_with(|| Self {
                            default: Arc::clone(&certificate),
                            named: HashMap::new(),
                            warnings: Vec::new(),
                        });
                        all.warnings.extend(read.warnings);
                        for name in read.names {
                            let named = all.named.entry(name).or_default();
                            named.push(Arc::clone(&certificate));
                        }
                    }
                    Err(mistake) => mistakes.push(mistake),
                }
            }
        }
        all
    }

    /// Warns of those that are not valid now: clients decide whether to accept them.
    pub(super) fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!(warning, "problem with a certificate");
        }
    }

    /// The certificates for a name: its own, or else those of the wildcard that covers it.
    fn of(&self, name: &str) -> Option<&[Arc<ServedCertificate>]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let beside = || Some(format!("*.{}", name.split_once('.')?.1));
        let found = self.named.get(&name);
        found
            .or_else(|| self.named.get(&beside()?))
            .map(|found| &**found)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| self.of(name));
        let found = found.unwrap_or(std::slice::from_ref(&self.default));
        let fits = |served: &&Arc<ServedCertificate>| {
            let schemes = hello.signature_schemes();
            served.plain.key.choose_scheme(schemes).is_some()
        };
        // If none fits, the handshake reports why.
        let chosen = found.iter().find(fits).or(found.first())?;
        Some(Arc::clone(chosen.now()))
    }
}

/// The file itself, or the certificate files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, TlsError> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = path.read_dir().and_then(Iterator::collect);
    let entries: Vec<_> =
        entries.map_err(|error| pem::unusable(path, TlsFileError::System(error)))?;
    let mut files: Vec<_> = entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|file| file.is_file() && !beside::is_none_itself(file))
        .collect();
    files.sort();
    if files.is_empty() {
        Err(pem::unusable(path, TlsFileError::EmptyFolder))
    } else {
        Ok(files)
    }
}

/// Reads the certificate of a file, with the files beside it.
fn read(path: &Path, key: Option<&Path>, provider: &CryptoProvider) -> Result<Read, TlsError> {
    let chain = pem::certificates(path)?;
    let key = match key {
        Some(file) => pem::needed_key(file)?,
        None => own_key(path)?,
    };
    let Contents {
        names,
        serial,
        not_valid,
    } = contents(&chain[0]).ok_or_else(|| pem::unusable(path, TlsFileError::NotX509))?;
    let certificate = pem::certified(path, chain, key, provider)?;
    let mut warnings = Vec::from_iter(not_valid.map(|why| format!("{}: {why}", path.display())));
    let staple = beside::with_ending(path, OCSP);
    let stapled = if staple.is_file() {
        Some(stapled(&staple, &certificate, &serial)?)
    } else {
        None
    };
    if let Some((_, Some(until))) = stapled
        && until <= since_epoch()
    {
        let file = staple.display();
        warnings.push(format!("{file}: it holds no longer, and is left out"));
    }
    Ok(Read {
        certificate: ServedCertificate {
            plain: Arc::new(certificate),
            stapled,
        },
        names,
        warnings,
    })
}

/// The certificate with the OCSP response of a file, and the end of the response's validity.
fn stapled(
    file: &Path,
    certificate: &CertifiedKey,
    serial: &[u8],
) -> Result<(Arc<CertifiedKey>, Option<Duration>), TlsError> {
    let response =
        std::fs::read(file).map_err(|error| pem::unusable(file, TlsFileError::System(error)))?;
    let until = staple::until(&response, serial)
        .map_err(|why| pem::unusable(file, TlsFileError::Staple(why)))?;
    let mut certificate = certificate.clone();
    certificate.ocsp = Some(response);
    Ok((Arc::new(certificate), until))
}

/// The key in a certificate's own file, or in one beside it.
fn own_key(path: &Path) -> Result<rustls::pki_types::PrivateKeyDer<'static>, TlsError> {
    match pem::key(path)? {
        Some(key) => Ok(key),
        None => key_beside(path),
    }
}

fn key_beside(path: &Path) -> Result<rustls::pki_types::PrivateKeyDer<'static>, TlsError> {
    let may_be = beside::keys(path);
    if let Some(file) = may_be.iter().find(|file| file.is_file()) {
        return pem::needed_key(file);
    }
    Err(pem::unusable(path, TlsFileError::NoKeyBeside(may_be)))
}

/// What is needed of a certificate's contents.
struct Contents {
    /// Its DNS names in lower case; its common name if it lists no names.
    names: Vec<String>,
    serial: Vec<u8>,
    /// Why it is not valid now, as text.
    not_valid: Option<String>,
}

fn contents(certificate: &[u8]) -> Option<Contents> {
    let certificate = x509::decode(certificate).ok()?;
    let (from, to) = (certificate.not_before, certificate.not_after);
    let not_valid = (!(from..=to).contains(&since_epoch())).then(|| {
        let (subject, from, to) = (&certificate.subject, date(from), date(to));
        format!("the certificate of {subject} is not valid now, but from {from} to {to}")
    });
    let common_names = certificate.common_names;
    let names = match certificate.alternative_names {
        Some(names) => names.dns,
        None => common_names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
    };
    Some(Contents {
        names,
        serial: certificate.serial,
        not_valid,
    })
}

/// A time since 1970 as text.
fn date(since_epoch: Duration) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => "a time beyond the year 9999".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::provider;
    use super::*;
    use std::fs;

    /// Names that are served from this path, or what is wrong with it.
    fn served(path: &Path) -> Result<Vec<String>, String> {
        let mut mistakes = Vec::new();
        let all = Certificates::read(&[path.into()], None, &provider(), &mut mistakes);
        if mistakes.is_empty() {
            Ok(all
                .into_iter()
                .flat_map(|all| all.named.into_keys())
                .collect())
        } else {
            Err(TlsError::Several(mistakes).to_string())
        }
    }

    /// A certificate and its key, in PEM.
    fn issue() -> [String; 2] {
        let issued = rcgen::generate_simple_self_signed(["a.test".into()]).unwrap();
        [issued.cert.pem(), issued.signing_key.serialize_pem()]
    }

    #[test]
    fn what_certbot_writes_is_served_as_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = issue();
        for (name, text) in [
            (
                "README",
                "This directory contains your keys and certificates.",
            ),
            ("fullchain.pem", &certificate),
            ("cert.pem", &certificate),
            ("chain.pem", &certificate),
            ("privkey.pem", &key),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let names = Ok(vec!["a.test".to_owned()]);
        assert_eq!(served(folder.path()), names);
        for name in ["fullchain.pem", "cert.pem"] {
            assert_eq!(served(&folder.path().join(name)), names, "{name}");
        }
        fs::remove_file(folder.path().join("privkey.pem")).unwrap();
        let why = served(folder.path()).unwrap_err();
        assert!(
            why.contains("fullchain.pem.key or ") && why.contains("privkey.pem beside it"),
            "{why}"
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site");
        let text = issue().concat();
        fs::write(&path, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
        assert_eq!(served(&path), Ok(vec!["a.test".to_owned()]));
        let wide: Vec<u8> = text.bytes().flat_map(|byte| [byte, 0]).collect();
        fs::write(&path, [b"\xff\xfe", &wide[..]].concat()).unwrap();
        assert!(served(&path).unwrap_err().ends_with("save it as UTF-8"));
    }

    #[test]
    fn a_key_with_a_passphrase_is_named_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site");
        let [certificate, _] = issue();
        for key in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
             MIIB\n-----END RSA PRIVATE KEY-----\n",
        ] {
            fs::write(&path, format!("{certificate}{key}")).unwrap();
            let why = served(&path).unwrap_err();
            assert!(why.contains("its private key is encrypted"), "{why}");
        }
    }
}
