//! The desired, placed and observed state: the three documents of the store.
//!
//! The operator's wish is [`Desired`]. The conductor turns it, step by step, into a [`Placement`], which every agent makes
//! its own server match. Each agent reports what it sees as [`Observed`].

mod cron;
mod deploy;

pub use cron::{CronEnd, CronOutcome, CronRun, ObservedCron, PlacedCron};
pub use deploy::{Deploy, DeployEnd};

use crate::config::{Config, Variables};
use crate::id::{CronName, InstanceName, ServerName, Tier, WorkerName};
use crate::inventory::{Host, Inventory, Location, Network};
use crate::proxy::{InlinePage, Results};
use crate::resources::Resources;
pub use crate::revision::Revision;
use crate::schema;
use crate::secret::{self, HeldSecret, SealedSecrets, SecretName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// One period of a server being powered on; each boot has a higher number than the one before. 0: not known.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootNumber(pub u64);

/// A number that orders a site's releases, from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u64);

impl std::fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An immutable copy of the site's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its number.
    pub number: ReleaseNumber,
    /// SHA-256 of its contents, in hexadecimal.
    pub digest: String,
}

/// What the operator wants. Changed only by commands (`up`, `scale`, `drain`, `maintenance` and others), by compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Raised by one with every change but of `maintenance`.
    pub generation: u64,
    /// The last applied file, resolved: the base of the next three-way merge.
    pub applied: Config,
    /// `applied` with the changes made by hand since.
    pub config: Config,
    /// The release that instances and web servers should run.
    pub release: Release,
    /// Servers that the operator drained.
    pub drained: BTreeSet<ServerName>,
    /// The machine that a command rolls at the moment, or was rolling when its operator's computer went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<Aside>,
    /// Raised when `up` requests a release again that was given up.
    #[serde(default)]
    pub attempt: u64,
    /// How often the operator asked each application server to replace its instances with new ones.
    #[serde(default)]
    pub restarts: BTreeMap<ServerName, u64>,
    /// The operator's secrets, which variables of the file refer to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, HeldSecret>,
    /// Whether balancers refuse clients. It is switched in the middle of other changes too, and alone leaves `generation` as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// What the provider had for this configuration. Empty in documents of Gaiola 0.1.
    #[serde(default)]
    pub inventory: Inventory,
    /// The last releases, the newest last. Their ends are written later, and alone leave `generation` as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deploys: Vec<Deploy>,
}

impl Desired {
    /// The desired state of a new site: its file, unchanged.
    pub fn first(config: Config, release: Release, inventory: Inventory) -> Self {
        Self {
            generation: 1,
            applied: config.clone(),
            config,
            release,
            drained: BTreeSet::new(),
            aside: None,
            attempt: 0,
            restarts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            maintenance: None,
            inventory,
            deploys: Vec::new(),
        }
    }

    /// The environment of instances and `release` commands. A secret that is not there is missing in it.
    pub fn environment(&self) -> Environment {
        let variables = self.config.app_env();
        let named = secret::referred(variables.values()).into_iter();
        let secrets = named.filter_map(|name| {
            let held = self.secrets.get(&name)?;
            Some((name, held.sealed.clone()))
        });
        Environment {
            secrets: secrets.collect(),
            variables,
        }
    }
}

/// A machine that is set aside: what serves on it elsewhere too is drained until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The machine; in the lab the server's name.
    pub host: Host,
    /// Its servers that were drained for it; those that the operator drained before are not among them.
    pub servers: BTreeSet<ServerName>,
    /// The command and whose it is: `gaiola roll of root@laptop`.
    pub by: String,
}

/// Balancers answer requests with 503 instead of sending them on, except those of some clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When it was switched on, as events have it.
    pub since: String,
    /// Who switched it on, or changed it last: `root@laptop`.
    pub by: String,
    /// What clients get; `None`: the site's page for 503, or else a line of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<InlinePage>,
    /// Clients in these networks are served as ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// `Retry-After`, in seconds.
    pub retry_after: u32,
}

impl Maintenance {
    /// The largest page, in bytes: every agent holds it, and so do the site's documents.
    pub const LARGEST_PAGE: usize = 64 << 10;
    /// The most networks.
    pub const MOST_NETWORKS: usize = 64;
    /// The longest `Retry-After`, in seconds: a day.
    pub const LONGEST_WAIT: u32 = 24 * 60 * 60;
}

