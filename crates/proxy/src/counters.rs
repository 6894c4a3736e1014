//! Counters of a worker that other threads read. Each is written by one thread only, so that counting is an ordinary
//! addition; readers sum over the workers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A number that one thread changes and all threads may read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// Values in a cache line of their own, apart from what other threads change.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Count {
    /// Adds `by`. Only the owning thread may call it.
    pub(super) fn add(&self, by: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(by), Ordering::Release);
    }

    /// Subtracts `by`. Only the owning thread may call it.
    pub(super) fn sub(&self, by: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_sub(by), Ordering::Release);
    }

    /// The current value.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Upper bounds of the duration histogram, in seconds.
pub(super) const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How many different status codes are counted individually; further ones are counted as 0.
const CODES: usize = 24;

/// The first buckets, which most requests fall into.
const QUICK: usize = 3;

/// Counters of one frontend's requests answered by one server of one backend.
#[derive(Debug, Default)]
pub(super) struct Series {
    usual: Apart<Usual>,
    codes: [Code; CODES - 1],
    other_codes: AtomicU64,
    slow: [AtomicU64; BOUNDS.len() + 1 - QUICK],
    retries: AtomicU64,
    redispatches: AtomicU64,
    sessions: AtomicU64,
}

/// What most requests change, in one cache line: with thousands of servers, each line is a cache miss.
#[derive(Debug, Default)]
struct Usual {
    code: Code,
    quick: [AtomicU64; QUICK],
    nanos: AtomicU64,
    bytes: Bytes,
}

/// Bytes from clients and to clients.
#[derive(Debug, Default)]
struct Bytes {
    received: AtomicU64,
    sent: AtomicU64,
}

/// A status, and how many requests had it.
#[derive(Debug, Default)]
struct Code {
    status: AtomicU64,
    count: AtomicU64,
}

