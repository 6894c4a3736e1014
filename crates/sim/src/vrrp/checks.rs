//! The invariants, and what must hold once the faults have stopped.

use super::node::Node;
use super::{Outcome, Plan, Ways, ms};
use crate::violation::{Rule, Violation};
use gaiola_core::vrrp::{Reason, Role, Router};
use gaiola_model::Time;
use std::time::Duration;

/// Longest time a kernel may have a VIP that its keeper does not hold.
const LONGEST_LEFTOVER: Duration = ms(1200);

/// After the faults have stopped every VIP is held once within this time: a packet still in flight, a keeper that has
/// just started, the Active-Down interval, and one duel.
const OWNED_WITHIN: Duration = ms(700);

/// And the neighbours know the holder within this time: the holder announces it at least every two seconds.
const KNOWN_WITHIN: Duration = ms(2200);

/// While any server could serve, a VIP without a holder is answered again within this time after the last change of the
/// faults: the lifetime of a frozen keeper's address.
const ANSWERED_WITHIN: Duration = ms(1200);

/// A node that no other node and no relay hears lets its VIPs go within this time, even if it heard no other node before and
/// was frozen for a moment.
const LETS_GO_WITHIN: Duration = ms(4000);

/// A way to a relay that stays open for longer has carried a ping and its answer, even to a node that was frozen for a moment.
const ANSWERS_WITHIN: Duration = ms(2000);

/// A router that nobody hears, or that hears nobody, is known as such within this time.
const KNOWN_UNHEARD_WITHIN: Duration = ms(1000);

/// In a planned hand-over two servers have a VIP for no longer than an advertisement takes.
const LONGEST_OVERLAP: Duration = ms(150);

/// A new holder's announcement reaches the neighbours within this time, if nothing is lost.
const LONGEST_WAY: Duration = ms(20);

/// In a planned hand-over between servers that are well, the neighbours know the new holder as soon as the last one removes
/// the address; while the network has faults a packet may be slower than another.
const LONGEST_GAP: Duration = ms(2);
const LONGEST_SLOW_GAP: Duration = ms(200);

/// So long after the last change of the faults all routers have found each other.
const CALM_AFTER: Duration = ms(2500);

/// A hand-over that was begun before the faults stopped has ended by then.
const HANDED_OVER_WITHIN: Duration = ms(3500);

/// A keeper that was exchanged holds again what it held within this time.
const EXCHANGED_WITHIN: Duration = ms(900);

/// After the faults each VIP goes home, and stays there.
const MOST_MOVES: u32 = 1;

pub(super) struct Checks {
    vips: usize,
    preempt: bool,
    sealed: bool,
    changed_at: Time,
    /// Since when each VIP is unanswered although a server could answer.
    unanswered: Vec<Option<Time>>,
    /// Since when no router that could take a VIP from each node both hears that node and is heard by it.
    alone: Vec<Vec<Option<Time>>>,
    yielding: Vec<Vec<bool>>,
    /// Since when nobody hears each node, although there are relays.
    unheard: Vec<Option<Time>>,
    /// Since when each node has had a way to a relay and back.
    relayed: Vec<Option<Time>>,
    /// When each node was last heard by a relay for long enough, and by another balancer, in this life.
    contact: Vec<[Option<Time>; 2]>,
    /// A holder was cut off from everybody after the faults.
    is_shaken: bool,
    /// When a keeper was exchanged, after the faults.
    exchanged_at: Option<Time>,
    /// How often each VIP has moved since the faults stopped and all routers found each other.
    moves: Vec<u32>,
    most_moves: u32,
    two_since: Vec<Option<Time>>,
    moved_at: Vec<Time>,
    resting_since: Option<Time>,
    /// Since when each node's kernel has each VIP although its keeper does not hold it.
    leftover: Vec<Vec<Option<Time>>>,
    /// The node that the neighbours take for each VIP's holder.
    neighbours: Vec<Option<usize>>,
    /// The last time after the faults at which a VIP was not held exactly once, or changed its holder.
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
            sealed: plan.sealed,
            changed_at: Time::ZERO,
            unanswered: vec![None; plan.vips],
            alone: vec![vec![None; plan.vips]; plan.nodes],
            unheard: vec![None; plan.nodes],
            relayed: vec![None; plan.nodes],
            contact: vec![[None; 2]; plan.nodes],
            is_shaken: false,
            exchanged_at: None,
            yielding: vec![vec![false; plan.vips]; plan.nodes],
            moves: vec![0; plan.vips],
            most_moves: MOST_MOVES,
            two_since: vec![None; plan.vips],
            moved_at: vec![Time::ZERO; plan.vips],
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

