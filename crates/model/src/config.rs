//! The file `gaiola.toml`, resolved: defaults filled in, names checked. `wire::config` reads it.

mod balancer_proxy;
mod machines;

pub use balancer_proxy::{BalancerLog, BalancerProxy};
pub use machines::{Machine, Machines};

use crate::content::{Compression, FileOptions};
use crate::cron::{Schedule, ScheduleError};
use crate::id::{CronName, ServerName, SiteName, Tier, WorkerKind};
use crate::proxy::{Check, Ejection, SlowEjection, StatusRange, TlsVersion};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Most servers in one tier: as many as its range of addresses and VRIDs is meant for.
pub const MAX_SERVERS: u16 = 99;
/// Most instances on one application server: as many ports are kept for them.
pub const MAX_INSTANCES: u16 = 50;

/// Variables of an environment, by name.
pub type Variables = BTreeMap<String, String>;

/// A whole site as its file describes it.
///
/// Only `[app]` is required: a tier that is left out is skipped, and the tier above sends to the next one.
///
/// ```
/// use gaiola_model::config::{App, Config};
/// use gaiola_model::Tier;
///
/// let mut config = Config::new("guestbook".parse().unwrap(), App::new("bin/guestbook"));
/// config.set_servers(Tier::App, 3);
/// assert_eq!(config.server_names().last().unwrap().to_string(), "app3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The site's name.
    pub site: SiteName,
    /// `[balancer]`.
    pub balancer: Option<Balancer>,
    /// `[web]`.
    pub web: Option<Web>,
    /// `[app]`.
    pub app: App,
    /// `[worker.NAME]`: processes on application servers that no request is sent to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<WorkerKind, Worker>,
    /// `[cron.NAME]`: commands that run at set times, once for the whole site.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub crons: BTreeMap<CronName, Cron>,
    /// `[database]`.
    pub database: Option<Database>,
    /// `[drill]`; without it a drill requests only `/`.
    pub drill: Option<Drill>,
    /// `[env]`: variables for every process of the site. Default: none but those that Gaiola sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: Variables,
    /// The file whose variables are among those of `env`, relative to the site's directory. It is no part of a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// The machines that the servers stand on; `None`: the file says how many servers, and the lab provides them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<Machines>,
}

impl Config {
    /// A site of application servers alone.
    pub const fn new(site: SiteName, app: App) -> Self {
        Self {
            site,
            balancer: None,
            web: None,
            app,
            workers: BTreeMap::new(),
            crons: BTreeMap::new(),
            database: None,
            drill: None,
            env: Variables::new(),
            env_file: None,
            machines: None,
        }
    }

    /// The variables of instances and of the `release` command: those of `[env]`, and of `[app.env]` above them.
    pub fn app_env(&self) -> Variables {
        let mut env = self.env.clone();
        env.extend(self.app.env.clone());
        env
    }

    /// The balancers' TLS.
    pub fn tls(&self) -> Option<&BalancerTls> {
        self.balancer.as_ref()?.tls.as_ref()
    }

    /// How long clients are still accepted at a balancer's own address after it began to drain.
    pub fn drain_of_balancers(&self) -> Duration {
        let written = self.balancer.as_ref().and_then(|balancer| balancer.drain);
        written.unwrap_or(self.app.grace)
    }

    /// The `Host` of requests that check an instance: the file's, or else the site's name, if it has one.
    pub fn health_host(&self) -> &str {
        let written = self.app.check.host.as_deref();
        written.or(self.host()).unwrap_or(Check::HOST)
    }

    /// The first name in `[balancer] hosts`.
    pub fn host(&self) -> Option<&str> {
        self.balancer.as_ref()?.proxy.host()
    }

    /// Whether clients use HTTPS.
    pub fn speaks_tls(&self) -> bool {
        self.tls().is_some()
    }
}

/// `[balancer]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balancer {
    /// Number of servers. Default 2.
    pub servers: u16,
    /// The virtual addresses; `None`, the default, leaves them to the provider of servers. Empty: clients connect to the
    /// balancers' own addresses, for example from another balancer.
    pub vips: Option<Vec<IpAddr>>,
    /// The prefix lengths of VIPs that were written with one. Default 32: the VIP's network is reached as before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefixes: BTreeMap<IpAddr, u8>,
    /// Ports served on every VIP. Default 80.
    pub listen: Vec<u16>,
    /// HTTPS on port 443 of every VIP. Default: none.
    #[serde(default)]
    pub tls: Option<BalancerTls>,
    /// Command that a balancer runs each time that it takes a VIP, where the network does not follow by itself. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip_command: Option<String>,
    /// Senders in front of the balancers, such as another balancer: their `X-Forwarded-*` and `X-Request-ID` are believed. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<IpNet>,
    /// Whether senders in `trust` begin each connection with a PROXY protocol header. Default `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_proxy: bool,
    /// How long a balancer that takes no more clients at its own address goes on accepting them, while its health path says so.
    /// Default: the instances' grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// What is set in the words of a proxy's file.
    #[serde(default, skip_serializing_if = "BalancerProxy::is_usual")]
    pub proxy: BalancerProxy,
    /// How responses are compressed. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compression>,
}

