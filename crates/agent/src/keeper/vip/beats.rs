//! Whether all workers of the proxy are alive, by their heartbeats: a VIP is dropped when one hangs. One that only waits for a
//! processor or a page of its program is not hung: it serves late, while a VIP that moves resets every connection. It is given
//! more time.

use super::schedule::Schedule;
use gaiola_model::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A worker that was silent for longer counts as dead.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_millis(200);

/// The longest silence of a worker that waits for a processor or the disk.
const LONGEST_STARVATION: Duration = Duration::from_secs(3);

/// After this silence a worker is observed, to learn whether it waits for either.
const OBSERVED_AFTER: Duration = Duration::from_millis(150);
/// How often it is then observed.
const OBSERVED_EVERY: Duration = Duration::from_millis(50);

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

/// A proxy process: its pid, by which its connections are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProxyId(pub(super) i32);

/// The connections of all workers, and the time of each one's last heartbeat.
///
/// While a new proxy takes over from an old one, workers of both are connected, possibly different numbers of them. The old
/// one decides until all workers of the new one have beaten, and from then on the new one alone: one that stays incomplete
/// does not look like a dead proxy, and a worker that hangs later is not hidden by the old one.
#[derive(Default)]
pub(super) struct Beats {
    workers: BTreeMap<ConnectionId, Worker>,
    proxies: BTreeMap<ProxyId, Proxy>,
    /// How many proxies have come so far.
    come: u64,
}

struct Worker {
    proxy: ProxyId,
    index: u32,
    /// `None` before its first heartbeat.
    beaten: Option<Time>,
    /// Since the last heartbeat.
    observed: Observed,
}

/// What was observed of a silent worker.
#[derive(Clone, Copy)]
enum Observed {
    /// Nothing yet, or it is not silent.
    Nothing,
    /// It waits for a processor or the disk: when that was last seen, and how long it had run until then.
    Waits { at: Time, ran: Duration },
    /// It has a processor, or does not want one.
    Hangs,
}

/// A silent worker that is to be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) id: ConnectionId,
    pub(super) proxy: ProxyId,
    pub(super) index: u32,
}

struct Proxy {
    /// How many workers it has.
    count: u32,
    /// How many proxies had come before it.
    order: u64,
    /// Whether all of its workers have been alive at once.
    was_whole: bool,
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
    /// A worker of this proxy has introduced itself.
    pub(super) fn introduced(
        &mut self,
        id: ConnectionId,
        proxy: ProxyId,
        introduction: Introduction,
    ) {
        let Introduction { index, count } = introduction;
        let known = self.proxies.entry(proxy).or_insert_with(|| {
            self.come += 1;
            Proxy {
                count,
                order: self.come,
                was_whole: false,
            }
        });
        known.count = count;
        let worker = Worker {
            proxy,
            index,
            beaten: None,
            observed: Observed::Nothing,
        };
        self.workers.insert(id, worker);
    }

    /// A worker has sent a heartbeat.
    pub(super) fn beaten(&mut self, now: Time, id: ConnectionId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.beaten = Some(now);
        worker.observed = Observed::Nothing;
        let id = worker.proxy;
        let alive = self.alive(now, id);
        if let Some(proxy) = self.proxies.get_mut(&id) {
            proxy.was_whole |= alive == proxy.count;
        }
    }

