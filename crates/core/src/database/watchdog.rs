//! Whether to end Patroni and PostgreSQL of a server so that they are restarted.
//!
//! Patroni misses some failures: that it was stopped itself, that PostgreSQL's postmaster hangs (patroni#1371) or does not
//! listen where it should, or that all members of the store that it knows are gone (it reads their list once at its start and
//! then every 200 s). Nor is PostgreSQL trusted alone: one that takes writes while the store names another server as the leader
//! is a second primary. Ending both costs a crash recovery and no acknowledged write.

use gaiola_model::Time;
use std::fmt;
use std::time::Duration;

/// Polls further apart than this were delayed themselves, so what they saw of others proves nothing.
const HELD_UP: Duration = Duration::from_secs(5);
/// How long the postmaster may be stopped by a signal.
const POSTMASTER_STOPPED: Duration = Duration::from_secs(1);
/// How long Patroni may be stopped by a signal. Its leader key is good for 20 s.
const PATRONI_STOPPED: Duration = Duration::from_secs(3);
/// How long the postmaster may leave new connections without a byte. An overloaded machine is slow, too.
const UNANSWERED: Duration = Duration::from_secs(15);
/// How long the postmaster may run without its socket. It opens it before it recovers anything.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// How long Patroni alone may be without the store: three times as long as its leader key is good.
const STORE_LOST: Duration = Duration::from_secs(60);

/// Result of a new connection to PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectResult {
    /// Nothing listens, or no connection was tried.
    #[default]
    NotAsked,
    /// A byte arrived.
    Answered,
    /// The connection was accepted, but no byte arrived.
    Silence,
    /// The postmaster runs, and nothing listens on the socket.
    Refused,
}

/// The findings of one poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// Whether a signal has stopped Patroni.
    pub patroni_stopped: bool,
    /// Whether a signal has stopped the postmaster.
    pub postmaster_stopped: bool,
    /// Result of a new connection.
    pub answer: ConnectResult,
    /// The server that held the leader key without interruption while this PostgreSQL took writes.
    pub deposed_by: Option<String>,
    /// Whether the store answers here, and Patroni, which has reached it before, does not reach it any more.
    pub patroni_lost_store: bool,
}

/// Why they are ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is a second primary; the store names this server.
    Deposed(String),
    /// The postmaster has been stopped by a signal for this long.
    PostmasterStopped(Duration),
    /// The postmaster has answered no new connection for this long.
    Unanswered(Duration),
    /// Patroni has been stopped by a signal for this long.
    PatroniStopped(Duration),
    /// The postmaster has run without its socket for this long.
    Unreachable(Duration),
    /// Patroni has not reached the store for this long, which answers.
    StoreLost(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposed(leader) => {
                write!(f, "PostgreSQL took writes although {leader} is the leader")
            }
            Self::PostmasterStopped(span) => {
                let ms = span.as_millis();
                write!(f, "PostgreSQL's postmaster was stopped for {ms} ms")
            }
            Self::Unanswered(span) => {
                let s = span.as_secs();
                write!(f, "PostgreSQL answered no new connection for {s} s")
            }
            Self::PatroniStopped(span) => {
                write!(f, "Patroni was stopped for {} ms", span.as_millis())
            }
            Self::Unreachable(span) => {
                let s = span.as_secs();
                write!(f, "PostgreSQL did not listen on its socket for {s} s")
            }
            Self::StoreLost(span) => {
                let s = span.as_secs();
                write!(
                    f,
                    "Patroni did not reach the store for {s} s, which answers"
                )
            }
        }
    }
}

/// Watches one run of Patroni and PostgreSQL.
///
/// ```
/// use gaiola_core::database::watchdog::{Reason, PollResult, Watchdog};
/// use gaiola_model::Time;
///
/// let mut watchdog = Watchdog::default();
/// let seen = PollResult { deposed_by: Some("db2".into()), ..PollResult::default() };
/// assert_eq!(watchdog.step(Time::ZERO, &seen), Some(Reason::Deposed("db2".into())));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Watchdog {
    polled_at: Option<Time>,
    patroni_stopped: Since,
    postmaster_stopped: Since,
    /// Whether it has ever answered: startup may take time, which Patroni bounds.
    has_answered: bool,
    unanswered: Since,
    unreachable: Since,
    store_lost: Since,
}

