//! A virtual clock with an event queue, and the run's random source.

use gaiola_model::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Time, the pending events, and chance. Only the owner knows what an event means.
///
/// ```
/// use gaiola_sim::world::World;
/// use std::time::Duration;
///
/// let mut world = World::new(7);
/// world.after(Duration::from_secs(2), "later");
/// world.after(Duration::from_secs(1), "sooner");
/// assert_eq!(world.next(), Some("sooner"));
/// assert_eq!(world.now().since_start(), Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct World<E> {
    now: Time,
    queue: BinaryHeap<Reverse<Entry<E>>>,
    queued: u64,
    /// The only source of chance.
    pub rng: fastrand::Rng,
}

/// Events at the same time happen in the order in which they were queued.
#[derive(Clone, Debug)]
struct Entry<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> World<E> {
    /// A world at time zero, determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            queued: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The time of the event taken last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Queues an event; one in the past happens now.
    pub fn at(&mut self, at: Time, event: E) {
        self.queued += 1;
        self.queue.push(Reverse(Entry {
            at: at.max(self.now),
            number: self.queued,
            event,
        }));
    }

    /// Queues an event `span` from now.
    pub fn after(&mut self, span: Duration, event: E) {
        self.at(self.now + span, event);
    }

    /// Takes the next event, and advances to its time. `None`: no events are left.
    #[expect(
        clippy::should_implement_trait,
        reason = "handling an event queues others"
    )]
    pub fn next(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// Takes the next event before or at `end`; if there is none, advances to `end`.
    pub fn next_until(&mut self, end: Time) -> Option<E> {
        match self.queue.peek() {
            Some(Reverse(entry)) if entry.at <= end => self.next(),
            _ => {
                self.now = self.now.max(end);
                None
            }
        }
    }

    /// `true` with this probability, in thousandths.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.u32(0..1000) < per_mille
    }

    /// A random span from a range, in whole microseconds; the range's start if it is empty.
    pub fn span(&mut self, range: Range<Duration>) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let (from, to) = (micros(range.start), micros(range.end));
        Duration::from_micros(self.rng.u64(from..to.max(from + 1)))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

/// A server's own clock: it started at another time than the world, and runs a little too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Time,
    /// How much faster it runs, in millionths; negative: slower.
    drift_ppm: i32,
}

impl Clock {
    /// A clock that shows zero at the world's time `began`.
    pub fn new(began: Time, drift_ppm: i32) -> Self {
        Self { began, drift_ppm }
    }

    /// Its time at the world's time `at`.
    pub fn shows(&self, at: Time) -> Time {
        Time::from_start(scale(
            at - self.began,
            MILLION + i128::from(self.drift_ppm),
            MILLION,
        ))
    }

    /// The first world time at which it shows `shown`, or a nanosecond after it.
    pub fn when(&self, shown: Time) -> Time {
        let span = scale(
            shown.since_start(),
            MILLION,
            MILLION + i128::from(self.drift_ppm),
        );
        self.began + span + Duration::from_nanos(1)
    }
}

const MILLION: i128 = 1_000_000;

fn scale(span: Duration, times: i128, over: i128) -> Duration {
    let nanos = i128::try_from(span.as_nanos()).expect("a span of a simulation");
    let scaled = u64::try_from(nanos * times / over).expect("a span of a simulation");
    Duration::from_nanos(scaled)
}

/// The seeds of a test: the one in `SEED`, or those in `seeds/NAME.txt` followed by those of `SEEDS` (`5000`: 0 up to
/// that; `1000..2000`: these), or by 0 up to `fresh` without it.
///
/// # Panics
///
/// If `SEED`, `SEEDS` or the file cannot be read.
pub fn seeds(name: &str, fresh: u64) -> Vec<u64> {
    let number = |text: &str| -> u64 { text.trim().parse().expect("a seed is a number") };
    if let Ok(seed) = std::env::var("SEED") {
        return vec![number(&seed)];
    }
    let fresh = match std::env::var("SEEDS") {
        Ok(text) => match text.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => 0..number(&text),
        },
        Err(_) => 0..fresh,
    };
    let path = format!("{}/seeds/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let kept = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(number);
    kept.chain(fresh).collect()
}

/// Runs every seed, on as many threads as the machine has processors; the results are in the seeds' order.
pub fn each<T: Send>(seeds: &[u64], run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((n, seed)) = {
            let n = next.fetch_add(1, Ordering::Relaxed);
            seeds.get(n).map(|seed| (n, *seed))
        } {
            done.push((n, run(seed)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.flat_map(|done| done.expect("no run panics")).collect()
    });
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut world = World::new(0);
        for n in 0..100 {
            world.after(Duration::from_secs(1), n);
        }
        let taken: Vec<_> = std::iter::from_fn(|| world.next()).collect();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_has_reached_a_time_when_it_is_said_to() {
        for drift_ppm in [-20_000, -1, 0, 3, 20_000] {
            let clock = Clock::new(Time::from_start(Duration::from_millis(17)), drift_ppm);
            for micros in [0, 1, 999, 321_875, 86_400_000_000] {
                let shown = Time::from_start(Duration::from_micros(micros));
                assert!(
                    clock.shows(clock.when(shown)) >= shown,
                    "{drift_ppm} {micros}"
                );
            }
        }
    }
}
