//! The machine's certificate, as its process uses it towards the others: a new one is taken over as soon as it is there.

use gaiola_net::client::Client;
use gaiola_net::pki::{self, CERT, PkiError};
use rustls::ServerConfig;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub(super) struct Identity {
    dir: PathBuf,
    loaded: RefCell<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    written: Option<SystemTime>,
    server: Arc<ServerConfig>,
    client: Client,
}

impl Identity {
    pub(super) fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            dir: dir.into(),
            loaded: RefCell::new(load(dir)?),
        })
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }

    pub(super) fn client(&self) -> Client {
        self.current().client
    }

    fn current(&self) -> Loaded {
        let mut loaded = self.loaded.borrow_mut();
        if written(&self.dir) != loaded.written {
            match load(&self.dir) {
                Ok(new) => *loaded = new,
                // It may be half-way exchanged.
                Err(error) => {
                    tracing::warn!("the last certificate stays: {}", gaiola_os::chain(&error));
                }
            }
        }
        loaded.clone()
    }
}

fn load(dir: &Path) -> Result<Loaded, PkiError> {
    Ok(Loaded {
        written: written(dir),
        server: pki::server_config(dir)?,
        client: Client::new(Some(pki::client_config(dir)?)),
    })
}

fn written(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join(CERT))
        .and_then(|file| file.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_net::pki::Authority;

    #[test]
    fn a_new_certificate_is_taken_over_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("pki");
        let authority = Authority::create_or_load(&folder.path().join("ca")).unwrap();
        let issue = |last| authority.issue("machine a", &[[127, 0, 0, last].into()], &own);
        assert!(Identity::load(&own).is_err());
        issue(1).unwrap();
        let identity = Identity::load(&own).unwrap();
        let first = identity.server();
        assert!(Arc::ptr_eq(&first, &identity.server()));
        issue(2).unwrap();
        let second = identity.server();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(own.join(CERT), "none").unwrap();
        assert!(Arc::ptr_eq(&second, &identity.server()));
    }
}
