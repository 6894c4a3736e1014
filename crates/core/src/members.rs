//! The store's members: which of them comes, votes or goes next, and what a server does with its own.
//!
//! Members move to where the site's tiers want them, one at a time: a learner is added, catches up and votes before
//! another member is removed. The placement names the servers that run one, so it follows the store's own list.

use crate::rollout::{self, Facts};
use gaiola_model::inventory::Host;
use gaiola_model::placement::Phase;
use gaiola_model::{Observed, Placement, Revision, ServerName};
use std::collections::BTreeSet;

/// A member as the store lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreMember {
    /// The store's number for it.
    pub id: u64,
    /// The server that runs it; `None`: none that the site knows.
    pub server: Option<ServerName>,
    /// Whether it was ever started.
    pub is_started: bool,
    /// A learner follows and does not vote.
    pub is_learner: bool,
}

/// Facts about the members beyond the list, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberFacts {
    /// Members whose server is silent, or not one of the site's: no step waits for them.
    pub dead: BTreeSet<u64>,
    /// Members whose server is up but has lost their data.
    pub lost: BTreeSet<u64>,
    /// The leader, if known.
    pub leader: Option<u64>,
}

impl MemberFacts {
    /// What the agents report of these members; the leader is not known yet.
    pub fn of(members: &[StoreMember], placement: &Placement, facts: &Facts) -> Self {
        let is_dead = |member: &&StoreMember| {
            let server = server_of(member, placement);
            server.is_none_or(|server| facts.is_dead(server))
        };
        let lost = facts.lost_members();
        let has_lost = |member: &&StoreMember| {
            let server = server_of(member, placement);
            server.is_some_and(|server| lost.contains(&server))
        };
        let ids =
            |members: Vec<&StoreMember>| members.into_iter().map(|member| member.id).collect();
        Self {
            dead: ids(members.iter().filter(is_dead).collect()),
            lost: ids(members.iter().filter(has_lost).collect()),
            leader: None,
        }
    }
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Add a member on this server as a learner, and then start it.
    AddLearner(ServerName),
    /// Ensure that the member on this server runs: it was added and never started.
    Start(ServerName),
    /// Promote this learner to a voter; etcd rejects it until the learner has caught up, so retry.
    Promote(u64),
    /// Transfer leadership: the current leader will be removed, which would leave the store without a leader.
    MoveLeader {
        /// The current leader.
        from: u64,
        /// The next leader.
        to: u64,
    },
    /// Remove this member, and then stop it.
    Remove(u64),
    /// The members are as wanted.
    Done,
}

/// The servers that should carry a member, those among them that are not placed yet: no member goes for want of them.
///
/// A server that moves to another machine leaves its own first, so its member goes, and comes back there. Where it has the store's only
/// member, that one moves to a server on yet another machine meanwhile.
pub fn wanted(placement: &Placement) -> Vec<ServerName> {
    let wanted = rollout::store_members(&placement.config);
    let stays = |server: &ServerName| !moves(placement, *server);
    let staying: Vec<ServerName> = wanted.iter().copied().filter(stays).collect();
    if !staying.is_empty() {
        return staying;
    }
    let leaves = |host: &Host| {
        let on = wanted.iter().filter_map(|it| placement.servers.get(it));
        on.into_iter().any(|placed| placed.location.host == *host)
    };
    let mut others = placement.servers.iter();
    let other = others.find(|(name, placed)| {
        placed.phase == Phase::Serve && stays(name) && !leaves(&placed.location.host)
    });
    other.map_or(wanted, |(name, _)| vec![*name])
}

/// Whether a server that is placed is to stand on another machine.
fn moves(placement: &Placement, server: ServerName) -> bool {
    let placed = placement.servers.get(&server);
    let machines = placement.config.machines.as_ref();
    let wanted = machines.and_then(|machines| machines.servers.get(&server));
    placed.zip(wanted).is_some_and(|(placed, wanted)| {
        let location = &placed.location;
        let is_there = wanted.address.is_none_or(|at| at == location.address);
        location.host != wanted.host() || !is_there
    })
}

