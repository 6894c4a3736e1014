//! What a take-over by a new process means for the supervisor, on either side of it.

use super::Supervisor;
use crate::clock::since_epoch;
use crate::limits::Limiter;
use crate::listen::Listener;
use crate::take_over::{Finishing, Handed, Inherited, MOST_OLD, TakeOverError};
use gaiola_model::proxy::{
    Bind, ControlReply, ControlRequest, Count, HandOver, HandedSocket, LateCounts, Mode,
    ProxyReport, ServerReport, SocketUse, TakenOver, TicketKey,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a new process waits for the VIP keeper to have its heartbeats.
const BEATING_LIMIT: Duration = Duration::from_secs(1);
const BEATING_POLL: Duration = Duration::from_millis(5);

/// How long the workers have to stop accepting before the new process begins. One that is late then accepts beside it.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

/// How long an old process may take to apply a configuration.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(5);

/// Interval between polls of what is still open.
const FINISH_POLL: Duration = Duration::from_millis(50);

/// Sockets besides the listeners, for the process that takes over.
#[derive(Default)]
pub(crate) struct Endpoints {
    pub(crate) control: Option<(PathBuf, OwnedFd)>,
    pub(crate) admin: Option<(SocketAddr, OwnedFd)>,
    pub(crate) peers: Option<(SocketAddr, OwnedFd)>,
    /// Ends with the process that the system knows, where that is another one.
    pub(crate) lifeline: Option<OwnedFd>,
}

impl Endpoints {
    fn of_use(&self) -> impl Iterator<Item = (SocketUse, &OwnedFd)> {
        let control = self.control.iter();
        let control = control.map(|(path, socket)| (SocketUse::Control(path.clone()), socket));
        let admin = self.admin.iter();
        let admin = admin.map(|(address, socket)| (SocketUse::Admin(*address), socket));
        let peers = self.peers.iter();
        let peers = peers.map(|(address, socket)| (SocketUse::Peers(*address), socket));
        let lifeline = self.lifeline.iter();
        let lifeline = lifeline.map(|pipe| (SocketUse::Lifeline, pipe));
        control.chain(admin).chain(peers).chain(lifeline)
    }
}

/// How far a take-over from this process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It serves.
    #[default]
    Serving,
    /// Another one serves; this one finishes what is open.
    Left,
    /// The same, and the other one has ended.
    Alone,
    /// It should end at once: too many processes finish what is open.
    TooOld,
}

// The new process.
impl Supervisor {
    /// Takes what another process knows, for the first configuration. Nothing is accepted until [`Self::begin_accepting`].
    pub(crate) fn inherit(
        &self,
        mut inherited: Inherited,
        handed: &HandOver,
    ) -> Result<(), TakeOverError> {
        let tickets = self.tickets.inherit(&handed.tickets, handed.own_tickets);
        tickets.map_err(TakeOverError::Tickets)?;
        let lapse = Instant::now() + super::admission::HAND_OVER_LIMIT;
        let addresses = handed.admissions.keys();
        self.lapses
            .replace(addresses.map(|address| (*address, lapse)).collect());
        let admissions = Arc::new(handed.admissions.clone());
        self.publish(|orders| orders.admissions = admissions);
        self.endpoints.borrow_mut().peers = inherited.take_peers();
        self.inherited.replace(inherited);
        self.held.replace(Some(Vec::new()));
        Ok(())
    }

    /// The listeners to accept from: none while they are held back.
    pub(super) fn release(&self, listeners: Vec<Arc<Listener>>) -> Vec<Arc<Listener>> {
        match &mut *self.held.borrow_mut() {
            Some(held) => {
                *held = listeners;
                Vec::new()
            }
            None => listeners,
        }
    }

    /// What this process uses of what it was handed.
    pub(crate) fn taken(&self, control: Option<PathBuf>) -> TakenOver {
        let held = self.held.borrow();
        let listeners = held.iter().flatten();
        TakenOver {
            listeners: listeners.map(|listener| listener.address.clone()).collect(),
            control,
        }
    }

