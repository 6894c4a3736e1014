//! Moves the store's members to where the site's tiers want them, one at a time: a learner is added, catches up and votes
//! before another member is removed. The placement names the servers that run one, so it follows the store's own list.

use gaiola_core::rollout::{self, Facts};
use gaiola_model::{Observed, Placement, Revision, ServerName};
use gaiola_net::client::Target;
use gaiola_store::etcd::{EtcdMember, GrowthStep, MembersSeen, next_growth_step};
use gaiola_store::{MemberInfo, Store, StoreError, Term, leader};
use std::collections::BTreeSet;

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The members are the wanted ones, and the placement names them.
    Done,
    /// Another step follows.
    Later,
    /// The placement must name these.
    Name(Named),
}

/// The servers that carry a member, as the placement names them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// All of them, in order.
    pub members: Vec<ServerName>,
    /// The one whose member does not vote yet.
    pub joining: Option<ServerName>,
}

/// Takes one step.
///
/// # Errors
/// Where the term is over, or the store is another one. What etcd rejects (a lagging learner cannot vote yet) or does not
/// answer (it elects a leader) is retried by the next step.
pub(super) async fn step(
    store: &Store,
    term: &Term,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<Step, StoreError> {
    match try_step(store, term, placement, at, facts).await {
        // For a few seconds a new member counts as unhealthy, and etcd then changes nothing.
        Err(error @ (StoreError::Refused { .. } | StoreError::Unreachable { .. })) => {
            let why = gaiola_os::chain(&error);
            tracing::info!("store membership unchanged for now: {why}");
            Ok(Step::Later)
        }
        taken => taken,
    }
}

async fn try_step(
    store: &Store,
    term: &Term,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<Step, StoreError> {
    let wanted = rollout::store_members(&placement.config);
    let wanted: Vec<EtcdMember> = wanted
        .into_iter()
        .filter_map(|server| EtcdMember::on(placement, server))
        .collect();
    let members = store.member_list().await?;
    // The answer to an earlier step may have come too late for the placement: name its result before anything else.
    if let Some(step) = name(&members, placement) {
        return Ok(step);
    }
    let seen = look(store, &members, placement, facts).await;
    let next = next_growth_step(&members, &wanted, &seen);
    // etcd's membership calls take no condition: this check comes as close as possible.
    let leads = leader(store, &term.key).await?;
    if leads.is_none_or(|leader| leader.term != *term) {
        return Err(StoreError::Fenced {
            key: term.key.clone(),
            term: term.created,
        });
    }
    let members = take(store, &next, members, at, facts).await?;
    let then = match next {
        GrowthStep::Done => Step::Done,
        _ => Step::Later,
    };
    Ok(name(&members, placement).unwrap_or(then))
}

/// The members that the placement should name, if it names others now.
fn name(members: &[MemberInfo], placement: &Placement) -> Option<Step> {
    let named = names(members, placement);
    let is_new = named.members != placement.store || named.joining != placement.store_joining;
    // A store without members serves no reads or writes.
    (is_new && !named.members.is_empty()).then_some(Step::Name(named))
}

/// Carries the step out, and returns the members there are afterwards.
async fn take(
    store: &Store,
    next: &GrowthStep,
    members: Vec<MemberInfo>,
    at: Revision,
    facts: &Facts,
) -> Result<Vec<MemberInfo>, StoreError> {
    match next {
        GrowthStep::AddLearner(member) => {
            let is_there = |server: &&ServerName| server.to_string() == member.name;
            let server = facts.observed.keys().find(is_there);
            let observed = server.and_then(|server| facts.observed.get(server));
            if !observed.is_some_and(|observed| may_come(observed, at)) {
                return Ok(members);
            }
            store.member_add_learner(&member.peer_url()).await
        }
        // Its agent starts it once the placement names it.
        GrowthStep::Start(_) | GrowthStep::Done => Ok(members),
        GrowthStep::Promote(id) if !follows(store, *id, &members).await? => Ok(members),
        GrowthStep::Promote(id) => store.member_promote(*id).await,
        GrowthStep::MoveLeader { from, to } => {
            if let Some(leader) = target_of(*from, &members) {
                store.move_leader(&leader, *to).await?;
            }
            Ok(members)
        }
        GrowthStep::Remove(id) => store.member_remove(*id).await,
    }
}

/// Whether a new member may be added on a server: its agent knows that it runs none, and no data of an older one is left,
/// which would make the new one exit again and again.
fn may_come(observed: &Observed, at: Revision) -> bool {
    observed.revision >= at && observed.store_data == Some(false)
}

/// The client address of a member; `None` until it was started.
fn target_of(id: u64, members: &[MemberInfo]) -> Option<Target> {
    members.iter().find(|info| info.id == id)?.target()
}

/// Whether a learner is alive and follows a leader. etcd only checks how far it once was, and would promote one that has died
/// since: one dead voter out of two costs the quorum.
async fn follows(store: &Store, id: u64, members: &[MemberInfo]) -> Result<bool, StoreError> {
    let Some(target) = target_of(id, members) else {
        return Ok(false);
    };
    let status = store.status(&target).await?;
    Ok(status.id == id && status.leader.is_some())
}

/// What the agents and the members report. A member on no server of the site counts as dead.
async fn look(
    store: &Store,
    members: &[MemberInfo],
    placement: &Placement,
    facts: &Facts,
) -> MembersSeen {
    let is_dead = |info: &&MemberInfo| {
        let server = server_of(info, placement);
        server.is_none_or(|server| facts.is_dead(server))
    };
    let lost_voters = facts.lost_voters();
    let has_lost = |info: &&MemberInfo| {
        let server = server_of(info, placement);
        !info.learner && server.is_some_and(|server| lost_voters.contains(&server))
    };
    let lost = members.iter().filter(has_lost).map(|info| info.id);
    let (dead, living): (Vec<_>, Vec<_>) = members.iter().partition(is_dead);
    let mut leader = None;
    for target in living.into_iter().filter_map(MemberInfo::target) {
        leader = match store.status(&target).await {
            Ok(status) => status.leader,
            Err(_) => None,
        };
        if leader.is_some() {
            break;
        }
    }
    MembersSeen {
        dead: dead.into_iter().map(|info| info.id).collect(),
        lost: lost.collect(),
        leader,
    }
}

/// The server that runs a member.
fn server_of(info: &MemberInfo, placement: &Placement) -> Option<ServerName> {
    let mut servers = placement.servers.keys().copied();
    servers.find(|server| {
        let member = EtcdMember::on(placement, *server);
        member.is_some_and(|member| info.peer_urls.contains(&member.peer_url()))
    })
}

/// The servers that run the members.
fn names(members: &[MemberInfo], placement: &Placement) -> Named {
    let servers: BTreeSet<ServerName> = members
        .iter()
        .filter_map(|info| server_of(info, placement))
        .collect();
    let mut learners = members.iter().filter(|info| info.learner);
    Named {
        members: servers.into_iter().collect(),
        joining: learners.find_map(|info| server_of(info, placement)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaiola_model::inventory::Location;

    #[test]
    fn a_placement_names_who_is_in_and_who_does_not_vote_yet() {
        let servers: [ServerName; 2] = ["app1", "db1"].map(|name| name.parse().unwrap());
        let at = |server: ServerName| {
            Location::at([10, 77, 3 + u8::from(server == servers[1]), 1].into())
        };
        let info = |server: ServerName, learner| MemberInfo {
            id: 1,
            name: String::new(),
            peer_urls: vec![EtcdMember::at(server, &at(server)).peer_url()],
            client_urls: Vec::new(),
            learner,
        };
        let [app1, db1] = servers;
        let placement = |store: &[ServerName], store_joining| {
            let mut placement = crate::state::tests::order("a", 7).placement;
            let mut placed = placement.servers[&app1].clone();
            placed.location = at(db1);
            placement.servers.insert(db1, placed);
            (placement.store, placement.store_joining) = (store.into(), store_joining);
            placement
        };
        let learning = [info(app1, false), info(db1, true)];
        let named = |joining| {
            let members = servers.into();
            Some(Step::Name(Named { members, joining }))
        };
        assert_eq!(name(&learning, &placement(&[app1], None)), named(Some(db1)));
        assert_eq!(name(&learning, &placement(&servers, Some(db1))), None);
        let voting = [info(app1, false), info(db1, false)];
        assert_eq!(name(&voting, &placement(&servers, Some(db1))), named(None));
        assert_eq!(name(&[], &placement(&servers, None)), None);
    }

    #[test]
    fn a_member_comes_only_where_the_agent_knows_and_nothing_is_left_of_an_older_one() {
        let observed = |revision, store_data| Observed {
            revision: Revision(revision),
            store_data,
            ..Observed::nothing_on("db1".parse().unwrap())
        };
        assert!(may_come(&observed(7, Some(false)), Revision(7)));
        assert!(!may_come(&observed(6, Some(false)), Revision(7)));
        assert!(!may_come(&observed(7, Some(true)), Revision(7)));
        assert!(!may_come(&observed(7, None), Revision(7)));
    }
}
