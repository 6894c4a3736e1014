//! Whether all workers of the proxy are alive, by their heartbeats: a VIP is dropped when one hangs.

use gaiola_model::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A worker that was silent for longer counts as dead.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_millis(200);

/// The most workers of one proxy; a connection that announces more is closed.
pub(super) const MOST_WORKERS: u32 = 1024;

/// Identifies one connection; never reused in a keeper's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(pub(super) u64);

/// A worker's first line: `worker INDEX of COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    /// Its number, counted from 0.
    pub(super) index: u32,
    /// How many workers its proxy has.
    pub(super) count: u32,
}

impl Introduction {
    /// Parses the line, without its line end.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (index, count) = line.strip_prefix("worker ")?.split_once(" of ")?;
        let (index, count) = (index.parse().ok()?, count.parse().ok()?);
        ((1..=MOST_WORKERS).contains(&count) && index < count).then_some(Self { index, count })
    }
}

/// The connections of all workers, and the time of each one's last heartbeat.
///
/// While a new proxy takes over from an old one, workers of both are connected. The VIPs may be held as long as, for each
/// worker number of the newest proxy, a worker of either proxy is alive.
#[derive(Default)]
pub(super) struct Beats {
    workers: BTreeMap<ConnectionId, Worker>,
    /// Worker count of the proxy that was introduced last.
    count: u32,
}

struct Worker {
    index: u32,
    /// `None` before its first heartbeat.
    beaten: Option<Time>,
}

/// Whether the data plane serves; if not, why.
pub(super) type Verdict = Result<(), NotServing>;

/// Why the data plane does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotServing {
    #[error("no worker of the proxy is connected")]
    NoWorker,
    #[error("{alive} of {count} workers of the proxy have beaten within {} ms", LONGEST_SILENCE.as_millis())]
    Late { alive: u32, count: u32 },
}

impl Beats {
    /// A worker has introduced itself.
    pub(super) fn introduced(&mut self, id: ConnectionId, introduction: Introduction) {
        let Introduction { index, count } = introduction;
        self.count = count;
        let worker = Worker {
            index,
            beaten: None,
        };
        self.workers.insert(id, worker);
    }

    /// A worker has sent a heartbeat.
    pub(super) fn beaten(&mut self, now: Time, id: ConnectionId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.beaten = Some(now);
        }
    }

    /// A worker's connection closed: the worker has ended.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.workers.remove(&id);
    }

    /// Whether every worker is alive.
    pub(super) fn verdict(&self, now: Time) -> Verdict {
        if self.workers.is_empty() {
            return Err(NotServing::NoWorker);
        }
        let workers = self.workers.values();
        let alive = workers.filter(|worker| worker.index < self.count && worker.is_alive(now));
        let alive: BTreeSet<u32> = alive.map(|worker| worker.index).collect();
        let (alive, count) = (u32::try_from(alive.len()).unwrap_or(u32::MAX), self.count);
        if alive < count {
            Err(NotServing::Late { alive, count })
        } else {
            Ok(())
        }
    }

    /// When the verdict may change without any input.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        self.workers
            .values()
            .filter(|worker| worker.is_alive(now))
            .filter_map(|worker| worker.beaten)
            .min()
            .map(|beaten| beaten + LONGEST_SILENCE + Duration::from_millis(1))
    }
}

impl Worker {
    fn is_alive(&self, now: Time) -> bool {
        self.beaten
            .is_some_and(|beaten| now - beaten <= LONGEST_SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    fn worker(beats: &mut Beats, id: u64, index: u32, count: u32) {
        beats.introduced(ConnectionId(id), Introduction { index, count });
    }

    #[test]
    fn all_workers_must_have_beaten() {
        let mut beats = Beats::default();
        assert!(beats.verdict(at(0)).is_err());
        worker(&mut beats, 1, 0, 2);
        worker(&mut beats, 2, 1, 2);
        beats.beaten(at(0), ConnectionId(1));
        assert!(beats.verdict(at(0)).is_err());
        beats.beaten(at(0), ConnectionId(2));
        assert_eq!(beats.verdict(at(200)), Ok(()));
    }

    #[test]
    fn a_hung_worker_is_noticed_when_its_silence_is_too_long() {
        let mut beats = Beats::default();
        worker(&mut beats, 1, 0, 1);
        beats.beaten(at(100), ConnectionId(1));
        let due = beats.next_deadline(at(100)).unwrap();
        assert!(beats.verdict(due).is_err());
        assert_eq!(beats.next_deadline(due), None);
    }

    #[test]
    fn a_closed_connection_counts_at_once() {
        let mut beats = Beats::default();
        worker(&mut beats, 1, 0, 2);
        worker(&mut beats, 2, 1, 2);
        beats.beaten(at(0), ConnectionId(1));
        beats.beaten(at(0), ConnectionId(2));
        assert_eq!(beats.verdict(at(1)), Ok(()));
        beats.closed(ConnectionId(2));
        assert!(beats.verdict(at(1)).is_err());
    }

    #[test]
    fn an_old_proxy_may_leave_once_the_new_one_beats() {
        let mut beats = Beats::default();
        worker(&mut beats, 1, 0, 1);
        beats.beaten(at(0), ConnectionId(1));
        worker(&mut beats, 2, 0, 2);
        worker(&mut beats, 3, 1, 2);
        beats.beaten(at(10), ConnectionId(2));
        beats.beaten(at(10), ConnectionId(3));
        beats.closed(ConnectionId(1));
        assert_eq!(beats.verdict(at(10)), Ok(()));
    }

    #[test]
    fn workers_of_a_larger_proxy_that_leaves_do_not_stand_in_for_hung_ones() {
        let mut beats = Beats::default();
        for index in 0..3 {
            worker(&mut beats, index.into(), index, 3);
            beats.beaten(at(0), ConnectionId(index.into()));
        }
        worker(&mut beats, 10, 0, 2);
        worker(&mut beats, 11, 1, 2);
        beats.beaten(at(300), ConnectionId(2));
        beats.beaten(at(300), ConnectionId(10));
        assert!(beats.verdict(at(300)).is_err());
        beats.beaten(at(300), ConnectionId(11));
        assert_eq!(beats.verdict(at(300)), Ok(()));
    }

    #[test]
    fn an_introduction_has_one_form() {
        let said = |line: &str| Introduction::parse(line.as_bytes());
        let whole = Introduction { index: 1, count: 2 };
        assert_eq!(said("worker 1 of 2"), Some(whole));
        for line in [
            "",
            "worker",
            "worker 1",
            "worker 2 of 2",
            "worker 3 of 2",
            "worker 0 of 0",
            "worker 1 of 99999",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
