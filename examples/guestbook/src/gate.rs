//! An instance's load limits: a bound on requests in flight, and optionally a rate.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum requests in flight; a further one is rejected.
const IN_FLIGHT: usize = 1024;
/// The longest wait of a request for its turn; one that would wait longer is rejected.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Admits requests.
pub(crate) struct Gate {
    room: Semaphore,
    pace: Option<Mutex<Pace>>,
}

impl Gate {
    /// Admits requests up to the bound, and with `rate` at most that many per second.
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        Self {
            room: Semaphore::new(IN_FLIGHT),
            pace: rate.map(|rate| Mutex::new(Pace::new(rate, Instant::now()))),
        }
    }

    /// Waits for this request's turn. It counts as in flight until the permit is dropped; `None`: rejected.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.room.try_acquire().ok()?;
        if let Some(pace) = &self.pace {
            let wait = pace
                .lock()
                .expect("nothing panics while it is held")
                .reserve(Instant::now())?;
            tokio::time::sleep(wait).await;
        }
        Some(permit)
    }
}

/// Spreads requests evenly: one turn every 1/rate seconds, so that an unused second causes no burst later.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate.get(),
            next: now,
        }
    }

    /// How long to wait for the next turn; `None` if that is too long: the turn is then left to others.
    fn reserve(&mut self, now: Instant) -> Option<Duration> {
        let turn = self.next.max(now);
        let wait = turn - now;
        if wait > LONGEST_WAIT {
            return None;
        }
        self.next = turn + self.interval;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_at_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(10).unwrap(), start);
        let waits: Vec<_> = (0..3)
            .map(|_| pace.reserve(start).unwrap().as_millis())
            .collect();
        assert_eq!(waits, [0, 100, 200]);
        assert_eq!(
            pace.reserve(start + Duration::from_secs(9)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_turn_too_far_away_is_refused_and_not_taken() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU32::MIN, start);
        for _ in 0..6 {
            pace.reserve(start).unwrap();
        }
        assert_eq!(pace.reserve(start), None);
        assert_eq!(
            pace.reserve(start + Duration::from_secs(1)),
            Some(LONGEST_WAIT)
        );
    }
}
