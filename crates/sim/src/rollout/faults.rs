//! Faults, and the operator's changes meanwhile.

use super::hosts::NEVER;
use super::{NETWORK, World, config};
use gaiola_core::rollout::Facts;
use gaiola_model::config::Worker;
use gaiola_model::placement::ReleaseNumber;
use gaiola_model::secret::{HeldSecret, Sealed, SecretName};
use gaiola_model::{Inventory, Revision, ServerName, Tier, Time};
use std::time::Duration;

impl World {
    /// May cause a fault or a change in this tick.
    pub(super) fn stir(&mut self) {
        if self.rng.u8(..self.fault_every) == 0 {
            self.break_something();
        }
        if self.site.is_some() && self.rng.u8(..self.fault_every) == 0 {
            self.break_store();
        }
        if self.rng.u8(..self.change_every) == 0 {
            self.change_desired();
        }
    }

    fn break_something(&mut self) {
        let servers: Vec<ServerName> = self.machines.keys().copied().collect();
        let Some(server) = self.rng.choice(servers) else {
            return;
        };
        let short = self.within(1, 8);
        let long = self.within(5, 40);
        let (what, leaves_something) = (self.rng.u8(..16), self.rng.bool());
        let (at, mut boots) = (self.seen_by(server), self.boots);
        let machine = self.machines.get_mut(&server).expect("it was just listed");
        let said = match what {
            0 | 1 if self.hosts > 0 => {
                let replaces = self.hosts % 2 == 1;
                let until = if replaces { self.within(20, 60) } else { long };
                self.lose_machine(server, until);
                return;
            }
            0 | 1 => {
                boots.0 += 1;
                self.ended_boots.push((server, machine.boot));
                machine.lose_power(long, boots);
                "loses power"
            }
            2 | 3 => {
                machine.agent_down_until = long;
                machine.frozen_with = None;
                if leaves_something {
                    // Nobody sees it end.
                    machine.processes.crash_first(true);
                }
                "loses its agent"
            }
            4 => {
                machine.proxy = None;
                machine.proxy_down_until = short;
                "loses its proxy"
            }
            5 | 6 => {
                machine.proxy_stalled_until = long;
                "has a proxy that takes no configuration"
            }
            7 | 8 => {
                machine.processes.crash_first(leaves_something);
                "loses its first instance"
            }
            9 => {
                self.store_dark_until = short;
                "and all others cannot reach the store"
            }
            10 | 11 => {
                machine.cut_off_until = long;
                "is cut off from the store"
            }
            12 | 13 => {
                machine.frozen_with.get_or_insert((long, at));
                "has a frozen agent"
            }
            _ => {
                let over = std::mem::take(&mut self.facts.over);
                self.facts = Facts::default();
                self.facts.over = over;
                "is the new conductor"
            }
        };
        self.boots = boots;
        self.note(format!("! {server} {said}"));
    }

    /// A machine loses power, and every server on it.
    fn lose_machine(&mut self, server: ServerName, until: Time) {
        let lost = self.on_one_machine(server);
        for server in &lost {
            self.boots.0 += 1;
            if let Some(machine) = self.machines.get_mut(server) {
                self.ended_boots.push((*server, machine.boot));
                machine.lose_power(until.max(machine.off_until), self.boots);
            }
        }
        self.note(format!("! the machine of {lost:?} loses power"));
    }

    /// The newest placement that an agent may have read.
    fn seen_by(&self, server: ServerName) -> Revision {
        let Some(site) = &self.site else {
            return self.store.at;
        };
        let session = site.sessions.get(&server);
        let seen = session.and_then(|session| session.view.placement.as_ref());
        let known = self.machines[&server].known;
        seen.map_or(known, |(at, _)| known.max(*at))
    }

