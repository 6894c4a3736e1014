//! What the supervisor wants of every worker: one immutable value, published as a whole. A worker that was busy sees
//! only the newest; none depends on the ones before it.

mod frontend;
mod member;
mod queue;

pub(super) use frontend::FrontendShare;
pub(super) use member::{InFlight, Member, Tally};
pub(super) use queue::{Ahead, Queue, Slot, Turn};

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
    /// Incremented with every change; a worker acknowledges it.
    pub(super) seq: u64,
    /// The configuration; `None` until the first.
    pub(super) config: Option<Arc<ProxyConfig>>,
    /// TLS with clients.
    pub(super) tls: Arc<Binds>,
    /// The bound sockets.
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Open connections of each of the configuration's frontends.
    pub(super) frontends: Vec<Arc<FrontendShare>>,
    /// The per-request settings of each of the configuration's frontends.
    pub(super) guides: Vec<Arc<Guide>>,
    /// The configuration's limits.
    pub(super) limits: Vec<Arc<Limiter>>,
    /// One for each of the configuration's backends, in the same order.
    pub(super) backends: Vec<BackendOrders>,
    /// Local addresses whose admission is not `Accept`.
    pub(super) admissions: Arc<BTreeMap<IpAddr, Admission>>,
    /// The process is stopping: queued requests are served, and each connection closes after its response.
    pub(super) ending: bool,
    /// A new process has taken over: each connection closes after its next response, and idle ones are kept until then.
    pub(super) leaving: bool,
}

impl Orders {
    /// The admission of connections to this local address.
    pub(super) fn admission(&self, local: IpAddr) -> Admission {
        match self.admissions.get(&local) {
            _ if self.ending => Admission::Refuse,
            Some(Admission::Refuse) => Admission::Refuse,
            _ if self.leaving => Admission::Close,
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
    /// Requests in flight to all members.
    pub(super) in_flight: Arc<InFlight>,
    /// Its members in the configuration's order.
    pub(super) members: Vec<(Arc<Member>, Health)>,
    /// Whether members serve although their checks took them out, since no others or too few are left.
    pub(super) panic: bool,
    /// TLS settings for each of them.
    pub(super) tls: Arc<[Option<ServerSettings>]>,
}

/// A member's health according to checks and traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether it takes requests whose cookie names it.
    pub(super) up: bool,
    /// Whether it takes new requests.
    pub(super) takes: bool,
    /// How often it went down. When this changes, a worker closes its idle connections to it, and its sessions where
    /// configured.
    pub(super) downs: u64,
    /// How often it became unreachable: what is queued for it may wait in vain.
    pub(super) losses: u64,
    /// Its current share of its weight, in sixteenths.
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

    #[test]
    fn connections_close_after_their_response_while_the_process_leaves() {
        let mut orders = Orders {
            leaving: true,
            ..Orders::default()
        };
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(orders.admission(local), Admission::Close);
        orders.admissions = Arc::new([(local, Admission::Refuse)].into());
        assert_eq!(orders.admission(local), Admission::Refuse);
    }
}
