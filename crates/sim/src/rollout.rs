//! The conductor among simulated agents, from one seed: servers lose power and come back, agents and proxies stall,
//! instances never get healthy, leases vanish, and the operator changes the desired state at any moment.
//!
//! After each step checkers verify that nothing was stopped that was still in use. Once the faults stop, the site must
//! settle within a bounded time.

mod checks;
mod crons;
mod faults;
mod hosts;
mod machine;
mod members;
mod network;
mod operator;
mod processes;
mod sabotage;
mod services;
mod session;
mod site;
mod view;

use crate::violation::{Rule, Violation};
use checks::Checker;
pub use crons::{CronStory, run_cron};
use gaiola_core::rollout::{self, Facts};
use gaiola_core::topology;
use gaiola_model::config::{App, Balancer, Config, Database, Web, Worker};
use gaiola_model::placement::{BootNumber, Release, ReleaseNumber};
use gaiola_model::proxy::{Admin, Mode};
use gaiola_model::{Desired, Inventory, Observed, Placement, Revision, ServerName, Time};
use machine::Machine;
pub use sabotage::Sabotage;
use site::Site;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// The network of the simulated servers.
const NETWORK: [u8; 2] = [10, 77];
/// Step of the simulation.
const TICK: Duration = Duration::from_millis(250);
/// Lifetime of a lease that is not renewed.
const LEASE: Duration = Duration::from_secs(5);
/// Duration of the faults.
const TROUBLED: Duration = Duration::from_secs(120);
/// Longest time to settle after the last fault.
const BOUND: Duration = Duration::from_secs(600);

/// A run that broke a rule; its seed replays it.
#[derive(Debug)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// The rule and how it was broken.
    pub violation: Violation,
    /// What happened before, one event a line.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "SEED={}: {}", self.seed, self.violation)
    }
}

/// Result of a run that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    /// Number of stored placements.
    pub steps: u64,
    /// From the last fault until the site had settled.
    pub settled_after: Duration,
    /// Number of machines whose place another one took by itself.
    pub replaced: u64,
}

/// Runs one seed to its end: one conductor that sees the store as it is.
///
/// # Errors
///
/// The first broken rule.
pub fn run(seed: u64) -> Result<Story, Box<Broken>> {
    play(World::new(seed), seed)
}

/// Runs one seed to its end: any agent may conduct, over a network and a store with faults of their own.
///
/// # Errors
///
/// The first broken rule.
pub fn run_site(seed: u64, sabotage: Option<Sabotage>) -> Result<Story, Box<Broken>> {
    let mut world = World::new(seed);
    world.site = Some(Box::new(Site::new(&world.store.placement, sabotage)));
    world.site_runs = true;
    play(world, seed)
}

/// As [`run`], with servers that stand on machines: several on one, which lose power together.
///
/// # Errors
///
/// The first broken rule.
pub fn run_on_machines(seed: u64) -> Result<Story, Box<Broken>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let hosts = match rng.u8(1..9) {
        // Enough for spare ones, which take the place of those that are gone.
        odd if odd % 2 == 1 => odd + 4,
        even => even,
    };
    let mut config = config(&mut rng);
    hosts::stand(&mut config, hosts, &mut rng);
    let inventory = Inventory::on_machines(&config, None).expect("every machine has an address");
    let mut world = World::of(config, inventory, rng);
    world.hosts = hosts;
    play(world, seed)
}

fn play(mut world: World, seed: u64) -> Result<Story, Box<Broken>> {
    world.play().map_err(|violation| {
        Box::new(Broken {
            seed,
            violation,
            trace: std::mem::take(&mut world.trace),
        })
    })
}

/// The store's current contents and its history.
struct Store {
    revision: u64,
    at: Revision,
    placement: Rc<Placement>,
    history: BTreeMap<Revision, Rc<Placement>>,
}

/// The members each proxy sends to, by its configuration.
type Targets = BTreeMap<(Revision, ServerName), Rc<BTreeSet<String>>>;

