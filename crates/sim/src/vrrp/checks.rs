//! What must always hold, and what must hold once the faults have stopped.

use super::node::Node;
use super::{Outcome, Plan, ms};
use gaiola_core::vrrp::{Reason, Role};
use gaiola_model::Time;
use std::time::Duration;

/// The longest that a kernel may keep a VIP whose keeper does not hold it.
const LONGEST_LEFTOVER: Duration = ms(1200);

/// After the faults have stopped, every VIP is held once within this: a packet that is still on its way, a keeper that
/// was just started, the Active-Down interval, and one duel.
const OWNED_WITHIN: Duration = ms(700);

/// And the neighbours know by whom within this: an announcement at least every two seconds.
const KNOWN_WITHIN: Duration = ms(2200);

pub(super) struct Checks {
    vips: usize,
    preempt: bool,
    resting_since: Option<Time>,
    /// Since when each node's kernel has each VIP without its keeper's will.
    leftover: Vec<Vec<Option<Time>>>,
    /// Which node the neighbours take for each VIP's holder.
    neighbours: Vec<Option<usize>>,
    /// The last time after the faults at which some VIP was not held exactly once, or the holder changed.
    unowned_until: Time,
    unknown_until: Time,
    holders: Vec<Option<usize>>,
    takeovers: u64,
}

impl Checks {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            vips: plan.vips,
            preempt: plan.preempt,
            resting_since: None,
            leftover: vec![vec![None; plan.vips]; plan.nodes],
            neighbours: vec![None; plan.vips],
            unowned_until: Time::ZERO,
            unknown_until: Time::ZERO,
            holders: vec![None; plan.vips],
            takeovers: 0,
        }
    }

    /// A gratuitous ARP arrived.
    pub(super) fn announced(&mut self, vip: usize, node: usize) {
        self.neighbours[vip] = Some(node);
    }

    /// A node sends a gratuitous ARP: only for an address that is there.
    pub(super) fn announces(&self, node: &Node, vip: usize) -> Result<(), String> {
        match node.has(vip) {
            true => Ok(()),
            false => Err(format!(
                "{} announces VIP {vip} without having it",
                node.address
            )),
        }
    }

    pub(super) fn became(&mut self, _: usize, _: usize, role: Role, reason: Reason) {
        self.takeovers += u64::from(role == Role::Active && reason != Reason::NobodyTookIt);
    }

    /// The faults have stopped.
    pub(super) fn rest(&mut self, now: Time) {
        self.resting_since = Some(now);
        self.unowned_until = now;
        self.unknown_until = now;
    }

    pub(super) fn after_event(&mut self, now: Time, nodes: &[Node]) -> Result<(), String> {
        for (n, node) in nodes.iter().enumerate() {
            for vip in 0..self.vips {
                self.check_one(now, n, node, vip)?;
            }
        }
        match self.resting_since {
            Some(since) => self.check_rest(now - since, now, nodes),
            None => Ok(()),
        }
    }

    fn check_one(&mut self, now: Time, n: usize, node: &Node, vip: usize) -> Result<(), String> {
        let holds = node.runs() && node.is_active(vip);
        if holds && !node.ready {
            return Err(format!(
                "{} is Active for VIP {vip} and serves nothing",
                node.address
            ));
        }
        if holds && !node.has(vip) {
            return Err(format!(
                "{} is Active for VIP {vip} without having it",
                node.address
            ));
        }
        let leftover = &mut self.leftover[n][vip];
        if !node.has(vip) || holds {
            *leftover = None;
            return Ok(());
        }
        let since = *leftover.get_or_insert(now);
        match now - since > LONGEST_LEFTOVER {
            true => Err(format!("{} keeps VIP {vip} since {since:?}", node.address)),
            false => Ok(()),
        }
    }

    fn check_rest(&mut self, rested: Duration, now: Time, nodes: &[Node]) -> Result<(), String> {
        for vip in 0..self.vips {
            let holder = holder(nodes, vip);
            if holder.is_none() || holder != self.holders[vip] {
                self.holders[vip] = holder;
                self.unowned_until = now;
            }
            if holder.is_none() || self.neighbours[vip] != holder {
                self.unknown_until = now;
            }
        }
        // A preempting home may wait out its patience after having yielded, and then take the VIP once more.
        if !self.preempt && rested > OWNED_WITHIN && self.unowned_until == now {
            return Err(format!(
                "{rested:?} after the last fault: {}",
                picture(nodes, self.vips)
            ));
        }
        if !self.preempt && rested > KNOWN_WITHIN && self.unknown_until == now {
            let neighbours = &self.neighbours;
            return Err(format!(
                "{rested:?} after the last fault the neighbours believe {neighbours:?}: {}",
                picture(nodes, self.vips)
            ));
        }
        Ok(())
    }

    pub(super) fn at_end(&self, nodes: &[Node]) -> Result<(), String> {
        for vip in 0..self.vips {
            let holder = holder(nodes, vip).ok_or_else(|| {
                format!("VIP {vip} is not held once: {}", picture(nodes, self.vips))
            })?;
            let priority = |node: &Node| node.routers[vip].settings().priority;
            let best = nodes.iter().filter(|node| node.ready).map(priority).max();
            if self.preempt && Some(priority(&nodes[holder])) != best {
                return Err(format!(
                    "VIP {vip} is not held by the highest that is ready"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn outcome(&self) -> Outcome {
        let since = self.resting_since.unwrap_or_default();
        Outcome {
            owned_after: self.unowned_until - since,
            known_after: self.unknown_until - since,
            takeovers: self.takeovers,
        }
    }
}

/// The one node that holds the VIP, whose kernel alone has it.
fn holder(nodes: &[Node], vip: usize) -> Option<usize> {
    let mut having = (0..nodes.len()).filter(|&n| nodes[n].has(vip));
    let only = having.next()?;
    let alone = having.next().is_none() && nodes[only].runs() && nodes[only].is_active(vip);
    alone.then_some(only)
}

/// Every node and VIP in a line: the role, and whether the kernel has the address.
fn picture(nodes: &[Node], vips: usize) -> String {
    let one = |node: &Node, vip: usize| {
        let role = node.routers[vip].role();
        let has = if node.has(vip) { " has it" } else { "" };
        format!("{} VIP {vip} {role:?}{has}", node.address)
    };
    let all: Vec<String> = nodes
        .iter()
        .flat_map(|node| (0..vips).map(move |vip| one(node, vip)))
        .collect();
    all.join("; ")
}
