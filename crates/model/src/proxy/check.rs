//! Active health checks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
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
    /// `http`: further header fields to send, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// `http`: the statuses that count as healthy. Empty: [`StatusRange::USUAL`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<StatusRange>,
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

    /// Whether an `http` check that was answered with this status has passed.
    pub fn accepts(&self, status: u16) -> bool {
        StatusRange::any(&self.status, StatusRange::USUAL, status)
    }
}

/// Statuses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl StatusRange {
    /// What HAProxy's checks accept.
    pub const USUAL: Self = Self {
        first: 200,
        last: 399,
    };

    /// This status alone.
    pub const fn only(status: u16) -> Self {
        Self {
            first: status,
            last: status,
        }
    }

    /// Whether `status` is in one of these ranges, or in the `usual` one if there are none.
    ///
    /// ```
    /// use gaiola_model::proxy::StatusRange;
    /// assert!(StatusRange::any(&[], StatusRange::USUAL, 302));
    /// assert!(!StatusRange::any(&[StatusRange::only(200)], StatusRange::USUAL, 302));
    /// ```
    pub fn any(ranges: &[Self], usual: Self, status: u16) -> bool {
        let usual = [usual];
        let ranges = if ranges.is_empty() { &usual } else { ranges };
        let has = |range: &Self| (range.first..=range.last).contains(&status);
        ranges.iter().any(has)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// What a health check probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// `GET path` is answered with one of [`Check::status`].
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
