//! The end of a drain: when a drained instance or server may be removed.

use super::RollOutStep;
use super::view::View;
use crate::topology::{self, TrafficTarget};
use gaiola_model::Placement;
use gaiola_model::placement::{DatabaseRole, Door, DoorState, Phase};
use gaiola_model::{InstanceName, ServerName, Tier};
use std::net::SocketAddr;

/// Why a drained target cannot go yet, and which server is waited for.
type NotYet = (ServerName, String);

impl RollOutStep<'_> {
    /// Removes whatever is drained and no longer wanted.
    pub(super) fn finish_drains(&mut self) {
        self.finish_instances();
        self.finish_servers();
    }

    fn finish_instances(&mut self) {
        let stored = self.view.placement;
        for (name, placed) in &stored.instances {
            if placed.phase != Phase::Drain || !self.wants(name.server) {
                continue;
            }
            let target = TrafficTarget::Instance(*name);
            match self.view.quiet(target) {
                Ok(()) => {
                    self.plan.instances.remove(name);
                    let with = self.view.left_behind(&[target]);
                    self.report(name.server, format!("{name} is stopped{with}"));
                }
                Err((server, why)) => self.wait(server, format!("to stop {name}: {why}")),
            }
        }
    }

    fn finish_servers(&mut self) {
        let stored = self.view.placement;
        for (server, placed) in &stored.servers {
            let server = *server;
            let leaves = placed.phase == Phase::Drain || self.may_drop_dead(server);
            if self.wants(server) || !leaves {
                continue;
            }
            match self.may_go(server) {
                Ok(with) => self.take_away(server, &with),
                Err((waited_for, why)) => {
                    self.wait(waited_for, format!("to remove {server}: {why}"));
                }
            }
        }
    }

    fn take_away(&mut self, server: ServerName, with: &str) {
        let own = doors_of(&self.plan, TrafficTarget::Server(server));
        let own: Vec<SocketAddr> = own.map(|(at, _)| *at).collect();
        self.plan.servers.remove(&server);
        if server.tier == Tier::Balancer {
            self.plan.doors.retain(|at, _| !own.contains(at));
        }
        self.plan.instances.retain(|name, _| name.server != server);
        self.plan.workers.retain(|name, _| name.server != server);
        self.report(server, format!("{server} is removed{with}"));
    }

    /// A dead server needs no drain; a dead database server only once another is primary.
    fn may_drop_dead(&self, server: ServerName) -> bool {
        let replaced =
            server.tier != Tier::Database || self.view.another_is_primary(server).is_ok();
        self.view.is_dead(server) && replaced
    }

    /// Whether a leaving server may go now; the text names what was not waited for.
    fn may_go(&self, server: ServerName) -> Result<String, NotYet> {
        if self.view.facts.store_members.contains(&server) {
            return Err((server, "it still has a store member".into()));
        }
        if self.view.is_dead(server) {
            if server.tier == Tier::Database {
                self.view.another_is_primary(server)?;
            }
            let mut targets = self.view.targets_on(server).into_iter();
            if targets.any(|target| self.view.is_reached_directly(target)) {
                return Err((server, "no other door is open".into()));
            }
            return Ok(": it was dead".into());
        }
        if self.is_last_of_given_up_database(server) {
            self.view.quiet(TrafficTarget::Server(server))?;
        } else {
            self.view.drained(server)?;
        }
        Ok(self.view.left_behind(&self.view.targets_on(server)))
    }

    fn is_last_of_given_up_database(&self, server: ServerName) -> bool {
        let mut databases = topology::servers_of(self.view.placement, Tier::Database);
        server.tier == Tier::Database
            && self.desired.config.database.is_none()
            && databases.all(|other| other == server)
    }
}