/// Addition by the only thread that writes.
fn bump(number: &AtomicU64, by: u64) {
    number.store(
        number.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl Series {
    /// Counts a request that ended with this status after this time. Only the owning thread may call it.
    pub(super) fn record(&self, status: u16, took: Duration) {
        let status = u64::from(status);
        // 0 marks a free slot, so a request without a response is counted separately.
        let mut codes = self.codes().filter(|_| status != 0);
        let code = codes.find(|code| {
            let known = code.status.load(Ordering::Relaxed);
            known == status || known == 0
        });
        match code {
            Some(code) => {
                code.status.store(status, Ordering::Relaxed);
                bump(&code.count, 1);
            }
            None => bump(&self.other_codes, 1),
        }
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|&bound| seconds <= bound);
        let bucket = self.buckets().nth(bucket.unwrap_or(BOUNDS.len()));
        bucket.iter().for_each(|bucket| bump(bucket, 1));
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        bump(&self.usual.nanos, nanos);
    }

    fn codes(&self) -> impl Iterator<Item = &Code> {
        std::iter::once(&self.usual.code).chain(&self.codes)
    }

    fn buckets(&self) -> impl Iterator<Item = &AtomicU64> {
        self.usual.quick.iter().chain(&self.slow)
    }

    /// Counts bytes received from a client and sent to it. Only the owning thread may call it.
    pub(super) fn record_bytes(&self, received: u64, sent: u64) {
        bump(&self.usual.bytes.received, received);
        bump(&self.usual.bytes.sent, sent);
    }

    /// Counts a TCP session that has ended, and its attempts at further servers. Only the owning thread may call it.
    pub(super) fn record_session(&self, retries: u32) {
        bump(&self.sessions, 1);
        bump(&self.retries, retries.into());
    }

    /// Counts a retry of a request. Only the owning thread may call it.
    pub(super) fn record_retry(&self) {
        bump(&self.retries, 1);
    }

    /// Counts a request or session that moves to another server after this one failed. Only the owning thread may call
    /// it.
    pub(super) fn record_redispatch(&self) {
        bump(&self.redispatches, 1);
    }
}

/// Sum of several workers' [`Series`].
#[derive(Debug, Default)]
pub(super) struct SeriesSum {
    /// Requests by status; 0 for those beyond the limit of different ones.
    pub(super) codes: BTreeMap<u64, u64>,
    /// Requests by duration, one bucket more than there are [`BOUNDS`]; not cumulative.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    /// Sum of all durations, in nanoseconds.
    pub(super) nanos: u64,
    /// Retries of requests.
    pub(super) retries: u64,
    /// Requests and sessions that moved to another server.
    pub(super) redispatches: u64,
    /// TCP sessions.
    pub(super) sessions: u64,
    /// Bytes from clients and to clients.
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl SeriesSum {
    /// Adds one worker's numbers.
    pub(super) fn add(&mut self, series: &Series) {
        for code in series.codes() {
            let count = code.count.load(Ordering::Relaxed);
            if count > 0 {
                let status = code.status.load(Ordering::Relaxed);
                *self.codes.entry(status).or_default() += count;
            }
        }
        let other = series.other_codes.load(Ordering::Relaxed);
        if other > 0 {
            *self.codes.entry(0).or_default() += other;
        }
        for (sum, bucket) in self.buckets.iter_mut().zip(series.buckets()) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.nanos += series.usual.nanos.load(Ordering::Relaxed);
        self.retries += series.retries.load(Ordering::Relaxed);
        self.redispatches += series.redispatches.load(Ordering::Relaxed);
        self.sessions += series.sessions.load(Ordering::Relaxed);
        let bytes = &series.usual.bytes;
        self.received += bytes.received.load(Ordering::Relaxed);
        self.sent += bytes.sent.load(Ordering::Relaxed);
    }
}

/// Names of frontend, backend and server; `-` where there is none.
pub(super) type SeriesKey = [String; 3];

/// TLS handshakes with clients.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Full handshakes.
    full: Count,
    /// Resumed sessions.
    resumed: Count,
    /// Failed handshakes.
    pub(super) failed: Count,
}

impl Handshakes {
    /// Counts a successful handshake. Only the owning thread may call it.
    pub(super) fn record(&self, resumed: bool) {
        if resumed {
            self.resumed.add(1);
        } else {
            self.full.add(1);
        }
    }

    /// Each counter with its name.
    pub(super) fn get(&self) -> [(&'static str, u64); 3] {
        [
            ("full", self.full.get()),
            ("resumed", self.resumed.get()),
            ("failed", self.failed.get()),
        ]
    }
}

/// Why a client's connection is closed before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unasked {
    /// Nothing arrived before the timeout.
    Silent,
    /// It lacks the mandatory PROXY header.
    Header,
    /// It names no server, although routing depends on that.
    Name,
}

impl Unasked {
    /// Each with its name in metrics, in the order of the counters.
    pub(super) const ALL: [(Self, &'static str); 3] = [
        (Self::Silent, "silent"),
        (Self::Header, "header"),
        (Self::Name, "name"),
    ];
}

/// All counters of one worker. The maps are locked for new entries and by readers, never for a request.
#[derive(Debug, Default)]
pub(super) struct Counters {
    series: Mutex<BTreeMap<SeriesKey, Arc<Series>>>,
    locals: Mutex<BTreeMap<IpAddr, Arc<Apart<Count>>>>,
    /// Connections, possibly closed already, with written data that could not be sent yet.
    pub(super) late: Arc<Apart<Count>>,
    /// Lines that did not fit into the access log's queue.
    pub(super) lines_dropped: Count,
    pub(super) handshakes: Handshakes,
    /// Whether the VIP keeper has its heartbeats.
    pub(super) beating: AtomicBool,
    unasked: [Count; Unasked::ALL.len()],
}

impl Counters {
    /// The count of connections closed for this reason before their first request.
    pub(super) fn unasked(&self, why: Unasked) -> &Count {
        &self.unasked[why as usize]
    }

    /// The counters of `key`, created if necessary.
    pub(super) fn series(&self, key: [&str; 3]) -> Arc<Series> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key.map(String::from)).or_default())
    }

    /// This worker's count of open connections to the local address.
    pub(super) fn local(&self, address: IpAddr) -> Arc<Apart<Count>> {
        let mut all = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(address).or_default())
    }

    /// Adds all series to `sums`.
    pub(super) fn add_series(&self, sums: &mut BTreeMap<SeriesKey, SeriesSum>) {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, series) in all.iter() {
            sums.entry(key.clone()).or_default().add(series);
        }
    }

    /// Removes series that only this map holds: nothing leads there any more, and no request in flight adds to them.
    pub(super) fn forget_series(&self) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, series| Arc::strong_count(series) > 1);
    }

    /// Open connections to one local address, or to all.
    pub(super) fn connections(&self, address: Option<IpAddr>) -> u64 {
        let all = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(local, _)| address.is_none_or(|wanted| wanted == **local))
            .map(|(_, count)| count.get())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let mut sum = SeriesSum::default();
        for worker in [Series::default(), Series::default()] {
            worker.record(200, Duration::from_millis(1));
            worker.record(503, Duration::from_secs(60));
            worker.record_bytes(1, 2);
            sum.add(&worker);
        }
        assert_eq!((sum.received, sum.sent), (2, 4));
        assert_eq!(size_of::<Apart<Usual>>(), 64);
        assert_eq!(sum.codes, BTreeMap::from([(200, 2), (503, 2)]));
        assert_eq!(sum.buckets[1], 2);
        assert_eq!(sum.buckets[BOUNDS.len()], 2);
        assert_eq!(sum.nanos, 2 * 60_001_000_000);
    }

    #[test]
    fn a_request_without_an_answer_is_no_other_status() {
        let series = Series::default();
        for status in [0, 502, 0] {
            series.record(status, Duration::ZERO);
        }
        let mut sum = SeriesSum::default();
        sum.add(&series);
        assert_eq!(sum.codes, BTreeMap::from([(0, 2), (502, 1)]));
    }

    #[test]
    fn more_codes_than_slots_are_counted_together() {
        let series = Series::default();
        for status in 200..300 {
            series.record(status, Duration::ZERO);
        }
        let mut sum = SeriesSum::default();
        sum.add(&series);
        assert_eq!(sum.codes.values().sum::<u64>(), 100);
        assert_eq!(sum.codes[&0], 100 - CODES as u64);
    }

    #[test]
    fn connections_are_counted_by_local_address() {
        let counters = Counters::default();
        let (one, two) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        counters.local(one).add(2);
        counters.local(two).add(1);
        counters.local(one).sub(1);
        assert_eq!(counters.connections(Some(one)), 1);
        assert_eq!(counters.connections(None), 2);
    }
}
