//! Who holds a VIP: one virtual router of VRRP version 3 (RFC 9568), and what its use in a cluster adds to it.
//!
//! A [`Router`] decides for one VIP on one server. What goes beyond the RFC, and why:
//!
//! - **Who has a VIP keeps it** ([`Settings::preempt`] is off by default). A home that comes back would tear the
//!   connections of whoever stood in for it. Instead the holder's agent asks it to yield once the home has settled, and
//!   [`Input::Yield`] hands over without a gap: the holder says that it lets go, goes on serving until it hears the next
//!   one, and keeps the VIP where no other takes it.
//! - **Nothing is offered to one that is not heard** ([`Settings::hellos`]). Every router that could serve says each
//!   interval that it is there and whom it hears. Only one that stands by, and hears the holder, can be handed a VIP;
//!   one that was lost must have been heard for a while, twice as long with each loss.
//! - **One that hears nobody convinces nobody.** A server that can send and is not reached would believe itself alone and
//!   take all VIPs. Its hellos show that it hears nobody: the holder keeps the VIP, and a Backup takes it.
//! - **No opening of a connection is lost in a hand-over.** While the last requests in flight end, SYNs are kept
//!   ([`Input::HoldBack`]) and then passed on to whoever has the VIP ([`Output::PassOn`]).
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
mod peers;
mod router;

pub use freshness::Freshness;
pub use peers::{FORGIVEN_AFTER, LONGEST_SETTLING, SETTLING};
pub use router::Router;

use gaiola_model::vrrp::{Advertisement, Hello, Priority, Vrid};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Between two refreshes of an address that is held.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// How long the kernel keeps an address that is not refreshed.
pub const ADDRESS_LIFETIME: Duration = Duration::from_secs(1);

/// How long a router that preempts leaves a VIP that it yielded to a lower one.
pub const YIELD_PATIENCE: Duration = Duration::from_secs(10);

/// The longest that SYNs are kept. A client sends its own again after a second.
pub const HOLDING_BACK: Duration = Duration::from_millis(1500);

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
    /// Whether the routers say hellos to each other, as those of a sealed site do. Default off: without them whether
    /// anybody stands by is not known, and a VIP is yielded on trust.
    pub hellos: bool,
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
            hellos: false,
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
    /// A believable hello for this VRID arrived.
    HeardHello {
        /// The sender's own address.
        from: Ipv4Addr,
        /// What it said.
        hello: Hello,
    },
    /// `true`: the data plane is about to leave SYNs unanswered until the requests in flight have ended; `false`: it
    /// answers again.
    HoldBack(bool),
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
    /// Send what [`Router::hello`] says.
    SayHello,
    /// Keep the SYNs that arrive for the VIP from now on.
    HoldBack,
    /// Send the kept SYNs to whoever has the VIP now, this server included, and keep no more.
    PassOn,
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
    /// Whoever advertises hears nobody.
    Deaf,
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
            Self::Deaf => "deaf",
            Self::Late => "late",
            Self::Stopped => "stopped",
        }
    }
}