    /// Waits until the VIP keeper has the heartbeats of all workers, for a while: without a keeper nobody waits for them.
    /// `wanted`: whether there is one.
    pub(crate) async fn until_beating(&self, wanted: bool) {
        let asked = Instant::now();
        let beats = || {
            self.counters()
                .all(|counters| counters.beating.load(Ordering::Acquire))
        };
        let is_wanted = wanted
            && self.orders().config.as_ref().is_some_and(|config| {
                let mut frontends = config.frontends.iter();
                frontends.any(|frontend| matches!(frontend.mode, Mode::Http { .. }))
            });
        while is_wanted && !beats() && asked.elapsed() < BEATING_LIMIT {
            tokio::time::sleep(BEATING_POLL).await;
        }
    }

    /// Accepts from now on: the other process does not any more.
    pub(crate) fn begin_accepting(&self, late: &[LateCounts]) {
        for limiter in &self.orders().limits {
            add_late(limiter, late);
        }
        let listeners = self.held.take().unwrap_or_default();
        for listener in &listeners {
            listener.own_file();
            if let Err(error) = listener.start() {
                let bind = &listener.address;
                tracing::error!(%bind, %error, "cannot listen with more sockets");
            }
        }
        self.publish(|orders| orders.listeners = listeners);
    }

    /// The other process finishes what is open.
    pub(crate) fn set_old(&self, old: Rc<Finishing>) {
        self.old.replace(Some(old));
    }
}

fn add_late(limiter: &Limiter, late: &[LateCounts]) {
    let mut same = late.iter();
    if let Some((_, counts)) = same.find(|(identity, _)| *identity == limiter.identity) {
        let count = |&(key, window, more): &(u64, u64, u32)| Count { key, window, more };
        let counts: Vec<_> = counts.iter().map(count).collect();
        limiter.import(&counts, since_epoch());
    }
}

// The old process.
impl Supervisor {
    /// Excludes changes while the result is kept.
    pub(crate) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// What is handed over, and its sockets in order.
    pub(crate) fn offer(&self, limits: &[Handed]) -> io::Result<(HandOver, Vec<Vec<OwnedFd>>)> {
        let orders = self.orders();
        let (mut uses, mut sockets) = (Vec::new(), Vec::new());
        let mut add = |what, of_use: Vec<OwnedFd>| {
            let count = of_use.len();
            uses.push(HandedSocket { what, count });
            sockets.push(of_use);
        };
        for listener in &orders.listeners {
            let copies = listener
                .descriptors()
                .map(|socket| socket.try_clone_to_owned());
            let address = listener.address.clone();
            add(
                SocketUse::Listener(address),
                copies.collect::<io::Result<_>>()?,
            );
        }
        for (what, socket) in self.endpoints.borrow().of_use() {
            add(what, vec![socket.try_clone()?]);
        }
        let (tickets, own_tickets) = self.tickets.secrets();
        let backends = self.backends.borrow();
        let members = backends.iter().flat_map(|backend| &backend.members);
        let offer = HandOver {
            sockets: uses,
            config: orders.config.as_deref().cloned(),
            admissions: (*orders.admissions).clone(),
            tickets,
            own_tickets,
            limit_secret: TicketKey(self.limit_secret),
            limits: limits.iter().map(Handed::described).collect(),
            health: members.map(|watched| watched.known()).collect(),
        };
        Ok((offer, sockets))
    }

    /// Accepts nothing more: what waits in the backlogs is the new process's. Connections close after their next response.
    /// Returns the listeners, which stay open until it is certain that the new process serves.
    pub(crate) async fn leave(&self) -> Vec<Arc<Listener>> {
        let mut held = Vec::new();
        let seq = self.publish(|orders| {
            orders.leaving = true;
            held = std::mem::take(&mut orders.listeners);
        });
        let left = tokio::time::timeout(LEAVE_LIMIT, self.applied(seq)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("a worker does not stop accepting");
        }
        held
    }

    /// The new process serves: its files are its own.
    pub(crate) fn have_left(&self, taken: &TakenOver, held: Vec<Arc<Listener>>) {
        for listener in held {
            if taken.listeners.contains(&listener.address) {
                listener.leave_file();
            }
        }
        let endpoints = self.endpoints.take();
        let control = endpoints.control.map(|(path, _)| path);
        self.keeps_control.set(control != taken.control);
        let depth = self.old_processes();
        if depth >= MOST_OLD {
            tracing::warn!(old = depth + 1, "too many old processes: ending the oldest");
            self.end_oldest();
        }
        tracing::info!("a new process has taken over: finishing what is open");
        self.stage.send_replace(Stage::Left);
    }

