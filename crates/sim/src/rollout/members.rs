//! The store's members, after etcd: the list, what each has on its disk, and what a change of them requires.
//!
//! Checkers judge what a conductor decides by what is so, and each member by the log on its disk.

use super::session::Decision;
use super::{Sabotage, World};
use crate::violation::{Rule, Violation};
use gaiola_core::members::{self, Fate, MemberChange, MemberFacts, Own, StoreMember};
use gaiola_core::rollout::Facts;
use gaiola_model::{Placement, Revision, ServerName};
use std::collections::{BTreeMap, BTreeSet};

/// The members, and the disks of their servers.
pub(super) struct Members {
    pub(super) list: Vec<StoreMember>,
    /// The last number given to one.
    last: u64,
    /// The member whose log is on each server's disk.
    logs: BTreeMap<ServerName, u64>,
}

impl Members {
    /// The members that found the store.
    pub(super) fn founders(servers: &[ServerName]) -> Self {
        let founder = |(id, server): (u64, &ServerName)| StoreMember {
            id,
            server: Some(*server),
            is_started: true,
            is_learner: false,
        };
        let list: Vec<StoreMember> = (1..).zip(servers).map(founder).collect();
        Self {
            last: list.len() as u64,
            logs: servers.iter().copied().zip(1..).collect(),
            list,
        }
    }

    /// Whether a server has data of a member.
    pub(super) fn has_log(&self, server: ServerName) -> bool {
        self.logs.contains_key(&server)
    }

    /// A server is gone, and its disk with it; or the disk is lost.
    pub(super) fn lose_log(&mut self, server: ServerName) {
        self.logs.remove(&server);
    }

    /// Members whose log is on their server's disk.
    fn with_log(&self) -> impl Iterator<Item = &StoreMember> {
        let has_log = |member: &&StoreMember| {
            let server = member.server;
            server.is_some_and(|server| self.logs.get(&server) == Some(&member.id))
        };
        self.list.iter().filter(has_log)
    }

    /// A voter on this server that has its log.
    fn voter_on(&self, server: ServerName) -> Option<&StoreMember> {
        let mut voters = self.with_log().filter(|member| !member.is_learner);
        voters.find(|member| member.server == Some(server))
    }

    /// Members that run and reach each other.
    pub(super) fn living(&self, is_reached: impl Fn(ServerName) -> bool) -> BTreeSet<u64> {
        let lives =
            |member: &&StoreMember| member.is_started && member.server.is_some_and(&is_reached);
        self.with_log()
            .filter(lives)
            .map(|member| member.id)
            .collect()
    }

    /// Whether more than half of the voters live.
    pub(super) fn has_quorum(&self, living: &BTreeSet<u64>) -> bool {
        let (voters, alive) = self.count(living);
        alive * 2 > voters
    }

    /// The number of voters, and of those that live.
    fn count(&self, living: &BTreeSet<u64>) -> (usize, usize) {
        let voters = self.list.iter().filter(|member| !member.is_learner);
        let alive = voters.clone().filter(|member| living.contains(&member.id));
        (voters.count(), alive.count())
    }

    /// Whether the store survives the loss of one more log, whether a learner votes by then or not.
    pub(super) fn may_lose(&self, server: ServerName) -> bool {
        let votes = |member: &&StoreMember| !member.is_learner;
        let left = self.with_log().filter(votes);
        let left = left.filter(|member| member.server != Some(server));
        self.voter_on(server).is_some() && left.count() * 2 > self.list.len()
    }

    /// Carries a change out, if etcd permits it. `follows`: a learner that is promoted has caught up.
    fn change(&mut self, step: MemberChange, living: &BTreeSet<u64>, follows: bool) {
        match step {
            MemberChange::AddLearner(server) if self.may_add(server, living) => {
                self.last += 1;
                self.list.push(StoreMember {
                    id: self.last,
                    server: Some(server),
                    is_started: false,
                    is_learner: true,
                });
            }
            // One that has died since it caught up is promoted too.
            MemberChange::Promote(id) if follows => {
                let mut learners = self.list.iter_mut().filter(|member| member.is_started);
                if let Some(learner) = learners.find(|member| member.id == id) {
                    learner.is_learner = false;
                }
            }
            MemberChange::Remove(id) if self.may_remove(id, living) => {
                self.list.retain(|member| member.id != id);
            }
            _ => {}
        }
    }

