//! The certificates of a bind, and which of them a client gets.

use super::pem;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// Endings of files that stand beside a certificate's own, and are none themselves.
const KEY: &str = "key";
const OCSP: &str = "ocsp";

/// Certificates by the names that they are for.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Those of the first file.
    default: Arc<CertifiedKey>,
    /// By name in lower case, `*.example.org` with its star. Several for one name differ in the kind of their key.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Those that are not valid now, each with its subject and when it ends.
    not_valid: Vec<[String; 2]>,
}

/// A certificate with its chain and key.
struct Read {
    certificate: CertifiedKey,
    names: Vec<String>,
    not_valid: Option<[String; 2]>,
}

impl Certificates {
    /// Reads files and folders in their order, folders by their files' names. What is wrong is added to `mistakes`; `None`
    /// when there is no certificate at all.
    pub(super) fn read(
        paths: &[PathBuf],
        provider: &CryptoProvider,
        mistakes: &mut Vec<String>,
    ) -> Option<Self> {
        let mut all: Option<Self> = None;
        for path in paths {
            let files = files(path).unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                Vec::new()
            });
            for file in files {
                match read(&file, provider) {
                    Ok(read) => {
                        let certificate = Arc::new(read.certificate);
                        let all = all.get_or_insert_with(|| Self {
                            default: Arc::clone(&certificate),
                            named: HashMap::new(),
                            not_valid: Vec::new(),
                        });
                        all.not_valid.extend(read.not_valid);
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

    /// Warns of those that are not valid now: what they are worth is for clients to say.
    pub(super) fn warn(&self) {
        for [subject, until] in &self.not_valid {
            tracing::warn!(%subject, %until, "a certificate is not valid now");
        }
    }

    /// The certificates for a name: its own, else those for all names beside it.
    fn of(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
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
        let fits = |certificate: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            certificate.key.choose_scheme(schemes).is_some()
        };
        // Where none fits, the handshake says why.
        found.iter().find(fits).or(found.first()).cloned()
    }
}

/// The file itself, or the certificates' files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = path.read_dir().and_then(Iterator::collect);
    let entries: Vec<_> = entries.map_err(|error| pem::unusable(path, error))?;
    let mut files: Vec<_> = entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|file| file.is_file() && !is_beside(file))
        .collect();
    files.sort();
    match files.is_empty() {
        false => Ok(files),
        true => Err(pem::unusable(path, "there is no file in it")),
    }
}

fn is_beside(file: &Path) -> bool {
    let hidden = file
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    hidden
        || file
            .extension()
            .is_some_and(|ending| ending == KEY || ending == OCSP)
}

/// The certificate of a file, with what stands beside it.
fn read(path: &Path, provider: &CryptoProvider) -> Result<Read, String> {
    let chain = pem::certificates(path)?;
    let key = match pem::key(path)? {
        Some(key) => key,
        None => key_beside(path)?,
    };
    let (names, not_valid) =
        names(&chain[0]).ok_or_else(|| pem::unusable(path, "it is no X.509 certificate"))?;
    let mut certificate = pem::certified(path, chain, key, provider)?;
    let staple = beside(path, OCSP);
    if staple.is_file() {
        let answer = std::fs::read(&staple).map_err(|error| pem::unusable(&staple, error))?;
        if answer.first() != Some(&0x30) {
            return Err(pem::unusable(&staple, "it is no OCSP response in DER"));
        }
        certificate.ocsp = Some(answer);
    }
    Ok(Read {
        certificate,
        names,
        not_valid,
    })
}

fn key_beside(path: &Path) -> Result<rustls::pki_types::PrivateKeyDer<'static>, String> {
    let file = beside(path, KEY);
    let words = || {
        let file = file.display();
        format!("there is no private key in it, and no file {file} beside it")
    };
    if !file.is_file() {
        return Err(pem::unusable(path, words()));
    }
    pem::needed_key(&file)
}

/// `FILE.ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(ending);
    name.into()
}

/// The DNS names of a certificate in lower case, its common name where it has no list of names; and its subject and end
/// where it is not valid now.
fn names(certificate: &[u8]) -> Option<(Vec<String>, Option<[String; 2]>)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let told = || [parsed.subject().to_string(), validity.not_after.to_string()];
    let not_valid = (!validity.is_valid()).then(told);
    let names = match parsed.subject_alternative_name() {
        Ok(Some(list)) => {
            let names = list.value.general_names.iter();
            let dns = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            };
            names.filter_map(dns).collect()
        }
        Ok(None) | Err(_) => {
            let names = parsed.subject().iter_common_name();
            names
                .filter_map(|name| name.as_str().ok())
                .map(str::to_ascii_lowercase)
                .collect()
        }
    };
    Some((names, not_valid))
}
