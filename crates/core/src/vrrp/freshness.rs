//! Replay protection: which sealed advertisements are new.

use gaiola_model::vrrp::{Message, Stamp, Vrid};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most senders remembered; a site has a handful. Only holders of the key can add one.
const MOST_SENDERS: usize = 1024;

/// How many of a sender's messages may overtake a copy that takes a longer way.
const RECENT: usize = 8;

/// Remembers the last stamp of each sender, and generates this router's own.
///
/// ```
/// use gaiola_core::vrrp::Freshness;
/// use gaiola_model::vrrp::{Advertisement, Message, Priority, Stamp, Vrid};
///
/// let message = Message::Advertisement(Advertisement {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(200),
///     interval: std::time::Duration::from_millis(100),
///     vips: vec![[10, 77, 0, 100].into()],
/// });
/// let mut freshness = Freshness::new(Stamp(1000));
/// assert!(freshness.is_new([10, 77, 1, 2].into(), &message, Stamp(5000)));
/// assert!(!freshness.is_new([10, 77, 1, 2].into(), &message, Stamp(5000)));
/// assert!(freshness.stamp() > Stamp(5000), "never less than what was heard");
/// ```
#[derive(Clone, Debug)]
pub struct Freshness {
    own: Stamp,
    heard: BTreeMap<(IpAddr, Vrid, Kind), Recent>,
}

/// The last stamps of a sender, the newest first.
type Recent = [Stamp; RECENT];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Advertisement,
    Hello,
}

impl Kind {
    const fn of(message: &Message) -> Self {
        match message {
            Message::Advertisement(_) => Self::Advertisement,
            Message::Hello(_) => Self::Hello,
        }
    }
}

impl Freshness {
    /// Starts from the time of day in microseconds, as [`Stamp`] requires.
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

    /// Whether this message is one of the last that were heard from `from`: it came twice, on two ways.
    pub fn is_copy(&self, from: IpAddr, message: &Message, stamp: Stamp) -> bool {
        let sender = (from, message.vrid(), Kind::of(message));
        let recent = self.heard.get(&sender);
        recent.is_some_and(|recent| recent.contains(&stamp))
    }

    /// Whether this message from `from` is later than all heard before. Each virtual router and each kind of message is
    /// tracked on its own, since the network may reorder packets of two.
    pub fn is_new(&mut self, from: IpAddr, message: &Message, stamp: Stamp) -> bool {
        let sender = (from, message.vrid(), Kind::of(message));
        let known = self.heard.get(&sender).copied();
        let full = known.is_none() && self.heard.len() >= MOST_SENDERS;
        if full || known.is_some_and(|[newest, ..]| stamp <= newest) {
            return false;
        }
        let mut recent = known.unwrap_or([stamp; RECENT]);
        recent.rotate_right(1);
        recent[0] = stamp;
        self.heard.insert(sender, recent);
        self.own = self.own.max(stamp);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::vrrp::{Hello, Priority};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));

    fn hello(number: u8) -> Message {
        Message::Hello(Hello {
            vrid: Vrid::new(number).unwrap(),
            priority: Priority(1),
            interval: Duration::from_millis(100),
            stands_by: true,
            hears: Vec::new(),
        })
    }

    #[test]
    fn what_was_heard_is_not_heard_again() {
        let mut freshness = Freshness::new(Stamp(0));
        assert!(freshness.is_new(PEER, &hello(1), Stamp(10)));
        assert!(!freshness.is_new(PEER, &hello(1), Stamp(10)));
        assert!(freshness.is_copy(PEER, &hello(1), Stamp(10)));
        assert!(!freshness.is_copy(PEER, &hello(1), Stamp(9)));
        assert!(!freshness.is_new(PEER, &hello(1), Stamp(9)));
        assert!(freshness.is_new(PEER, &hello(1), Stamp(11)));
        assert!(freshness.is_copy(PEER, &hello(1), Stamp(10)));
        assert!(
            freshness.is_new(PEER, &hello(2), Stamp(10)),
            "swapped by the network"
        );
    }

    #[test]
    fn a_sender_whose_clock_went_back_is_believed_once_it_has_heard_the_others() {
        let mut survivor = Freshness::new(Stamp(2_000));
        let mut before = Freshness::new(Stamp(9_000));
        assert!(survivor.is_new(PEER, &hello(1), before.stamp()));

        let mut after = Freshness::new(Stamp(1));
        assert!(!survivor.is_new(PEER, &hello(1), after.stamp()));
        assert!(after.is_new([10, 77, 1, 1].into(), &hello(1), survivor.stamp()));
        assert!(survivor.is_new(PEER, &hello(1), after.stamp()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut freshness = Freshness::new(Stamp(0));
        for n in 0..5_000u32 {
            freshness.is_new(IpAddr::V4(Ipv4Addr::from(n)), &hello(1), Stamp(1));
        }
        assert_eq!(freshness.heard.len(), MOST_SENDERS);
    }
}
