//! The supervisor's thread: it turns control requests and health into [`Orders`], and reports the state.

mod admission;
mod change;
mod error;
mod latency;
mod operate;
mod report;
mod sessions;
mod standing;
mod stat;
mod take_over;

pub(super) use change::validate;
pub use error::{BackendError, ConfigError, FilterError, Twice, WorkerError};
pub(super) use take_over::{Endpoints, Stage};

use super::check::{HealthCounts, Watched};
use super::clock::seconds;
use super::counters::Counters;
use super::listen::Listener;
use super::orders::{BackendOrders, Health, InFlight, Member, Orders, Queue};
use super::reports::{MemberReport, SessionQuery};
use super::take_over::{Finishing, Inherited};
use super::tls::{ServerSettings, Servers, Tickets};
use error::OperateError;
use gaiola_core::health::{Condition, Ejected, LastResort, ServingMembers, Standing, who_serves};
use gaiola_model::Revision;
use gaiola_model::proxy::{ControlReply, ControlRequest, Ejection, ServerOrder, SlowEjection};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// A worker that has not applied new orders for this long hangs.
const WORKER_PATIENCE: Duration = Duration::from_secs(5);

/// Longest time that a request may wait for a change.
const LONGEST_AWAIT: Duration = Duration::from_secs(60);
/// Minimum interval between updates of slow-start shares.
const SHARE_STEP: Duration = Duration::from_millis(50);

/// A worker as the supervisor sees it.
pub(super) struct WorkerHandle {
    /// The newest orders that it has applied.
    pub(super) applied: watch::Receiver<u64>,
    /// Requests to list its connections.
    pub(super) queries: mpsc::Sender<SessionQuery>,
    /// Its counters.
    pub(super) counters: Arc<Counters>,
}

/// The supervisor.
pub(super) struct Supervisor {
    orders: watch::Sender<Arc<Orders>>,
    workers: Vec<WorkerHandle>,
    lines_lost: Arc<AtomicU64>,
    /// Secret for hashing limit keys, unless the configuration has one.
    limit_secret: [u8; 32],
    started: Instant,
    /// Serializes changes.
    changing: tokio::sync::Mutex<()>,
    /// When addresses being handed over are served again at the latest.
    lapses: RefCell<BTreeMap<IpAddr, Instant>>,
    backends: RefCell<Vec<WatchedBackend>>,
    /// TLS settings for servers.
    servers: RefCell<Rc<Servers>>,
    /// Removed members that still have requests in flight.
    leaving: RefCell<Vec<Arc<Member>>>,
    revision: Cell<Revision>,
    /// Sum of all frontends' maxconn.
    maxconn: Cell<u64>,
    ready: Cell<bool>,
    reloads: Cell<Reloads>,
    health_changed: Rc<Notify>,
    tickets: Arc<Tickets>,
    /// What another process has handed over, until the first configuration takes it.
    inherited: RefCell<Inherited>,
    /// Listeners that are not accepted from while the other process does.
    held: RefCell<Option<Vec<Arc<Listener>>>>,
    /// The process that this one took over from.
    old: RefCell<Option<Rc<Finishing>>>,
    /// Sockets for the process that takes over from this one.
    pub(super) endpoints: RefCell<Endpoints>,
    stage: watch::Sender<Stage>,
    /// Whether the control socket's file is this process's to remove.
    keeps_control: Cell<bool>,
}

/// Counters of attempts to apply a configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reloads {
    pub(super) taken: u64,
    pub(super) failed: u64,
    /// Whether the last one was accepted.
    pub(super) last_taken: bool,
    /// When one was last accepted, in seconds since 1970.
    pub(super) taken_at: u64,
}

/// A configured backend.
struct WatchedBackend {
    name: String,
    slow_start: Option<Duration>,
    slow_ejection: Option<SlowEjection>,
    ejection: Ejection,
    /// What serves when no member does.
    last_resort: LastResort,
    exclusive: bool,
    queue: Arc<Queue>,
    in_flight: Arc<InFlight>,
    members: Vec<Rc<Watched>>,
    tls: Arc<[Option<ServerSettings>]>,
    roles: Vec<Role>,
}

/// The reported state of a member.
struct MemberState {
    up: bool,
    /// Whether it serves although its checks took it out.
    busy: bool,
    reason: String,
}

/// The part of a member's configuration that concerns the others.
struct Role {
    /// Whether it should take new traffic while it is up.
    wanted: bool,
    spare: bool,
}

fn done(result: Result<(), OperateError>) -> ControlReply {
    match result {
        Ok(()) => ControlReply::Done,
        Err(error) => ControlReply::Refused(error.to_string()),
    }
}

/// The connections that are left in this process and in older ones.
fn add_connections(own: ControlReply, old: Option<ControlReply>) -> ControlReply {
    match (own, old) {
        (
            ControlReply::Admitted { connections },
            Some(ControlReply::Admitted { connections: old }),
        ) => ControlReply::Admitted {
            connections: connections + old,
        },
        (own, _) => own,
    }
}

