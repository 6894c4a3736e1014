//! Who holds a VIP: one virtual router of VRRP version 3 (RFC 9568), with additions for use in a cluster.
//!
//! A [`Router`] decides for one VIP on one server. Its additions to the RFC, and why:
//!
//! - **The holder keeps the VIP** ([`Settings::preempt`] is off by default). Otherwise a returning home would break the
//!   connections of the balancer that stood in for it. Instead the holder's agent asks it to yield once the home has
//!   settled, and [`Input::Yield`] hands over without a gap: the holder announces the release, keeps serving until it hears
//!   its successor, and keeps the VIP if nobody takes it.
//! - **No VIP is offered to a router that is not heard** ([`Settings::hellos`]). Every router that could serve sends a
//!   hello each interval with the routers it hears. Only one that stands by, and hears the holder, can be handed a VIP; one
//!   that was lost must have been heard for a while, twice as long with each loss.
//! - **A router that hears nobody is not believed.** A server that can send but not receive would think itself alone and
//!   take all VIPs. Its hellos show that it hears nobody: the holder keeps the VIP, and a Backup takes it.
//! - **A hand-over loses no SYN.** While the last requests in flight end, SYNs are queued ([`Input::HoldBack`]) and then
//!   forwarded to the router that has the VIP ([`Output::PassOn`]).
//! - **Every duel ends with an announcement.** Two holders hear each other after a partition. The lower one removes the
//!   address and advertises once more before it falls silent; the higher one answers whatever it hears from another holder
//!   with an advertisement and gratuitous ARP. Otherwise neighbours keep the loser's address for seconds.
//! - **A holder that was late listens first.** If it was frozen for longer than the others wait, another may hold the VIP
//!   by now. So it listens for [`Settings::listen`] before it continues. A restarted keeper that finds its VIP still in
//!   place resumes it the same way.
//! - **A router that nobody hears lets go.** Messages also travel through relays, the site's other servers ([`Relay`]), so that
//!   a cut between the balancers alone changes nothing. One that neither another balancer nor a relay hears
//!   ([`Contact`]) would hold an address that nobody reaches: it releases the VIP ([`Input::CutOff`]) and takes none.
//! - **An address is lent.** It has a lifetime in the kernel ([`ADDRESS_LIFETIME`]) and is refreshed while it is held, so
//!   that a dead or frozen process cannot keep it.

pub mod command;
mod contact;
mod freshness;
pub mod hand_over;
mod peers;
mod relay;
mod router;
mod timers;

pub use contact::{ALONE_AFTER, Contact, REFUSAL_LASTS, Surroundings};
pub use freshness::Freshness;
pub use peers::{FORGIVEN_AFTER, LONGEST_SETTLING, SETTLING};
pub use relay::{LATEST, Relay};
pub use router::Router;

use gaiola_model::vrrp::{Advertisement, Hello, Priority, Vrid};
use std::net::IpAddr;
use std::time::Duration;

/// Interval at which a held address is refreshed.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// How long the kernel keeps an address that is not refreshed.
pub const ADDRESS_LIFETIME: Duration = Duration::from_secs(1);

/// The interval that a holder names while its process is exchanged: the others take its VIP after three of these and their skew, when its
/// address has gone ([`ADDRESS_LIFETIME`]).
const EXCHANGE_INTERVAL: Duration = Duration::from_millis(340);

/// How long a process that found its VIP in place waits for its data plane; a little less than [`ADDRESS_LIFETIME`].
const RESUME_WITHIN: Duration = Duration::from_millis(750);

/// How long a preempting router leaves a VIP that it yielded to a lower one.
pub const YIELD_PATIENCE: Duration = Duration::from_secs(10);

/// Advertisements of another holder within this time count as one contest.
const CONTEST: Duration = Duration::from_secs(1);

/// Longest time that SYNs are queued. A client resends its own after a second.
pub const HOLDING_BACK: Duration = Duration::from_millis(1500);

/// Configuration of one router of a VIP, given at the start and again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The virtual router's number.
    pub vrid: Vrid,
    /// The virtual address.
    pub vip: IpAddr,
    /// This server's own address: between equal priorities the higher one wins.
    pub address: IpAddr,
    /// This server's priority, 1 to 254.
    pub priority: Priority,
    /// Whether to take the VIP from a lower holder as soon as this router is ready. Default off.
    pub preempt: bool,
    /// Advertisement interval. Default 100 ms.
    pub interval: Duration,
    /// Whether the routers exchange hellos, as those of a sealed site do. Default off: without them a router does not
    /// know whether anybody stands by, and yields a VIP on trust.
    pub hellos: bool,
}

