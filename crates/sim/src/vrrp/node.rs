//! One balancer: its keeper's process, and what its kernel keeps while that process is dead or frozen.

use super::agent::Agent;
use super::network::ipv4;
use super::orders::Orders;
use super::{Event, INTERVAL, Plan, Sabotage, address_of, ms, vrid};
use crate::world::{Clock, World};
use gaiola_core::vrrp::hand_over::KeeperView;
use gaiola_core::vrrp::{
    ADDRESS_LIFETIME, Contact, Freshness, Input, Role, Router, Settings, Surroundings,
};
use gaiola_model::Time;
use gaiola_model::vrrp::{Priority, Stamp};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

/// Packets that a socket buffers for a process that does not read; more are lost.
const SOCKET: usize = 256;

pub(super) struct Node {
    pub(super) address: IpAddr,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    /// The data plane serves.
    pub(super) ready: bool,
    pub(super) stays_unready: bool,
    /// The proxy runs; a keeper that has just started learns it later.
    pub(super) serving: bool,
    /// Whether the keeper queues each VIP's SYNs.
    pub(super) holding_back: Vec<bool>,
    /// Whether it really does.
    pub(super) captures: Vec<bool>,
    pub(super) agent: Agent,
    /// Whether the proxy leaves new connections to each VIP unanswered.
    pub(super) refuses: Vec<bool>,
    pub(super) clock: Clock,
    /// Number of times its timer was set: only the last setting counts.
    pub(super) timer: u64,
    /// What the agent has written for the keeper: its priority for each VIP; `None`: it is not to hold it.
    pub(super) told: Vec<Option<Priority>>,
    routers: Vec<Option<Router>>,
    /// Routers that were asked to stop.
    leaving: Vec<bool>,
    pub(super) freshness: Freshness,
    pub(super) contact: Contact,
    around: Surroundings,
    /// Whether each router knows that nobody hears this node.
    passed_cut_off: Vec<bool>,
    /// The last data plane state passed to each router.
    passed_ready: Vec<bool>,
    inbox: VecDeque<(usize, Vec<u8>)>,
    /// Until when the kernel keeps each VIP; `None`: it does not have it.
    addresses: Vec<Option<Time>>,
}

impl Node {
    /// A server after power-on, with no keeper yet.
    pub(super) fn new(
        number: usize,
        plan: &Plan,
        orders: &Orders,
        world: &mut World<Event>,
    ) -> Self {
        let last = u8::try_from(number + 1).expect("few nodes");
        let mut node = Self {
            address: IpAddr::V4(Ipv4Addr::new(10, 77, 1, last)),
            alive: false,
            frozen: false,
            ready: false,
            stays_unready: false,
            serving: true,
            holding_back: vec![false; plan.vips],
            captures: vec![false; plan.vips],
            agent: Agent::new(plan.vips),
            refuses: vec![false; plan.vips],
            clock: Clock::new(Time::ZERO, 0),
            timer: 0,
            told: (0..plan.vips)
                .map(|vip| orders.priority(0, number, vip))
                .collect(),
            routers: Vec::new(),
            leaving: Vec::new(),
            freshness: Freshness::new(Stamp(0)),
            contact: Contact::new(0),
            around: Surroundings {
                relays: plan.relays > 0,
                balancers: plan.nodes > 1,
            },
            passed_cut_off: Vec::new(),
            passed_ready: Vec::new(),
            inbox: VecDeque::new(),
            addresses: vec![None; plan.vips],
        };
        node.start(Time::ZERO, world);
        node.alive = false;
        node
    }

    /// A new process, without the state of the one before, and with a new clock.
    pub(super) fn start(&mut self, now: Time, world: &mut World<Event>) {
        let vips = self.told.len();
        let drift_ppm = world.rng.i32(-20_000..20_000);
        self.alive = true;
        self.frozen = false;
        self.ready = false;
        self.clock = Clock::new(now, drift_ppm);
        self.inbox.clear();
        self.passed_ready = vec![false; vips];
        self.passed_cut_off = vec![false; vips];
        self.contact = Contact::new(u64::from(ipv4(self.address).to_bits()));
        self.contact
            .configure(self.clock.shows(now), self.around, INTERVAL);
        self.holding_back = vec![false; vips];
        self.captures = vec![false; vips];
        self.leaving = vec![false; vips];
        self.routers = vec![None; vips];
        // Its time of day may be a minute off.
        let wrong = world.rng.u64(0..120_000_000);
        let micros = u64::try_from(now.since_start().as_micros()).expect("short runs");
        self.freshness = Freshness::new(Stamp(1_000_000_000 + micros + wrong));
    }

    /// Another balancer would take a VIP from it, or none would any more.
    pub(super) fn set_heir(&mut self, now: Time, has_heir: bool) {
        self.around.balancers = has_heir;
        (self.contact).configure(self.clock.shows(now), self.around, INTERVAL);
    }

