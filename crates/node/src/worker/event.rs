//! Something that happens now and then, for which many wait while they do other things.
//!
//! To begin and to stop waiting costs a few instructions and touches nobody else who waits, as the lists of
//! `tokio::sync::Notify` do: with thousands of connections that was a part of each request's cost.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What happens, on one thread.
#[derive(Default)]
pub(super) struct Event {
    times: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

/// Ready once the event has happened since this was made.
pub(super) struct Listener<'a> {
    event: &'a Event,
    seen: u64,
    place: Option<usize>,
}

impl Event {
    /// Waits from now on, also before it is polled.
    pub(super) const fn listen(&self) -> Listener<'_> {
        Listener {
            event: self,
            seen: self.times.get(),
            place: None,
        }
    }

    /// It happens: everyone who waits is woken.
    pub(super) fn happen(&self) {
        self.times.set(self.times.get() + 1);
        let waiting = self.waiting.borrow();
        waiting.iter().for_each(|(_, waker)| waker.wake_by_ref());
    }
}

impl Future for Listener<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.event.times.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.event.waiting.borrow_mut();
        match self.place {
            Some(place) => waiting[place].clone_from(cx.waker()),
            None => self.place = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.event.waiting.borrow_mut().remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    fn is_ready(listener: &mut Listener<'_>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(listener).poll(&mut cx).is_ready()
    }

    #[test]
    fn only_what_happens_afterwards_counts() {
        let event = Event::default();
        event.happen();
        let mut listener = event.listen();
        assert!(!is_ready(&mut listener));
        event.happen();
        assert!(is_ready(&mut listener));
        assert!(is_ready(&mut event_before(&event)));
        assert!(!is_ready(&mut event.listen()));
    }

    /// One that was made before the event, and not polled until after it.
    fn event_before(event: &Event) -> Listener<'_> {
        let listener = event.listen();
        event.happen();
        listener
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let event = Event::default();
        let mut listeners: Vec<_> = (0..3).map(|_| event.listen()).collect();
        assert!(!listeners.iter_mut().any(is_ready));
        listeners.remove(1);
        assert_eq!(event.waiting.borrow().len(), 2);
        drop(listeners);
        assert!(event.waiting.borrow().is_empty());
    }
}
