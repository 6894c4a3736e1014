//! The operator's `vip_command` on a few balancers, with an API that moves the address late: the real
//! [`VipCommand`] of each, over VIPs that are taken, lost and for a while held twice, commands that fail, hang or are killed after
//! the API has begun, and agents that end.
//!
//! Once all is quiet the API must lead to the holder, and stay there.

use crate::violation::{Rule, Violation};
use crate::world::World;
use gaiola_core::vrrp::command::{CONFIRM_AFTER, Input, Output, VipCommand};
use gaiola_model::Time;
use std::time::Duration;

/// How long the faults last.
const FAULTS: Duration = Duration::from_secs(90);

/// The last claim's second call, a command that hangs before it, and the longest wait after failures.
const QUIET: Duration = Duration::from_secs(120);

/// For so long at the end nothing may move any more.
const RESTS: Duration = Duration::from_secs(20);

/// An API has done what it was asked within this time, whether who asked lives or not.
const API: Duration = Duration::from_secs(8);

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing is called a second time after a success.
    CallsOnce,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// An agent reads what its keeper reports.
    Poll { node: usize, life: u64 },
    /// The API leads the VIP to a node.
    Leads { to: usize },
    /// A command ends.
    Ends { node: usize, call: u64, ok: bool },
    /// Something happens to the VIP, or to an agent.
    Fault,
    /// Two hold it, and the loser lets go.
    Resolve { loser: usize },
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// What its keeper reports: its claims while it holds the VIP.
    held: Option<u64>,
    claims: u64,
    command: VipCommand,
    /// The command that runs, by its number.
    running: Option<u64>,
    /// The number of its agent's life.
    life: u64,
    /// The claims after which a command has succeeded.
    done: Option<u64>,
}

struct Sim {
    world: World<Event>,
    nodes: Vec<Node>,
    leads_to: Option<usize>,
    moved_at: Time,
    calls: u64,
    sabotage: Option<Sabotage>,
}

/// Runs with this seed.
///
/// # Errors
/// The broken rule, when and where.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<(), Violation> {
    let mut world = World::new(seed);
    let nodes = world.rng.usize(2..5);
    let mut sim = Sim {
        world,
        nodes: vec![Node::default(); nodes],
        leads_to: None,
        moved_at: Time::ZERO,
        calls: 0,
        sabotage,
    };
    for node in 0..nodes {
        sim.world
            .after(Duration::ZERO, Event::Poll { node, life: 0 });
    }
    sim.take(0);
    sim.world.after(ms(1), Event::Fault);
    let end = Time::ZERO + FAULTS + QUIET;
    while let Some(event) = sim.world.next_until(end) {
        sim.happen(event);
    }
    sim.check(end, seed)
}

