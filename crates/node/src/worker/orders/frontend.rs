//! A frontend as all threads know it: how many connections it has.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A frontend's connections on all workers. It stays the same value as long as the frontend's name does.
pub(in crate::worker) struct FrontendShare {
    /// The frontend's name.
    pub(in crate::worker) name: String,
    open: AtomicU32,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// The second, counted from 1, in which it was last said that it is full.
    told: AtomicU64,
    full: AtomicBool,
    closed: Notify,
}

impl FrontendShare {
    /// A frontend without connections.
    pub(in crate::worker) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            open: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            told: AtomicU64::new(0),
            full: AtomicBool::new(false),
            closed: Notify::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// How many connections are open.
    pub(in crate::worker) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Counts a further connection if at most `limit` are then open.
    pub(in crate::worker) fn try_open(&self, limit: u32) -> bool {
        let fits = |open| (open < limit).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok()
    }

    /// Counts a further connection as soon as at most `limit` are then open.
    pub(in crate::worker) async fn open_when_room(&self, limit: u32) {
        while !self.try_open(limit) {
            let closed = self.closed.notified();
            self.full.store(true, Ordering::SeqCst);
            if self.try_open(limit) {
                return;
            }
            closed.await;
        }
    }

    /// Whether it is to be said again that it is full, in this second: once a minute, by whichever worker comes first.
    pub(in crate::worker) fn may_tell(&self, second: u64) -> bool {
        let due = |told| (told == 0 || told + 60 <= second + 1).then_some(second + 1);
        self.told
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }

    /// One that was counted has been accepted.
    pub(in crate::worker) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were accepted.
    pub(in crate::worker) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A connection has closed.
    pub(in crate::worker) fn close(&self) {
        let before = self.open.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a connection closed twice");
        if self.full.swap(false, Ordering::SeqCst) {
            self.closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_frontend_opens_nothing_more() {
        let frontend = FrontendShare::new("site");
        assert!(frontend.try_open(1));
        assert!(!frontend.try_open(1));
        frontend.close();
        assert!(frontend.try_open(1));
    }

    #[test]
    fn that_it_is_full_is_said_once_a_minute() {
        let frontend = FrontendShare::new("site");
        let told = [0, 0, 30, 59, 60, 61, 130].map(|second| frontend.may_tell(second));
        assert_eq!(told, [true, false, false, false, true, false, true]);
    /// A limit has refused one that was accepted.
    pub(in crate::worker) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many a limit has refused.
    pub(in crate::worker) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    }
}
