//! Requests of all workers queued for a backend's servers, first in, first out.
//!
//! A slot that becomes free passes to the first waiter, so that no later request can take it.

use super::Member;
use gaiola_core::admission;
use gaiola_model::Time;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};

/// One backend's queue. It is locked when a server has no slot left, and when a server with a limit frees one.
pub(crate) struct Queue {
    waiting: Mutex<admission::Queue<Waiter>>,
    /// How many of them accept a slot of one member only.
    picky: AtomicUsize,
    /// Notified when servers have changed.
    changed: Arc<Notify>,
}

/// A queued request.
struct Waiter {
    /// The only member whose slot it accepts.
    only: Option<Arc<Member>>,
    sender: oneshot::Sender<Slot>,
}

impl Waiter {
    /// Whether it accepts this member's slot. One reserved for `its_own` goes only to those that accept no other.
    fn takes(&self, member: &Arc<Member>, its_own: bool) -> bool {
        match &self.only {
            Some(only) => Arc::ptr_eq(only, member),
            None => !its_own,
        }
    }
}

/// What a waiter receives.
pub(crate) enum Turn {
    /// It has left the queue with this slot.
    Slot(Slot),
    /// Servers have changed: check whether one is usable now. The waiter keeps its position in the queue.
    CheckAgain,
}

/// One of a member's limited slots. When dropped, it goes to the next waiter.
pub(crate) struct Slot {
    pub(crate) member: Arc<Member>,
    queue: Arc<Queue>,
    returned: bool,
}

/// How many waited ahead of a request. As in HAProxy, each server has a queue of its own for requests that accept no
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// For the same server only.
    pub(crate) server: usize,
    /// For any server of the backend.
    pub(crate) backend: usize,
}

/// A request's position in the queue. Dropping it leaves the queue.
pub(crate) struct Waiting {
    /// How many were queued ahead.
    pub(crate) ahead: Ahead,
    queue: Arc<Queue>,
    only: Option<Arc<Member>>,
    ticket: admission::Ticket,
    slot: oneshot::Receiver<Slot>,
    changed: Pin<Box<OwnedNotified>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(admission::Queue::new(0)),
            picky: AtomicUsize::new(0),
            changed: Arc::default(),
        }
    }
}

impl Queue {
    /// How many are queued.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Joins unless `size` requests are queued already, for a slot of any member or of `only` one. Try to choose a
    /// server once more afterwards: a slot given back before the join is not announced.
    pub(crate) fn join(
        self: &Arc<Self>,
        size: u32,
        deadline: Time,
        only: Option<Arc<Member>>,
    ) -> Option<Waiting> {
        let (sender, slot) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.resize(size as usize);
        let all = waiting.len();
        let waiter = Waiter {
            only: only.clone(),
            sender,
        };
        let ticket = waiting.push(waiter, deadline).ok()?;
        let ahead = match &only {
            Some(only) => {
                self.picky.fetch_add(1, Ordering::Relaxed);
                let server = only.wait();
                Ahead { server, backend: 0 }
            }
            None => Ahead {
                server: 0,
                backend: all.saturating_sub(self.picky.load(Ordering::Relaxed)),
            },
        };
        Some(Waiting {
            ahead,
            queue: Arc::clone(self),
            only,
            ticket,
            slot,
            changed: Box::pin(Arc::clone(&self.changed).notified_owned()),
        })
    }

    /// Takes one of the member's slots, if it has one left.
    pub(crate) fn slot(self: &Arc<Self>, member: &Arc<Member>, limit: u32) -> Option<Slot> {
        member.take_slot(limit).then(|| Slot {
            member: Arc::clone(member),
            queue: Arc::clone(self),
            returned: false,
        })
    }

