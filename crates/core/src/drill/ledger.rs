//! Every request of a drill, and the figures derived from them.

use gaiola_model::{ServerName, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// What a request was for.
///
/// ```
/// use gaiola_core::drill::Kind;
///
/// let kind: Kind = "vip 10.77.0.100".parse().unwrap();
/// assert!(kind.is_probe() && kind.is_of_users());
/// assert_eq!(kind.to_string(), "vip 10.77.0.100");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The probe: a new connection through the front door, with a limit of 100 ms.
    Probe,
    /// A new connection straight to this VIP, from the clients' network.
    Vip(IpAddr),
    /// The steady load's page.
    Page,
    /// The steady load's read.
    Read,
    /// The steady load's write.
    Write,
    /// A write by a client within this server's own network, which the harm may have cut off. It may fail, but every
    /// acknowledged write must be kept.
    Inside(ServerName),
}

impl Kind {
    /// Whether it opens a new connection each time and requests almost nothing.
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::Probe | Self::Vip(_))
    }

    /// Whether its failures would have been failures for users.
    pub const fn is_of_users(self) -> bool {
        !matches!(self, Self::Inside(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("probe"),
            Self::Vip(address) => write!(f, "vip {address}"),
            Self::Page => f.write_str("page"),
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::Inside(server) => write!(f, "inside {server}"),
        }
    }
}

/// A text that is not a kind of request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind of request")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let unknown = || KindError(text.into());
        match text.split_once(' ') {
            Some(("vip", address)) => address.parse().map(Self::Vip).map_err(|_| unknown()),
            Some(("inside", server)) => server.parse().map(Self::Inside).map_err(|_| unknown()),
            _ => [Self::Probe, Self::Page, Self::Read, Self::Write]
                .into_iter()
                .find(|kind| kind.to_string() == text)
                .ok_or_else(unknown),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its kind.
    pub kind: Kind,
    /// When it began; for a probe, when it began to connect.
    pub sent: Time,
    /// When its response was complete, or it was given up.
    pub done: Time,
    /// Whether a 2xx arrived within its limit (for a write, with an acknowledgement).
    pub ok: bool,
    /// Whether it was resent on a new connection, as browsers do, because the reused one was closed before the first
    /// byte of a response.
    pub resent: bool,
}

/// Every request of one drill, at about 40 bytes each: rate times duration bounds it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    samples: Vec<Sample>,
    failures: BTreeMap<(Kind, String), u64>,
    reopened: u64,
}

impl Ledger {
    /// Records a request that succeeded.
    pub fn succeeded(&mut self, kind: Kind, sent: Time, done: Time, resent: bool) {
        self.samples.push(Sample {
            kind,
            sent,
            done,
            ok: true,
            resent,
        });
    }

    /// Records a request that failed, and why; requests with the same `why` are counted together.
    pub fn failed(&mut self, kind: Kind, sent: Time, done: Time, resent: bool, why: &str) {
        self.samples.push(Sample {
            kind,
            sent,
            done,
            ok: false,
            resent,
        });
        *self.failures.entry((kind, why.into())).or_default() += 1;
    }

    /// An idle connection turned out to be closed before anything was written, and a new one was opened.
    pub fn reopened(&mut self) {
        self.reopened += 1;
    }

    /// Discards everything: the calm begins again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Records a request measured by another process.
    pub fn took(&mut self, sample: Sample, why: Option<&str>) {
        self.samples.push(sample);
        if let Some(why) = why {
            *self.failures.entry((sample.kind, why.into())).or_default() += 1;
        }
    }

