//! A backend as one worker sees it: how a server is chosen, and waited for.

use super::Server;
use crate::clock::Instant;
use crate::orders::{BackendOrders, Health, InFlight, Queue, Slot, Turn};
use crate::sessions::{Named, Tracker};
use gaiola_core::balance::{self, Ask, Balancer, NotPicked};
use gaiola_core::sticky::Jar;
use gaiola_core::termination::Cause;
use gaiola_model::Time;
use gaiola_model::http::RequestHead;
use gaiola_model::proxy::{self, Admin, Algorithm};
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A backend.
pub(crate) struct Backend {
    /// Its configuration.
    pub(crate) config: proxy::Backend,
    /// Its cookie, if it has one.
    pub(crate) jar: Option<Jar>,
    servers: Vec<Rc<Server>>,
    /// The maxconn of each server, contiguous in memory.
    limits: Vec<Option<u32>>,
    queue: Arc<Queue>,
    in_flight: Arc<InFlight>,
    choice: RefCell<Choice>,
    /// Whether any of its servers takes traffic.
    any_usable: Cell<bool>,
    /// Since when no server has taken traffic; `None` while one does.
    down_since: Cell<Option<Instant>>,
    /// Whether another configuration has replaced it.
    superseded: Cell<bool>,
}

struct Choice {
    balancer: Balancer,
    rng: fastrand::Rng,
}

/// What the choice of a server depends on, of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Want {
    /// The hash key.
    pub(crate) key: Option<u64>,
    /// Index of the server that its cookie names.
    pub(crate) sticky: Option<usize>,
    /// This is the last attempt: a spare is better than a server that has failed.
    pub(crate) last: bool,
}

/// Why no server was available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoServer {
    /// The request has tried all of them.
    #[error("every server that is up was tried")]
    AllTried,
    /// None is up.
    #[error("no server is up")]
    NoneUp,
    /// The operator wants none to take new requests.
    #[error("every server is drained, under maintenance or without a weight")]
    NoneWanted,
    /// The queue is full.
    #[error("the queue is full")]
    QueueFull,
    /// None had room before the timeout.
    #[error("no server had room within the queue's time")]
    QueueTimeout,
    /// The configuration was replaced: use the new one's backend.
    #[error("the configuration has changed")]
    Superseded,
    /// None came up before the timeout.
    #[error("no server came up within the queue's time")]
    StillDown,
}

impl NoServer {
    /// Why a request that finds no server ends.
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Self::AllTried | Self::NoneUp | Self::NoneWanted | Self::Superseded => Cause::NoServer,
            Self::QueueFull => Cause::QueueFull,
            Self::QueueTimeout | Self::StillDown => Cause::QueueTimedOut,
        }
    }
}

/// A server chosen for one request, which counts as in flight until this is dropped.
pub(crate) struct Permit {
    /// The server.
    pub(crate) server: Rc<Server>,
    /// Its index in the backend.
    pub(crate) index: usize,
    slot: Option<Slot>,
    backend: Rc<Backend>,
}

impl Permit {
    /// The connection has switched to another protocol: the slot is given back now, unless such connections count.
    pub(crate) fn becomes_tunnel(&mut self) {
        if !self.backend.config.count_tunnels {
            self.give_slot_back();
            self.backend.lighten(self.index);
        }
    }

    fn give_slot_back(&mut self) {
        let Some(slot) = self.slot.take() else {
            return;
        };
        let limit = self.backend.limits[self.index];
        let too_many = limit.is_some_and(|limit| slot.member.taken() > limit);
        match (self.server.is_usable(), self.server.is_up()) {
            _ if too_many => slot.return_unoffered(),
            (true, _) => drop(slot),
            (false, true) => slot.pass_to_its_own(),
            (false, false) => slot.return_unoffered(),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.server.leave();
        self.backend.lighten(self.index);
        self.give_slot_back();
    }
}

impl Named for Backend {
    fn names(&self) -> (&str, &str) {
        (&self.config.name, "")
    }
}

impl Backend {
    /// The backend of this configuration, whose servers take no traffic yet; `before` is its predecessor.
    pub(super) fn new(
        config: &proxy::Backend,
        servers: Vec<Rc<Server>>,
        orders: &BackendOrders,
        before: Option<&Self>,
        rng: fastrand::Rng,
    ) -> Self {
        let balancer = match before {
            Some(before) => Balancer::after(&before.choice.borrow().balancer, config),
            None => Balancer::new(config),
        };
        Self {
            choice: RefCell::new(Choice { balancer, rng }),
            config: config.clone(),
            jar: Jar::new(config),
            servers,
            limits: config.servers.iter().map(|server| server.maxconn).collect(),
            queue: Arc::clone(&orders.queue),
            in_flight: Arc::clone(&orders.in_flight),
            any_usable: Cell::new(false),
            down_since: Cell::new(match before {
                Some(before) if before.any_usable() => Some(Instant::now()),
                Some(before) => before.down_since.get(),
                None => Some(Instant::now()),
            }),
            superseded: Cell::new(false),
        }
    }

