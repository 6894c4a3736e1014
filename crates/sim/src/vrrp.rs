//! Balancers and VIPs under faults: the real `core::vrrp` and `wire::vrrp` over a network that loses, delays, duplicates
//! and reorders packets and is cut in one direction, on servers that crash, restart, freeze and have drifting clocks.
//!
//! Beside each keeper an agent gives VIPs back to their homes, and away once its balancer is drained, like
//! `agent::balancer`. It may end in the middle of that. In a sealed site relays forward messages, like `agent::relay`; each link between
//! two balancers, or a balancer and a relay, may be cut by itself, and relays die.
//!
//! After each event the `checks` verify the invariants. Then the faults stop, and the VIPs must come to rest: each held
//! once, and the neighbours know which node holds it.

mod agent;
mod checks;
mod faults;
mod network;
mod node;
mod orders;
mod relays;
mod sabotage;

use crate::violation::Violation;
use crate::world::World;
use checks::Checks;

use gaiola_core::vrrp::{Input, Output, Router, Settings};
use gaiola_model::Time;
use gaiola_model::vrrp::{Message, Vrid};
use gaiola_model::{ServerName, Tier};
use gaiola_wire::vrrp::Key;
use node::Node;
use orders::Orders;
use relays::{Relay, State};
pub use sabotage::Sabotage;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Parameters of a run; everything else is random.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of balancers.
    pub nodes: usize,
    /// Number of VIPs, each at home on another balancer, wrapping around.
    pub vips: usize,
    /// Whether a home that is ready preempts others.
    pub preempt: bool,
    /// Whether advertisements are sealed.
    pub sealed: bool,
    /// Number of relays; only sealed sites have some.
    pub relays: usize,
    /// The longest time between two faults.
    pub calm: Duration,
    /// Duration of the faults.
    pub faults: Duration,
    /// Duration of the rest without faults afterwards.
    pub rest: Duration,
}

/// Result of a run that broke no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How long after the last fault every VIP was held exactly once, and remained so.
    pub owned_after: Duration,
    /// How long after the last fault the neighbours knew all owners, and still did at the end.
    pub known_after: Duration,
    /// Number of take-overs.
    pub takeovers: u64,
}

/// Runs a plan with this seed.
///
/// # Errors
///
/// The first broken rule, when and where.
pub fn run(plan: &Plan, seed: u64, sabotage: Option<Sabotage>) -> Result<Outcome, Violation> {
    let mut sim = Sim::new(plan, seed, sabotage);
    sim.run().map_err(|Violation { rule, how }| {
        let at = sim.world.now().since_start();
        rule.broken(format!("{how}; seed {seed}, {plan:?}, after {at:?}"))
    })?;
    Ok(sim.checks.outcome())
}

/// Interval of advertisements.
const INTERVAL: Duration = ms(100);

/// An event of the simulation.
#[derive(Clone, Debug)]
enum Event {
    /// A node's routers may be due, unless its timer was reset since.
    Due { node: usize, timer: u64 },
    /// An advertisement arrives, or a datagram from or at a relay.
    Packet {
        to: usize,
        from: usize,
        payload: Vec<u8>,
    },
    /// The kernel of a relay's server refused a node's datagram.
    Refused(usize),
    /// A gratuitous ARP of a node arrives at the neighbours.
    Announced { node: usize, vip: usize },
    /// The kernel may drop an address.
    Expire(usize),
    /// The process starts.
    Start(usize),
    /// A frozen process continues.
    Thaw(usize),
    /// The data plane becomes ready.
    Ready(usize),
    /// An agent's turn, unless it ended since.
    Agent { node: usize, life: u64 },
    /// It continues handing a VIP over.
    HandOver { node: usize, vip: usize, life: u64 },
    /// It learns the operator's last order.
    Order(usize),
    /// A cut link passes packets again.
    Heal { from: usize, to: usize },
    /// A relay runs again.
    Relay(usize),
    /// When all is well, the balancers are cut off from each other alone,
    Part,
    /// and are not any more.
    Join,
    /// When all is well, a holder is cut off from everybody for a while.
    Island,
    /// When all is well, a holder's program is exchanged.
    Exchange,
    /// The operator drains a balancer, or brings it back, when all is well.
    Operate,
    /// Something breaks.
    Fault,
    /// The faults stop.
    Rest,
}

