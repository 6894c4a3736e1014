//! Why the supervisor rejects a request.

use crate::limits::LimitError;
use crate::rules::RulesError;
use crate::tls::TlsError;
use gaiola_model::Revision;
use gaiola_model::proxy::{Address, Server};
use std::fmt::Display;
use std::io;

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A newer one is in force.
    #[error("revision {revision} is older than {held}, which is in force")]
    Older {
        /// The rejected revision.
        revision: Revision,
        /// The one in force.
        held: Revision,
    },
    /// Two binds have one address.
    #[error("{0} is bound twice")]
    BoundTwice(Address),
    /// Peers would send what others could read.
    #[error("peers share limits with a limit_secret only")]
    PeersWithoutSecret,
    /// A name that occurs twice.
    #[error(transparent)]
    Twice(#[from] Twice),
    /// A mistake in a backend.
    #[error("backend {backend}: {why}")]
    Backend {
        /// The backend's name.
        backend: String,
        /// The mistake.
        why: BackendError,
    },
    /// A reference to an undefined backend.
    #[error("frontend {frontend}: there is no backend {backend}")]
    NoBackend {
        /// Where it is named.
        frontend: String,
        /// The undefined name.
        backend: String,
    },
    /// Mistakes in TLS settings and their files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Mistakes in routes, rules and limits.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Addresses that cannot be bound.
    #[error("{}", unbound(.0))]
    Bind(Vec<(Address, io::Error)>),
    /// A listener's filter cannot be set.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The permissions of a Unix socket's file cannot be set.
    #[error("the permissions of {address} cannot be changed: {error}")]
    Permissions {
        /// The socket.
        address: Address,
        /// The system's error.
        error: io::Error,
    },
    /// A worker did not apply it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// A name that occurs twice where it must not.
#[derive(Debug, thiserror::Error)]
#[error("there are two {what}s named {name}")]
pub struct Twice {
    pub(super) what: &'static str,
    pub(super) name: String,
}

/// A mistake in a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Two servers have one name.
    #[error(transparent)]
    Twice(#[from] Twice),
    /// A server's weight.
    #[error("server {0}: its weight is above {max}", max = Server::MOST_WEIGHT)]
    Weight(String),
    /// The bound of a bounded-load hash.
    #[error("the bound of its hash is below 100 percent")]
    HashBound,
    /// The factor of a slow ejection.
    #[error("the factor of its slow ejection is not above 100 percent")]
    EjectionFactor,
    /// Its sticky sessions.
    #[error("{0}")]
    Sticky(String),
}

/// Why a listener's filter cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("the filter on {address} cannot be changed: {error}")]
pub struct FilterError {
    pub(super) address: Address,
    pub(super) error: io::Error,
}

/// Why a worker did not carry out a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Its thread is gone.
    #[error("worker {0} has ended")]
    Ended(usize),
    /// It exceeded the time allowed.
    #[error("worker {0} does not answer")]
    Silent(usize),
}

/// Why connections to an address are accepted or refused as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdmissionError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why an operator's change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    #[error("nothing is served yet")]
    NothingServed,
    /// With the known names, as text.
    #[error("there is no {what} {name}; {there_are}")]
    Unknown {
        what: String,
        name: String,
        there_are: String,
    },
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

fn unbound(all: &[(Address, impl Display)]) -> String {
    let words: Vec<_> = all
        .iter()
        .map(|(address, error)| format!("cannot listen on {address}: {error}"))
        .collect();
    words.join("; ")
}
