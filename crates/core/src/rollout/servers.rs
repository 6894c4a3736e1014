//! Adding and removing servers: they join at once and leave one by one.

use super::{Facts, MOVED_WITHIN, RollOutStep, View, dated, new_server};
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{DatabaseRole, Phase};
use gaiola_model::{Config, Desired, Placement, Revision, ServerName, Tier};
use std::collections::BTreeSet;

/// Why a server cannot be drained, and what to do first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainRefused {
    /// Its tier has no other.
    #[error(
        "{server} is the only {section} server, and its traffic has nowhere else to go; \
         add one first: gaiola scale {section}=2",
        section = server.tier.section()
    )]
    Only {
        /// The server.
        server: ServerName,
    },
    /// None of the others serves.
    #[error(
        "no other {} server is serving ({}), and the traffic of {server} has nowhere else to go; \
         bring one back first (gaiola undrain, gaiola up), or add one (gaiola scale)",
        server.tier.section(),
        others.join("; ")
    )]
    NoOtherServes {
        /// The server.
        server: ServerName,
        /// Each of the others, and why it does not serve.
        others: Vec<String>,
    },
}

/// Whether a server may be drained: another one of its tier serves.
///
/// # Errors
/// It is the last of its tier that serves, which not even the conductor would drain.
pub fn may_drain(
    server: ServerName,
    desired: &Desired,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<(), DrainRefused> {
    let (stored, tier) = (dated(placement, at), server.tier);
    let view = View::new(&stored, at, facts);
    let others = desired.config.servers_of(tier);
    let mut others = others.filter(|other| *other != server).peekable();
    if others.peek().is_none() {
        return Err(DrainRefused::Only { server });
    }
    let why_not = |other: ServerName| {
        if desired.drained.contains(&other) {
            Some(format!("{other} is drained"))
        } else {
            let why = view.server_serves(other).err()?;
            Some(format!("{other} {why}"))
        }
    };
    let mut whys = Vec::new();
    for other in others {
        match why_not(other) {
            Some(why) => whys.push(why),
            None => return Ok(()),
        }
    }
    Err(DrainRefused::NoOtherServes {
        server,
        others: whys,
    })
}

/// A tier of which every server is drained although some are wanted: nothing would serve it.
pub fn all_drained(config: &Config, drained: &BTreeSet<ServerName>) -> Option<Tier> {
    let is_drained = |tier: &Tier| {
        let mut servers = config.servers_of(*tier).peekable();
        servers.peek().is_some() && servers.all(|server| drained.contains(&server))
    };
    Tier::ALL.into_iter().find(is_drained)
}

impl RollOutStep<'_> {
    /// Adds missing servers, and lets servers serve again that no longer need to leave.
    pub(super) fn add_servers(&mut self) {
        for server in self.desired.config.server_names() {
            if self.is_elsewhere(server) {
                self.wait(
                    server,
                    format!("to add {server}: the one of its name leaves first"),
                );
                continue;
            }
            let drained = self.desired.drained.contains(&server);
            match self.plan.servers.get(&server).map(|placed| placed.phase) {
                None => self.add_server(server),
                Some(Phase::Drain) if !drained => {
                    self.set_phase(server, Phase::Serve);
                    self.report(server, format!("{server} takes traffic again"));
                }
                Some(_) => {}
            }
        }
    }

    fn add_server(&mut self, server: ServerName) {
        match self.desired.inventory.servers.get(&server) {
            Some(location) => {
                let added = new_server(location.clone());
                self.plan.servers.insert(server, added);
                self.report(server, format!("{server} is added"));
            }
            None => self.wait(
                server,
                format!("to add {server}: the site's inventory has no place for it"),
            ),
        }
    }

    /// Drains what the operator drained, but never the last healthy server of a tier. Database servers go first.
    pub(super) fn drain_for_operator(&mut self) {
        let mut drained: Vec<ServerName> = self.desired.drained.iter().copied().collect();
        drained.sort_by_key(|server| std::cmp::Reverse(server.tier));
        for server in drained {
            if !self.wants(server) || !topology::serves(&self.plan, server) {
                continue;
            }
            if !self.others_serve(server) {
                let section = server.tier.section();
                self.wait(
                    server,
                    format!("to drain {server}: no other {section} server would serve"),
                );
            } else if self.may_drain_now(server) {
                self.set_phase(server, Phase::Drain);
                self.report(server, format!("{server} is drained"));
            }
        }
    }

    fn may_drain_now(&mut self, server: ServerName) -> bool {
        match server.tier {
            Tier::Balancer => self.writes_go_on(server),
            Tier::Web | Tier::App => true,
            Tier::Database => self.may_move_database(server),
        }
    }

    /// Whether no primary is being replaced: writes wait for that at the balancers, and a VIP that moves meanwhile breaks them off. A
    /// switch-over that does not end is not waited for.
    fn writes_go_on(&mut self, balancer: ServerName) -> bool {
        let moving = self.drained_databases().find(|server| {
            let just_begun = topology::serves(self.view.placement, *server);
            just_begun || !self.has_switched_over(*server) && !self.is_overdue(*server)
        });
        if let Some(moving) = moving {
            let why = format!("to drain {balancer}: {moving} gives up its role first");
            self.wait(balancer, why);
        }
        moving.is_none()
    }

    /// Whether a drain takes longer than a VIP or the role of the primary ever takes to move.
    fn is_overdue(&self, server: ServerName) -> bool {
        let facts = self.view.facts;
        let drained = facts.acknowledged.get(&TrafficTarget::Server(server));
        drained.is_some_and(|drained| facts.now - drained.since >= MOVED_WITHIN)
    }

    /// A drained balancer that is still handing its VIPs over.
    fn hands_over(&self) -> Option<ServerName> {
        let mut balancers = topology::servers_of(&self.plan, Tier::Balancer);
        balancers.find(|server| {
            let drained = !topology::serves(&self.plan, *server);
            let holds = !self.view.is_dead(*server) && self.view.drained(*server).is_err();
            drained && holds && !self.is_overdue(*server)
        })
    }

    fn others_serve(&self, server: ServerName) -> bool {
        let mut others = self.healthy(server.tier);
        others.any(|other| other != server && self.wants(other))
    }

    /// The healthy servers of a tier that are not about to be drained.
    fn healthy(&self, tier: Tier) -> impl Iterator<Item = ServerName> {
        let servers = topology::servers_of(&self.plan, tier);
        servers.filter(|server| {
            topology::serves(&self.plan, *server) && self.view.server_serves(*server).is_ok()
        })
    }

    /// Starts draining servers to be removed: the highest numbers first, all that can be spared together, but database
    /// servers one at a time and before balancers, and nothing while instances are being replaced.
    pub(super) fn remove_servers(&mut self) {
        let leaving: Vec<ServerName> = self.leaving().collect();
        if leaving.is_empty() {
            return;
        }
        if let Some(why) = self.replacement_in_progress() {
            return self.wait(None, format!("to remove {}: {why}", leaving[0]));
        }
        for server in leaving {
            let may_leave = match server.tier {
                Tier::Balancer | Tier::Web if self.is_needed_for_tls(server) => false,
                Tier::Balancer => self.may_spare_balancer(server) && self.writes_go_on(server),
                Tier::Web => self.may_spare_web(server),
                Tier::App => true,
                Tier::Database => self.may_spare_database(server),
            };
            if may_leave && self.can_be_spared(server) {
                self.set_phase(server, Phase::Drain);
                self.report(server, format!("{server} is drained, to be removed"));
            }
        }
    }

    /// Serving servers that the file no longer includes, in the order in which they leave.
    fn leaving(&self) -> impl Iterator<Item = ServerName> {
        let primary = self.view.primary();
        let mut leaving: Vec<ServerName> = self.plan.servers.keys().copied().collect();
        leaving.retain(|server| !self.wants(*server) && topology::serves(&self.plan, *server));
        let gives_up_database = self.desired.config.database.is_none();
        // If the whole database tier is removed the primary leaves last: no need to move it first.
        leaving.sort_by_key(|server| {
            let last = gives_up_database && Some(*server) == primary;
            let tier = std::cmp::Reverse(server.tier);
            (tier, last, std::cmp::Reverse(server.number))
        });
        leaving.into_iter()
    }

    /// Whether as many healthy servers remain as are wanted, and at least one unless the whole tier is removed.
    fn can_be_spared(&mut self, server: ServerName) -> bool {
        if self.view.live(server).is_none() {
            self.wait(server, format!("to remove {server}: it is silent"));
            return false;
        }
        let drained = &self.desired.drained;
        let wanted = self.desired.config.servers_of(server.tier);
        let wanted = wanted.filter(|other| !drained.contains(other) && !self.is_elsewhere(*other));
        let given_up = self.desired.config.servers(server.tier) == 0;
        let wanted = wanted.count().max(usize::from(!given_up));
        let others = self.healthy(server.tier).filter(|other| *other != server);
        let left = others.count();
        if left < wanted {
            let section = server.tier.section();
            let short = format!("{left} other {section} servers are healthy, {wanted} are wanted");
            self.wait(server, format!("to remove {server}: {short}"));
        }
        left >= wanted
    }

    /// The last that speak TLS with instances stay until these take clients themselves, who speak plain text.
    fn is_needed_for_tls(&mut self, server: ServerName) -> bool {
        let encrypted = self.plan.instances.values().any(|placed| placed.encrypted);
        let is_needed = encrypted && !self.desired.config.encrypts();
        let gives_up = self.desired.config.servers(server.tier) == 0;
        if is_needed && gives_up {
            let why = format!("to remove {server}: instances accept plain text first");
            self.wait(server, why);
        }
        is_needed && gives_up
    }

    /// A VIP that leaves with it is given up first, so that its remaining clients may finish where they are.
    fn may_spare_balancer(&mut self, server: ServerName) -> bool {
        let wanted = self.plan.config.balancer.as_ref();
        let wanted = wanted.map_or_else(Vec::new, |balancer| balancer.vips().to_vec());
        let at_home = self.plan.vips.iter().filter(|(_, home)| **home == server);
        let leaving = at_home
            .map(|(vip, _)| *vip)
            .find(|vip| !wanted.contains(vip));
        if let Some(vip) = leaving {
            self.wait(
                server,
                format!("to remove {server}: {vip} is given up first"),
            );
        }
        leaving.is_none()
    }

    /// If the tier itself is removed the balancers bypass it first, or the doors close.
    fn may_spare_web(&mut self, server: ServerName) -> bool {
        let gives_up = self.desired.config.web.is_none();
        let has_balancers = topology::servers_of(&self.plan, Tier::Balancer)
            .next()
            .is_some();
        let sent_to = has_balancers && self.plan.through_web;
        let led = self.plan.doors.values().any(|door| door.tier == Tier::Web);
        let needed = gives_up && (sent_to || led);
        if needed {
            self.wait(
                server,
                format!("to remove {server}: the tier is still in use"),
            );
        }
        !needed
    }

    /// If the tier itself is removed, no instance uses it any more.
    fn may_spare_database(&mut self, server: ServerName) -> bool {
        if self.desired.config.database.is_none() {
            let instances = self.plan.instances.values().map(|placed| placed.database);
            let workers = self.plan.workers.values().map(|placed| placed.database);
            let runs = self.plan.crons.values().flat_map(|cron| &cron.runs);
            let runs = runs.map(|run| run.database);
            if instances.chain(workers).chain(runs).any(|uses| uses) {
                self.wait(
                    server,
                    format!(
                        "to remove {server}: instances, workers or crons still use the database"
                    ),
                );
                return false;
            }
            return self.database_in_motion().is_none();
        }
        self.may_move_database(server)
    }

    /// Whether a database server may be drained now: alone, with a successor, and while nothing else is in progress.
    fn may_move_database(&mut self, server: ServerName) -> bool {
        let hands_over = || {
            let balancer = self.hands_over()?;
            Some(format!("{balancer} hands its VIPs over first"))
        };
        let blocked = (self.database_in_motion())
            .or_else(|| self.replacement_in_progress())
            .or_else(hands_over);
        if let Some(why) = blocked {
            self.wait(server, format!("to drain {server}: {why}"));
            return false;
        }
        let Some(primary) = self.view.primary() else {
            self.wait(
                server,
                format!("to drain {server}: the database has no primary"),
            );
            return false;
        };
        if primary == server && !self.has_successor(server) {
            self.wait(
                server,
                format!("to drain {server}: no standby could take over"),
            );
            return false;
        }
        true
    }

    /// Whether a standby that stays holds every acknowledged write.
    fn has_successor(&self, primary: ServerName) -> bool {
        let mut others = self
            .healthy(Tier::Database)
            .filter(|other| *other != primary);
        others.any(|other| {
            self.wants(other)
                && !self.desired.drained.contains(&other)
                && self.view.role(other) == DatabaseRole::SyncStandby
        })
    }

    /// A database server whose drain is not finished, in words.
    pub(super) fn database_in_motion(&self) -> Option<String> {
        let moving = self.drained_databases().find(|server| {
            let just_begun = topology::serves(self.view.placement, *server);
            just_begun || !self.wants(*server) || !self.has_switched_over(*server)
        });
        moving.map(|server| format!("{server} is being drained"))
    }

    fn drained_databases(&self) -> impl Iterator<Item = ServerName> {
        let servers = topology::servers_of(&self.plan, Tier::Database);
        servers.filter(|server| !topology::serves(&self.plan, *server))
    }

    /// Whether a database server drained by the operator has switched over.
    fn has_switched_over(&self, server: ServerName) -> bool {
        self.view.is_dead(server) || self.view.has_handed_over(server).is_ok()
    }

    /// A server that is about to leave, in words.
    pub(super) fn removal_under_way(&self) -> Option<String> {
        let mut drained = self
            .plan
            .servers
            .keys()
            .filter(|server| !topology::serves(&self.plan, **server));
        let leaving = drained.find(|server| !self.wants(**server));
        leaving.map(|server| format!("{server} is being removed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::config::App;

    #[test]
    fn a_tier_of_which_all_that_is_left_is_drained_is_named() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.app.servers = 2;
        let drained = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(all_drained(&config, &drained(&["app1"])), None);
        let both = drained(&["app1", "app2"]);
        assert_eq!(all_drained(&config, &both), Some(Tier::App));
        config.app.servers = 3;
        assert_eq!(all_drained(&config, &both), None);
    }
}
