//! Certificates and keys in PEM files.

use super::error::{TlsError, TlsFileError};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::Path;

/// The byte order mark in UTF-8, and in UTF-16.
const MARK: &[u8] = b"\xef\xbb\xbf";
const WIDE_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// All certificates of a file, at least one.
///
/// # Errors
/// The file, and what is wrong with it.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_in(path, &read(path)?)
}

/// As [`certificates`], of a file that was read.
pub(super) fn certificates_in(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|error| {
        let why = if is_encrypted(text) {
            TlsFileError::Encrypted
        } else {
            TlsFileError::Pem(error)
        };
        unusable(path, why)
    })?;
    if all.is_empty() {
        return Err(unusable(path, TlsFileError::NoCertificate));
    }
    Ok(all)
}

/// The private key of a file; `None` if it contains none.
///
/// # Errors
/// As [`certificates`].
pub(super) fn key(path: &Path) -> Result<Option<PrivateKeyDer<'static>>, TlsError> {
    let text = read(path)?;
    if is_encrypted(&text) {
        return Err(unusable(path, TlsFileError::Encrypted));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(Some(key)),
        Err(Error::NoItemsFound) => Ok(None),
        Err(error) => Err(unusable(path, TlsFileError::Pem(error))),
    }
}

/// The private key of a file that must contain one.
///
/// # Errors
/// As [`certificates`].
pub(super) fn needed_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    key(path)?.ok_or_else(|| unusable(path, TlsFileError::NoKey))
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
) -> Result<CertifiedKey, TlsError> {
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map_err(|error| unusable(path, TlsFileError::Unfit(error)))
}

/// The contents of a file, without a byte order mark.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text =
        std::fs::read(path).map_err(|error| unusable(path, TlsFileError::Read(error)))?;
    if WIDE_MARKS.iter().any(|mark| text.starts_with(mark)) {
        return Err(unusable(path, TlsFileError::Wide));
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
pub(super) fn unusable(path: &Path, why: TlsFileError) -> TlsError {
    let path = path.to_owned();
    TlsError::File { path, why }
}