impl Event {
    /// Whether a fault begins or ends, after which the routers need a short while.
    fn changes_the_world(&self) -> bool {
        matches!(
            self,
            Self::Start(_)
                | Self::Thaw(_)
                | Self::Ready(_)
                | Self::Heal { .. }
                | Self::Relay(_)
                | Self::Fault
                | Self::Rest
        )
    }
}

/// Which directions are cut, and which relays run.
struct Ways<'a> {
    cut: &'a [Vec<bool>],
    deaf: &'a [bool],
    relays: &'a [Relay],
}

impl Ways<'_> {
    fn pass(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to] && self.deaf.get(to).is_none_or(|deaf| !deaf)
    }

    /// Whether packets pass in both directions; the index after the nodes' is the neighbours', then come the relays.
    fn are_open(&self, one: usize, other: usize) -> bool {
        self.pass(one, other) && self.pass(other, one)
    }

    /// Whether the messages of two nodes reach each other, directly or by a relay.
    fn connect(&self, one: usize, other: usize) -> bool {
        let reaches = |from: usize, to: usize| {
            let relayed = |relay: usize| self.pass(from, relay) && self.pass(relay, to);
            self.pass(from, to) || self.relays_in(State::Runs).any(relayed)
        };
        reaches(one, other) && reaches(other, one)
    }

    /// Whether a node hears from a relay, or from the kernel of its server.
    fn lead_to_a_relay(&self, n: usize) -> bool {
        let mut relays = self.relays_in(State::Runs);
        let mut kernels = self.relays_in(State::Refuses);
        relays.any(|relay| self.are_open(n, relay)) || kernels.any(|it| self.are_open(n, it))
    }

    /// The places of the relays in this state.
    fn relays_in(&self, state: State) -> impl Iterator<Item = usize> {
        let first = self.deaf.len() + 1;
        let all = self.relays.iter().enumerate();
        let those = all.filter(move |(_, relay)| relay.state == state);
        those.map(move |(n, _)| first + n)
    }
}

struct Sim {
    plan: Plan,
    world: World<Event>,
    nodes: Vec<Node>,
    /// `cut[from][to]`: the nodes, then the neighbours, then the relays.
    cut: Vec<Vec<bool>>,
    /// Nothing reaches these servers, including clients' connections.
    deaf: Vec<bool>,
    relays: Vec<Relay>,
    faulty: bool,
    /// Current packet loss of the network, in thousandths.
    loss: u32,
    key: Option<Key>,
    orders: Orders,
    checks: Checks,
    sabotage: Option<Sabotage>,
}

