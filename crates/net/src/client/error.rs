//! Why a request fails, and how far it got.

use super::connection::ConnectError;
use super::process::ProcessEnded;
use super::{MAX_BODY, Request, Target};
use http_body_util::Full;
use hyper::body::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why there is no response. Each variant says what was tried; its source says why it failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened.
    #[error("cannot connect to {target}")]
    Connect {
        /// The target.
        target: String,
        /// Why.
        source: ConnectError,
    },
    /// The timeout was exceeded.
    #[error("{target} did not answer {request} within {timeout:?}")]
    Timeout {
        /// The target.
        target: String,
        /// The request.
        request: String,
        /// The timeout.
        timeout: Duration,
        /// Whether any of it may have been sent.
        sent: bool,
    },
    /// The connection broke.
    #[error("{target} closed the connection during {request}")]
    Broken {
        /// The target.
        target: String,
        /// The request.
        request: String,
        /// Why.
        source: hyper::Error,
    },
    /// The response, or one line of a stream, exceeds the limit.
    #[error("the answer of {target} to {request} has more than {MAX_BODY} bytes")]
    TooLarge {
        /// The target.
        target: String,
        /// The request.
        request: String,
    },
    /// The request is malformed: a bad path or header.
    #[error("cannot send {request}, which is malformed")]
    Malformed {
        /// The request.
        request: String,
        /// Why.
        source: hyper::http::Error,
    },
}

impl ClientError {
    /// Why the process that should have carried the request ended instead.
    pub fn process_ended(&self) -> Option<&ProcessEnded> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            let inner = io.and_then(std::io::Error::get_ref);
            if let Some(ended) = inner.and_then(|inner| inner.downcast_ref()) {
                return Some(ended);
            }
            cause = error.source();
        }
        None
    }

    /// Whether the server may have received the request and carried it out.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Malformed { .. } => false,
            Self::Timeout { sent, .. } => *sent,
            Self::Broken { .. } | Self::TooLarge { .. } => true,
        }
    }
}

/// One request in progress; builds its errors.
pub(super) struct InFlight<'a> {
    target: &'a Target,
    request: &'a Request,
    timeout: Duration,
    sent: AtomicBool,
}

impl<'a> InFlight<'a> {
    pub(super) fn new(target: &'a Target, request: &'a Request, timeout: Duration) -> Self {
        Self {
            target,
            request,
            timeout,
            sent: AtomicBool::new(false),
        }
    }

    pub(super) fn connecting(&self) {
        self.sent.store(false, Ordering::Relaxed);
    }

    pub(super) fn sending(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    pub(super) fn message(&self) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
        self.malformed(self.request.to_hyper(self.target))
    }

    /// The request with another body.
    pub(super) fn message_of<B>(&self, body: B) -> Result<hyper::Request<B>, ClientError> {
        self.malformed(self.request.with_body(self.target, body))
    }

    fn malformed<B>(
        &self,
        message: Result<hyper::Request<B>, hyper::http::Error>,
    ) -> Result<hyper::Request<B>, ClientError> {
        message.map_err(|source| ClientError::Malformed {
            request: self.request.to_string(),
            source,
        })
    }

    pub(super) fn unconnected(&self, source: ConnectError) -> ClientError {
        ClientError::Connect {
            target: self.target.to_string(),
            source,
        }
    }

    pub(super) fn timed_out(&self) -> ClientError {
        ClientError::Timeout {
            target: self.target.to_string(),
            request: self.request.to_string(),
            timeout: self.timeout,
            sent: self.sent.load(Ordering::Relaxed),
        }
    }

    pub(super) fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            target: self.target.to_string(),
            request: self.request.to_string(),
            source,
        }
    }

    pub(super) fn too_large(&self) -> ClientError {
        ClientError::TooLarge {
            target: self.target.to_string(),
            request: self.request.to_string(),
        }
    }
}
