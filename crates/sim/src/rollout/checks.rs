//! The rules, judged by the real state and not by what was reported to the conductor.

use super::World;
use crate::violation::{Rule, Violation};
use gaiola_core::topology::{self, TrafficTarget};
use gaiola_model::placement::{
    DatabaseRole, DoorState, Encryption, Environment, InstanceState, Phase, PlacedInstance,
    ReleaseNumber, Template,
};
use gaiola_model::{InstanceName, Placement, ServerName, Tier, Time, WorkerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest time that a conductor's watch stalls, and its write takes.
const LONGEST_LAG: Duration = Duration::from_secs(30);

/// State that the rules need.
#[derive(Default)]
pub(super) struct Checker {
    /// Since when nobody really sends to a drained target.
    quiet_since: BTreeMap<TrafficTarget, Time>,
    /// Proxies that were rightly left out when an instance was removed.
    left_out: BTreeMap<InstanceName, BTreeSet<ServerName>>,
    prepared: ReleaseNumber,
    was_open: bool,
}

impl Checker {
    pub(super) fn saw_release(&mut self, release: ReleaseNumber) {
        self.prepared = self.prepared.max(release);
    }
}

/// What an environment's number stands for; 0: nothing.
fn environment(placement: &Placement, number: u64) -> &Environment {
    static NONE: Environment = Environment {
        variables: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    placement.environments.get(&number).unwrap_or(&NONE)
}

/// Whatever runs finds its environment in the placement, a number in use keeps its meaning, and none is held twice.
fn check_environments(stored: &Placement, next: &Placement) -> Result<(), Violation> {
    let held = &next.environments;
    let instances = next.instances.iter();
    let instances = instances.map(|(name, placed)| (name.to_string(), placed.env));
    let workers = next.workers.iter();
    let workers = workers.map(|(name, placed)| (name.to_string(), placed.env));
    let mut all = instances.chain(workers);
    let lost = all.find(|(_, env)| *env != 0 && !held.contains_key(env));
    if let Some((name, _)) = lost {
        return Err(Rule::Environment.broken(format!("that of {name} is not held")));
    }
    let used = next.instances.iter().filter(|(name, placed)| {
        let before = stored.instances.get(name).map(|placed| placed.env);
        before == Some(placed.env)
    });
    for (name, placed) in used {
        if environment(stored, placed.env) != environment(next, placed.env) {
            let how = format!("that of {name} gets another meaning");
            return Err(Rule::Environment.broken(how));
        }
    }
    let mut all = held.values().enumerate();
    match all.all(|(at, one)| held.values().skip(at + 1).all(|other| other != one)) {
        true => Ok(()),
        false => Err(Rule::Environment.broken(format!("one is held twice: {held:?}"))),
    }
}

/// Workers are placed where there are servers that take traffic, of kinds that the file has, and on no more servers than it says.
fn check_workers(next: &Placement) -> Result<(), Violation> {
    for name in next.workers.keys() {
        let Some(worker) = next.config.workers.get(&name.kind) else {
            return Err(Rule::Workers.broken(format!("{name} is not in the file")));
        };
        if !topology::serves(next, name.server) {
            return Err(Rule::Workers.broken(format!("{name} is where nothing serves")));
        }
        let of_kind = next.workers.keys().filter(|other| other.kind == name.kind);
        let servers: BTreeSet<ServerName> = of_kind.map(|other| other.server).collect();
        if worker
            .servers
            .is_some_and(|most| servers.len() > usize::from(most))
        {
            return Err(Rule::Workers.broken(format!("{} is on {servers:?}", name.kind)));
        }
    }
    Ok(())
}

impl World {
    /// A worker that an agent starts for the first time by the newest order: where only so many servers may run one, no more do, those that
    /// were silent until a moment ago aside.
    pub(super) fn check_worker_start(&self, name: &WorkerName) -> Result<(), Violation> {
        let stored = &self.store.placement;
        let most = stored
            .config
            .workers
            .get(&name.kind)
            .and_then(|worker| worker.servers);
        let left_out = self.lately_silent();
        let others = self.machines.iter().filter(|(server, machine)| {
            let runs = |other: WorkerName| other.kind == name.kind;
            **server != name.server
                && !left_out.contains(server)
                && machine.running_workers().any(runs)
        });
        let others: Vec<ServerName> = others.map(|(server, _)| *server).collect();
        match most {
            Some(most) if others.len() >= usize::from(most) => {
                let how = format!("{name} is started while {others:?} run one, of {most} that may");
                Err(Rule::Workers.broken(how))
            }
            _ => Ok(()),
        }
    }

    /// Checks the step from the stored placement to `next`.
    pub(super) fn check_step(&mut self, next: &Placement) -> Result<(), Violation> {
        self.check_removed(next)?;
        self.check_replacement(next)?;
        check_environments(&self.store.placement, next)?;
        check_workers(next)?;
        self.check_capacity(next)?;
        self.check_database(next)?;
        self.check_doors(next)?;
        self.check_release(next)
    }

    /// Called at every step of the simulation.
    pub(super) fn remember_quiet(&mut self) {
        let stored = &self.store.placement;
        let servers = stored
            .servers
            .iter()
            .filter(|(_, placed)| placed.phase == Phase::Drain);
        let servers = servers.map(|(server, _)| TrafficTarget::Server(*server));
        let instances = stored.instances.iter().filter(|(name, placed)| {
            placed.phase == Phase::Drain || !topology::serves(stored, name.server)
        });
        let drained = servers.chain(instances.map(|(name, _)| TrafficTarget::Instance(*name)));
        let left_out = self.lately_silent();
        let quiet: Vec<TrafficTarget> = drained
            .filter(|target| self.still_sending(*target, &left_out).is_none())
            .collect();
        let now = self.now;
        self.checker
            .quiet_since
            .retain(|target, _| quiet.contains(target));
        for target in quiet {
            self.checker.quiet_since.entry(target).or_insert(now);
        }
    }

    /// What a proxy sends and what another accepts follows from the step that each has; those that are not neighbours do not
    /// understand each other. A proxy that is down sends nothing, and comes back with the order on its disk.
    pub(super) fn check_encryption(&self) -> Result<(), Violation> {
        let stored = &self.store.placement;
        let outside = match stored.encryption {
            Encryption::Required => Some(false),
            Encryption::Off => Some(true),
            Encryption::Accepted | Encryption::Used => None,
        };
        let mut instances = stored.instances.iter();
        let outside = instances.find(|(_, placed)| Some(placed.encrypted) == outside);
        if let Some((name, _)) = outside {
            let how = format!("{name} is not at step {:?}", stored.encryption);
            return Err(Rule::Encryption.broken(how));
        }
        let step = |(server, machine): (&ServerName, &super::Machine)| {
            let placement = self.held(machine.proxy.as_ref()?.revision)?;
            Some((
                Encryption::STEPS
                    .iter()
                    .position(|step| *step == placement.encryption)?,
                *server,
            ))
        };
        let steps = self.machines.iter().filter_map(step);
        let (least, most) = (steps.clone().min(), steps.max());
        match least.zip(most) {
            Some((least, most)) if most.0 > least.0 + 1 => {
                let how = format!(
                    "{} is at step {} and {} at step {}",
                    least.1, least.0, most.1, most.0
                );
                Err(Rule::Encryption.broken(how))
            }
            _ => Ok(()),
        }
    }

    /// A proxy that would send new traffic to the target, except those on servers that are left out.
    fn still_sending(
        &self,
        target: TrafficTarget,
        left_out: &BTreeSet<ServerName>,
    ) -> Option<ServerName> {
        let name = target.to_string();
        let would = |(server, machine): (&ServerName, &super::Machine)| {
            let proxy = machine.proxy.as_ref()?;
            let sends = self.targets(proxy.revision, *server).contains(&name);
            (sends && !left_out.contains(server)).then_some(*server)
        };
        self.machines.iter().find_map(would)
    }

    fn in_flight(&self, target: TrafficTarget, left_out: &BTreeSet<ServerName>) -> u64 {
        let name = target.to_string();
        let count = |(server, machine): (&ServerName, &super::Machine)| {
            let proxy = machine
                .proxy
                .as_ref()
                .filter(|_| !left_out.contains(server));
            proxy?.in_flight.get(&name).copied()
        };
        self.machines.iter().filter_map(count).sum()
    }

    /// Nothing is removed while a proxy would send to it, or has requests there and the grace is not over.
    fn check_removed(&mut self, next: &Placement) -> Result<(), Violation> {
        let stored = self.store.placement.clone();
        let gone = stored
            .instances
            .keys()
            .filter(|name| !next.instances.contains_key(name));
        let gone: Vec<TrafficTarget> = gone.map(|name| TrafficTarget::Instance(*name)).collect();
        let servers = stored
            .servers
            .keys()
            .filter(|server| !next.servers.contains_key(server));
        let servers: Vec<ServerName> = servers.copied().collect();
        let targets = servers.iter().map(|server| TrafficTarget::Server(*server));
        for target in gone.into_iter().chain(targets) {
            let left_out = self.silent_servers();
            if let TrafficTarget::Instance(name) = target {
                self.checker.left_out.insert(name, left_out.clone());
            }
            if left_out.contains(&target.server()) {
                continue;
            }
            if let Some(sender) = self.still_sending(target, &left_out) {
                let how = format!("{target} is taken away while {sender} sends to it");
                return Err(
                    Rule::NothingInUseIsStopped.broken(how + &self.what_is_known_of(sender))
                );
            }
            let quiet_for = self
                .checker
                .quiet_since
                .get(&target)
                .map(|since| self.now - *since);
            let graced = quiet_for.is_some_and(|span| span >= stored.config.app.grace);
            let count = self.in_flight(target, &left_out);
            if count > 0 && !graced {
                return Err(Rule::NothingInUseIsStopped.broken(format!(
                    "{target} is taken away with {count} in flight after {quiet_for:?}"
                )));
            }
        }
        for server in servers {
            let vips = &self.machines[&server]
                .published
                .as_ref()
                .map(|seen| seen.vips.clone());
            let holds = vips.as_ref().is_some_and(|vips| !vips.is_empty());
            if holds && !self.silent_servers().contains(&server) {
                return Err(Rule::NothingInUseIsStopped
                    .broken(format!("{server} is removed with {vips:?}")));
            }
        }
        Ok(())
    }

    /// What a proxy does, and what the conductor believes of it.
    fn what_is_known_of(&self, sender: ServerName) -> String {
        let proxy = self.machines[&sender].proxy.as_ref();
        let believed = self.facts.observed.get(&sender);
        let believed = believed.map(|seen| seen.proxy.as_ref().map(|proxy| proxy.revision));
        format!(
            ": its proxy has revision {:?}, the conductor knows of {believed:?}, silent since {:?}",
            proxy.map(|proxy| proxy.revision),
            self.facts.silent_since.get(&sender),
        )
    }

    /// Servers that are silent, or were until a moment ago.
    fn lately_silent(&self) -> BTreeSet<ServerName> {
        let lag = self.lag();
        let silent = self.machines.iter();
        let silent = silent.filter(|(_, machine)| machine.is_left_out(self.now, lag));
        silent.map(|(server, _)| *server).collect()
    }

    /// How old a conductor's knowledge of a server's return may be.
    fn lag(&self) -> Duration {
        if self.site_runs {
            LONGEST_LAG
        } else {
            Duration::ZERO
        }
    }

    /// Servers that need not be waited for: they have been silent for long enough. A conductor knows when that began; that it
    /// has not ended is known to the store.
    fn silent_servers(&self) -> BTreeSet<ServerName> {
        let is_silent = |(server, machine): &(&ServerName, &super::Machine)| {
            machine.published.is_none() && self.facts.is_dead(**server)
        };
        let silent = self.machines.iter().filter(is_silent);
        silent.map(|(server, _)| *server).collect()
    }

    /// A process is stopped: did every proxy that could send to it know?
    pub(super) fn check_stop(&self, name: InstanceName) -> Result<(), Violation> {
        let is_ready = self.machines[&name.server].is_ready(name);
        let sender = self.still_sending(TrafficTarget::Instance(name), &self.lately_silent());
        let left_out = self.checker.left_out.get(&name);
        let excused = |sender: &ServerName| {
            left_out
                .is_some_and(|servers| servers.contains(sender) || servers.contains(&name.server))
        };
        match sender.filter(|sender| is_ready && !excused(sender)) {
            Some(sender) => Err(Rule::NothingInUseIsStopped
                .broken(format!("{name} is stopped while {sender} sends to it"))),
            None => Ok(()),
        }
    }

    /// Two runs of a `release` command never overlap, whatever the conductor believes.
    pub(super) fn check_release_runs(&self) -> Result<(), Violation> {
        let runs = |(server, machine): (&ServerName, &super::Machine)| {
            let running = machine.running_releases(self.now);
            (running > 0).then_some((*server, running))
        };
        let running: Vec<(ServerName, usize)> = self.machines.iter().filter_map(runs).collect();
        match running.iter().map(|(_, count)| count).sum::<usize>() {
            0 | 1 => Ok(()),
            _ => Err(Rule::Release.broken(format!("release commands run at once: {running:?}"))),
        }
    }

    /// Whether an instance differs from what all should be: the desired release, or the last good one if that was given
    /// up.
    fn is_old(&self, next: &Placement, name: InstanceName, placed: &PlacedInstance) -> bool {
        let restart = self.desired.restarts.get(&name.server);
        let config = &self.desired.config;
        let encrypted = match next.encryption {
            Encryption::Used => config.encrypts(),
            step => step == Encryption::Required,
        };
        let wanted = (
            self.desired.release.number,
            config.database.is_some(),
            encrypted,
        );
        let prepared = next.released >= Some(self.desired.release.number);
        let good = next
            .good
            .as_ref()
            .filter(|_| next.failed.is_some() || !prepared);
        let of = |good: &Template| (good.release, good.database, good.encrypted);
        let wanted_env = self.desired.environment();
        let wanted_env = good.map_or(&wanted_env, |good| environment(next, good.env));
        (placed.release, placed.database, placed.encrypted) != good.map_or(wanted, of)
            || environment(next, placed.env) != wanted_env
            || placed.restart < restart.copied().unwrap_or_default()
    }

    /// Servers whose instances are replaced with care: they stay, take traffic and are not dead.
    fn careful(&self, next: &Placement) -> Vec<ServerName> {
        let stored = &self.store.placement;
        let wanted: Vec<ServerName> = self.desired.config.server_names().collect();
        topology::servers_of(stored, Tier::App)
            .filter(|server| wanted.contains(server) && topology::serves(stored, *server))
            .filter(|server| topology::serves(next, *server) && !self.facts.is_dead(*server))
            .collect()
    }

    /// One instance at a time while old ones are replaced, and none while a server leaves.
    fn check_replacement(&self, next: &Placement) -> Result<(), Violation> {
        let stored = &self.store.placement;
        let careful = self.careful(next);
        let mine = |name: &InstanceName| careful.contains(&name.server);
        // While a release is being prepared nothing is replaced: new instances only add to the old ones.
        let prepared = next.released >= Some(self.desired.release.number);
        let replaces = next.failed.is_some() || prepared;
        let rolling = replaces
            && stored.instances.iter().any(|(name, placed)| {
                mine(name) && placed.phase == Phase::Serve && self.is_old(next, *name, placed)
            });
        let started = next
            .instances
            .keys()
            .filter(|name| mine(name) && !stored.instances.contains_key(name));
        let drained = drained_now(stored, next).filter(|name| mine(name));
        let moved: Vec<InstanceName> = started.copied().chain(drained).collect();
        if rolling && moved.len() > 1 {
            return Err(Rule::OneAtATime.broken(format!("{moved:?} are moved at a time")));
        }
        let wanted: Vec<ServerName> = self.desired.config.server_names().collect();
        let leaving = stored
            .servers
            .keys()
            .find(|server| !wanted.contains(server) && !topology::serves(stored, **server));
        match leaving {
            Some(server)
                if rolling
                    && !moved.is_empty()
                    && next.failed.is_none()
                    && next.servers.contains_key(server) =>
            {
                Err(Rule::OneAtATime.broken(format!("{moved:?} are moved while {server} leaves")))
            }
            _ => Ok(()),
        }
    }

    /// A ready instance is drained only while as many others of its server are ready as are wanted, a server only while
    /// its tier keeps as many as are wanted.
    fn check_capacity(&self, next: &Placement) -> Result<(), Violation> {
        let stored = &self.store.placement;
        let careful = self.careful(next);
        let is_ready = |name: &InstanceName| {
            let seen = self
                .facts
                .observed
                .get(&name.server)
                .and_then(|seen| seen.instances.get(name));
            seen.is_some_and(|seen| seen.state == InstanceState::Ready)
        };
        let failed = next.failed.as_ref().and_then(|failure| failure.instance);
        for name in drained_now(stored, next).filter(|name| careful.contains(&name.server)) {
            let others = next.instances.iter().filter(|(other, placed)| {
                other.server == name.server && placed.phase == Phase::Serve && is_ready(other)
            });
            let (others, wanted) = (
                others.count(),
                usize::from(self.desired.config.app.instances),
            );
            let up_everywhere = !self.facts.unready_since.contains_key(&name);
            if is_ready(&name) && up_everywhere && others < wanted && failed != Some(name) {
                return Err(Rule::Capacity.broken(format!(
                    "{name} is drained with {others} of {wanted} ready beside it"
                )));
            }
        }
        for (server, placed) in &next.servers {
            let now_drained = placed.phase == Phase::Drain && topology::serves(stored, *server);
            let leased = |server: &ServerName| self.facts.observed.contains_key(server);
            if !now_drained || !leased(server) {
                continue;
            }
            let left = topology::servers_of(next, server.tier)
                .filter(|other| topology::serves(next, *other) && leased(other))
                .count();
            let stays = self.desired.drained.contains(server);
            let given_up = self.desired.config.servers(server.tier) == 0;
            if left == 0 && !given_up {
                return Err(Rule::Capacity.broken(format!(
                    "{server} is drained, the last of its tier (by hand: {stays})"
                )));
            }
        }
        Ok(())
    }

    fn check_database(&self, next: &Placement) -> Result<(), Violation> {
        let is_primary = |server: &ServerName| {
            let database = self
                .machines
                .get(server)
                .and_then(|machine| machine.database.as_ref());
            database.is_some_and(|database| database.role == DatabaseRole::Primary)
        };
        let stored = &self.store.placement;
        let begun = topology::servers_of(next, Tier::Database)
            .filter(|server| !topology::serves(next, *server) && topology::serves(stored, *server));
        let begun: Vec<ServerName> = begun.collect();
        let moving = topology::servers_of(next, Tier::Database)
            .filter(|server| !topology::serves(next, *server))
            .filter(|server| begun.contains(server) || is_primary(server));
        let moving: Vec<ServerName> = moving.collect();
        if begun.len() > 1
            || (!begun.is_empty() && moving.len() > 1 && self.desired.config.database.is_some())
        {
            return Err(Rule::Database.broken(format!("{moving:?} are drained at a time")));
        }
        let mut gone = topology::servers_of(stored, Tier::Database)
            .filter(|server| !next.servers.contains_key(server));
        match gone.find(|server| is_primary(server)) {
            Some(server) if self.desired.config.database.is_some() => {
                let heir = self.facts.observed.iter().any(|(other, seen)| {
                    let database = seen.database.as_ref();
                    *other != server
                        && database.is_some_and(|database| database.role == DatabaseRole::Primary)
                });
                if heir {
                    Ok(())
                } else {
                    Err(Rule::Database.broken(format!("{server} is removed, the primary")))
                }
            }
            _ => Ok(()),
        }
    }

    /// Once clients have connected, there is always an open door, and a working tier behind each.
    fn check_doors(&mut self, next: &Placement) -> Result<(), Violation> {
        let open: Vec<_> = next
            .doors
            .iter()
            .filter(|(_, door)| door.state == DoorState::Open)
            .collect();
        if self.checker.was_open && open.is_empty() {
            return Err(Rule::Doors.broken("no door is open"));
        }
        self.checker.was_open |= !open.is_empty();
        for (at, door) in open {
            let lost = match door.tier {
                Tier::Balancer => {
                    let is_vip = next.vips.keys().any(|vip| at.ip() == *vip);
                    !is_vip && topology::balancer_at(next, at.ip()).is_none()
                }
                _ => !next
                    .servers
                    .values()
                    .any(|placed| at.ip() == placed.location.address),
            };
            if lost {
                return Err(Rule::Doors.broken(format!("{at} is open and leads nowhere")));
            }
        }
        Ok(())
    }

    fn check_release(&self, next: &Placement) -> Result<(), Violation> {
        if next.config.app.release.is_none() {
            return Ok(());
        }
        let early = next.instances.iter().find(|(name, placed)| {
            !self.store.placement.instances.contains_key(name)
                && placed.release > self.checker.prepared
        });
        match early {
            Some((name, placed)) => Err(Rule::Release.broken(format!(
                "{name} is started before release {} is prepared",
                placed.release
            ))),
            None => Ok(()),
        }
    }
}

/// Instances that this step drains on their own, not with their server.
fn drained_now<'a>(
    stored: &'a Placement,
    next: &'a Placement,
) -> impl Iterator<Item = InstanceName> + 'a {
    let served = |name: &InstanceName| {
        let placed = stored.instances.get(name);
        placed.is_some_and(|placed| placed.phase == Phase::Serve)
    };
    let drained = next
        .instances
        .iter()
        .filter(move |(name, placed)| placed.phase == Phase::Drain && served(name));
    drained.map(|(name, _)| *name)
}
