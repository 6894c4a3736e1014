//! Whether the desired state is the observed one.

use super::view::View;
use super::{Facts, dated, doors, encryption, is_elsewhere, store_members};
use super::{instances, workers};
use crate::topology;
use gaiola_model::placement::{DatabaseRole, DoorState, Encryption, Phase, Template};
use gaiola_model::{Desired, Placement, Revision, ServerName, Tier};
use std::collections::BTreeSet;

/// Whether the desired state is observed under `placement`, which the store holds at revision `at`: every desired
/// instance ready, every VIP owned exactly once, every standby streaming, and nothing undesired left.
///
/// # Errors
///
/// What is missing, each in words. While the site is not settled there is at least one.
pub fn settled(
    desired: &Desired,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<(), Vec<String>> {
    let stored = dated(placement, at);
    let mut check = Check {
        desired,
        view: View::new(&stored, at, facts),
        missing: Vec::new(),
    };
    check.placement();
    check.servers();
    check.instances();
    check.workers();
    check.doors();
    check.database();
    if check.missing.is_empty() {
        Ok(())
    } else {
        Err(check.missing)
    }
}

struct Check<'a> {
    desired: &'a Desired,
    view: View<'a>,
    missing: Vec<String>,
}

impl Check<'_> {
    fn miss(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.missing.contains(&text) {
            self.missing.push(text);
        }
    }

    fn placement(&mut self) {
        let stored = self.view.placement;
        if let Some(failure) = &stored.failed {
            self.miss(failure.in_words());
        }
        let is_seen = stored.generation == self.desired.generation
            && stored.maintenance == self.desired.maintenance;
        if !is_seen {
            self.miss("the conductor has not seen the last change yet");
        }
        if let Some(run) = &stored.release_run {
            self.miss(self.view.run_in_words(run));
        }
        if stored.failed.is_none() && stored.released < Some(self.desired.release.number) {
            let number = self.desired.release.number;
            self.miss(format!("release {number} is not prepared yet"));
        }
        let has_web = self.desired.config.web.is_some();
        if (stored.through_web, stored.past_web) != (has_web, !has_web) {
            self.miss("balancers do not use the new path yet");
        }
        if !encryption::is_reached(&self.desired.config, stored) {
            self.miss(encryption::in_words(&self.desired.config));
        }
        let members = &self.view.facts.store_members;
        let wanted: BTreeSet<_> = store_members(&self.desired.config).into_iter().collect();
        if !members.is_empty() && *members != wanted {
            let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            self.miss(format!(
                "the store's members are not on {} yet",
                names.join(", ")
            ));
        }
        if let Some(server) = stored.store_joining {
            self.miss(format!("{server} does not vote in the store yet"));
        }
        for server in self.view.facts.store_lost_since.keys() {
            self.miss(format!("{server} has lost the data of its store member"));
        }
        let release = self.template().release;
        if stored.web_releases != [release] && stored.config.web.is_some() {
            self.miss(format!(
                "web servers do not serve release {release} alone yet"
            ));
        }
    }

    fn servers(&mut self) {
        let stored = self.view.placement;
        let wanted: BTreeSet<ServerName> = self.desired.config.server_names().collect();
        for server in wanted
            .iter()
            .filter(|server| !stored.servers.contains_key(server))
        {
            self.miss(format!("{server} is not placed yet"));
        }
        for (server, placed) in &stored.servers {
            let drained = self.desired.drained.contains(server);
            match placed.phase {
                _ if !wanted.contains(server) || is_elsewhere(self.desired, stored, *server) => {
                    self.miss(format!("{server} is not removed yet"));
                }
                Phase::Serve if drained => self.miss(format!("{server} is not drained yet")),
                Phase::Drain if !drained => self.miss(format!("{server} is still drained")),
                Phase::Serve | Phase::Drain => self.server(*server, placed.phase),
            }
            if drained
                && placed.phase == Phase::Drain
                && let Err((_, why)) = self.view.drained(*server)
            {
                self.miss(format!("{server} is not drained yet: {why}"));
            }
        }
    }

    fn server(&mut self, server: ServerName, phase: Phase) {
        let at = self.view.at;
        match self.view.live(server) {
            None => self.miss(format!("{server} is silent")),
            Some(observed) if observed.revision < at => {
                self.miss(format!("{server} has not carried out revision {at} yet"));
            }
            Some(_) if phase == Phase::Serve && server.tier != Tier::App => {
                if let Err(why) = self.view.server_serves(server) {
                    self.miss(format!("{server} {why}"));
                }
            }
            Some(_) => {}
        }
        let stored = self.view.placement;
        let has_proxy = topology::has_proxy(stored, server);
        let unknown = self.view.complete_proxy_at(server, at).err();
        if let Some(why) = unknown.filter(|_| has_proxy && self.view.live(server).is_some()) {
            self.miss(format!("{server} {why}"));
        }
    }

    /// What all instances should run: the last good template if a release was given up.
    fn template(&self) -> Template {
        let good = || instances::template(self.desired, self.view.placement);
        let failed = self.view.placement.failed.as_ref();
        let template = failed.and_then(|_| good());
        template.unwrap_or_else(|| instances::wanted(self.desired, self.view.placement))
    }

    fn instances(&mut self) {
        let stored = self.view.placement;
        let template = self.template();
        for (name, placed) in &stored.instances {
            let is_old = !instances::is_of(&template, self.desired, *name, placed);
            if placed.phase == Phase::Drain || is_old {
                self.miss(format!(
                    "{name} of release {} is not replaced yet",
                    placed.release
                ));
            } else if topology::serves(stored, name.server)
                && let Err(why) = self.view.instance_serves(*name)
            {
                self.miss(format!("{name} {why}"));
            }
        }
        let wanted = usize::from(self.desired.config.app.instances);
        for server in topology::servers_of(stored, Tier::App) {
            let count = stored
                .instances
                .keys()
                .filter(|name| name.server == server)
                .count();
            if count != wanted {
                self.miss(format!("{server} has {count} of {wanted} instances"));
            }
        }
    }

    fn workers(&mut self) {
        let stored = self.view.placement;
        let is_main =
            |server: &ServerName| topology::serves(stored, *server) && !self.view.is_dead(*server);
        let servers: Vec<ServerName> = topology::servers_of(stored, Tier::App)
            .filter(is_main)
            .collect();
        // Those of a release that was given up are not waited for.
        let config = match &stored.failed {
            Some(_) => &stored.config,
            None => &self.desired.config,
        };
        let wanted = workers::wanted(config, stored, &servers);
        for name in stored.workers.keys().filter(|name| !wanted.contains(name)) {
            self.miss(format!("{name} is not stopped yet"));
        }
        let template = self.template();
        for name in &wanted {
            let worker = &config.workers[&name.kind];
            let as_wanted = workers::place(worker, &template, self.desired, name.server);
            match (stored.workers.get(name), self.view.worker_runs(name)) {
                (Some(placed), _) if *placed != as_wanted => {
                    let release = placed.release;
                    self.miss(format!("{name} of release {release} is not replaced yet"));
                }
                (_, Err(why)) => self.miss(format!("{name} {why}")),
                (_, Ok(())) => {}
            }
        }
        let seen = self.view.facts.observed.values();
        let stopping = seen.flat_map(|observed| observed.workers.keys());
        let stopping = stopping.filter(|name| !stored.workers.contains_key(name));
        for name in stopping {
            self.miss(format!("{name} is being stopped"));
        }
    }

    fn doors(&mut self) {
        let stored = self.view.placement;
        let wanted = doors::wanted(stored);
        for (at, door) in &stored.doors {
            match door.state {
                _ if !wanted.contains_key(at) => self.miss(format!("{at} is not closed yet")),
                DoorState::Open => {}
                DoorState::Opening | DoorState::Closing => {
                    self.miss(format!("{at} is not open yet"))
                }
            }
        }
        for at in wanted.keys().filter(|at| !stored.doors.contains_key(at)) {
            self.miss(format!("{at} is not open yet"));
        }
        for vip in stored.vips.keys() {
            let owners = self.view.owners(*vip);
            match owners.as_slice() {
                [_] => {}
                [] => self.miss(format!("no balancer holds {vip}")),
                _ => self.miss(format!("{} balancers hold {vip}", owners.len())),
            }
        }
    }

    fn database(&mut self) {
        let stored = self.view.placement;
        let servers: Vec<ServerName> = topology::servers_of(stored, Tier::Database).collect();
        let primaries = servers
            .iter()
            .filter(|server| self.view.role(**server) == DatabaseRole::Primary);
        match (servers.len(), primaries.count()) {
            (0, _) | (1.., 1) => {}
            (_, 0) => self.miss("the database has no primary"),
            (_, count) => self.miss(format!(
                "{count} database servers report that they are primary"
            )),
        }
        for server in &servers {
            if stored.encryption == Encryption::Required
                && let Err(why) = self.view.database_accepts(*server)
            {
                self.miss(format!("{server} {why}"));
            }
        }
        let is_sync = |server: &ServerName| self.view.role(*server) == DatabaseRole::SyncStandby;
        let serving = servers
            .iter()
            .filter(|server| topology::serves(stored, **server));
        if serving.count() > 1 && !servers.iter().any(is_sync) {
            self.miss("no standby holds every acknowledged write");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::Inventory;
    use gaiola_model::config::{App, Config};
    use gaiola_model::placement::{PlacedServer, Release, ReleaseNumber};
    use gaiola_model::{Observed, Time};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn site() -> (Desired, Placement) {
        let config = Config::new("site".parse().unwrap(), App::new("run"));
        let release = Release {
            number: ReleaseNumber(1),
            digest: String::new(),
        };
        let inventory = Inventory::numbered(&config, [10, 77]);
        let desired = Desired::first(config, release, inventory);
        let placement = crate::rollout::first(&desired, "a".into());
        (desired, placement)
    }

    #[test]
    fn a_site_is_not_settled_while_a_member_of_the_store_does_not_vote() {
        let (desired, mut placement) = site();
        let missing = |placement: &Placement| {
            let settled = settled(&desired, placement, Revision(1), &Facts::default());
            let text = "app1 does not vote in the store yet".to_string();
            settled.unwrap_err().contains(&text)
        };
        assert!(!missing(&placement));
        placement.store_joining = Some("app1".parse().unwrap());
        assert!(missing(&placement));
    }

    #[test]
    fn a_drained_server_is_settled_once_nobody_sends_to_it() {
        let (mut desired, mut placement) = site();
        let lb1 = "lb1".parse().unwrap();
        desired.drained.insert(lb1);
        let placed = PlacedServer {
            location: gaiola_model::inventory::Location::at([10, 77, 1, 1].into()),
            phase: Phase::Drain,
            since: Revision(1),
        };
        placement.servers.insert(lb1, placed);
        let vip = [10, 77, 0, 9].into();
        let missing = |vips: BTreeSet<_>| {
            let observed = Observed {
                revision: Revision(1),
                vips,
                ..Observed::nothing_on(lb1)
            };
            let mut facts = Facts::default();
            let all = BTreeMap::from([(lb1, observed)]);
            facts.observe(Time::ZERO, &placement, Revision(1), all);
            let missing = settled(&desired, &placement, Revision(1), &facts).unwrap_err();
            let mut of_it = missing.iter().map(String::as_str);
            of_it.any(|text| text.starts_with("lb1 is not drained yet: it still holds"))
        };
        assert!(missing(BTreeSet::from([vip])));
        assert!(!missing(BTreeSet::new()));
    }

    #[test]
    fn a_voter_of_the_store_without_data_is_missing_at_once_and_lost_after_a_while() {
        let (desired, mut placement) = site();
        let app1 = "app1".parse().unwrap();
        let observed = Observed {
            revision: Revision(1),
            store_data: Some(false),
            ..Observed::nothing_on(app1)
        };
        let mut facts = Facts::default();
        let mut observe = |placement: &Placement, seconds| {
            let now = Time::from_start(Duration::from_secs(seconds));
            let observed = BTreeMap::from([(app1, observed.clone())]);
            facts.observe(now, placement, Revision(1), observed);
            let settled = settled(&desired, placement, Revision(1), &facts);
            let text = "app1 has lost the data of its store member".to_string();
            (settled.unwrap_err().contains(&text), facts.lost_members())
        };
        assert_eq!(observe(&placement, 0), (true, BTreeSet::new()));
        assert_eq!(observe(&placement, 9), (true, BTreeSet::new()));
        assert_eq!(observe(&placement, 10), (true, BTreeSet::from([app1])));
        placement.store_joining = Some(app1);
        assert_eq!(observe(&placement, 11), (false, BTreeSet::new()));
        placement.store_begun = Some(app1);
        assert!(observe(&placement, 12).0);
    }
}
