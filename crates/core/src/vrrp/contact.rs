//! Whether this balancer is cut off: no other balancer hears it, and no relay answers.
//!
//! An address is worth nothing on a balancer that nobody reaches. Worse, when its network returns, two hold it, and clients'
//! connections break once more. So it lets its VIPs go. `docs/decisions/vrrp.md` has the truth table.

use gaiola_model::Time;
use gaiola_model::vrrp::Ping;
use std::collections::VecDeque;
use std::time::Duration;

/// After the last sign of a relay a balancer that heard no other one then keeps its VIPs for this long: nobody would
/// take them, and a relay may just be busy.
pub const ALONE_AFTER: Duration = Duration::from_secs(3);

/// How long a refusal shows that the network passes: the kernel of a relay's server answers that no relay runs there, but only
/// about once a second.
pub const REFUSAL_LASTS: Duration = Duration::from_millis(2500);

/// Intervals between two pings while another balancer hears this one: they only show which relays work.
const CALM: u32 = 10;

/// Pings whose answers are awaited: three seconds' worth, if an interval is 100 ms.
const MOST_PINGS: usize = 32;

/// Who could show that this balancer is not cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// There are relays.
    pub relays: bool,
    /// There are other balancers.
    pub balancers: bool,
}

impl Surroundings {
    /// Whether silence means anything: without relays it may just as well be the other balancer that is dead, and without
    /// other balancers nobody would take the VIPs.
    const fn tell(self) -> bool {
        self.relays && self.balancers
    }
}

/// Remembers every sign that somebody hears this balancer.
///
/// ```
/// use gaiola_core::vrrp::{Contact, Surroundings};
/// use gaiola_model::Time;
/// use std::time::Duration;
///
/// let at = |ms| Time::from_start(Duration::from_millis(ms));
/// let mut contact = Contact::new(17);
/// let both = Surroundings { relays: true, balancers: true };
/// contact.configure(at(0), both, Duration::from_millis(100));
/// let ping = contact.ping(at(0)).unwrap();
/// contact.answered(at(1), ping);
/// contact.is_heard(at(2));
/// assert!(!contact.is_cut_off(at(300)));
/// assert!(contact.is_cut_off(at(352)));
/// ```
#[derive(Clone, Debug)]
pub struct Contact {
    around: Surroundings,
    interval: Duration,
    /// Since when it has been asking: silence before that means nothing.
    since: Time,
    /// When a ping was sent that a relay has answered, or a balancer that hears this one was heard.
    heard: Option<Time>,
    /// When a balancer that hears this one was last heard.
    balancer: Option<Time>,
    /// When a relay last showed that it is reached.
    relay: Option<Time>,
    refused: Option<Time>,
    /// When the last ping was sent; `None`: ask now.
    pinged: Option<Time>,
    last: Ping,
    sent: VecDeque<(Ping, Time)>,
}

impl Contact {
    /// Pings count from `first`, which should be random.
    pub fn new(first: u64) -> Self {
        Self {
            around: Surroundings::default(),
            interval: Duration::from_millis(100),
            since: Time::ZERO,
            heard: None,
            balancer: None,
            relay: None,
            refused: None,
            pinged: None,
            last: Ping(first),
            sent: VecDeque::new(),
        }
    }

    /// Sets who is around, and the interval of pings.
    pub fn configure(&mut self, now: Time, around: Surroundings, interval: Duration) {
        if around.tell() && !self.around.tell() {
            self.begin_anew(now);
        }
        self.around = around;
        self.interval = interval;
    }

    /// The ping to send to every relay now, if one is due.
    pub fn ping(&mut self, now: Time) -> Option<Ping> {
        let due = self.ping_at();
        if !self.around.relays || now < due {
            return None;
        }
        if now >= due + self.interval * 2 {
            // This process slept: it asks before it concludes anything.
            self.begin_anew(now);
        }
        self.pinged = Some(now);
        self.last = Ping(self.last.0.wrapping_add(1));
        self.sent.truncate(MOST_PINGS - 1);
        self.sent.push_front((self.last, now));
        Some(self.last)
    }

