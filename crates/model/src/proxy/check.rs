//! Active health checks.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it probes.
    pub kind: CheckKind,
    /// Port to probe instead of the server's own.
    pub port: Option<u16>,
    /// `http`: the `Host` to send. `None`: [`Self::HOST`].
    #[serde(default)]
    pub host: Option<String>,
    /// Probe interval while nothing changes.
    pub interval: Duration,
    /// Probe interval while up with a failure, or down with a success.
    pub fast_interval: Duration,
    /// Connect timeout of a probe: a server that has lost power does not answer at all.
    pub connect: Duration,
    /// Timeout of a whole probe.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

impl Check {
    /// Default `Host` of `http`: a name, because some frameworks answer 400 to an address.
    pub const HOST: &str = "localhost";
}

/// What a health check probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// `GET path` is answered with a status from 200 to 399.
    Http {
        /// The path to request.
        path: String,
    },
    /// A TLS handshake succeeds: configured as the server's `tls`, or accepting any certificate without that.
    Tls,
    /// A PostgreSQL server proceeds with a client of this name: it requests a password, or nothing.
    Postgres {
        /// The name of the user, who need not exist.
        user: String,
    },
    /// As `Http`, over mutual TLS, only 200 counting: Patroni's REST API.
    Https {
        /// The path to request: `/primary` or `/replica`.
        path: String,
        /// PEM file of the CA.
        ca: PathBuf,
        /// PEM file of our certificate.
        cert: PathBuf,
        /// PEM file of our key.
        key: PathBuf,
    },
}