/// What the conductor has decided: every agent makes its own server match it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The schema in which the site's documents are written, this one among them.
    #[serde(default = "schema::unnumbered")]
    pub schema: u64,
    /// Names the store's lifetime: an order of another incarnation is rejected.
    pub incarnation: String,
    /// The generation of [`Desired`] that this placement moves towards.
    pub generation: u64,
    /// The configuration in force, with the VIPs that the file left to the provider.
    pub config: Config,
    /// Directories that web servers search, newest first; the older one is removed when the roll-out has ended.
    pub web_releases: Vec<ReleaseNumber>,
    /// The digest of each release that this placement names: on machines a release is known by it, not by its number alone. Documents
    /// written before this field existed have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<ReleaseNumber, String>,
    /// The newest release whose `release` command has succeeded, or that needed none.
    pub released: Option<ReleaseNumber>,
    /// The `release` command to run now, and where. It stays here until it is known to have ended, even if a later
    /// change wants another: two never run at once.
    pub release_run: Option<ReleaseRun>,
    /// The servers that exist.
    pub servers: BTreeMap<ServerName, PlacedServer>,
    /// The instances that exist. One that is not here is stopped.
    pub instances: BTreeMap<InstanceName, PlacedInstance>,
    /// The workers that exist. One that is not here is stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<WorkerName, PlacedWorker>,
    /// The commands that run at set times: what was due, what runs, and how the last runs ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub crons: BTreeMap<CronName, PlacedCron>,
    /// The environments of instances and `release` commands, each once, under its number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<u64, Environment>,
    /// Whether balancers refuse clients: that of [`Desired`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// The VIPs and the balancer that each is home to.
    pub vips: BTreeMap<IpAddr, ServerName>,
    /// The network of the servers. Empty in documents of Gaiola 0.1.
    #[serde(default)]
    pub network: Network,
    /// The doors for clients. Balancers listen on every door of theirs; only open ones receive clients.
    #[serde(default)]
    pub doors: BTreeMap<SocketAddr, Door>,
    /// The servers that carry a store member, or should start one now. When tiers are added or removed the conductor
    /// moves the members, one at a time.
    pub store: Vec<ServerName>,
    /// The server whose store member is a learner: it is catching up, and does not vote yet.
    #[serde(default)]
    pub store_joining: Option<ServerName>,
    /// The server of [`Self::store_joining`] once its member has begun: without its data it does not begin again, for it may come to vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_begun: Option<ServerName>,
    /// Since when the members are named so. What a server reports of its member before it has carried out this revision may be of an earlier one.
    #[serde(default, skip_serializing_if = "Revision::is_unknown")]
    pub store_since: Revision,
    /// Balancers send to the web tier. `false`: past it, because there is none, or not yet, or no more.
    #[serde(default)]
    pub through_web: bool,
    /// Balancers know the instances, because they send to them, soon will, or did so until now.
    #[serde(default)]
    pub past_web: bool,
    /// How the tiers speak with each other.
    #[serde(default, skip_serializing_if = "Encryption::is_off")]
    pub encryption: Encryption,
    /// Why the roll-out of a release stopped halfway. Until another release, or this one again, is requested, the site
    /// continues with the last good one.
    #[serde(default)]
    pub failed: Option<Failure>,
    /// What instances ran when they last all ran as desired.
    #[serde(default)]
    pub good: Option<Template>,
}

impl Placement {
    /// Whether instances of two kinds run beside each other: a roll-out is under way.
    pub fn is_mixed(&self) -> bool {
        let kind = |placed: &PlacedInstance| (placed.release, placed.run.clone(), placed.env);
        let mut kinds = self.instances.values().map(kind);
        let first = kinds.next();
        kinds.any(|kind| Some(kind) != first)
    }

    /// What it has the servers run, each with the number of its environment: instances, workers, runs of crons, and the `release` command.
    pub fn processes(&self) -> impl Iterator<Item = PlacedProcess> {
        let process = |server, release, env| PlacedProcess {
            server,
            release,
            env,
        };
        let instances = self.instances.iter();
        let instances = instances.map(move |(name, it)| process(name.server, it.release, it.env));
        let workers = self.workers.iter();
        let workers = workers.map(move |(name, it)| process(name.server, it.release, it.env));
        let crons = self.crons.values().flat_map(|cron| &cron.runs);
        let crons = crons.map(move |run| process(run.server, run.release, run.env));
        let run = self.release_run.iter();
        let run = run.map(move |run| process(run.server, run.release, run.env));
        instances.chain(workers).chain(crons).chain(run)
    }

