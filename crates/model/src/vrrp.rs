//! Types of the Virtual Router Redundancy Protocol (RFC 9568): who holds a virtual address, and how that is advertised.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

/// Number of a virtual router on its network, 1 to 255: all routers that may hold the same VIP share it.
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
    /// The virtual router with this number; `None` for 0.
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

/// A router's precedence as the holder of a VIP: the highest that is ready holds it.
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
    /// Sent by a router that releases its VIP: the others need not wait for its silence.
    pub const RELEASE: Self = Self(0);
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The Active router's periodic message to all others: "I hold these addresses".
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
    /// The virtual router.
    pub vrid: Vrid,
    /// The sender's priority, or [`Priority::RELEASE`].
    pub priority: Priority,
    /// How often the sender advertises, 10 ms to 40.95 s in steps of 10 ms.
    pub interval: Duration,
    /// The virtual addresses, at most 255.
    pub vips: Vec<IpAddr>,
}

impl Advertisement {
    /// Whether the sender releases the addresses.
    pub fn releases(&self) -> bool {
        self.priority == Priority::RELEASE
    }
}

/// Sent each interval by every router of a sealed site that could serve, beside the Active router's advertisements: it
/// is up, and hears these routers. Plain VRRP has no such message; its Backups are silent.
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
    /// The virtual router.
    pub vrid: Vrid,
    /// The sender's priority, or [`Priority::RELEASE`]: it is leaving, and this is its last hello.
    pub priority: Priority,
    /// Hello interval of the sender, 10 ms to 40.95 s in steps of 10 ms.
    pub interval: Duration,
    /// The sender is a Backup: it would take the addresses if they were released.
    pub stands_by: bool,
    /// Addresses of the other routers that the sender hears, at most 255.
    pub hears: Vec<IpAddr>,
}

impl Hello {
    /// Whether it is the sender's last.
    pub fn releases(&self) -> bool {
        self.priority == Priority::RELEASE
    }

    /// Whether the sender hears this router.
    pub fn hears(&self, router: IpAddr) -> bool {
        self.hears.contains(&router)
    }
}

/// A router's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Sent by the Active router, the only message of RFC 9568.
    Advertisement(Advertisement),
    /// Our own extension.
    Hello(Hello),
}

impl Message {
    /// The virtual router it is for.
    pub const fn vrid(&self) -> Vrid {
        match self {
            Self::Advertisement(advert) => advert.vrid,
            Self::Hello(hello) => hello.vrid,
        }
    }
}

/// Orders the sealed advertisements of one sender, so that a recorded one cannot be replayed.
///
/// A sender starts from the time of day in microseconds since 1970, adds at least one per advertisement, and never uses
/// a stamp lower than one it has heard. So its stamps grow across restarts, and a sender whose clock went back catches
/// up with what the others remember as soon as it hears one of them.
///
/// ```
/// use gaiola_model::vrrp::Stamp;
///
/// assert!(Stamp(1).next() > Stamp(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The next stamp; the highest has none, and stays.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Identifies a question that a keeper asks a relay, so that an answer proves that the relay has received it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ping(pub u64);
