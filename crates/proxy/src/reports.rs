//! What workers and the supervisor say to each other, apart from [`Orders`](crate::orders::Orders) and counters.

use super::orders::Member;
use super::sessions::Shown;
use gaiola_core::health::Input;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Somebody wants to see a worker's connections.
pub(super) struct Look {
    /// At most so many of them.
    pub(super) most: usize,
    /// Is told them, and how many there are in all.
    pub(super) shown: oneshot::Sender<(u64, Vec<Shown>)>,
}

/// What a worker tells about a member.
pub(super) struct MemberReport {
    /// The member.
    pub(super) member: Arc<Member>,
    /// What was seen.
    pub(super) input: Input,
}
