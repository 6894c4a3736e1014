//! Gives one VIP to another router: no request that a client has begun fails, and no new connection stays unanswered.
//!
//! 1. Responses carry `Connection: close` for a while, so that few connections are open when the address moves.
//! 2. From then on the keeper captures incoming SYNs, and the proxy leaves them unanswered until its last request in flight
//!    has ended.
//! 3. The keeper releases the VIP, but keeps serving until it hears the next holder; then it forwards the captured SYNs.
//!
//! Before each step the heir must stand by for the VIP. If it does not, this balancer keeps serving.

use gaiola_model::Time;
use std::net::IpAddr;
use std::time::Duration;

/// How long clients get to open their next connection elsewhere before new ones are held back.
pub const CLOSING: Duration = Duration::from_secs(2);
/// The longest that new connections are held back while the last requests in flight end.
pub const REFUSING: Duration = Duration::from_millis(700);
/// Wait before a VIP that no other balancer took is offered again.
pub const OFFER_AGAIN: Duration = Duration::from_secs(10);
/// Timeout for the keeper to begin capturing SYNs.
const CAPTURING: Duration = Duration::from_millis(500);
/// Timeout for the keeper to release the VIP, or to find that no balancer takes it.
const YIELDING: Duration = Duration::from_secs(1);

/// The balancer that should take a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// Any balancer that stands by.
    Anyone,
    /// This balancer, the VIP's home: where it no longer stands by, the VIP stays rather than move twice.
    Home(IpAddr),
}

/// What is known of a VIP that is held here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// It belongs elsewhere, for example because this balancer is drained.
    pub must_go: bool,
    /// Its home, if that is another balancer that serves and is well.
    pub home: Option<IpAddr>,
    /// The router that would take it if it were released now.
    pub standby: Option<IpAddr>,
    /// The same one, if its priority is higher and it has stood by for long enough.
    pub settled: Option<IpAddr>,
}

/// The balancer that a VIP should be handed to now: any that stands by if it must go, else its home once that has settled.
pub fn heir(held: &Held) -> Option<Heir> {
    if held.must_go && held.standby.is_some() {
        Some(Heir::Anyone)
    } else {
        let home = held.home.filter(|home| held.settled == Some(*home))?;
        Some(Heir::Home(home))
    }
}

/// What this server's keeper reports of the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperView {
    /// It holds the VIP.
    pub holds: bool,
    /// The router that would take the VIP if it were released now.
    pub standby: Option<IpAddr>,
    /// SYNs are being captured.
    pub is_holding_back: bool,
    /// It was asked to yield, and does not know yet which router holds the VIP then.
    pub is_yielding: bool,
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The proxy closes each connection with its response.
    Close,
    /// The keeper captures SYNs (`true`), or forwards the captured ones and captures no more.
    HoldBack(bool),
    /// The proxy leaves SYNs unanswered. The next step is taken once its last request in flight has ended, after
    /// [`REFUSING`] at the latest.
    Refuse,
    /// The keeper lets another balancer take the VIP.
    Yield,
    /// The proxy accepts connections.
    Accept,
    /// The VIP was not handed over; only to be reported.
    Stays(Reason),
}

/// Why a VIP stays, or is not handed over by this balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its heir no longer stands by.
    NoHeir(Heir),
    /// It is not held here any more.
    Lost,
    /// The keeper does not report on it.
    Unreported,
}

impl Reason {
    /// In words that follow the VIP.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NoHeir(Heir::Anyone) => "stays: nobody stands by for it any more",
            Self::NoHeir(Heir::Home(_)) => "stays: its home no longer stands by",
            Self::Lost => "is not held here any more",
            Self::Unreported => "stays: the keeper does not report on it",
        }
    }
}