    /// Another configuration replaces it; waiters move to that one.
    pub(super) fn supersede(&self) {
        self.superseded.set(true);
        self.queue.servers_changed();
    }

    /// Whether any of its servers takes traffic.
    pub(crate) fn any_usable(&self) -> bool {
        self.any_usable.get()
    }

    /// How many requests of all workers are queued for its servers, or in flight to them.
    pub(super) fn load(&self) -> u64 {
        self.in_flight.total() + self.queue.waiting() as u64
    }

    /// Its servers, in the configuration's order.
    pub(crate) fn servers(&self) -> &[Rc<Server>] {
        &self.servers
    }

    /// Applies its servers' health; waiters check again.
    pub(super) fn take_health(&self, health: &[Health]) {
        let balancer = &mut self.choice.borrow_mut().balancer;
        let share = |(health, config): (&Health, &proxy::Server)| match config.admin {
            Admin::Ready if health.takes => health.share,
            Admin::Ready | Admin::Drain | Admin::Maint => 0,
        };
        let shares: Vec<_> = health.iter().zip(&self.config.servers).map(share).collect();
        balancer.set_shares(&shares);
        let mut changed = false;
        for (index, health) in health.iter().enumerate() {
            let admin = self.config.servers[index].admin;
            let usable = balancer.takes_traffic(index);
            changed |= self.servers[index].take_health(*health, admin, usable);
        }
        let any_usable = self.servers.iter().any(|server| server.is_usable());
        self.any_usable.set(any_usable);
        let down_since = self.down_since.get().unwrap_or_else(Instant::now);
        self.down_since.set((!any_usable).then_some(down_since));
        if changed {
            self.queue.servers_changed();
        }
    }

    /// The hash key of a request, if servers are chosen by hash.
    pub(crate) fn key(
        &self,
        client: IpAddr,
        request: Option<(&RequestHead, &[u8])>,
    ) -> Option<u64> {
        match &self.config.algorithm {
            Algorithm::Hash { key, .. } => balance::key(key, client, request),
            Algorithm::RoundRobin | Algorithm::LeastConn | Algorithm::Random | Algorithm::First => {
                None
            }
        }
    }

    /// As [`Self::permit`], without waiting. The error is the reason to wait, for [`Self::permit_later`].
    pub(crate) fn permit_now(
        self: &Rc<Self>,
        want: Want,
        tried: &[usize],
        tracker: &Tracker,
    ) -> Result<Permit, NotPicked> {
        let permit = self.choose(want, tried)?;
        tracker.lead_to(permit.server.clone());
        Ok(permit)
    }

    /// Chooses a server, queueing for at most `limit` if necessary. The server named by a cookie is used while it is
    /// up, even if it drains, and waited for while it is full; a hashed request instead moves to the next server, as it
    /// does beyond the bound. Its `tracker` records where it is.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn permit(
        self: &Rc<Self>,
        want: Want,
        tried: &[usize],
        now: Time,
        limit: Duration,
        tracker: &Tracker,
    ) -> Result<Permit, NoServer> {
        match self.permit_now(want, tried, tracker) {
            Ok(permit) => Ok(permit),
            Err(why) => {
                self.permit_later(why, want, tried, now, limit, tracker)
                    .await
            }
        }
    }

