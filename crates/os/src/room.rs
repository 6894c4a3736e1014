//! A limit on the connections of a status or control socket.
//!
//! Silent clients block nobody: at the limit, the connection that has been idle for longest is closed to admit a new one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;

/// Connections up to a limit.
pub struct Room {
    most: usize,
    inside: RefCell<Vec<Rc<Seat>>>,
    /// A connection has closed or become idle.
    changed: Notify,
}

/// State of one connection.
#[derive(Default)]
struct Seat {
    /// `None`: it is being served, or was asked to close.
    quiet_since: Cell<Option<Instant>>,
    /// Whether it was asked to close and has not closed yet.
    leaves: Cell<bool>,
    leave: Notify,
}

/// A connection that counts as open until this is dropped.
pub struct Guest {
    seat: Rc<Seat>,
    room: Rc<Room>,
}

impl Room {
    /// Sets the limit.
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            inside: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Admits a connection, which starts idle. Waits only while all open connections are being served.
    pub async fn enter(self: &Rc<Self>) -> Guest {
        while self.inside.borrow().len() >= self.most {
            self.dismiss_quietest();
            self.changed.notified().await;
        }
        let seat = Rc::<Seat>::default();
        seat.quiet_since.set(Some(Instant::now()));
        self.inside.borrow_mut().push(Rc::clone(&seat));
        Guest {
            seat,
            room: Rc::clone(self),
        }
    }

    fn dismiss_quietest(&self) {
        let inside = self.inside.borrow();
        if inside.iter().any(|seat| seat.leaves.get()) {
            return;
        }
        let quiet = inside
            .iter()
            .filter_map(|seat| Some((seat.quiet_since.get()?, seat)));
        if let Some((_, seat)) = quiet.min_by_key(|(since, _)| *since) {
            seat.quiet_since.set(None);
            seat.leaves.set(true);
            seat.leave.notify_one();
        }
    }
}

impl Guest {
    /// Marks it as being served.
    pub fn work(&self) {
        self.seat.quiet_since.set(None);
        self.seat.leaves.set(false);
    }

    /// Marks it as idle: the next move is the client's.
    pub fn rest(&self) {
        self.seat.quiet_since.set(Some(Instant::now()));
        self.room.changed.notify_one();
    }

    /// Returns when it should close for another one.
    pub async fn dismissed(&self) {
        self.seat.leave.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.room.inside.borrow_mut();
        inside.retain(|seat| !Rc::ptr_eq(seat, &self.seat));
        self.room.changed.notify_one();
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
        let room = Room::new(3);
        let busy = room.enter().await;
        let quiet = room.enter().await;
        let later = room.enter().await;
        busy.work();
        quiet.rest();
        later.rest();
        let mut entering = pin!(room.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(quiet.dismissed()));
        assert!(!is_ready(busy.dismissed()) && !is_ready(later.dismissed()));
        drop(quiet);
        assert!(entering.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn one_waits_while_something_is_done_for_all() {
        let room = Room::new(1);
        let guest = room.enter().await;
        guest.work();
        let mut entering = pin!(room.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        guest.rest();
        assert!(entering.as_mut().poll(&mut context).is_pending());
        assert!(is_ready(guest.dismissed()));
    }
}
