//! `gaiola agent`: makes its own server match the placement, and reports the server's state.
//!
//! It watches the store, inspects the server, plans and carries out, and repeats that on every change. What runs does not
//! depend on it: when it dies, traffic continues, and the next agent adopts every process.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod engine;
pub mod init;
pub mod keeper;
pub mod state;

#[cfg(test)]
mod slow_disk;

mod balancer;
mod changes;
mod conductor;
mod database;
mod instances;
mod logs;
mod metrics;
mod plan;
mod proxy;
mod release;
mod resources;
mod secrets;
mod session;
mod supervisor;
mod tickets;

use crate::state::{Boot, Order, read_document};
use balancer::Balancer;
use gaiola_core::members::{self, Fate};
use gaiola_core::topology::{self, Paths};
use gaiola_model::event::{Event, Severity, Subject};
use gaiola_model::placement::{InstanceState, ObservedInstance, Revision};
use gaiola_model::schema::SCHEMA;
use gaiola_model::{InstanceName, Observed, Tier};
use gaiola_os::process::reap_all;
use gaiola_store::events::{self, Events};
use gaiola_store::view::{self, Keys, View};
use gaiola_store::{Settings, Store, etcd};
use instances::{Answers, Asked};
use metrics::Figures;
use plan::DatabaseUrls;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use supervisor::{Condition, Ended, Supervisor, Wanted};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Poll interval without any events.
const LOOK: Duration = Duration::from_millis(250);
/// Capacity of the queue of events for the store.
const MOST_EVENTS: usize = 200;
/// Stop timeout; then pid 1 handles the remaining processes.
const STOP_LIMIT: Duration = Duration::from_secs(18);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The boot information that its server was switched on with cannot be used.
    #[error("cannot start the agent of {folder}")]
    Boot {
        /// The server's directory.
        folder: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the agent of the server with this directory, until SIGTERM stops the server.
///
/// # Errors
/// Where the server's directory cannot be used.
pub fn run(folder: &Path) -> Result<(), AgentError> {
    let failed = |source| AgentError::Boot {
        folder: folder.display().to_string(),
        source,
    };
    let boot = Boot::load(folder).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let tasks = tokio::task::LocalSet::new();
    tasks
        .block_on(&runtime, async { Agent::new(boot)?.run().await })
        .map_err(failed)
}

struct Agent {
    boot: Boot,
    order: Rc<Order>,
    store: Store,
    urls: Option<DatabaseUrls>,
    etcd: Result<etcd::Program, String>,
    supervisor: Supervisor,
    ended: mpsc::UnboundedReceiver<Ended>,
    view: watch::Receiver<View>,
    observed: watch::Sender<Observed>,
    proxy_wanted: watch::Sender<proxy::Wanted>,
    proxy_known: watch::Receiver<proxy::Known>,
    asked: watch::Sender<BTreeMap<InstanceName, Asked>>,
    answers: watch::Receiver<Answers>,
    balancer: Option<Balancer>,
    database: Option<database::Database>,
    logs: logs::Keeper,
    events: mpsc::Sender<Event>,
    figures: watch::Sender<Figures>,
    sessions: watch::Sender<resources::Names>,
    left: watch::Receiver<resources::Left>,
    /// Removes the data of a former member of the store.
    removing: Option<JoinHandle<()>>,
}

impl Agent {
    /// Adopts what runs on this server, and starts the tasks that poll and report.
    fn new(boot: Boot) -> io::Result<Self> {
        make_release_folder(&boot)?;
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let supervisor = Supervisor::adopt(boot.run(), ended_sender);
        // The lab writes this file before it switches a server on.
        let order = Rc::new(read_document::<Order>(&boot.order_file())?);
        let store = open_store(&boot, &order)?;
        let view = watch::Sender::new(View::default());
        let observed = watch::Sender::new(Observed {
            boot: boot.number,
            ..Observed::nothing_on(boot.server)
        });
        let (events, told) = mpsc::channel(MOST_EVENTS);
        let session = session::Session {
            boot: boot.clone(),
            store: store.clone(),
            view: view.subscribe(),
            observed: observed.subscribe(),
        };
        tokio::task::spawn_local(session::tell(Events::new(store.clone(), &boot.site), told));
        let view_reader = view.subscribe();
        tokio::task::spawn_local(view::follow(store.clone(), Keys::of(&boot.site), view));
        tokio::task::spawn_local(session.run());
        let (proxy_wanted, proxy_known) = (
            watch::Sender::new(proxy::Wanted::default()),
            watch::Sender::new(proxy::Known::default()),
        );
        let proxy_reader = proxy_known.subscribe();
        tokio::task::spawn_local(proxy::follow(
            boot.run().into(),
            proxy_wanted.subscribe(),
            proxy_known,
        ));
        let (asked, answers) = (
            watch::Sender::new(BTreeMap::new()),
            watch::Sender::new(Answers::new()),
        );
        let answers_reader = answers.subscribe();
        tokio::task::spawn_local(instances::follow(asked.subscribe(), answers));
        let (sessions, left) = (
            watch::Sender::new(resources::Names::new()),
            watch::Sender::new(resources::Left::default()),
        );
        let left_reader = left.subscribe();
        let reading = resources::follow(boot.clone(), sessions.subscribe(), left);
        tokio::task::spawn_local(reading);
        Ok(Self {
            urls: database::urls(&boot),
            etcd: etcd::find().map_err(|error| gaiola_os::chain(&error)),
            balancer: (boot.server.tier == Tier::Balancer).then(|| Balancer::new(boot.clone())),
            database: (boot.server.tier == Tier::Database)
                .then(|| database::Database::new(&boot))
                .transpose()?,
            logs: logs::Keeper::new(boot.logs()),
            events,
            figures: watch::Sender::new(Figures::default()),
            sessions,
            left: left_reader,
            boot,
            order,
            store,
            supervisor,
            ended,
            view: view_reader,
            observed,
            proxy_wanted,
            proxy_known: proxy_reader,
            asked,
            answers: answers_reader,
            removing: None,
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let address = self.boot.location.socket(self.boot.location.ports.agent);
        tokio::task::spawn_local(metrics::serve(address, self.figures.subscribe()));
        loop {
            self.take_order();
            self.carry_out();
            let seen = self.look();
            let changes = changes::between(&self.observed.borrow(), &seen);
            changes.into_iter().for_each(|event| self.tell(event));
            send_if_new(&self.figures, self.figures(&seen));
            send_if_new(&self.observed, seen);
            let look_again = Instant::now() + LOOK;
            let deadline = self
                .supervisor
                .next_deadline()
                .map_or(look_again, |due| due.min(look_again));
            tokio::select! {
                Some(ended) = self.ended.recv() => self.see_ended(ended),
                _ = self.view.changed() => {}
                _ = self.proxy_known.changed() => {}
                _ = self.answers.changed() => {}
                () = sleep_until(deadline) => {}
                _ = terminate.recv() => return self.stop().await,
            }
        }
    }

    /// Reports an event; when the store does not answer and the queue is full, newer events are dropped.
    fn tell(&self, event: Event) {
        tracing::info!("{}", event.text);
        let _ = self.events.try_send(event);
    }

    fn see_ended(&mut self, ended: Ended) {
        let (name, unexpected) = (
            ended.name().to_string(),
            self.supervisor.is_unexpected(&ended),
        );
        // Events of instances come from comparing observations.
        if unexpected && name.parse::<InstanceName>().is_err() && !name.starts_with("release-") {
            let text = format!("{name} {}", ended.exit());
            let subject = Subject::Server(self.boot.server);
            self.tell(Event {
                time: events::now(),
                subject,
                kind: "process.ended".into(),
                text,
                severity: Severity::Warning,
            });
        }
        self.supervisor.ended(ended);
    }

    /// Takes the newest order, unless it is older than the one we hold or another site's.
    fn take_order(&mut self) {
        let seen = self.view.borrow_and_update().placement.clone();
        let Some((revision, placement)) = seen else {
            return;
        };
        if self.order.revision == revision {
            return;
        }
        let offered = Order {
            revision,
            placement: (*placement).clone(),
        };
        if !self.order.yields_to(&offered) {
            let held = self.order.revision;
            return tracing::warn!(
                "rejected the order of revision {revision}: revision {held} is newer"
            );
        }
        self.store.set_schema(offered.placement.schema);
        self.store
            .set_endpoints(etcd::endpoints(&offered.placement));
        if let Err(error) = offered.save(&self.boot.order_file()) {
            tracing::error!("cannot save the order: {error}");
        }
        self.order = Rc::new(offered);
    }

    /// Moves everything on this server towards the order. Repeating it does no harm.
    fn carry_out(&mut self) {
        let order = Rc::clone(&self.order);
        self.supervisor.reconcile(&self.wanted(&order));
        self.end_release_run(&order);
        self.forget_store_member(&order);
        let config = topology::proxy_config(
            &order.placement,
            order.revision,
            self.boot.server,
            &self.paths(),
        );
        let speaks_tls = config.as_ref().is_some_and(proxy::speaks_tls);
        let tickets = self.view.borrow().tickets.clone();
        let tickets = tickets.filter(|_| speaks_tls).map(|(_, shared)| shared);
        let tickets = tickets.map_or_else(Vec::new, |shared| shared.keys.clone());
        send_if_new(
            &self.proxy_wanted,
            proxy::Wanted {
                schema: order.placement.schema,
                config,
                tickets,
            },
        );
        send_if_new(&self.asked, self.questions(&order));
        let sessions = self.supervisor.running();
        let sessions = sessions.map(|(name, pid)| (pid, name.to_string()));
        send_if_new(&self.sessions, sessions.collect());
        let view = self.view.borrow().clone();
        if let Some(balancer) = &mut self.balancer {
            balancer.tick(&order, &view.observed);
        }
        if let Some(database) = &mut self.database {
            let observed = view.observed.values().map(|(_, seen)| &**seen);
            database.tick(&order, observed, view.silent_since.is_none());
        }
        self.logs.tick();
    }

    fn wanted(&self, order: &Order) -> BTreeMap<String, Wanted> {
        let mut wanted = match order.placement.servers.contains_key(&self.boot.server) {
            true => plan::wanted(&self.boot, &order.placement, self.urls.as_ref()),
            false => BTreeMap::new(),
        };
        let fate = self.store_member(order);
        if let (Fate::Run, false, Ok(program)) = (fate, self.is_removing(), &self.etcd) {
            let mut member = plan::store_member(&self.boot, order, program);
            if let Some(running) = self.supervisor.running_as("etcd") {
                plan::keep_join(&mut member.launch, running);
            }
            wanted.insert("etcd".to_string(), member);
        }
        let run = plan::ordered_run(&self.boot, &order.placement);
        if let Some(run) = run.filter(|run| self.may_run_release(run)) {
            let command = plan::release_run(&self.boot, run, self.urls.as_ref());
            wanted.insert(plan::release_run_name(run), command);
        }
        wanted
    }

    fn store_member(&self, order: &Order) -> Fate {
        let (server, placement) = (self.boot.server, &order.placement);
        members::fate(members::Own {
            named: placement.store.contains(&server),
            joining: placement.store_joining == Some(server),
            founding: order.revision == Revision(0),
            confirmed: is_told(order, &self.view.borrow()),
            runs: self.supervisor.condition("etcd") == Some(Condition::Running),
            has_log: self.boot.store_log().exists(),
        })
    }

    fn forget_store_member(&mut self, order: &Order) {
        let [data, gone] = [self.boot.store_data(), self.boot.store_data_gone()];
        let left = data.exists() || gone.exists();
        let forget = self.store_member(order) == Fate::Forget;
        let rests = self.supervisor.condition("etcd").is_none();
        if forget && left && rests && !self.is_removing() {
            tracing::info!("removing the data of a store member that has left");
            self.removing = Some(remove_in_background(data, gone));
        }
    }

    /// Whether the data of a former member of the store is being removed. No member is started meanwhile: it would write there.
    fn is_removing(&self) -> bool {
        let removing = self.removing.as_ref();
        removing.is_some_and(|removing| !removing.is_finished())
    }

    fn paths(&self) -> Paths {
        let pki = self.boot.pki();
        Paths {
            releases: self.boot.directories.releases.clone(),
            ca: pki.join(gaiola_net::pki::CA),
            cert: pki.join(gaiola_net::pki::CERT),
            key: pki.join(gaiola_net::pki::KEY),
            certificates: self.boot.directories.certificates.clone(),
        }
    }

    /// The instances with a running process, and how to poll them.
    fn questions(&self, order: &Order) -> BTreeMap<InstanceName, Asked> {
        let running = self.supervisor.running();
        let instances =
            running.filter_map(|(name, pid)| Some((name.parse::<InstanceName>().ok()?, pid)));
        instances
            .filter_map(|(name, pid)| {
                let placed = order.placement.instances.get(&name)?;
                let address = topology::address_of_instance(&order.placement, name)?;
                let usual = &order.placement.config.app.health;
                let path = placed.health.as_ref().unwrap_or(usual).clone();
                Some((name, Asked { address, path, pid }))
            })
            .collect()
    }

    fn look(&self) -> Observed {
        let known = self.proxy_known.borrow().clone();
        let draining = is_moving(&self.order);
        let mut proxy = known.proxy;
        if let Some(proxy) = proxy.as_mut().filter(|_| !draining) {
            // Only a change that waits for requests to end needs these; otherwise each count would change the report.
            proxy.in_flight.clear();
        }
        Observed {
            server: self.boot.server,
            reads: SCHEMA,
            boot: self.boot.number,
            revision: self.order.revision,
            proxy,
            vips: self
                .balancer
                .as_ref()
                .map(|balancer| balancer.held().into_iter().map(IpAddr::V4).collect())
                .unwrap_or_default(),
            instances: self.instances(),
            database: self
                .database
                .as_ref()
                .and_then(database::Database::observed),
            release_run: self.release_outcome(),
            store_data: Some(self.boot.store_data().exists()),
            resources: self.left.borrow().told.clone(),
            troubles: self.troubles(&known.refused),
        }
    }

    fn figures(&self, seen: &Observed) -> Figures {
        Figures {
            observed: Some(seen.clone()),
            keeper: self
                .balancer
                .as_ref()
                .map(|balancer| balancer.state().clone()),
            left: self.left.borrow().reading.clone(),
            restarts: self.supervisor.all_restarts(),
            lag_bytes: self
                .database
                .as_ref()
                .and_then(database::Database::lag_bytes),
        }
    }

    fn instances(&self) -> BTreeMap<InstanceName, ObservedInstance> {
        let answers = self.answers.borrow();
        let placed = self
            .order
            .placement
            .instances
            .iter()
            .filter(|(name, _)| name.server == self.boot.server);
        placed
            .filter_map(|(name, placed)| {
                let process = name.to_string();
                let (state, reason) = match self.supervisor.condition(&process)? {
                    Condition::Running => match answers.get(name) {
                        Some(answer) => (answer.state, answer.reason.clone()),
                        None => (InstanceState::Starting, "has not answered yet".to_string()),
                    },
                    Condition::Down(why) if why.is_empty() => {
                        (InstanceState::Starting, "is being started".to_string())
                    }
                    Condition::Down(why) => (
                        InstanceState::Crashed,
                        format!("{why}{}", self.logs.cause(&process, &placed.run)),
                    ),
                    Condition::Stopping => {
                        (InstanceState::Stopping, "is being stopped".to_string())
                    }
                };
                let restarts = self.supervisor.restarts(&process);
                Some((
                    *name,
                    ObservedInstance {
                        release: placed.release,
                        run: placed.run.clone(),
                        state,
                        restarts,
                        reason,
                    },
                ))
            })
            .collect()
    }

    fn troubles(&self, proxy_refused: &str) -> Vec<String> {
        let mut troubles = Vec::new();
        if let (Err(why), Fate::Run) = (&self.etcd, self.store_member(&self.order)) {
            troubles.push(why.clone());
        }
        let is_named = self.order.placement.store.contains(&self.boot.server);
        if is_named && self.store_member(&self.order) == Fate::Forget {
            troubles.push(
                "the data of its member of the store is lost: it is to be let in anew".into(),
            );
        }
        if !proxy_refused.is_empty() {
            troubles.push(format!(
                "the proxy refused its configuration: {proxy_refused}"
            ));
        }
        if let Some(Condition::Down(why)) = self
            .supervisor
            .condition("etcd")
            .filter(|_| self.supervisor.restarts("etcd") > 2)
        {
            troubles.push(format!("etcd {why}{}", self.logs.cause("etcd", "")));
        }
        troubles.extend(
            self.balancer
                .as_ref()
                .map(|balancer| balancer.state().config_problem.clone())
                .filter(|problem| !problem.is_empty()),
        );
        troubles.extend(self.database.as_ref().and_then(database::Database::trouble));
        troubles.extend(self.logs.trouble());
        troubles
    }

    /// Stops everything on this server: first hands over the VIPs, so that no request is lost.
    async fn stop(mut self) -> io::Result<()> {
        if let Some(balancer) = &mut self.balancer {
            balancer.leave().await;
        }
        let deadline = Instant::now() + STOP_LIMIT;
        self.supervisor.reconcile(&BTreeMap::new());
        while !self.supervisor.is_empty() && Instant::now() < deadline {
            let due = self
                .supervisor
                .next_deadline()
                .unwrap_or(deadline)
                .min(deadline);
            tokio::select! {
                Some(ended) = self.ended.recv() => self.supervisor.ended(ended),
                () = sleep_until(due) => self.supervisor.tick(),
            }
        }
        reap_all();
        Ok(())
    }
}

/// Whether anything is draining, so that the requests in flight matter.
fn is_moving(order: &Order) -> bool {
    use gaiola_model::placement::Phase;
    let placement = &order.placement;
    placement
        .servers
        .values()
        .any(|server| server.phase == Phase::Drain)
        || placement
            .instances
            .values()
            .any(|instance| instance.phase == Phase::Drain)
}

/// Removes a directory on a thread of its own: many files take long, and the agent's thread has a lease to renew.
fn remove_in_background(folder: PathBuf, gone: PathBuf) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove_whole(&folder, &gone) {
            tracing::error!("cannot remove {}: {error}", folder.display());
        }
    })
}