    /// The releases that it names: those of instances, of web servers, of the `release` command, and the one to return to.
    pub fn releases(&self) -> BTreeSet<ReleaseNumber> {
        let processes = self.processes().map(|process| process.release);
        let good = self.good.iter().map(|good| good.release);
        let web = self.web_releases.iter().copied();
        processes.chain(good).chain(web).collect()
    }

    /// A placement of Gaiola 0.1 does not name its network: until the conductor has written one that does, the one that
    /// the server was switched on with holds.
    pub fn keep_network(&mut self, held: &Self) {
        if self.network == Network::default() {
            self.network.clone_from(&held.network);
        }
    }
}

/// What a placement has a server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedProcess {
    /// The server.
    pub server: ServerName,
    /// The release it runs from.
    pub release: ReleaseNumber,
    /// The number of its environment in [`Placement::environments`]; 0: it has none of the file's variables.
    pub env: u64,
}

/// How the tiers speak with each other: a scale from plain text to TLS alone, with the steps between on which nobody is refused. A
/// placement moves along it one step at a time, once every server knows the step it is at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Plain text.
    #[default]
    Off,
    /// TLS is accepted beside plain text. Nobody uses it yet, or any more.
    Accepted,
    /// All use TLS. Plain text is still accepted.
    Used,
    /// Nothing but TLS is accepted.
    Required,
}

impl Encryption {
    /// All steps, in order.
    pub const STEPS: [Self; 4] = [Self::Off, Self::Accepted, Self::Used, Self::Required];

    /// Whether it is plain text.
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// The next step on the way to `wanted`.
    pub fn towards(self, wanted: Self) -> Self {
        let step = match self.cmp(&wanted) {
            Ordering::Less => self as usize + 1,
            Ordering::Equal => self as usize,
            Ordering::Greater => self as usize - 1,
        };
        Self::STEPS[step]
    }
}

/// The file's variables for a process, and the secrets that they refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredEnvironment", into = "StoredEnvironment")]
pub struct Environment {
    /// The variables, as the file has them.
    pub variables: Variables,
    /// The secrets that values refer to, as they were when the environment was ordered.
    pub secrets: SealedSecrets,
}

/// An environment as it may be stored: without secrets its variables alone, as before there were any.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredEnvironment {
    Plain(Variables),
    WithSecrets {
        variables: Variables,
        secrets: SealedSecrets,
    },
}

impl From<StoredEnvironment> for Environment {
    fn from(stored: StoredEnvironment) -> Self {
        let (variables, secrets) = match stored {
            StoredEnvironment::Plain(variables) => (variables, SealedSecrets::new()),
            StoredEnvironment::WithSecrets { variables, secrets } => (variables, secrets),
        };
        Self { variables, secrets }
    }
}

impl From<Environment> for StoredEnvironment {
    fn from(Environment { variables, secrets }: Environment) -> Self {
        match secrets.is_empty() {
            true => Self::Plain(variables),
            false => Self::WithSecrets { variables, secrets },
        }
    }
}

/// What an instance is made from. The same template makes the same process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The release it runs from.
    pub release: ReleaseNumber,
    /// Its command.
    pub run: String,
    /// The path that answers 200 when it is healthy.
    pub health: String,
    /// Whether its environment has `DATABASE_URL` and `DATABASE_REPLICA_URL`.
    pub database: bool,
    /// Whether it listens on the loopback alone, behind its server's proxy, which speaks TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// The number of its environment in [`Placement::environments`]; 0: it has none of the file's variables.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub env: u64,
}

/// An address for clients: a VIP, or a server or instance if the tiers before it are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The tier it leads to; for a VIP that is the balancers'.
    pub tier: Tier,
    /// Whether it receives clients.
    pub state: DoorState,
    /// The revision of the placement that put it into this state; 0 until that placement is stored.
    pub since: Revision,
}

/// Whether a door receives clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorState {
    /// Not yet: the tier behind it is being made ready.
    Opening,
    /// It does.
    Open,
    /// No longer: existing connections may finish.
    Closing,
}