    /// A relay has answered. That proves contact at the time of the ping, however late the answer is.
    pub fn answered(&mut self, now: Time, ping: Ping) {
        let sent = self.sent.iter().find(|(sent, _)| *sent == ping);
        if let Some((_, at)) = sent {
            let at = Some((*at).min(now));
            (self.heard, self.relay) = (self.heard.max(at), self.relay.max(at));
        }
    }

    /// The server of a relay has answered that no relay runs there.
    pub fn refused(&mut self, now: Time) {
        (self.refused, self.relay) = (Some(now), Some(now));
    }

    /// Another balancer that hears this one was heard, whatever way its message came.
    pub fn is_heard(&mut self, now: Time) {
        (self.heard, self.balancer) = (Some(now), Some(now));
    }

    /// Whether nobody hears this balancer.
    pub fn is_cut_off(&self, now: Time) -> bool {
        self.cut_off_at().is_some_and(|at| now >= at)
    }

    /// When to send a ping, or to read [`is_cut_off`](Self::is_cut_off) again, if nothing else happens first.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let ping = self.around.relays.then(|| self.ping_at());
        let cut_off = self.cut_off_at().filter(|at| *at > now);
        ping.into_iter().chain(cut_off).min()
    }

    /// When the next ping is due: soon after the other balancers fall silent, until then rarely.
    fn ping_at(&self) -> Time {
        let Some(pinged) = self.pinged else {
            return Time::ZERO;
        };
        let silent = self.balancer.map(|heard| heard + self.interval * 11 / 10);
        let next = pinged + self.interval;
        silent.map_or(next, |silent| {
            silent.clamp(next, pinged + self.interval * CALM)
        })
    }

    /// When it counts as cut off, if nobody is heard until then.
    fn cut_off_at(&self) -> Option<Time> {
        let by_heard = self.heard.map(|heard| heard + self.patience(heard));
        let by_refusal = self.refused.map(|refused| refused + REFUSAL_LASTS);
        // Before a Backup's first take-over.
        let by_start = Some(self.since + self.interval * 3);
        let at = by_heard.max(by_refusal).max(by_start);
        at.filter(|_| self.around.tell() && self.relays_work())
    }

    /// Whether relays were reached when the other balancers were heard last. Where something keeps their answers away, such as a packet
    /// filter, their silence means nothing: the balancer that is left keeps its VIPs.
    fn relays_work(&self) -> bool {
        let since = |relay: Time| {
            self.balancer
                .is_none_or(|heard| relay + ALONE_AFTER >= heard)
        };
        self.relay.is_some_and(since)
    }

    /// How long after it was last heard. The other balancers, if it heard some then, take its VIPs within this time.
    fn patience(&self, heard: Time) -> Duration {
        let soon = self.interval * 7 / 2;
        let is_recent = |balancer: Time| heard - balancer <= soon;
        if self.balancer.is_some_and(is_recent) {
            soon
        } else {
            soon.max(ALONE_AFTER)
        }
    }

    fn begin_anew(&mut self, now: Time) {
        self.since = now;
        self.pinged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);
    const BOTH: Surroundings = Surroundings {
        relays: true,
        balancers: true,
    };

    /// A balancer that asks every interval.
    struct Bench {
        contact: Contact,
        ms: u64,
    }

    /// Who answers it.
    #[derive(Clone, Copy, Default)]
    struct Answers {
        relay: bool,
        balancer: bool,
        refusal: bool,
    }

    impl Bench {
        fn new(around: Surroundings) -> Self {
            let mut contact = Contact::new(u64::MAX);
            contact.configure(Time::ZERO, around, INTERVAL);
            Self { contact, ms: 0 }
        }

        fn now(&self) -> Time {
            Time::from_start(Duration::from_millis(self.ms))
        }

        fn runs(&mut self, ms: u64, answers: Answers) {
            let end = self.ms + ms;
            while self.ms < end {
                let now = self.now();
                if let Some(ping) = self.contact.ping(now)
                    && answers.relay
                {
                    self.contact.answered(now, ping);
                }
                if answers.balancer {
                    self.contact.is_heard(now);
                }
                if answers.refusal {
                    self.contact.refused(now);
                }
                self.ms += 10;
            }
        }

        /// How long until it counts as cut off, if these answer; `None`: it does not within ten seconds.
        fn is_cut_off_within(&mut self, answers: Answers) -> Option<u64> {
            let begin = self.ms;
            while self.ms < begin + 10_000 {
                if self.contact.is_cut_off(self.now()) {
                    return Some(self.ms - begin);
                }
                self.runs(10, answers);
            }
            None
        }
    }

    fn answers(relay: bool, balancer: bool, refusal: bool) -> Answers {
        Answers {
            relay,
            balancer,
            refusal,
        }
    }

    const NOBODY: Answers = Answers {
        relay: false,
        balancer: false,
        refusal: false,
    };

    #[test]
    fn anybody_who_answers_is_enough() {
        for answers in [
            answers(true, false, false),
            answers(false, true, false),
            answers(false, false, true),
        ] {
            let mut bench = Bench::new(BOTH);
            assert_eq!(bench.is_cut_off_within(answers), None);
        }
    }

    #[test]
    fn one_that_loses_all_at_once_is_cut_off_before_its_vips_are_taken_for_long() {
        let mut bench = Bench::new(BOTH);
        bench.runs(1000, answers(true, true, false));
        let within = bench.is_cut_off_within(NOBODY).unwrap();
        assert!((300..=350).contains(&within), "{within}");
    }

    #[test]
    fn one_that_has_lost_the_other_balancer_before_is_patient_with_busy_relays() {
        let mut bench = Bench::new(BOTH);
        bench.runs(1000, answers(true, true, false));
        bench.runs(1000, answers(true, false, false));
        let within = bench.is_cut_off_within(NOBODY).unwrap();
        assert!((2800..=3000).contains(&within), "{within}");
    }

    #[test]
    fn relays_that_never_answered_prove_nothing_by_their_silence() {
        let mut bench = Bench::new(BOTH);
        assert_eq!(bench.is_cut_off_within(NOBODY), None);
        bench.runs(1000, answers(false, true, false));
        assert_eq!(bench.is_cut_off_within(NOBODY), None);
    }

    #[test]
    fn relays_that_are_shut_off_while_the_balancers_hear_each_other_prove_nothing() {
        let mut bench = Bench::new(BOTH);
        bench.runs(1000, answers(true, true, false));
        bench.runs(4000, answers(false, true, false));
        assert_eq!(bench.is_cut_off_within(NOBODY), None);
    }

    #[test]
    fn relays_are_asked_rarely_while_another_balancer_hears_it() {
        let pings = |contact: &mut Contact, span: std::ops::Range<u64>, heard: bool| {
            let at = |ms| Time::from_start(Duration::from_millis(ms));
            let mut pings = Vec::new();
            for ms in span {
                let due = contact.next_deadline(at(ms)).unwrap();
                if heard && ms % 100 == 0 {
                    contact.is_heard(at(ms));
                }
                if contact.ping(at(ms)).is_some() {
                    assert!(due <= at(ms));
                    pings.push(ms);
                }
            }
            pings
        };
        let mut contact = Bench::new(BOTH).contact;
        assert_eq!(pings(&mut contact, 0..2500, true), [0, 1000, 2000]);
        let silent = [2510, 2610, 2710, 2810, 2910];
        assert_eq!(pings(&mut contact, 2500..3000, false), silent);
    }

    #[test]
    fn silence_means_nothing_without_relays_or_without_another_balancer() {
        for (relays, balancers) in [(false, false), (false, true), (true, false)] {
            let mut bench = Bench::new(Surroundings { relays, balancers });
            assert_eq!(bench.is_cut_off_within(NOBODY), None);
        }
    }

    #[test]
    fn an_answer_counts_from_its_ping_and_one_to_no_ping_not_at_all() {
        let mut contact = Bench::new(BOTH).contact;
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        contact.is_heard(at(0));
        let ping = contact.ping(at(0)).unwrap();
        contact.answered(at(349), ping);
        contact.answered(at(349), Ping(12345));
        assert!(contact.is_cut_off(at(350)));
    }

    #[test]
    fn a_process_that_slept_asks_before_it_concludes() {
        let mut bench = Bench::new(BOTH);
        bench.runs(1000, answers(true, true, false));
        bench.ms += 5000;
        bench.contact.ping(bench.now());
        assert!(!bench.contact.is_cut_off(bench.now()));
        assert_eq!(bench.is_cut_off_within(NOBODY), Some(300));
    }
}
