//! Instances: how many there are, and how old ones are replaced with new ones, one at a time across the site.
//!
//! A new instance is started beside the old ones (a surge of one). Once it is ready and every proxy has found it up, one
//! old instance of the same server is drained and stopped; then the next one follows.

use super::environment;
use super::{MAX_CRASHES, READY_DEADLINE, RollOutStep};
use crate::topology::{self, TrafficTarget};
use gaiola_model::placement::{
    Encryption, InstanceState, Phase, PlacedInstance, ReleaseNumber, Template,
};
use gaiola_model::{Desired, InstanceName, Placement, Revision, ServerName, Tier};

/// What every instance runs once the desired state is reached.
///
/// Instances move behind their servers' proxies once everyone uses TLS: then none of their sessions with the database, which last as
/// long as they do, is in plain text. They leave their proxies once everyone accepts plain text again.
pub(super) fn wanted(desired: &Desired, placement: &Placement) -> Template {
    Template {
        release: desired.release.number,
        run: desired.config.app.run.clone(),
        health: desired.config.app.health.clone(),
        database: desired.config.database.is_some(),
        encrypted: match placement.encryption {
            Encryption::Off | Encryption::Accepted => false,
            Encryption::Used => desired.config.encrypts(),
            Encryption::Required => true,
        },
        env: environment::wanted(desired, placement),
    }
}

/// What every instance should run now: the desired template as soon as its release may start; until then, or if that
/// release was given up, the last good one.
pub(super) fn template(desired: &Desired, placement: &Placement) -> Option<Template> {
    let may_start = placement.released >= Some(desired.release.number);
    if placement.failed.is_none() && may_start {
        Some(wanted(desired, placement))
    } else {
        placement.good.clone()
    }
}

pub(super) fn place(template: &Template, desired: &Desired, server: ServerName) -> PlacedInstance {
    PlacedInstance {
        release: template.release,
        run: template.run.clone(),
        health: Some(template.health.clone()),
        database: template.database,
        encrypted: template.encrypted,
        env: template.env,
        restart: restart(desired, server),
        phase: Phase::Serve,
        since: Revision(0),
    }
}

fn restart(desired: &Desired, server: ServerName) -> u64 {
    desired.restarts.get(&server).copied().unwrap_or_default()
}

/// What makes the process of an instance another one: its release, command, database, place and environment. A different health path alone
/// needs no new process.
type Process<'a> = (ReleaseNumber, &'a str, bool, bool, u64);

fn process_of(it: &Template) -> Process<'_> {
    (it.release, &it.run, it.database, it.encrypted, it.env)
}

fn placed_process(it: &PlacedInstance) -> Process<'_> {
    (it.release, &it.run, it.database, it.encrypted, it.env)
}

/// Whether an instance runs what the template says, since the last requested restart.
pub(super) fn is_of(
    template: &Template,
    desired: &Desired,
    name: InstanceName,
    placed: &PlacedInstance,
) -> bool {
    placed_process(placed) == process_of(template)
        && placed.restart >= restart(desired, name.server)
}

/// The instances of one server that should serve, by number.
#[derive(Default)]
struct ServingInstances {
    new: Vec<InstanceName>,
    old: Vec<InstanceName>,
}

