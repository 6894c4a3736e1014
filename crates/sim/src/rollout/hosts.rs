//! Sites on machines: which machine each server stands on, and how the operator changes that.

use super::{World, config};
use gaiola_core::merge::{self, Scale};
use gaiola_model::config::{Config, Machine, Machines};
use gaiola_model::{Inventory, ServerName, Tier};
use std::net::IpAddr;

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
        desired.config = merge::merge(&desired.applied, &desired.config, &file, Some(&placed));
        desired.applied = file;
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