    /// Input for a router whose configuration differs from it; a VIP without a router gets one.
    pub(super) fn reconfigure(
        &mut self,
        vip: usize,
        plan: &Plan,
        sabotage: Option<Sabotage>,
    ) -> Option<Input> {
        let Some(priority) = self.told[vip] else {
            let leaves = self.router(vip).is_some() && !self.leaving[vip];
            self.leaving[vip] |= leaves;
            return leaves.then_some(Input::Stop);
        };
        let mut settings = Settings::new(vrid(vip), address_of(vip), self.address, priority);
        settings.interval = INTERVAL;
        settings.preempt = plan.preempt;
        settings.hellos = plan.sealed && sabotage != Some(Sabotage::Trusts);
        match &self.routers[vip] {
            Some(router) => (*router.settings() != settings).then_some(Input::Configure(settings)),
            None => {
                self.routers[vip] = Some(Router::new(settings));
                self.passed_ready[vip] = false;
                self.passed_cut_off[vip] = false;
                let held = self.has(vip);
                Some(Input::Start { held })
            }
        }
    }

    /// A router that has stopped is gone.
    pub(super) fn drop_stopped(&mut self, vip: usize) {
        if self.router(vip).is_some_and(Router::is_stopped) {
            self.routers[vip] = None;
            self.leaving[vip] = false;
        }
    }

    /// The router of a VIP, if the keeper has one.
    pub(super) fn router(&self, vip: usize) -> Option<&Router> {
        self.routers[vip].as_ref()
    }

    pub(super) fn router_mut(&mut self, vip: usize) -> Option<&mut Router> {
        self.routers[vip].as_mut()
    }

    /// Whether it may hold a VIP, and go on holding it.
    pub(super) fn may_hold(&self, vip: usize) -> bool {
        self.router(vip).is_some() && !self.leaving[vip]
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
        self.router(vip)?;
        let passed = std::mem::replace(&mut self.passed_ready[vip], self.ready);
        let input = if self.ready {
            Input::Ready
        } else {
            Input::NotReady
        };
        (passed != self.ready).then_some(input)
    }

    /// Whether nobody hears this node, to pass to a router if that changed.
    pub(super) fn settle_contact(&mut self, vip: usize, cut_off: bool) -> Option<Input> {
        self.router(vip)?;
        let passed = std::mem::replace(&mut self.passed_cut_off[vip], cut_off);
        (passed != cut_off).then_some(Input::CutOff(cut_off))
    }

    pub(super) fn is_due(&self, vip: usize, now: Time) -> bool {
        let shown = self.clock.shows(now);
        let due = self.router(vip).and_then(Router::next_deadline);
        due.is_some_and(|due| due <= shown)
    }

    /// The next deadline, in the world's time.
    pub(super) fn next_due(&self, now: Time, is_idle: impl Fn(usize) -> bool) -> Option<Time> {
        let routers = (0..self.routers.len()).filter(|vip| !is_idle(*vip));
        let next = routers
            .filter_map(|vip| self.router(vip)?.next_deadline())
            .chain(self.contact.next_deadline(self.clock.shows(now)))
            .min();
        next.map(|due| self.clock.when(due))
    }

    /// The kernel keeps the address for its lifetime, and expires it a little late; returns until when.
    pub(super) fn hold(&mut self, vip: usize, now: Time, world: &mut World<Event>) -> Time {
        let until = now + ADDRESS_LIFETIME + world.span(ms(0)..ms(50));
        self.addresses[vip] = Some(until);
        until
    }

    /// The kernel keeps an address that its keeper should have removed.
    pub(super) fn hold_for_good(&mut self, vip: usize) {
        let held = &mut self.addresses[vip];
        *held = held.map(|until| until + ms(60_000));
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
        self.has(vip) && self.serving && (!self.refuses[vip] || self.captures[vip])
    }

    /// What the keeper reports of the VIP; `None` while it does not run.
    pub(super) fn report(&self, vip: usize, now: Time) -> Option<KeeperView> {
        let router = self.router(vip)?;
        self.runs().then(|| KeeperView {
            holds: self.is_active(vip),
            standby: router.standby(self.clock.shows(now)),
            is_holding_back: self.holding_back[vip],
            is_yielding: router.is_yielding(),
        })
    }

    /// Whether it could be handed the VIP.
    pub(super) fn stands_by(&self, vip: usize) -> bool {
        self.runs() && self.ready && self.may_hold(vip) && !self.is_active(vip)
    }

    /// Whether the process believes it holds the VIP.
    pub(super) fn is_active(&self, vip: usize) -> bool {
        let router = self.router(vip);
        self.alive && router.is_some_and(|router| router.role() == Role::Active)
    }
}
