//! The agents beside the keepers, like `agent::balancer`: each writes its keeper's configuration, and hands over the VIPs
//! that a drained balancer holds, and those that may go home.

use super::sabotage::Sabotage;
use super::{Event, Sim, ms};
use crate::violation::Violation;
use gaiola_core::vrrp::Input;
use gaiola_core::vrrp::hand_over::{self, HandOver, Heir, Held, OFFER_AGAIN, SERVE};
use gaiola_model::Time;
use std::time::Duration;

/// The agent of one balancer.
pub(super) struct Agent {
    /// Number of times it was started: what an earlier one had planned does not happen.
    life: u64,
    /// The order that it knows.
    pub(super) order: usize,
    /// The hand-over of each VIP.
    hand_over: Vec<Option<HandOver>>,
    /// When each VIP that is held was last offered.
    offered: Vec<Option<Time>>,
    may_have_left_one_closed: bool,
}

impl Agent {
    pub(super) fn new(vips: usize) -> Self {
        Self {
            life: 0,
            order: 0,
            hand_over: vec![None; vips],
            offered: vec![None; vips],
            may_have_left_one_closed: true,
        }
    }

    pub(super) fn is_handing_over(&self) -> bool {
        self.hand_over.iter().any(Option::is_some)
    }
}

impl Sim {
    /// An agent ends, in the middle of a hand-over if there is one, and pid 1 starts the next.
    pub(super) fn restart_agent(&mut self, n: usize) {
        let mut nodes = (0..self.plan.nodes).filter(|n| self.nodes[*n].agent.is_handing_over());
        let n = nodes.next().unwrap_or(n);
        let agent = &mut self.nodes[n].agent;
        let (order, life) = (agent.order, agent.life + 1);
        *agent = Agent {
            life,
            order,
            ..Agent::new(self.plan.vips)
        };
        let starts = self.world.span(ms(20)..ms(500));
        self.world.after(starts, Event::Agent { node: n, life });
    }

    /// One turn of an agent.
    pub(super) fn agent_turn(&mut self, n: usize, life: u64) -> Result<(), Violation> {
        if self.nodes[n].agent.life != life {
            return Ok(());
        }
        let again = self.world.span(ms(200)..ms(300));
        self.world.after(again, Event::Agent { node: n, life });
        let node = &mut self.nodes[n];
        if !node.runs() || node.agent.is_handing_over() {
            return Ok(());
        }
        if std::mem::take(&mut node.agent.may_have_left_one_closed) {
            return self.serve_on(n);
        }
        let leaving = self.leaving(n);
        if leaving.is_empty() {
            return self.configure_keeper(n);
        }
        let now = self.world.now();
        for (vip, heir) in leaving {
            let mut out = Vec::new();
            let begun = HandOver::begin(now, heir, &mut out);
            let agent = &mut self.nodes[n].agent;
            (agent.hand_over[vip], agent.offered[vip]) = (Some(begun), Some(now));
            self.carry_out_hand_over(n, vip, &out)?;
        }
        Ok(())
    }

    /// Ends what an earlier agent may have left.
    fn serve_on(&mut self, n: usize) -> Result<(), Violation> {
        if self.sabotage == Some(Sabotage::ForgetsHandOver) {
            return Ok(());
        }
        (0..self.plan.vips).try_for_each(|vip| self.carry_out_hand_over(n, vip, &SERVE))
    }

    /// Whether a VIP is held here and belongs elsewhere.
    fn must_go(&self, n: usize, vip: usize) -> bool {
        let node = &self.nodes[n];
        let may_stay = self.orders.priority(node.agent.order, n, vip).is_some();
        node.is_active(vip) && !may_stay
    }

    /// The VIPs to hand over now, each with its heir.
    fn leaving(&mut self, n: usize) -> Vec<(usize, Heir)> {
        let now = self.world.now();
        let shown = self.nodes[n].clock.shows(now);
        let mut leaving = Vec::new();
        for vip in 0..self.plan.vips {
            let must_go = self.must_go(n, vip);
            let home = self.orders.home(self.nodes[n].agent.order, vip);
            let home = (home != n).then(|| self.nodes[home].address);
            let node = &mut self.nodes[n];
            let is_held = node.is_active(vip);
            let offered = &mut node.agent.offered[vip];
            *offered = offered.filter(|at| is_held && now - *at < OFFER_AGAIN);
            let is_free = is_held && offered.is_none();
            let Some(router) = node.router(vip).filter(|_| is_free) else {
                continue;
            };
            let held = Held {
                must_go,
                home,
                standby: router.standby(shown),
                settled: router.settled(shown),
            };
            let by = [Sabotage::KeepsWhenDrained, Sabotage::DropsWhenDrained];
            let keeps = must_go && self.sabotage.is_some_and(|it| by.contains(&it));
            leaving.extend(
                hand_over::heir(&held)
                    .filter(|_| !keeps)
                    .map(|heir| (vip, heir)),
            );
        }
        leaving
    }