    /// The kinds it has requests of.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.samples.iter().map(|sample| sample.kind).collect()
    }

    /// Requests of a kind, in the order they ended.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.kind == kind)
    }

    /// How often idle connections were reopened.
    pub const fn reopened_count(&self) -> u64 {
        self.reopened
    }

    /// Failures by kind and reason, with their counts.
    pub fn failures(&self) -> impl Iterator<Item = (Kind, &str, u64)> {
        self.failures
            .iter()
            .map(|((kind, why), count)| (*kind, why.as_str(), *count))
    }

    /// How many requests have ended.
    pub const fn sent_count(&self) -> usize {
        self.samples.len()
    }

    /// How many requests failed.
    pub fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The longest time without a success of this kind between `from` and `until`, which count as successes themselves.
    pub fn longest_gap(&self, kind: Kind, from: Time, until: Time) -> Duration {
        let successes = self
            .successes(kind)
            .into_iter()
            .filter(|done| (from..=until).contains(done));
        longest_step(from, successes, until)
    }

    /// The longest time between the starts of two probes. A long one means that the measuring machine itself stalled,
    /// and the outage may be overstated by it.
    pub fn longest_pause(&self, from: Time, until: Time) -> Duration {
        let mut sent: Vec<Time> = self.of(Kind::Probe).map(|sample| sample.sent).collect();
        sent.sort_unstable();
        longest_step(
            from,
            sent.into_iter()
                .filter(|sent| (from..=until).contains(sent)),
            until,
        )
    }

    /// Whether no request begun in the last `window` failed, and each of these kinds succeeds at its usual pace.
    pub fn is_settled(&self, paces: &[(Kind, Duration)], now: Time, window: Duration) -> bool {
        paces.iter().all(|(kind, pace)| {
            let usual = longest_usual(*pace);
            let latest = self.samples.iter().rev();
            // The samples are in the order in which they ended.
            let latest = latest.take_while(|sample| now - sample.done <= window.max(usual));
            let (mut failed, mut succeeds) = (false, false);
            for sample in latest.filter(|sample| sample.kind == *kind) {
                failed |= !sample.ok && now - sample.sent <= window;
                succeeds |= sample.ok && now - sample.done <= usual;
            }
            succeeds && !failed
        })
    }

    /// How long after `harm` requests of all these kinds succeeded for good. Zero: they never stopped. `None`: they did
    /// not within the recording.
    ///
    /// A failed request after the harm disturbs its kind until the first success begun no earlier than the failure; so
    /// does a gap between successes much longer than usual.
    pub fn recovered(&self, paces: &[(Kind, Duration)], harm: Time) -> Option<Duration> {
        let ends = paces
            .iter()
            .map(|(kind, pace)| self.end_of_trouble(*kind, *pace, harm));
        let ends: Option<Vec<Time>> = ends.collect();
        Some(
            ends?
                .into_iter()
                .max()
                .map_or(Duration::ZERO, |end| end - harm),
        )
    }

    /// `harm` itself if nothing was disturbed.
    fn end_of_trouble(&self, kind: Kind, pace: Duration, harm: Time) -> Option<Time> {
        let last_failure = self
            .of(kind)
            .filter(|sample| !sample.ok && sample.done >= harm)
            .map(|s| s.sent)
            .max();
        let after_failures = match last_failure {
            None => harm,
            Some(begun) => self
                .of(kind)
                .filter(|s| s.ok && s.sent >= begun)
                .map(|s| s.done)
                .min()?,
        };
        let done = self.successes(kind);
        let long = |pair: &&[Time]| pair[1] > harm && pair[1] - pair[0] > longest_usual(pace);
        let after_gaps = done.windows(2).filter(long).map(|pair| pair[1]).max();
        Some(after_gaps.map_or(after_failures, |end| end.max(after_failures)))
    }

    fn successes(&self, kind: Kind) -> Vec<Time> {
        let mut done: Vec<Time> = self
            .of(kind)
            .filter(|sample| sample.ok)
            .map(|sample| sample.done)
            .collect();
        done.sort_unstable();
        done
    }
}

/// A gap up to this long between two successes is no disturbance: five times the usual interval, plus 100 ms.
fn longest_usual(pace: Duration) -> Duration {
    pace * 5 + Duration::from_millis(100)
}