    /// One learner at a time, beside voters that all live.
    fn may_add(&self, server: ServerName, living: &BTreeSet<u64>) -> bool {
        let (voters, alive) = self.count(living);
        let is_there = |member: &StoreMember| member.server == Some(server) || member.is_learner;
        voters == alive && !self.list.iter().any(is_there)
    }

    /// Not the last voter, and none that lives where the others would lack a quorum.
    fn may_remove(&self, id: u64, living: &BTreeSet<u64>) -> bool {
        let (voters, alive) = self.count(living);
        let is_voter = |member: &&StoreMember| !member.is_learner && member.id == id;
        match self.list.iter().find(is_voter) {
            None => true,
            Some(_) if voters == 1 => false,
            Some(voter) => !living.contains(&voter.id) || (alive - 1) * 2 > voters - 1,
        }
    }

    /// A server's own member, as the order that it has carried out and its view of the store decide.
    ///
    /// # Errors
    /// A voter starts without its log, or its log is removed.
    pub(super) fn keep(
        &mut self,
        server: ServerName,
        (order, is_confirmed): (&Placement, bool),
        sabotage: Option<Sabotage>,
    ) -> Result<(), Violation> {
        let has_log = self.has_log(server);
        let own = Own {
            named: order.store.contains(&server),
            joining: order.store_joining == Some(server) && order.store_begun != Some(server),
            founding: false,
            confirmed: is_confirmed,
            runs: has_log,
            has_log,
        };
        let fate = match members::fate(own) {
            Fate::Forget if sabotage == Some(Sabotage::StartsEmpty) && own.named => Fate::Run,
            fate => fate,
        };
        match fate {
            Fate::Run => self.start(server),
            Fate::Forget => self.forget(server),
            Fate::Rest => Ok(()),
        }
    }

    /// A member starts; one whose log is another member's exits again.
    fn start(&mut self, server: ServerName) -> Result<(), Violation> {
        let mut members = self.list.iter_mut();
        let Some(member) = members.find(|member| member.server == Some(server)) else {
            return Ok(());
        };
        let log = self.logs.get(&server);
        if log.is_none() && !member.is_learner {
            let how = format!("the member on {server}, a voter, starts without its log");
            return Err(Rule::StoreMembers.broken(how));
        }
        if log.is_none_or(|log| *log == member.id) {
            member.is_started = true;
            self.logs.insert(server, member.id);
        }
        Ok(())
    }

    fn forget(&mut self, server: ServerName) -> Result<(), Violation> {
        if self.voter_on(server).is_some() {
            let how = format!("{server} removes the log of its member, a voter");
            return Err(Rule::StoreMembers.broken(how));
        }
        self.logs.remove(&server);
        Ok(())
    }

    /// Whether the list has a voter on every wanted server.
    fn all_vote(&self, wanted: &[ServerName]) -> bool {
        let voters = self.list.iter().filter(|member| !member.is_learner);
        let on: BTreeSet<ServerName> = voters.filter_map(|voter| voter.server).collect();
        wanted.iter().all(|server| on.contains(server))
    }

    /// In words.
    pub(super) fn in_words(&self, living: &BTreeSet<u64>) -> String {
        let one = |member: &StoreMember| {
            let server = member.server.map(|server| server.to_string());
            format!(
                "{} on {}{}{}",
                member.id,
                server.unwrap_or_default(),
                if member.is_learner { ", a learner" } else { "" },
                if living.contains(&member.id) {
                    ""
                } else {
                    ", which is down"
                },
            )
        };
        let all: Vec<String> = self.list.iter().map(one).collect();
        format!("members: {}", all.join("; "))
    }
}

/// What a conductor sees of the members beyond its facts.
#[derive(Clone, Copy)]
pub(super) struct MembersSight<'a> {
    pub(super) list: &'a [StoreMember],
    pub(super) living: &'a BTreeSet<u64>,
}

