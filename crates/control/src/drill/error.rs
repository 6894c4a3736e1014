//! Why a drill, or a request within one, failed. The report contains these texts, and counts equal failures by them.

use gaiola_proxy::TlsError;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a step of a drill failed: a sentence for the report.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// A step exceeded its timeout.
    #[error("not done within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Witnesses could not be started.
    #[error("cannot start a client beside the harmed server: {0}")]
    Witnesses(Box<Self>),
    /// TLS cannot be configured.
    #[error("{0}")]
    Tls(TlsError),
    /// An implementation of [`Harm`](super::Harm) failed.
    #[error("{}", gaiola_os::chain(.0.as_ref()))]
    Harm(Box<dyn Error + Send + Sync>),
}

impl DrillError {
    /// Wraps an error of an implementation of [`Harm`](super::Harm).
    pub fn harm(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Harm(error.into())
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The response's status.
    #[error("HTTP {0}")]
    Status(u16),
    /// The response says that the write is not acknowledged.
    #[error("answered as not acknowledged")]
    Denied,
    /// No complete response in time.
    #[error("no answer within {}", span(*.0))]
    TimedOut(Duration),
    /// The load has too many requests in flight.
    #[error("not sent: {0} requests are unanswered")]
    NotSent(usize),
    /// The path is invalid.
    #[error("cannot request {path:?}: {why}")]
    Path {
        /// The path in the file.
        path: String,
        /// Why not.
        why: hyper::http::Error,
    },
    /// The connection ended before anything was written.
    #[error("connection closed before the request was written")]
    Unsent,
    /// The connection failed.
    #[error("{}", .0.kind())]
    Io(#[from] io::Error),
    /// The response is not HTTP, or incomplete.
    #[error("{}", http_in_words(.0))]
    Http(#[from] hyper::Error),
}

/// A limit, in seconds if possible.
fn span(limit: Duration) -> String {
    match limit.subsec_millis() {
        0 => format!("{} s", limit.as_secs()),
        _ => format!("{} ms", limit.as_millis()),
    }
}

/// A short text that is the same for equal failures, so that they can be counted by it.
fn http_in_words(error: &hyper::Error) -> String {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(cause) => io::Error::kind(cause).to_string(),
        None if error.is_incomplete_message() => {
            "connection closed before the answer was complete".into()
        }
        None => error.to_string(),
    }
}

/// Why there is no path to look up a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoPath {
    /// The site's response does not contain it.
    #[error("{0}")]
    Answer(String),
    /// The write did not go through the site.
    #[error("it was written straight into the database")]
    Database,
}

/// Why a query to a database member failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// No response in time.
    #[error("no answer within {}", span(*.0))]
    TimedOut(Duration),
    /// The program cannot be run.
    #[error("cannot run {}: {why}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// The program has no standard input or output.
    #[error("cannot run psql: its standard input or output is missing")]
    NoPipes,
    /// The last line of what psql, or PostgreSQL through it, reported.
    #[error("{0}")]
    Psql(String),
    /// The pipe to psql failed.
    #[error("{}", .0.kind())]
    Io(#[from] io::Error),
    /// The session ended without a response.
    #[error("session closed")]
    Closed,
}

/// Why a witness failed.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its process or its pipes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its task or its report.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It panicked.
    #[error(transparent)]
    Work(#[from] tokio::task::JoinError),
    /// It was started without a pipe for its report.
    #[error("its standard output is missing")]
    NoOutput,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reported_in_its_unit() {
        let words = [15_000, 100].map(|ms| {
            let limit = Duration::from_millis(ms);
            RequestError::TimedOut(limit).to_string()
        });
        assert_eq!(words, ["no answer within 15 s", "no answer within 100 ms"]);
        let limit = Duration::from_secs(15);
        assert_eq!(SqlError::TimedOut(limit).to_string(), words[0]);
    }
}
