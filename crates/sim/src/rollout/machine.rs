//! One simulated server: its agent, proxy, instances and PostgreSQL, each in its own time.

use super::{LEASE, World};
use gaiola_model::placement::{
    DatabaseRole, InstanceState, ObservedDatabase, ObservedInstance, ObservedProxy, PlacedInstance,
    ReleaseNumber, ReleaseOutcome,
};
use gaiola_model::resources::Resources;
use gaiola_model::{InstanceName, Observed, Placement, Revision, ServerName, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) struct Machine {
    pub(super) off_until: Time,
    pub(super) agent_down_until: Time,
    pub(super) proxy_down_until: Time,
    pub(super) proxy_stalled_until: Time,
    lease_renewed: Time,
    /// Since when it has told nothing under a lease.
    silent_since: Option<Time>,
    /// The placement that the agent has carried out.
    pub(super) known: Revision,
    pub(super) proxy: Option<ObservedProxy>,
    pub(super) processes: BTreeMap<InstanceName, Process>,
    pub(super) vips: BTreeSet<Ipv4Addr>,
    pub(super) database: Option<Postgres>,
    release_run: Option<(Time, ReleaseOutcome)>,
    /// What it last wrote to the store.
    pub(super) published: Option<Observed>,
}

pub(super) struct Process {
    release: ReleaseNumber,
    run: String,
    pub(super) state: InstanceState,
    since: Time,
    pub(super) restarts: u32,
}

pub(super) struct Postgres {
    pub(super) role: DatabaseRole,
    pub(super) cloned_at: Time,
}

impl Machine {
    fn new(now: Time, boot: Duration) -> Self {
        Self {
            off_until: now + boot,
            agent_down_until: now,
            proxy_down_until: now,
            proxy_stalled_until: now,
            lease_renewed: now,
            silent_since: Some(now),
            known: Revision(0),
            proxy: None,
            processes: BTreeMap::new(),
            vips: BTreeSet::new(),
            database: None,
            release_run: None,
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

    /// Power goes: all that is not on disk is lost.
    pub(super) fn lose_power(&mut self, until: Time) {
        self.off_until = until;
        self.proxy = None;
        self.processes.clear();
        self.vips.clear();
        self.known = Revision(0);
    }

    pub(super) fn is_ready(&self, name: InstanceName) -> bool {
        let process = self.processes.get(&name);
        process.is_some_and(|process| process.state == InstanceState::Ready)
    }

    fn observe(&self, server: ServerName, now: Time) -> Observed {
        let instance = |(name, process): (&InstanceName, &Process)| {
            let seen = ObservedInstance {
                release: process.release,
                run: process.run.clone(),
                state: process.state,
                restarts: process.restarts,
                reason: String::new(),
            };
            (*name, seen)
        };
        Observed {
            server,
            revision: self.known,
            proxy: self.proxy.clone(),
            vips: self.vips.clone(),
            instances: self.processes.iter().map(instance).collect(),
            database: self.database.as_ref().map(|database| database.observe(now)),
            release_run: self.finished_release(now),
            store_data: None,
            resources: Resources::default(),
            troubles: Vec::new(),
        }
    }

    fn finished_release(&self, now: Time) -> Option<ReleaseOutcome> {
        let (at, outcome) = self.release_run.as_ref()?;
        (now >= *at).then(|| outcome.clone())
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
            ..ObservedDatabase::default()
        }
    }
}

impl World {
    /// Everything that happens on servers in one tick.
    pub(super) fn move_machines(&mut self) -> Result<(), String> {
        self.provide();
        let servers: Vec<ServerName> = self.machines.keys().copied().collect();
        for server in &servers {
            self.move_agent(*server)?;
            self.move_processes(*server);
        }
        self.move_vips();
        self.move_database();
        for server in &servers {
            self.move_proxy(*server);
            self.publish(*server);
        }
        if self.rng.u8(..40) == 0 {
            self.store_members = gaiola_core::rollout::store_members(&self.desired.config)
                .into_iter()
                .collect();
        }
        Ok(())
    }

    /// The lab: a server is there while the placement says so.
    fn provide(&mut self) {
        let placed = &self.store.placement.servers;
        self.machines
            .retain(|server, _| placed.contains_key(server));
        for server in placed.keys() {
            let boot = Duration::from_millis(self.rng.u64(500..6000));
            let now = self.now;
            self.machines
                .entry(*server)
                .or_insert_with(|| Machine::new(now, boot));
        }
    }

