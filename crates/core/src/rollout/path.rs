//! Whether balancers send through the web tier or past it.

use super::RollOutStep;
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{InstanceState, Phase};
use gaiola_model::{InstanceName, ServerName, Tier};

impl RollOutStep<'_> {
    /// Switches the path only once all members along the new one are found up by every proxy that will use it, and
    /// forgets the old path only once nobody uses it any more.
    pub(super) fn lead_path(&mut self) {
        let wanted = self.desired.config.web.is_some();
        match (wanted, self.plan.through_web, self.plan.past_web) {
            (true, true, false) | (false, false, true) => {}
            (true, false, false) | (false, _, false) => self.plan.past_web = true,
            (true, true, true) => match self.past_is_quiet() {
                Ok(()) => self.plan.past_web = false,
                Err((server, why)) => self.wait(server, format!("to drop the old path: {why}")),
            },
            (true, false, true) | (false, true, true) => self.change_way(wanted),
        }
    }

    fn change_way(&mut self, through_web: bool) {
        let has_balancers = self.balancers().next().is_some();
        let ready = match (has_balancers, through_web) {
            (false, _) => Ok(()),
            (true, true) => self.web_is_ready(),
            (true, false) => self.app_is_known(),
        };
        match ready {
            Ok(()) => {
                self.plan.through_web = through_web;
                let way = if through_web { "through" } else { "past" };
                if has_balancers {
                    self.report(None, format!("balancers now send {way} the web tier"));
                }
            }
            Err((server, why)) => self.wait(server, format!("to switch the path: {why}")),
        }
    }

    fn balancers(&self) -> impl Iterator<Item = ServerName> {
        topology::servers_of(self.view.placement, Tier::Balancer)
    }

    /// Every balancer sends through the web tier, and has nothing in flight past it. A silent one is waited for: its
    /// proxy may still use the old path, and would not be checked again.
    fn past_is_quiet(&self) -> Result<(), (ServerName, String)> {
        let instances = self.view.placement.instances.keys();
        let names: Vec<String> = instances.map(ToString::to_string).collect();
        for server in self.balancers() {
            let proxy = self.view.proxy_at(server, self.view.at);
            let proxy = proxy.map_err(|why| (server, format!("{server} {why}")))?;
            if let Some(name) = names
                .iter()
                .find(|name| proxy.in_flight.contains_key(*name))
            {
                return Err((server, format!("{server} has requests in flight to {name}")));
            }
        }
        Ok(())
    }

    /// Every web server is up for every balancer, and has itself found the instances up.
    fn web_is_ready(&self) -> Result<(), (ServerName, String)> {
        let stored = self.view.placement;
        let mut found = false;
        let facts = self.view.facts;
        let alive =
            topology::servers_of(stored, Tier::Web).filter(|server| !facts.is_dead(*server));
        for server in alive.filter(|server| topology::serves(stored, *server)) {
            let serves = self.view.server_serves(server);
            serves.map_err(|why| (server, format!("{server} {why}")))?;
            found = true;
        }
        if !found {
            let first = ServerName::new(Tier::Web, 1);
            return Err((first, "there is no web server yet".into()));
        }
        self.app_is_known()
    }

    /// Every instance that its own agent finds ready is found up by all proxies that send to it or will.
    fn app_is_known(&self) -> Result<(), (ServerName, String)> {
        let stored = self.view.placement;
        let serving = stored.instances.iter().filter(|(name, placed)| {
            placed.phase == Phase::Serve
                && topology::serves(stored, name.server)
                && self.is_ready(**name)
        });
        for (name, placed) in serving {
            for sender in topology::senders(stored, TrafficTarget::Instance(*name)) {
                if self.view.is_dead(sender) {
                    continue;
                }
                let proxy = self.view.proxy_at(sender, placed.since.max(self.view.at));
                let proxy = proxy.map_err(|why| (sender, format!("{sender} {why}")))?;
                if !proxy.up.contains(&name.to_string()) {
                    return Err((
                        sender,
                        format!("{name} is not up yet according to {sender}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_ready(&self, name: InstanceName) -> bool {
        let observed = self.view.live(name.server);
        let seen = observed.and_then(|observed| observed.instances.get(&name));
        seen.is_some_and(|seen| seen.state == InstanceState::Ready)
    }
}