fn longest_step(from: Time, points: impl Iterator<Item = Time>, until: Time) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    for point in points.chain([until]) {
        longest = longest.max(point - last);
        last = point;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACES: [(Kind, Duration); 1] = [(Kind::Probe, Duration::from_millis(10))];

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    /// A probe every 10 ms to `until`, failing while the site is away; answered after 1 ms.
    fn probed(until: u64, away: std::ops::Range<u64>) -> Ledger {
        let mut ledger = Ledger::default();
        for sent in (0..until).step_by(10) {
            if away.contains(&sent) {
                ledger.failed(Kind::Probe, at(sent), at(sent + 1), false, "refused");
            } else {
                ledger.succeeded(Kind::Probe, at(sent), at(sent + 1), false);
            }
        }
        ledger
    }

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        let kinds = [
            Kind::Probe,
            Kind::Vip([10, 77, 0, 100].into()),
            Kind::Page,
            Kind::Read,
            Kind::Write,
            Kind::Inside("db1".parse().unwrap()),
        ];
        for kind in kinds {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("vip db1".parse::<Kind>().is_err() && "".parse::<Kind>().is_err());
    }

    #[test]
    fn the_outage_is_the_longest_gap_between_successes() {
        let ledger = probed(2000, 1000..1300);
        assert_eq!(
            ledger.longest_gap(Kind::Probe, at(0), at(2000)).as_millis(),
            310
        );
        assert_eq!(
            ledger.longest_gap(Kind::Probe, at(0), at(900)).as_millis(),
            10
        );
        assert_eq!(ledger.failed_count(), 30);
    }

    #[test]
    fn a_gap_that_has_not_ended_counts() {
        let ledger = probed(2000, 1000..2000);
        assert_eq!(
            ledger.longest_gap(Kind::Probe, at(0), at(2000)).as_millis(),
            1009
        );
        assert_eq!(
            ledger.longest_gap(Kind::Write, at(0), at(2000)).as_millis(),
            2000
        );
    }

    #[test]
    fn recovered_is_the_first_success_after_the_last_failure() {
        let ledger = probed(2000, 1000..1300);
        assert_eq!(
            ledger.recovered(&PACES, at(990)),
            Some(Duration::from_millis(311))
        );
        assert_eq!(
            probed(2000, 0..0).recovered(&PACES, at(990)),
            Some(Duration::ZERO)
        );
        assert_eq!(probed(2000, 1000..2000).recovered(&PACES, at(990)), None);
    }

    #[test]
    fn a_request_that_hangs_long_does_not_put_off_the_recovery_of_others() {
        let mut ledger = probed(5000, 1000..1300);
        ledger.failed(Kind::Probe, at(1001), at(4900), false, "no answer");
        assert_eq!(
            ledger.recovered(&PACES, at(990)),
            Some(Duration::from_millis(311))
        );
    }

    #[test]
    fn a_stall_without_a_failure_is_a_disturbance() {
        let mut ledger = Ledger::default();
        for ms in [0, 30, 60, 3000, 3030] {
            ledger.succeeded(Kind::Write, at(ms), at(ms + 1), false);
        }
        let paces = [(Kind::Write, Duration::from_millis(30))];
        assert_eq!(
            ledger.recovered(&paces, at(65)),
            Some(Duration::from_millis(2936))
        );
        assert_eq!(ledger.recovered(&paces, at(3010)), Some(Duration::ZERO));
    }

    #[test]
    fn it_is_settled_when_all_kinds_succeed_for_a_while() {
        let window = Duration::from_millis(500);
        assert!(probed(990, 0..0).is_settled(&PACES, at(990), window));
        let ledger = probed(1700, 1000..1300);
        assert!(
            !ledger.is_settled(&PACES, at(1700), window),
            "failures 410 ms ago"
        );
        let ledger = probed(2000, 1000..1300);
        assert!(ledger.is_settled(&PACES, at(2000), window));
        assert!(
            !ledger.is_settled(&PACES, at(2300), window),
            "nothing for 309 ms"
        );
        let both = [PACES[0], (Kind::Read, Duration::from_millis(30))];
        assert!(
            !ledger.is_settled(&both, at(2000), window),
            "no read ever succeeded"
        );
    }

    #[test]
    fn a_stalled_prober_is_distinguished_from_an_outage() {
        let mut ledger = probed(1000, 0..0);
        ledger.succeeded(Kind::Probe, at(1400), at(1401), false);
        assert_eq!(ledger.longest_pause(at(0), at(1410)).as_millis(), 410);
    }
}