    /// Serves as before: the new process has ended.
    pub(crate) async fn resume(&self, held: Vec<Arc<Listener>>) {
        let workers = self.workers.len();
        let again = |listener: &Arc<Listener>| {
            let sockets = listener
                .descriptors()
                .map(|socket| socket.try_clone_to_owned());
            let sockets = sockets.collect::<io::Result<_>>()?;
            let again = Listener::inherit(&Bind::new(listener.address.clone()), sockets, workers)?;
            listener.leave_file();
            again.own_file();
            Ok(Arc::new(again))
        };
        let listeners: io::Result<Vec<_>> = held.iter().map(again).collect();
        let listeners = listeners.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot accept connections again");
            Vec::new()
        });
        self.publish(|orders| {
            orders.leaving = false;
            orders.listeners = listeners;
        });
    }

    /// How far a take-over has come.
    pub(crate) fn stage(&self) -> tokio::sync::watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Whether the control socket's file is still this process's.
    pub(crate) fn keeps_control(&self) -> bool {
        self.keeps_control.get()
    }

    /// Completes when it stops serving, or when it serves again.
    pub(crate) async fn until_leaving(&self, leaving: bool) {
        let mut orders = self.orders.subscribe();
        // The sender lives as long as `self`.
        let _ = orders.wait_for(|orders| orders.leaving == leaving).await;
    }

    /// The process that has taken over has ended.
    pub(crate) fn lose_successor(&self) {
        self.stage.send_replace(Stage::Alone);
    }

    /// Waits until everything has ended here and in older processes.
    pub(crate) async fn until_finished(&self) {
        let mut quiet = 0;
        // Twice, since a connection being accepted is briefly not counted.
        while quiet < 2 {
            let is_open = self.connections(None) > 0 || self.is_late();
            let is_busy = is_open || self.old_processes() > 0;
            quiet = if is_busy { 0 } else { quiet + 1 };
            tokio::time::sleep(FINISH_POLL).await;
        }
    }
}

// Older processes.
impl Supervisor {
    fn older(&self) -> Option<Rc<Finishing>> {
        self.old.borrow().clone()
    }

    /// How many processes finish what is open.
    pub(crate) fn old_processes(&self) -> u32 {
        let report = self.older().and_then(|old| old.report());
        report.map_or(0, |report| report.old_processes + 1)
    }

    /// Tells the old process the configuration in force, for the requests that it still gets; returns once it has it.
    pub(super) async fn tell_old_of_config(&self) {
        let (Some(old), Some(config)) = (self.older(), self.orders().config.clone()) else {
            return;
        };
        let request = ControlRequest::Configure(Box::new((*config).clone()));
        if let Some(ControlReply::Refused(error)) = old.ask(&request, CONFIGURE_LIMIT).await {
            tracing::warn!(error, "the old process refused a configuration");
        }
        // What it sends by the one before is in flight by now.
        old.refresh().await;
    }

    /// Passes a request on, and returns the answer.
    pub(super) async fn tell_old(
        &self,
        request: &ControlRequest,
        wait: Duration,
    ) -> Option<ControlReply> {
        self.older()?.ask(request, wait).await
    }

    /// Ends the oldest process: this one, if there is no older one.
    pub(super) fn end_oldest(&self) {
        match self.older().filter(|old| old.report().is_some()) {
            Some(old) => drop(tokio::task::spawn_local(async move {
                old.ask(&ControlRequest::EndOldest, Duration::ZERO).await;
            })),
            None if *self.stage.borrow() == Stage::Serving => {}
            None => drop(self.stage.send_replace(Stage::TooOld)),
        }
    }

    /// Adds the report of older processes to this one's.
    pub(super) fn add_old(&self, report: &mut ProxyReport) {
        let Some(old) = self.older().and_then(|old| old.report()) else {
            return;
        };
        report.old_processes += old.old_processes + 1;
        report.connections += old.connections;
        for server in old.servers.into_iter().filter(|old| old.in_flight > 0) {
            let mut own = report.servers.iter_mut();
            match own.find(|own| own.backend == server.backend && own.server == server.server) {
                Some(own) => own.in_flight += server.in_flight,
                None => report.servers.push(ServerReport {
                    up: false,
                    busy: false,
                    reason: "no longer configured".into(),
                    ..server
                }),
            }
        }
    }
}