    /// A node may send a gratuitous ARP only for an address it has.
    pub(super) fn announces(&self, node: &Node, vip: usize) -> Result<(), Violation> {
        if node.has(vip) {
            Ok(())
        } else {
            Err(Rule::VipHeld.broken(format!(
                "{} announces VIP {vip} without having it",
                node.address
            )))
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

    /// The operator drains a balancer, or brings it back, after the faults: each VIP may move once more.
    pub(super) fn operated(&mut self) {
        self.most_moves = MOST_MOVES + 1;
    }

    /// A holder is cut off from everybody after the faults: its VIPs move, and home again.
    pub(super) fn shaken(&mut self, now: Time) {
        self.rest(now);
        self.is_shaken = true;
        self.most_moves += 2;
    }

    /// A keeper is exchanged after the faults, at a moment when each VIP is held once: none moves meanwhile.
    pub(super) fn exchanged(&mut self, now: Time, nodes: &[Node]) {
        self.exchanged_at = Some(now);
        self.holders = (0..self.vips).map(|vip| holder(nodes, vip)).collect();
    }

    /// A fault begins or ends.
    pub(super) fn changed(&mut self, now: Time) {
        self.changed_at = now;
    }

    pub(super) fn after_event(
        &mut self,
        now: Time,
        nodes: &[Node],
        ways: &Ways<'_>,
        calm: bool,
    ) -> Result<(), Violation> {
        for (n, node) in nodes.iter().enumerate() {
            self.check_contact(now, n, nodes, ways)?;
            for vip in 0..self.vips {
                self.check_one(now, n, node, vip)?;
                self.check_offer(now, n, vip, nodes, ways)?;
            }
        }
        if !calm {
            self.changed(now);
        }
        for vip in 0..self.vips {
            self.check_answers(now, vip, nodes, ways)?;
        }
        match self.resting_since {
            Some(since) => self.check_rest(now - since, now, nodes),
            None => Ok(()),
        }
    }

    fn check_one(&mut self, now: Time, n: usize, node: &Node, vip: usize) -> Result<(), Violation> {
        let holds = node.runs() && node.is_active(vip);
        if holds && !node.ready {
            return Err(Rule::VipHeld.broken(format!(
                "{} is Active for VIP {vip} and serves nothing",
                node.address
            )));
        }
        if holds && !node.has(vip) {
            return Err(Rule::VipHeld.broken(format!(
                "{} is Active for VIP {vip} without having it",
                node.address
            )));
        }
        let leftover = &mut self.leftover[n][vip];
        if !node.has(vip) || holds {
            *leftover = None;
            return Ok(());
        }
        let since = *leftover.get_or_insert(now);
        if now - since > LONGEST_LEFTOVER {
            Err(Rule::VipHeld.broken(format!("{} keeps VIP {vip} since {since:?}", node.address)))
        } else {
            Ok(())
        }
    }

    /// Whether relays answered a node when it last heard another one, or else their silence means nothing to it.
    fn relays_worked(&mut self, now: Time, n: usize, lives: bool, by: [bool; 2]) -> bool {
        if !lives {
            (self.relayed[n], self.contact[n]) = (None, [None; 2]);
            return false;
        }
        let [by_relay, by_other] = by;
        let since = &mut self.relayed[n];
        *since = by_relay.then(|| since.unwrap_or(now));
        let for_long = since.is_some_and(|since| now - since > ANSWERS_WITHIN);
        let [relay, other] = &mut self.contact[n];
        *relay = for_long.then_some(now).or(*relay);
        *other = by_other.then_some(now).or(*other);
        relay.is_some_and(|relay| other.is_none_or(|other| relay >= other))
    }

    /// A node that nobody hears has no VIP for long.
    fn check_contact(
        &mut self,
        now: Time,
        n: usize,
        nodes: &[Node],
        ways: &Ways<'_>,
    ) -> Result<(), Violation> {
        let mut others = (0..nodes.len()).filter(|&other| other != n);
        let by_relay = ways.lead_to_a_relay(n);
        let by_other = others.any(|other| nodes[other].alive && ways.connect(n, other));
        let is_heard = ways.relays.is_empty()
            || by_relay
            || by_other
            || !self.relays_worked(now, n, nodes[n].alive, [by_relay, by_other]);
        let unheard = &mut self.unheard[n];
        *unheard = (!is_heard && nodes[n].runs()).then(|| unheard.unwrap_or(now));
        let for_long = unheard.is_some_and(|since| now - since > LETS_GO_WITHIN);
        match (0..self.vips).find(|vip| for_long && nodes[n].has(*vip)) {
            None => Ok(()),
            Some(vip) => Err(Rule::VipHeld.broken(format!(
                "{} keeps VIP {vip} although nobody hears it since {unheard:?}",
                nodes[n].address
            ))),
        }
    }

    /// A VIP is offered only if another router is there to take it.
    fn check_offer(
        &mut self,
        now: Time,
        n: usize,
        vip: usize,
        nodes: &[Node],
        ways: &Ways<'_>,
    ) -> Result<(), Violation> {
        let mut others = (0..nodes.len()).filter(|&other| other != n);
        let is_there = others.any(|it| nodes[it].stands_by(vip) && ways.connect(n, it));
        let alone = &mut self.alone[n][vip];
        *alone = (!is_there).then(|| alone.unwrap_or(now));
        let router = nodes[n].router(vip);
        let is_yielding = router.is_some_and(Router::is_yielding);
        let was_yielding = std::mem::replace(&mut self.yielding[n][vip], is_yielding);
        let offers = is_yielding && !was_yielding;
        // A router that was frozen first reads old packets.
        let known = |since: Time| now - since.max(self.changed_at) > KNOWN_UNHEARD_WITHIN;
        let nobody = alone.is_some_and(known);
        if self.sealed && offers && nobody {
            Err(Rule::VipHeld.broken(format!("{} offers VIP {vip} to nobody", nodes[n].address)))
        } else {
            Ok(())
        }
    }

    /// While any server could serve, each VIP is answered.
    fn check_answers(
        &mut self,
        now: Time,
        vip: usize,
        nodes: &[Node],
        ways: &Ways<'_>,
    ) -> Result<(), Violation> {
        let clients = nodes.len();
        // If only clients cannot reach a holder, or do not hear of it, no balancer can detect that.
        let is_hidden = |n: usize| {
            let mut others = (0..clients).filter(|&other| other != n);
            !ways.are_open(n, clients) && others.all(|other| ways.connect(n, other))
        };
        let is_reached = |n: usize| ways.are_open(n, clients) || is_hidden(n);
        let answers = |n: usize| nodes[n].answers(vip) && is_reached(n);
        let is_well = |n: usize| {
            let others = (0..clients).all(|other| other == n || ways.connect(n, other));
            let is_heard = ways.relays.is_empty()
                || ways.lead_to_a_relay(n)
                || (0..clients).any(|other| other != n && nodes[other].alive);
            let serves = nodes[n].runs() && nodes[n].ready && nodes[n].serving;
            serves && others && is_heard && ways.are_open(n, clients)
        };
        let could = (0..clients).any(|n| is_well(n) && nodes[n].may_hold(vip));
        let hidden = holder(nodes, vip).filter(|&n| is_hidden(n));
        let mut known = self.neighbours[vip].into_iter().chain(hidden);
        let answered = known.any(answers);
        let unanswered = &mut self.unanswered[vip];
        *unanswered = (could && !answered).then(|| unanswered.unwrap_or(now));
        let since = unanswered.map(|since| since.max(self.changed_at));
        let calm = since.is_some_and(|since| since - self.changed_at > CALM_AFTER);
        let limit = match holder(nodes, vip) == self.neighbours[vip] {
            _ if calm && (0..clients).all(is_well) => self.longest_gap(),
            true => ANSWERED_WITHIN,
            // If announcements to the clients were lost, they learn from the next one.
            false => ANSWERED_WITHIN.max(KNOWN_WITHIN),
        };
        match since.is_some_and(|since| now - since > limit) {
            true if self.sealed && !self.preempt => Err(Rule::VipAnswered.broken(format!(
                "nobody answers for VIP {vip} since {since:?}, the neighbours believe {:?}: {}",
                self.neighbours[vip],
                picture(nodes, self.vips)
            ))),
            _ => Ok(()),
        }
    }

    /// While all is well a VIP is unanswered only until its new holder's announcement arrives.
    fn longest_gap(&self) -> Duration {
        match self.resting_since {
            Some(_) => LONGEST_GAP,
            None => LONGEST_SLOW_GAP,
        }
    }

    /// A planned hand-over: two have the VIP for a moment, and it moves once.
    fn check_move(
        &mut self,
        rested: Duration,
        now: Time,
        vip: usize,
        nodes: &[Node],
    ) -> Result<bool, Violation> {
        let two = nodes.iter().filter(|node| node.has(vip)).count() > 1;
        let since = &mut self.two_since[vip];
        *since = two.then(|| since.unwrap_or(now));
        if since.is_some_and(|since| {
            let rests = self.is_shaken || rested > OWNED_WITHIN;
            rests && now - since > LONGEST_OVERLAP
        }) {
            return Err(Rule::VipRests.broken(format!(
                "VIP {vip} is on two servers since {since:?}: {}",
                picture(nodes, self.vips)
            )));
        }
        let taken = nodes.iter().position(|node| node.is_active(vip));
        let moves = rested > HANDED_OVER_WITHIN && !two && taken != self.holders[vip];
        self.moves[vip] += u32::from(moves);
        if self.moves[vip] > self.most_moves {
            return Err(Rule::VipRests.broken(format!("VIP {vip} does not come to rest")));
        }
        if two || moves {
            self.moved_at[vip] = now;
        }
        Ok(now - self.moved_at[vip] < LONGEST_WAY)
    }

    fn check_rest(&mut self, rested: Duration, now: Time, nodes: &[Node]) -> Result<(), Violation> {
        if self
            .exchanged_at
            .is_some_and(|at| now - at < EXCHANGED_WITHIN)
        {
            return self.check_exchange(nodes);
        }
        for vip in 0..self.vips {
            let holder = holder(nodes, vip);
            if self.sealed && !self.preempt && self.check_move(rested, now, vip, nodes)? {
                self.holders[vip] = holder.or(self.holders[vip]);
                continue;
            }
            if holder.is_none() || holder != self.holders[vip] {
                self.holders[vip] = holder;
                self.unowned_until = now;
            }
            if holder.is_none() || self.neighbours[vip] != holder {
                self.unknown_until = now;
            }
        }
        // A preempting home may wait out its patience after it yielded, and then take the VIP once more.
        if !self.preempt && rested > OWNED_WITHIN && self.unowned_until == now {
            return Err(Rule::VipRests.broken(format!(
                "{rested:?} after the last fault: {}",
                picture(nodes, self.vips)
            )));
        }
        if !self.preempt && rested > KNOWN_WITHIN && self.unknown_until == now {
            let neighbours = &self.neighbours;
            return Err(Rule::VipRests.broken(format!(
                "{rested:?} after the last fault the neighbours believe {neighbours:?}: {}",
                picture(nodes, self.vips)
            )));
        }
        Ok(())
    }

    /// While a keeper is exchanged its kernel keeps what it held, and no other takes it.
    fn check_exchange(&self, nodes: &[Node]) -> Result<(), Violation> {
        for (vip, before) in self.holders.iter().enumerate() {
            let having = (0..nodes.len()).filter(|n| nodes[*n].has(vip));
            if before.is_some() && !having.eq(*before) {
                return Err(Rule::VipRests.broken(format!(
                    "node {before:?} held VIP {vip} before its keeper was exchanged: {}",
                    picture(nodes, self.vips)
                )));
            }
        }
        Ok(())
    }

    pub(super) fn at_end(
        &self,
        nodes: &[Node],
        is_drained: impl Fn(usize) -> bool,
    ) -> Result<(), Violation> {
        for vip in 0..self.vips {
            let holder = holder(nodes, vip).ok_or_else(|| {
                let picture = picture(nodes, self.vips);
                Rule::VipRests.broken(format!("VIP {vip} is not held once: {picture}"))
            })?;
            // Without hellos no balancer knows of another that it could hand a VIP to.
            if self.sealed && is_drained(holder) {
                return Err(Rule::VipRests.broken(format!(
                    "{} is drained and holds VIP {vip}: {}",
                    nodes[holder].address,
                    picture(nodes, self.vips)
                )));
            }
            let priority = |node: &Node| Some(node.router(vip)?.settings().priority);
            let ready = nodes.iter().filter(|node| node.ready);
            let best = ready.filter_map(priority).max();
            if self.preempt && priority(&nodes[holder]) != best {
                return Err(Rule::VipRests.broken(format!(
                    "VIP {vip} is not held by the highest that is ready"
                )));
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

/// The one node that holds the VIP, if no other kernel has it.
fn holder(nodes: &[Node], vip: usize) -> Option<usize> {
    let mut having = (0..nodes.len()).filter(|&n| nodes[n].has(vip));
    let only = having.next()?;
    let alone = having.next().is_none() && nodes[only].runs() && nodes[only].is_active(vip);
    alone.then_some(only)
}

/// Every node and VIP on one line: the role, and whether the kernel has the address.
fn picture(nodes: &[Node], vips: usize) -> String {
    let one = |node: &Node, vip: usize| {
        let role = node.router(vip).map(Router::role);
        let has = if node.has(vip) { " has it" } else { "" };
        format!("{} VIP {vip} {role:?}{has}", node.address)
    };
    let all: Vec<String> = nodes
        .iter()
        .flat_map(|node| (0..vips).map(move |vip| one(node, vip)))
        .collect();
    all.join("; ")
}
