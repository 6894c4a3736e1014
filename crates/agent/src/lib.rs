//! `gaiola agent`: makes its own server match the placement, and reports the server's state.
//!
//! It watches the store, inspects the server, plans and carries out, and repeats that on every change. What runs does not
//! depend on it: when it dies, traffic continues, and the next agent adopts every process.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod clock;
pub mod engine;
pub mod init;
pub mod keeper;
pub mod limits;
pub mod one_off;
pub mod relay;
pub mod state;

#[cfg(test)]
#[path = "../../wire/tests/exposition/strict.rs"]
mod exposition;

mod balancer;
mod changes;
mod conductor;
mod database;
mod environment;
mod instances;
mod logs;
mod metrics;
mod missing;
mod observe;
mod plan;
mod proxy;
mod resources;
mod run;
mod secrets;
mod session;
mod store_member;
mod supervisor;
mod tickets;
mod troubles;

use crate::state::{Boot, Order, read_document};
use balancer::Balancer;
use database::Database;
use environment::Environments;
use gaiola_core::members::Fate;
use gaiola_core::topology::{self, Paths};
use gaiola_model::event::{Event, Severity, Subject};
use gaiola_model::placement::ProxyFiles;
use gaiola_model::schema::unnumbered;
use gaiola_model::{InstanceName, Observed, ProxyConfig, Revision, Tier, WorkerName};
use gaiola_net::pki::PkiError;
use gaiola_os::process::{own_program, reap_all};
use gaiola_store::events::{self, Events};
use gaiola_store::view::{self, Keys, View};
use gaiola_store::{Settings, Store, etcd};
use instances::{InstanceAnswers, PollTarget};
use limits::Loss;
use metrics::Figures;
use plan::{DatabaseUrls, Given};
use relay::RelayThread;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use supervisor::{Ended, Supervisor, WantedProcess};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Poll interval without any events.
const POLL: Duration = Duration::from_millis(250);
/// Wait before an order that could not be saved is saved again.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// Capacity of the queue of events for the store.
const MOST_EVENTS: usize = 200;
/// Stop timeout; then pid 1 handles the remaining processes.
const STOP_LIMIT: Duration = Duration::from_secs(18);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the agent of {}", folder.display())]
pub struct AgentError {
    folder: PathBuf,
    source: StartError,
}

/// What an agent could not do at its start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// Reading what its server was switched on with, or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Loading its certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Runs the agent of the server with this directory, until SIGTERM stops the server, or SIGHUP has it make room for the next agent,
/// which adopts what runs.
///
/// # Errors
/// If the server's directory cannot be used.
pub fn run(folder: &Path) -> Result<(), AgentError> {
    start_and_run(folder).map_err(|source| AgentError {
        folder: folder.into(),
        source,
    })
}

fn start_and_run(folder: &Path) -> Result<(), StartError> {
    let boot = Boot::load(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async { Ok(Agent::new(boot)?.run().await?) })
}

struct Agent {
    boot: Boot,
    /// Identifies the program that this process runs.
    program: String,
    order: Rc<Order>,
    /// The newest order that is on the disk, and why that is not the present one.
    saved: Revision,
    unsaved: Option<io::Error>,
    save_at: Instant,
    store: Store,
    urls: Option<DatabaseUrls>,
    /// Those of the order.
    environments: Environments,
    etcd: Result<etcd::Program, etcd::ProgramError>,
    supervisor: Supervisor,
    ended: mpsc::UnboundedReceiver<Ended>,
    view: watch::Receiver<View>,
    observed: watch::Sender<Observed>,
    proxy_wanted: watch::Sender<proxy::ProxySettings>,
    proxy_known: watch::Receiver<proxy::ProxyState>,
    /// The site's files that the proxy served last; `None`: none are known.
    served: Option<ProxyFiles>,
    asked: watch::Sender<BTreeMap<InstanceName, PollTarget>>,
    answers: watch::Receiver<InstanceAnswers>,
    balancer: Option<Balancer>,
    database: Option<Database>,
    /// On servers that are no balancers, at an IPv4 address.
    relay: Option<RelayThread>,
    logs: logs::Keeper,
    events: mpsc::Sender<Event>,
    figures: watch::Sender<Figures>,
    processes: watch::Sender<resources::Names>,
    left: watch::Receiver<resources::Left>,
    /// Removes the data of a former member of the store.
    removing: Option<JoinHandle<()>>,
}

