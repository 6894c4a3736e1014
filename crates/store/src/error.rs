//! Errors of the store, in the store's terms.

use super::{Expected, LeaseId, Revision};
use gaiola_net::client::ClientError;
use gaiola_wire::document::DocumentError;
use std::time::Duration;

/// Why the store did not carry out an operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer changed a key in between: read it again and decide again.
    #[error("cannot change {key}: expected it to be {expected}, but it is {}", Expected::from(*found))]
    CompareAndSwap {
        /// The key.
        key: String,
        /// The expected state.
        expected: Expected,
        /// When it was last changed; `None`: it does not exist.
        found: Option<Revision>,
    },
    /// The writer is no longer the leader.
    #[error("the term of {key} that began at revision {term} has ended")]
    Fenced {
        /// The key of the election.
        key: String,
        /// The term of the writer.
        term: Revision,
    },
    /// The lease has expired, and every key under it is gone.
    #[error("lease {0} has expired")]
    LeaseExpired(LeaseId),
    /// No member answered in time: no quorum, no network, or every member is down.
    #[error("no member of the store carried out {what} within {waited:?}")]
    Unreachable {
        /// The attempted operation.
        what: String,
        /// How long it was tried.
        waited: Duration,
        /// With `true` it may have been carried out nevertheless, or may still be.
        maybe_done: bool,
        /// The last member's error.
        source: Box<MemberError>,
    },
    /// It is another store than before, or an older state of it. Not an empty store: this says nothing about the data.
    #[error("the store is gone: {0}")]
    Gone(String),
    /// etcd understood the request and rejected it.
    #[error("the store rejected {what}: {message}")]
    Refused {
        /// The attempted operation.
        what: String,
        /// etcd's words.
        message: String,
        /// gRPC's code.
        code: u32,
    },
    /// The requested revision was compacted.
    #[error("revision {0} of the store was compacted")]
    Compacted(Revision),
    /// A value cannot be read or written.
    #[error("cannot read or write the value of {key}")]
    Document {
        /// Its key.
        key: String,
        /// Why.
        source: DocumentError,
    },
}

impl StoreError {
    /// The error of a value that cannot be read or written.
    pub(super) fn document(key: &str) -> impl FnOnce(DocumentError) -> Self {
        let key = key.into();
        move |source| Self::Document { key, source }
    }
}

/// Whether this is etcd's message of a learner that got a request for voters. Nothing of it was carried out.
pub(super) fn is_learners(message: &str) -> bool {
    message.contains("not supported for learner")
}

/// Why one member did not carry out a call. Another one may.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot at the moment: it has no leader, is a learner, or timed out.
    #[error("{member} is unavailable: {message}")]
    Unavailable {
        /// The member.
        member: String,
        /// etcd's words.
        message: String,
    },
    /// Its response is not etcd's.
    #[error("{member} sent an answer that is not etcd's: {text}")]
    Malformed {
        /// The member.
        member: String,
        /// The beginning of the response.
        text: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl MemberError {
    /// Whether the member may have carried it out nevertheless.
    pub(super) fn maybe_done(&self) -> bool {
        match self {
            Self::Client(error) => error.was_sent(),
            Self::Unavailable { message, .. } if is_learners(message) => false,
            Self::Unavailable { .. } | Self::Malformed { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_has_done_nothing_and_who_has_no_leader_may_have() {
        let maybe_done = |message: &str| {
            let (member, message) = ("10.77.3.1:2379".into(), message.into());
            MemberError::Unavailable { member, message }.maybe_done()
        };
        assert!(!maybe_done("etcdserver: rpc not supported for learner"));
        assert!(maybe_done("etcdserver: no leader"));
    }
}