/// The next step from `members` to those on the servers `wanted`.
///
/// Never more than one change is in progress: an added member is promoted before anything else happens, and unwanted members
/// are removed last, when all wanted ones vote. Only the dead go first: while a voter is down, etcd adds no member and removes
/// no living one that the quorum needs; and a dead learner does not keep its place. Nor does a member that has lost its data:
/// with an empty log it must not vote, so it is removed, and added again as a learner. The leader is removed last.
///
/// The placement must name the members as they are before: a learner is promoted only once the placement says that it has begun.
pub fn next_step(
    members: &[StoreMember],
    wanted: &[ServerName],
    seen: &MemberFacts,
) -> MemberChange {
    let wanted_on = |member: &StoreMember| member.server.filter(|server| wanted.contains(server));
    let is_dead = |member: &&StoreMember| seen.dead.contains(&member.id);
    let mut dead = members.iter().filter(is_dead);
    if let Some(member) = dead.find(|member| member.is_learner || wanted_on(member).is_none()) {
        return MemberChange::Remove(member.id);
    }
    if let Some(id) = lost(members, seen) {
        return MemberChange::Remove(id);
    }
    let under_way = |member: &&StoreMember| member.is_learner || !member.is_started;
    if let Some(member) = members.iter().find(under_way) {
        return match wanted_on(member) {
            None => MemberChange::Remove(member.id),
            Some(server) if !member.is_started => MemberChange::Start(server),
            Some(_) => MemberChange::Promote(member.id),
        };
    }
    let is_there = |server| members.iter().any(|member| member.server == Some(server));
    if let Some(missing) = wanted.iter().find(|server| !is_there(**server)) {
        return MemberChange::AddLearner(*missing);
    }
    let leads = |member: &&&StoreMember| seen.leader == Some(member.id);
    let (stay, go): (Vec<_>, Vec<_>) = members.iter().partition(|one| wanted_on(one).is_some());
    let successor = stay.into_iter().find(|member| !is_dead(member));
    let follower = go.iter().find(|member| !leads(member));
    match (follower, go.first(), successor) {
        (Some(follower), _, _) => MemberChange::Remove(follower.id),
        (None, Some(leader), Some(successor)) => MemberChange::MoveLeader {
            from: leader.id,
            to: successor.id,
        },
        (None, Some(leader), None) => MemberChange::Remove(leader.id),
        (None, None, _) => MemberChange::Done,
    }
}

/// A member that has lost its data, if a voter is well: the last member keeps what is left of a store.
fn lost(members: &[StoreMember], seen: &MemberFacts) -> Option<u64> {
    let has_lost = |member: &&StoreMember| seen.lost.contains(&member.id);
    let is_well = |member: &StoreMember| {
        !member.is_learner && !seen.dead.contains(&member.id) && !has_lost(&member)
    };
    let lost = members.iter().find(has_lost)?;
    members.iter().any(is_well).then_some(lost.id)
}

/// Whether a new member may be added on a server: its agent knows that it runs none, and no data of an older one is left,
/// which would make the new one exit again and again.
pub fn may_come(observed: &Observed, at: Revision) -> bool {
    observed.revision >= at && observed.store_data == Some(false)
}

/// The servers that carry a member, as the placement names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// All of them, in order.
    pub members: Vec<ServerName>,
    /// The one whose member does not vote yet,
    pub joining: Option<ServerName>,
    /// and the same server once that member has begun.
    pub begun: Option<ServerName>,
}

impl Named {
    /// Has a placement name them.
    pub fn write(self, placement: &mut Placement) {
        let Self {
            members,
            joining,
            begun,
        } = self;
        (placement.store, placement.store_joining) = (members, joining);
        (placement.store_begun, placement.store_since) = (begun, Revision(0));
    }
}

/// What the placement should name, if it names something else now.
pub fn named(members: &[StoreMember], placement: &Placement) -> Option<Named> {
    let servers = members.iter().filter_map(|one| server_of(one, placement));
    let servers: BTreeSet<ServerName> = servers.collect();
    let mut learners = members.iter().filter(|member| member.is_learner);
    let joining = learners.find_map(|learner| Some((learner, server_of(learner, placement)?)));
    let named = Named {
        members: servers.into_iter().collect(),
        joining: joining.map(|(_, server)| server),
        begun: joining
            .filter(|(learner, _)| learner.is_started)
            .map(|(_, server)| server),
    };
    let is_new = named.members != placement.store
        || named.joining != placement.store_joining
        || named.begun != placement.store_begun;
    // A store without members serves no reads or writes.
    (is_new && !named.members.is_empty()).then_some(named)
}

/// The server of the site that runs a member.
fn server_of(member: &StoreMember, placement: &Placement) -> Option<ServerName> {
    let server = member.server?;
    placement.servers.contains_key(&server).then_some(server)
}

/// What should happen to the member on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Run,
    /// It does not run, and its data stays.
    Rest,
    /// It does not run, and its data is removed: no new member could be added here with it.
    Forget,
}

/// Facts about a server's own member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The order names the server,
    pub named: bool,
    /// and says that its member is a learner which has not begun yet.
    pub joining: bool,
    /// No store holds the order yet: the members that it names begin one.
    pub founding: bool,
    /// The store delivered this order since this agent started. An order from the disk may be older than the data beside it.
    pub confirmed: bool,
    /// It runs.
    pub runs: bool,
    /// Its log is on the disk, and in it everything it ever voted for.
    pub has_log: bool,
}

/// Only the store itself takes a member out: an order from the disk may be stale, and the data on the disk may hold a vote
/// without which no newer order can come.
///
/// And only a learner, or a founder of the store, starts without data: a voter that has lost its votes could make the store
/// lose them too. It rests until the conductor has removed it and adds it again. A learner that begins has not begun before, as its order
/// knows: the order may be older than its promotion, and is rewritten before that.
pub fn fate(own: Own) -> Fate {
    let begins = own.founding || (own.joining && own.confirmed);
    match (own.named, own.confirmed) {
        (true, _) if own.has_log || own.runs || begins => Fate::Run,
        (false, false) if own.has_log => Fate::Run,
        (_, false) => Fate::Rest,
        (_, true) => Fate::Forget,
    }
}

#[cfg(test)]
mod tests;
