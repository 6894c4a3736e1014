//! The file of a standalone proxy, which SIGHUP reloads.

use super::rules;
use super::supervisor::{Supervisor, validate};
use super::tls::Files;
use gaiola_model::proxy_file::{Process, ProxyFile};
use gaiola_model::{ProxyConfig, Revision};
use gaiola_wire::proxy_file::{ConfigErrors, Part, ResolveError, Surroundings, load};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mistakes in it: `FILE:LINE:COLUMN: what; hint`, one line for each.
    #[error("{}", errors.in_file(&path.display().to_string()))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// Every mistake.
        errors: ConfigErrors,
    },
}

/// Reads a file of `gaiola proxy -f FILE` with all certificates, keys and pages that it names, and resolves its host
/// names.
///
/// # Errors
/// Why it cannot be read, or every mistake in it and in what it names.
pub fn read_file(path: &Path) -> Result<ProxyFile, FileError> {
    let refused = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let text = std::fs::read_to_string(path).map_err(refused)?;
    let whole = std::path::absolute(path).map_err(refused)?;
    let host = rustix::system::uname();
    let files = Files::default();
    let check = |part: Part<'_>| match part {
        Part::Route(route) => rules::route_mistakes(route),
        Part::Behind(before, route) => rules::taken_by(before, route),
        Part::NameBehind(before, name) => rules::name_taken_by(before, name),
        Part::Server(config, address) => rules::comes_back(config, address),
        Part::Page(status, path) => rules::page(status, path)
            .err()
            .iter()
            .map(ToString::to_string)
            .collect(),
        Part::Certificates(path) => files.certificates(path),
        Part::ClientCas(path) => files.client_cas(path),
        Part::ServerCas(path) => files.server_cas(path),
        Part::Identity { certificate, key } => files.identity(certificate, key),
        Part::Whole(config) => validate(config)
            .err()
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    let around = Surroundings {
        directory: whole.parent().unwrap_or(&whole),
        host: &host.nodename().to_string_lossy(),
        resolve: &resolve,
        check: &check,
    };
    load(&text, &around).map_err(|errors| FileError::Mistakes {
        path: path.to_owned(),
        errors,
    })
}

/// The first address of a host name, IPv4 if it has one.
fn resolve(name: &str) -> Result<SocketAddr, ResolveError> {
    let all: Vec<_> = name
        .to_socket_addrs()
        .map_err(|error| ResolveError::Failed(error.to_string()))?
        .collect();
    let first = all.iter().find(|address| address.is_ipv4());
    first
        .or(all.first())
        .copied()
        .ok_or(ResolveError::NoAddress)
}

/// Where a configuration is reloaded from.
#[derive(Clone, Debug)]
pub struct Reload {
    pub(super) path: PathBuf,
    /// The process settings at start.
    pub(super) process: Process,
}

impl Reload {
    /// Reloads the file and applies it. Mistakes are logged, and the current configuration stays.
    pub(super) async fn again(&self, supervisor: &Supervisor) {
        let path = self.path.clone();
        // Resolving names and reading certificates may take a while; health checks continue meanwhile.
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => {
                self.log_rejected(&gaiola_os::chain(&error));
                supervisor.count_reload(false);
                return;
            }
            Err(_) => return,
        };
        if file.process != self.process {
            tracing::warn!(
                "workers, admin, control, access_log and hard_stop_after take effect at the next start only"
            );
        }
        let config = ProxyConfig {
            revision: Revision(supervisor.revision().0 + 1),
            ..file.config
        };
        match supervisor.configure(config).await {
            Ok(revision) => tracing::info!(%revision, file = %self.path.display(), "reloaded"),
            Err(reason) => self.log_rejected(&reason.to_string()),
        }
    }

    fn log_rejected(&self, error: &str) {
        let file = self.path.display();
        tracing::error!(%file, %error, "not reloaded: the previous configuration stays");
    }
}
