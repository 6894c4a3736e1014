//! Rates, from counters that only grow. A proxy that restarts counts from zero.

use gaiola_model::{Time, metric};
use gaiola_wire::metrics::{Line, Sample};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Rates are means over this long.
const WINDOW: Duration = Duration::from_secs(6);

/// One proxy's HTTP counters since its start, by member.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counted {
    bounds: Vec<f64>,
    members: BTreeMap<String, Counts>,
}

/// Requests that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    all: u64,
    /// Answered with 5xx.
    failed: u64,
    /// Ended without a response.
    unanswered: u64,
    /// By duration, cumulative.
    buckets: Vec<u64>,
}

/// Rates per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    requests: f64,
    errors: f64,
    bounds: Vec<f64>,
    buckets: Vec<f64>,
}

/// The traffic of a server, an instance, or between two servers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Completed requests per second.
    pub requests: f64,
    /// Those of them that were answered with 5xx or not at all.
    pub errors: f64,
    /// The 99th percentile of their duration, in seconds; infinite: above the last bucket. `None`: there were no requests.
    pub p99: Option<f64>,
}

/// Requests since the site came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// That have ended.
    pub requests: u64,
    /// That were answered with 5xx.
    pub failed: u64,
}

/// The last few polls of one proxy.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(Time, Counted)>,
    window: VecDeque<(Duration, BTreeMap<String, Counts>)>,
    /// It did not answer the last poll.
    silent: bool,
}

impl Counted {
    /// Reads a proxy's metrics. Other families, and lines that cannot be read, are ignored.
    pub(super) fn read(text: &str) -> Self {
        let mut counted = Self::default();
        for sample in text.lines().filter_map(Line::read).filter_map(Line::sample) {
            counted.take(&sample);
        }
        counted
    }

    fn take(&mut self, sample: &Sample<'_>) -> Option<()> {
        if let Some([_, backend, server, code]) = sample.of(&metric::HTTP_REQUESTS) {
            let (count, counts) = (sample.value::<u64>()?, self.of(&server));
            counts.all += count;
            match code.as_bytes().first() {
                // A balancer's own answers about its health fail nobody.
                Some(b'5') if *backend == *"-" => {}
                Some(b'5') => counts.failed += count,
                Some(b'1'..=b'9') => {}
                _ => counts.unanswered += count,
            }
        } else if let Some((labels, bound)) = sample.bucket_of(&metric::HTTP_REQUEST_DURATION) {
            let [_, _, server] = labels;
            self.add_bucket(&server, bound, sample.value()?);
        }
        Some(())
    }

    fn add_bucket(&mut self, server: &str, bound: f64, value: u64) {
        let known = self
            .bounds
            .iter()
            .position(|known| known.total_cmp(&bound).is_eq());
        let place = known.unwrap_or_else(|| {
            self.bounds.push(bound);
            self.bounds.len() - 1
        });
        let buckets = &mut self.of(server).buckets;
        buckets.resize(buckets.len().max(place + 1), 0);
        buckets[place] += value;
    }

    fn of(&mut self, server: &str) -> &mut Counts {
        if !self.members.contains_key(server) {
            self.members.insert(server.into(), Counts::default());
        }
        self.members
            .get_mut(server)
            .expect("it was put there just now")
    }
}

impl Counts {
    /// The counts since `before`. If a number shrank the proxy has restarted, and all of its counts are new.
    fn since(&self, before: Option<&Self>) -> Self {
        let shrank = |before: &Self| {
            self.all < before.all
                || self
                    .buckets
                    .iter()
                    .zip(&before.buckets)
                    .any(|(now, then)| now < then)
        };
        let Some(before) = before.filter(|before| !shrank(before)) else {
            return self.clone();
        };
        let then = before.buckets.iter().chain(std::iter::repeat(&0));
        Self {
            all: self.all - before.all,
            failed: self.failed.saturating_sub(before.failed),
            unanswered: self.unanswered.saturating_sub(before.unanswered),
            buckets: self
                .buckets
                .iter()
                .zip(then)
                .map(|(now, then)| now - then)
                .collect(),
        }
    }
}

impl Meter {
    /// Records a proxy's counters, and returns by how much the totals grew. Rates begin with the second poll.
    pub(super) fn record(&mut self, now: Time, counted: Counted) -> Totals {
        let before = self.last.as_ref().map(|(_, counted)| counted);
        let of = |member: &str| before.and_then(|before| before.members.get(member));
        let grown: BTreeMap<_, _> = counted
            .members
            .iter()
            .map(|(name, counts)| (name.clone(), counts.since(of(name))))
            .collect();
        let totals = grown.values().fold(Totals::default(), |sum, grown| Totals {
            requests: sum.requests + grown.all,
            failed: sum.failed + grown.failed,
        });
        if let Some((then, _)) = self.last {
            self.window.push_back((now - then, grown));
            while self.measured() - self.window[0].0 >= WINDOW {
                self.window.pop_front();
            }
        }
        self.last = Some((now, counted));
        self.silent = false;
        totals
    }

    /// The proxy did not answer, so its rates are unknown. After silence for a whole window they start over.
    pub(super) fn missed(&mut self, now: Time) {
        self.silent = true;
        if self
            .last
            .as_ref()
            .is_some_and(|(then, _)| now - *then >= WINDOW)
        {
            self.window.clear();
        }
    }

    fn measured(&self) -> Duration {
        self.window.iter().map(|(span, _)| *span).sum()
    }

