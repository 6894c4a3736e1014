//! One simulated server: its agent, proxy, instances and PostgreSQL, each at its own pace.

use super::processes::Processes;
use super::{LEASE, Sabotage, World};
use crate::store::Value;
use crate::violation::{Rule, Violation};
use gaiola_core::conduct::OrderId;
use gaiola_core::rollout::SILENCE;
use gaiola_model::placement::{
    BootNumber, DatabaseRole, ObservedDatabase, ObservedProxy, ReleaseOutcome, ReleaseRun,
};
use gaiola_model::resources::Resources;
use gaiola_model::{
    InstanceName, Observed, Placement, Revision, ServerName, Time, UnixTime, WorkerName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

pub(super) struct Machine {
    /// Its current boot.
    pub(super) boot: BootNumber,
    pub(super) off_until: Time,
    /// Cut off from the store; its agent continues with what it has.
    pub(super) cut_off_until: Time,
    /// Its agent was frozen after it had read this placement, and carries it out when it wakes.
    pub(super) frozen_with: Option<(Time, Revision)>,
    pub(super) agent_down_until: Time,
    pub(super) proxy_down_until: Time,
    pub(super) proxy_stalled_until: Time,
    lease_renewed: Time,
    /// Since when it has published nothing under a lease.
    silent_since: Option<Time>,
    /// When it was last silent for so long that it counted as dead.
    pub(super) last_dead: Option<Time>,
    /// The revision of its report in the store.
    published_at: Revision,
    /// The order on its disk; 0: none.
    disk: Revision,
    /// The placement that the agent has carried out.
    pub(super) known: Revision,
    pub(super) proxy: Option<ObservedProxy>,
    pub(super) processes: Processes,
    /// Since when its agent runs and is not frozen.
    pub(super) awake_since: Time,
    pub(super) vips: BTreeSet<IpAddr>,
    pub(super) database: Option<Postgres>,
    /// The runs of the `release` command in this boot, each with the time of its end: in `/run`, lost with the power.
    release_runs: Vec<(Time, ReleaseOutcome)>,
    /// The runs of a cron that began on this boot: when each was due, and when it ends.
    pub(super) crons: BTreeMap<UnixTime, Time>,
    /// What it last wrote to the store.
    pub(super) published: Option<Observed>,
}

pub(super) struct Postgres {
    pub(super) role: DatabaseRole,
    pub(super) cloned_at: Time,
    /// What its rules say that are installed.
    pub(super) requires_tls: Option<bool>,
}

impl Machine {
    fn new(now: Time, takes: Duration, boot: BootNumber) -> Self {
        Self {
            boot,
            off_until: now + takes,
            cut_off_until: now,
            frozen_with: None,
            agent_down_until: now,
            proxy_down_until: now,
            proxy_stalled_until: now,
            lease_renewed: now,
            silent_since: Some(now),
            last_dead: None,
            published_at: Revision(0),
            disk: Revision(0),
            known: Revision(0),
            proxy: None,
            processes: Processes::default(),
            awake_since: now,
            vips: BTreeSet::new(),
            database: None,
            release_runs: Vec::new(),
            crons: BTreeMap::new(),
            published: None,
        }
    }

    pub(super) fn is_on(&self, now: Time) -> bool {
        now >= self.off_until
    }

    pub(super) fn has_agent(&self, now: Time) -> bool {
        self.is_on(now) && now >= self.agent_down_until
    }

    pub(super) fn has_lease(&self, now: Time) -> bool {
        self.published.is_some() && now - self.lease_renewed < LEASE
    }

    /// For how long it has had no lease.
    pub(super) fn silent_for(&self, now: Time) -> Duration {
        self.silent_since
            .map_or(Duration::ZERO, |since| now - since)
    }

    /// Power loss: everything not on disk is lost. `next`: the boot it comes back with.
    pub(super) fn lose_power(&mut self, until: Time, next: BootNumber) {
        self.boot = next;
        self.off_until = until;
        self.frozen_with = None;
        self.release_runs.clear();
        self.crons.clear();
        self.proxy = None;
        self.processes.clear();
        self.vips.clear();
        self.known = Revision(0);
    }

    /// Its order is lost with its disk. Its PostgreSQL keeps its role, which Patroni would move.
    pub(super) fn lose_disk(&mut self) {
        self.disk = Revision(0);
    }

    /// Takes note of its report in the store, and of how long there has been none.
    pub(super) fn see_report(&mut self, now: Time, report: Option<(Revision, &Value)>) {
        match report {
            Some((at, _)) if at == self.published_at => {}
            Some((at, Value::Observed(observed))) => {
                self.published = Some((**observed).clone());
                self.published_at = at;
                self.silent_since = None;
            }
            _ => {
                self.published = None;
                self.published_at = Revision(0);
                self.silent_since.get_or_insert(now);
            }
        }
        if self.silent_for(now) >= SILENCE {
            self.last_dead = Some(now);
        }
    }

    /// Whether a conductor may still leave it out: it is silent for long enough, or was `lag` ago.
    pub(super) fn is_left_out(&self, now: Time, lag: Duration) -> bool {
        let recently = self.last_dead.is_some_and(|at| now - at <= lag);
        self.silent_for(now) >= SILENCE || recently
    }

    /// The workers that run on it.
    pub(super) fn running_workers(&self) -> impl Iterator<Item = WorkerName> {
        self.processes.running_workers()
    }

    /// Whether its agent carries out this order.
    pub(super) fn knows(&self, at: Revision) -> bool {
        self.known == at
    }

    pub(super) fn is_ready(&self, name: InstanceName) -> bool {
        self.processes.is_ready(name)
    }

    pub(super) fn observe(&self, server: ServerName, now: Time) -> Observed {
        Observed {
            reads: gaiola_model::schema::SCHEMA,
            server,
            boot: self.boot,
            revision: self.known,
            proxy: self.proxy.clone(),
            vips: self.vips.clone(),
            instances: self.processes.observed(),
            workers: self.processes.observed_workers(),
            database: self.database.as_ref().map(|database| database.observe(now)),
            crons: self.ended_crons(now),
            release_run: self.finished_release(now).cloned(),
            store_data: None,
            resources: Resources::default(),
            unlimited: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// The last finished run.
    fn finished_release(&self, now: Time) -> Option<&ReleaseOutcome> {
        let mut runs = self.release_runs.iter().rev();
        let ended = runs.find(|(at, _)| now >= *at);
        ended.map(|(_, outcome)| outcome)
    }

    /// Runs of the `release` command that have not ended.
    pub(super) fn running_releases(&self, now: Time) -> usize {
        let running = self.release_runs.iter().filter(|(at, _)| now < *at);
        running.count()
    }
}

impl Postgres {
    fn observe(&self, now: Time) -> ObservedDatabase {
        let state = if now >= self.cloned_at {
            "streaming"
        } else {
            "starting"
        };
        ObservedDatabase {
            role: self.role,
            state: state.into(),
            timeline: 1,
            lag_bytes: Some(0),
            requires_tls: self.requires_tls,
            ..ObservedDatabase::default()
        }
    }
}

impl World {
    /// Advances all servers by one tick.
    pub(super) fn move_machines(&mut self) -> Result<(), Violation> {
        self.provide();
        let servers: Vec<ServerName> = self.machines.keys().copied().collect();
        for server in &servers {
            if self.site.is_some() {
                self.move_ordered_agent(*server)?
            } else {
                self.move_agent(*server)?
            }
            self.see_awake(*server);
            self.move_processes(*server)?;
            self.see_prepared(*server);
        }
        self.move_vips();
        self.move_database();
        for server in &servers {
            self.move_proxy(*server);
            if self.site.is_none() {
                self.publish(*server);
            }
        }
        if self.site.is_none() && self.rng.u8(..40) == 0 {
            // The member of a server that moves to another machine leaves before it.
            let members = match self.hosts {
                0 => gaiola_core::rollout::store_members(&self.desired.config),
                _ => gaiola_core::members::wanted(&self.store.placement),
            };
            self.store_members = members.into_iter().collect();
        }
        Ok(())
    }

    /// The lab: a server exists while the placement has it.
    fn provide(&mut self) {
        let placed = &self.store.placement.servers;
        for (server, machine) in self
            .machines
            .extract_if(.., |server, _| !placed.contains_key(server))
        {
            self.ended_boots.push((server, machine.boot));
            if let Some(site) = &mut self.site {
                site.members.lose_log(server);
            }
        }
        for server in placed.keys() {
            let takes = Duration::from_millis(self.rng.u64(500..6000));
            let now = self.now;
            self.machines.entry(*server).or_insert_with(|| {
                self.boots.0 += 1;
                Machine::new(now, takes, self.boots)
            });
        }
        let reports = self.site.is_none() && self.now >= self.store_dark_until;
        if reports && self.rng.u8(..8) == 0 {
            for (server, boot) in self.ended_boots.drain(..) {
                let over = self.facts.over.entry(server).or_default();
                *over = boot.max(*over);
            }
        }
    }

    fn move_agent(&mut self, server: ServerName) -> Result<(), Violation> {
        let now = self.now;
        let machine = &self.machines[&server];
        if !machine.has_agent(now) {
            return Ok(());
        }
        if let Some((until, at)) = machine.frozen_with {
            return if now < until {
                Ok(())
            } else {
                self.wake(server, at)
            };
        }
        if now < self.store_dark_until.max(machine.cut_off_until) {
            return Ok(());
        }
        let behind = machine.known < self.store.at;
        if behind && self.rng.u8(..10) < 6 {
            self.carry_out(server, self.store.at)?;
        }
        if let Some(machine) = self.machines.get_mut(&server) {
            machine.lease_renewed = now;
        }
        Ok(())
    }

    /// An agent that learns its orders from its own view of the store, and has the last one on its disk.
    fn move_ordered_agent(&mut self, server: ServerName) -> Result<(), Violation> {
        let now = self.now;
        let machine = &self.machines[&server];
        if !machine.has_agent(now) {
            return Ok(());
        }
        if let Some((until, at)) = machine.frozen_with {
            return if now < until {
                Ok(())
            } else {
                self.wake(server, at)
            };
        }
        let (known, disk) = (machine.known, machine.disk);
        if known < disk {
            self.carry_out(server, disk)?;
        }
        let site = self.site.as_ref();
        let seen = site.and_then(|site| site.sessions.get(&server)?.view.placement.clone());
        let Some((at, _)) = seen else {
            return Ok(());
        };
        let order = |revision| OrderId {
            incarnation: "sim",
            revision,
        };
        let takes_any = site.is_some_and(|site| site.sabotage == Some(Sabotage::AnyOrder));
        let known = self.machines[&server].known;
        let takes = order(known).yields_to(&order(at)) || (takes_any && at != known);
        if takes && self.rng.u8(..10) < 6 {
            self.carry_out(server, at)
        } else {
            Ok(())
        }
    }

    /// A frozen agent continues where it stopped, with the placement that was the newest then.
    fn wake(&mut self, server: ServerName, at: Revision) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&server).expect("it is there");
        machine.frozen_with = None;
        if machine.known < at {
            self.carry_out(server, at)?;
        }
        Ok(())
    }

    /// Makes the server match the placement of this revision.
    fn carry_out(&mut self, server: ServerName, at: Revision) -> Result<(), Violation> {
        self.check_order(server, at)?;
        let placement = self.held(at).expect("it was stored").clone();
        self.order_processes(server, &placement)?;
        self.run_release(server, &placement)?;
        self.run_crons(server, &placement)?;
        let machine = self.machines.get_mut(&server).expect("it is there");
        (machine.known, machine.disk) = (at, at);
        Ok(())
    }

    fn check_order(&self, server: ServerName, at: Revision) -> Result<(), Violation> {
        let machine = &self.machines[&server];
        // Without a session of its own an agent begins with the store's current order.
        let held = match self.site {
            Some(_) => machine.known.max(machine.disk),
            None => machine.known,
        };
        if at < held {
            let how = format!("{server} carries out order {at}, and has {held}");
            Err(Rule::NoOrderGoesBack.broken(how))
        } else {
            Ok(())
        }
    }

    /// Starts the run ordered for this boot, or stops it; a finished one is not started again.
    fn run_release(&mut self, server: ServerName, placement: &Placement) -> Result<(), Violation> {
        let now = self.now;
        // Some take longer than the time after which a silent server counts as dead.
        let longest = if self.rng.u8(..3) == 0 { 60_000 } else { 5_000 };
        let takes = Duration::from_millis(self.rng.u64(200..longest));
        let fails = |order: &ReleaseRun| self.unpreparable.contains(&order.release);
        let machine = self.machines.get_mut(&server).expect("it is there");
        let order = placement.release_run.as_ref();
        let order = order.filter(|run| run.server == server && run.boot == machine.boot);
        let is_of = |(_, outcome): &&mut (Time, ReleaseOutcome), order: &ReleaseRun| {
            (outcome.release, outcome.generation) == (order.release, order.generation)
        };
        let Some(order) = order else { return Ok(()) };
        let mut held = machine.release_runs.iter_mut();
        match held.find(|held| is_of(held, order)) {
            Some((at, outcome)) if order.stop && now < *at => {
                *at = now + takes.min(Duration::from_secs(10));
                outcome.error = Some("was stopped".into());
            }
            Some(_) => {}
            None => {
                let error = (fails(order) || order.stop).then(|| "exit status 1".into());
                let outcome = ReleaseOutcome {
                    release: order.release,
                    command: order.command.clone(),
                    generation: order.generation,
                    error,
                };
                let takes = if order.stop { Duration::ZERO } else { takes };
                machine.release_runs.push((now + takes, outcome));
            }
        }
        self.check_release_runs()
    }

    /// An agent that does not run, or is frozen, is not awake.
    fn see_awake(&mut self, server: ServerName) {
        let now = self.now;
        let machine = self.machines.get_mut(&server).expect("it is there");
        if !machine.has_agent(now) || machine.frozen_with.is_some() {
            machine.awake_since = now;
        }
    }

    /// Takes note of a release that was prepared.
    fn see_prepared(&mut self, server: ServerName) {
        let (now, machine) = (self.now, &self.machines[&server]);
        if !machine.is_on(now) {
            return;
        }
        let ended = machine.release_runs.iter().filter(|(at, _)| now >= *at);
        for (_, outcome) in ended.filter(|(_, outcome)| outcome.error.is_none()) {
            self.checker.saw_release(outcome.release);
        }
    }

    fn publish(&mut self, server: ServerName) {
        let now = self.now;
        let publishes = self.rng.u8(..10) < 7 && now >= self.store_dark_until;
        let machine = self.machines.get_mut(&server).expect("it is there");
        let publishes = publishes && now >= machine.cut_off_until && machine.frozen_with.is_none();
        if now - machine.lease_renewed >= LEASE {
            machine.published = None;
            machine.silent_since.get_or_insert(now);
        }
        let is_leased = now - machine.lease_renewed < LEASE;
        if publishes && is_leased && machine.has_agent(now) && machine.known > Revision(0) {
            machine.silent_since = None;
            machine.published = Some(machine.observe(server, now));
        }
    }
}