impl Sim {
    fn is_faulty(&self) -> bool {
        self.world.now() < Time::ZERO + FAULTS
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Poll { node, life } => self.poll(node, life),
            Event::Leads { to } => {
                if self.leads_to != Some(to) {
                    self.moved_at = self.world.now();
                }
                self.leads_to = Some(to);
            }
            Event::Ends { node, call, ok } => {
                let it = &mut self.nodes[node];
                if it.running == Some(call) {
                    it.running = None;
                    it.done = it.held.filter(|_| ok).or(it.done);
                    self.step(node, Input::Ended { ok });
                }
            }
            Event::Fault => self.fault(),
            Event::Resolve { loser } => self.resolve(loser),
        }
    }

    fn holders(&self) -> Vec<usize> {
        let holds = |n: &usize| self.nodes[*n].held.is_some();
        (0..self.nodes.len()).filter(holds).collect()
    }

    fn take(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.claims += 1;
        it.held = Some(it.claims);
    }

    fn fault(&mut self) {
        if !self.is_faulty() {
            return;
        }
        let node = self.world.rng.usize(0..self.nodes.len());
        let holders = self.holders();
        match self.world.rng.u32(0..4) {
            // It moves without an overlap, or with a short one.
            0 | 1 if holders.len() == 1 && holders != [node] => {
                self.nodes[holders[0]].held = None;
                self.take(node);
            }
            // A split: for a while two hold it.
            2 if holders.len() == 1 && holders != [node] => {
                self.take(node);
                let loser = if self.world.rng.bool() {
                    node
                } else {
                    holders[0]
                };
                let after = self.world.span(ms(50)..ms(20_000));
                self.world.after(after, Event::Resolve { loser });
            }
            3 => self.restart_agent(node),
            _ => {}
        }
        let next = self.world.span(ms(100)..ms(15_000));
        self.world.after(next, Event::Fault);
    }

    /// The winner hears the loser, which lets go, or the loser dies unheard.
    fn resolve(&mut self, loser: usize) {
        self.nodes[loser].held = None;
        if self.world.rng.bool() {
            return;
        }
        for winner in self.holders() {
            self.take(winner);
        }
    }

    /// Its command, if one runs, is nobody's from now on.
    fn restart_agent(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.command = VipCommand::default();
        (it.running, it.done) = (None, None);
        it.life += 1;
        let life = it.life;
        let starts = self.world.span(ms(50)..ms(4000));
        self.world.after(starts, Event::Poll { node, life });
    }

    fn poll(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life {
            return;
        }
        let again = self.world.span(ms(200)..ms(300));
        self.world.after(again, Event::Poll { node, life });
        let held = self.nodes[node].held;
        self.step(node, Input::Held(held));
        self.step(node, Input::Deadline);
    }

    fn step(&mut self, node: usize, input: Input) {
        let mut out = Vec::new();
        let now = self.world.now();
        self.nodes[node].command.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Run => self.call(node),
                Output::Kill => {
                    let call = self.nodes[node].running.expect("one that runs is killed");
                    let ok = self.world.chance(100);
                    self.world.after(ms(5), Event::Ends { node, call, ok });
                }
            }
        }
    }

    fn call(&mut self, node: usize) {
        self.calls += 1;
        let call = self.calls;
        let it = &mut self.nodes[node];
        assert!(it.running.is_none(), "two commands run at once");
        it.running = Some(call);
        let is_done = it.held.is_some() && it.done == it.held;
        if is_done && self.sabotage == Some(Sabotage::CallsOnce) {
            return self.world.after(
                ms(5),
                Event::Ends {
                    node,
                    call,
                    ok: true,
                },
            );
        }
        let kinds = if self.is_faulty() { 0..6 } else { 0..4 };
        let effect = self.world.span(ms(20)..API);
        match self.world.rng.u32(kinds) {
            // It fails before anything has happened, or hangs.
            4 => {
                let soon = self.world.span(ms(5)..ms(3000));
                self.world.after(
                    soon,
                    Event::Ends {
                        node,
                        call,
                        ok: false,
                    },
                );
            }
            5 => {
                if self.world.rng.bool() {
                    self.world.after(effect, Event::Leads { to: node });
                }
            }
            // The API has begun: a kill does not stop it.
            _ => {
                self.world.after(effect, Event::Leads { to: node });
                let ends = effect + self.world.span(ms(5)..ms(500));
                let ok = !self.is_faulty() || self.world.chance(800);
                self.world.after(ends, Event::Ends { node, call, ok });
            }
        }
    }

    fn check(&self, end: Time, seed: u64) -> Result<(), Violation> {
        let holders = self.holders();
        let [holder] = holders[..] else {
            let how = format!("{holders:?} hold the VIP at the end; seed {seed}");
            return Err(Rule::VipLed.broken(how));
        };
        let rests = end - self.moved_at >= RESTS;
        if self.leads_to == Some(holder) && rests {
            return Ok(());
        }
        let leads = self.leads_to;
        Err(Rule::VipLed.broken(format!(
            "{holder} holds the VIP, but the API leads to {leads:?} since {:?}, {CONFIRM_AFTER:?} after a claim at the latest; \
             seed {seed}",
            self.moved_at
        )))
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{each, seeds};

    #[test]
    fn in_the_end_the_api_leads_to_the_holder() {
        let seeds = seeds("vip_command", 2000);
        let outcomes = each(&seeds, |seed| run(seed, None));
        let broken: Vec<String> = outcomes
            .into_iter()
            .filter_map(|outcome| Some(outcome.err()?.to_string()))
            .collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    fn is_reported(sabotage: Sabotage) -> bool {
        (0..300).any(|seed| run(seed, Some(sabotage)).is_err())
    }

    #[test]
    fn one_call_for_a_claim_is_reported() {
        assert!(is_reported(Sabotage::CallsOnce));
    }
}
