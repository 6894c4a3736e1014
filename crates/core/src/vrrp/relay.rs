//! What a relay forwards: messages of the site's balancers, to the other ones, and not more than they can mean to send.

use gaiola_model::Time;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Span over which datagrams are counted.
const SPAN: Duration = Duration::from_millis(100);

/// The most datagrams of one balancer in a span. A keeper sends at most two for each of 255 VIPs and one ping in an interval, and a
/// few more while a VIP moves.
const MOST_IN_SPAN: u32 = 560;

/// A relay that did not run for longer discards what waits for it: an advertisement that late could come from a balancer
/// that has died since.
pub const LATEST: Duration = Duration::from_millis(150);

/// The balancers that are relayed for.
///
/// ```
/// use gaiola_core::vrrp::Relay;
/// use gaiola_model::Time;
///
/// let [one, other] = ["10.77.1.1:9181", "10.77.1.2:9181"].map(|at| at.parse().unwrap());
/// let mut relay = Relay::new(vec![one, other]);
/// assert!(relay.accepts(Time::ZERO, [10, 77, 1, 1].into()));
/// assert!(!relay.accepts(Time::ZERO, [10, 77, 1, 9].into()));
/// assert_eq!(relay.others([10, 77, 1, 1].into()).collect::<Vec<_>>(), [other]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Relay {
    balancers: Vec<SocketAddr>,
    counts: BTreeMap<IpAddr, (Time, u32)>,
}

impl Relay {
    /// A relay between the keepers that receive at these addresses.
    pub fn new(balancers: Vec<SocketAddr>) -> Self {
        let counts = BTreeMap::new();
        Self { balancers, counts }
    }

    /// Whether to treat a datagram: its sender is a balancer, and has not sent too many.
    pub fn accepts(&mut self, now: Time, from: IpAddr) -> bool {
        if !self.balancers.iter().any(|it| it.ip() == from) {
            return false;
        }
        let (since, count) = self.counts.entry(from).or_insert((now, 0));
        if now >= *since + SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MOST_IN_SPAN
    }

    /// Where its message goes.
    pub fn others(&self, from: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let balancers = self.balancers.iter().copied();
        balancers.filter(move |other| other.ip() != from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_of_one_balancer_is_cut_and_another_is_heard() {
        let at = |n| IpAddr::V4(Ipv4Addr::new(10, 77, 1, n));
        let keepers = [1, 2].map(|n| SocketAddr::new(at(n), 9181));
        let mut relay = Relay::new(keepers.to_vec());
        let accepted = (0..1000).filter(|_| relay.accepts(Time::ZERO, at(1)));
        assert_eq!(accepted.count(), 560);
        assert!(relay.accepts(Time::ZERO, at(2)));
        assert!(relay.accepts(Time::ZERO + SPAN, at(1)));
    }

    #[test]
    fn a_stranger_leaves_no_trace() {
        let mut relay = Relay::new(Vec::new());
        for n in 1..1000 {
            assert!(!relay.accepts(Time::ZERO, IpAddr::V4(Ipv4Addr::from_bits(n))));
        }
        assert!(relay.counts.is_empty());
    }
}