impl View<'_> {
    /// Whether a drained server has no traffic left.
    pub(crate) fn drained(&self, server: ServerName) -> Result<(), NotYet> {
        match server.tier {
            Tier::Balancer => return self.holds_no_vip(server),
            Tier::Database => self.has_handed_over(server)?,
            Tier::App => self.runs_no_cron(server)?,
            Tier::Web => {}
        }
        let targets = self.targets_on(server);
        targets
            .into_iter()
            .try_for_each(|target| self.quiet(target))
    }

    /// A run that is ordered there ends first; it has a timeout.
    fn runs_no_cron(&self, server: ServerName) -> Result<(), NotYet> {
        match self.cron_on(server) {
            Some(name) => Err((server, format!("{name} runs on it"))),
            None => Ok(()),
        }
    }

    /// The targets that proxies send to on a server: the instances of an application server, or the server itself.
    pub(super) fn targets_on(&self, server: ServerName) -> Vec<TrafficTarget> {
        let instances = self.placement.instances.keys().copied();
        let on_it = instances.filter(|name: &InstanceName| name.server == server);
        match server.tier {
            Tier::App => on_it.map(TrafficTarget::Instance).collect(),
            _ => vec![TrafficTarget::Server(server)],
        }
    }

    /// Whether a drained target is idle: no door leads to it, every proxy has acknowledged the drain, and its requests
    /// have ended or the grace is over.
    fn quiet(&self, target: TrafficTarget) -> Result<(), NotYet> {
        self.has_no_door(target)?;
        if let Some((sender, why)) = self.unacknowledged(target).into_iter().next() {
            return Err((sender, format!("{sender} {why}")));
        }
        let grace = self.placement.config.app.grace;
        let acknowledged = self.facts.acknowledged.get(&target);
        let graced = acknowledged.is_some_and(|known| self.facts.now - known.since >= grace);
        match self.in_flight(target).first() {
            Some((sender, count)) if !graced => {
                Err((*sender, format!("{sender} has {count} in flight to it")))
            }
            _ => Ok(()),
        }
    }

    fn has_no_door(&self, target: TrafficTarget) -> Result<(), NotYet> {
        match doors_of(self.placement, target).next() {
            Some(_) => Err((target.server(), "clients are still sent to it".into())),
            None => Ok(()),
        }
    }

    /// Whether a door that is not closing still sends clients to a target directly.
    pub(super) fn is_reached_directly(&self, target: TrafficTarget) -> bool {
        let mut doors = doors_of(self.placement, target);
        doors.any(|(_, door)| door.state == DoorState::Open)
    }

    fn holds_no_vip(&self, server: ServerName) -> Result<(), NotYet> {
        self.has_no_door(TrafficTarget::Server(server))?;
        self.has_heard(server)?;
        let held = self.live(server).and_then(|observed| observed.vips.first());
        match held {
            Some(vip) => Err((server, format!("it still holds {vip}"))),
            None => Ok(()),
        }
    }

    /// Whether a drained database server is not the primary, and another one is.
    pub(super) fn has_handed_over(&self, server: ServerName) -> Result<(), NotYet> {
        self.has_heard(server)?;
        if self.role(server) == DatabaseRole::Primary {
            return Err((server, "it is still the primary".into()));
        }
        self.another_is_primary(server)
    }

    pub(super) fn another_is_primary(&self, server: ServerName) -> Result<(), NotYet> {
        match self.primary() {
            Some(primary) if primary != server => Ok(()),
            _ => Err((server, "no other database server is primary".into())),
        }
    }

    /// Whether a server's agent has carried out its drain.
    fn has_heard(&self, server: ServerName) -> Result<(), NotYet> {
        match self.live(server) {
            None => Err((server, "it is silent".into())),
            Some(observed) if observed.revision < self.placement.servers[&server].since => {
                Err((server, "it has not received this order yet".into()))
            }
            Some(_) => Ok(()),
        }
    }

    /// What the end of a drain did not wait for, for its event.
    fn left_behind(&self, targets: &[TrafficTarget]) -> String {
        let left_out = targets.iter().flat_map(|target| self.left_out(*target));
        let mut left_out: Vec<ServerName> = left_out.collect();
        left_out.sort();
        left_out.dedup();
        let silent = left_out.iter();
        let mut words: String = silent
            .map(|server| format!("; {server} is silent and was not waited for"))
            .collect();
        let in_flight = targets.iter().flat_map(|target| self.in_flight(*target));
        let cut: u64 = in_flight.map(|(_, count)| count).sum();
        if cut > 0 {
            words += &format!("; {cut} in flight when the grace ended");
        }
        words
    }
}

/// The doors at which clients connect to a target directly.
pub(super) fn doors_of(
    placement: &Placement,
    target: TrafficTarget,
) -> impl Iterator<Item = (&SocketAddr, &Door)> {
    let leads_to = move |at: SocketAddr, tier: Tier| match target {
        TrafficTarget::Instance(name) => topology::address_of_instance(placement, name) == Some(at),
        TrafficTarget::Server(server) if server.tier == Tier::Web => {
            topology::address_of_web(placement, server) == Some(at)
        }
        TrafficTarget::Server(server) => {
            let location = topology::location(placement, server);
            let is_own = location.is_some_and(|location| location.address == at.ip());
            is_own && (server.tier, tier) == (Tier::Balancer, Tier::Balancer)
        }
    };
    let doors = placement.doors.iter();
    doors.filter(move |(at, door)| leads_to(**at, door.tier))
}