struct World {
    now: Time,
    rng: fastrand::Rng,
    desired: Desired,
    store: Store,
    machines: BTreeMap<ServerName, Machine>,
    /// The last boot of any server, and boots that are over and that the lab has not reported to the store yet.
    boots: BootNumber,
    ended_boots: Vec<(ServerName, BootNumber)>,
    store_members: BTreeSet<ServerName>,
    /// No lease is visible until this time.
    store_dark_until: Time,
    /// The end of the faults.
    troubled_until: Time,
    /// The conductor's facts; a new conductor starts with none.
    facts: Facts,
    /// The number of machines that servers stand on; 0: each has one of its own.
    hosts: u8,
    /// Releases whose instances never get healthy, and those whose command fails.
    sick: BTreeSet<ReleaseNumber>,
    unpreparable: BTreeSet<ReleaseNumber>,
    /// Average number of steps between two faults, and between two changes: some runs are calmer than others.
    fault_every: u8,
    change_every: u8,
    /// Many agents that may conduct, and their store; `None`: one conductor that sees everything at once.
    site: Option<Box<Site>>,
    site_runs: bool,
    checker: Checker,
    crons: crons::CronChecker,
    known_targets: RefCell<Targets>,
    trace: Vec<String>,
    steps: u64,
    /// Machines that gave their place to another by themselves.
    replaced: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = config(&mut rng);
        let inventory = Inventory::numbered(&config, NETWORK);
        Self::of(config, inventory, rng)
    }

    fn of(config: Config, inventory: Inventory, mut rng: fastrand::Rng) -> Self {
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let desired = Desired::first(config, release, inventory);
        let placement = Rc::new(rollout::first(&desired, "sim".into()));
        let at = Revision(1);
        Self {
            now: Time::ZERO,
            fault_every: rng.u8(15..100),
            change_every: rng.u8(20..100),
            rng,
            store: Store {
                revision: at.0,
                at,
                history: BTreeMap::from([(at, placement.clone())]),
                placement,
            },
            machines: BTreeMap::new(),
            boots: BootNumber(0),
            ended_boots: Vec::new(),
            store_members: rollout::store_members(&desired.config)
                .into_iter()
                .collect(),
            desired,
            store_dark_until: Time::ZERO,
            troubled_until: Time::ZERO + TROUBLED,
            facts: Facts::default(),
            hosts: 0,
            sick: BTreeSet::new(),
            unpreparable: BTreeSet::new(),
            site: None,
            site_runs: false,
            checker: Checker::default(),
            crons: crons::CronChecker::default(),
            known_targets: RefCell::default(),
            trace: Vec::new(),
            steps: 0,
            replaced: 0,
        }
    }

    fn play(&mut self) -> Result<Story, Violation> {
        let end_of_faults = self.troubled_until;
        while self.now < end_of_faults {
            self.stir();
            self.tick()?;
        }
        self.heal();
        while self.now - end_of_faults < BOUND {
            self.tick()?;
            if self.is_settled() {
                return self.rest(self.now - end_of_faults);
            }
        }
        let missing = self.check_settled().err().unwrap_or_default();
        let waiting = self.next().waiting;
        let site = self.site.as_ref().map(|site| site.in_words());
        let site = site.unwrap_or_default();
        Err(Rule::Settles.broken(format!(
            "not settled in {BOUND:?}: {missing:#?} {waiting:#?} {site}"
        )))
    }

    /// A settled site must not change.
    fn rest(&mut self, settled_after: Duration) -> Result<Story, Violation> {
        if let Some(site) = &self.site {
            self.check_members_at_rest(&site.members)?;
        }
        for _ in 0..80 {
            let before = self.steps;
            self.tick()?;
            if self.steps != before {
                return Err(Rule::Settles.broken("a settled site was changed"));
            }
        }
        if self
            .site
            .as_ref()
            .is_some_and(|site| site.operator.is_following())
        {
            return Err(Rule::Follow.broken("the command for the last change does not end"));
        }
        Ok(Story {
            steps: self.steps,
            settled_after,
            replaced: self.replaced,
        })
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.now = self.now + TICK;
        self.move_machines()?;
        self.remember_quiet();
        self.check_encryption()?;
        if let Some(mut site) = self.site.take() {
            let moved = self.move_site(&mut site);
            self.site = Some(site);
            return moved;
        }
        if self.rng.u8(..10) < 8 {
            self.conduct()?;
        }
        Ok(())
    }

    /// One observation and decision of the conductor.
    fn conduct(&mut self) -> Result<(), Violation> {
        let observed = self.observed();
        self.facts.store_members = self.store_members.clone();
        self.facts.wall = Some(crons::wall(self.now));
        self.facts
            .observe(self.now, &self.store.placement, self.store.at, observed);
        if self.hosts > 0 {
            self.replace_gone()?;
        }
        let next = self.next();
        let Some(placement) = next.placement else {
            return Ok(());
        };
        for event in &next.events {
            self.note(event.text.clone());
        }
        self.check_step(&placement)?;
        self.store.revision += self.rng.u64(1..4);
        let at = Revision(self.store.revision);
        self.stored(at, Rc::new(placement));
        Ok(())
    }

    /// The store holds another placement.
    fn stored(&mut self, at: Revision, placement: Rc<Placement>) {
        self.store.at = at;
        self.store.placement = placement.clone();
        self.store.history.insert(at, placement);
        self.steps += 1;
    }

    /// Whether faults happen.
    fn is_troubled(&self) -> bool {
        self.now < self.troubled_until
    }

    fn next(&self) -> rollout::Next {
        rollout::next(
            &self.desired,
            &self.store.placement,
            self.store.at,
            &self.facts,
        )
    }

    /// The reports of servers with a lease.
    fn observed(&self) -> BTreeMap<ServerName, Observed> {
        if self.now < self.store_dark_until {
            return BTreeMap::new();
        }
        let leased = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.has_lease(self.now));
        leased
            .filter_map(|(name, machine)| Some((*name, machine.published.clone()?)))
            .collect()
    }

    fn is_settled(&self) -> bool {
        self.next().placement.is_none() && self.check_settled().is_ok()
    }

    fn check_settled(&self) -> Result<(), Vec<String>> {
        rollout::settled(
            &self.desired,
            &self.store.placement,
            self.store.at,
            &self.facts,
        )
    }

    fn note(&mut self, text: impl Into<String>) {
        let seconds = self.now.since_start().as_secs_f32();
        self.trace
            .push(format!("{seconds:7.2} r{} {}", self.store.at, text.into()));
    }

    /// The members that the proxy of `sender` sends to under the configuration of this revision; computed once.
    fn targets(&self, revision: Revision, sender: ServerName) -> Rc<BTreeSet<String>> {
        let mut known = self.known_targets.borrow_mut();
        let work_out = || {
            let held = self.held(revision);
            Rc::new(held.map_or_else(BTreeSet::new, |held| targets(held, revision, sender)))
        };
        known
            .entry((revision, sender))
            .or_insert_with(work_out)
            .clone()
    }

    /// The placement that a proxy's configuration was made from.
    fn held(&self, revision: Revision) -> Option<&Rc<Placement>> {
        self.store.history.get(&revision)
    }
}

