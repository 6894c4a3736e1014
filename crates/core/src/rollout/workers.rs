//! Workers: processes on application servers that no request is sent to.
//!
//! They follow the instances. A release reaches them once all instances have come up with it, so one that is given up never does. One worker
//! is replaced at a time: stopped, and then started anew under its name.

use super::RollOutStep;
use super::view::View;
use gaiola_model::config::{Config, Worker};
use gaiola_model::placement::{InstanceState, PlacedWorker, Template};
use gaiola_model::{Desired, Placement, ServerName, WorkerKind, WorkerName};
use std::collections::BTreeSet;

/// The workers that there should be, where these application servers take traffic. One stays where it is placed as long as that server
/// does.
pub(super) fn wanted(
    config: &Config,
    placement: &Placement,
    servers: &[ServerName],
) -> BTreeSet<WorkerName> {
    let kinds = config.workers.iter();
    let all = kinds.flat_map(|(kind, worker)| {
        let servers = servers_of(kind, worker, placement, servers).into_iter();
        servers.flat_map(move |server| {
            (1..=worker.instances).map(move |number| WorkerName {
                server,
                kind: kind.clone(),
                number,
            })
        })
    });
    all.collect()
}

fn servers_of(
    kind: &WorkerKind,
    worker: &Worker,
    placement: &Placement,
    servers: &[ServerName],
) -> Vec<ServerName> {
    let has_it = |server: &&ServerName| {
        let mut placed = placement.workers.keys();
        placed.any(|name| name.kind == *kind && name.server == **server)
    };
    let (first, then): (Vec<&ServerName>, Vec<_>) = servers.iter().partition(has_it);
    let most = worker.servers.map_or(usize::MAX, usize::from);
    first.into_iter().chain(then).take(most).copied().collect()
}

/// What a worker should be made from, where this is what instances are made from.
pub(super) fn place(
    worker: &Worker,
    good: &Template,
    desired: &Desired,
    server: ServerName,
) -> PlacedWorker {
    PlacedWorker {
        release: good.release,
        run: worker.run.clone(),
        database: good.database,
        env: good.env,
        restart: desired.restarts.get(&server).copied().unwrap_or_default(),
    }
}

impl View<'_> {
    /// Whether a worker runs as it is placed, for a while already; otherwise why not.
    pub(crate) fn worker_runs(&self, name: &WorkerName) -> Result<(), String> {
        let Some(placed) = self.placement.workers.get(name) else {
            return Err("is not placed yet".into());
        };
        let Some(observed) = self.live(name.server) else {
            return Err(format!("is on {}, which is silent", name.server));
        };
        let Some(seen) = observed.workers.get(name) else {
            return Err("has not been started yet".into());
        };
        let is_current = (seen.release, &seen.run) == (placed.release, &placed.run);
        match seen.state {
            _ if !is_current || observed.revision < self.at => {
                Err("may still run from another release or command".into())
            }
            InstanceState::Ready => Ok(()),
            _ if seen.reason.is_empty() => Err("is not ready".into()),
            _ => Err(seen.reason.clone()),
        }
    }
}