    /// A fault of the store, of a watch, or of whoever conducts.
    fn break_store(&mut self) {
        let (short, long) = (self.within(1, 8), self.within(5, 15));
        let what = self.rng.u8(..9);
        let servers: Vec<ServerName> = self.machines.keys().copied().collect();
        let any = self.rng.choice(servers);
        if what == 8 {
            return self.lose_disk(any, long);
        }
        let (Some(site), Some(any)) = (&mut self.site, any) else {
            return;
        };
        let conductor = site.conductors().next().unwrap_or(any);
        let said = match what {
            0 => {
                site.slow_until = long;
                "the store is slow".to_string()
            }
            1 => {
                site.hung_until = short;
                "the store hangs".to_string()
            }
            2 => {
                site.stalled_until.insert(conductor, long);
                format!("the watch of {conductor}, the conductor, stalls")
            }
            3 => {
                site.stalled_until.insert(any, long);
                format!("the watch of {any} stalls")
            }
            4 | 5 => {
                let restarts = self.now + Duration::from_millis(500);
                if let Some(machine) = self.machines.get_mut(&any) {
                    machine.agent_down_until = machine.agent_down_until.max(restarts);
                }
                format!("the agent of {any} restarts")
            }
            6 => {
                if let Some(machine) = self.machines.get_mut(&conductor) {
                    machine.cut_off_until = long;
                }
                format!("{conductor}, the conductor, is cut off from the store")
            }
            _ => {
                let at = self.seen_by(conductor);
                if let Some(machine) = self.machines.get_mut(&conductor) {
                    machine.frozen_with.get_or_insert((long, at));
                }
                format!("{conductor}, the conductor, is frozen")
            }
        };
        self.note(format!("! {said}"));
    }

    /// A server that carries a voter of the store loses its power, and its disk: the voter's log, and the server's order.
    fn lose_disk(&mut self, server: Option<ServerName>, until: Time) {
        let site = self.site.as_mut().zip(server);
        let Some((site, server)) = site.filter(|(site, server)| site.members.may_lose(*server))
        else {
            return;
        };
        site.members.lose_log(server);
        self.boots.0 += 1;
        let machine = self.machines.get_mut(&server).expect("it was just listed");
        self.ended_boots.push((server, machine.boot));
        machine.lose_power(until, self.boots);
        machine.lose_disk();
        self.note(format!("! {server} loses its disk"));
    }

    fn within(&mut self, least: u64, most: u64) -> Time {
        self.now + Duration::from_secs(self.rng.u64(least..most))
    }

    /// No variable, one, or one that refers to a secret, which has another value each time.
    fn change_environment(&mut self, colour: &str) {
        let secret: SecretName = "COLOUR".parse().expect("it is a name");
        let value = match colour {
            "0" => return self.desired.config.env.clear(),
            "1" => colour.to_string(),
            _ => format!("{{secret.{secret}}}"),
        };
        self.desired.config.env.insert(secret.to_string(), value);
        let sealed = Sealed(format!("of generation {}", self.desired.generation));
        let held = HeldSecret {
            sealed,
            set: String::new(),
            by: "the operator".into(),
        };
        self.desired.secrets.insert(secret, held);
    }

    /// A worker for every server, and one that runs on some of them, come, change and go.
    fn change_workers(&mut self) {
        let kind = self.rng.choice(["mail", "beat"]).expect("there are some");
        let run = self
            .rng
            .choice(["work", "work harder"])
            .expect("there are some");
        let worker = Worker {
            servers: (kind == "beat").then(|| self.rng.u16(1..3)),
            instances: self.rng.u16(1..3),
            ..Worker::new(run)
        };
        let (kind, goes) = (kind.parse().expect("it is a name"), self.rng.u8(..4) == 0);
        let workers = &mut self.desired.config.workers;
        match goes {
            true => _ = workers.remove(&kind),
            false => _ = workers.insert(kind, worker),
        }
    }