impl WatchedBackend {
    /// Which members serve.
    fn serving(&self) -> ServingMembers {
        let members = self.members.iter().zip(&self.roles);
        let standing = |(watched, role): (&Rc<Watched>, &Role)| Standing {
            condition: watched.condition(),
            wanted: role.wanted,
            spare: role.spare,
            answers: watched.answers(),
        };
        let members: Vec<_> = members.map(standing).collect();
        let serving = who_serves(&members, self.ejection.max_share, self.last_resort);
        if self.exclusive {
            serving.one_at_most()
        } else {
            serving
        }
    }

    /// Each member with its reported state.
    fn member_states(&self) -> impl Iterator<Item = (&Rc<Watched>, MemberState)> {
        let serving = self.serving();
        self.members
            .iter()
            .enumerate()
            .map(move |(index, watched)| {
                let takes = serving.takes[index];
                let state = match watched.condition() {
                    Condition::Silent if takes => MemberState {
                        up: false,
                        busy: true,
                        reason: format!("{}; still serves, for lack of others", watched.reason()),
                    },
                    condition => MemberState {
                        up: condition == Condition::Up
                            || takes && matches!(condition, Condition::Ejected(Ejected::Errors, _)),
                        busy: false,
                        reason: watched.reason(),
                    },
                };
                (watched, state)
            })
    }

    fn orders(&self) -> BackendOrders {
        let serving = self.serving();
        let health = |(index, watched): (usize, &Rc<Watched>)| Health {
            up: serving.named[index],
            takes: serving.takes[index],
            ..watched.health(self.slow_start)
        };
        let members = self.members.iter().enumerate();
        BackendOrders {
            queue: Arc::clone(&self.queue),
            in_flight: Arc::clone(&self.in_flight),
            members: members
                .map(|(index, watched)| (Arc::clone(&watched.member), health((index, watched))))
                .collect(),
            panic: serving.panic,
            tls: Arc::clone(&self.tls),
        }
    }
}

impl Supervisor {
    /// A supervisor of these workers, with no orders yet.
    pub(super) fn new(
        orders: watch::Sender<Arc<Orders>>,
        workers: Vec<WorkerHandle>,
        lines_lost: Arc<AtomicU64>,
        limit_secret: [u8; 32],
    ) -> Rc<Self> {
        Rc::new(Self {
            orders,
            workers,
            lines_lost,
            limit_secret,
            started: Instant::now(),
            changing: tokio::sync::Mutex::default(),
            lapses: RefCell::default(),
            backends: RefCell::default(),
            servers: RefCell::default(),
            leaving: RefCell::default(),
            revision: Cell::default(),
            maxconn: Cell::default(),
            ready: Cell::new(false),
            reloads: Cell::default(),
            health_changed: Rc::default(),
            tickets: Arc::new(Tickets::new()),
            inherited: RefCell::default(),
            held: RefCell::default(),
            old: RefCell::default(),
            endpoints: RefCell::default(),
            stage: watch::Sender::default(),
            keeps_control: Cell::new(true),
        })
    }

    /// Executes one control request.
    pub(super) async fn handle(&self, request: ControlRequest) -> ControlReply {
        match request {
            ControlRequest::Configure(config) => match self.configure(*config).await {
                Ok(revision) => ControlReply::Configured(revision),
                Err(error) => ControlReply::Refused(error.to_string()),
            },
            ControlRequest::TicketKeys(keys) => match self.tickets.take(&keys) {
                Ok(count) => ControlReply::TicketKeys(count),
                Err(reason) => ControlReply::Refused(reason),
            },
            ControlRequest::Admit {
                address,
                admission,
                wait_ms,
            } => {
                let wait = Duration::from_millis(wait_ms);
                let own = self.admit(address, admission, wait);
                let (own, old) = tokio::join!(own, self.tell_old(&request, wait));
                add_connections(own, old)
            }
            ControlRequest::Report => ControlReply::Report(self.report()),
            ControlRequest::Await { after, wait_ms } => {
                let mut orders = self.orders.subscribe();
                let changed = orders.wait_for(|orders| orders.seq != after);
                let limit = Duration::from_millis(wait_ms).min(LONGEST_AWAIT);
                // Without a change, the reply has the number that was given.
                let _ = tokio::time::timeout(limit, changed).await;
                ControlReply::Changed(self.orders().seq)
            }
            ControlRequest::Stat => ControlReply::Stat(Box::new(self.stat())),
            ControlRequest::Sessions => match self.sessions().await {
                Ok(sessions) => ControlReply::Sessions(sessions),
                Err(error) => ControlReply::Refused(error.to_string()),
            },
            ControlRequest::SetServer {
                ref backend,
                ref server,
                order,
            } => {
                let result = self.set_server(backend, server, order).await;
                if order == ServerOrder::EndSessions {
                    self.tell_old(&request, Duration::ZERO).await;
                }
                done(result)
            }
            ControlRequest::ClearLimit { name, key } => {
                done(self.clear_limit(&name, key.as_deref()))
            }
            ControlRequest::TakeOver | ControlRequest::TakenOver(_) => {
                ControlReply::Refused("a take-over is under way on this connection".into())
            }
            ControlRequest::EndOldest => {
                self.end_oldest();
                ControlReply::Done
            }
        }
    }