    /// A worker's connection closed: the worker has ended.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        let Some(Worker { proxy, .. }) = self.workers.remove(&id) else {
            return;
        };
        if !self.workers.values().any(|other| other.proxy == proxy) {
            self.proxies.remove(&proxy);
        }
    }

    /// The silent workers that are to be observed now.
    pub(super) fn silent(&self, now: Time) -> Vec<Silent> {
        let due = |worker: &Worker| worker.observe_at().is_some_and(|due| due <= now);
        let due = self.workers.iter().filter(|(_, worker)| due(worker));
        let silent = due.map(|(&id, worker)| Silent {
            id,
            proxy: worker.proxy,
            index: worker.index,
        });
        silent.collect()
    }

    /// How a silent worker is scheduled; `None`: that cannot be read.
    pub(super) fn observed(&mut self, now: Time, id: ConnectionId, schedule: Option<Schedule>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.observed = worker.observed.and(now, schedule);
        if let Observed::Hangs = worker.observed {
            // It may beat again before the limit; where it does not, the VIP is given up with a warning.
            tracing::debug!(
                worker = worker.index,
                ?schedule,
                "a worker of the proxy seems to hang"
            );
        }
    }

    /// Whether every worker of the proxy that decides is alive.
    pub(super) fn verdict(&self, now: Time) -> Verdict {
        // Until one has been whole, the newest says how many are missing.
        let newest = self.proxies.iter();
        let decides = newest.max_by_key(|(_, proxy)| (proxy.was_whole, proxy.order));
        let Some((&id, &Proxy { count, .. })) = decides else {
            return Err(NotServing::NoWorker);
        };
        let alive = self.alive(now, id);
        if alive < count {
            Err(NotServing::Late { alive, count })
        } else {
            Ok(())
        }
    }

    /// How many workers of this proxy are alive.
    fn alive(&self, now: Time, proxy: ProxyId) -> u32 {
        let workers = self.workers.values();
        let alive = workers.filter(|worker| worker.proxy == proxy && worker.is_alive(now));
        let alive: BTreeSet<u32> = alive.map(|worker| worker.index).collect();
        u32::try_from(alive.len()).unwrap_or(u32::MAX)
    }

    /// When the verdict may change, or a worker is to be observed, without any input.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let deadlines = self.workers.values().flat_map(|worker| {
            let alive = worker.is_alive(now).then(|| worker.alive_until()).flatten();
            let dead = alive.map(|until| until + Duration::from_millis(1));
            [dead, worker.observe_at()].into_iter().flatten()
        });
        deadlines.min()
    }
}

impl Worker {
    fn is_alive(&self, now: Time) -> bool {
        self.alive_until().is_some_and(|until| now <= until)
    }

    /// Until when it counts as alive if nothing more is heard or observed.
    fn alive_until(&self) -> Option<Time> {
        let beaten = self.beaten?;
        let silent = beaten + LONGEST_SILENCE;
        Some(match self.observed {
            Observed::Waits { at, .. } => {
                let waits = (at + OBSERVED_EVERY * 2).min(beaten + LONGEST_STARVATION);
                silent.max(waits)
            }
            Observed::Nothing | Observed::Hangs => silent,
        })
    }

    /// When it is to be observed; `None`: not before its next heartbeat.
    fn observe_at(&self) -> Option<Time> {
        let beaten = self.beaten?;
        let due = match self.observed {
            Observed::Nothing => beaten + OBSERVED_AFTER,
            Observed::Waits { at, .. } => at + OBSERVED_EVERY,
            Observed::Hangs => return None,
        };
        (due < beaten + LONGEST_STARVATION).then_some(due)
    }
}