/// Why a roll-out stopped halfway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The generation that failed.
    pub generation: u64,
    /// The release that was rolled out,
    pub release: ReleaseNumber,
    /// and at which attempt.
    #[serde(default)]
    pub attempt: u64,
    /// The new instance that did not become ready; `None`: the `release` command failed.
    pub instance: Option<InstanceName>,
    /// Whether the release ran before, with other settings: another command, environment or secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settings: bool,
    /// In words.
    pub reason: String,
}

impl Failure {
    /// The complete failure in words.
    pub fn in_words(&self) -> String {
        let (release, reason) = (self.release, &self.reason);
        match self.settings {
            false => format!("release {release} was given up: {reason}"),
            true => format!("the new settings of release {release} were given up: {reason}"),
        }
    }

    /// The same as it happens.
    pub fn as_it_happens(&self) -> String {
        let (release, reason) = (self.release, &self.reason);
        match self.settings {
            false => format!("release {release} is given up: {reason}"),
            true => format!("the new settings of release {release} are given up: {reason}"),
        }
    }
}

/// A server that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedServer {
    /// Its location.
    #[serde(flatten)]
    pub location: Location,
    /// Its desired phase.
    pub phase: Phase,
    /// The revision of the placement that put it into this phase; 0 until that placement is stored.
    pub since: Revision,
}

/// The desired phase of a server or instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It takes traffic as soon as it is healthy.
    Serve,
    /// It keeps running and takes no new traffic.
    Drain,
}

/// An instance that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedInstance {
    /// The release it runs from.
    pub release: ReleaseNumber,
    /// Its command.
    pub run: String,
    /// The path that answers 200 when it is healthy: a new release may have another one than the old. `None`: the
    /// configuration's. State written before instances had a path of their own has none.
    #[serde(default)]
    pub health: Option<String>,
    /// Whether its environment has `DATABASE_URL` and `DATABASE_REPLICA_URL`.
    #[serde(default)]
    pub database: bool,
    /// Whether it listens on the loopback alone, behind its server's proxy, which speaks TLS at the address and port that others use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// The number of its environment in [`Placement::environments`]; 0: it has none of the file's variables.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub env: u64,
    /// [`Desired::restarts`] of its server when it was started.
    #[serde(default)]
    pub restart: u64,
    /// Its desired phase.
    pub phase: Phase,
    /// The revision of the placement that put it into this phase; 0 until that placement is stored.
    pub since: Revision,
}

/// A worker that exists: what its process is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedWorker {
    /// The release it runs from.
    pub release: ReleaseNumber,
    /// Its command.
    pub run: String,
    /// Whether its environment has `DATABASE_URL` and `DATABASE_REPLICA_URL`.
    pub database: bool,
    /// The number of its environment in [`Placement::environments`]; 0: it has none of the file's variables.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub env: u64,
    /// [`Desired::restarts`] of its server when it was started.
    pub restart: u64,
}

/// A `release` command to run once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRun {
    /// The release whose directory it runs in.
    pub release: ReleaseNumber,
    /// The command.
    pub command: String,
    /// The number of its environment in [`Placement::environments`]; 0: it has none of the file's variables.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub env: u64,
    /// The application server it runs on,
    pub server: ServerName,
    /// and its boot. Once that is over so is the run: a server that comes back does not start it again.
    #[serde(default)]
    pub boot: BootNumber,
    /// The generation that requested it, which distinguishes a second attempt from the first.
    #[serde(default)]
    pub generation: u64,
    /// It should be stopped: a later change wants another.
    #[serde(default)]
    pub stop: bool,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What an agent sees on its server. It is stored under the agent's lease: a server that is gone has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The server.
    pub server: ServerName,
    /// The newest schema that all of Gaiola's processes on it read that get orders: its agent, keeper and proxy.
    #[serde(default = "schema::unnumbered")]
    pub reads: u64,
    /// Its current boot.
    #[serde(default)]
    pub boot: BootNumber,
    /// The newest placement that the agent has carried out: every process was configured, though it may not be ready
    /// yet.
    pub revision: Revision,
    /// Its proxy; `None` while it does not answer.
    pub proxy: Option<ObservedProxy>,
    /// VIPs that its keeper holds.
    pub vips: BTreeSet<IpAddr>,
    /// The site's processes on it.
    pub instances: BTreeMap<InstanceName, ObservedInstance>,
    /// Its workers, those among them that are being stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<WorkerName, ObservedInstance>,
    /// PostgreSQL on it.
    pub database: Option<ObservedDatabase>,
    /// The runs of crons that are ordered here and have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crons: Vec<ObservedCron>,
    /// How the last `release` command ended.
    pub release_run: Option<ReleaseOutcome>,
    /// Whether it has data of a store member; `None`: not reported.
    #[serde(default)]
    pub store_data: Option<bool>,
    /// Its remaining disk, memory and descriptors.
    #[serde(default)]
    pub resources: Resources,
    /// Which limits of the site's processes do not hold here and why, in words for people. Empty: all do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlimited: Vec<String>,
    /// What is wrong with this server, in words for people. Empty: nothing.
    pub troubles: Vec<String>,
}

