//! The doors for clients: a new door is opened once the tier behind it is ready; an old one is closed once a new one is
//! open, and removed after the grace.

use super::RollOutStep;
use super::drain::doors_of;
use super::view::{Unmet, View};
use crate::topology;
use gaiola_model::placement::{Door, DoorState, InstanceState, Phase};
use gaiola_model::{Placement, Revision, ServerName, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The doors of a new site. They start closed to clients and open one by one as the tier behind them gets ready.
pub(super) fn open_first(placement: &mut Placement) {
    let doors = wanted(placement);
    placement.doors = doors
        .into_iter()
        .map(|(at, tier)| (at, door(tier, DoorState::Opening)))
        .collect();
}

fn door(tier: Tier, state: DoorState) -> Door {
    Door {
        tier,
        state,
        since: Revision(0),
    }
}

/// The doors that the placement requires, and the tier each leads to.
pub(super) fn wanted(placement: &Placement) -> BTreeMap<SocketAddr, Tier> {
    let config = &placement.config;
    if let Some(balancer) = &config.balancer {
        let own = topology::servers_of(placement, Tier::Balancer)
            .filter(|server| topology::serves(placement, *server))
            .filter_map(|server| Some(topology::location(placement, server)?.address));
        let addresses: Vec<IpAddr> = match &balancer.vips {
            Some(vips) if vips.is_empty() => own.collect(),
            _ => balancer.vips().to_vec(),
        };
        let at = |address: IpAddr| {
            let ports = balancer.ports();
            ports.map(move |port| (SocketAddr::from((address, port)), Tier::Balancer))
        };
        return addresses.into_iter().flat_map(at).collect();
    }
    if config.web.is_some() {
        let serving = topology::servers_of(placement, Tier::Web)
            .filter(|server| topology::serves(placement, *server));
        let at = |server| Some((topology::address_of_web(placement, server)?, Tier::Web));
        return serving.filter_map(at).collect();
    }
    let serving = placement.instances.iter().filter(|(name, placed)| {
        // No client speaks the site's TLS.
        placed.phase == Phase::Serve
            && !placed.encrypted
            && topology::serves(placement, name.server)
    });
    serving
        .filter_map(|(name, _)| Some((topology::address_of_instance(placement, *name)?, Tier::App)))
        .collect()
}

impl RollOutStep<'_> {
    /// Advances every door by one state at most.
    pub(super) fn lead_doors(&mut self) {
        let mut wanted = wanted(&self.plan);
        let lost = self.lost_doors();
        wanted.retain(|at, _| !lost.contains(at));
        for (at, tier) in &wanted {
            self.lead_in(*at, *tier);
        }
        let is_open = |at: &SocketAddr| {
            self.plan
                .doors
                .get(at)
                .is_some_and(|door| door.state == DoorState::Open)
        };
        let another_is_open = wanted.keys().any(is_open);
        let unwanted: Vec<SocketAddr> = self
            .plan
            .doors
            .keys()
            .copied()
            .filter(|at| !wanted.contains_key(at))
            .collect();
        for at in unwanted {
            self.lead_out(at, another_is_open);
        }
    }

    /// The doors of dead servers that are to leave: nobody drains them.
    fn lost_doors(&self) -> BTreeSet<SocketAddr> {
        let servers = self.plan.servers.keys().copied();
        let lost = servers.filter(|server| !self.wants(*server) && self.view.is_dead(*server));
        let targets = lost.flat_map(|server| self.view.targets_on(server));
        let doors = targets.flat_map(|target| doors_of(&self.plan, target));
        doors.map(|(at, _)| *at).collect()
    }

    fn lead_in(&mut self, at: SocketAddr, tier: Tier) {
        let state = self.plan.doors.get(&at).map(|door| door.state);
        let stored = self.view.placement.doors.get(&at);
        match (state, stored) {
            (Some(DoorState::Open), _) => {}
            // It has been in use all along, and still is.
            (Some(DoorState::Closing), _) => self.set_door(at, tier, DoorState::Open),
            (Some(DoorState::Opening), Some(stored)) => match self.view.leads_somewhere(at, stored)
            {
                Ok(()) => {
                    self.set_door(at, tier, DoorState::Open);
                    self.report(None, format!("clients are sent to {at}"));
                }
                Err(why) => self.wait(None, format!("to send clients to {at}: {why}")),
            },
            (Some(DoorState::Opening), None) => {}
            (None, _) => self.set_door(at, tier, DoorState::Opening),
        }
    }

    fn lead_out(&mut self, at: SocketAddr, another_is_open: bool) {
        let door = self.plan.doors[&at];
        let grace = self.plan.config.app.grace;
        let is_own = topology::balancer_at(&self.plan, at.ip()).is_some();
        let grace = if is_own && door.tier == Tier::Balancer {
            self.plan.config.drain_of_balancers().max(grace)
        } else {
            grace
        };
        let facts = self.view.facts;
        let closing_for = facts.closing_since.get(&at).map(|since| facts.now - *since);
        match door.state {
            DoorState::Opening => drop(self.plan.doors.remove(&at)),
            DoorState::Open if another_is_open => {
                self.set_door(at, door.tier, DoorState::Closing);
                self.report(None, format!("clients are no longer sent to {at}"));
            }
            DoorState::Open => self.wait(None, format!("to close {at}: no other door is open")),
            DoorState::Closing if closing_for.is_some_and(|span| span >= grace) => {
                self.plan.doors.remove(&at);
            }
            DoorState::Closing => self.wait(None, format!("for clients of {at} to finish")),
        }
    }

    fn set_door(&mut self, at: SocketAddr, tier: Tier, state: DoorState) {
        self.plan.doors.insert(at, door(tier, state));
    }
}