impl Observed {
    /// After another observation; `None`: it cannot be observed.
    fn and(self, now: Time, schedule: Option<Schedule>) -> Self {
        let Some(Schedule {
            state: 'R' | 'D',
            ran,
        }) = schedule
        else {
            return Self::Hangs;
        };
        let hangs = match self {
            Self::Nothing => false,
            // It had a processor for half of the time at least, and has not come to its heartbeat.
            Self::Waits { at, ran: before } => ran.saturating_sub(before) * 2 >= now - at,
            Self::Hangs => true,
        };
        if hangs {
            Self::Hangs
        } else {
            Self::Waits { at: now, ran }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    /// The tens of its number are its proxy's.
    fn worker(beats: &mut Beats, id: u64, index: u32, count: u32) {
        let proxy = ProxyId(i32::try_from(id / 10).unwrap());
        beats.introduced(ConnectionId(id), proxy, Introduction { index, count });
    }

    fn whole(beats: &mut Beats, now: u64, proxy: u64, count: u32) {
        for index in 0..count {
            let id = 10 * proxy + u64::from(index);
            worker(beats, id, index, count);
            beats.beaten(at(now), ConnectionId(id));
        }
    }

    fn leaves(beats: &mut Beats, proxy: u64, count: u64) {
        (0..count).for_each(|index| beats.closed(ConnectionId(10 * proxy + index)));
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
        assert_eq!(beats.next_deadline(at(100)), Some(at(250)));
        beats.observed(at(250), ConnectionId(1), None);
        let due = beats.next_deadline(at(250)).unwrap();
        assert_eq!(due, at(301));
        assert!(beats.verdict(due).is_err());
        assert_eq!(beats.next_deadline(due), None);
    }

    /// Observes the only worker whenever that is due until `until`; `ran` says for how long it had run by then.
    fn observe(beats: &mut Beats, until: u64, state: char, ran: impl Fn(u64) -> u64) {
        for now in 0..=until {
            for silent in beats.silent(at(now)) {
                let ran = Duration::from_millis(ran(now));
                beats.observed(at(now), silent.id, Some(Schedule { state, ran }));
            }
        }
    }

    #[test]
    fn a_worker_that_waits_for_a_processor_or_the_disk_has_more_time() {
        for state in ['R', 'D'] {
            let mut beats = Beats::default();
            whole(&mut beats, 0, 1, 1);
            // It gets a tenth of one.
            observe(&mut beats, 2_950, state, |now| now / 10);
            assert_eq!(beats.verdict(at(3_000)), Ok(()));
            assert!(beats.verdict(at(3_001)).is_err());
            beats.beaten(at(3_100), ConnectionId(10));
            assert_eq!(beats.verdict(at(3_300)), Ok(()));
            assert!(beats.verdict(at(3_301)).is_err(), "it is not observed");
        }
    }

    #[test]
    fn a_worker_that_runs_or_sleeps_without_a_heartbeat_hangs() {
        for (state, share) in [('R', 1), ('R', 2), ('S', 10), ('T', 10)] {
            let mut beats = Beats::default();
            whole(&mut beats, 0, 1, 1);
            observe(&mut beats, 200, state, |now| now / share);
            assert_eq!(beats.verdict(at(200)), Ok(()));
            assert!(beats.verdict(at(201)).is_err(), "{state}, 1/{share}");
            assert_eq!(beats.next_deadline(at(201)), None);
        }
    }

    #[test]
    fn a_worker_that_hangs_after_it_has_waited_is_noticed() {
        let mut beats = Beats::default();
        whole(&mut beats, 0, 1, 1);
        observe(&mut beats, 1_000, 'R', |_| 7);
        assert_eq!(beats.verdict(at(1_100)), Ok(()));
        observe(&mut beats, 1_050, 'S', |_| 7);
        assert!(beats.verdict(at(1_100)).is_err());
    }

    #[test]
    fn a_closed_connection_counts_at_once() {
        let mut beats = Beats::default();
        whole(&mut beats, 0, 0, 2);
        assert_eq!(beats.verdict(at(1)), Ok(()));
        beats.closed(ConnectionId(1));
        assert!(beats.verdict(at(1)).is_err());
        beats.closed(ConnectionId(0));
        assert_eq!(beats.verdict(at(1)), Err(NotServing::NoWorker));
    }

    #[test]
    fn an_old_proxy_may_leave_once_the_new_one_beats_whatever_their_numbers_of_workers() {
        for (old, new) in [(1, 1), (1, 3), (3, 1), (2, 3)] {
            let mut beats = Beats::default();
            whole(&mut beats, 0, 1, old);
            for index in 0..new {
                let id = 20 + u64::from(index);
                worker(&mut beats, id, index, new);
                assert_eq!(beats.verdict(at(5)), Ok(()), "{old} to {new}");
                beats.beaten(at(10), ConnectionId(id));
                assert_eq!(beats.verdict(at(10)), Ok(()), "{old} to {new}");
            }
            leaves(&mut beats, 1, old.into());
            assert_eq!(beats.verdict(at(10)), Ok(()), "{old} to {new}");
        }
    }

    #[test]
    fn an_old_proxy_does_not_hide_that_the_new_one_hangs() {
        let mut beats = Beats::default();
        whole(&mut beats, 0, 1, 3);
        whole(&mut beats, 0, 2, 2);
        for id in [10, 11, 12, 20] {
            beats.beaten(at(300), ConnectionId(id));
        }
        let late = NotServing::Late { alive: 1, count: 2 };
        assert_eq!(beats.verdict(at(300)), Err(late));
        beats.beaten(at(300), ConnectionId(21));
        assert_eq!(beats.verdict(at(300)), Ok(()));
    }

    #[test]
    fn a_new_proxy_that_fails_leaves_the_decision_to_the_old_one() {
        let mut beats = Beats::default();
        whole(&mut beats, 0, 1, 2);
        worker(&mut beats, 20, 0, 2);
        beats.beaten(at(100), ConnectionId(20));
        assert_eq!(beats.verdict(at(100)), Ok(()));
        leaves(&mut beats, 2, 1);
        assert_eq!(beats.verdict(at(150)), Ok(()));
        let late = NotServing::Late { alive: 0, count: 2 };
        assert_eq!(beats.verdict(at(250)), Err(late));
        whole(&mut beats, 250, 3, 2);
        leaves(&mut beats, 3, 2);
        whole(&mut beats, 300, 1, 2);
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