impl Watchdog {
    /// Takes the findings of a poll; `Some`: end everything now.
    pub fn step(&mut self, now: Time, seen: &PollResult) -> Option<Reason> {
        let held_up = self.polled_at.is_some_and(|last| now - last > HELD_UP);
        self.polled_at = Some(now);
        if held_up {
            *self = Self {
                polled_at: Some(now),
                has_answered: self.has_answered,
                ..Self::default()
            };
        }
        let patroni = self.patroni_stopped.step(now, seen.patroni_stopped);
        let postmaster = self.postmaster_stopped.step(now, seen.postmaster_stopped);
        self.has_answered |= seen.answer == ConnectResult::Answered;
        let silent = self.has_answered && seen.answer == ConnectResult::Silence;
        let unanswered = self.unanswered.step(now, silent);
        let refused = seen.answer == ConnectResult::Refused;
        let unreachable = self.unreachable.step(now, refused);
        let store_lost = self.store_lost.step(now, seen.patroni_lost_store);
        match seen.deposed_by.clone() {
            Some(leader) => Some(Reason::Deposed(leader)),
            None if postmaster >= POSTMASTER_STOPPED => Some(Reason::PostmasterStopped(postmaster)),
            None if patroni >= PATRONI_STOPPED => Some(Reason::PatroniStopped(patroni)),
            None if unanswered >= UNANSWERED => Some(Reason::Unanswered(unanswered)),
            None if unreachable >= UNREACHABLE => Some(Reason::Unreachable(unreachable)),
            None if store_lost >= STORE_LOST => Some(Reason::StoreLost(store_lost)),
            None => None,
        }
    }
}

/// Since when a condition has held without interruption.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<Time>);

impl Since {
    fn step(&mut self, now: Time, holds: bool) -> Duration {
        self.0 = holds.then(|| self.0.unwrap_or(now));
        self.0.map_or(Duration::ZERO, |since| now - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    /// When it ends them, polled once a second from 0 on.
    fn ends_at(seen: &PollResult) -> Option<(u64, Reason)> {
        let mut watchdog = Watchdog::default();
        (0..90).find_map(|second| Some((second, watchdog.step(at(second * 1000), seen)?)))
    }

    #[test]
    fn a_second_primary_is_ended_at_once() {
        let seen = PollResult {
            deposed_by: Some("db2".into()),
            ..PollResult::default()
        };
        assert_eq!(ends_at(&seen), Some((0, Reason::Deposed("db2".into()))));
    }

    #[test]
    fn what_runs_is_left_alone() {
        assert_eq!(ends_at(&PollResult::default()), None);
    }

    #[test]
    fn a_stopped_postmaster_is_ended_within_a_second() {
        let seen = PollResult {
            postmaster_stopped: true,
            ..PollResult::default()
        };
        assert_eq!(ends_at(&seen).unwrap().0, 1);
    }

    #[test]
    fn a_stopped_patroni_is_ended_before_its_leader_key_expires() {
        let seen = PollResult {
            patroni_stopped: true,
            ..PollResult::default()
        };
        assert_eq!(ends_at(&seen).unwrap().0, 3);
    }

    fn silence() -> PollResult {
        PollResult {
            answer: ConnectResult::Silence,
            ..PollResult::default()
        }
    }

    #[test]
    fn a_slow_postmaster_has_time_and_one_answer_starts_it_anew() {
        let answered = PollResult {
            answer: ConnectResult::Answered,
            ..PollResult::default()
        };
        let mut watchdog = Watchdog::default();
        for second in 0..60 {
            let seen = if second % 14 == 0 {
                &answered
            } else {
                &silence()
            };
            assert_eq!(watchdog.step(at(second * 1000), seen), None, "{second}");
        }
        let ended = (60..100).find(|second| watchdog.step(at(second * 1000), &silence()).is_some());
        assert_eq!(ended, Some(72), "15 s after the first silence at 57");
    }

    #[test]
    fn one_that_has_not_answered_yet_is_starting_up() {
        assert_eq!(ends_at(&silence()), None);
    }

    #[test]
    fn a_postmaster_without_its_socket_is_ended() {
        let seen = PollResult {
            answer: ConnectResult::Refused,
            ..PollResult::default()
        };
        let ended = ends_at(&seen).unwrap();
        assert_eq!(ended, (30, Reason::Unreachable(Duration::from_secs(30))));
    }

    #[test]
    fn a_patroni_that_alone_has_lost_the_store_is_ended() {
        let seen = PollResult {
            answer: ConnectResult::Answered,
            patroni_lost_store: true,
            ..PollResult::default()
        };
        let ended = ends_at(&seen).unwrap();
        assert_eq!(ended, (60, Reason::StoreLost(Duration::from_secs(60))));
    }

    #[test]
    fn a_watchdog_that_was_frozen_itself_begins_anew() {
        let stopped = PollResult {
            patroni_stopped: true,
            ..PollResult::default()
        };
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.step(at(0), &stopped), None);
        assert_eq!(watchdog.step(at(40_000), &stopped), None);
        assert_eq!(watchdog.step(at(41_000), &stopped), None);
        assert!(watchdog.step(at(43_000), &stopped).is_some());
    }
}
