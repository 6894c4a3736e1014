//! A backend's member as all threads see it.

use crate::counters::{Apart, Count};
use gaiola_model::proxy::{Address, ProxyVersion, Results, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// One member of a backend, shared by all threads. The value is kept for as long as backend, name, address and
/// PROXY header stay the same. Its TLS may change: sessions from before still belong to it.
pub(crate) struct Member {
    /// The backend's name.
    pub(crate) backend: String,
    /// The member's name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: Address,
    /// Version of the PROXY header sent at the start of each connection, if any.
    pub(crate) send_proxy: Option<ProxyVersion>,
    tallies: Arc<[Apart<Tally>]>,
    /// Requests in flight on all workers, where their number is limited.
    taken: AtomicU32,
    /// Requests that wait for this member only.
    waiting: AtomicUsize,
    /// How often an operator ended its sessions.
    ended: AtomicU64,
}

impl Member {
    /// A member without requests, in a process with this many workers.
    pub(crate) fn new(backend: &str, server: &Server, workers: usize) -> Self {
        Self {
            backend: backend.into(),
            name: server.name.clone(),
            address: server.address.clone(),
            send_proxy: server.send_proxy,
            tallies: (0..workers).map(|_| Apart::default()).collect(),
            taken: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Whether it is still the same as this server of its backend.
    pub(crate) fn is(&self, server: &Server) -> bool {
        self.name == server.name
            && self.address == server.address
            && self.send_proxy == server.send_proxy
    }

    /// Ends its sessions. Workers see it with the next orders.
    pub(crate) fn end_sessions(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// How often its sessions were ended; when this changes, a worker ends its own.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Requests and sessions in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        let tallies = self.tallies.iter();
        tallies.map(|tally| tally.in_flight.get()).sum()
    }

    /// Counters of each worker.
    pub(crate) const fn tallies(&self) -> &Arc<[Apart<Tally>]> {
        &self.tallies
    }

    /// Number of responses that have begun, and the sum of the times until they did, in nanoseconds.
    pub(crate) fn answers(&self) -> (u64, u64) {
        let Results { answers, nanos, .. } = self.results();
        (answers, nanos)
    }

    /// What became of the requests that were sent to it.
    pub(crate) fn results(&self) -> Results {
        let tallies = self.tallies.iter();
        tallies.fold(Results::default(), |sum, tally| Results {
            answers: sum.answers.wrapping_add(tally.answers.get()),
            nanos: sum.nanos.wrapping_add(tally.nanos.get()),
            errors: sum.errors.wrapping_add(tally.errors.get()),
            unanswered: sum.unanswered.wrapping_add(tally.unanswered.get()),
        })
    }

    /// How many of its limited slots are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Takes one of `limit` slots; `false` when another worker has just taken the last.
    pub(crate) fn take_slot(&self, limit: u32) -> bool {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .is_ok()
    }

    /// One more request waits for this member only; returns how many did before.
    pub(crate) fn wait(&self) -> usize {
        self.waiting.fetch_add(1, Ordering::Relaxed)
    }

    /// One request no longer waits for this member only.
    pub(crate) fn wait_no_longer(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives a slot back.
    pub(crate) fn return_slot(&self) {
        let before = self.taken.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a slot was given back twice");
    }
}

/// Requests in flight, counted per worker.
pub(crate) struct InFlight(Box<[Apart<Count>]>);

impl InFlight {
    /// None, in a process with this many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Apart::default()).collect())
    }

    /// The sum over all workers.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.get()).sum()
    }

    /// One worker's count, which only that worker may change.
    pub(crate) fn of(&self, worker: usize) -> &Count {
        &self.0[worker]
    }
}

/// One worker's counters of a member, which only that worker may change.
#[derive(Default)]
pub(crate) struct Tally {
    /// Requests in flight.
    pub(crate) in_flight: Count,
    /// Responses that have begun, and the sum of the times until they did.
    answers: Count,
    nanos: Count,
    /// Those among them with a status of 500 or above,
    errors: Count,
    /// and requests that had no valid answer.
    unanswered: Count,
}

impl Tally {
    /// Counts a response that began this long after its request was sent.
    pub(crate) fn answered(&self, after: Duration) {
        self.answers.add(1);
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.add(nanos);
    }

    /// Counts a response with a status of 500 or above.
    pub(crate) fn erred(&self) {
        self.errors.add(1);
    }

    /// Counts a request that had no valid answer.
    pub(crate) fn failed(&self) {
        self.unanswered.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_never_has_more_requests_than_its_limit() {
        let member = Member::new("app", &Server::new("app1.1", ([127, 0, 0, 1], 3001)), 1);
        assert!(member.take_slot(1));
        assert!(!member.take_slot(1));
        member.return_slot();
        assert!(member.take_slot(1));
    }
}
