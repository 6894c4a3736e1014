//! Sites on machines: which machine each server stands on, and how the operator changes that.

use super::{World, config};
use crate::violation::{Rule, Violation};
use gaiola_core::merge::{self, Scale};
use gaiola_core::rollout::{self, AutoReplace};
use gaiola_model::config::{Config, Machine, Machines};
use gaiola_model::inventory::Host;
use gaiola_model::{Inventory, Placement, ServerName, Tier, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long a machine is gone until a spare one takes its place.
const REPLACE_AFTER: Duration = Duration::from_secs(15);

/// After every story.
pub(super) const NEVER: Time = Time::from_start(Duration::from_secs(1 << 20));

/// As a file names them: every tier on as many machines as it has servers, if there are that many; the others are spare.
pub(super) fn stand(config: &mut Config, hosts: u8, rng: &mut fastrand::Rng) {
    let mut all: Vec<Machine> = (1..=hosts).map(machine).collect();
    let mut machines = Machines::default();
    config.machines = None;
    for tier in Tier::ALL {
        rng.shuffle(&mut all);
        let names = (1..=config.servers(tier)).map(|number| ServerName::new(tier, number));
        machines.servers.extend(names.zip(all.iter().cloned()));
    }
    all.retain(|machine| !machines.has_server(&machine.ssh));
    machines.spare = all;
    // Chance that is not used up: other stories stay as they are.
    machines.encrypt = rng.clone().bool() && (config.balancer.is_some() || config.web.is_some());
    // Every other site is left to its operator.
    machines.replace_after = (hosts % 2 == 1).then_some(REPLACE_AFTER);
    config.set_machines(machines);
    if let Some(balancer) = &mut config.balancer {
        let vips = 0..rng.u8(0..3);
        balancer.vips = Some(vips.map(|n| [10, 78, 0, 100 + n].into()).collect());
    }
}

fn machine(number: u8) -> Machine {
    Machine {
        address: Some(IpAddr::from([10, 78, 1, number])),
        ..Machine::new(format!("m{number}"))
    }
}

/// The machines that were replaced and have no server any more: the operator's next command empties them.
fn emptied(config: &Config, placed: &Placement) -> Vec<String> {
    let lost = config.machines.iter().flat_map(|machines| &machines.lost);
    let has_server = |machine: &&Machine| {
        let mut servers = placed.servers.values();
        servers.any(|server| server.location.host == machine.host())
    };
    let emptied = lost.filter(|machine| !has_server(machine));
    emptied.map(|machine| machine.ssh.clone()).collect()
}

impl World {
    /// The servers that fail together with this one, itself among them.
    pub(super) fn on_one_machine(&self, server: ServerName) -> Vec<ServerName> {
        let placed = &self.store.placement.servers;
        let host = |server: &ServerName| placed.get(server).map(|placed| &placed.location.host);
        let shares = |other: &ServerName| {
            let is_same = self.hosts > 0 && host(other).is_some() && host(other) == host(&server);
            *other == server || is_same
        };
        self.machines.keys().copied().filter(shares).collect()
    }

    /// A tier is scaled, or the file names other machines, and perhaps other tiers.
    pub(super) fn change_machines(&mut self, tier: Tier) {
        let placed = self.store.placement.clone();
        let desired = &mut self.desired;
        if self.rng.bool() {
            let machines = desired.config.machines.as_ref();
            let spare = machines.and_then(|machines| self.rng.choice(&machines.spare));
            let to = match spare.filter(|_| self.rng.bool()) {
                Some(machine) => format!("{tier}=+{}", machine.ssh),
                None => format!("{tier}={}", self.rng.u16(1..5)),
            };
            let to: Scale = to.parse().expect("a scale");
            let scaled = merge::scale(&desired.config, &to, Some(&placed));
            desired.config = scaled.unwrap_or_else(|_| desired.config.clone());
            return;
        }
        let mut file = desired.applied.clone();
        let other = config(&mut self.rng);
        match self.rng.u8(..6) {
            0 => file.balancer = other.balancer,
            1 => file.web = other.web,
            2 => file.database = other.database,
            _ => {}
        }
        file.machines = None;
        file.set_servers(tier, self.rng.u16(1..5));
        stand(&mut file, self.hosts, &mut self.rng);
        let mine = merge::readmit(&desired.config, &emptied(&desired.config, &placed));
        let merged = merge::merge(&desired.applied, &mine, &file, Some(&placed));
        // A machine that was replaced gets no server before it is empty.
        if merge::on_lost_machine(&merged).is_none() {
            desired.config = merged;
            desired.applied = file;
        }
    }

    /// A spare machine takes the place of one that is gone, where that is due.
    pub(super) fn replace_gone(&mut self) -> Result<(), Violation> {
        let placed = Rc::clone(&self.store.placement);
        let answering = self.answering();
        let (desired, at, facts) = (&self.desired, self.store.at, &self.facts);
        let found = rollout::auto_replace(desired, &placed, at, facts, &answering);
        let AutoReplace::Due { gone, onto, .. } = found else {
            return Ok(());
        };
        self.check_replaced(&gone)?;
        self.shut_out(&gone);
        let replaced = merge::replace(&self.desired.config, &gone.0, Some(&onto.0));
        let replaced = replaced.expect("a machine that is gone, and a spare one");
        self.desired.config = replaced.config;
        self.locate();
        self.desired.generation += 1;
        self.replaced += 1;
        self.note(format!("> {onto} takes the place of {gone}"));
        Ok(())
    }

    /// A machine that was replaced starts nothing any more.
    fn shut_out(&mut self, gone: &Host) {
        for (name, placed) in &self.store.placement.servers {
            if placed.location.host == *gone
                && let Some(machine) = self.machines.get_mut(name)
            {
                machine.off_until = NEVER;
            }
        }
    }

    /// The machines that have power, and the spare ones.
    fn answering(&self) -> BTreeSet<Host> {
        let machines = self.desired.config.machines.iter();
        let spare = machines.flat_map(|machines| &machines.spare);
        let placed = self.store.placement.servers.iter();
        let on = placed.filter(|(name, _)| {
            let machine = self.machines.get(name);
            machine.is_some_and(|machine| machine.is_on(self.now))
        });
        let on = on.map(|(_, placed)| placed.location.host.clone());
        spare.map(Machine::host).chain(on).collect()
    }

    /// A machine is replaced once nothing of it has reported for long enough, while every other has power and nothing else is moved.
    fn check_replaced(&self, gone: &Host) -> Result<(), Violation> {
        let broken = |how: String| Err(Rule::Replacement.broken(how));
        let placed = &self.store.placement.servers;
        if self.desired.generation != self.store.placement.generation {
            return broken(format!("{gone} is replaced while a change is under way"));
        }
        for (name, at) in placed {
            let Some(machine) = self.machines.get(name) else {
                continue;
            };
            let silent = machine.silent_for(self.now);
            if at.location.host == *gone && silent < REPLACE_AFTER {
                return broken(format!(
                    "{gone} is replaced, and {name} is silent for {silent:?}"
                ));
            }
            let wanted = self.desired.inventory.servers.get(name);
            if wanted.is_none_or(|wanted| wanted.host != at.location.host) {
                return broken(format!("{gone} is replaced while {name} moves"));
            }
        }
        let hosts: BTreeSet<&Host> = placed.values().map(|at| &at.location.host).collect();
        for other in hosts.into_iter().filter(|host| *host != gone) {
            let on_it = placed.iter().filter(|(_, at)| at.location.host == *other);
            let mut machines = on_it.filter_map(|(name, _)| self.machines.get(name));
            let is_gone = machines.all(|it| !it.is_on(self.now) && !it.has_lease(self.now));
            if is_gone {
                return broken(format!("{gone} is replaced while {other} is gone too"));
            }
        }
        Ok(())
    }

    /// Where the servers that are desired stand; those that leave still have their ports.
    pub(super) fn locate(&mut self) {
        let mut held = self.desired.inventory.clone();
        let placed = self.store.placement.servers.iter();
        held.servers
            .extend(placed.map(|(name, placed)| (*name, placed.location.clone())));
        let inventory = Inventory::on_machines(&self.desired.config, Some(&held));
        self.desired.inventory = inventory.expect("every machine has an address");
    }
}
