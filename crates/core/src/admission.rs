//! The queue of sessions that wait for a server with room.

use gaiola_model::Time;
use std::collections::VecDeque;

/// Sessions in order of arrival, each with its deadline. It never holds more than its size.
///
/// ```
/// use gaiola_core::admission::{Full, Queue};
/// use gaiola_model::Time;
///
/// let mut queue = Queue::new(1);
/// queue.push("a", Time::ZERO).unwrap();
/// assert_eq!(queue.push("b", Time::ZERO), Err(Full("b")));
/// assert_eq!(queue.pop(|_| true), Some("a"));
/// ```
#[derive(Clone, Debug)]
pub struct Queue<T> {
    waiting: VecDeque<Waiter<T>>,
    size: usize,
    next_ticket: u64,
    /// No deadline is earlier; it may belong to a session that has already left.
    earliest: Option<Time>,
}

#[derive(Clone, Debug)]
struct Waiter<T> {
    ticket: Ticket,
    deadline: Time,
    session: T,
}

/// Identifies a session in the queue. Tickets are unique within a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The queue is full; the session is returned so that it can be rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full<T>(pub T);

impl<T> Queue<T> {
    /// An empty queue of at most `size` sessions.
    pub const fn new(size: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            size,
            next_ticket: 0,
            earliest: None,
        }
    }

    /// Changes the size. Sessions beyond a smaller size stay until they are served or time out.
    pub fn resize(&mut self, size: usize) {
        self.size = size;
    }

    /// Appends a session, which times out at `deadline`.
    ///
    /// # Errors
    /// The session itself if the queue is full.
    pub fn push(&mut self, session: T, deadline: Time) -> Result<Ticket, Full<T>> {
        if self.waiting.len() >= self.size {
            return Err(Full(session));
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.earliest = Some(self.earliest.map_or(deadline, |held| held.min(deadline)));
        self.waiting.push_back(Waiter {
            ticket,
            deadline,
            session,
        });
        Ok(ticket)
    }

    /// Takes the longest-waiting session that is `wanted`; call [`Self::expire`] first.
    pub fn pop(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let index = self
            .waiting
            .iter()
            .position(|waiting| wanted(&waiting.session))?;
        self.waiting.remove(index).map(|waiting| waiting.session)
    }

    /// Removes a session that no longer waits; `None` if it has already left.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let index = self
            .waiting
            .binary_search_by_key(&ticket, |waiting| waiting.ticket)
            .ok()?;
        self.waiting.remove(index).map(|waiting| waiting.session)
    }

    /// Moves the sessions whose deadline has passed to `out`, in order.
    pub fn expire(&mut self, now: Time, out: &mut Vec<T>) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some(waiting) if waiting.deadline <= now => out.push(waiting.session),
                Some(waiting) => self.waiting.push_back(waiting),
                None => break,
            }
        }
        self.earliest = self.waiting.iter().map(|waiting| waiting.deadline).min();
    }

    /// When to call [`Self::expire`]; by then there may be nothing to expire.
    pub fn next_deadline(&self) -> Option<Time> {
        self.earliest.filter(|_| !self.waiting.is_empty())
    }

    /// Number of waiting sessions.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no session waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn first_come_first_served() {
        let mut queue = Queue::new(3);
        for session in 0..3 {
            queue.push(session, at(100)).unwrap();
        }
        assert_eq!(queue.push(3, at(100)), Err(Full(3)));
        assert_eq!(
            (queue.pop(|_| true), queue.pop(|_| true)),
            (Some(0), Some(1))
        );
        assert!(queue.push(4, at(100)).is_ok());
        assert_eq!(
            (
                queue.pop(|_| true),
                queue.pop(|_| true),
                queue.pop(|_| true)
            ),
            (Some(2), Some(4), None)
        );
    }

    #[test]
    fn those_whose_time_has_come_leave_and_the_order_of_the_rest_stays() {
        let mut queue = Queue::new(10);
        for (session, deadline) in [(0, 50), (1, 200), (2, 50), (3, 300)] {
            queue.push(session, at(deadline)).unwrap();
        }
        assert_eq!(queue.next_deadline(), Some(at(50)));
        let mut out = Vec::new();
        queue.expire(at(49), &mut out);
        assert!(out.is_empty());
        queue.expire(at(50), &mut out);
        assert_eq!(out, [0, 2]);
        assert_eq!(queue.next_deadline(), Some(at(200)));
        assert_eq!(
            (queue.pop(|_| true), queue.pop(|_| true)),
            (Some(1), Some(3))
        );
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn a_session_that_leaves_is_found_by_its_ticket() {
        let mut queue = Queue::new(10);
        let tickets: Vec<_> = (0..4).map(|n| queue.push(n, at(9)).unwrap()).collect();
        assert_eq!(queue.pop(|_| true), Some(0));
        assert_eq!(queue.cancel(tickets[2]), Some(2));
        assert_eq!(queue.cancel(tickets[2]), None);
        assert_eq!(queue.cancel(tickets[0]), None);
        assert_eq!(
            (queue.pop(|_| true), queue.pop(|_| true), queue.len()),
            (Some(1), Some(3), 0)
        );
    }

    #[test]
    fn a_smaller_size_refuses_newcomers_only() {
        let mut queue = Queue::new(3);
        queue.push(0, at(1)).unwrap();
        queue.push(1, at(1)).unwrap();
        queue.resize(1);
        assert_eq!(queue.len(), 2);
        assert!(queue.push(2, at(1)).is_err());
    }
}
