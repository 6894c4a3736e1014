//! The conductor's decisions: from the desired and the observed state to the next placement, one safe step at a time.
//!
//! [`next`] is called whenever something changed. It evaluates everything from scratch, so a conductor that takes over in
//! the middle continues where the last one stopped: all the state it needs is in the placement.
//!
//! Invariants:
//! - No instance or server is removed before every proxy that could send to it has acknowledged a configuration without it,
//!   and its requests have ended or the grace is over.
//! - While one instance is being replaced no other is, and no server leaves.
//! - No server leaves if that would leave its tier with fewer healthy ones than wanted.
//! - Two database servers are never drained at the same time, and the last one is never removed.

mod auto_replace;
mod compare;
mod crons;
mod doors;
mod drain;
mod encryption;
mod environment;
mod facts;
mod instances;
mod maintenance;
mod path;
mod release;
mod replace;
mod schema;
mod servers;
mod settled;
mod view;
mod workers;

pub use auto_replace::{AutoReplace, Kept, auto_replace, machines_to_ask};
pub use facts::Facts;
pub use replace::{Leaving, ReplaceRefused, may_replace};
pub use servers::{DrainRefused, all_drained, may_drain};
pub use settled::settled;
pub(crate) use view::{Unmet, View, too_busy};

use crate::topology;
use gaiola_model::config::Machines;
use gaiola_model::event::Severity;
use gaiola_model::inventory::Location;
use gaiola_model::placement::{Failure, Phase, PlacedServer, Release, ReleaseNumber, Template};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{Config, Desired, Placement, Revision, ServerName, Tier};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::time::Duration;

/// A server without a lease for this long counts as dead: nobody waits for it, and its proxy is left out.
pub const SILENCE: Duration = Duration::from_secs(10);
/// A new instance that does not serve within this time has failed, and with it the roll-out.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);
/// A new instance that ended by itself this many times has failed, without waiting for the deadline.
pub const MAX_CRASHES: u32 = 3;
/// A balancer and a database server that are drained wait for each other's VIPs and role to move, for this long at most.
pub const MOVED_WITHIN: Duration = Duration::from_secs(30);
/// If more than half of the servers vanish within this time the store itself is assumed to have failed, and nothing is
/// done.
pub const STORE_DOUBT: Duration = Duration::from_secs(30);

/// The conductor's next step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// The placement to store, by compare-and-swap on the revision given; `None`: nothing to change.
    pub placement: Option<Placement>,
    /// Events for people, valid once the placement is stored; none without a placement.
    pub events: Vec<RollOutEvent>,
    /// What the next step waits for.
    pub waiting: Vec<RollOutWait>,
    /// Why the roll-out stopped halfway, if it did.
    pub failed: Option<Failure>,
}

/// An event, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollOutEvent {
    /// The server it happened to.
    pub server: Option<ServerName>,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, for programs: `roll_out.step`, or what became of a cron.
    pub kind: &'static str,
    /// In words, beginning with a name.
    pub text: String,
}

/// Something the conductor waits for, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollOutWait {
    /// The server that is waited for.
    pub server: Option<ServerName>,
    /// In words.
    pub text: String,
}

/// The first placement of a site: all servers at once, and all instances unless a `release` command must run before
/// them.
///
/// `incarnation` names the store's lifetime and never changes.
pub fn first(desired: &Desired, incarnation: String) -> Placement {
    let config = &desired.inventory.resolve(&desired.config);
    let servers = desired.inventory.servers.iter();
    let servers = servers.map(|(name, location)| (*name, new_server(location.clone())));
    let mut placement = Placement {
        schema: SCHEMA,
        incarnation,
        generation: desired.generation,
        config: config.clone(),
        web_releases: vec![desired.release.number],
        digests: BTreeMap::new(),
        released: config
            .app
            .release
            .is_none()
            .then_some(desired.release.number),
        release_run: None,
        servers: servers.collect(),
        instances: BTreeMap::new(),
        workers: BTreeMap::new(),
        crons: BTreeMap::new(),
        environments: BTreeMap::new(),
        maintenance: desired.maintenance.clone(),
        vips: BTreeMap::new(),
        network: desired.inventory.network.clone(),
        doors: BTreeMap::new(),
        store: store_members(config),
        store_joining: None,
        store_begun: None,
        store_since: Revision(0),
        through_web: config.web.is_some(),
        past_web: config.web.is_none(),
        encryption: encryption::wanted(config),
        failed: None,
        good: None,
    };
    environment::hold(&mut placement, desired);
    if placement.released.is_some() {
        let template = instances::wanted(desired, &placement);
        for server in topology::servers_of(&placement, Tier::App).collect::<Vec<_>>() {
            for number in 1..=config.app.instances {
                let name = gaiola_model::InstanceName { server, number };
                placement
                    .instances
                    .insert(name, instances::place(&template, desired, server));
            }
        }
    }
    doors::open_first(&mut placement);
    placement.vips = topology::homes(&placement);
    release::name_contents(&mut placement, &desired.release);
    placement
}