impl RollOutStep<'_> {
    /// What every instance should run now.
    pub(super) fn plan_template(&self) -> Option<Template> {
        template(self.desired, &self.plan)
    }

    /// Brings the instances closer to the desired state.
    pub(super) fn replace_instances(&mut self) {
        if let Some(failure) = &self.plan.failed {
            let text = format!("for another release: {}", failure.in_words());
            self.wait(None, text);
        }
        let Some(template) = self.plan_template() else {
            return;
        };
        self.ask_for_health(&template);
        let rolling = self
            .main_servers()
            .any(|server| !self.serving(server).old.is_empty());
        // While a release is being prepared nothing is replaced, even if more instances are wanted.
        let is_current = self.is_released() || self.plan.failed.is_some();
        if !rolling {
            self.count(&template);
        } else if is_current {
            self.roll(&template);
        } else {
            self.fill(&template);
        }
        self.remember_good(template);
    }

    /// Current instances are checked at the newest health path, those still to be replaced at their own.
    fn ask_for_health(&mut self, template: &Template) {
        for (name, placed) in &mut self.plan.instances {
            if is_of(template, self.desired, *name, placed) {
                placed.health = Some(template.health.clone());
            }
        }
    }

    /// Once all instances that take traffic serve and run from one template, that is the one to roll back to.
    fn remember_good(&mut self, template: Template) {
        // A release given up in this very step does not count.
        if self.plan_template().as_ref() != Some(&template) {
            return;
        }
        let wanted = self.wanted_count();
        let serves = |name: &InstanceName| self.view.instance_serves(*name).is_ok();
        let all_serve = |server| {
            let ServingInstances { new, old } = self.serving(server);
            old.is_empty() && new.len() >= wanted && new.iter().all(serves)
        };
        let servers: Vec<ServerName> = self.main_servers().collect();
        if !servers.is_empty() && servers.into_iter().all(all_serve) {
            self.plan.good = Some(template);
        }
    }

    /// Application servers that stay.
    fn app_servers(&self) -> impl Iterator<Item = ServerName> {
        let servers = topology::servers_of(&self.plan, Tier::App);
        servers.filter(|server| self.wants(*server))
    }

    /// Those of them that take traffic. The others, dead or drained, are replaced at the end, all at once.
    pub(super) fn main_servers(&self) -> impl Iterator<Item = ServerName> {
        self.app_servers().filter(|server| self.is_main(*server))
    }

    fn is_main(&self, server: ServerName) -> bool {
        topology::serves(&self.plan, server) && !self.view.is_dead(server)
    }

    fn serving(&self, server: ServerName) -> ServingInstances {
        let template = self.plan_template();
        let is_new = |name, placed| {
            let template = template.as_ref();
            template.is_none_or(|template| is_of(template, self.desired, name, placed))
        };
        let mut serving = ServingInstances::default();
        for (name, placed) in &self.plan.instances {
            if name.server == server && placed.phase == Phase::Serve {
                let list = if is_new(*name, placed) {
                    &mut serving.new
                } else {
                    &mut serving.old
                };
                list.push(*name);
            }
        }
        serving
    }

    /// Whether more instances of a server serve than it should have.
    pub(super) fn has_surplus(&self, server: ServerName) -> bool {
        let ServingInstances { new, old } = self.serving(server);
        new.len() + old.len() > self.wanted_count()
    }

    fn wanted_count(&self) -> usize {
        usize::from(self.desired.config.app.instances)
    }

    /// No old instance takes traffic: start what is missing, drain what is surplus.
    fn count(&mut self, template: &Template) {
        for server in self.app_servers().collect::<Vec<_>>() {
            let serving = self.serving(server);
            for name in &serving.old {
                self.drain_instance(*name);
            }
            self.start_missing(server, serving.new.len(), template);
            let mut surplus = serving.new;
            while surplus.len() > self.wanted_count() {
                let Some(victim) = self.spare(&surplus, &[]) else {
                    break;
                };
                surplus.retain(|name| *name != victim);
                self.drain_instance(victim);
            }
        }
    }

    /// Starts what is missing, whatever else runs.
    fn fill(&mut self, template: &Template) {
        for server in self.app_servers().collect::<Vec<_>>() {
            let ServingInstances { new, old } = self.serving(server);
            self.start_missing(server, new.len() + old.len(), template);
        }
    }

    fn start_missing(&mut self, server: ServerName, there: usize, template: &Template) {
        // What still runs on a silent server is unknown, so no number there is known to be free.
        if self.view.live(server).is_some() {
            for _ in there..self.wanted_count() {
                self.start_instance(server, template);
            }
        }
    }

    /// One small step of a replacement, if the step before it is over.
    fn roll(&mut self, template: &Template) {
        if self.plan != *self.view.placement {
            return; // First let this become known.
        }
        if let Err((server, why)) = self.step_is_over() {
            return self.wait(server, format!("to replace the next instance: {why}"));
        }
        for server in self.main_servers().collect::<Vec<_>>() {
            let ServingInstances { new, old } = self.serving(server);
            let total = new.len() + old.len();
            if total > self.wanted_count() {
                let (going, staying) = if old.is_empty() {
                    (new, old)
                } else {
                    (old, new)
                };
                return match self.spare(&going, &staying) {
                    Some(victim) => self.drain_instance(victim),
                    None => self.wait(server, format!("for more instances on {server} to serve")),
                };
            }
            if !old.is_empty() || total < self.wanted_count() {
                return self.start_instance(server, template);
            }
        }
    }

    /// Whether the template being started ran well before.
    fn is_known_good(&self) -> bool {
        let template = self.plan_template();
        let both = template.as_ref().zip(self.plan.good.as_ref());
        both.is_some_and(|(template, good)| process_of(template) == process_of(good))
    }

    /// Whether every proxy has the current placement and all started instances serve. One that never will ends the
    /// roll-out.
    fn step_is_over(&mut self) -> Result<(), (Option<ServerName>, String)> {
        if let Some(name) = self.being_drained() {
            return Err((Some(name.server), format!("{name} is being drained")));
        }
        for server in self.main_servers().collect::<Vec<_>>() {
            if self.view.live(server).is_none() {
                return Err((Some(server), format!("{server} is silent")));
            }
            for name in self.serving(server).new {
                let Err(why) = self.view.instance_serves(name) else {
                    continue;
                };
                // There is nothing to roll back to from a good release.
                if !self.is_known_good()
                    && let Some(why) = self.has_failed(name, &why.to_string())
                {
                    self.give_up(name, &why);
                }
                return Err((Some(server), format!("{name} {why}")));
            }
        }
        if !self.is_known_good() {
            self.compare()?;
        }
        let under_way = self
            .removal_under_way()
            .or_else(|| self.database_not_calm());
        if let Some(why) = under_way {
            return Err((None, why));
        }
        self.everyone_knows()
    }

    /// An instance whose drain can end. One behind an open door serves until another door is open, and whatever opens
    /// that must not wait for this instance.
    fn being_drained(&self) -> Option<InstanceName> {
        let drained = self.plan.instances.iter().filter(|(name, placed)| {
            placed.phase == Phase::Drain && self.is_main(name.server) && self.wants(name.server)
        });
        let mut ending = drained.filter(|(name, _)| {
            !self
                .view
                .is_reached_directly(TrafficTarget::Instance(**name))
        });
        ending.next().map(|(name, _)| *name)
    }

    /// Whether every proxy that sends to instances has acknowledged the current placement, and serves its files. So a number that
    /// became free is known to be free before another instance takes it, and pages find the files that they name. Where instances
    /// have proxies in front of them, or come to, so have these: the port of that number is the proxy's until then.
    fn everyone_knows(&self) -> Result<(), (Option<ServerName>, String)> {
        let stored = self.view.placement;
        let members = stored
            .instances
            .keys()
            .map(|name| TrafficTarget::Instance(*name));
        let senders = members
            .take(1)
            .flat_map(|member| topology::senders(stored, member));
        for sender in senders.filter(|sender| !self.view.is_dead(*sender)) {
            let known = self.view.proxy_with_releases_at(sender, self.view.at);
            known.map_err(|why| (Some(sender), format!("{sender} {why}")))?;
        }
        let in_front = self.main_servers().filter(|_| !stored.encryption.is_off());
        for server in in_front {
            let known = self.view.proxy_at(server, self.view.at);
            known.map_err(|why| (Some(server), format!("{server} {why}")))?;
        }
        Ok(())
    }

    /// Why a new instance that does not serve never will.
    fn has_failed(&self, name: InstanceName, why: &str) -> Option<String> {
        let seen = self.view.live(name.server)?.instances.get(&name);
        let crashed = seen.is_some_and(|seen| {
            seen.state == InstanceState::Crashed && seen.restarts >= MAX_CRASHES
        });
        if crashed {
            return Some(format!("{why} ({MAX_CRASHES} times)"));
        }
        let facts = self.view.facts;
        let unready_since = facts.unready_since.get(&name)?;
        let late = facts.now - *unready_since >= READY_DEADLINE;
        late.then(|| format!("{why}, {} s after it was started", READY_DEADLINE.as_secs()))
    }

    /// Ends the roll-out halfway: the old instances continue, the failed one is removed.
    fn give_up(&mut self, name: InstanceName, why: &str) {
        self.fail(name.server, Some(name), format!("{name} {why}"));
        self.drain_instance(name);
        self.publish_web_releases();
    }

    /// What blocks a server's removal: a replacement in the middle of a step.
    pub(super) fn replacement_in_progress(&self) -> Option<String> {
        if let Some(run) = &self.plan.release_run {
            return Some(self.view.run_in_words(run));
        }
        if let Some(name) = self.being_drained() {
            return Some(format!("{name} is being drained"));
        }
        let rolling = self
            .main_servers()
            .any(|server| !self.serving(server).old.is_empty());
        if !rolling {
            return None;
        }
        let mut started = self
            .main_servers()
            .flat_map(|server| self.serving(server).new);
        let unready = started.find(|name| self.view.instance_serves(*name).is_err());
        unready.map(|name| format!("{name} is being started"))
    }

    /// One of a server's instances to remove: one that does not serve itself, or else the highest while enough of all
    /// serve.
    fn spare(&self, going: &[InstanceName], staying: &[InstanceName]) -> Option<InstanceName> {
        let serves = |name: &&InstanceName| self.view.instance_serves(**name).is_ok();
        let idle = going.iter().rev().find(|name| !serves(name));
        let serving = going.iter().chain(staying).filter(serves).count();
        let highest = going.iter().max().filter(|_| serving > self.wanted_count());
        idle.or(highest).copied()
    }

    fn start_instance(&mut self, server: ServerName, template: &Template) {
        let name = self.free_name(server);
        let release = template.release;
        let placed = place(template, self.desired, server);
        self.plan.instances.insert(name, placed);
        self.report(server, format!("{name} is started from release {release}"));
    }

    /// The lowest number that no instance has, neither planned nor still running.
    fn free_name(&self, server: ServerName) -> InstanceName {
        let observed = self.view.live(server);
        let runs = |name: &InstanceName| {
            observed.is_some_and(|observed| observed.instances.contains_key(name))
        };
        let taken = |name: &InstanceName| {
            self.plan.instances.contains_key(name)
                || self.view.placement.instances.contains_key(name)
                || runs(name)
        };
        let mut names = (1..).map(|number| InstanceName { server, number });
        names
            .find(|name| !taken(name))
            .expect("not all numbers are taken")
    }

    pub(super) fn drain_instance(&mut self, name: InstanceName) {
        if let Some(placed) = self.plan.instances.get_mut(&name) {
            placed.phase = Phase::Drain;
            placed.since = Revision(0);
            self.report(name.server, format!("{name} is drained"));
        }
    }
}