    /// As [`Self::permit`], after [`Self::permit_now`] has returned why there was none.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn permit_later(
        self: &Rc<Self>,
        why: NotPicked,
        want: Want,
        tried: &[usize],
        now: Time,
        limit: Duration,
        tracker: &Tracker,
    ) -> Result<Permit, NoServer> {
        let late = self.worth_waiting(why)?;
        let limit = self.patience(why, limit);
        if limit.is_zero() {
            return Err(late);
        }
        let waiting = self.wait(want, tried, now + limit, tracker);
        tokio::time::timeout(limit, waiting)
            .await
            .unwrap_or(Err(late))
            .inspect(|permit| tracker.lead_to(permit.server.clone()))
    }

    /// How long to wait. For a server to come up, no longer than since the last one went down: requests wait out a
    /// short outage, and during a long one no client is held up.
    fn patience(&self, why: NotPicked, limit: Duration) -> Duration {
        match (why, self.down_since.get()) {
            (NotPicked::NoneUp, Some(since)) => limit.saturating_sub(since.elapsed()),
            (NotPicked::NoneUp | NotPicked::Full | NotPicked::AllTried, _) => limit,
        }
    }

    async fn wait(
        self: &Rc<Self>,
        want: Want,
        tried: &[usize],
        deadline: Time,
        tracker: &Tracker,
    ) -> Result<Permit, NoServer> {
        let size = self.config.timeouts.queue_size;
        loop {
            let named = self.named(want, tried);
            let only = named.map(|index| Arc::clone(&self.servers[index].member));
            let joined = self.queue.join(size, deadline, only);
            let mut waiting = joined.ok_or(NoServer::QueueFull)?;
            tracker.wait(self.clone(), waiting.ahead);
            while self.named(want, tried) == named {
                // A slot may have been given back before the join.
                match self.choose(want, tried) {
                    Ok(permit) => return Ok(permit),
                    Err(why) => self.worth_waiting(why)?,
                };
                if let Turn::Slot(slot) = waiting.turn().await {
                    match self.accept(slot, want, tried) {
                        Some(permit) => return Ok(permit),
                        None => break,
                    }
                }
            }
        }
    }

    /// The error if waiting turns out in vain; `Err`: waiting is pointless.
    fn worth_waiting(&self, why: NotPicked) -> Result<NoServer, NoServer> {
        match why {
            _ if self.superseded.get() => Err(NoServer::Superseded),
            NotPicked::AllTried => Err(NoServer::AllTried),
            NotPicked::NoneUp if !self.config.timeouts.queue_when_down => {
                let mut servers = self.config.servers.iter();
                let is_any_wanted = servers.any(proxy::Server::is_wanted);
                Err(if is_any_wanted || self.config.servers.is_empty() {
                    NoServer::NoneUp
                } else {
                    NoServer::NoneWanted
                })
            }
            NotPicked::NoneUp => Ok(NoServer::StillDown),
            NotPicked::Full => Ok(NoServer::QueueTimeout),
        }
    }

    /// The server named by the request's cookie, as long as it may be used.
    fn named(&self, want: Want, tried: &[usize]) -> Option<usize> {
        want.sticky
            .filter(|&index| self.servers[index].is_up() && !tried.contains(&index))
    }

    /// Takes a slot passed on, if its server may still be used.
    fn accept(self: &Rc<Self>, slot: Slot, want: Want, tried: &[usize]) -> Option<Permit> {
        let is_its = |server: &Rc<Server>| Arc::ptr_eq(&server.member, &slot.member);
        let named = self.named(want, tried);
        let may = |index: usize| match named {
            Some(named) => named == index,
            None => self.servers[index].is_usable() && !tried.contains(&index),
        };
        match self.servers.iter().position(is_its) {
            Some(index) if may(index) => Some(self.lend(index, Some(slot))),
            // Another waiter may take it.
            Some(index) if self.servers[index].is_usable() => None,
            Some(_) | None => {
                slot.return_unoffered();
                None
            }
        }
    }

    fn choose(self: &Rc<Self>, want: Want, tried: &[usize]) -> Result<Permit, NotPicked> {
        if want.last
            && let Some(permit) = self.take_waiting_spare(tried)
        {
            return Ok(permit);
        }
        if let Some(index) = self.named(want, tried) {
            return self.take(index).ok_or(NotPicked::Full);
        }
        let Choice { balancer, rng } = &mut *self.choice.borrow_mut();
        let counts_all = balancer.counts_all();
        loop {
            let ask = Ask {
                key: want.key,
                tried,
                in_flight: if counts_all {
                    self.in_flight.total()
                } else {
                    0
                },
            };
            let index = balancer.pick(&ask, |index| self.in_flight_of(index), rng)?;
            // Another worker may have taken the last slot.
            if let Some(permit) = self.take(index) {
                return Ok(permit);
            }
        }
    }

    fn take_waiting_spare(self: &Rc<Self>, tried: &[usize]) -> Option<Permit> {
        let in_flight = |index| self.in_flight_of(index);
        let balancer = &self.choice.borrow().balancer;
        let spare = balancer.waiting_spare(tried, in_flight)?;
        self.take(spare)
    }

    /// Takes a server, if it has room.
    fn take(self: &Rc<Self>, index: usize) -> Option<Permit> {
        match self.limits[index] {
            None => Some(self.lend(index, None)),
            Some(limit) => {
                let slot = self.queue.slot(&self.servers[index].member, limit)?;
                Some(self.lend(index, Some(slot)))
            }
        }
    }

    fn in_flight_of(&self, index: usize) -> u32 {
        let member = &self.servers[index].member;
        let all = || u32::try_from(member.in_flight()).unwrap_or(u32::MAX);
        match self.limits[index] {
            Some(_) if self.config.count_tunnels => member.taken(),
            // Tunnels weigh in the choice; alone they never make a server full.
            Some(limit) if member.taken() < limit => all().min(limit.saturating_sub(1)),
            Some(limit) => all().max(limit),
            None => all(),
        }
    }

    fn lighten(&self, index: usize) {
        let balancer = &mut self.choice.borrow_mut().balancer;
        balancer.lighten(index, || self.in_flight_of(index));
    }

    fn lend(self: &Rc<Self>, index: usize, slot: Option<Slot>) -> Permit {
        let server = Rc::clone(&self.servers[index]);
        server.enter();
        Permit {
            server,
            index,
            slot,
            backend: Rc::clone(self),
        }
    }

    /// Closes idle connections that are too old or were closed by their server.
    pub(crate) fn sweep(&self) {
        let longest: Duration = self.config.timeouts.pooled;
        for server in &self.servers {
            server.sweep(longest);
        }
    }
}
