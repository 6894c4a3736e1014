//! Whether a failed request is retried on another member.
//!
//! Only the hop next to the failure retries, so a server's response, whatever its status, is forwarded. A request is
//! repeatable if none of it was written, or if its method is idempotent and its body is still held. Once a byte of another
//! method was written nobody knows whether it was carried out, even on a stale pooled connection: it is never sent twice.
//! [`may_reuse`] keeps such requests away from connections that are likely to be stale.

use gaiola_model::Time;
use gaiola_model::http::Method;
use std::time::Duration;

/// Most attempts for one request.
pub const MOST_ATTEMPTS: u32 = 4;

/// A pooled connection idle for longer takes only idempotent requests: servers close idle connections after some
/// seconds, and the request may cross with the close.
pub const FRESH_ENOUGH: Duration = Duration::from_secs(1);

/// Whether a request of this method may use a pooled connection idle for this long.
pub fn may_reuse(method: Method, idle: Duration) -> bool {
    method.is_idempotent() || idle <= FRESH_ENOUGH
}

/// What went wrong with one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection ended before the complete head of the response arrived: closed by the peer, by the network, or by
    /// us because the member was marked down.
    Closed {
        /// The connection had served a request before, and not a byte of a response had arrived: it was stale.
        stale: bool,
    },
    /// The response did not begin in time. The request may just be slow, and a retry would double the load.
    TimedOut,
    /// The response was malformed: a retry would get the same.
    BadResponse,
    /// It failed after the start of the response was forwarded to the client.
    Answered,
}

/// One attempt at the time it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// What went wrong.
    pub failure: Failure,
    /// Bytes of the request accepted by the kernel.
    pub sent: u64,
    /// The request's method.
    pub method: Method,
    /// Whether all of the body read from the client is still held (true if there is none).
    pub body_held: bool,
    /// Attempts so far, including this one.
    pub attempts: u32,
}

/// What to do with a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Retry on a member that was not tried; after a stale connection, on a new connection.
    Repeat,
    /// Answer the client with an error.
    GiveUp(Reason),
}

/// Why a request is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The client already has a part of the response.
    #[error("the response had begun")]
    Answered,
    /// A retry would fail the same way.
    #[error("another attempt would fail the same way")]
    WouldFailAlike,
    /// It was written, at least in part, and may have been carried out.
    #[error("it may have been carried out, and is not idempotent")]
    NotIdempotent,
    /// Its body was forwarded and is gone.
    #[error("its body is no longer buffered")]
    BodyGone,
    /// It was sent [`MOST_ATTEMPTS`] times.
    #[error("it was tried too often")]
    TriedTooOften,
    /// Retries already make up too large a share of the requests.
    #[error("the retry budget is spent")]
    BudgetSpent,
}

/// Decides on one failed attempt; a retry is taken from the budget. The single retry after a stale connection is free:
/// it says nothing about the member's health.
///
/// ```
/// use gaiola_core::retry::{FailedAttempt, Budget, Failure, Reason, Verdict, verdict};
/// use gaiola_model::{Time, http::Method};
///
/// let mut budget = Budget::new(Time::ZERO);
/// let failed = FailedAttempt {
///     failure: Failure::Closed { stale: true },
///     sent: 80,
///     method: Method::Post,
///     body_held: true,
///     attempts: 1,
/// };
/// assert_eq!(verdict(failed, Time::ZERO, &mut budget), Verdict::GiveUp(Reason::NotIdempotent));
/// let read = FailedAttempt { method: Method::Get, ..failed };
/// assert_eq!(verdict(read, Time::ZERO, &mut budget), Verdict::Repeat);
/// ```
pub fn verdict(attempt: FailedAttempt, now: Time, budget: &mut Budget) -> Verdict {
    if let Some(reason) = obstacle(&attempt) {
        return Verdict::GiveUp(reason);
    }
    let free = attempt.failure == Failure::Closed { stale: true } && attempt.attempts == 1;
    if free || budget.withdraw(now) {
        Verdict::Repeat
    } else {
        Verdict::GiveUp(Reason::BudgetSpent)
    }
}

/// What rules out a retry, the budget aside.
fn obstacle(attempt: &FailedAttempt) -> Option<Reason> {
    match attempt.failure {
        Failure::Answered => return Some(Reason::Answered),
        Failure::TimedOut | Failure::BadResponse => return Some(Reason::WouldFailAlike),
        Failure::Connect | Failure::Closed { .. } => {}
    }
    if attempt.attempts >= MOST_ATTEMPTS {
        return Some(Reason::TriedTooOften);
    }
    match (
        attempt.sent,
        attempt.method.is_idempotent(),
        attempt.body_held,
    ) {
        (0, _, true) | (_, true, true) => None,
        (_, _, false) => Some(Reason::BodyGone),
        (_, false, true) => Some(Reason::NotIdempotent),
    }
}