    /// Publishes health and growing slow-start shares to the workers. Never returns.
    pub(super) async fn publish_health(&self) {
        loop {
            tokio::select! {
                () = self.health_changed.notified() => {}
                () = self.next_share() => {}
            }
            self.publish(|orders| orders.backends = self.backend_orders());
        }
    }

    /// Forwards the workers' reports to the members' checks, until all workers have ended.
    pub(super) async fn take_reports(&self, mut reports: mpsc::Receiver<MemberReport>) {
        while let Some(MemberReport { member, input }) = reports.recv().await {
            let backends = self.backends.borrow();
            let mut all = backends.iter().flat_map(|backend| &backend.members);
            if let Some(watched) = all.find(|watched| Arc::ptr_eq(&watched.member, &member)) {
                watched.report(input);
            }
        }
    }

    /// Renews ticket keys periodically, unless keys are configured.
    pub(super) async fn renew_ticket_keys(&self) {
        self.tickets.renew().await;
    }

    /// Whether every worker has a configuration, and the process is not stopping.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get() && !self.orders.borrow().ending
    }

    /// The configuration that is in force.
    pub(super) fn revision(&self) -> Revision {
        self.revision.get()
    }

    /// The current orders.
    pub(super) fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders.borrow())
    }

    /// The counters of each worker.
    pub(super) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().map(|worker| &*worker.counters)
    }

    /// When the process started.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Lines lost from the access log.
    pub(super) fn lines_lost(&self) -> u64 {
        let dropped: u64 = self
            .counters()
            .map(|counters| counters.lines_dropped.get())
            .sum();
        dropped + self.lines_lost.load(Ordering::Relaxed)
    }

    /// Counters of attempts to apply a configuration.
    pub(super) fn reloads(&self) -> Reloads {
        self.reloads.get()
    }

    /// Counts a configuration that was accepted or rejected.
    pub(super) fn count_reload(&self, taken: bool) {
        let mut reloads = self.reloads.get();
        reloads.last_taken = taken;
        if taken {
            (reloads.taken, reloads.taken_at) = (reloads.taken + 1, seconds())
        } else {
            reloads.failed += 1
        }
        self.reloads.set(reloads);
    }

    /// Calls `each` with the health counters of every server, by the names of backend and server.
    pub(super) fn each_health(&self, mut each: impl FnMut(&str, &str, HealthCounts)) {
        for watched in self.backends.borrow().iter().flat_map(|all| &all.members) {
            let member = &watched.member;
            each(&member.backend, &member.name, watched.counts());
        }
    }

    /// Whether any data written has not left yet, even on a connection without an owner.
    fn is_late(&self) -> bool {
        self.counters().any(|counters| counters.late.get() > 0)
    }

    fn connections(&self, local: Option<IpAddr>) -> u64 {
        self.counters()
            .map(|counters| counters.connections(local))
            .sum()
    }

    /// Waits until a slow-starting server is due a larger share.
    async fn next_share(&self) {
        let wait = {
            let backends = self.backends.borrow();
            let mut waits = Vec::new();
            for backend in backends.iter() {
                let next = |watched: &Rc<Watched>| watched.share(backend.slow_start).1;
                waits.extend(backend.members.iter().filter_map(next));
            }
            waits.into_iter().min()
        };
        match wait {
            Some(wait) => tokio::time::sleep(wait.max(SHARE_STEP)).await,
            None => std::future::pending().await,
        }
    }

    fn backend_orders(&self) -> Vec<BackendOrders> {
        self.backends
            .borrow()
            .iter()
            .map(WatchedBackend::orders)
            .collect()
    }

    /// Publishes changed orders, and returns their number.
    fn publish(&self, change: impl FnOnce(&mut Orders)) -> u64 {
        let before = self.orders();
        let mut orders = Orders::clone(&before);
        orders.seq += 1;
        change(&mut orders);
        standing::log_changes(&before, &orders);
        let seq = orders.seq;
        self.orders.send_replace(Arc::new(orders));
        seq
    }

    /// Waits until every worker has applied these orders.
    async fn applied(&self, seq: u64) -> Result<(), WorkerError> {
        for (index, worker) in self.workers.iter().enumerate() {
            let mut applied = worker.applied.clone();
            let done = applied.wait_for(|&done| done >= seq);
            match tokio::time::timeout(WORKER_PATIENCE, done).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(WorkerError::Ended(index)),
                Err(_) => return Err(WorkerError::Silent(index)),
            }
        }
        Ok(())
    }
}
