//! Certificates and keys in PEM files.

use super::in_words;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

/// Reported of a file that should contain CAs.
pub(super) const NO_CA: &str = "a certificate in it cannot be read as that of a CA";

/// Reported of an encrypted key: nobody can type a passphrase when the proxy starts.
const ENCRYPTED: &str =
    "its private key is encrypted; write it without a passphrase: openssl pkey -in KEY -out NEW";

/// The byte order mark in UTF-8, and in UTF-16.
const MARK: &[u8] = b"\xef\xbb\xbf";
const WIDE_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// All certificates of a file, at least one.
///
/// # Errors
/// The file, and what is wrong with it.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| match is_encrypted(&text) {
        true => unusable(path, ENCRYPTED),
        false => unusable(path, broken(error)),
    })?;
    if all.is_empty() {
        return Err(unusable(
            path,
            "there is no certificate (-----BEGIN CERTIFICATE-----) in it",
        ));
    }
    Ok(all)
}

/// The private key of a file; `None` if it contains none.
///
/// # Errors
/// As [`certificates`].
pub(super) fn key(path: &Path) -> Result<Option<PrivateKeyDer<'static>>, String> {
    let text = read(path)?;
    if is_encrypted(&text) {
        return Err(unusable(path, ENCRYPTED));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(Some(key)),
        Err(Error::NoItemsFound) => Ok(None),
        Err(error) => Err(unusable(path, broken(error))),
    }
}

/// The private key of a file that must contain one.
///
/// # Errors
/// As [`certificates`].
pub(super) fn needed_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    key(path)?.ok_or_else(|| unusable(path, "there is no private key in it"))
}

/// A certificate of a file with its chain, and its key.
///
/// # Errors
/// The file, and why they do not fit together.
pub(super) fn certified(
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let words = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key is not the certificate's, or the server's own certificate does not come first"
                    .into()
            }
            rustls::Error::General(_) => {
                "its private key cannot be read; keys of RSA, ECDSA and Ed25519 can".into()
            }
            error => in_words(&error),
        };
        unusable(path, words)
    })
}

/// The contents of a file, without a byte order mark.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = std::fs::read(path).map_err(|error| unusable(path, refused(error)))?;
    if WIDE_MARKS.iter().any(|mark| text.starts_with(mark)) {
        return Err(unusable(path, "it is text in UTF-16; save it as UTF-8"));
    }
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

/// Whether it contains a key with a passphrase, in PKCS #8 or OpenSSL's older format.
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &[u8]| text.windows(words.len()).any(|found| found == words);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"\nProc-Type: 4,ENCRYPTED")
}

/// The error for an unusable file.
pub(super) fn unusable(path: &Path, error: impl Display) -> String {
    format!("{} cannot be used: {error}", path.display())
}

fn broken(error: Error) -> String {
    match error {
        Error::Io(error) => refused(error),
        Error::MissingSectionEnd { .. } => "it is not PEM: a line -----END is missing".into(),
        Error::IllegalSectionStart { .. } => "it is not PEM: a line -----BEGIN is broken".into(),
        Error::Base64Decode(_) => {
            "it is not PEM: what stands between its lines is not base64".into()
        }
        error => format!("it is not PEM: {error}"),
    }
}

fn refused(error: std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "we may not read it".into(),
        _ => error.to_string(),
    }
}
