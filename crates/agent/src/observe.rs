//! What the agent observes on its own server: its report, and the figures of its metrics.

use super::Agent;
use super::balancer::Balancer;
use super::database::Database;
use super::instances::{InstanceAnswers, PollCheck, PollTarget};
use super::metrics::Figures;
use super::secrets::Hidden;
use super::supervisor::Condition;
use crate::state::Order;
use gaiola_core::topology;
use gaiola_model::placement::{
    InstanceState, ObservedInstance, Phase, PlacedInstance, PlacedWorker, ReleaseNumber,
};
use gaiola_model::schema::{SCHEMA, unnumbered};
use gaiola_model::{InstanceName, Observed, Revision, WorkerName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A worker that has run for so long is taken to run: nothing else says so of a process that answers nobody.
const STEADY: Duration = Duration::from_secs(3);

impl Agent {
    /// The instances with a running process, and how to poll them.
    pub(super) fn asked(&self, order: &Order) -> BTreeMap<InstanceName, PollTarget> {
        let config = &order.placement.config;
        let usual = &config.app.health;
        let asked = self.supervisor.running().filter_map(|(name, pid)| {
            let name = name.parse::<InstanceName>().ok()?;
            let placed = order.placement.instances.get(&name)?;
            let mut address = topology::instance_listens(&order.placement, name)?;
            let port = config.app.check.port.filter(|_| !placed.encrypted);
            let own = port.map(|_| address);
            if let Some(port) = port {
                address.set_port(port);
            }
            let target = PollTarget {
                address,
                own,
                path: placed.health.as_ref().unwrap_or(usual).clone(),
                check: PollCheck::of(config),
                pid,
            };
            Some((name, target))
        });
        asked.collect()
    }

    /// The state of this server, as it is reported.
    pub(super) fn observe(&self) -> Observed {
        let known = self.proxy_known.borrow().clone();
        let mut proxy = known.proxy;
        if let Some(proxy) = proxy.as_mut().filter(|_| !is_draining(&self.order)) {
            // Only a change that waits for requests to end needs these; otherwise each count would change the report.
            proxy.in_flight.clear();
        }
        if let Some(proxy) = &mut proxy {
            proxy.lacks = self.lacking_files(known.files.as_ref());
        }
        let (balancer, database) = (self.balancer.as_ref(), self.database.as_ref());
        let observed = Observed {
            server: self.boot.server,
            reads: self.reads(),
            boot: self.boot.number,
            revision: self.order.revision,
            proxy,
            vips: balancer.map(held).unwrap_or_default(),
            instances: self.instances(),
            workers: self.workers(),
            database: database.and_then(Database::observed),
            crons: self.ended_crons(),
            release_run: self.release_outcome(),
            store_data: Some(self.boot.store_data().exists()),
            resources: self.left.borrow().reported.clone(),
            unlimited: self.supervisor.unlimited(),
            troubles: self.troubles(known.rejected.as_deref()),
        };
        up_to(self.saved, observed)
    }

    /// What the metrics are made of.
    pub(super) fn figures(&self, observed: &Observed) -> Figures {
        let (balancer, database) = (self.balancer.as_ref(), self.database.as_ref());
        Figures {
            observed: Some(observed.clone()),
            keeper: balancer.map(|balancer| balancer.state().clone()),
            left: self.left.borrow().reading.clone(),
            restarts: self.supervisor.all_restarts(),
            lag_bytes: database.and_then(Database::lag_bytes),
        }
    }

    /// The newest schema that this agent reads, and with it the keeper and the proxy here: a program that was replaced since they
    /// were started may be older.
    fn reads(&self) -> u64 {
        let keeper = match (&self.balancer, &self.database) {
            (Some(balancer), _) => Some(balancer.keeper_reads()),
            (None, Some(database)) => Some(database.keeper_reads()),
            (None, None) => None,
        };
        // One that has not reported yet may be of the oldest program.
        let keeper = keeper.map(|reads| reads.unwrap_or(unnumbered()));
        let others = [self.supervisor.reads(), keeper].into_iter().flatten();
        others.fold(SCHEMA, u64::min)
    }

    fn instances(&self) -> BTreeMap<InstanceName, ObservedInstance> {
        let answers = self.answers.borrow();
        let placed = self.order.placement.instances.iter();
        let here = placed.filter(|(name, _)| name.server == self.boot.server);
        let observed = here
            .filter_map(|(name, placed)| Some((*name, self.instance(*name, placed, &answers)?)));
        observed.collect()
    }

    /// The workers that are placed here, and those that are being stopped.
    fn workers(&self) -> BTreeMap<WorkerName, ObservedInstance> {
        let placed = self.order.placement.workers.iter();
        let here = placed.filter(|(name, _)| name.server == self.boot.server);
        let here =
            here.filter_map(|(name, placed)| Some((name.clone(), self.worker(name, placed)?)));
        let stopping = self.supervisor.being_stopped();
        let stopping = stopping.filter_map(|name| name.parse::<WorkerName>().ok());
        let stopping = stopping.map(|name| (name, ObservedInstance::being_stopped()));
        let mut all: BTreeMap<_, _> = stopping.collect();
        all.extend(here);
        all
    }

    /// The state of a worker; `None` before its process is wanted.
    fn worker(&self, name: &WorkerName, placed: &PlacedWorker) -> Option<ObservedInstance> {
        let process = name.to_string();
        let (state, reason) = match self.supervisor.condition(&process)? {
            Condition::Running if self.supervisor.has_run_for(&process, STEADY) => {
                (InstanceState::Ready, String::new())
            }
            Condition::Running => (InstanceState::Starting, "was started just now".into()),
            other => self.not_running(other, &process, &placed.run, placed.env),
        };
        Some(self.seen(&process, (placed.release, &placed.run), (state, reason)))
    }

    /// A process that was started from this release with this command, in this state for this reason.
    fn seen(
        &self,
        process: &str,
        (release, run): (ReleaseNumber, &str),
        (state, reason): (InstanceState, String),
    ) -> ObservedInstance {
        ObservedInstance {
            release,
            run: run.into(),
            state,
            restarts: self.supervisor.restarts(process),
            reason,
        }
    }

    /// The state of a process that does not run, and why.
    fn not_running(
        &self,
        condition: Condition,
        process: &str,
        command: &str,
        env: u64,
    ) -> (InstanceState, String) {
        match condition {
            Condition::Starting | Condition::Running => {
                (InstanceState::Starting, "is being started".into())
            }
            Condition::Down(why) => {
                let hidden = Hidden {
                    command,
                    secrets: self.environments.secrets(env),
                };
                let cause = self.logs.cause(process, hidden);
                (InstanceState::Crashed, format!("{why}{cause}"))
            }
            Condition::Stopping => (InstanceState::Stopping, "is being stopped".into()),
        }
    }

    /// The state of an instance; `None` before its process is wanted.
    fn instance(
        &self,
        name: InstanceName,
        placed: &PlacedInstance,
        answers: &InstanceAnswers,
    ) -> Option<ObservedInstance> {
        let process = name.to_string();
        let (state, reason) = match self.supervisor.condition(&process)? {
            Condition::Running => match answers.get(&name) {
                Some(answer) => (answer.state, answer.reason.clone().unwrap_or_default()),
                None => (InstanceState::Starting, "has not answered yet".into()),
            },
            other => self.not_running(other, &process, &placed.run, placed.env),
        };
        Some(self.seen(&process, (placed.release, &placed.run), (state, reason)))
    }
}

/// A report that acknowledges no order newer than the one that is on the disk.
fn up_to(saved: Revision, mut observed: Observed) -> Observed {
    observed.revision = observed.revision.min(saved);
    if let Some(proxy) = &mut observed.proxy {
        proxy.revision = proxy.revision.min(saved);
    }
    observed
}

/// Whether anything is draining, so that the requests in flight matter.
fn is_draining(order: &Order) -> bool {
    let placement = &order.placement;
    let servers = placement.servers.values().map(|server| server.phase);
    let instances = placement.instances.values().map(|instance| instance.phase);
    servers.chain(instances).any(|phase| phase == Phase::Drain)
}

fn held(balancer: &Balancer) -> BTreeSet<IpAddr> {
    balancer.held()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::placement::ObservedProxy;

    #[test]
    fn an_order_that_is_not_on_the_disk_is_not_acknowledged() {
        let carried_out = Observed {
            revision: Revision(8),
            proxy: Some(ObservedProxy {
                revision: Revision(8),
                ..ObservedProxy::default()
            }),
            ..Observed::nothing_on("lb1".parse().unwrap())
        };
        for (saved, acknowledged) in [(7, 7), (8, 8), (9, 8)] {
            let seen = up_to(Revision(saved), carried_out.clone());
            let both = [seen.revision, seen.proxy.unwrap().revision];
            assert_eq!(both, [Revision(acknowledged); 2], "{saved}");
        }
    }
}
