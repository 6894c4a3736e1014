//! Interaction between simulated servers: who holds a VIP, who is primary, and which targets proxies send to.

use super::World;
use super::machine::{Machine, Postgres};
use gaiola_core::topology::{self, TrafficTarget};
use gaiola_model::placement::{DatabaseRole, Encryption, ObservedProxy};
use gaiola_model::{Placement, Revision, ServerName, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

impl World {
    /// Each VIP is held by the balancer of the highest priority that knows it and has a proxy.
    pub(super) fn move_vips(&mut self) {
        let mut best: BTreeMap<IpAddr, (u8, ServerName)> = BTreeMap::new();
        for (server, machine) in self
            .machines
            .iter()
            .filter(|(_, machine)| machine.is_on(self.now))
        {
            let Some(known) = self.held(machine.known).filter(|_| machine.proxy.is_some()) else {
                continue;
            };
            for router in topology::vip_priorities(known, *server) {
                let offer = (router.priority, *server);
                let held = best.entry(router.vip).or_insert(offer);
                *held = (*held).max(offer);
            }
        }
        for (server, machine) in &mut self.machines {
            let won = best.iter().filter(|(_, (_, owner))| owner == server);
            machine.vips = won.map(|(vip, _)| *vip).collect();
        }
    }

    /// The rules for PostgreSQL's clients, each server's in its own second.
    fn install_rules(&mut self) {
        let second = self.now.since_start().as_secs();
        let history = &self.store.history;
        for (server, machine) in &mut self.machines {
            let is_due = (second + u64::from(server.number)).is_multiple_of(3);
            if let Some(database) = machine.database.as_mut().filter(|_| is_due)
                && let Some(known) = history.get(&machine.known)
            {
                database.requires_tls = Some(known.encryption == Encryption::Required);
            }
        }
    }

    /// Patroni's part: one primary, moved when its server is lost or drained; one synchronous standby.
    pub(super) fn move_database(&mut self) {
        let now = self.now;
        for (server, machine) in &mut self.machines {
            if server.tier == Tier::Database && machine.is_on(now) && machine.database.is_none() {
                machine.database = Some(Postgres {
                    role: DatabaseRole::Standby,
                    cloned_at: now + Duration::from_secs(3),
                    requires_tls: None,
                });
            }
        }
        self.install_rules();
        let drained: BTreeSet<ServerName> = self
            .machines
            .iter()
            .filter(|(server, machine)| {
                let known = self.held(machine.known);
                known.is_some_and(|known| !topology::serves(known, **server))
            })
            .map(|(server, _)| *server)
            .collect();
        let able = |(server, machine): (&ServerName, &Machine)| {
            let cloned = machine
                .database
                .as_ref()
                .is_some_and(|database| now >= database.cloned_at);
            (cloned && machine.is_on(now)).then_some(*server)
        };
        let able: Vec<ServerName> = self.machines.iter().filter_map(able).collect();
        let was = |role| {
            let machines = self.machines.iter();
            let mut having = machines.filter(|(_, machine)| {
                machine
                    .database
                    .as_ref()
                    .is_some_and(|database| database.role == role)
            });
            having.next().map(|(server, _)| *server)
        };
        let old = was(DatabaseRole::Primary);
        let heir = was(DatabaseRole::SyncStandby).filter(|heir| able.contains(heir));
        let holds_on =
            old.filter(|old| able.contains(old) && (heir.is_none() || !drained.contains(old)));
        let moves = self.rng.u8(..12) == 0;
        let primary = match (holds_on, old) {
            (Some(primary), _) => Some(primary),
            (None, Some(_)) if moves => heir,
            (None, Some(old)) => Some(old),
            (None, None) => able.first().copied(),
        };
        // While its server is off there is no primary until the successor takes over; the old one returns in its former
        // role.
        let Some(primary) = primary.or(old) else {
            return;
        };
        let stays = |server: &&ServerName| **server != primary && !drained.contains(*server);
        let sync = able
            .iter()
            .find(stays)
            .or_else(|| able.iter().find(|server| **server != primary))
            .copied();
        for (server, machine) in &mut self.machines {
            if let Some(database) = &mut machine.database {
                database.role = match *server {
                    server if server == primary => DatabaseRole::Primary,
                    server if Some(server) == sync && able.contains(&primary) => {
                        DatabaseRole::SyncStandby
                    }
                    server if Some(server) == heir && !able.contains(&primary) => {
                        DatabaseRole::SyncStandby
                    }
                    _ => DatabaseRole::Standby,
                };
            }
        }
    }

    pub(super) fn move_proxy(&mut self, server: ServerName) {
        let now = self.now;
        let machine = &self.machines[&server];
        if !machine.is_on(now) || now < machine.proxy_down_until {
            return;
        }
        let known = machine.known;
        let may_configure =
            machine.has_agent(now) && now >= machine.proxy_stalled_until && known > Revision(0);
        let held = machine
            .proxy
            .as_ref()
            .map_or(Revision(0), |proxy| proxy.revision);
        let revision = if may_configure && self.rng.u8(..10) < 7 {
            known.max(held)
        } else {
            held
        };
        let Some(config) = self.held(revision).cloned() else {
            return;
        };
        if !matches!(server.tier, Tier::Balancer | Tier::Web | Tier::App) {
            return;
        }
        let targets = self.targets(revision, server);
        let before = machine.proxy.clone().unwrap_or_default();
        let mut proxy = ObservedProxy {
            revision,
            ..ObservedProxy::default()
        };
        for target in all_targets(&config)
            .filter(|target| topology::senders(&config, *target).contains(&server))
        {
            let name = target.to_string();
            let (was_up, is_up) = (before.up.contains(&name), self.answers(target));
            let up = if self.rng.u8(..10) < 7 { is_up } else { was_up };
            let count = before.in_flight.get(&name).copied().unwrap_or(0);
            let count = if !up {
                0
            } else if targets.contains(&name) {
                self.rng.u64(..4)
            } else {
                count.saturating_sub(u64::from(self.rng.u8(..12) == 0))
            };
            if up {
                proxy.up.insert(name.clone());
            }
            if count > 0 {
                proxy.in_flight.insert(name, count);
            }
        }
        self.machines.get_mut(&server).expect("it is there").proxy = Some(proxy);
    }

    fn answers(&self, target: TrafficTarget) -> bool {
        let Some(machine) = self.machines.get(&target.server()) else {
            return false;
        };
        machine.is_on(self.now)
            && match target {
                TrafficTarget::Instance(name) => machine.is_ready(name),
                TrafficTarget::Server(server) if server.tier == Tier::Web => {
                    machine.proxy.is_some()
                }
                TrafficTarget::Server(_) => true,
            }
    }
}

fn all_targets(placement: &Placement) -> impl Iterator<Item = TrafficTarget> {
    let instances = placement
        .instances
        .keys()
        .map(|name| TrafficTarget::Instance(*name));
    placement
        .servers
        .keys()
        .map(|server| TrafficTarget::Server(*server))
        .chain(instances)
}