    /// Servers have changed: all waiters check again, in their order.
    pub(crate) fn servers_changed(&self) {
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, admission::Queue<Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Waits for the next event.
    pub(crate) async fn turn(&mut self) -> Turn {
        tokio::select! {
            biased;
            // A queue never drops a waiter without sending to it.
            slot = &mut self.slot => slot.map_or(Turn::CheckAgain, Turn::Slot),
            () = &mut self.changed => {
                let changed = Arc::clone(&self.queue.changed).notified_owned();
                self.changed.set(changed);
                Turn::CheckAgain
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A slot sent meanwhile is dropped with the channel, and so goes to the next waiter.
        self.queue.lock().cancel(self.ticket);
        if let Some(only) = &self.only {
            self.queue.picky.fetch_sub(1, Ordering::Relaxed);
            only.wait_no_longer();
        }
    }
}

impl Slot {
    /// Gives the slot back without offering it to the queue: the member takes no traffic now, or has more requests
    /// than it may.
    pub(crate) fn return_unoffered(mut self) {
        self.returned = true;
        self.member.return_slot();
    }

    /// Passes the slot to the first waiter for this very member, which takes no other traffic now.
    pub(crate) fn pass_to_its_own(mut self) {
        self.pass_on(true);
    }

    fn pass_on(&mut self, its_own: bool) {
        self.returned = true;
        // The lock is held until the slot is given back, so that a request that joins meanwhile finds it free.
        let mut waiting = self.queue.lock();
        while let Some(waiter) = waiting.pop(|waiter| waiter.takes(&self.member, its_own)) {
            let slot = Self {
                member: Arc::clone(&self.member),
                queue: Arc::clone(&self.queue),
                returned: false,
            };
            match waiter.sender.send(slot) {
                Ok(()) => return,
                // Not passed on: it is still held here.
                Err(mut unwanted) => unwanted.returned = true,
            }
        }
        self.member.return_slot();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.returned {
            self.pass_on(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::proxy::Server;

    fn member() -> Arc<Member> {
        let server = Server::new("app1.1", ([127, 0, 0, 1], 3001));
        Arc::new(Member::new("app", &server, 1))
    }

    #[test]
    fn a_full_queue_takes_nobody() {
        let queue = Arc::<Queue>::default();
        let first = queue.join(1, Time::ZERO, None);
        assert!(first.is_some());
        assert!(queue.join(1, Time::ZERO, None).is_none());
        drop(first);
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test]
    async fn a_free_place_goes_to_the_first_that_waits() {
        let (queue, member) = (Arc::<Queue>::default(), member());
        let slot = queue.slot(&member, 1).unwrap();
        let mut first = queue.join(10, Time::ZERO, None).unwrap();
        let _second = queue.join(10, Time::ZERO, None).unwrap();
        drop(slot);
        assert!(queue.slot(&member, 1).is_none(), "it was passed on");
        let Turn::Slot(slot) = first.turn().await else {
            panic!("no slot");
        };
        assert_eq!(slot.member.taken(), 1);
    }

    #[test]
    fn one_that_left_loses_no_place() {
        let (queue, member) = (Arc::<Queue>::default(), member());
        let slot = queue.slot(&member, 1).unwrap();
        let leaver = queue.join(10, Time::ZERO, None).unwrap();
        // It passes to the canceled waiter, which has not noticed yet.
        drop(slot);
        drop(leaver);
        assert_eq!(member.taken(), 0);
    }

    #[tokio::test]
    async fn one_that_waits_for_a_member_gets_no_other_place() {
        let (queue, wanted, other) = (Arc::<Queue>::default(), member(), member());
        let slots = [&wanted, &other].map(|member| queue.slot(member, 1).unwrap());
        let only = Some(Arc::clone(&wanted));
        let mut picky = queue.join(10, Time::ZERO, only).unwrap();
        let mut any = queue.join(10, Time::ZERO, None).unwrap();
        let [its, others] = slots;
        drop(others);
        let Turn::Slot(slot) = any.turn().await else {
            panic!("no slot");
        };
        assert!(Arc::ptr_eq(&slot.member, &other));
        let _last = queue.join(10, Time::ZERO, None).unwrap();
        its.pass_to_its_own();
        let Turn::Slot(slot) = picky.turn().await else {
            panic!("no slot");
        };
        slot.pass_to_its_own();
        assert_eq!((wanted.taken(), queue.waiting()), (0, 1));
    }

    #[test]
    fn each_waiter_gets_the_number_ahead_of_it_for_the_same_server() {
        let (queue, one, other) = (Arc::<Queue>::default(), member(), member());
        let join = |only: Option<&Arc<Member>>| queue.join(10, Time::ZERO, only.cloned()).unwrap();
        let ahead = |server, backend| Ahead { server, backend };
        let first = join(Some(&one));
        let second = join(Some(&one));
        assert_eq!((first.ahead, second.ahead), (ahead(0, 0), ahead(1, 0)));
        let any = join(None);
        assert_eq!(any.ahead, ahead(0, 0));
        assert_eq!(join(None).ahead, ahead(0, 1));
        assert_eq!(join(Some(&other)).ahead, ahead(0, 0));
        drop(first);
        assert_eq!(join(Some(&one)).ahead, ahead(1, 0));
    }

    #[tokio::test]
    async fn changed_servers_wake_everybody_and_nobody_loses_a_turn() {
        let (queue, member) = (Arc::<Queue>::default(), member());
        let slot = queue.slot(&member, 1).unwrap();
        let mut first = queue.join(2, Time::ZERO, None).unwrap();
        let mut second = queue.join(2, Time::ZERO, None).unwrap();
        queue.servers_changed();
        assert!(matches!(second.turn().await, Turn::CheckAgain));
        assert!(matches!(first.turn().await, Turn::CheckAgain));
        assert!(queue.join(2, Time::ZERO, None).is_none(), "it is full");
        queue.servers_changed();
        assert!(matches!(first.turn().await, Turn::CheckAgain), "each time");
        drop(slot);
        let turn = first.turn().await;
        assert!(matches!(turn, Turn::Slot(_)), "its turn is still the first");
        assert_eq!(queue.waiting(), 1);
    }
}
