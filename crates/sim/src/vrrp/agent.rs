//! The agents beside the keepers hand VIPs back to their homes, like `agent::balancer`.

use super::{Event, Sim, ms};
use crate::violation::Violation;
use gaiola_core::vrrp::Input;
use gaiola_core::vrrp::hand_over::{self, HandOver, Held};
use std::time::Duration;

impl Sim {
    /// The agent starts to hand over VIPs that may go home.
    pub(super) fn hand_over_due(&mut self, n: usize) -> Result<(), Violation> {
        let again = self.world.span(ms(200)..ms(300));
        self.world.after(again, Event::Agent(n));
        if !self.nodes[n].runs() {
            return Ok(());
        }
        let shown = self.nodes[n].clock.shows(self.world.now());
        for vip in 0..self.plan.vips {
            let home = vip % self.plan.nodes;
            let held = Held {
                must_go: false,
                home: (home != n).then(|| self.nodes[home].address),
                standby: self.nodes[n].routers[vip].standby(shown),
                settled: self.nodes[n].routers[vip].settled(shown),
            };
            let node = &self.nodes[n];
            let may_begin = node.is_active(vip) && node.hand_over[vip].is_none();
            if let Some(heir) = hand_over::heir(&held).filter(|_| may_begin) {
                let mut out = Vec::new();
                let begun = HandOver::begin(self.world.now(), heir, &mut out);
                self.nodes[n].hand_over[vip] = Some(begun);
                self.carry_out_hand_over(n, vip, &out)?;
            }
        }
        Ok(())
    }

    pub(super) fn go_on_handing_over(&mut self, n: usize, vip: usize) -> Result<(), Violation> {
        let Some(mut hand_over) = self.nodes[n].hand_over[vip] else {
            return Ok(());
        };
        let now = self.world.now();
        let mut out = Vec::new();
        hand_over.step(now, self.nodes[n].report(vip, now), &mut out);
        self.nodes[n].hand_over[vip] = (!hand_over.has_ended()).then_some(hand_over);
        self.carry_out_hand_over(n, vip, &out)
    }

    /// Carries out what the hand-over of a VIP asks for, like `agent::balancer`, and schedules its next step.
    pub(super) fn carry_out_hand_over(
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
        if let Some(hand_over) = &self.nodes[n].hand_over[vip] {
            let next = requests_end + hand_over.poll_interval();
            self.world.after(next, Event::HandOver { node: n, vip });
        }
        Ok(())
    }
}