/// A worker that runs on one server.
fn beat() -> Worker {
    Worker {
        servers: Some(1),
        ..Worker::new("work")
    }
}

/// A site of random size, with or without each tier.
fn config(rng: &mut fastrand::Rng) -> Config {
    let balancer = Balancer {
        servers: rng.u16(1..4),
        ..Balancer::default()
    };
    let web = Web {
        servers: rng.u16(1..4),
        ..Web::default()
    };
    let database = Database {
        servers: rng.u16(1..5),
        strict: false,
        ..Database::default()
    };
    Config {
        site: "sim".parse().expect("a site's name"),
        balancer: (rng.u8(..5) > 0).then_some(balancer),
        web: (rng.u8(..4) > 0).then_some(web),
        app: App {
            servers: rng.u16(1..4),
            instances: rng.u16(1..4),
            run: "run".into(),
            release: rng.bool().then(|| "migrate".into()),
            health: "/up".into(),
            maxconn: None,
            grace: Duration::from_secs(10),
            env: Default::default(),
            ..App::new("")
        },
        workers: match rng.bool() {
            true => [("beat".parse().expect("it is a name"), beat())].into(),
            false => Default::default(),
        },
        crons: Default::default(),
        database: rng.bool().then_some(database),
        drill: None,
        env: Default::default(),
        env_file: None,
        machines: None,
    }
}

/// The members to which the proxy that serves this placement on `sender` would send new traffic.
fn targets(placement: &Placement, at: Revision, sender: ServerName) -> BTreeSet<String> {
    let paths = topology::Paths {
        releases: "r".into(),
        ca: "ca".into(),
        cert: "cert".into(),
        key: "key".into(),
        certificates: "certificates".into(),
    };
    let files = topology::files_wanted(placement, sender);
    let config = topology::proxy_config(placement, at, sender, &paths, &files).unwrap_or_default();
    let led_to = |name: &str| {
        config
            .frontends
            .iter()
            .any(|frontend| match &frontend.mode {
                Mode::Http { routes, .. } => routes
                    .iter()
                    .any(|route| route.backend.as_deref() == Some(name)),
                // Everybody sends to the primary while it is one, drained or not: its role decides.
                Mode::Tcp { backend, .. } => backend == name && name != "primary",
            })
    };
    let backends = config
        .backends
        .iter()
        .filter(|backend| led_to(&backend.name));
    let servers = backends.flat_map(|backend| &backend.servers);
    let ready = servers.filter(|server| server.admin == Admin::Ready);
    ready.map(|server| server.name.clone()).collect()
}

#[cfg(test)]
mod tests;