impl Sim {
    fn new(plan: &Plan, seed: u64, sabotage: Option<Sabotage>) -> Self {
        let orders = Orders::new(plan);
        let mut world = World::new(seed);
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|n| Node::new(n, plan, &orders, &mut world))
            .collect();
        for n in 0..plan.nodes {
            let at = world.span(ms(0)..ms(500));
            world.after(at, Event::Start(n));
            world.after(at, Event::Agent { node: n, life: 0 });
        }
        world.after(ms(1), Event::Fault);
        world.after(plan.faults, Event::Rest);
        Self {
            plan: plan.clone(),
            nodes,
            cut: vec![vec![false; plan.nodes + 1 + plan.relays]; plan.nodes + 1 + plan.relays],
            relays: vec![Relay::new(plan.nodes); plan.relays],
            deaf: vec![false; plan.nodes],
            faulty: true,
            loss: 0,
            key: plan
                .sealed
                .then(|| Key::from_hex(&"5a".repeat(16)).expect("a key")),
            checks: Checks::new(plan),
            orders,
            sabotage,
            world,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let end = Time::ZERO + self.plan.faults + self.plan.rest;
        while let Some(event) = self.world.next_until(end) {
            if event.changes_the_world() {
                self.checks.changed(self.world.now());
            }
            self.happen(event)?;
            let calm = self.loss == 0;
            let now = self.world.now();
            let ways = Ways {
                cut: &self.cut,
                deaf: &self.deaf,
                relays: &self.relays,
            };
            self.checks.after_event(now, &self.nodes, &ways, calm)?;
        }
        let is_drained = |n: usize| self.orders.is_drained(self.orders.last(), n);
        self.checks.at_end(&self.nodes, is_drained)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Due { node, timer } if self.nodes[node].timer == timer => self.attend(node),
            Event::Due { .. } => Ok(()),
            Event::Packet { to, from, payload } => {
                if let Some(relay) = self.relay_at(to) {
                    self.relay(relay, from, &payload);
                } else if self.nodes[to].receive(from, payload) {
                    self.attend(to)?;
                }
                Ok(())
            }
            Event::Refused(n) => {
                let node = &mut self.nodes[n];
                if !node.runs() {
                    return Ok(());
                }
                let shown = node.clock.shows(self.world.now());
                node.contact.refused(shown);
                self.attend(n)
            }
            Event::Relay(relay) => {
                self.relays[relay].state = State::Runs;
                Ok(())
            }
            Event::Part => {
                self.part(true);
                Ok(())
            }
            Event::Join => {
                self.part(false);
                Ok(())
            }
            Event::Exchange => self.exchange_a_holder(),
            Event::Island => {
                self.cut_off_a_holder();
                Ok(())
            }
            Event::Announced { node, vip } => {
                self.checks.announced(vip, node);
                Ok(())
            }
            Event::Expire(n) => {
                self.nodes[n].expire(self.world.now());
                Ok(())
            }
            Event::Start(n) => self.start(n),
            Event::Thaw(n) => {
                self.nodes[n].frozen = false;
                self.attend(n)
            }
            Event::Ready(n) => {
                let node = &mut self.nodes[n];
                node.ready = node.alive && !node.stays_unready;
                node.serving = !node.stays_unready;
                self.attend(n)
            }
            Event::Agent { node, life } => self.agent_turn(node, life),
            Event::HandOver { node, vip, life } => self.go_on_handing_over(node, vip, life),
            Event::Order(n) => {
                self.take_order(n);
                Ok(())
            }
            Event::Heal { from, to } => {
                self.cut[from][to] = false;
                if from == to {
                    self.deaf[to] = false;
                }
                Ok(())
            }
            Event::Operate => {
                let n = self.world.rng.usize(0..self.plan.nodes);
                self.checks.operated();
                self.operate(n);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Rest => self.rest(),
        }
    }

    fn start(&mut self, n: usize) -> Result<(), Violation> {
        if self.nodes[n].alive {
            return Ok(());
        }
        let now = self.world.now();
        self.nodes[n].start(now, &mut self.world);
        let workers_connect = self.world.span(ms(20)..ms(120));
        self.world.after(workers_connect, Event::Ready(n));
        self.attend(n)
    }

    /// One turn of a keeper: packets that arrived, its configuration, the data plane, then deadlines, like
    /// `agent::keeper::vip`.
    fn attend(&mut self, n: usize) -> Result<(), Violation> {
        if !self.nodes[n].runs() {
            return Ok(());
        }
        for (from, payload) in self.nodes[n].take_inbox() {
            self.hear(n, from, &payload)?;
        }
        self.keep_contact(n)?;
        for vip in 0..self.plan.vips {
            self.reconcile(n, vip)?;
            if let Some(input) = self.nodes[n].settle(vip) {
                self.pass(n, vip, input)?;
            }
            if self.nodes[n].is_due(vip, self.world.now()) && !self.is_idle(n, vip) {
                self.pass(n, vip, Input::Deadline)?;
            }
        }
        let idle = |vip: usize| self.is_idle(n, vip);
        if let Some(due) = self.nodes[n].next_due(self.world.now(), idle) {
            // A loaded machine is a little late.
            let late = self.world.span(us(20)..us(2000));
            self.nodes[n].timer += 1;
            let timer = self.nodes[n].timer;
            self.world.at(due + late, Event::Due { node: n, timer });
        }
        Ok(())
    }

