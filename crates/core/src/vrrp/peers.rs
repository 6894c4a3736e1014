//! The other routers of a VIP, as their hellos show them: which stand by for it, and which hear us.

use gaiola_model::Time;
use gaiola_model::vrrp::{Hello, Priority};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A router that outranks the holder must have stood by for this long before the VIP goes back to it.
pub const SETTLING: Duration = Duration::from_secs(2);

/// Upper limit of that time: each loss of the router doubles it.
pub const LONGEST_SETTLING: Duration = Duration::from_secs(60);

/// A router heard for this long without interruption has its losses forgiven.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

/// Most routers remembered; a site has a handful. Only holders of the key can add one.
const MOST_PEERS: usize = 255;

/// State from the hellos of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<IpAddr, Peer>);

#[derive(Clone, Debug)]
struct Peer {
    priority: Priority,
    /// Since when it has been heard without interruption.
    heard_since: Time,
    /// When it counts as lost.
    lost_at: Time,
    /// Since when it stands by and hears us; `None`: it does not.
    stands_by_since: Option<Time>,
    /// Since when it does not hear us; `None`: it does.
    deaf_since: Option<Time>,
    /// How often it was lost, or did not take a VIP offered to it.
    losses: u32,
}

impl Peer {
    fn settling(&self) -> Duration {
        let doubled = self.losses.saturating_sub(1).min(10);
        (SETTLING * (1 << doubled)).min(LONGEST_SETTLING)
    }
}

/// How long a router that sends each `interval` may be silent before it counts as lost.
fn patience(interval: Duration) -> Duration {
    interval * 7 / 2
}

impl Peers {
    /// Takes a hello. `true`: its sender was not heard until now.
    pub(super) fn heard(&mut self, now: Time, own: IpAddr, from: IpAddr, hello: &Hello) -> bool {
        if self.0.len() >= MOST_PEERS && !self.0.contains_key(&from) {
            return false;
        }
        if hello.releases() {
            self.0.remove(&from);
            return false;
        }
        let lost_at = now + patience(hello.interval);
        let peer = self.0.entry(from).or_insert_with(|| Peer {
            priority: hello.priority,
            heard_since: now,
            lost_at,
            stands_by_since: None,
            deaf_since: None,
            losses: 0,
        });
        if now >= peer.lost_at {
            *peer = Peer {
                heard_since: now,
                stands_by_since: None,
                deaf_since: None,
                losses: peer.losses.saturating_add(1),
                ..*peer
            };
        } else if now - peer.heard_since >= FORGIVEN_AFTER {
            peer.losses = 0;
        }
        let hears_us = hello.hears(own);
        let since = |so: bool, before: Option<Time>| so.then(|| before.unwrap_or(now));
        peer.priority = hello.priority;
        peer.lost_at = lost_at;
        peer.stands_by_since = since(hello.stands_by && hears_us, peer.stands_by_since);
        peer.deaf_since = since(!hears_us, peer.deaf_since);
        peer.heard_since == now
    }

    /// This router was silent for longer than a holder may be.
    pub(super) fn lost(&mut self, now: Time, silent: IpAddr) {
        if let Some(peer) = self.0.get_mut(&silent) {
            peer.lost_at = peer.lost_at.min(now);
        }
    }

    /// The routers heard now.
    pub(super) fn all(&self, now: Time) -> Vec<IpAddr> {
        self.present(now).map(|(address, _)| address).collect()
    }

    /// The highest router that would take the VIP now: it is heard, ready, holds nothing, and hears us.
    pub(super) fn standby(&self, now: Time) -> Option<IpAddr> {
        self.best(now).map(|(address, _)| address)
    }

    /// The same router, if it outranks `own` and has stood by for the required time.
    pub(super) fn settled_above(&self, now: Time, own: Priority) -> Option<IpAddr> {
        let (address, peer) = self.best(now)?;
        let since = peer.stands_by_since?;
        (peer.priority > own && now - since >= peer.settling()).then_some(address)
    }

    /// Since when this router has reported that it does not hear us; `None`: it hears us, or sends no hellos.
    pub(super) fn deaf_since(&self, now: Time, from: IpAddr) -> Option<Time> {
        let mut present = self.present(now);
        let (_, peer) = present.find(|(address, _)| *address == from)?;
        peer.deaf_since
    }