    /// Rates by member; empty while nothing is known.
    pub(super) fn rates(&self) -> BTreeMap<&str, Rates> {
        let (seconds, mut rates) = (
            self.measured().as_secs_f64(),
            BTreeMap::<&str, Rates>::new(),
        );
        let Some((_, last)) = self.last.as_ref().filter(|_| seconds > 0.0) else {
            return rates;
        };
        for (member, grown) in self.window.iter().flat_map(|(_, grown)| grown) {
            rates.entry(member).or_default().add(&Rates {
                requests: in_a_second(grown.all, seconds),
                errors: in_a_second(grown.failed + grown.unanswered, seconds),
                bounds: last.bounds.clone(),
                buckets: grown
                    .buckets
                    .iter()
                    .map(|count| in_a_second(*count, seconds))
                    .collect(),
            });
        }
        rates
    }

    /// Whether anything is known.
    pub(super) fn is_known(&self) -> bool {
        !self.window.is_empty() && !self.silent
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn in_a_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

impl Rates {
    /// Adds another proxy's counts. Histograms with other bounds are ignored.
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        if self.bounds.is_empty() {
            self.bounds.clone_from(&other.bounds);
        }
        if self.bounds == other.bounds {
            self.buckets
                .resize(self.buckets.len().max(other.buckets.len()), 0.0);
            self.buckets
                .iter_mut()
                .zip(&other.buckets)
                .for_each(|(sum, more)| *sum += more);
        }
    }

    /// For people.
    pub(super) fn load(&self) -> Load {
        Load {
            requests: self.requests,
            errors: self.errors,
            p99: self.quantile(0.99),
        }
    }

    /// A quantile of the duration, as if requests were evenly distributed within a bucket.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.buckets.last().copied().filter(|all| *all > 0.0)?;
        let wanted = all * part;
        let (mut lower, mut before) = (0.0, 0.0);
        for (&upper, &upto) in self.bounds.iter().zip(&self.buckets) {
            if upto >= wanted {
                let fits = upper.is_finite() && upto > before;
                return Some(if fits {
                    lower + (upper - lower) * (wanted - before) / (upto - before)
                } else {
                    upper
                });
            }
            (lower, before) = (upper, upto);
        }
        Some(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_wire::metrics::{Histogram, Text};

    fn text(ok: u64, failed: u64, slow: u64) -> String {
        let labels @ [frontend, backend, server] = ["http", "app,\"1\"", "app1.2"];
        let all = ok + failed;
        let mut text = Text::default();
        let mut requests = text.family(&metric::HTTP_REQUESTS);
        requests.sample([frontend, backend, server, "200"], ok);
        requests.sample([frontend, backend, server, "503"], failed);
        requests.sample([frontend, "-", "-", "503"], 0_u64);
        text.family(&metric::RETRIES).sample(labels, 7_u64);
        let observed = Histogram {
            bounds: &[0.1, 1.0],
            counts: &[all - slow, slow, 0],
            sum: 9.5,
        };
        let mut durations = text.family(&metric::HTTP_REQUEST_DURATION);
        durations.histogram(labels, &observed);
        text.into_string() + "nonsense { 1\n"
    }

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn polled(polls: &[(u64, String)]) -> (Meter, Totals) {
        let mut meter = Meter::default();
        let mut sum = Totals::default();
        for (seconds, text) in polls {
            let grown = meter.record(at(*seconds), Counted::read(text));
            sum = Totals {
                requests: sum.requests + grown.requests,
                failed: sum.failed + grown.failed,
            };
        }
        (meter, sum)
    }

    #[test]
    fn rates_are_differences() {
        let (meter, totals) = polled(&[(0, text(1000, 5, 0)), (2, text(1180, 7, 91))]);
        let load = meter.rates()["app1.2"].load();
        assert_eq!((load.requests, load.errors), (91.0, 1.0));
        let p99 = load.p99.unwrap();
        assert!(
            (0.9..1.0).contains(&p99),
            "half of them took between 0.1 and 1 s: {p99}"
        );
        assert_eq!(
            totals,
            Totals {
                requests: 1187,
                failed: 7
            }
        );
    }

    #[test]
    fn a_proxy_that_restarted_is_counted_from_zero() {
        let (meter, totals) = polled(&[(0, text(1000, 0, 0)), (2, text(20, 0, 0))]);
        assert_eq!(meter.rates()["app1.2"].load().requests, 10.0);
        assert_eq!(totals.requests, 1020);
    }

    #[test]
    fn old_polls_leave_the_window() {
        let polls: Vec<_> = (0..10)
            .map(|poll| (2 * poll, text(if poll < 5 { 0 } else { 100 * poll }, 0, 0)))
            .collect();
        let (meter, _) = polled(&polls);
        assert_eq!(meter.measured(), WINDOW);
        assert_eq!(meter.rates()["app1.2"].load().requests, 50.0);
    }

    #[test]
    fn a_silent_proxy_loses_its_rates_and_has_them_again_where_it_was_silent_for_a_moment() {
        let (mut meter, _) = polled(&[(0, text(1, 0, 0)), (2, text(2, 0, 0))]);
        meter.missed(at(4));
        assert!(!meter.is_known());
        meter.record(at(6), Counted::read(&text(3, 0, 0)));
        assert!(meter.is_known());
        meter.missed(at(8));
        meter.missed(at(12));
        assert!(!meter.is_known() && meter.rates().is_empty());
    }

    #[test]
    fn nothing_has_no_quantile_and_the_slowest_is_beyond_measure() {
        assert_eq!(Rates::default().load().p99, None);
        let slow = Rates {
            bounds: vec![1.0, f64::INFINITY],
            buckets: vec![0.0, 3.0],
            ..Rates::default()
        };
        assert_eq!(slow.load().p99, Some(f64::INFINITY));
    }
}