/// The placement that names the store's members as they are, or the next change of them.
pub(super) fn next(
    seen: MembersSight<'_>,
    (at, placement): (Revision, &Placement),
    facts: &Facts,
    sabotage: Option<Sabotage>,
) -> Option<Result<Placement, MemberChange>> {
    let list = seen.list;
    if let Some(named) = members::named(list, placement) {
        let mut new = placement.clone();
        named.write(&mut new);
        return Some(Ok(new));
    }
    let mut known = MemberFacts::of(list, placement, facts);
    let mut voters = list.iter().filter(|member| !member.is_learner);
    known.leader = voters
        .find(|voter| !known.dead.contains(&voter.id))
        .map(|voter| voter.id);
    let wanted = members::wanted(placement);
    let step = members::next_step(list, &wanted, &known);
    let step = sabotage.map_or(step, |sabotage| {
        sabotage.meddle_with_members(step, list, &wanted)
    });
    match step {
        MemberChange::AddLearner(server) => {
            let observed = facts.observed.get(&server)?;
            members::may_come(observed, at).then_some(Err(step))
        }
        MemberChange::Done | MemberChange::Start(_) => None,
        // The next one leads, once it is asked to.
        MemberChange::MoveLeader { from, .. } => Some(Err(MemberChange::Remove(from))),
        MemberChange::Promote(id) => {
            let blind = sabotage == Some(Sabotage::PromotesBlindly);
            (blind || seen.living.contains(&id)).then_some(Err(step))
        }
        MemberChange::Remove(_) => Some(Err(step)),
    }
}

impl World {
    /// The members of the store that run and reach each other.
    pub(super) fn living_members(&self, members: &Members) -> BTreeSet<u64> {
        members.living(|server| {
            let machine = self.machines.get(&server);
            machine
                .is_some_and(|machine| machine.is_on(self.now) && self.now >= machine.cut_off_until)
        })
    }

    /// Judges a change of the members when a conductor decides it, by what that conductor knows and by what is so: etcd's
    /// calls take no condition, and a late one is repaired afterwards.
    pub(super) fn check_member_step(
        &self,
        members: &Members,
        step: MemberChange,
        by: &Decision<'_>,
    ) -> Result<(), Violation> {
        let living = self.living_members(members);
        let broken = |how: &str| {
            let words = members.in_words(&living);
            Err(Rule::StoreMembers.broken(format!("{step:?} {how}; {words}")))
        };
        let wanted = members::wanted(by.placement);
        let is_of = |id: u64| members.list.iter().find(move |member| member.id == id);
        match step {
            MemberChange::Promote(id) if !living.contains(&id) => {
                broken("promotes a learner that does not run")
            }
            MemberChange::AddLearner(_) if members.list.iter().any(|one| one.is_learner) => {
                broken("begins while another change is under way")
            }
            MemberChange::Remove(id) => {
                let Some((voter, server)) = is_of(id)
                    .filter(|member| !member.is_learner)
                    .and_then(|voter| Some((voter, voter.server?)))
                else {
                    return Ok(());
                };
                let has_log = members
                    .voter_on(server)
                    .is_some_and(|held| held.id == voter.id);
                if has_log && wanted.contains(&server) {
                    broken("removes a voter that is wanted and has its log")
                } else if has_log && !by.facts.is_dead(server) && !members.all_vote(&wanted) {
                    broken("removes a voter before all that are wanted vote")
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// A change reaches the store: it must not lose the quorum by it. A learner may have died on the way.
    pub(super) fn change_members(
        &mut self,
        members: &mut Members,
        step: MemberChange,
    ) -> Result<(), Violation> {
        let living = self.living_members(members);
        let had_quorum = members.has_quorum(&living);
        members.change(step, &living, self.rng.u8(..8) == 0);
        let died = matches!(step, MemberChange::Promote(id) if !living.contains(&id));
        if had_quorum && !died && !members.has_quorum(&living) {
            let words = members.in_words(&living);
            return Err(Rule::StoreMembers.broken(format!("{step:?} loses the quorum: {words}")));
        }
        Ok(())
    }

    /// No server is removed that carries a voter.
    pub(super) fn check_removed_members(
        &self,
        members: &Members,
        next: &Placement,
    ) -> Result<(), Violation> {
        let placed = self.store.placement.servers.keys();
        let mut gone = placed.filter(|server| !next.servers.contains_key(server));
        match gone.find(|server| members.voter_on(**server).is_some()) {
            Some(server) => {
                let how = format!("{server} is removed, and carries a voter of the store");
                Err(Rule::StoreMembers.broken(how))
            }
            None => Ok(()),
        }
    }

    /// In a settled site exactly the wanted servers carry a member, each a voter with its log.
    pub(super) fn check_members_at_rest(&self, members: &Members) -> Result<(), Violation> {
        let wanted = members::wanted(&self.store.placement);
        let mut vote = wanted.iter().map(|server| members.voter_on(*server));
        if members.list.len() == wanted.len() && vote.all(|voter| voter.is_some()) {
            return Ok(());
        }
        let words = members.in_words(&self.living_members(members));
        Err(Rule::StoreMembers.broken(format!("the site is settled with these {words}")))
    }
}
