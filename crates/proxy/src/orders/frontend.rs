//! A frontend as all threads see it: its connection counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A frontend's connections on all workers. The value is kept for as long as the frontend keeps its name.
pub(crate) struct FrontendShare {
    /// The frontend's name.
    pub(crate) name: String,
    open: AtomicU32,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// The second, counted from 1, in which it was last logged as full.
    logged: AtomicU64,
    full: AtomicBool,
    closed: Notify,
    /// Tasks that wait to open another connection.
    waiting: AtomicU32,
    /// How many idle connections should close for them; meaningless while nobody waits.
    close_requests: AtomicU32,
    crowded: Notify,
}

impl FrontendShare {
    /// A frontend without connections.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            open: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            full: AtomicBool::new(false),
            closed: Notify::new(),
            waiting: AtomicU32::new(0),
            close_requests: AtomicU32::new(0),
            crowded: Notify::new(),
        }
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Counts another connection unless `limit` are open already.
    pub(crate) fn try_open(&self, limit: u32) -> bool {
        let fits = |open| (open < limit).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok()
    }

    /// Counts another connection as soon as fewer than `limit` are open. Meanwhile it asks idle ones to close: several
    /// at a time under a high limit, since finding one means searching all.
    pub(crate) async fn open_when_room(&self, limit: u32) {
        let _waits = Waits::of(&self.waiting);
        while !self.try_open(limit) {
            let closed = self.closed.notified();
            self.full.store(true, Ordering::SeqCst);
            if self.try_open(limit) {
                break;
            }
            self.request_closes((limit / 64).clamp(1, 32));
            closed.await;
        }
    }

    /// Asks for this many idle connections to close, in total.
    fn request_closes(&self, some: u32) {
        self.close_requests.fetch_max(some, Ordering::SeqCst);
        self.crowded.notify_waiters();
    }

    /// Whether new connections wait for idle ones to close.
    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.close_requests.load(Ordering::Relaxed) > 0
    }

    /// Whether an idle connection should close for one that waits; the caller must then close one, or report that it
    /// [cannot](Self::request_close_again).
    pub(crate) fn takes_close_request(&self) -> bool {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let one_less = |requests: u32| requests.checked_sub(1);
        self.close_requests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }

    /// A connection chosen to close is busy again: another must close in its place.
    pub(crate) fn request_close_again(&self) {
        self.request_closes(1);
    }

    /// Completes when idle connections are next asked to close, counted from this call.
    pub(crate) fn crowded(&self) -> impl Future<Output = ()> {
        self.crowded.notified()
    }

    /// Whether to log in this second that it is full: once a minute, by whichever worker comes first.
    pub(crate) fn may_log(&self, second: u64) -> bool {
        let due = |logged| (logged == 0 || logged + 60 <= second + 1).then_some(second + 1);
        self.logged
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }

    /// A counted connection has been accepted.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A limit rejected an accepted connection.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections a limit rejected.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A connection has closed.
    pub(crate) fn close(&self) {
        let before = self.open.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a connection closed twice");
        if self.full.swap(false, Ordering::SeqCst) {
            self.closed.notify_waiters();
        }
    }
}

/// Counts a waiting task.
struct Waits<'a>(&'a AtomicU32);

impl<'a> Waits<'a> {
    fn of(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn a_full_frontend_opens_nothing_more() {
        let frontend = FrontendShare::new("site");
        assert!(frontend.try_open(1));
        assert!(!frontend.try_open(1));
        frontend.close();
        assert!(frontend.try_open(1));
    }

    #[tokio::test]
    async fn a_waiting_connection_asks_an_idle_one_to_close() {
        let frontend = FrontendShare::new("site");
        assert!(frontend.try_open(1) && !frontend.takes_close_request());
        let waits = async {
            frontend.open_when_room(1).await;
            assert!(!frontend.takes_close_request());
        };
        let closes = async {
            while !frontend.takes_close_request() {
                tokio::task::yield_now().await;
            }
            frontend.close();
        };
        tokio::join!(waits, closes);
    }

    #[test]
    fn a_connection_that_finds_room_leaves_the_requests_of_others() {
        let frontend = FrontendShare::new("site");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(frontend.try_open(1));
        let mut waits = pin!(frontend.open_when_room(1));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        assert!(pin!(frontend.open_when_room(2)).poll(&mut cx).is_ready());
        assert!(frontend.is_crowded() && frontend.takes_close_request());
    }

    #[test]
    fn a_request_to_close_that_was_taken_in_vain_passes_to_another_connection() {
        let frontend = FrontendShare::new("site");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(frontend.try_open(1));
        {
            let mut waits = pin!(frontend.open_when_room(1));
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            assert!(frontend.takes_close_request() && !frontend.takes_close_request());
            let mut crowded = pin!(frontend.crowded());
            frontend.request_close_again();
            assert!(crowded.as_mut().poll(&mut cx).is_ready());
            assert!(frontend.takes_close_request());
            frontend.request_close_again();
        }
        assert!(!frontend.takes_close_request(), "nobody waits any more");
    }

    #[test]
    fn that_it_is_full_is_said_once_a_minute() {
        let frontend = FrontendShare::new("site");
        let logged = [0, 0, 30, 59, 60, 61, 130].map(|second| frontend.may_log(second));
        assert_eq!(logged, [true, false, false, false, true, false, true]);
    }
}
