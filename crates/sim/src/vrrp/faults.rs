//! What breaks, and the rest afterwards.

use super::relays::State;
use super::{Event, Sim, ms};
use crate::violation::Violation;
use gaiola_core::vrrp::Input;
use std::ops::Range;
use std::time::Duration;

impl Sim {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.faulty {
            return Ok(());
        }
        let n = self.world.rng.usize(0..self.plan.nodes);
        let for_a_while = self.world.span(ms(20)..ms(4000));
        let kinds = if self.relays.is_empty() { 15 } else { 19 };
        match self.world.rng.u32(0..kinds) {
            0 => {
                self.nodes[n].crash();
                self.world.after(for_a_while, Event::Start(n));
            }
            1 => {
                // Restarted at once, as pid 1 does.
                self.nodes[n].crash();
                let soon = self.world.span(ms(5)..ms(300));
                self.world.after(soon, Event::Start(n));
            }
            2 => {
                self.nodes[n].frozen = true;
                self.world.after(for_a_while, Event::Thaw(n));
            }
            3 => {
                self.nodes[n].ready = false;
                self.nodes[n].serving = false;
                self.world.after(for_a_while, Event::Ready(n));
                self.attend(n)?;
            }
            4 => {
                let to = self.world.rng.usize(0..=self.plan.nodes);
                self.cut[n][to] = true;
                self.world.after(for_a_while, Event::Heal { from: n, to });
            }
            5 => self.isolate(n, for_a_while),
            6 => self.loss = self.world.rng.u32(0..600).saturating_sub(300),
            7 => {
                self.deaf[n] = true;
                self.world
                    .after(for_a_while, Event::Heal { from: n, to: n });
            }
            8 => self.mute(n, for_a_while),
            9 | 10 => self.operate(n),
            11 | 12 => self.restart_agent(n),
            13 => self.exchange(n, ms(1)..ms(300))?,
            14 => {
                let vip = self.world.rng.usize(0..self.plan.vips);
                if self.nodes[n].runs() {
                    self.pass(n, vip, Input::Yield)?;
                    self.attend(n)?;
                }
            }
            15 => self.break_a_relay(for_a_while),
            16 | 17 => {
                let other = self.world.rng.usize(0..self.plan.nodes);
                self.cut_link(n, other, for_a_while);
            }
            _ => {
                let relay = self.world.rng.usize(0..self.plan.relays);
                self.cut_link(n, self.place_of_relay(relay), for_a_while);
            }
        }
        let next = self.world.span(ms(10)..self.plan.calm);
        self.world.after(next, Event::Fault);
        Ok(())
    }

    /// Another program takes a keeper's place.
    pub(super) fn exchange(&mut self, n: usize, starts: Range<Duration>) -> Result<(), Violation> {
        if !self.nodes[n].runs() {
            return Ok(());
        }
        for vip in 0..self.plan.vips {
            self.pass(n, vip, Input::Exchange)?;
        }
        self.nodes[n].crash();
        let starts = self.world.span(starts);
        self.world.after(starts, Event::Start(n));
        Ok(())
    }

    /// Exchanges the keeper that holds the first VIP, once no agent hands one over.
    pub(super) fn exchange_a_holder(&mut self) -> Result<(), Violation> {
        if self.nodes.iter().any(|node| node.agent.is_handing_over()) {
            self.world.after(ms(100), Event::Exchange);
            return Ok(());
        }
        let Some(holder) = (0..self.plan.nodes).find(|n| self.nodes[*n].is_active(0)) else {
            return Ok(());
        };
        self.checks.exchanged(self.world.now(), &self.nodes);
        self.exchange(holder, ms(100)..ms(500))
    }

    /// A relay ends, or its server.
    fn break_a_relay(&mut self, span: Duration) {
        let relay = self.world.rng.usize(0..self.plan.relays);
        let off = self.world.rng.bool();
        self.relays[relay].state = if off { State::Off } else { State::Refuses };
        self.world.after(span, Event::Relay(relay));
    }

    /// Cuts one link, in both directions.
    fn cut_link(&mut self, one: usize, other: usize, span: Duration) {
        for (from, to) in [(one, other), (other, one)] {
            if from != to {
                self.cut[from][to] = true;
                self.world.after(span, Event::Heal { from, to });
            }
        }
    }

    /// Cuts all links between balancers and no other, or mends them.
    pub(super) fn part(&mut self, cut: bool) {
        for from in 0..self.plan.nodes {
            self.cut[from][..self.plan.nodes].fill(cut);
        }
    }

    /// Cuts the holder of the first VIP off from everybody, if another balancer could take all it holds.
    pub(super) fn cut_off_a_holder(&mut self) {
        let could_take = |n: &usize| {
            let node = &self.nodes[*n];
            node.ready && (0..self.plan.vips).all(|vip| node.may_hold(vip))
        };
        let serving = self.serving();
        let able: Vec<usize> = serving.into_iter().filter(could_take).collect();
        let holder = (0..self.plan.nodes).find(|n| self.nodes[*n].is_active(0));
        if let Some(holder) = holder.filter(|holder| able.iter().any(|n| n != holder)) {
            self.checks.shaken(self.world.now());
            self.isolate(holder, ms(3000));
        }
    }

    /// Nothing that a node sends arrives.
    pub(super) fn mute(&mut self, n: usize, span: Duration) {
        for to in (0..self.cut.len()).filter(|&to| to != n) {
            self.cut[n][to] = true;
            self.world.after(span, Event::Heal { from: n, to });
        }
    }

    /// Cuts a node off from everyone, in both directions.
    pub(super) fn isolate(&mut self, n: usize, span: Duration) {
        for to in (0..self.cut.len()).filter(|&to| to != n) {
            self.cut[n][to] = true;
            self.world.after(span, Event::Heal { from: n, to });
            if to != self.plan.nodes {
                self.cut[to][n] = true;
                self.world.after(span, Event::Heal { from: to, to: n });
            }
        }
    }

    /// The faults stop: everything runs, every packet arrives. One node may stay unready.
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        self.faulty = false;
        self.loss = 0;
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.deaf.fill(false);
        self.mend_relays();
        self.checks.rest(self.world.now());
        // Somebody serves the VIPs.
        let unready = self.world.rng.usize(0..self.plan.nodes * 2);
        let may_be = self.serving().iter().any(|n| *n != unready);
        let unready = if may_be { unready } else { self.plan.nodes };
        (0..self.plan.nodes).for_each(|n| self.take_order(n));
        self.world.after(ms(6000), Event::Operate);
        if self.plan.sealed && !self.plan.preempt {
            self.world.after(ms(24_000), Event::Exchange);
        }
        if !self.relays.is_empty() && !self.plan.preempt {
            self.world.after(ms(10_000), Event::Part);
            self.world.after(ms(15_000), Event::Join);
            self.world.after(ms(18_000), Event::Island);
        }
        for n in 0..self.plan.nodes {
            self.nodes[n].frozen = false;
            self.start(n)?;
            self.nodes[n].stays_unready = n == unready;
            self.nodes[n].ready = n != unready;
            self.nodes[n].serving = n != unready;
            self.attend(n)?;
        }
        Ok(())
    }

    /// One relay may stay broken where there are others.
    fn mend_relays(&mut self) {
        let all = self.plan.relays;
        if all == 0 {
            return;
        }
        let broken = self.world.rng.usize(0..all * 2);
        for (relay, it) in self.relays.iter_mut().enumerate() {
            let stays = relay == broken && all > 1;
            it.state = if stays { State::Off } else { State::Runs };
        }
    }
}