/// The next step from `placement`, which the store holds at revision `at`, towards `desired`.
///
/// `facts` must come from observing this very placement and revision.
pub fn next(desired: &Desired, placement: &Placement, at: Revision, facts: &Facts) -> Next {
    let stored = dated(placement, at);
    let mut step = RollOutStep::new(desired, &stored, at, facts);
    if desired.generation < stored.generation {
        step.wait(
            None,
            "the desired state that was read is older than the placement",
        );
    } else {
        // Whatever the roll-out waits for.
        step.lead_maintenance();
        if desired.inventory.servers.is_empty() {
            step.wait(
                None,
                "for the site's inventory, which documents of Gaiola 0.1 do not have; write it with: gaiola up",
            );
        } else if facts.store_in_doubt {
            step.wait(None, "more than half of the servers vanished at once: this looks like the store, not like them");
        } else {
            step.take();
        }
    }
    step.finish()
}

/// The servers that carry the store's members.
///
/// They are servers that scaling never removes: the first of the balancer, web and app tiers, and the first database
/// server if these are fewer than three. Three of them, or the first application server alone if there are not that many.
///
/// On machines no two members stand on one: from each tier, in the same order, the first server whose machine has none yet,
/// then any others. Where the servers stand on fewer than three machines, one member on the first of these servers: it stays
/// when more machines come.
pub fn store_members(config: &Config) -> Vec<ServerName> {
    let (mut members, alone) = match &config.machines {
        Some(machines) => {
            let apart = members_apart(machines);
            let first = apart.first().copied();
            (apart, first)
        }
        None => (first_of_tiers(config), config.servers_of(Tier::App).next()),
    };
    members.truncate(STORE_MEMBERS);
    if members.len() < STORE_MEMBERS {
        members = alone.into_iter().collect();
    }
    members
}

/// Members of the store: one may be lost.
const STORE_MEMBERS: usize = 3;

fn first_of_tiers(config: &Config) -> Vec<ServerName> {
    let first = |tier| config.servers_of(tier).next();
    Tier::ALL.into_iter().filter_map(first).collect()
}

/// Servers on different machines, in the order in which they should carry a member.
fn members_apart(machines: &Machines) -> Vec<ServerName> {
    let mut members: Vec<(&str, ServerName)> = Vec::new();
    for tier in Tier::ALL {
        let mut servers = machines.of(tier);
        let apart = servers.find(|(_, on)| members.iter().all(|(ssh, _)| *ssh != on.ssh));
        members.extend(apart.map(|(name, on)| (on.ssh.as_str(), name)));
    }
    let mut others: Vec<_> = machines.servers.iter().collect();
    others.sort_by_key(|(name, _)| (name.number, name.tier));
    for (name, on) in others {
        if members.iter().all(|(ssh, _)| *ssh != on.ssh) {
            members.push((&on.ssh, *name));
        }
    }
    members.into_iter().map(|(_, name)| name).collect()
}

/// Whether a server that is placed is not where the inventory has one of its name.
fn is_elsewhere(desired: &Desired, placement: &Placement, server: ServerName) -> bool {
    let given = desired.inventory.servers.get(&server);
    let placed = placement.servers.get(&server);
    let both = given.zip(placed);
    both.is_some_and(|(given, placed)| !given.is_where(&placed.location))
}

fn new_server(location: Location) -> PlacedServer {
    PlacedServer {
        location,
        phase: Phase::Serve,
        since: Revision(0),
    }
}

/// The placement with every `since` filled in that was unknown when it was made.
pub(crate) fn dated(placement: &Placement, at: Revision) -> Placement {
    let mut dated = placement.clone();
    let servers = dated.servers.values_mut().map(|server| &mut server.since);
    let instances = dated
        .instances
        .values_mut()
        .map(|instance| &mut instance.since);
    let doors = dated.doors.values_mut().map(|door| &mut door.since);
    let store = std::iter::once(&mut dated.store_since);
    for since in servers.chain(instances).chain(doors).chain(store) {
        if *since == Revision(0) {
            *since = at;
        }
    }
    dated
}

/// A step under construction.
struct RollOutStep<'a> {
    desired: &'a Desired,
    /// What the store holds, and what is observed of it.
    view: View<'a>,
    /// What the store should hold.
    plan: Placement,
    events: Vec<RollOutEvent>,
    waiting: Vec<RollOutWait>,
}

