//! What the supervisor wants of every worker: one immutable value, published as a whole. A worker that was busy sees the
//! newest only; nothing in it depends on having seen the ones between.

mod frontend;
mod member;
mod queue;

pub(super) use frontend::FrontendShare;
pub(super) use member::{InFlight, Member, Tally};
pub(super) use queue::{Ahead, Place, Queue, Turn};

use super::limits::Limiter;
use super::listen::Listener;
use super::rules::Guide;
use super::tls::{Binds, ServerSettings};
use gaiola_model::ProxyConfig;
use gaiola_model::proxy::Admission;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What is wanted now.
#[derive(Clone, Default)]
pub(super) struct Orders {
    /// Raised with every change; a worker acknowledges it.
    pub(super) seq: u64,
    /// What is served; `None` until the first configuration.
    pub(super) config: Option<Arc<ProxyConfig>>,
    /// TLS with clients.
    pub(super) tls: Arc<Binds>,
    /// What is listened on.
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Open connections of each of the configuration's frontends.
    pub(super) frontends: Vec<Arc<FrontendShare>>,
    /// Of each of the configuration's frontends, what it says about single requests.
    pub(super) guides: Vec<Arc<Guide>>,
    /// The configuration's limits.
    pub(super) limits: Vec<Arc<Limiter>>,
    /// Of each of the configuration's backends, in the same order.
    pub(super) backends: Vec<BackendOrders>,
    /// Local addresses whose connections are not simply accepted.
    pub(super) admissions: Arc<BTreeMap<IpAddr, Admission>>,
    /// The process is to end: what is queued is served, and each connection closed after its response.
    pub(super) ending: bool,
}

impl Orders {
    /// What is wanted of connections to this local address.
    pub(super) fn admission(&self, local: IpAddr) -> Admission {
        match self.admissions.get(&local) {
            _ if self.ending => Admission::Refuse,
            Some(&admission) => admission,
            None => Admission::Accept,
        }
    }
}

/// A backend's part of the orders.
#[derive(Clone)]
pub(super) struct BackendOrders {
    /// Requests of all workers that wait for one of its servers.
    pub(super) queue: Arc<Queue>,
    /// Requests to all members that have not ended.
    pub(super) in_flight: Arc<InFlight>,
    /// Its members in the configuration's order.
    pub(super) members: Vec<(Arc<Member>, Health)>,
    /// Whether some serve although their checks took them out: there are no others, or too few.
    pub(super) panic: bool,
    /// What TLS is spoken with each of them.
    pub(super) tls: Arc<[Option<ServerSettings>]>,
}

/// A member's health, as checks and traffic have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether it takes requests whose cookie names it.
    pub(super) up: bool,
    /// Whether it takes new ones.
    pub(super) takes: bool,
    /// How often it went down; a worker that sees another number than before closes its idle connections, and its sessions
    /// where that is wanted.
    pub(super) downs: u64,
    /// How often no connection could be made to it any more: what waits for it may wait in vain.
    pub(super) losses: u64,
    /// What part of its weight it takes part with, in sixteenths.
    pub(super) share: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_refused_while_the_process_ends() {
        let mut orders = Orders::default();
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(orders.admission(local), Admission::Accept);
        orders.ending = true;
        assert_eq!(orders.admission(local), Admission::Refuse);
    }
}