    /// Whether a router keeps no deadline, by sabotage.
    fn is_idle(&self, n: usize, vip: usize) -> bool {
        let never = self.sabotage == Some(Sabotage::NeverTakesOver) && !self.faulty;
        never && !self.nodes[n].is_active(vip)
    }

    /// Follows the keeper's configuration of a VIP.
    fn reconcile(&mut self, n: usize, vip: usize) -> Result<(), Violation> {
        if let Some(input) = self.nodes[n].reconfigure(vip, &self.plan, self.sabotage) {
            self.pass(n, vip, input)?;
        }
        self.nodes[n].drop_stopped(vip);
        Ok(())
    }

    fn pass_if_it_runs(&mut self, n: usize, vip: usize, input: Input) -> Result<(), Violation> {
        if self.nodes[n].runs() {
            self.pass(n, vip, input)?;
            self.attend(n)?;
        }
        Ok(())
    }

    /// Passes an input to a router and carries out its outputs.
    fn pass(&mut self, n: usize, vip: usize, input: Input) -> Result<(), Violation> {
        let now = self.world.now();
        let mut out = Vec::new();
        let shown = self.nodes[n].clock.shows(now);
        let Some(router) = self.nodes[n].router_mut(vip) else {
            return Ok(());
        };
        router.step(shown, input, &mut out);
        for output in out {
            match output {
                Output::AddAddress if self.sabotage == Some(Sabotage::AddsNoAddress) => {}
                Output::RemoveAddress if self.sabotage == Some(Sabotage::KeepsAddress) => {
                    self.nodes[n].hold_for_good(vip);
                }
                Output::AddAddress | Output::RefreshAddress => {
                    let until = self.nodes[n].hold(vip, now, &mut self.world);
                    self.world.at(until, Event::Expire(n));
                }
                Output::RemoveAddress => self.nodes[n].drop_address(vip),
                Output::Advertise(priority) => self.advertise(n, vip, priority, INTERVAL),
                Output::AskForPatience(_) if self.sabotage == Some(Sabotage::LeavesUnannounced) => {
                }
                Output::AskForPatience(priority) => {
                    let settings = self.nodes[n].router(vip).map(Router::settings);
                    let interval = settings.map_or(INTERVAL, Settings::exchange_interval);
                    self.advertise(n, vip, priority, interval);
                }
                Output::Announce => {
                    self.checks.announces(&self.nodes[n], vip)?;
                    self.announce(n, vip);
                }
                Output::SayHello => {
                    let hello = self.nodes[n].router(vip).map(|router| router.hello(shown));
                    hello
                        .into_iter()
                        .for_each(|hello| self.say(n, &Message::Hello(hello)));
                }
                Output::HoldBack => {
                    let captures = self.sabotage != Some(Sabotage::CapturesNothing);
                    self.nodes[n].holding_back[vip] = true;
                    self.nodes[n].captures[vip] = captures;
                }
                Output::PassOn => {
                    self.nodes[n].holding_back[vip] = false;
                    self.nodes[n].captures[vip] = false;
                }
                Output::Became(role, reason) => self.checks.became(n, vip, role, reason),
            }
        }
        Ok(())
    }
}

fn vrid(vip: usize) -> Vrid {
    u8::try_from(vip + 1)
        .ok()
        .and_then(Vrid::new)
        .expect("few VIPs")
}

fn address_of(vip: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99 + vrid(vip).get()))
}

/// The balancer of a node.
fn server_of(n: usize) -> ServerName {
    ServerName::new(Tier::Balancer, u16::try_from(n + 1).expect("few nodes"))
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

#[cfg(test)]
mod tests;