/// The hand-over of one VIP. Whatever happens, the proxy accepts connections again when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    heir: Heir,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Responses close their connections.
    Closing {
        until: Time,
    },
    /// The keeper was asked to capture SYNs.
    Capturing {
        until: Time,
    },
    /// The proxy leaves new connections unanswered until the last request has ended.
    Refusing,
    /// The keeper was asked to yield.
    Yielding {
        until: Time,
    },
    Ended,
}

impl HandOver {
    /// Begins to hand a VIP over.
    pub fn begin(now: Time, heir: Heir, out: &mut Vec<Output>) -> Self {
        out.push(Output::Close);
        let until = now + CLOSING;
        let stage = Stage::Closing { until };
        Self { heir, stage }
    }

    /// Continues with what the keeper reports now; `None`: it reports nothing of the VIP. To be called every
    /// [`poll_interval`](Self::poll_interval).
    pub fn step(&mut self, now: Time, seen: Option<KeeperView>, out: &mut Vec<Output>) {
        match self.stage {
            Stage::Closing { .. } | Stage::Refusing => match self.missing(seen) {
                Some(reason) => self.give_up(reason, out),
                None => self.advance(now, out),
            },
            Stage::Capturing { .. } if seen.is_some_and(|seen| seen.is_holding_back) => {
                self.stage = Stage::Refusing;
                out.push(Output::Refuse);
            }
            Stage::Yielding { .. } if seen.is_some_and(|seen| !seen.is_yielding) => self.end(out),
            Stage::Capturing { until } | Stage::Yielding { until } if now >= until => {
                self.give_up(Reason::Unreported, out);
            }
            Stage::Capturing { .. } | Stage::Yielding { .. } | Stage::Ended => {}
        }
    }

    /// How soon to take the next step: soon if clients wait for it.
    pub const fn poll_interval(&self) -> Duration {
        match self.stage {
            Stage::Closing { .. } => Duration::from_millis(50),
            _ => Duration::from_millis(5),
        }
    }

    /// Whether there is nothing left to do.
    pub const fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// The heir stands by: the next stage begins once it is time.
    fn advance(&mut self, now: Time, out: &mut Vec<Output>) {
        match self.stage {
            Stage::Closing { until } if now >= until => {
                let until = now + CAPTURING;
                self.stage = Stage::Capturing { until };
                out.push(Output::HoldBack(true));
            }
            Stage::Refusing => {
                let until = now + YIELDING;
                self.stage = Stage::Yielding { until };
                out.push(Output::Yield);
            }
            _ => {}
        }
    }

    /// Why the VIP cannot be handed over now.
    fn missing(&self, seen: Option<KeeperView>) -> Option<Reason> {
        let Some(seen) = seen else {
            return Some(Reason::Unreported);
        };
        let stands_by = seen
            .standby
            .is_some_and(|it| self.heir == Heir::Anyone || self.heir == Heir::Home(it));
        match (seen.holds, stands_by) {
            (false, _) => Some(Reason::Lost),
            (true, false) => Some(Reason::NoHeir(self.heir)),
            (true, true) => None,
        }
    }

    fn give_up(&mut self, reason: Reason, out: &mut Vec<Output>) {
        out.push(Output::Stays(reason));
        self.end(out);
    }

    fn end(&mut self, out: &mut Vec<Output>) {
        self.stage = Stage::Ended;
        out.extend(SERVE);
    }
}

