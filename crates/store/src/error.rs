//! What can go wrong with the store, in words of the store.

use super::{Expected, LeaseId, Revision};
use gaiola_net::client::ClientError;
use std::time::Duration;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed a key in between: read it again and decide again.
    #[error("cannot change {key}, which was to be {expected} and is {}", Expected::from(*found))]
    CompareAndSwap {
        /// The key.
        key: String,
        /// How it was to be.
        expected: Expected,
        /// When it was last changed; `None`: it does not exist.
        found: Option<Revision>,
    },
    /// The writer is not the leader any more.
    #[error("the term that began at revision {term} under {key} is over")]
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
        /// What was tried.
        what: String,
        /// For how long.
        waited: Duration,
        /// With `true` it may have been carried out all the same, or may yet be.
        maybe_done: bool,
        /// What the last member said or did.
        source: Box<MemberError>,
    },
    /// It is another store than before, or an older state of it. Not an empty store: nothing may be concluded from it.
    #[error("the store is gone: {0}")]
    Gone(String),
    /// etcd understood and refused.
    #[error("the store refused {what}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// etcd's words.
        message: String,
        /// gRPC's code.
        code: u32,
    },
    /// The revision asked for was compacted away.
    #[error("revision {0} of the store was compacted")]
    Compacted(Revision),
    /// A value is not the JSON that it should be.
    #[error("the value of {key} is not what it should be")]
    Json {
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Whether these are etcd's words of a learner that was asked what only voters do. Nothing of it was done.
pub(super) fn is_learners(message: &str) -> bool {
    message.contains("not supported for learner")
}

/// Why one member did not do it. Another one may.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It could not be asked, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot now: it has no leader, is a learner, or gave up waiting.
    #[error("{member} cannot: {message}")]
    Unavailable {
        /// The member.
        member: String,
        /// etcd's words.
        message: String,
    },
    /// It answered what etcd does not answer.
    #[error("{member} answered what cannot be understood: {text}")]
    Malformed {
        /// The member.
        member: String,
        /// The answer's beginning.
        text: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl MemberError {
    /// Whether the member may have done it all the same.
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
