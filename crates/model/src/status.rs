//! What `gaiola status` tells: the site as people and programs are shown it.

use crate::event::Event;
use crate::id::{InstanceName, ServerName, SiteName, Tier};
use crate::placement::{DatabaseRole, InstanceState, ObservedDatabase, ReleaseNumber, Revision};
use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// The number of this document's form. It is raised when a field changes its meaning or goes; new ones may come at any time.
pub const SCHEMA: u32 = 1;

/// The document of `gaiola status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The site.
    pub site: SiteName,
    /// Everything that is desired is there: every instance ready, every VIP owned exactly once, every standby streaming, and
    /// every disk takes what is written.
    pub healthy: bool,
    /// What is missing to be healthy, in words. Empty when it is.
    pub missing: Vec<String>,
    /// What is well now and will not be for long, such as a disk that is almost full, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Each tier that would not survive the loss of one server.
    pub may_fail: Vec<MayFail>,
    /// What the next step of a change waits for.
    pub waiting: Vec<String>,
    /// Why the last roll-out stopped half way.
    pub failed: Option<String>,
    /// The change that is in force, and the one that is wanted.
    pub generation: Generation,
    /// Releases.
    pub release: ReleaseStatus,
    /// Every server, in the order in which a request passes them.
    pub servers: Vec<ServerStatus>,
    /// Every VIP.
    pub vips: Vec<VipStatus>,
    /// The database server that takes writes.
    pub primary: Option<ServerName>,
    /// The servers on which the store stands.
    pub store: Vec<ServerName>,
    /// Where clients are led.
    pub doors: Vec<SocketAddr>,
    /// The last events, the newest last.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// How far the last change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// What the operator wants.
    pub desired: u64,
    /// What the conductor moves towards.
    pub placed: u64,
    /// The store's revision of the placement.
    pub revision: Revision,
}

/// Releases in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// What everything shall run from.
    pub desired: ReleaseNumber,
    /// The newest one whose `release` command has succeeded.
    pub released: Option<ReleaseNumber>,
    /// What instances run from, the newest first; several during a roll-out.
    pub running: Vec<ReleaseNumber>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: ServerName,
    /// Its tier.
    pub tier: Tier,
    /// Its address.
    pub address: Ipv4Addr,
    /// How it does.
    pub state: ServerState,
    /// Why it is not serving, or not well, in words; empty when it is.
    pub reason: String,
    /// VIPs that it holds.
    pub vips: Vec<Ipv4Addr>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// Its PostgreSQL.
    pub database: Option<ObservedDatabase>,
    /// The store stands on it.
    pub store_member: bool,
    /// What it has left.
    #[serde(default)]
    pub resources: Resources,
    /// What its agent finds wrong with it.
    pub troubles: Vec<String>,
}

/// How a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It was never heard of yet.
    Starting,
    /// It does what its tier is there for.
    Serving,
    /// It serves, and does not answer the checks of those who send to it, or an instance on it does not: they do so for lack
    /// of others.
    Busy,
    /// It is there, and something of it does not serve.
    Degraded,
    /// It is on its way out of traffic.
    Draining,
    /// It is out of traffic by the operator's wish.
    Drained,
    /// It is not heard of.
    Lost,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: InstanceName,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it runs from.
    pub release: ReleaseNumber,
    /// How it does; `None`: not known.
    pub state: Option<InstanceState>,
    /// It is ready by its own word, and not by that of those who send to it, or was so a while ago: `reason` says which.
    #[serde(default)]
    pub doubted: bool,
    /// It serves, and does not answer the checks of those who send to it, for lack of others: `reason` says whose.
    #[serde(default)]
    pub busy: bool,
    /// How often it ended by itself.
    pub restarts: u32,
    /// Why it does not serve, or not well, in words; empty when it does.
    pub reason: String,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub address: Ipv4Addr,
    /// The balancer that it goes back to.
    pub home: ServerName,
    /// The balancers that hold it; anything but one is a fault.
    pub owners: Vec<ServerName>,
}

/// A part of the site that would not survive the loss of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayFail {
    /// The tier; `None`: the store.
    pub tier: Option<Tier>,
    /// What would happen, in words.
    pub words: String,
}

impl DatabaseRole {
    /// The role in a word or two.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::SyncStandby => "sync standby",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
        }
    }
}

impl ServerState {
    /// Whether all of it is used: serving, or busy.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::Busy)
    }

    /// The state in a word.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Busy => "busy",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Lost => "lost",
        }
    }
}