    /// Writes the keeper's configuration: the VIPs of the order, and those that are held until another balancer takes them.
    fn configure_keeper(&mut self, n: usize) -> Result<(), Violation> {
        for vip in 0..self.plan.vips {
            let wanted = self.orders.priority(self.nodes[n].agent.order, n, vip);
            let must_go = self.must_go(n, vip);
            if must_go && self.sabotage == Some(Sabotage::DropsWhenDrained) {
                self.pass(n, vip, Input::NotReady)?;
            }
            if must_go && self.sabotage == Some(Sabotage::Trusts) {
                self.pass(n, vip, Input::Yield)?;
            }
            let told = self.nodes[n].told[vip].filter(|_| must_go);
            self.nodes[n].told[vip] = wanted.or(told);
        }
        self.tell_who_is_around(n);
        self.attend(n)
    }

    /// As `core::topology::keeper_ways`: only a balancer that serves would take a VIP.
    fn tell_who_is_around(&mut self, n: usize) {
        let order = self.nodes[n].agent.order;
        let is_heir = |other| other != n && !self.orders.is_drained(order, other);
        let has_heir = (0..self.plan.nodes).any(is_heir);
        self.nodes[n].set_heir(self.world.now(), has_heir);
    }

    pub(super) fn go_on_handing_over(
        &mut self,
        n: usize,
        vip: usize,
        life: u64,
    ) -> Result<(), Violation> {
        if self.nodes[n].agent.life != life {
            return Ok(());
        }
        let Some(mut hand_over) = self.nodes[n].agent.hand_over[vip] else {
            return Ok(());
        };
        let now = self.world.now();
        let mut out = Vec::new();
        hand_over.step(now, self.nodes[n].report(vip, now), &mut out);
        self.nodes[n].agent.hand_over[vip] = (!hand_over.has_ended()).then_some(hand_over);
        self.carry_out_hand_over(n, vip, &out)
    }

    /// Carries out what the hand-over of a VIP asks for, like `agent::balancer`, and schedules its next step.
    fn carry_out_hand_over(
        &mut self,
        n: usize,
        vip: usize,
        out: &[hand_over::Output],
    ) -> Result<(), Violation> {
        let mut requests_end = Duration::ZERO;
        for output in out {
            match output {
                hand_over::Output::Close | hand_over::Output::Stays(_) => {}
                hand_over::Output::HoldBack(on) => {
                    self.pass_if_it_runs(n, vip, Input::HoldBack(*on))?;
                }
                hand_over::Output::Refuse => {
                    self.nodes[n].refuses[vip] = true;
                    requests_end = self.world.span(ms(20)..hand_over::REFUSING);
                }
                hand_over::Output::Yield => self.pass_if_it_runs(n, vip, Input::Yield)?,
                hand_over::Output::Accept => self.nodes[n].refuses[vip] = false,
            }
        }
        let agent = &self.nodes[n].agent;
        if let Some(hand_over) = &agent.hand_over[vip] {
            let (next, life) = (requests_end + hand_over.poll_interval(), agent.life);
            self.world
                .after(next, Event::HandOver { node: n, vip, life });
        }
        Ok(())
    }

    /// The operator drains a balancer, or brings it back; each agent learns of it in its own time.
    pub(super) fn operate(&mut self, n: usize) {
        let is_drained = self.orders.is_drained(self.orders.last(), n);
        let others_serve = self.serving().iter().any(|other| *other != n);
        if !is_drained && !others_serve {
            return;
        }
        self.orders.drain(n, !is_drained, &self.plan);
        for node in 0..self.plan.nodes {
            let arrives = self.world.span(ms(20)..ms(2000));
            self.world.after(arrives, Event::Order(node));
        }
    }

    /// An agent learns the last order, even one that does not run: the next reads it from the store.
    pub(super) fn take_order(&mut self, n: usize) {
        self.nodes[n].agent.order = self.orders.last();
    }

    /// The balancers that go on serving whatever their agents do next.
    pub(super) fn serving(&self) -> Vec<usize> {
        let serves = |n: &usize| {
            let node = &self.nodes[*n];
            let orders = [self.orders.last(), node.agent.order];
            let is_drained = orders
                .iter()
                .any(|order| self.orders.is_drained(*order, *n));
            !is_drained && !node.stays_unready && node.told.iter().all(Option::is_some)
        };
        (0..self.plan.nodes).filter(serves).collect()
    }
}
