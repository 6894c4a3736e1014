//! Events on the site, as reported to the operator.

use crate::id::{ServerName, Tier};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An event. It never changes once published.
///
/// ```
/// use gaiola_model::event::{Event, Severity, Subject};
///
/// let event = Event {
///     time: "2026-01-02T03:04:05.678Z".into(),
///     subject: Subject::Server("db1".parse().unwrap()),
///     kind: "database.promoted".into(),
///     text: "is the primary now".into(),
///     severity: Severity::Notice,
/// };
/// assert_eq!(event.to_string(), "2026-01-02T03:04:05.678Z notice db1 is the primary now");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in RFC 3339 with milliseconds, UTC, by the clock of the reporting server.
    pub time: String,
    /// What it happened to.
    pub subject: Subject,
    /// What happened, for programs: two words of `a-z_`, such as `instance.crashed`.
    pub kind: String,
    /// What happened, for people: it continues after the subject's name.
    pub text: String,
    /// How much it matters.
    pub severity: Severity,
}

/// What an event happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The whole site.
    Site,
    /// A tier.
    Tier(Tier),
    /// A server.
    Server(ServerName),
}

impl Subject {
    /// The tier that it is, or is part of.
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Site => None,
            Self::Tier(tier) => Some(tier),
            Self::Server(server) => Some(server.tier),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.pad("site"),
            Self::Tier(tier) => f.pad(tier.section()),
            Self::Server(server) => f.pad(&server.to_string()),
        }
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of a requested change.
    #[default]
    Info,
    /// The site changed by itself, and is well.
    Notice,
    /// Something failed, and the site compensated.
    Warning,
    /// Something is lost until somebody acts, or until it comes back.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            subject,
            text,
            severity,
            ..
        } = self;
        write!(f, "{time} {severity} {subject} {text}")
    }
}
