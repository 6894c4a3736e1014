//! What breaks, and the rest afterwards.

use super::{Event, Sim, ms};
use crate::violation::Violation;
use gaiola_core::vrrp::Input;
use std::time::Duration;

impl Sim {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.faulty {
            return Ok(());
        }
        let n = self.world.rng.usize(0..self.plan.nodes);
        let for_a_while = self.world.span(ms(20)..ms(4000));
        match self.world.rng.u32(0..13) {
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
            11 => self.restart_agent(n),
            _ => {
                let vip = self.world.rng.usize(0..self.plan.vips);
                if self.nodes[n].runs() {
                    self.pass(n, vip, Input::Yield)?;
                    self.attend(n)?;
                }
            }
        }
        let next = self.world.span(ms(10)..self.plan.calm);
        self.world.after(next, Event::Fault);
        Ok(())
    }

    /// Nothing that a node sends arrives.
    pub(super) fn mute(&mut self, n: usize, span: Duration) {
        for to in (0..=self.plan.nodes).filter(|&to| to != n) {
            self.cut[n][to] = true;
            self.world.after(span, Event::Heal { from: n, to });
        }
    }

    /// Cuts a node off from everyone, in both directions.
    pub(super) fn isolate(&mut self, n: usize, span: Duration) {
        for to in (0..=self.plan.nodes).filter(|&to| to != n) {
            self.cut[n][to] = true;
            self.world.after(span, Event::Heal { from: n, to });
            if to < self.plan.nodes {
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
        self.checks.rest(self.world.now());
        // Somebody serves the VIPs.
        let unready = self.world.rng.usize(0..self.plan.nodes * 2);
        let may_be = self.serving().iter().any(|n| *n != unready);
        let unready = if may_be { unready } else { self.plan.nodes };
        (0..self.plan.nodes).for_each(|n| self.take_order(n));
        self.world.after(ms(6000), Event::Operate);
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
}
