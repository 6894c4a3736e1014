//! A limit on the connections of a status or control socket.
//!
//! Silent clients block nobody: at the limit, the connection that has been idle for longest is closed to admit a new one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;

/// Connections up to a limit.
pub struct ConnectionLimit {
    most: usize,
    inside: RefCell<Vec<Rc<Slot>>>,
    /// A connection has closed or become idle.
    changed: Notify,
}

/// State of one connection.
#[derive(Default)]
struct Slot {
    /// `None`: it is being served, or was asked to close.
    quiet_since: Cell<Option<Instant>>,
    /// Whether it was asked to close and has not closed yet.
    leaves: Cell<bool>,
    leave: Notify,
}

/// A connection that counts as open until this is dropped.
pub struct Permit {
    slot: Rc<Slot>,
    limit: Rc<ConnectionLimit>,
}

impl ConnectionLimit {
    /// Sets the limit.
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            inside: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Admits a connection, which starts idle. Waits only while all open connections are being served.
    pub async fn enter(self: &Rc<Self>) -> Permit {
        while self.inside.borrow().len() >= self.most {
            self.dismiss_quietest();
            self.changed.notified().await;
        }
        let slot = Rc::<Slot>::default();
        slot.quiet_since.set(Some(Instant::now()));
        self.inside.borrow_mut().push(Rc::clone(&slot));
        Permit {
            slot,
            limit: Rc::clone(self),
        }
    }

    fn dismiss_quietest(&self) {
        let inside = self.inside.borrow();
        if inside.iter().any(|slot| slot.leaves.get()) {
            return;
        }
        let quiet = inside
            .iter()
            .filter_map(|slot| Some((slot.quiet_since.get()?, slot)));
        if let Some((_, slot)) = quiet.min_by_key(|(since, _)| *since) {
            slot.quiet_since.set(None);
            slot.leaves.set(true);
            slot.leave.notify_one();
        }
    }
}

impl Permit {
    /// Marks it as being served.
    pub fn work(&self) {
        self.slot.quiet_since.set(None);
        self.slot.leaves.set(false);
    }

    /// Marks it as idle: the next move is the client's.
    pub fn rest(&self) {
        self.slot.quiet_since.set(Some(Instant::now()));
        self.limit.changed.notify_one();
    }

    /// Returns when it should close for another one.
    pub async fn dismissed(&self) {
        self.slot.leave.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inside = self.limit.inside.borrow_mut();
        inside.retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        self.limit.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn the_quietest_leaves_for_the_one_that_comes() {
        let limit = ConnectionLimit::new(3);
        let busy = limit.enter().await;
        let quiet = limit.enter().await;
        let later = limit.enter().await;
        busy.work();
        quiet.rest();
        later.rest();
        let mut entering = pin!(limit.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(quiet.dismissed()));
        assert!(!is_ready(busy.dismissed()) && !is_ready(later.dismissed()));
        drop(quiet);
        assert!(entering.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn one_waits_while_something_is_done_for_all() {
        let limit = ConnectionLimit::new(1);
        let permit = limit.enter().await;
        permit.work();
        let mut entering = pin!(limit.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        permit.rest();
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(permit.dismissed()));
    }
}