/// `tls` of `[balancer]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerTls {
    /// PEM files with a certificate, its chain and its key, or folders of them, relative to the site's directory.
    pub certificates: Vec<String>,
    /// The digest of their contents, which names the copy that is served; empty until `up` or `plan` has read them.
    pub contents: String,
    /// Whether the ports of `listen` redirect to HTTPS. Default `true`; otherwise they serve as well.
    pub redirect: bool,
    /// For how many days browsers should use only HTTPS (HSTS). Default: no such header.
    pub hsts_days: Option<u16>,
    /// The oldest accepted version. Default 1.2.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub min_version: TlsVersion,
    /// Clients' certificates. Default: none is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientCa>,
}

/// `client_ca` and `client_certificate` of `[balancer.tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCa {
    /// The CAs that must have issued clients' certificates: the contents of a PEM file.
    pub pem: String,
    /// Whether clients must present one. Default `true`.
    pub required: bool,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl BalancerTls {
    /// The HTTPS port.
    pub const PORT: u16 = 443;

    /// These certificates, with a redirect.
    pub const fn new(certificates: Vec<String>) -> Self {
        Self {
            certificates,
            contents: String::new(),
            redirect: true,
            hsts_days: None,
            min_version: TlsVersion::Tls12,
            clients: None,
        }
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            servers: 2,
            vips: None,
            prefixes: BTreeMap::new(),
            listen: vec![80],
            tls: None,
            vip_command: None,
            trust: Vec::new(),
            accept_proxy: false,
            drain: None,
            proxy: BalancerProxy::default(),
            compress: None,
        }
    }
}

impl Balancer {
    /// Every port served on the VIPs.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let https = self.tls.iter().map(|_| BalancerTls::PORT);
        self.listen.iter().copied().chain(https)
    }

    /// The VIPs, as far as they are known.
    pub fn vips(&self) -> &[IpAddr] {
        self.vips.as_deref().unwrap_or_default()
    }
}

/// `[web]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Web {
    /// Number of servers. Default 2.
    pub servers: u16,
    /// Directory of static files, relative to the site's directory. Default `public`.
    pub root: String,
    /// How they are served. Default: under their own names; whatever is no file goes to the app tier.
    #[serde(default, skip_serializing_if = "FileOptions::is_default")]
    pub files: FileOptions,
    /// Paths that go to the app tier, with all below them, where `files` would answer for missing ones. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_paths: Vec<String>,
    /// How responses are compressed, the app tier's too. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compression>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            servers: 2,
            root: "public".into(),
            files: FileOptions::default(),
            app_paths: Vec::new(),
            compress: None,
        }
    }
}

/// `[app]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Number of servers. Default 2.
    pub servers: u16,
    /// Number of processes on each server. Default 1.
    pub instances: u16,
    /// The command of an instance, run by `sh -c` in the release's directory. Required.
    pub run: String,
    /// The command that runs once for each release before any instance of it starts. Default: none.
    pub release: Option<String>,
    /// The path that answers 200 when an instance is healthy. Default `/up`.
    pub health: String,
    /// What else a check of an instance is made of.
    #[serde(default, skip_serializing_if = "HealthCheck::is_usual")]
    pub check: HealthCheck,
    /// Most requests in flight to one instance; more wait in a queue. Default [`Self::MAXCONN`]; `None`: no limit.
    pub maxconn: Option<u32>,
    /// Whether a connection that has switched to another protocol (WebSocket) goes on counting towards `maxconn`. Default
    /// `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count_tunnels: bool,
    /// Most requests that wait in one proxy for an instance. `None`: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_size: Option<u32>,
    /// When an instance whose requests fail is ejected. Default: as [`Ejection`]'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// When an instance that answers later than the others is ejected. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ejection: Option<SlowEjection>,
    /// Time between SIGTERM and SIGKILL, and the longest wait for requests in flight. Default 10 s.
    pub grace: Duration,
    /// `[app.env]`: variables for its instances and its `release` command, above those of `[env]`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: Variables,
    /// What an instance may use, and a command of `gaiola run`. Default: as much as there is.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// `[deploy]`: when a release is given up although its instances are ready.
    #[serde(default, skip_serializing_if = "DeployRules::is_default")]
    pub deploy: DeployRules,
}