impl Observed {
    /// An agent's report before it has carried out or seen anything.
    pub fn nothing_on(server: ServerName) -> Self {
        Self {
            server,
            reads: schema::SCHEMA,
            boot: BootNumber(0),
            revision: Revision(0),
            proxy: None,
            vips: BTreeSet::new(),
            instances: BTreeMap::new(),
            workers: BTreeMap::new(),
            crons: Vec::new(),
            database: None,
            release_run: None,
            store_data: None,
            resources: Resources::default(),
            unlimited: Vec::new(),
            troubles: Vec::new(),
        }
    }
}

/// What the provider reports: a process beside the agents that powers the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedProvider {
    /// The newest schema that it reads.
    pub reads: u64,
}

/// A proxy as its agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedProxy {
    /// The configuration that every worker has.
    pub revision: Revision,
    /// Requests in flight by member name (`web1`, `app1.2`); a member with none is not listed.
    pub in_flight: BTreeMap<String, u64>,
    /// Members that it finds up.
    pub up: BTreeSet<String>,
    /// Members it sends to although they are too busy to answer its check, for lack of others.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub busy: BTreeSet<String>,
    /// While instances of two kinds run beside each other: what became of the requests to each instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<InstanceName, Results>,
    /// Files of its revision that it does not serve yet.
    #[serde(default, skip_serializing_if = "LackingFiles::is_none")]
    pub lacks: LackingFiles,
}

/// The site's files that a proxy serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyFiles {
    /// The releases that a web server searches, newest first.
    pub releases: Vec<ReleaseNumber>,
    /// The certificates of a balancer; `None`: it does not speak TLS.
    pub certificates: Option<CertificateCopy>,
}

/// A copy of certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateCopy {
    /// The digest of its contents, which is its name.
    pub contents: String,
    /// How many folders it has, named by their numbers from 0.
    pub folders: usize,
}

/// What a proxy is to serve and does not, because it is not on its server's disk yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingFiles {
    /// Releases.
    pub releases: BTreeSet<ReleaseNumber>,
    /// Whether the balancers' certificates are among it.
    pub certificates: bool,
}

impl LackingFiles {
    /// Whether nothing is lacking.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// An instance as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedInstance {
    /// The release it was started from.
    pub release: ReleaseNumber,
    /// The command it was started with.
    pub run: String,
    /// Its state.
    pub state: InstanceState,
    /// How often it ended by itself since the placement requested it.
    pub restarts: u32,
    /// Why it is not ready, or why its last check failed though it still counts as ready, in words; empty: neither.
    pub reason: String,
}

impl ObservedInstance {
    /// One of which nothing is known any more but that it is being stopped.
    pub fn being_stopped() -> Self {
        Self {
            release: ReleaseNumber(0),
            run: String::new(),
            state: InstanceState::Stopping,
            restarts: 0,
            reason: "is being stopped".into(),
        }
    }
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Started, and has not answered its health path yet.
    Starting,
    /// Answers its health path.
    Ready,
    /// Answered once and does not now.
    Unhealthy,
    /// Ended by itself; it is restarted after a back-off.
    Crashed,
    /// Was asked to stop and has not ended.
    Stopping,
}