impl<'a> RollOutStep<'a> {
    fn new(desired: &'a Desired, stored: &'a Placement, at: Revision, facts: &'a Facts) -> Self {
        Self {
            desired,
            view: View::new(stored, at, facts),
            plan: stored.clone(),
            events: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The stages, in order of precedence.
    fn take(&mut self) {
        self.adopt();
        environment::hold(&mut self.plan, self.desired);
        self.add_servers();
        self.finish_drains();
        self.lead_path();
        self.lead_encryption();
        self.drain_for_operator();
        self.run_release();
        self.remove_servers();
        self.publish_web_releases();
        self.replace_instances();
        self.place_workers();
        self.attend_crons();
        self.lead_doors();
        self.keep_network();
        self.raise_schema();
        environment::drop_unused(&mut self.plan, self.desired);
        self.plan.vips = topology::homes(&self.plan);
        release::name_contents(&mut self.plan, &self.desired.release);
    }

    /// Adopts a new generation. A release that was given up gets another chance only if it is requested again, or if its instances
    /// are to be reached in another way.
    fn adopt(&mut self) {
        if self.plan.generation == self.desired.generation {
            return;
        }
        let config = &self.desired.config;
        let new_database = config.database.is_some() && self.plan.config.database.is_none();
        if new_database && config.app.release.is_some() {
            self.plan.released = None;
        }
        let is_moved = config.encrypts() != self.plan.config.encrypts();
        self.plan.generation = self.desired.generation;
        let workers = std::mem::take(&mut self.plan.config.workers);
        self.plan.config = self.desired.inventory.resolve(config);
        self.plan.config.workers = workers; // They follow the release.
        self.adopt_locations();
        let release = self.release_number();
        let attempt = self.desired.attempt;
        self.plan.failed.take_if(|failure| {
            is_moved || (failure.release, failure.attempt) != (release, attempt)
        });
    }

    /// The network of the inventory, and the servers outside of it that have not left yet.
    fn keep_network(&mut self) {
        let mut network = self.desired.inventory.network.clone();
        for placed in self.plan.servers.values() {
            let address = placed.location.address;
            let is_in = |prefix: &IpNet| prefix.contains(&address);
            if !network.servers.iter().any(is_in) {
                network.servers.push(address.into());
            }
        }
        self.plan.network = network;
    }

    /// A server stays where it was put: only what earlier versions did not store of its location is filled in.
    fn adopt_locations(&mut self) {
        for (server, placed) in &mut self.plan.servers {
            let given = self.desired.inventory.servers.get(server);
            // All that 0.1 stored was the address.
            let address = placed.location.address;
            let is_bare = placed.location == Location::at(address);
            if let Some(given) = given.filter(|given| is_bare && given.address == address) {
                placed.location.clone_from(given);
            }
        }
    }

    fn finish(self) -> Next {
        let changed = self.plan != *self.view.placement;
        let failed = self.plan.failed.clone();
        Next {
            events: if changed { self.events } else { Vec::new() },
            placement: changed.then_some(self.plan),
            waiting: self.waiting,
            failed,
        }
    }

    fn report(&mut self, server: impl Into<Option<ServerName>>, text: impl Into<String>) {
        self.tell(server, Severity::Info, "roll_out.step", text);
    }

    fn tell(
        &mut self,
        server: impl Into<Option<ServerName>>,
        severity: Severity,
        kind: &'static str,
        text: impl Into<String>,
    ) {
        self.events.push(RollOutEvent {
            server: server.into(),
            severity,
            kind,
            text: text.into(),
        });
    }

    fn wait(&mut self, server: impl Into<Option<ServerName>>, text: impl Into<String>) {
        let waiting = RollOutWait {
            server: server.into(),
            text: text.into(),
        };
        if !self.waiting.contains(&waiting) {
            self.waiting.push(waiting);
        }
    }

    /// The section of the file that workers and crons follow belongs to the release that serves: it has come up as it is wanted.
    fn is_current(&self, good: &Template) -> bool {
        instances::wanted(self.desired, &self.plan) == *good
    }

    /// Whether the file includes this server where it stands.
    fn wants(&self, server: ServerName) -> bool {
        let mut names = self.desired.config.server_names();
        names.any(|name| name == server) && !self.is_elsewhere(server)
    }

    /// Whether another server will have this one's name: it goes first, then the other one is added.
    fn is_elsewhere(&self, server: ServerName) -> bool {
        is_elsewhere(self.desired, &self.plan, server)
    }

    /// Puts a server into a phase.
    fn set_phase(&mut self, server: ServerName, phase: Phase) {
        if let Some(placed) = self.plan.servers.get_mut(&server) {
            placed.phase = phase;
            placed.since = Revision(0);
        }
    }

    fn release(&self) -> &'a Release {
        &self.desired.release
    }

    /// Whether instances of the desired release may be started.
    fn is_released(&self) -> bool {
        self.plan.released >= Some(self.release().number)
    }

    fn release_number(&self) -> ReleaseNumber {
        self.release().number
    }
}