/// Renames a directory and then removes it: a crash leaves all of it or nothing under its own name.
fn remove_whole(folder: &Path, gone: &Path) -> io::Result<()> {
    let unless_missing = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    unless_missing(std::fs::remove_dir_all(gone))?;
    unless_missing(std::fs::rename(folder, gone))?;
    unless_missing(std::fs::remove_dir_all(gone))
}

/// Whether the store delivered this very order, naming members, since this agent started.
fn is_told(order: &Order, view: &View) -> bool {
    view.placement.as_ref().is_some_and(|(revision, told)| {
        *revision == order.revision
            && told.incarnation == order.placement.incarnation
            && !told.store.is_empty()
    })
}

fn send_if_new<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|held| {
        let changed = *held != new;
        *held = new;
        changed
    });
}

/// `release` commands run as the site's user and leave their exit status there.
fn make_release_folder(boot: &Boot) -> io::Result<()> {
    let folder = boot.run().join("releases");
    std::fs::create_dir_all(&folder)?;
    boot.site_user.map_or(Ok(()), |user| {
        std::os::unix::fs::chown(&folder, Some(user.uid), Some(user.gid))
    })
}

fn open_store(boot: &Boot, order: &Order) -> io::Result<Store> {
    let tls = gaiola_net::pki::client_config(&boot.pki()).map_err(io::Error::other)?;
    let endpoints = etcd::endpoints(&order.placement);
    let store = Store::new(Settings::new(endpoints, Some(tls)));
    store.set_schema(order.placement.schema);
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_of_the_store_has_left_is_removed_while_the_agent_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let [data, gone] = ["member", "member.gone"].map(|name| folder.path().join(name));
        for file in [data.join("wal/1"), gone.join("snap/1")] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "votes").unwrap();
        }
        let paths = (data.clone(), gone.clone());
        let removed = async { remove_in_background(paths.0, paths.1).await.is_ok() };
        let meanwhile = || assert!(data.join("wal/1").exists() && gone.join("snap/1").exists());
        assert!(crate::slow_disk::carry_out(removed, meanwhile));
        assert!(!data.exists() && !gone.exists());
    }
}