/// PostgreSQL on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDatabase {
    /// Its current role.
    pub role: DatabaseRole,
    /// Patroni's word for its state: `running`, `streaming`, `starting`, `stopped`.
    pub state: String,
    /// Its timeline; 0 when unknown.
    pub timeline: u64,
    /// Bytes it is behind the primary; `None` when unknown, 0 on the primary.
    pub lag_bytes: Option<u64>,
    /// Up to where it has replayed the WAL, in bytes; `None` on a primary or when unknown. It changes with every write,
    /// so it is not published and stays on the server that reads it.
    #[serde(skip)]
    pub replayed: Option<u64>,
    /// Where its timeline branched off, from its history file: `2 at 0/50000A0`. `None` on the first timeline, or when
    /// unknown. Two members on one timeline that branched off at different places hold different data.
    #[serde(default)]
    pub history: Option<String>,
    /// Whether the rules that are installed for its clients accept nothing but TLS; `None`: none are known to be installed.
    #[serde(default)]
    pub requires_tls: Option<bool>,
}

impl ObservedDatabase {
    /// Whether it streams from `primary`, on the same timeline and with the same history.
    pub fn follows(&self, primary: &Self) -> bool {
        self.state == "streaming"
            && matches!(self.role, DatabaseRole::SyncStandby | DatabaseRole::Standby)
            && self.timeline == primary.timeline
            && !self.is_forked_from(primary)
    }

    /// Whether it is known to hold other data than `primary` on the same timeline.
    pub fn is_forked_from(&self, primary: &Self) -> bool {
        let both = self.history.as_ref().zip(primary.history.as_ref());
        self.timeline == primary.timeline && both.is_some_and(|(mine, theirs)| mine != theirs)
    }
}

/// The current role of a database server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseRole {
    /// Takes writes.
    Primary,
    /// Holds every acknowledged write.
    SyncStandby,
    /// Follows the primary.
    Standby,
    /// Not running, or not known.
    #[default]
    Unknown,
}

/// How a `release` command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseOutcome {
    /// The release.
    pub release: ReleaseNumber,
    /// The command that was run.
    pub command: String,
    /// [`ReleaseRun::generation`] of its order.
    #[serde(default)]
    pub generation: u64,
    /// `None`: it succeeded. Otherwise why it failed, with the end of its output.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_without_secrets_is_its_variables() {
        let text = r#"{"TZ":"UTC","secrets":"none","variables":"2"}"#;
        let plain: Environment = serde_json::from_str(text).unwrap();
        assert_eq!(plain.variables.len(), 3);
        assert_eq!(serde_json::to_string(&plain).unwrap(), text);
        let with_secrets = Environment {
            secrets: [("A".parse().unwrap(), secret::Sealed("00".into()))].into(),
            ..plain
        };
        let text = serde_json::to_string(&with_secrets).unwrap();
        assert_eq!(
            serde_json::from_str::<Environment>(&text).unwrap(),
            with_secrets
        );
    }

    #[test]
    fn an_instance_without_a_path_of_its_own_is_read() {
        let text = r#"{"release":3,"run":"run","phase":"serve","since":7}"#;
        let placed: PlacedInstance = serde_json::from_str(text).unwrap();
        assert_eq!((placed.health, placed.database), (None, false));
        assert!(!placed.encrypted);
    }

    #[test]
    fn encryption_moves_one_step_at_a_time() {
        use Encryption::{Accepted, Off, Required, Used};
        let mut on = vec![Off];
        while on.last() != Some(&Required) {
            on.push(on.last().unwrap().towards(Required));
        }
        assert_eq!(on, [Off, Accepted, Used, Required]);
        let mut off = vec![Required];
        while off.last() != Some(&Off) {
            off.push(off.last().unwrap().towards(Off));
        }
        assert_eq!(off, [Required, Used, Accepted, Off]);
        assert_eq!(Required.towards(Required), Required);
    }

    #[test]
    fn a_door_is_written_under_its_address() {
        let at: SocketAddr = "10.77.0.100:80".parse().unwrap();
        let door = Door {
            tier: Tier::Balancer,
            state: DoorState::Open,
            since: Revision(3),
        };
        let doors = BTreeMap::from([(at, door)]);
        let text = serde_json::to_string(&doors).unwrap();
        let written = r#"{"10.77.0.100:80":{"tier":"balancer","state":"open","since":3}}"#;
        assert_eq!(text, written);
        assert_eq!(
            serde_json::from_str::<BTreeMap<SocketAddr, Door>>(&text).unwrap(),
            doors
        );
    }
}
