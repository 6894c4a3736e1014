//! Who holds a VIP: one virtual router of VRRP version 3 (RFC 9568), and what its use in a cluster adds to it.
//!
//! A [`Router`] decides for one VIP on one server. What goes beyond the RFC, and why:
//!
//! - **Who has a VIP keeps it** ([`Settings::preempt`] is off by default). A home that comes back would tear the
//!   connections of whoever stood in for it. Instead the conductor tells the present holder to yield once the home
//!   is ready, and [`Input::Yield`] hands over without a gap: the holder says that it lets go, goes on serving until
//!   it hears the next one, and keeps the VIP where no other takes it.
//! - **Every duel ends with an announcement.** Two holders hear each other after a partition. The lower one removes
//!   the address and speaks once more before it is silent; the higher one answers whatever it hears from another
//!   holder with an advertisement and gratuitous ARP. Otherwise neighbours keep the loser's address for seconds.
//! - **A holder that was late listens first.** If it was frozen for longer than the others wait, another may hold
//!   the VIP by now. So it listens for [`Settings::listen`] before it goes on. The same way a restarted keeper that
//!   finds its VIP still in place resumes it.
//! - **An address is lent.** It has a lifetime in the kernel ([`ADDRESS_LIFETIME`]) and is refreshed while it is
//!   held, so that a dead or frozen process cannot keep it.

mod freshness;
mod held;
mod router;

pub use freshness::Freshness;
pub use router::Router;

use gaiola_model::vrrp::{Advertisement, Priority, Vrid};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Between two refreshes of an address that is held.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// How long the kernel keeps an address that is not refreshed.
pub const ADDRESS_LIFETIME: Duration = Duration::from_secs(1);

/// How long a router that preempts leaves a VIP that it yielded to a lower one.
pub const YIELD_PATIENCE: Duration = Duration::from_secs(10);

/// What one router of a VIP is told once, and again when the configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The virtual router's number.
    pub vrid: Vrid,
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// This server's own address: between equal priorities the higher one wins.
    pub address: Ipv4Addr,
    /// This server's priority, 1 to 254.
    pub priority: Priority,
    /// Whether a lower holder is pushed aside as soon as this router is ready. Default off.
    pub preempt: bool,
    /// Between two advertisements. Default 100 ms.
    pub interval: Duration,
}

impl Settings {
    /// Settings with the defaults: no preemption, an advertisement every 100 ms.
    pub fn new(vrid: Vrid, vip: Ipv4Addr, address: Ipv4Addr, priority: Priority) -> Self {
        Self {
            vrid,
            vip,
            address,
            priority,
            preempt: false,
            interval: Duration::from_millis(100),
        }
    }

    /// How long a router listens before it goes on holding what another may have taken meanwhile: one advertisement
    /// of the other is lost or late, the next is not.
    pub fn listen(&self) -> Duration {
        self.interval * 3 / 2
    }

    /// What a higher priority is earlier than a lower one, where `interval` is the former holder's (RFC 9568,
    /// section 6.1): 0.4 % of an interval a step.
    pub fn skew(&self, interval: Duration) -> Duration {
        interval * (256 - u32::from(self.priority.0)) / 256
    }

    /// Silence after which a Backup becomes Active (RFC 9568, section 6.1).
    pub fn active_down_interval(&self, interval: Duration) -> Duration {
        interval * 3 + self.skew(interval)
    }
}

/// What happens to a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The process was started. Given once, before all others.
    Start {
        /// The VIP is on the interface: the process before this one ended less than [`ADDRESS_LIFETIME`] ago.
        held: bool,
    },
    /// The data plane serves the VIP's connections.
    Ready,
    /// It does not, or the address could not be added, or the link is down, or the operator wants none held here.
    NotReady,
    /// [`Router::next_deadline`] was reached.
    Deadline,
    /// A believable advertisement for this VRID arrived.
    Heard {
        /// The sender's own address.
        from: Ipv4Addr,
        /// What it said.
        advert: Advertisement,
    },
    /// Hand the VIP over, if it is held here and another takes it.
    Yield,
    /// New settings for the same VRID, VIP and address.
    Configure(Settings),
    /// Hand the VIP over, for the process ends: [`Router::is_stopped`] tells when it may.
    Stop,
}

/// What the shell is to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Give the VIP to the interface for [`ADDRESS_LIFETIME`]. If that fails the shell answers [`Input::NotReady`].
    AddAddress,
    /// Begin the lifetime again; the same call as adding, told apart for the reader of a transcript.
    RefreshAddress,
    /// Take the VIP from the interface, whether it is there or not.
    RemoveAddress,
    /// Send an advertisement with this priority.
    Advertise(Priority),
    /// Tell the neighbours by gratuitous ARP that the VIP is here.
    Announce,
    /// The role changed, or who holds the VIP; nothing to do but to tell it.
    Became(Role, Reason),
}

/// What a router is to its VIP, as others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May not hold it now.
    Initialize,
    /// Takes it when nobody else has it.
    Backup {
        /// Who has it; `None` while nobody is heard.
        active: Option<Ipv4Addr>,
    },
    /// Holds it.
    Active,
}

/// Why a role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The process was started.
    Started,
    /// The data plane became ready.
    Ready,
    /// The data plane is not ready any more.
    NotReady,
    /// Nobody was heard for the Active-Down interval.
    Silence,
    /// The holder let the VIP go.
    Released,
    /// Another holder was heard, and it is the one to hold the VIP.
    LostDuel,
    /// It was heard who holds the VIP.
    Heard,
    /// Handed over as asked.
    Yielded,
    /// Asked to hand over, but nobody took the VIP.
    NobodyTookIt,
    /// Found its VIP still in place after a restart or a freeze, and heard nobody else.
    Resumed,
    /// Was late by so much that another may hold the VIP.
    Late,
    /// The process ends.
    Stopped,
}

impl Reason {
    /// The reason as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Silence => "silence",
            Self::Released => "released",
            Self::LostDuel => "lost_duel",
            Self::Heard => "heard",
            Self::Yielded => "yielded",
            Self::NobodyTookIt => "nobody_took_it",
            Self::Resumed => "resumed",
            Self::Late => "late",
            Self::Stopped => "stopped",
        }
    }
}