impl View<'_> {
    /// Whether the tier behind a door is ready for clients.
    pub(super) fn leads_somewhere(&self, at: SocketAddr, door: &Door) -> Result<(), Unmet> {
        match door.tier {
            Tier::Balancer => match topology::balancer_at(self.placement, at.ip()) {
                Some(server) => self
                    .complete_proxy_at(server, door.since)
                    .map(|_| ())
                    .map_err(|why| format!("{server} {why}").into()),
                None => self.vip_answers(at.ip(), door.since),
            },
            Tier::Web => {
                let mut servers = topology::servers_of(self.placement, Tier::Web);
                let server = servers
                    .find(|server| topology::address_of_web(self.placement, *server) == Some(at));
                let server = server.ok_or("no web server has this address")?;
                self.complete_proxy_at(server, door.since)
                    .map(|_| ())
                    .map_err(|why| format!("{server} {why}").into())
            }
            Tier::App | Tier::Database => self.instance_answers(at),
        }
    }

    /// One balancer holds the VIP, and all that could take it over listen on the door.
    fn vip_answers(&self, vip: IpAddr, since: Revision) -> Result<(), Unmet> {
        match self.owners(vip).as_slice() {
            [] => return Err("no balancer holds it".into()),
            [_] => {}
            [first, second, ..] => return Err(format!("{first} and {second} both hold it").into()),
        }
        let balancers = topology::servers_of(self.placement, Tier::Balancer);
        for server in balancers.filter(|server| self.live(*server).is_some()) {
            self.complete_proxy_at(server, since)
                .map_err(|why| format!("{server} {why}"))?;
        }
        Ok(())
    }

    /// The live servers that report holding a VIP.
    pub(crate) fn owners(&self, vip: IpAddr) -> Vec<ServerName> {
        let owners = self
            .facts
            .observed
            .iter()
            .filter(|(_, observed)| observed.vips.contains(&vip));
        owners.map(|(server, _)| *server).collect()
    }

    fn instance_answers(&self, at: SocketAddr) -> Result<(), Unmet> {
        let mut instances = self.placement.instances.keys();
        let name = instances
            .find(|name| topology::address_of_instance(self.placement, **name) == Some(at));
        let name = name.ok_or("no instance has this address")?;
        let seen = self
            .live(name.server)
            .and_then(|observed| observed.instances.get(name));
        match seen {
            Some(seen) if seen.state == InstanceState::Ready => Ok(()),
            _ => Err(format!("{name} is not ready").into()),
        }
    }
}