impl Agent {
    /// Adopts what runs on this server, and starts the tasks that poll and report.
    fn new(boot: Boot) -> Result<Self, StartError> {
        make_release_folder(&boot)?;
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor::adopt(&boot, ended_sender);
        // The provider writes this file before it switches a server on.
        let order = Rc::new(read_document::<Order>(&boot.order_file())?);
        supervisor.set_schema(order.placement.schema);
        let store = open_store(&boot, &order)?;
        let observed = watch::Sender::new(Observed {
            boot: boot.number,
            // What it adopts may be older than this agent.
            reads: unnumbered(),
            ..Observed::nothing_on(boot.server)
        });
        let (view, events) = start_session(&boot, &store, &observed);
        let run = boot.run().to_path_buf();
        let (proxy_wanted, proxy_known) = start(|wanted, known| proxy::follow(run, wanted, known));
        let (asked, answers) = start(instances::follow);
        let (processes, left) =
            start(|processes, left| resources::follow(boot.clone(), processes, left));
        Ok(Self {
            program: own_program()?,
            urls: database::urls(&boot),
            environments: Environments::open(&boot, &order.placement),
            etcd: etcd::find(),
            balancer: (boot.server.tier == Tier::Balancer).then(|| Balancer::new(boot.clone())),
            database: (boot.server.tier == Tier::Database)
                .then(|| Database::new(&boot))
                .transpose()?,
            relay: relay::socket_of(&boot)
                .map(RelayThread::start)
                .transpose()?,
            logs: logs::Keeper::new(boot.logs()),
            figures: watch::Sender::new(Figures::default()),
            removing: None,
            served: read_document(&boot.served_files()).ok(),
            boot,
            saved: order.revision,
            unsaved: None,
            save_at: Instant::now(),
            order,
            store,
            supervisor,
            ended,
            view,
            observed,
            proxy_wanted,
            proxy_known,
            asked,
            answers,
            events,
            processes,
            left,
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let address = self.boot.location.socket(self.boot.location.ports.agent);
        tokio::task::spawn_local(metrics::serve(address, self.figures.subscribe()));
        loop {
            self.take_order();
            self.save_order();
            self.carry_out();
            if let Some(balancer) = &mut self.balancer {
                balancer.run_commands(&self.order).await;
            }
            let observed = self.observe();
            let changes = changes::between(&self.observed.borrow(), &observed);
            changes.into_iter().for_each(|event| self.report(event));
            send_if_new(&self.figures, self.figures(&observed));
            send_if_new(&self.observed, observed);
            let next_poll = Instant::now() + POLL;
            let due = self.supervisor.next_deadline();
            let deadline = due.map_or(next_poll, |due| due.min(next_poll));
            tokio::select! {
                Some(ended) = self.ended.recv() => self.record_end(ended),
                _ = self.view.changed() => {}
                _ = self.proxy_known.changed() => {}
                _ = self.answers.changed() => {}
                () = sleep_until(deadline) => {}
                _ = terminate.recv() => return self.stop().await,
                _ = hang_up.recv() => return self.make_room().await,
            }
        }
    }

    /// Reports an event; when the store does not answer and the queue is full, newer events are dropped.
    fn report(&self, event: Event) {
        let Event {
            subject,
            kind,
            text,
            ..
        } = &event;
        tracing::info!(?subject, kind, text, "event");
        let _ = self.events.try_send(event);
    }

    fn report_loss(&self, Loss { name, why }: Loss) {
        self.report(Event {
            time: events::now(),
            subject: Subject::Server(self.boot.server),
            kind: "process.killed".into(),
            text: format!("a process of {name} {why}"),
            severity: Severity::Warning,
        });
    }

    fn record_end(&mut self, ended: Ended) {
        let name = ended.name();
        // Events of instances and workers come from comparing observations; those of a run are its outcome.
        let has_events_of_its_own = name.parse::<InstanceName>().is_ok()
            || name.parse::<WorkerName>().is_ok()
            || name.starts_with("release-")
            || name.starts_with("cron-");
        if self.supervisor.is_unexpected(&ended) && !has_events_of_its_own {
            self.report(Event {
                time: events::now(),
                subject: Subject::Server(self.boot.server),
                kind: "process.ended".into(),
                text: format!("{name} {}", ended.exit()),
                severity: Severity::Warning,
            });
        }
        self.supervisor.ended(ended);
    }

    /// Takes the newest order, unless it is older than the one we hold or another site's.
    fn take_order(&mut self) {
        let stored = self.view.borrow_and_update().placement.clone();
        let Some((revision, placement)) = stored else {
            return;
        };
        if self.order.revision == revision {
            return;
        }
        let mut offered = Order {
            revision,
            placement: (*placement).clone(),
        };
        offered.placement.keep_network(&self.order.placement);
        if !self.order.yields_to(&offered) {
            let held = self.order.revision;
            return tracing::warn!(%revision, %held, "rejected an order older than the one held");
        }
        self.store.set_schema(offered.placement.schema);
        self.supervisor.set_schema(offered.placement.schema);
        self.store
            .set_endpoints(etcd::endpoints(&offered.placement));
        if offered.placement.incarnation != self.order.placement.incarnation {
            self.saved = Revision(0);
        }
        self.environments = Environments::open(&self.boot, &offered.placement);
        self.order = Rc::new(offered);
        self.save_at = Instant::now();
    }

    /// An order that is not on the disk is carried out and not acknowledged: after a restart this server would do what the one before
    /// says.
    fn save_order(&mut self) {
        let revision = self.order.revision;
        if self.saved == revision || Instant::now() < self.save_at {
            return;
        }
        let text = self.view.borrow().placement_text(revision);
        match self.order.save(&self.boot.order_file(), text.as_deref()) {
            Ok(()) => {
                (self.saved, self.unsaved) = (revision, None);
                run::forget_runs(&self.boot, &self.order.placement);
            }
            Err(error) => {
                tracing::error!(%revision, %error, "cannot save the order");
                self.unsaved = Some(error);
                self.save_at = Instant::now() + SAVE_AGAIN;
            }
        }
    }

    /// Moves everything on this server towards the order. Repeating it does no harm.
    fn carry_out(&mut self) {
        if self.environments.lack_a_key() {
            self.environments = Environments::open(&self.boot, &self.order.placement);
        }
        let order = self.order_here();
        let losses = (self.supervisor).limit(plan::limits(&self.boot, &order.placement));
        losses.into_iter().for_each(|loss| self.report_loss(loss));
        self.supervisor.reconcile(&self.wanted(&order));
        self.end_runs(&order);
        self.forget_store_member(&order);
        self.keep_served_files();
        if let Some(files) = self.files_to_serve(&order.placement) {
            send_if_new(&self.proxy_wanted, self.proxy_settings(&order, files));
        }
        send_if_new(&self.asked, self.asked(&order));
        let running = self.supervisor.running();
        let processes = running.map(|(name, pid)| (pid, name.to_string()));
        send_if_new(&self.processes, processes.collect());
        let view = self.view.borrow().clone();
        if let Some(balancer) = &mut self.balancer {
            balancer.tick(&order, &view.observed);
        }
        if let Some(relay) = &mut self.relay {
            relay.serve(relay::keepers(&order.placement, self.boot.server));
        }
        if let Some(database) = &mut self.database {
            let observed = view.observed.values().map(|(_, observed)| &**observed);
            database.tick(&order, observed, view.silence.is_none());
        }
        self.logs.tick();
    }

    /// What the proxy is to serve by this order, with these files.
    fn proxy_settings(&self, order: &Order, files: ProxyFiles) -> proxy::ProxySettings {
        let config = topology::proxy_config(
            &order.placement,
            order.revision,
            self.boot.server,
            &self.paths(),
            &files,
        );
        let config = config.map(|config| self.sealed(config));
        // The keys of clients' sessions are for balancers alone. Others speak TLS among themselves, with keys of their own.
        let to_clients = self.boot.server.tier == Tier::Balancer;
        let speaks_tls = to_clients && config.as_ref().is_some_and(proxy::speaks_tls);
        let tickets = self.view.borrow().tickets.clone();
        let tickets = tickets.filter(|_| speaks_tls).map(|(_, shared)| shared);
        proxy::ProxySettings {
            schema: order.placement.schema,
            compares: order.placement.is_mixed(),
            config,
            files,
            tickets: tickets.map_or_else(Vec::new, |shared| shared.keys.clone()),
        }
    }

    /// With the secret that balancers seal the counts of their limits with; without one they count on their own.
    fn sealed(&self, mut config: ProxyConfig) -> ProxyConfig {
        let key = self.boot.keeper_key.as_ref();
        config.limit_secret = key
            .filter(|_| !config.limits.is_empty())
            .map(|key| format!("limits {key}"));
        config.peers = config.peers.filter(|_| config.limit_secret.is_some());
        config
    }

    /// The order as it concerns this server: a server of the same name that stands elsewhere is another one.
    fn order_here(&self) -> Rc<Order> {
        let placed = topology::location(&self.order.placement, self.boot.server);
        if placed.is_none_or(|placed| placed.is_where(&self.boot.location)) {
            return Rc::clone(&self.order);
        }
        let mut order = (*self.order).clone();
        order.placement.servers.remove(&self.boot.server);
        Rc::new(order)
    }

    fn wanted(&self, order: &Order) -> BTreeMap<String, WantedProcess> {
        let mut wanted = if order.placement.servers.contains_key(&self.boot.server) {
            plan::wanted(self.given(), &order.placement, &self.program)
        } else {
            BTreeMap::new()
        };
        self.withhold(&mut wanted, &order.placement);
        self.wait_for_proxy(&mut wanted, order);
        let fate = self.store_member(order);
        if let (Fate::Run, false, Ok(program)) = (fate, self.is_removing(), &self.etcd) {
            let mut member = plan::store_member(&self.boot, order, program);
            if let Some(running) = self.supervisor.running_as("etcd") {
                plan::keep_join(&mut member.launch, running);
            }
            wanted.insert("etcd".to_string(), member);
        }
        self.want_runs(&mut wanted, order);
        wanted
    }

    /// What the site's processes get from this server.
    fn given(&self) -> Given<'_> {
        Given {
            boot: &self.boot,
            urls: self.urls.as_ref(),
            environments: &self.environments,
        }
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

    /// Leaves everything running.
    async fn make_room(mut self) -> io::Result<()> {
        tracing::info!("ends for another agent to go on");
        if let Some(balancer) = &mut self.balancer {
            balancer.end_commands().await;
        }
        Ok(())
    }

    /// Stops everything on this server: first moves the VIPs away, so that no request is lost.
    async fn stop(mut self) -> io::Result<()> {
        if let Some(balancer) = &mut self.balancer {
            balancer.leave().await;
            balancer.end_commands().await;
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
        self.supervisor.end();
        Ok(())
    }
}

/// Starts the tasks that read the store, send this server's report and append events to the store. Returns the store's
/// content, and the queue of events.
fn start_session(
    boot: &Boot,
    store: &Store,
    observed: &watch::Sender<Observed>,
) -> (watch::Receiver<View>, mpsc::Sender<Event>) {
    let (view_sender, view) = watch::channel(View::default());
    let (events, queue) = mpsc::channel(MOST_EVENTS);
    let session = session::Session {
        boot: boot.clone(),
        store: store.clone(),
        view: view.clone(),
        observed: observed.subscribe(),
    };
    let log = Events::new(store.clone(), &boot.site);
    tokio::task::spawn_local(session::append(log, queue));
    let keys = Keys::of(&boot.site);
    tokio::task::spawn_local(view::follow(store.clone(), keys, view_sender));
    tokio::task::spawn_local(session.run());
    (view, events)
}

/// Starts a task with a way to send it what is wanted, and to read what it found last.
fn start<Settings: Default, Found: Default, F: Future<Output = ()> + 'static>(
    task: impl FnOnce(watch::Receiver<Settings>, watch::Sender<Found>) -> F,
) -> (watch::Sender<Settings>, watch::Receiver<Found>) {
    let (wanted, wanted_reader) = watch::channel(Settings::default());
    let (found_sender, found) = watch::channel(Found::default());
    tokio::task::spawn_local(task(wanted_reader, found_sender));
    (wanted, found)
}

/// Sends a value unless it is the one sent last.
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

fn open_store(boot: &Boot, order: &Order) -> Result<Store, PkiError> {
    let tls = gaiola_net::pki::client_config(&boot.pki())?;
    let endpoints = etcd::endpoints(&order.placement);
    let store = Store::new(Settings::new(endpoints, Some(tls)));
    store.set_schema(order.placement.schema);
    Ok(store)
}