    fn change_desired(&mut self) {
        let database_too = Tier::ALL.into_iter().chain([Tier::Database; 2]);
        let tier = self
            .rng
            .choice(database_too.collect::<Vec<_>>())
            .expect("there are tiers");
        match self.rng.u8(..8) {
            0 | 1 if self.hosts > 0 => self.change_machines(tier),
            0 | 1 => {
                let count = self.rng.u16(1..5);
                self.desired.config.set_servers(tier, count);
            }
            2 | 3 => self.new_release(),
            4 if self.rng.bool() => self.desired.config.app.instances = self.rng.u16(1..4),
            4 if self.rng.bool() => {
                let colour = self.rng.u8(..3).to_string();
                self.change_environment(&colour);
            }
            4 => self.change_workers(),
            5 => {
                let names = self
                    .desired
                    .config
                    .server_names()
                    .filter(|name| name.tier == tier);
                let name = self.rng.choice(names.collect::<Vec<_>>());
                self.desired.drained.extend(name);
            }
            6 => self.desired.drained.clear(),
            7 if self.rng.bool() => {
                self.desired.attempt += 1;
                let servers = self.desired.config.server_names();
                for server in servers.filter(|server| server.tier == Tier::App) {
                    *self.desired.restarts.entry(server).or_default() += 1;
                }
            }
            _ if self.hosts > 0 => self.change_machines(tier),
            _ => self.change_tiers(),
        }
        let wanted: Vec<ServerName> = self.desired.config.server_names().collect();
        self.desired
            .drained
            .retain(|server| wanted.contains(server));
        if self.hosts > 0 {
            self.locate();
        } else {
            self.desired.inventory = Inventory::numbered(&self.desired.config, NETWORK);
        }
        self.desired.generation += 1;
        let desired = self.describe_desired();
        self.note(desired);
    }

    fn new_release(&mut self) {
        self.desired.release.number = ReleaseNumber(self.desired.release.number.0 + 1);
        let number = self.desired.release.number;
        match self.rng.u8(..6) {
            0 => drop(self.sick.insert(number)),
            1 => drop(self.unpreparable.insert(number)),
            _ => {}
        }
    }

    fn change_tiers(&mut self) {
        let other = config(&mut self.rng);
        match self.rng.u8(..4) {
            0 => self.desired.config.balancer = other.balancer,
            1 => self.desired.config.web = other.web,
            2 => self.desired.config.database = other.database,
            _ => {
                let ports = if self.rng.bool() {
                    vec![80]
                } else {
                    vec![8080, 81]
                };
                self.desired
                    .config
                    .balancer
                    .iter_mut()
                    .for_each(|balancer| balancer.listen = ports.clone());
            }
        }
    }

    /// The last fault is over, and the desired state can be reached.
    pub(super) fn heal(&mut self) {
        self.store_dark_until = self.now;
        if let Some(site) = &mut self.site {
            (site.slow_until, site.hung_until) = (self.now, self.now);
            site.stalled_until.clear();
        }
        for machine in self.machines.values_mut() {
            if machine.off_until != NEVER {
                machine.off_until = machine.off_until.min(self.now);
            }
            machine.agent_down_until = self.now;
            machine.cut_off_until = self.now;
            machine
                .frozen_with
                .iter_mut()
                .for_each(|(until, _)| *until = self.now);
            machine.proxy_down_until = self.now;
            machine.proxy_stalled_until = self.now;
        }
        self.desired.release.number = ReleaseNumber(self.desired.release.number.0 + 1);
        self.desired.generation += 1;
        self.desired.drained.clear();
        let desired = self.describe_desired();
        self.note(format!("healed; {desired}"));
    }

    fn describe_desired(&self) -> String {
        let count = |tier| self.desired.config.servers(tier);
        let counts = Tier::ALL
            .map(|tier| format!("{tier}={}", count(tier)))
            .join(" ");
        let drained: Vec<String> = self
            .desired
            .drained
            .iter()
            .map(ToString::to_string)
            .collect();
        format!(
            "> generation {}: release {} {counts} x{} drained {drained:?}",
            self.desired.generation, self.desired.release.number, self.desired.config.app.instances
        )
    }
}
