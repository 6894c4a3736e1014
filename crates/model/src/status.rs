//! The document of `gaiola status`: the site for people and programs.

use crate::event::Event;
use crate::id::{CronName, InstanceName, ServerName, SiteName, Tier, WorkerName};
use crate::inventory::Location;
use crate::placement::{
    Aside, CronEnd, DatabaseRole, InstanceState, ObservedDatabase, ReleaseNumber, Revision,
};
use crate::resources::Resources;
use crate::time::UnixTime;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Schema version. It is raised when a field changes its meaning or is removed; new fields may be added at any time.
pub const SCHEMA: u32 = 1;

/// The document of `gaiola status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The site.
    pub site: SiteName,
    /// The desired state is reached: every instance ready, every VIP owned exactly once, every standby streaming, and
    /// every disk accepting writes.
    pub healthy: bool,
    /// What is missing, in words. Empty if healthy.
    pub missing: Vec<String>,
    /// What is well now and soon will not be, such as a disk that is almost full, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Each tier that would not survive the loss of one server.
    pub may_fail: Vec<MayFail>,
    /// What the next step of a change waits for.
    pub waiting: Vec<String>,
    /// Why the last roll-out stopped halfway.
    pub failed: Option<String>,
    /// The desired change and the one in force.
    pub generation: Generation,
    /// Releases.
    pub release: ReleaseStatus,
    /// Every server, in the order in which a request passes the tiers.
    pub servers: Vec<ServerStatus>,
    /// The commands that run at set times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crons: Vec<CronStatus>,
    /// Every VIP.
    pub vips: Vec<VipStatus>,
    /// The database server that takes writes.
    pub primary: Option<ServerName>,
    /// The servers that carry the store.
    pub store: Vec<ServerName>,
    /// The doors that receive clients.
    pub doors: Vec<SocketAddr>,
    /// The machine that a command rolls at the moment, or was rolling when its operator's computer went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<Aside>,
    /// Balancers refuse clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
    /// The schema in which the site's documents are written; 0: not known.
    #[serde(default)]
    pub documents: u64,
    /// The last events, the newest last.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// The site's maintenance, without its page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// When it was switched on.
    pub since: String,
    /// Who switched it on, or changed it last.
    pub by: String,
    /// Clients in these networks are served as ever.
    pub allow: Vec<IpNet>,
}

/// A member of the store, as it answered when it was asked itself: an agent's report does not show a member that has not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMemberStatus {
    /// The server that carries it.
    pub server: ServerName,
    /// What is wrong with it, in words that follow its name; `None`: it votes and follows the leader.
    pub trouble: Option<String>,
}

/// Progress of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The operator's generation.
    pub desired: u64,
    /// The generation that the conductor moves towards.
    pub placed: u64,
    /// The store's revision of the placement.
    pub revision: Revision,
}

/// Releases in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// The desired release.
    pub desired: ReleaseNumber,
    /// The newest one whose `release` command has succeeded.
    pub released: Option<ReleaseNumber>,
    /// Releases of running instances, the newest first; several during a roll-out.
    pub running: Vec<ReleaseNumber>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: ServerName,
    /// Its tier.
    pub tier: Tier,
    /// Its location: `host`, `address` and `ports`.
    #[serde(flatten)]
    pub location: Location,
    /// Its state.
    pub state: ServerState,
    /// Why it is not serving, or not well, in words; empty if it is.
    pub reason: String,
    /// VIPs that it holds.
    pub vips: Vec<IpAddr>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// Its workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerStatus>,
    /// Its PostgreSQL.
    pub database: Option<ObservedDatabase>,
    /// Whether it carries a store member.
    pub store_member: bool,
    /// Its remaining resources.
    #[serde(default)]
    pub resources: Resources,
    /// Problems its agent found.
    pub troubles: Vec<String>,
}

/// The state of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It was never heard.
    Starting,
    /// It does its tier's job.
    Serving,
    /// It serves but does not answer its senders' checks, or an instance on it does not: they send to it for lack of
    /// others.
    Busy,
    /// It is up, but a part of it does not serve.
    Degraded,
    /// It is being drained.
    Draining,
    /// The operator drained it.
    Drained,
    /// It is silent.
    Lost,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: InstanceName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its release.
    pub release: ReleaseNumber,
    /// Its state; `None`: not known.
    pub state: Option<InstanceState>,
    /// Its own agent finds it ready and its senders do not, or it was ready a while ago: `reason` says which.
    #[serde(default)]
    pub doubted: bool,
    /// It serves but does not answer its senders' checks, and they use it for lack of others: `reason` says whose.
    #[serde(default)]
    pub busy: bool,
    /// How often it ended by itself.
    pub restarts: u32,
    /// Why it does not serve, or not well, in words; empty if it does.
    pub reason: String,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: WorkerName,
    /// Its release.
    pub release: ReleaseNumber,
    /// Its state: `ready` once it has run for a while; `None`: not known.
    pub state: Option<InstanceState>,
    /// How often it ended by itself.
    pub restarts: u32,
    /// Why it does not run, in words; empty if it does.
    pub reason: String,
}

/// One `[cron.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronStatus {
    /// Its name.
    pub name: CronName,
    /// Its schedule.
    pub schedule: String,
    /// The time zone of the schedule.
    pub time_zone: String,
    /// When it is due next; `None`: never.
    pub next: Option<UnixTime>,
    /// The runs that are under way: when each was due, and the server it is on.
    pub runs: Vec<(UnixTime, ServerName)>,
    /// What became of the last ones, the newest last.
    pub last: Vec<CronEnd>,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub address: IpAddr,
    /// Its home balancer.
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
    /// Whether all of it is in use: serving, or busy.
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