impl Settings {
    /// Settings with the defaults: no preemption, an advertisement every 100 ms.
    pub fn new(vrid: Vrid, vip: IpAddr, address: IpAddr, priority: Priority) -> Self {
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

    /// How long a router listens before it continues to hold what another may have taken meanwhile: long enough that
    /// one of the other's advertisements may be lost or late.
    pub fn listen(&self) -> Duration {
        self.interval * 3 / 2
    }

    /// The interval of an advertisement that [asks the others to wait](Output::AskForPatience).
    pub fn exchange_interval(&self) -> Duration {
        self.interval.max(EXCHANGE_INTERVAL)
    }

    /// How much earlier a higher priority acts than a lower one, where `interval` is the former holder's (RFC 9568,
    /// section 6.1): 0.4 % of an interval per step.
    pub fn skew(&self, interval: Duration) -> Duration {
        interval * (256 - u32::from(self.priority.0)) / 256
    }

    /// Silence after which a Backup becomes Active (RFC 9568, section 6.1).
    pub fn active_down_interval(&self, interval: Duration) -> Duration {
        interval * 3 + self.skew(interval)
    }
}

/// An event for a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The process was started. Given once, before all others.
    Start {
        /// The VIP is on the interface: the process before this one ended less than [`ADDRESS_LIFETIME`] ago.
        held: bool,
    },
    /// The data plane serves the VIP's connections.
    Ready,
    /// It does not, or the address could not be added, or the link is down, or the operator wants no VIP held here.
    NotReady,
    /// Nobody hears this server (`true`), or somebody does again: see [`Contact`].
    CutOff(bool),
    /// [`Router::next_deadline`] has passed.
    Deadline,
    /// A valid advertisement for this VRID arrived.
    Heard {
        /// The sender's own address.
        from: IpAddr,
        /// Its content.
        advert: Advertisement,
    },
    /// A valid hello for this VRID arrived.
    HeardHello {
        /// The sender's own address.
        from: IpAddr,
        /// Its content.
        hello: Hello,
    },
    /// `true`: the data plane is about to leave SYNs unanswered until the requests in flight have ended; `false`: it
    /// answers again.
    HoldBack(bool),
    /// Hand the VIP over, if it is held here and another router takes it.
    Yield,
    /// Another program is about to take this process's place; it starts with [`Input::Start`] and resumes.
    Exchange,
    /// New settings for the same VRID, VIP and address.
    Configure(Settings),
    /// Hand the VIP over because the process ends: [`Router::is_stopped`] returns when it may.
    Stop,
}

/// What the shell should do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Add the VIP to the interface for [`ADDRESS_LIFETIME`]. If that fails the shell answers [`Input::NotReady`].
    AddAddress,
    /// Restart the lifetime; the same call as adding, kept apart for readers of a transcript.
    RefreshAddress,
    /// Remove the VIP from the interface, whether it is there or not.
    RemoveAddress,
    /// Send an advertisement with this priority.
    Advertise(Priority),
    /// The same with [`Settings::exchange_interval`]: a Backup waits according to the last one that it heard (RFC 9568, section 6.4.2).
    AskForPatience(Priority),
    /// Announce the VIP to the neighbours by gratuitous ARP.
    Announce,
    /// Send [`Router::hello`].
    SayHello,
    /// Queue SYNs for the VIP from now on.
    HoldBack,
    /// Send the queued SYNs to the router that has the VIP now, this server included, and stop queueing.
    PassOn,
    /// The role or the holder of the VIP changed; only to be reported.
    Became(Role, Reason),
}

/// A router's role for its VIP, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May not hold it now.
    Initialize,
    /// Takes it if nobody else has it.
    Backup {
        /// The holder; `None` while none is heard.
        active: Option<IpAddr>,
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
    /// The data plane is no longer ready.
    NotReady,
    /// Nobody hears this server.
    CutOff,
    /// No advertisement for the Active-Down interval.
    Silence,
    /// The holder let the VIP go.
    Released,
    /// Another holder was heard and outranks this one.
    LostDuel,
    /// A holder was heard.
    Heard,
    /// Handed over as asked.
    Yielded,
    /// Asked to hand over, but nobody took the VIP.
    NobodyTookIt,
    /// Found its VIP still in place after a restart or a freeze, and heard nobody else.
    Resumed,
    /// The advertising router hears nobody.
    Deaf,
    /// Was so late that another may hold the VIP.
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
            Self::CutOff => "cut_off",
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
