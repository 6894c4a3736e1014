//! A rare event that many tasks await while they do other work.
//!
//! To begin and to stop waiting costs a few instructions and, unlike with the lists of `tokio::sync::Notify`, touches
//! no other waiter: with thousands of connections that was a part of each request's cost.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The event, on one thread.
#[derive(Default)]
pub(super) struct Broadcast {
    times: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

/// Ready once the event has happened after this was created.
pub(super) struct Notified<'a> {
    event: &'a Broadcast,
    seen: u64,
    key: Option<usize>,
}

impl Broadcast {
    /// Waits for events from now on, even before its first poll.
    pub(super) const fn notified(&self) -> Notified<'_> {
        Notified {
            event: self,
            seen: self.times.get(),
            key: None,
        }
    }

    /// How often it has happened.
    pub(super) const fn times(&self) -> u64 {
        self.times.get()
    }

    /// Wakes all waiters.
    pub(super) fn notify_all(&self) {
        self.times.set(self.times.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        waiting.shrink_to_fit();
        waiting.iter().for_each(|(_, waker)| waker.wake_by_ref());
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.event.times.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.event.waiting.borrow_mut();
        match self.key {
            Some(key) => waiting[key].clone_from(cx.waker()),
            None => self.key = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.event.waiting.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    fn is_ready(notified: &mut Notified<'_>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(notified).poll(&mut cx).is_ready()
    }

    #[test]
    fn only_what_happens_afterwards_counts() {
        let event = Broadcast::default();
        event.notify_all();
        let mut notified = event.notified();
        assert!(!is_ready(&mut notified));
        event.notify_all();
        assert!(is_ready(&mut notified));
        assert!(is_ready(&mut event_before(&event)));
        assert!(!is_ready(&mut event.notified()));
    }

    /// Created before the event, and not polled until after it.
    fn event_before(event: &Broadcast) -> Notified<'_> {
        let notified = event.notified();
        event.notify_all();
        notified
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_last_task_to_poll_is_woken() {
        let event = Broadcast::default();
        let wakers: [Arc<Woken>; 2] = Default::default();
        let mut notified = event.notified();
        for woken in &wakers {
            let waker = Arc::clone(woken).into();
            let polled = Pin::new(&mut notified).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        event.notify_all();
        assert_eq!(
            wakers
                .each_ref()
                .map(|woken| woken.0.load(Ordering::SeqCst)),
            [0, 1]
        );
        drop(notified);
        event.notify_all();
        assert_eq!(wakers[1].0.load(Ordering::SeqCst), 1, "it waits no more");
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let event = Broadcast::default();
        let mut all: Vec<_> = (0..3).map(|_| event.notified()).collect();
        assert!(!all.iter_mut().any(is_ready));
        all.remove(1);
        assert_eq!(event.waiting.borrow().len(), 2);
        drop(all);
        assert!(event.waiting.borrow().is_empty());
    }
}