/// `[deploy]`: while new instances run beside old ones, what makes the new ones worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployRules {
    /// Whether they are compared. Default: yes.
    pub compare: bool,
    /// How many more of a hundred requests may fail than with the old ones. Default 5.
    pub errors: u8,
    /// How many times as long responses may take to begin, in thousandths, if they take [`Self::SLOWER_BY`] longer at least. Default 3.
    pub slower: u32,
    /// So many requests to new instances show how they do; fewer, that they are worse if it is no accident. Default 50.
    pub requests: u32,
    /// How long the first new instance is waited for, if requests come at all, until it has had so many. Default 10 s.
    pub watch: Duration,
}

impl DeployRules {
    /// What is slower by less is not counted as slower.
    pub const SLOWER_BY: Duration = Duration::from_millis(250);

    /// Whether all is as without the section.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for DeployRules {
    fn default() -> Self {
        Self {
            compare: true,
            errors: 5,
            slower: 3000,
            requests: 50,
            watch: Duration::from_secs(10),
        }
    }
}

/// `memory`, `cpu` and `tasks` of `[app]`, `[worker.NAME]` and `[cron.NAME]`: what one process and its descendants may use together. `None`: as much as
/// there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory in bytes. A process that uses more is killed, and starts again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processors, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// In words: `512 MiB of memory, 1.5 processors, 100 tasks`; `no limits`.
    pub fn in_words(&self) -> String {
        let parts = [
            self.memory
                .map(|bytes| format!("{} of memory", Bytes(bytes))),
            self.cpu
                .map(|cpu| format!("{} processors", f64::from(cpu) / 1000.0)),
            self.tasks.map(|tasks| format!("{tasks} tasks")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => "no limits".into(),
            false => parts.join(", "),
        }
    }
}

/// A number of bytes as a file has it: `512 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("KB", 1000),
        ];
        let whole = units
            .iter()
            .find(|(_, each)| self.0 >= *each && self.0.is_multiple_of(*each));
        match whole {
            Some((unit, each)) => write!(f, "{} {unit}", self.0 / each),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// `health` of `[app]`, beside its path: how the agent and the proxies check an instance. What is not set has their own defaults,
/// which differ: proxies decide sooner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// The `Host` to send. `None`: [`Config::health_host`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further header fields to send, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The statuses of an instance that is healthy. Empty: [`Self::STATUS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<StatusRange>,
    /// Time between two checks of an instance that is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Longest time until an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Failures in a row that take an instance out of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// The port to ask instead of the instance's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl HealthCheck {
    /// The only status of a healthy instance, unless others are set.
    pub const STATUS: StatusRange = StatusRange::only(200);

    /// Whether nothing is set.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl App {
    /// Default of `maxconn`: more than any program handles at a time by threads, and fewer than would occupy the proxies.
    pub const MAXCONN: u32 = 1000;

    /// The tier with this command and every default.
    pub fn new(run: impl Into<String>) -> Self {
        Self {
            servers: 2,
            instances: 1,
            run: run.into(),
            release: None,
            health: "/up".into(),
            check: HealthCheck::default(),
            maxconn: Some(Self::MAXCONN),
            count_tunnels: false,
            queue_size: None,
            ejection: None,
            slow_ejection: None,
            grace: Duration::from_secs(10),
            env: Variables::new(),
            limits: Limits::default(),
            deploy: DeployRules::default(),
        }
    }
}

/// `[worker.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its command, run by `sh -c` in the release's directory. Required.
    pub run: String,
    /// On how many of the application servers it runs. Default: on all that take traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<u16>,
    /// Number of processes on each of them. Default 1.
    pub instances: u16,
    /// Time between SIGTERM and SIGKILL. Default: the instances' grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// What one of its processes may use. Default: as much as there is.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl Worker {
    /// One process of this command on every application server.
    pub fn new(run: impl Into<String>) -> Self {
        Self {
            run: run.into(),
            servers: None,
            instances: 1,
            grace: None,
            limits: Limits::default(),
        }
    }
}

