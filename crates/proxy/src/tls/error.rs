//! Why TLS settings cannot be used.

use super::in_words;
use super::staple::BadStaple;
use gaiola_model::proxy::Address;
use rustls::pki_types::pem;
use rustls::server::VerifierBuilderError;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Why TLS settings cannot be used: what is wrong with them or with a file that they name, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file or folder.
    #[error("{} cannot be used: {why}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: TlsFileError,
    },
    /// A bind on a Unix socket.
    #[error("{0}: TLS is served on TCP only")]
    BindNotTcp(Address),
    /// A bind without a certificate.
    #[error("{0}: TLS needs a certificate")]
    NoBindCertificate(Address),
    /// The cryptography does not suit a bind.
    #[error("{address}: {}", in_words(.error))]
    Bind {
        /// The bind's.
        address: Address,
        /// Why.
        error: rustls::Error,
    },
    /// Nothing was found where certificates were expected.
    #[error("there is no certificate")]
    NoCertificate,
    /// A server on a Unix socket.
    #[error("{0}: only servers on TCP can use TLS")]
    ServerNotTcp(Address),
    /// A check of a server on a Unix socket.
    #[error("{0}: TLS is spoken on TCP only")]
    CheckNotTcp(Address),
    /// A name to send or to verify.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// No file of the system's CAs.
    #[error("the system has no CAs where they usually are; name a file of CAs")]
    NoSystemRoots,
    /// The cryptography is unsuitable.
    #[error(transparent)]
    Cryptography(rustls::Error),
    /// Several of these at once.
    #[error("{}", in_a_row(.0))]
    Several(Vec<Self>),
}

/// Why a file or a folder cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFileError {
    /// It cannot be read.
    #[error("{}", refused(.0))]
    Read(io::Error),
    /// A folder, or an OCSP response, cannot be read.
    #[error("{0}")]
    System(io::Error),
    /// Text in UTF-16.
    #[error("it is text in UTF-16; save it as UTF-8")]
    Wide,
    /// It is not PEM.
    #[error("{}", broken(.0))]
    Pem(pem::Error),
    /// An encrypted key: nobody can type a passphrase when the proxy starts.
    #[error(
        "its private key is encrypted; write it without a passphrase: openssl pkey -in KEY -out NEW"
    )]
    Encrypted,
    /// It should contain CAs.
    #[error("a certificate in it cannot be read as that of a CA")]
    NoCa,
    /// It should contain a certificate.
    #[error("there is no certificate (-----BEGIN CERTIFICATE-----) in it")]
    NoCertificate,
    /// Its certificate cannot be decoded.
    #[error("it is no X.509 certificate")]
    NotX509,
    /// It should contain a private key.
    #[error("there is no private key in it")]
    NoKey,
    /// It may contain a private key, or one of these files may.
    #[error("there is no private key in it, and no file {} beside it", any_of(.0))]
    NoKeyBeside(Vec<PathBuf>),
    /// A folder without certificates.
    #[error("there is no certificate's file in it; folders in it are named by themselves")]
    EmptyFolder,
    /// The certificate and the key do not fit together, or are of an unknown kind.
    #[error("{}", unfit(.0))]
    Unfit(rustls::Error),
    /// No verifier can be built from its CAs.
    #[error("{0}")]
    Verifier(VerifierBuilderError),
    /// An OCSP response that cannot be stapled.
    #[error("{0}")]
    Staple(BadStaple),
}

impl TlsError {
    /// `Ok` without mistakes, or else all of them.
    pub(super) fn unless_any(mistakes: Vec<Self>) -> Result<(), Self> {
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Self::Several(mistakes))
        }
    }
}

fn in_a_row(errors: &[impl Display]) -> String {
    let words: Vec<_> = errors.iter().map(ToString::to_string).collect();
    words.join("; ")
}

fn any_of(files: &[PathBuf]) -> String {
    let names: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    names.join(" or ")
}

fn unfit(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key is not the certificate's, or the server's own certificate does not come first"
                .into()
        }
        rustls::Error::General(_) => {
            "its private key cannot be read; keys of RSA, ECDSA and Ed25519 can".into()
        }
        error => in_words(error),
    }
}

fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => refused(error),
        pem::Error::MissingSectionEnd { .. } => "it is not PEM: a line -----END is missing".into(),
        pem::Error::IllegalSectionStart { .. } => {
            "it is not PEM: a line -----BEGIN is broken".into()
        }
        pem::Error::Base64Decode(_) => {
            "it is not PEM: what stands between its lines is not base64".into()
        }
        error => format!("it is not PEM: {error}"),
    }
}

fn refused(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "we may not read it".into(),
        _ => error.to_string(),
    }
}
