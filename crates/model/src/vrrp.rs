//! The Virtual Router Redundancy Protocol's nouns (RFC 9568): who holds a virtual address, and how it tells.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

/// Names a virtual router on its network, 1 to 255: all routers that may hold the same VIP share it.
///
/// ```
/// use gaiola_model::vrrp::Vrid;
///
/// assert_eq!(Vrid::new(51).unwrap().get(), 51);
/// assert!(Vrid::new(0).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// The virtual router of this number; 0 names none.
    pub const fn new(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a router should be preferred as the holder of a VIP: the highest that is ready holds it.
///
/// ```
/// use gaiola_model::vrrp::Priority;
///
/// assert!(Priority(200) > Priority(100));
/// assert!(Priority::RELEASE < Priority(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Priority {
    /// Said by a router that lets its VIP go: the others need not wait for its silence.
    pub const RELEASE: Self = Self(0);
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the Active router tells all others, again and again: "I hold these addresses".
///
/// ```
/// use gaiola_model::vrrp::{Advertisement, Priority, Vrid};
/// use std::time::Duration;
///
/// let advert = Advertisement {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(200),
///     interval: Duration::from_millis(100),
///     vips: vec![[10, 77, 0, 100].into()],
/// };
/// assert!(!advert.releases());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The virtual router it speaks for.
    pub vrid: Vrid,
    /// The sender's priority, or [`Priority::RELEASE`].
    pub priority: Priority,
    /// How often the sender advertises, 10 ms to 40.95 s in steps of 10 ms.
    pub interval: Duration,
    /// The virtual addresses, at most 255.
    pub vips: Vec<Ipv4Addr>,
}

impl Advertisement {
    /// Whether the sender lets the addresses go.
    pub fn releases(&self) -> bool {
        self.priority == Priority::RELEASE
    }
}

/// What every router of a sealed site that can serve says each interval beside the advertisements of the Active one:
/// that it is there, and whom it hears. Plain VRRP has no such word; a Backup of it is silent.
///
/// ```
/// use gaiola_model::vrrp::{Hello, Priority, Vrid};
/// use std::time::Duration;
///
/// let hello = Hello {
///     vrid: Vrid::new(1).unwrap(),
///     priority: Priority(250),
///     interval: Duration::from_millis(100),
///     stands_by: true,
///     hears: vec![[10, 77, 1, 2].into()],
/// };
/// assert!(hello.hears([10, 77, 1, 2].into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The virtual router it speaks for.
    pub vrid: Vrid,
    /// The sender's priority, or [`Priority::RELEASE`]: it leaves, and says no more.
    pub priority: Priority,
    /// How often the sender says it, 10 ms to 40.95 s in steps of 10 ms.
    pub interval: Duration,
    /// The sender is a Backup: it would take the addresses if they were let go.
    pub stands_by: bool,
    /// The other routers that the sender hears, by own address, at most 255.
    pub hears: Vec<Ipv4Addr>,
}

impl Hello {
    /// Whether it is the sender's last.
    pub fn releases(&self) -> bool {
        self.priority == Priority::RELEASE
    }

    /// Whether the sender hears this router.
    pub fn hears(&self, router: Ipv4Addr) -> bool {
        self.hears.contains(&router)
    }
}

/// What a router says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The Active router's word, and RFC 9568's only one.
    Advertisement(Advertisement),
    /// A word of our own.
    Hello(Hello),
}

impl Message {
    /// The virtual router it speaks for.
    pub const fn vrid(&self) -> Vrid {
        match self {
            Self::Advertisement(advert) => advert.vrid,
            Self::Hello(hello) => hello.vrid,
        }
    }
}

/// Orders the sealed advertisements of one sender, so that a recorded one cannot be played again.
///
/// A sender begins with the time of day in microseconds since 1970, counts up by at least one an advertisement, and
/// never says less than it has heard. So its stamps grow over restarts, and a sender whose clock went back catches
/// up with what the others remember of it as soon as it hears one of them.
///
/// ```
/// use gaiola_model::vrrp::Stamp;
///
/// assert!(Stamp(1).next() > Stamp(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The one after this; the last has none, and stays.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