/// `[cron.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cron {
    /// When it is due: crontab's five fields, or `@hourly` and the like.
    pub schedule: String,
    /// The time zone of the schedule. Default: UTC.
    pub time_zone: String,
    /// The command.
    pub run: String,
    /// A run that takes longer is ended. Default: 1 hour.
    pub timeout: Duration,
    /// What happens if it is due while a run of it is under way.
    #[serde(default)]
    pub overlap: Overlap,
    /// What a run may use. Default: as much as there is.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl Cron {
    /// One with the default of everything else.
    pub fn new(schedule: &str, run: impl Into<String>) -> Self {
        Self {
            schedule: schedule.into(),
            time_zone: "UTC".into(),
            run: run.into(),
            timeout: Duration::from_secs(3600),
            overlap: Overlap::default(),
            limits: Limits::default(),
        }
    }

    /// When it is due.
    ///
    /// # Errors
    /// Its schedule or time zone is none, which the reader of the file refuses.
    pub fn schedule(&self) -> Result<Schedule, ScheduleError> {
        Schedule::read(&self.schedule, &self.time_zone)
    }

    /// Whether it is due at the same times as another one.
    pub fn is_due_as(&self, other: &Self) -> bool {
        (&self.schedule, &self.time_zone) == (&other.schedule, &other.time_zone)
    }
}

/// What happens if a command is due while a run of it is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is not run.
    #[default]
    Skip,
    /// It is run once that one has ended.
    Queue,
    /// It is run beside it.
    Allow,
}

/// `[database]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Number of servers. Default 2.
    pub servers: u16,
    /// With `true` writes stop when no synchronous standby is left. Default `false`: they continue unreplicated.
    pub strict: bool,
    /// Concurrent sessions of each application server with the primary; more wait. Default: no limit.
    #[serde(default)]
    pub maxconn: Option<u32>,
    /// Longest wait of a session for the primary: for one of [`Self::maxconn`], or for a primary to come up. Default 5
    /// s.
    #[serde(default = "Database::default_wait")]
    pub wait: Duration,
}

impl Database {
    const fn default_wait() -> Duration {
        Duration::from_secs(5)
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            servers: 2,
            strict: false,
            maxconn: None,
            wait: Self::default_wait(),
        }
    }
}

/// `[drill]`: the load on this site while a failure is rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drill {
    /// Requests per second over all kinds. `None`: a tenth of what one connection achieves, and no more than 100.
    pub rate: Option<u32>,
    /// Path of a page. Default `/`.
    pub page: String,
    /// Path of a read. Default: none.
    pub read: Option<String>,
    /// A write and how it is read back. Default: none.
    pub write: Option<DrillWrite>,
    /// What a drill must not exceed to pass.
    pub limits: DrillLimits,
    /// Size in bytes of a disk of its own for each database server that the lab creates from then on, so that a drill
    /// can fill it. Default: all of them share the machine's.
    pub disk: Option<u64>,
}

/// What a drill must not exceed to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillLimits {
    /// The longest time that any kind of request may go without a success. Default 30 s: what a lost primary may take.
    pub max_outage: Duration,
    /// Requests of the load that may fail. Default: any number.
    pub max_failed: Option<u64>,
    /// Acknowledged writes that may be lost. Default 0.
    pub max_lost: u64,
}

impl Default for DrillLimits {
    fn default() -> Self {
        Self {
            max_outage: Duration::from_secs(30),
            max_failed: None,
            max_lost: 0,
        }
    }
}

impl Default for Drill {
    fn default() -> Self {
        Self {
            rate: None,
            page: "/".into(),
            read: None,
            write: None,
            limits: DrillLimits::default(),
            disk: None,
        }
    }
}

/// `[drill.write]`: a request that is acknowledged only once it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillWrite {
    /// Path to post to.
    pub path: String,
    /// JSON body; `{id}` in it is replaced by a unique id.
    pub body: String,
    /// Path that reads the write back; `{FIELD}` is replaced by that field of the write's JSON answer, such as
    /// `/api/entries/{id}`. Its answer must contain the id that was written, if `body` has one.
    pub look_up: String,
}

impl Config {
    /// Number of servers in a tier; 0 if the tier is left out.
    pub fn servers(&self, tier: Tier) -> u16 {
        if let Some(machines) = &self.machines {
            return u16::try_from(machines.of(tier).count()).unwrap_or(u16::MAX);
        }
        match tier {
            Tier::Balancer => self
                .balancer
                .as_ref()
                .map_or(0, |balancer| balancer.servers),
            Tier::Web => self.web.as_ref().map_or(0, |web| web.servers),
            Tier::App => self.app.servers,
            Tier::Database => self
                .database
                .as_ref()
                .map_or(0, |database| database.servers),
        }
    }

