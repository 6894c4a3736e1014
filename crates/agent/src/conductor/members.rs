//! Moves the store's members one at a time, as [`core::members`](gaiola_core::members) decides.

use gaiola_core::members::{self, MemberFacts, Named, may_come, named, next_step};
use gaiola_core::rollout::Facts;
use gaiola_model::{Placement, Revision};
use gaiola_net::client::Target;
use gaiola_store::etcd::{EtcdMember, located};
use gaiola_store::{MemberInfo, Store, StoreError, Term, leader};

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MembersStep {
    /// The members are the wanted ones, and the placement names them.
    Done,
    /// Another step follows.
    Later,
    /// The placement must name these.
    Name(Named),
}

/// Takes one step.
///
/// # Errors
/// If the term is over, or the store is another one. What etcd rejects (a lagging learner cannot vote yet) or does not
/// answer (it elects a leader) is retried by the next step.
pub(super) async fn step(
    store: &Store,
    term: &Term,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<MembersStep, StoreError> {
    match try_step(store, term, placement, at, facts).await {
        // For a few seconds a new member counts as unhealthy, and etcd then changes nothing.
        Err(error @ (StoreError::Refused { .. } | StoreError::Unreachable { .. })) => {
            let error = gaiola_os::chain(&error);
            tracing::info!(error, "the store's members stay as they are for now");
            Ok(MembersStep::Later)
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
) -> Result<MembersStep, StoreError> {
    let infos = store.member_list().await?;
    let there = on_servers(&infos, placement);
    // The answer to an earlier step may have come too late for the placement: name its result before anything else.
    if let Some(named) = named(&there, placement) {
        return Ok(MembersStep::Name(named));
    }
    let mut seen = MemberFacts::of(&there, placement, facts);
    seen.leader = find_leader(store, &infos, &seen).await;
    let next = next_step(&there, &members::wanted(placement), &seen);
    // etcd's membership calls take no condition: this check comes as close as possible.
    let leads = leader(store, &term.key).await?;
    if leads.is_none_or(|leader| leader.term != *term) {
        return Err(StoreError::Fenced {
            key: term.key.clone(),
            term: term.created,
        });
    }
    let infos = take(store, next, infos, placement, at, facts).await?;
    let then = match next {
        members::MemberChange::Done => MembersStep::Done,
        _ => MembersStep::Later,
    };
    Ok(named(&on_servers(&infos, placement), placement).map_or(then, MembersStep::Name))
}

/// The members, each on its server of the site.
fn on_servers(infos: &[MemberInfo], placement: &Placement) -> Vec<members::StoreMember> {
    let servers = placement.servers.keys();
    let servers = servers.filter_map(|server| EtcdMember::on(placement, *server));
    let servers: Vec<EtcdMember> = servers.collect();
    located(infos, &servers)
}

/// Carries the step out, and returns the members there are afterwards.
async fn take(
    store: &Store,
    next: members::MemberChange,
    infos: Vec<MemberInfo>,
    placement: &Placement,
    at: Revision,
    facts: &Facts,
) -> Result<Vec<MemberInfo>, StoreError> {
    match next {
        members::MemberChange::AddLearner(server) => {
            let observed = facts.observed.get(&server);
            if !observed.is_some_and(|observed| may_come(observed, at)) {
                return Ok(infos);
            }
            let Some(member) = EtcdMember::on(placement, server) else {
                return Ok(infos);
            };
            store.member_add_learner(&member.peer_url()).await
        }
        // Its agent starts it once the placement names it.
        members::MemberChange::Start(_) | members::MemberChange::Done => Ok(infos),
        members::MemberChange::Promote(id) if !follows(store, id, &infos).await? => Ok(infos),
        members::MemberChange::Promote(id) => store.member_promote(id).await,
        members::MemberChange::MoveLeader { from, to } => {
            if let Some(leader) = target_of(from, &infos) {
                store.move_leader(&leader, to).await?;
            }
            Ok(infos)
        }
        members::MemberChange::Remove(id) => store.member_remove(id).await,
    }
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

/// The leader that the first living member reports that has one.
async fn find_leader(store: &Store, infos: &[MemberInfo], seen: &MemberFacts) -> Option<u64> {
    let living = infos.iter().filter(|info| !seen.dead.contains(&info.id));
    for target in living.filter_map(MemberInfo::target) {
        let status = store.status(&target).await.ok();
        if let Some(leader) = status.and_then(|status| status.leader) {
            return Some(leader);
        }
    }
    None
}
