//! One balancer: its keeper's process, and what its kernel keeps while that process is dead or frozen.

use super::{Event, HOME_PRIORITY, PRIORITY_STEP, Plan, address_of, ms, vrid};
use crate::world::{Clock, World};
use gaiola_core::vrrp::hand_over::{HandOver, KeeperView};
use gaiola_core::vrrp::{ADDRESS_LIFETIME, Freshness, Input, Role, Router, Settings};
use gaiola_model::Time;
use gaiola_model::vrrp::{Priority, Stamp};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Packets that a socket buffers for a process that does not read; more are lost.
const SOCKET: usize = 256;

pub(super) struct Node {
    number: usize,
    pub(super) address: Ipv4Addr,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    /// The data plane serves.
    pub(super) ready: bool,
    pub(super) stays_unready: bool,
    /// The proxy runs; a keeper that has just started learns it later.
    pub(super) serving: bool,
    /// Whether the keeper queues each VIP's SYNs.
    pub(super) holding_back: Vec<bool>,
    /// The agent's hand-over of each VIP.
    pub(super) hand_over: Vec<Option<HandOver>>,
    /// Whether the proxy leaves new connections to each VIP unanswered.
    pub(super) refuses: Vec<bool>,
    pub(super) clock: Clock,
    /// Number of times its timer was set: only the last setting counts.
    pub(super) timer: u64,
    pub(super) routers: Vec<Router>,
    pub(super) freshness: Freshness,
    /// The last data plane state passed to each router.
    passed_ready: Vec<bool>,
    inbox: VecDeque<(usize, Vec<u8>)>,
    /// Until when the kernel keeps each VIP; `None`: it does not have it.
    addresses: Vec<Option<Time>>,
}

impl Node {
    /// A server after power-on, with no keeper yet.
    pub(super) fn new(number: usize, plan: &Plan, world: &mut World<Event>) -> Self {
        let last = u8::try_from(number + 1).expect("few nodes");
        let mut node = Self {
            number,
            address: Ipv4Addr::new(10, 77, 1, last),
            alive: false,
            frozen: false,
            ready: false,
            stays_unready: false,
            serving: true,
            holding_back: vec![false; plan.vips],
            hand_over: vec![None; plan.vips],
            refuses: vec![false; plan.vips],
            clock: Clock::new(Time::ZERO, 0),
            timer: 0,
            routers: Vec::new(),
            freshness: Freshness::new(Stamp(0)),
            passed_ready: Vec::new(),
            inbox: VecDeque::new(),
            addresses: vec![None; plan.vips],
        };
        node.start(Time::ZERO, plan, world);
        node.alive = false;
        node
    }

    /// A new process, without the state of the one before, and with a new clock.
    pub(super) fn start(&mut self, now: Time, plan: &Plan, world: &mut World<Event>) {
        let drift_ppm = world.rng.i32(-20_000..20_000);
        self.alive = true;
        self.frozen = false;
        self.ready = false;
        self.clock = Clock::new(now, drift_ppm);
        self.inbox.clear();
        self.passed_ready = vec![false; plan.vips];
        self.holding_back = vec![false; plan.vips];
        // Its time of day may be a minute off.
        let wrong = world.rng.u64(0..120_000_000);
        let micros = u64::try_from(now.since_start().as_micros()).expect("short runs");
        self.freshness = Freshness::new(Stamp(1_000_000_000 + micros + wrong));
        self.routers = (0..plan.vips)
            .map(|vip| Router::new(self.settings(vip, plan)))
            .collect();
    }

    /// The home of VIP n is node n; its successors follow in order, wrapping around.
    fn settings(&self, vip: usize, plan: &Plan) -> Settings {
        let rank = (self.number + plan.nodes - vip % plan.nodes) % plan.nodes;
        let rank = u8::try_from(rank).expect("few nodes");
        let priority = Priority(HOME_PRIORITY - rank * PRIORITY_STEP);
        let mut settings = Settings::new(vrid(vip), address_of(vip), self.address, priority);
        settings.preempt = plan.preempt;
        settings.hellos = plan.sealed;
        settings
    }

    pub(super) fn crash(&mut self) {
        self.alive = false;
        self.frozen = false;
        self.ready = false;
        self.inbox.clear();
    }

    /// Whether the process is running.
    pub(super) fn runs(&self) -> bool {
        self.alive && !self.frozen
    }

    /// Queues a packet; `true`: the process is there to read it.
    pub(super) fn receive(&mut self, from: usize, payload: Vec<u8>) -> bool {
        if self.alive && self.inbox.len() < SOCKET {
            self.inbox.push_back((from, payload));
        }
        self.runs()
    }

    pub(super) fn take_inbox(&mut self) -> VecDeque<(usize, Vec<u8>)> {
        std::mem::take(&mut self.inbox)
    }

    /// The data plane state to pass to a router, if it changed.
    pub(super) fn settle(&mut self, vip: usize) -> Option<Input> {
        let passed = std::mem::replace(&mut self.passed_ready[vip], self.ready);
        let input = if self.ready {
            Input::Ready
        } else {
            Input::NotReady
        };
        (passed != self.ready).then_some(input)
    }

    pub(super) fn is_due(&self, vip: usize, now: Time) -> bool {
        let shown = self.clock.shows(now);
        self.routers[vip]
            .next_deadline()
            .is_some_and(|due| due <= shown)
    }

    /// The next deadline, in the world's time.
    pub(super) fn next_due(&self) -> Option<Time> {
        let next = self.routers.iter().filter_map(Router::next_deadline).min();
        next.map(|due| self.clock.when(due))
    }

    /// The kernel keeps the address for its lifetime, and expires it a little late; returns until when.
    pub(super) fn hold(&mut self, vip: usize, now: Time, world: &mut World<Event>) -> Time {
        let until = now + ADDRESS_LIFETIME + world.span(ms(0)..ms(50));
        self.addresses[vip] = Some(until);
        until
    }

    pub(super) fn drop_address(&mut self, vip: usize) {
        self.addresses[vip] = None;
    }

    /// The kernel drops addresses whose lifetime is over.
    pub(super) fn expire(&mut self, now: Time) {
        for address in &mut self.addresses {
            if address.is_some_and(|until| until <= now) {
                *address = None;
            }
        }
    }

    /// Whether the kernel has the VIP.
    pub(super) fn has(&self, vip: usize) -> bool {
        self.addresses[vip].is_some()
    }

    /// Whether a connection to the VIP that reaches this server is answered, by it or by the router it is forwarded to.
    pub(super) fn answers(&self, vip: usize) -> bool {
        self.has(vip) && self.serving && (!self.refuses[vip] || self.holding_back[vip])
    }

    /// What the keeper reports of the VIP; `None` while it does not run.
    pub(super) fn report(&self, vip: usize, now: Time) -> Option<KeeperView> {
        let router = &self.routers[vip];
        self.runs().then(|| KeeperView {
            holds: self.is_active(vip),
            standby: router.standby(self.clock.shows(now)),
            is_holding_back: self.holding_back[vip],
            is_yielding: router.is_yielding(),
        })
    }

    /// Whether it could be handed the VIP.
    pub(super) fn stands_by(&self, vip: usize) -> bool {
        self.runs() && self.ready && !self.is_active(vip)
    }

    /// Whether the process believes it holds the VIP.
    pub(super) fn is_active(&self, vip: usize) -> bool {
        self.alive && self.routers[vip].role() == Role::Active
    }
}