impl RollOutStep<'_> {
    /// Brings the workers closer to what the instances run. Their sections of the file are taken over once the release that they belong to has
    /// come up: until then workers stay what they are, also if it is given up.
    pub(super) fn place_workers(&mut self) {
        // Until the first release has come up there is nothing to follow.
        let Some(good) = self.plan.good.clone() else {
            return;
        };
        if !self.all_can("run workers") {
            return;
        }
        if self.is_current(&good) {
            let sections = &self.desired.config.workers;
            self.plan.config.workers.clone_from(sections);
        }
        let servers: Vec<ServerName> = self.main_servers().collect();
        let wanted = wanted(&self.plan.config, &self.plan, &servers);
        self.stop_workers(&wanted);
        self.start_workers(wanted, &good);
        self.replace_worker(&good);
    }

    fn stop_workers(&mut self, wanted: &BTreeSet<WorkerName>) {
        let surplus = self.plan.workers.keys();
        let surplus = surplus.filter(|name| !wanted.contains(name));
        for name in surplus.cloned().collect::<Vec<_>>() {
            self.plan.workers.remove(&name);
            self.report(name.server, format!("{name} is stopped"));
        }
    }

    fn start_workers(&mut self, wanted: BTreeSet<WorkerName>, good: &Template) {
        for name in wanted {
            if self.plan.workers.contains_key(&name) {
                continue;
            }
            if let Some(old) = self.still_runs(&name) {
                let why = format!("to start {name}: {old} is being stopped");
                self.wait(name.server, why);
                continue;
            }
            let placed = place(self.worker(&name), good, self.desired, name.server);
            let release = placed.release;
            self.plan.workers.insert(name.clone(), placed);
            self.report(
                name.server,
                format!("{name} is started from release {release}"),
            );
        }
    }

    /// A worker of the same kind that runs and should not, where no more servers may run one. On a server that is dead none is seen.
    fn still_runs(&self, name: &WorkerName) -> Option<WorkerName> {
        self.worker(name).servers?;
        let seen = self.view.facts.observed.values();
        let mut seen = seen.flat_map(|observed| observed.workers.keys());
        let is_old =
            |old: &&WorkerName| old.kind == name.kind && !self.plan.workers.contains_key(old);
        seen.find(is_old).cloned()
    }

    /// Replaces one that is not as it should be, if all that are do run.
    fn replace_worker(&mut self, good: &Template) {
        if self.plan != *self.view.placement {
            return; // First let this become known.
        }
        let is_old = |(name, placed): (&WorkerName, &PlacedWorker)| {
            let wanted = place(self.worker(name), good, self.desired, name.server);
            (*placed != wanted).then(|| (name.clone(), wanted))
        };
        let Some((name, wanted)) = self.plan.workers.iter().find_map(is_old) else {
            return;
        };
        let mut current = self
            .plan
            .workers
            .iter()
            .filter(|worker| is_old(*worker).is_none());
        if let Some(old) = self.still_runs(&name) {
            let why = format!("to replace {name}: {old} is being stopped");
            return self.wait(name.server, why);
        }
        let unready = current.find_map(|(name, _)| {
            let why = self.view.worker_runs(name).err()?;
            Some((
                name.server,
                format!("to replace the next worker: {name} {why}"),
            ))
        });
        if let Some((server, why)) = unready {
            return self.wait(server, why);
        }
        let release = wanted.release;
        self.report(
            name.server,
            format!("{name} is restarted from release {release}"),
        );
        self.plan.workers.insert(name, wanted);
    }

    /// The section of a worker that there should be.
    fn worker(&self, name: &WorkerName) -> &Worker {
        &self.plan.config.workers[&name.kind]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Facts, first, next};
    use gaiola_model::Revision;
    use gaiola_model::config::App;
    use gaiola_model::inventory::Inventory;
    use gaiola_model::placement::{Failure, Release, ReleaseNumber};

    #[test]
    fn a_worker_that_a_release_removes_goes_on_until_that_release_has_come_up() {
        let mut config = Config::new("site".parse().unwrap(), App::new("run"));
        config.app.servers = 1;
        let mail = Worker::new("mail");
        config.workers.insert("mail".parse().unwrap(), mail);
        let inventory = Inventory::numbered(&config, [10, 77]);
        let release = |number| Release {
            number: ReleaseNumber(number),
            digest: String::new(),
        };
        let mut desired = Desired::first(config, release(1), inventory);
        let mut placement = first(&desired, "a".into());
        let step = |desired: &Desired, placement: &mut Placement| {
            let next = next(desired, placement, Revision(1), &Facts::default());
            if let Some(new) = next.placement {
                *placement = new;
            }
            let names = placement.workers.keys().map(ToString::to_string);
            names.collect::<Vec<_>>()
        };
        assert!(step(&desired, &mut placement).is_empty());
        let good = |desired: &Desired, placement: &Placement| {
            Some(super::super::instances::wanted(desired, placement))
        };
        placement.good = good(&desired, &placement);
        assert_eq!(step(&desired, &mut placement), ["app1.mail.1"]);

        desired.generation += 1;
        desired.release = release(2);
        desired.config.workers.clear();
        assert_eq!(step(&desired, &mut placement), ["app1.mail.1"]);
        placement.failed = Some(Failure {
            generation: desired.generation,
            release: ReleaseNumber(2),
            attempt: 0,
            instance: None,
            settings: false,
            reason: String::new(),
        });
        assert_eq!(step(&desired, &mut placement), ["app1.mail.1"]);
        placement.failed = None;
        placement.good = good(&desired, &placement);
        assert!(step(&desired, &mut placement).is_empty());
    }
}
