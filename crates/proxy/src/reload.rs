//! The file of a standalone proxy, which SIGHUP reloads.

use super::program::is_replaced;
use super::rules;
use super::supervisor::{Supervisor, validate};
use super::tls::Files;
use gaiola_model::proxy_file::{Process, ProxyFile};
use gaiola_model::{ProxyConfig, Revision};
use gaiola_wire::proxy_file::{ConfigErrors, Part, ResolveError, Surroundings, load};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long requests in flight have after the signal to stop, by default.
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// How long requests and sessions have after a new process has taken over, by default.
pub const TAKE_OVER_LIMIT: Duration = Duration::from_secs(600);

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
    let parts = Parts::default();
    let check = |part: Part<'_>| parts.mistakes(part);
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

/// Validates the parts of a file as a proxy that loads them does.
#[derive(Default)]
pub struct Parts(Files);

impl Parts {
    /// Every mistake in a part, in words.
    pub fn mistakes(&self, part: Part<'_>) -> Vec<String> {
        let Self(files) = self;
        match part {
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
        }
    }
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

/// What a reload asks of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    /// Nothing.
    Done,
    /// These limits are in force from now on.
    Limits(EndLimits),
    /// A new process must take over: the program, or what only a new process can change, is another one.
    Replace(&'static str),
}

/// How long a process may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndLimits {
    /// After the signal to stop.
    pub(super) stop: Duration,
    /// After another process has taken over.
    pub(super) take_over: Duration,
}

impl EndLimits {
    pub(super) fn of(process: &Process) -> Self {
        Self {
            stop: process.hard_stop_after.unwrap_or(END_LIMIT),
            take_over: process.take_over_limit.unwrap_or(TAKE_OVER_LIMIT),
        }
    }
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
    pub(super) async fn again(&self, supervisor: &Supervisor) -> Reloaded {
        let path = self.path.clone();
        // Resolving names and reading certificates may take a while; health checks continue meanwhile.
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => {
                self.log_rejected(&gaiola_os::chain(&error));
                supervisor.count_reload(false);
                return Reloaded::Done;
            }
            Err(_) => return Reloaded::Done,
        };
        if let Some(why) = self.needs_process(&file.process) {
            return Reloaded::Replace(why);
        }
        let limits = EndLimits::of(&file.process);
        let config = ProxyConfig {
            revision: Revision(supervisor.revision().0 + 1),
            ..file.config
        };
        match supervisor.configure(config).await {
            Ok(revision) => {
                tracing::info!(%revision, file = %self.path.display(), "reloaded");
                Reloaded::Limits(limits)
            }
            Err(reason) => {
                self.log_rejected(&reason.to_string());
                Reloaded::Done
            }
        }
    }

    /// Why only a new process can change to these settings, if that is so.
    fn needs_process(&self, new: &Process) -> Option<&'static str> {
        let here = |process: &Process| Process {
            hard_stop_after: None,
            take_over_limit: None,
            ..process.clone()
        };
        if here(new) != here(&self.process) {
            Some("workers, admin, control or access_log has changed")
        } else if is_replaced() {
            Some("the program has been replaced")
        } else {
            None
        }
    }

    fn log_rejected(&self, error: &str) {
        let file = self.path.display();
        tracing::error!(%file, %error, "not reloaded: the previous configuration stays");
    }
}