    /// Sets the number of servers in a tier; does nothing if the tier is left out.
    ///
    /// # Panics
    /// On machines, where the number follows from [`Self::set_machines`].
    pub fn set_servers(&mut self, tier: Tier, count: u16) {
        assert!(
            self.machines.is_none(),
            "a site on machines is not scaled by numbers alone"
        );
        self.count(tier, count);
    }

    /// Puts the servers of every tier onto these machines, as many as there are machines for; those of tiers that are left
    /// out are dropped.
    ///
    /// # Panics
    /// If a tier has more than [`MAX_SERVERS`]: no valid file has that many.
    pub fn set_machines(&mut self, mut machines: Machines) {
        machines.servers.retain(|name, _| self.has_tier(name.tier));
        for tier in Tier::ALL {
            let count = u16::try_from(machines.of(tier).count()).ok();
            let count = count.filter(|count| *count <= MAX_SERVERS);
            self.count(tier, count.expect("a tier has few servers"));
        }
        self.machines = Some(machines);
    }

    /// Whether the tiers should speak mutual TLS with each other.
    pub fn encrypts(&self) -> bool {
        let machines = self.machines.as_ref();
        machines.is_some_and(|machines| machines.encrypt)
    }

    fn count(&mut self, tier: Tier, count: u16) {
        let servers = match tier {
            Tier::Balancer => self.balancer.as_mut().map(|section| &mut section.servers),
            Tier::Web => self.web.as_mut().map(|section| &mut section.servers),
            Tier::App => Some(&mut self.app.servers),
            Tier::Database => self.database.as_mut().map(|section| &mut section.servers),
        };
        servers.into_iter().for_each(|servers| *servers = count);
    }

    /// Whether the file has this tier.
    pub const fn has_tier(&self, tier: Tier) -> bool {
        match tier {
            Tier::Balancer => self.balancer.is_some(),
            Tier::Web => self.web.is_some(),
            Tier::App => true,
            Tier::Database => self.database.is_some(),
        }
    }

    /// The names of a tier's servers, in the order of their numbers.
    pub fn servers_of(&self, tier: Tier) -> impl Iterator<Item = ServerName> {
        self.server_names().filter(move |name| name.tier == tier)
    }

    /// The names of all servers: on machines those that have one, otherwise numbered from 1. Tier by tier, in the order of
    /// their numbers.
    pub fn server_names(&self) -> impl Iterator<Item = ServerName> {
        let named = self.machines.iter();
        let named = named.flat_map(|machines| machines.servers.keys().copied());
        let counted = Tier::ALL.into_iter().flat_map(|tier| {
            (1..=self.servers(tier)).map(move |number| ServerName::new(tier, number))
        });
        named.chain(counted.filter(|_| self.machines.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_a_setting_existed_is_read() {
        let app = r#"{"servers":2,"instances":1,"run":"x","release":null,"health":"/up","maxconn":null,
            "grace":{"secs":10,"nanos":0}}"#;
        let app: App = serde_json::from_str(app).unwrap();
        assert!(app.maxconn.is_none() && app.check.is_usual() && !app.count_tunnels);
        let balancer = r#"{"servers":2,"vips":null,"listen":[80],
            "tls":{"certificates":["a.pem"],"contents":"","redirect":true,"hsts_days":null}}"#;
        let balancer: Balancer = serde_json::from_str(balancer).unwrap();
        assert!(balancer.proxy.is_usual());
        assert_eq!(balancer.tls, Some(BalancerTls::new(vec!["a.pem".into()])));
        // Nothing that is not set is written, so that documents stay as they were.
        let text = serde_json::to_string(&balancer).unwrap();
        assert!(
            !text.contains("proxy") && !text.contains("clients"),
            "{text}"
        );
    }

    #[test]
    fn the_numbers_of_servers_are_those_of_their_machines() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.web = Some(Web::default());
        let names = ["lb1", "web2", "web7", "app3"].map(|name| name.parse().unwrap());
        config.set_machines(Machines {
            servers: names
                .map(|name: ServerName| (name, Machine::new("m")))
                .into(),
            spare: Vec::new(),
            ..Machines::default()
        });
        let numbers = Tier::ALL.map(|tier| config.servers(tier));
        assert_eq!(numbers, [0, 2, 1, 0]);
        assert_eq!(
            (config.web.as_ref().unwrap().servers, config.app.servers),
            (2, 1)
        );
        let web: Vec<ServerName> = config.servers_of(Tier::Web).collect();
        assert_eq!(web, names[1..3]);
    }

    #[test]
    #[should_panic(expected = "not scaled by numbers alone")]
    fn servers_on_machines_are_not_set_by_number() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.machines = Some(Machines::default());
        config.set_servers(Tier::App, 3);
    }
}