/// What makes a balancer answer new connections again, and then those that were held back.
pub const SERVE: [Output; 2] = [Output::Accept, Output::HoldBack(false)];

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
    const READY: KeeperView = KeeperView {
        holds: true,
        standby: Some(HOME),
        is_holding_back: false,
        is_yielding: false,
    };

    struct Bench {
        hand_over: HandOver,
        out: Vec<Output>,
    }

    impl Bench {
        fn new(heir: Heir) -> Self {
            let mut out = Vec::new();
            let hand_over = HandOver::begin(Time::ZERO, heir, &mut out);
            assert_eq!(out, [Output::Close]);
            Self { hand_over, out }
        }

        fn step(&mut self, ms: u64, seen: Option<KeeperView>) -> &[Output] {
            self.out.clear();
            let now = Time::from_start(Duration::from_millis(ms));
            self.hand_over.step(now, seen, &mut self.out);
            &self.out
        }

        fn refuses(heir: Heir) -> Self {
            let mut bench = Self::new(heir);
            assert_eq!(bench.step(1999, Some(READY)), []);
            let hold_back = [Output::HoldBack(true)];
            assert_eq!(bench.step(2000, Some(READY)), hold_back);
            assert_eq!(bench.step(2005, Some(READY)), []);
            let seen = KeeperView {
                is_holding_back: true,
                ..READY
            };
            assert_eq!(bench.step(2010, Some(seen)), [Output::Refuse]);
            bench
        }
    }

    fn stays(reason: Reason) -> [Output; 3] {
        let [accept, pass_on] = SERVE;
        [Output::Stays(reason), accept, pass_on]
    }

    #[test]
    fn a_vip_goes_home_and_connections_are_answered_again() {
        let mut bench = Bench::refuses(Heir::Home(HOME));
        assert_eq!(bench.step(2500, Some(READY)), [Output::Yield]);
        let yielding = KeeperView {
            is_yielding: true,
            ..READY
        };
        assert_eq!(bench.step(2505, Some(yielding)), []);
        let gone = KeeperView {
            holds: false,
            ..READY
        };
        assert_eq!(bench.step(2600, Some(gone)), SERVE);
        assert!(bench.hand_over.has_ended());
        assert_eq!(bench.step(2700, Some(gone)), []);
    }

    #[test]
    fn a_vip_stays_where_its_heir_leaves_at_any_moment() {
        let home = Heir::Home(HOME);
        let left = KeeperView {
            standby: Some(OTHER),
            ..READY
        };
        let no_heir = stays(Reason::NoHeir(home));
        assert_eq!(Bench::new(home).step(50, Some(left)), no_heir);
        assert_eq!(Bench::refuses(home).step(2500, Some(left)), no_heir);
        let anyone = Bench::refuses(Heir::Anyone).step(2500, Some(left)).to_vec();
        assert_eq!(anyone, [Output::Yield]);
    }

    #[test]
    fn a_keeper_that_reports_nothing_ends_the_hand_over_in_time() {
        let unreported = stays(Reason::Unreported);
        assert_eq!(Bench::new(Heir::Anyone).step(50, None), unreported);
        let mut bench = Bench::new(Heir::Anyone);
        bench.step(2000, Some(READY));
        assert_eq!(bench.step(2499, None), []);
        assert_eq!(bench.step(2500, Some(READY)), unreported);
        let mut bench = Bench::refuses(Heir::Anyone);
        bench.step(2500, Some(READY));
        assert_eq!(bench.step(3499, None), []);
        assert_eq!(bench.step(3500, None), unreported);
    }

    #[test]
    fn a_vip_that_is_lost_meanwhile_is_not_handed_over() {
        let lost = KeeperView {
            holds: false,
            ..READY
        };
        let out = Bench::new(Heir::Anyone).step(50, Some(lost)).to_vec();
        assert_eq!(out, stays(Reason::Lost));
    }

    #[test]
    fn a_vip_goes_to_anyone_if_it_must_and_home_once_that_has_settled() {
        let held = Held {
            must_go: false,
            home: Some(HOME),
            standby: Some(HOME),
            settled: None,
        };
        assert_eq!(heir(&held), None);
        let settled = Held {
            settled: Some(HOME),
            ..held
        };
        assert_eq!(heir(&settled), Some(Heir::Home(HOME)));
        let elsewhere = Held {
            home: Some(OTHER),
            ..settled
        };
        assert_eq!(heir(&elsewhere), None);
        let must_go = Held {
            must_go: true,
            ..held
        };
        assert_eq!(heir(&must_go), Some(Heir::Anyone));
    }
}
