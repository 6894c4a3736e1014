//! Which sealed advertisements are new, and which were heard before.

use gaiola_model::vrrp::{Stamp, Vrid};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Most senders that are remembered; a site has a handful. Only holders of the key can add one.
const MOST_SENDERS: usize = 1024;

/// Remembers the last stamp of each sender, and makes this router's own.
///
/// ```
/// use gaiola_core::vrrp::Freshness;
/// use gaiola_model::vrrp::{Stamp, Vrid};
///
/// let vrid = Vrid::new(1).unwrap();
/// let mut freshness = Freshness::new(Stamp(1000));
/// assert!(freshness.is_new([10, 77, 1, 2].into(), vrid, Stamp(5000)));
/// assert!(!freshness.is_new([10, 77, 1, 2].into(), vrid, Stamp(5000)));
/// assert!(freshness.stamp() > Stamp(5000), "never less than what was heard");
/// ```
#[derive(Clone, Debug)]
pub struct Freshness {
    own: Stamp,
    heard: BTreeMap<(Ipv4Addr, Vrid), Stamp>,
}

impl Freshness {
    /// Begins with the time of day in microseconds, as [`Stamp`] asks.
    pub fn new(time_of_day: Stamp) -> Self {
        Self {
            own: time_of_day,
            heard: BTreeMap::new(),
        }
    }

    /// The stamp of the next advertisement that this router sends.
    pub fn stamp(&mut self) -> Stamp {
        self.own = self.own.next();
        self.own
    }

    /// Whether this advertisement of `from` is later than all that were heard of it. Each virtual router counts by
    /// itself, since the network may swap packets of two.
    pub fn is_new(&mut self, from: Ipv4Addr, vrid: Vrid, stamp: Stamp) -> bool {
        let sender = (from, vrid);
        let newest = self.heard.get(&sender).copied();
        let full = newest.is_none() && self.heard.len() >= MOST_SENDERS;
        if full || newest.is_some_and(|newest| stamp <= newest) {
            return false;
        }
        self.heard.insert(sender, stamp);
        self.own = self.own.max(stamp);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

    fn vrid(number: u8) -> Vrid {
        Vrid::new(number).unwrap()
    }

    #[test]
    fn what_was_heard_is_not_heard_again() {
        let mut freshness = Freshness::new(Stamp(0));
        assert!(freshness.is_new(PEER, vrid(1), Stamp(10)));
        assert!(!freshness.is_new(PEER, vrid(1), Stamp(10)));
        assert!(!freshness.is_new(PEER, vrid(1), Stamp(9)));
        assert!(freshness.is_new(PEER, vrid(1), Stamp(11)));
        assert!(
            freshness.is_new(PEER, vrid(2), Stamp(10)),
            "swapped by the network"
        );
    }

    #[test]
    fn a_sender_whose_clock_went_back_is_believed_once_it_has_heard_the_others() {
        let mut survivor = Freshness::new(Stamp(2_000));
        let mut before = Freshness::new(Stamp(9_000));
        assert!(survivor.is_new(PEER, vrid(1), before.stamp()));

        let mut after = Freshness::new(Stamp(1));
        assert!(!survivor.is_new(PEER, vrid(1), after.stamp()));
        assert!(after.is_new([10, 77, 1, 1].into(), vrid(1), survivor.stamp()));
        assert!(survivor.is_new(PEER, vrid(1), after.stamp()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut freshness = Freshness::new(Stamp(0));
        for n in 0..5_000u32 {
            freshness.is_new(Ipv4Addr::from(n), vrid(1), Stamp(1));
        }
        assert_eq!(freshness.heard.len(), MOST_SENDERS);
    }
}
