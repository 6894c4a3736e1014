//! Checks the files that a configuration names one by one, so that a mistake is reported where the file is named.

use super::certificates::Certificates;
use super::error::TlsError;
use super::servers::Reading;
use super::{provider, verifier_of};
use gaiola_model::proxy::ClientCertificates;
use std::cell::RefCell;
use std::path::Path;

/// What is known of the files while a configuration is read.
#[derive(Default)]
pub(crate) struct Files(RefCell<Reading>);

impl Files {
    /// Every mistake in a file or folder of certificates that a bind serves.
    pub(crate) fn certificates(&self, path: &Path) -> Vec<String> {
        let mut mistakes = Vec::new();
        Certificates::read(&[path.into()], None, &provider(), &mut mistakes);
        mistakes.iter().map(ToString::to_string).collect()
    }

    /// Mistakes in a file of CAs for client certificates.
    pub(crate) fn client_cas(&self, path: &Path) -> Vec<String> {
        let clients = ClientCertificates {
            ca: path.into(),
            pem: None,
            required: true,
        };
        mistake(verifier_of(&clients, &provider()))
    }

    /// Mistakes in a file of CAs for server certificates, or in the system's.
    pub(crate) fn server_cas(&self, path: Option<&Path>) -> Vec<String> {
        mistake(self.0.borrow_mut().verifier(path))
    }

    /// Mistakes in the proxy's own certificate, and its key.
    pub(crate) fn identity(&self, certificate: &Path, key: &Path) -> Vec<String> {
        mistake(self.0.borrow().identity(certificate, key))
    }
}

fn mistake<T>(result: Result<T, TlsError>) -> Vec<String> {
    result.err().iter().map(ToString::to_string).collect()
}
