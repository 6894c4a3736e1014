//! Messages between workers and supervisor, besides [`Orders`](crate::orders::Orders) and counters.

use super::orders::Member;
use super::sessions::Shown;
use gaiola_core::health::Input;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A request to list a worker's connections.
pub(super) struct SessionQuery {
    /// At most this many of them.
    pub(super) most: usize,
    /// Receives the number of connections, and those listed.
    pub(super) shown: oneshot::Sender<(u64, Vec<Shown>)>,
}

/// A worker's report on a member.
pub(super) struct MemberReport {
    /// The member.
    pub(super) member: Arc<Member>,
    /// What was observed.
    pub(super) input: Input,
}
