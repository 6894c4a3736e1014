//! Requests of all workers queued for a backend's servers, first in, first out.
//!
//! A place that becomes free is handed to the first waiter, so that no later request can take it.

use super::Member;
use gaiola_core::admission;
use gaiola_model::Time;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};

/// One backend's queue. It is locked when a server has no place left, and when a server with a limit frees one.
pub(crate) struct Queue {
    waiting: Mutex<admission::Queue<Waiter>>,
    /// How many of them accept a place of one member only.
    picky: AtomicUsize,
    /// Notified when servers have changed.
    changed: Arc<Notify>,
}

/// A queued request.
struct Waiter {
    /// The only member whose place it accepts.
    only: Option<Arc<Member>>,
    sender: oneshot::Sender<Place>,
}

impl Waiter {
    /// Whether it accepts this member's place. One reserved for `its_own` goes only to those that accept no other.
    fn takes(&self, member: &Arc<Member>, its_own: bool) -> bool {
        match &self.only {
            Some(only) => Arc::ptr_eq(only, member),
            None => !its_own,
        }
    }
}

/// What a waiter receives.
pub(crate) enum Turn {
    /// It has left the queue with this place.
    Place(Place),
    /// Servers have changed: check whether one is usable now. The waiter keeps its position in the queue.
    Look,
}

/// One of a member's limited places. When dropped, it goes to the next waiter.
pub(crate) struct Place {
    pub(crate) member: Arc<Member>,
    queue: Arc<Queue>,
    given_back: bool,
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
    place: oneshot::Receiver<Place>,
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

    /// Joins unless `size` requests are queued already, for a place of any member or of `only` one. Try to choose a
    /// server once more afterwards: a place given back before the join is not announced.
    pub(crate) fn join(
        self: &Arc<Self>,
        size: u32,
        deadline: Time,
        only: Option<Arc<Member>>,
    ) -> Option<Waiting> {
        let (sender, place) = oneshot::channel();
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
            place,
            changed: Box::pin(Arc::clone(&self.changed).notified_owned()),
        })
    }

    /// Takes one of the member's places, if it has one left.
    pub(crate) fn place(self: &Arc<Self>, member: &Arc<Member>, limit: u32) -> Option<Place> {
        member.take_place(limit).then(|| Place {
            member: Arc::clone(member),
            queue: Arc::clone(self),
            given_back: false,
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
            place = &mut self.place => place.map_or(Turn::Look, Turn::Place),
            () = &mut self.changed => {
                let changed = Arc::clone(&self.queue.changed).notified_owned();
                self.changed.set(changed);
                Turn::Look
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A place sent meanwhile is dropped with the channel, and so goes to the next waiter.
        self.queue.lock().cancel(self.ticket);
        if let Some(only) = &self.only {
            self.queue.picky.fetch_sub(1, Ordering::Relaxed);
            only.wait_no_longer();
        }
    }
}

impl Place {
    /// Gives the place back without offering it to the queue: the member takes no traffic now, or has more requests
    /// than it may.
    pub(crate) fn give_back(mut self) {
        self.given_back = true;
        self.member.give_place();
    }

    /// Hands the place to the first waiter for this very member, which takes no other traffic now.
    pub(crate) fn keep_to_its_own(mut self) {
        self.pass_on(true);
    }

    fn pass_on(&mut self, its_own: bool) {
        self.given_back = true;
        // The lock is held until the place is given back, so that a request that joins meanwhile finds it free.
        let mut waiting = self.queue.lock();
        while let Some(waiter) = waiting.pop(|waiter| waiter.takes(&self.member, its_own)) {
            let place = Self {
                member: Arc::clone(&self.member),
                queue: Arc::clone(&self.queue),
                given_back: false,
            };
            match waiter.sender.send(place) {
                Ok(()) => return,
                Err(mut unwanted) => unwanted.given_back = true, // still ours
            }
        }
        self.member.give_place();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.given_back {
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
        let place = queue.place(&member, 1).unwrap();
        let mut first = queue.join(10, Time::ZERO, None).unwrap();
        let _second = queue.join(10, Time::ZERO, None).unwrap();
        drop(place);
        assert!(queue.place(&member, 1).is_none(), "it was handed over");
        let Turn::Place(place) = first.turn().await else {
            panic!("no place");
        };
        assert_eq!(place.member.taken(), 1);
    }

    #[test]
    fn one_that_left_loses_no_place() {
        let (queue, member) = (Arc::<Queue>::default(), member());
        let place = queue.place(&member, 1).unwrap();
        let leaver = queue.join(10, Time::ZERO, None).unwrap();
        drop(place); // handed to the leaver, who has not looked yet
        drop(leaver);
        assert_eq!(member.taken(), 0);
    }

    #[tokio::test]
    async fn one_that_waits_for_a_member_gets_no_other_place() {
        let (queue, wanted, other) = (Arc::<Queue>::default(), member(), member());
        let places = [&wanted, &other].map(|member| queue.place(member, 1).unwrap());
        let only = Some(Arc::clone(&wanted));
        let mut picky = queue.join(10, Time::ZERO, only).unwrap();
        let mut any = queue.join(10, Time::ZERO, None).unwrap();
        let [its, others] = places;
        drop(others);
        let Turn::Place(place) = any.turn().await else {
            panic!("no place");
        };
        assert!(Arc::ptr_eq(&place.member, &other));
        let _last = queue.join(10, Time::ZERO, None).unwrap();
        its.keep_to_its_own();
        let Turn::Place(place) = picky.turn().await else {
            panic!("no place");
        };
        place.keep_to_its_own();
        assert_eq!((wanted.taken(), queue.waiting()), (0, 1));
    }

    #[test]
    fn each_is_told_how_many_wait_before_it_for_the_same() {
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
        let place = queue.place(&member, 1).unwrap();
        let mut first = queue.join(2, Time::ZERO, None).unwrap();
        let mut second = queue.join(2, Time::ZERO, None).unwrap();
        queue.servers_changed();
        assert!(matches!(second.turn().await, Turn::Look));
        assert!(matches!(first.turn().await, Turn::Look));
        assert!(queue.join(2, Time::ZERO, None).is_none(), "it is full");
        queue.servers_changed();
        assert!(matches!(first.turn().await, Turn::Look), "each time");
        drop(place);
        let turn = first.turn().await;
        assert!(
            matches!(turn, Turn::Place(_)),
            "its turn is still the first"
        );
        assert_eq!(queue.waiting(), 1);
    }
}