    /// The VIP was offered, and nobody took it: the router that stood by for it is unreliable.
    pub(super) fn nobody_took_it(&mut self, now: Time) {
        for peer in self.0.values_mut().filter(|peer| now < peer.lost_at) {
            peer.losses = peer.losses.saturating_add(2);
            peer.heard_since = now;
            peer.stands_by_since = peer.stands_by_since.map(|_| now);
        }
    }

    fn best(&self, now: Time) -> Option<(IpAddr, &Peer)> {
        self.present(now)
            .filter(|(_, peer)| peer.stands_by_since.is_some())
            .max_by_key(|(address, peer)| (peer.priority, *address))
    }

    fn present(&self, now: Time) -> impl Iterator<Item = (IpAddr, &Peer)> {
        self.0
            .iter()
            .filter(move |(_, peer)| now < peer.lost_at)
            .map(|(address, peer)| (*address, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::vrrp::Vrid;
    use std::net::Ipv4Addr;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));
    const INTERVAL: Duration = Duration::from_millis(100);

    struct Bench {
        peers: Peers,
        now: Time,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                peers: Peers::default(),
                now: Time::ZERO,
            }
        }

        fn silence(&mut self, span: Duration) {
            self.now = self.now + span;
        }

        /// Receives hellos for this long; the last has just come.
        fn hears(&mut self, span: Duration, stands_by: bool, hears: &[IpAddr]) {
            let end = self.now + span;
            while self.now < end {
                self.now = self.now + INTERVAL;
                let hello = Hello {
                    vrid: Vrid::new(1).unwrap(),
                    priority: Priority(250),
                    interval: INTERVAL,
                    stands_by,
                    hears: hears.to_vec(),
                };
                self.peers.heard(self.now, OWN, HOME, &hello);
            }
        }

        fn is_settled(&self) -> bool {
            self.peers.settled_above(self.now, Priority(240)) == Some(HOME)
        }

        /// How long it must stand by from now on.
        fn settles_in(&mut self) -> Duration {
            let begin = self.now;
            while !self.is_settled() {
                self.hears(INTERVAL, true, &[OWN]);
            }
            self.now - begin
        }
    }

    #[test]
    fn one_that_is_silent_or_deaf_or_holds_it_does_not_stand_by() {
        let mut bench = Bench::new();
        bench.hears(SETTLING * 2, true, &[OWN]);
        assert!(bench.is_settled());
        assert_eq!(bench.peers.standby(bench.now), Some(HOME));
        assert_eq!(bench.peers.settled_above(bench.now, Priority(250)), None);
        bench.silence(patience(INTERVAL));
        assert_eq!(bench.peers.standby(bench.now), None);
        assert!(!bench.is_settled());

        bench.hears(SETTLING * 2, true, &[]);
        assert_eq!(bench.peers.standby(bench.now), None);
        assert!(bench.peers.deaf_since(bench.now, HOME).is_some());
        bench.hears(SETTLING * 2, false, &[OWN]);
        assert_eq!(bench.peers.standby(bench.now), None);
        assert_eq!(bench.peers.deaf_since(bench.now, HOME), None);
    }

    #[test]
    fn each_loss_doubles_the_time_until_it_is_forgiven() {
        let mut bench = Bench::new();
        let mut spans = Vec::new();
        for _ in 0..7 {
            spans.push(bench.settles_in().as_secs());
            bench.silence(Duration::from_secs(1));
        }
        assert_eq!(spans, [2, 2, 4, 8, 16, 32, 60]);
        bench.hears(FORGIVEN_AFTER * 2, true, &[OWN]);
        bench.silence(Duration::from_secs(1));
        assert_eq!(bench.settles_in().as_secs(), 2);
    }

    #[test]
    fn one_that_leaves_in_order_is_not_lost() {
        let mut bench = Bench::new();
        bench.settles_in();
        bench.silence(Duration::from_secs(1));
        bench.settles_in();
        let farewell = Hello {
            vrid: Vrid::new(1).unwrap(),
            priority: Priority::RELEASE,
            interval: INTERVAL,
            stands_by: false,
            hears: vec![OWN],
        };
        bench.peers.heard(bench.now, OWN, HOME, &farewell);
        assert_eq!(bench.peers.standby(bench.now), None);
        bench.silence(Duration::from_secs(1));
        assert_eq!(bench.settles_in().as_secs(), 2);
    }

    #[test]
    fn one_that_did_not_take_the_vip_must_settle_anew() {
        let mut bench = Bench::new();
        bench.settles_in();
        bench.peers.nobody_took_it(bench.now);
        assert!(!bench.is_settled());
        assert_eq!(bench.settles_in(), SETTLING * 2);
    }
}