    fn move_agent(&mut self, server: ServerName) -> Result<(), String> {
        let now = self.now;
        let machine = &self.machines[&server];
        if !machine.has_agent(now) || now < self.store_dark_until {
            return Ok(());
        }
        let behind = machine.known < self.store.at;
        if behind && self.rng.u8(..10) < 6 {
            self.carry_out(server)?;
        }
        if let Some(machine) = self.machines.get_mut(&server) {
            machine.lease_renewed = now;
        }
        Ok(())
    }

    /// Makes the server look like the newest placement.
    fn carry_out(&mut self, server: ServerName) -> Result<(), String> {
        let placement = self.store.placement.clone();
        let wanted: BTreeMap<InstanceName, &PlacedInstance> = placement
            .instances
            .iter()
            .filter(|(name, _)| name.server == server)
            .map(|(name, placed)| (*name, placed))
            .collect();
        let running = self.machines[&server].processes.iter();
        let wrong: Vec<InstanceName> = running
            .filter(|(name, process)| {
                wanted.get(name).is_none_or(|placed| {
                    (placed.release, &placed.run) != (process.release, &process.run)
                })
            })
            .map(|(name, _)| *name)
            .collect();
        for name in wrong {
            self.check_stop(name)?;
            self.machines
                .get_mut(&server)
                .expect("it is there")
                .processes
                .remove(&name);
        }
        self.start_release(server, &placement);
        let now = self.now;
        let at = self.store.at;
        let machine = self.machines.get_mut(&server).expect("it is there");
        for (name, placed) in wanted {
            machine.processes.entry(name).or_insert_with(|| Process {
                release: placed.release,
                run: placed.run.clone(),
                state: InstanceState::Starting,
                since: now,
                restarts: 0,
            });
        }
        machine.known = at;
        Ok(())
    }

    fn start_release(&mut self, server: ServerName, placement: &Placement) {
        let Some(order) = placement
            .release_run
            .as_ref()
            .filter(|run| run.server == server)
        else {
            return;
        };
        let machine = self.machines.get_mut(&server).expect("it is there");
        let is_new = machine.release_run.as_ref().is_none_or(|(_, outcome)| {
            (outcome.release, outcome.generation) != (order.release, order.generation)
        });
        if is_new {
            let fails = self.unpreparable.contains(&order.release);
            let outcome = ReleaseOutcome {
                release: order.release,
                command: order.command.clone(),
                generation: order.generation,
                error: fails.then(|| "exit status 1".into()),
            };
            let takes = Duration::from_millis(self.rng.u64(200..5000));
            machine.release_run = Some((self.now + takes, outcome));
        }
    }

    fn move_processes(&mut self, server: ServerName) {
        let now = self.now;
        let machine = self.machines.get_mut(&server).expect("it is there");
        if !machine.is_on(now) {
            return;
        }
        for process in machine.processes.values_mut() {
            let age = now - process.since;
            let sick = self.sick.contains(&process.release);
            match process.state {
                InstanceState::Starting if sick && process.release.0 % 2 == 0 => {
                    process.state = InstanceState::Crashed;
                    process.restarts += 1;
                    process.since = now;
                }
                InstanceState::Starting if sick => {}
                InstanceState::Starting
                    if age > Duration::from_secs(1) && self.rng.u8(..4) == 0 =>
                {
                    process.state = InstanceState::Ready;
                }
                InstanceState::Crashed | InstanceState::Unhealthy
                    if age > Duration::from_secs(1) =>
                {
                    process.state = InstanceState::Starting;
                    process.since = now;
                }
                _ => {}
            }
        }
        for (at, outcome) in machine.release_run.iter().filter(|(at, _)| now >= *at) {
            let _ = at;
            if outcome.error.is_none() {
                self.checker.saw_release(outcome.release);
            }
        }
    }

    fn publish(&mut self, server: ServerName) {
        let now = self.now;
        let publishes = self.rng.u8(..10) < 7 && now >= self.store_dark_until;
        let machine = self.machines.get_mut(&server).expect("it is there");
        if now - machine.lease_renewed >= LEASE {
            machine.published = None;
            machine.silent_since.get_or_insert(now);
        }
        if publishes && machine.has_agent(now) && machine.known > Revision(0) {
            machine.silent_since = None;
            machine.published = Some(machine.observe(server, now));
        }
    }
}