/// The retry budget: a share of the requests, plus a few per second. Without it a failing backend would receive a
/// multiple of its load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Thousandths of a retry.
    held: u64,
    refilled: Time,
}

impl Budget {
    /// Each request adds a fifth of a retry.
    const BY_REQUEST: u64 = 200;
    /// Ten a second, whatever the load.
    const BY_MILLISECOND: u64 = 10;
    /// At most 500, so that the requests in flight to a member that dies can all be repeated.
    const MOST: u64 = 500_000;

    /// A full budget.
    pub const fn new(now: Time) -> Self {
        Self {
            held: Self::MOST,
            refilled: now,
        }
    }

    /// Counts a request; retries are not counted.
    pub fn deposit(&mut self) {
        self.held = (self.held + Self::BY_REQUEST).min(Self::MOST);
    }

    /// Takes one retry, if there is one left.
    fn withdraw(&mut self, now: Time) -> bool {
        let since = now.saturating_since(self.refilled).as_millis();
        let millis = u64::try_from(since).unwrap_or(u64::MAX);
        self.refilled = self.refilled + Duration::from_millis(millis);
        let added = millis.saturating_mul(Self::BY_MILLISECOND);
        self.held = self.held.saturating_add(added).min(Self::MOST);
        match self.held.checked_sub(1000) {
            Some(rest) => {
                self.held = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: FailedAttempt = FailedAttempt {
        failure: Failure::Closed { stale: false },
        sent: 100,
        method: Method::Get,
        body_held: true,
        attempts: 1,
    };

    fn decide(attempt: FailedAttempt) -> Verdict {
        verdict(attempt, Time::ZERO, &mut Budget::new(Time::ZERO))
    }

    #[test]
    fn a_post_is_repeated_only_when_none_of_it_was_written() {
        let failures = [
            Failure::Connect,
            Failure::Closed { stale: false },
            Failure::Closed { stale: true },
        ];
        for failure in failures {
            let post = FailedAttempt {
                failure,
                method: Method::Post,
                ..FAILED
            };
            assert_eq!(decide(post), Verdict::GiveUp(Reason::NotIdempotent));
            assert_eq!(decide(FailedAttempt { sent: 0, ..post }), Verdict::Repeat);
        }
    }

    #[test]
    fn an_idempotent_request_is_repeated_while_its_body_is_held() {
        assert_eq!(decide(FAILED), Verdict::Repeat);
        let put = FailedAttempt {
            method: Method::Put,
            body_held: false,
            ..FAILED
        };
        assert_eq!(decide(put), Verdict::GiveUp(Reason::BodyGone));
    }

    #[test]
    fn nothing_is_repeated_once_the_client_has_a_byte() {
        let answered = FailedAttempt {
            failure: Failure::Answered,
            sent: 0,
            ..FAILED
        };
        assert_eq!(decide(answered), Verdict::GiveUp(Reason::Answered));
    }

    #[test]
    fn slow_and_malformed_answers_are_not_asked_for_again() {
        for failure in [Failure::TimedOut, Failure::BadResponse] {
            let attempt = FailedAttempt { failure, ..FAILED };
            assert_eq!(decide(attempt), Verdict::GiveUp(Reason::WouldFailAlike));
        }
    }

    #[test]
    fn attempts_are_bounded() {
        let last = FailedAttempt {
            attempts: MOST_ATTEMPTS,
            ..FAILED
        };
        assert_eq!(decide(last), Verdict::GiveUp(Reason::TriedTooOften));
    }

    #[test]
    fn the_budget_runs_dry_and_refills_with_time_and_requests() {
        let mut budget = Budget::new(Time::ZERO);
        let repeats = |budget: &mut Budget, now: Time| {
            (0..10_000)
                .take_while(|_| verdict(FAILED, now, budget) == Verdict::Repeat)
                .count()
        };
        assert_eq!(repeats(&mut budget, Time::ZERO), 500);
        let later = Time::ZERO + Duration::from_secs(1);
        assert_eq!(repeats(&mut budget, later), 10);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(repeats(&mut budget, later), 20);
        let stale = FailedAttempt {
            failure: Failure::Closed { stale: true },
            ..FAILED
        };
        assert_eq!(verdict(stale, later, &mut budget), Verdict::Repeat);
    }

    #[test]
    fn a_post_avoids_connections_that_idled() {
        assert!(may_reuse(Method::Get, Duration::from_secs(20)));
        assert!(may_reuse(Method::Post, Duration::from_millis(200)));
        assert!(!may_reuse(Method::Post, Duration::from_secs(2)));
    }
}
