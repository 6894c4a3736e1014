//! From the actual members to the wanted ones, one careful step at a time.

use super::EtcdMember;
use crate::MemberInfo;
use std::collections::BTreeSet;

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrowthStep {
    /// Add this member as a learner, and then start it.
    AddLearner(EtcdMember),
    /// Ensure that this member runs: it was added and never started.
    Start(EtcdMember),
    /// Promote this learner to a voter; etcd rejects it until the learner has caught up, so retry.
    Promote(u64),
    /// Transfer leadership: the current leader is to be removed, and would leave the store without a leader.
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

/// Facts about the members beyond the list, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersSeen {
    /// Members whose server is silent, or not one of the site's: no step waits for them.
    pub dead: BTreeSet<u64>,
    /// Voters whose server is up but has lost their data.
    pub lost: BTreeSet<u64>,
    /// The leader, if known.
    pub leader: Option<u64>,
}

/// The next step from `members` to `wanted`; members are matched by their peer address.
///
/// Never more than one change is under way: an added member is promoted before anything else happens, and unwanted members
/// are removed last, when all wanted ones vote. Only the dead go first: while a voter is down, etcd adds no member and removes
/// no living one that the quorum needs; and a dead learner does not keep its place. Nor does a voter that has lost its data:
/// with an empty log it must not vote, so it is removed, and added again as a learner. The leader is removed last.
pub fn next_growth_step(
    members: &[MemberInfo],
    wanted: &[EtcdMember],
    seen: &MembersSeen,
) -> GrowthStep {
    let wanted_as = |info: &MemberInfo| {
        wanted
            .iter()
            .find(|member| info.peer_urls.contains(&member.peer_url()))
    };
    let is_dead = |info: &&MemberInfo| seen.dead.contains(&info.id);
    let mut dead = members.iter().filter(is_dead);
    if let Some(info) = dead.find(|info| info.learner || wanted_as(info).is_none()) {
        return GrowthStep::Remove(info.id);
    }
    let is_lost = |info: &&MemberInfo| seen.lost.contains(&info.id);
    let is_well = |info: &MemberInfo| !info.learner && !is_dead(&info) && !is_lost(&info);
    if let Some(info) = members
        .iter()
        .find(is_lost)
        .filter(|_| members.iter().any(is_well))
    {
        return GrowthStep::Remove(info.id);
    }
    let under_way = members
        .iter()
        .find(|info| info.learner || info.name.is_empty());
    if let Some(info) = under_way {
        return match wanted_as(info) {
            None => GrowthStep::Remove(info.id),
            Some(member) if info.name.is_empty() => GrowthStep::Start(member.clone()),
            Some(_) => GrowthStep::Promote(info.id),
        };
    }
    let is_there = |member: &&EtcdMember| {
        let url = member.peer_url();
        members.iter().any(|info| info.peer_urls.contains(&url))
    };
    if let Some(missing) = wanted.iter().find(|member| !is_there(member)) {
        return GrowthStep::AddLearner(missing.clone());
    }
    let leads = |info: &&&MemberInfo| seen.leader == Some(info.id);
    let (stay, go): (Vec<_>, Vec<_>) = members.iter().partition(|info| wanted_as(info).is_some());
    let successor = stay.into_iter().find(|info| !is_dead(info));
    match (go.iter().find(|info| !leads(info)), go.first(), successor) {
        (Some(follower), _, _) => GrowthStep::Remove(follower.id),
        (None, Some(leader), Some(successor)) => GrowthStep::MoveLeader {
            from: leader.id,
            to: successor.id,
        },
        (None, Some(leader), None) => GrowthStep::Remove(leader.id),
        (None, None, _) => GrowthStep::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site's usual members: those on lb1, web1, app1 and db1.
    fn usual() -> [EtcdMember; 4] {
        [("lb1", 1), ("web1", 2), ("app1", 3), ("db1", 4)]
            .map(|(name, tier)| EtcdMember::new(name, [10, 77, tier, 1].into()))
    }

    fn voters(members: &[EtcdMember]) -> Vec<MemberInfo> {
        let numbered = (1..).zip(members);
        numbered
            .map(|(id, member)| info(member, id, false))
            .collect()
    }

    fn dead(id: u64) -> MembersSeen {
        MembersSeen {
            dead: [id].into(),
            ..MembersSeen::default()
        }
    }

    fn next(members: &[MemberInfo], wanted: &[EtcdMember]) -> GrowthStep {
        next_growth_step(members, wanted, &MembersSeen::default())
    }

    fn wanted(count: u8) -> Vec<EtcdMember> {
        (1..=count)
            .map(|n| EtcdMember::new(format!("app{n}"), [10, 77, 3, n].into()))
            .collect()
    }

    fn info(member: &EtcdMember, id: u64, learner: bool) -> MemberInfo {
        MemberInfo {
            id,
            name: member.name.clone(),
            peer_urls: vec![member.peer_url()],
            client_urls: vec![member.client_url()],
            learner,
        }
    }

    /// Carries steps out as etcd would, and counts them.
    fn carry_out(members: &mut Vec<MemberInfo>, wanted: &[EtcdMember]) -> usize {
        for steps in 0..20 {
            match next(members, wanted) {
                GrowthStep::Done => return steps,
                GrowthStep::AddLearner(member) => {
                    let id = 100 + u64::try_from(steps).unwrap();
                    let name = String::new();
                    members.push(MemberInfo {
                        name,
                        ..info(&member, id, true)
                    });
                }
                GrowthStep::Start(member) => {
                    let unstarted = members.iter_mut().find(|info| info.name.is_empty());
                    unstarted.unwrap().name = member.name;
                }
                GrowthStep::Promote(id) => {
                    let learner = members.iter_mut().find(|info| info.id == id);
                    learner.unwrap().learner = false;
                }
                GrowthStep::MoveLeader { .. } => panic!("nobody is known to lead"),
                GrowthStep::Remove(id) => members.retain(|info| info.id != id),
            }
            assert!(members.iter().filter(|info| info.learner).count() <= 1);
        }
        panic!("never done: {members:?}");
    }

    #[test]
    fn one_grows_into_three_by_one_learner_at_a_time() {
        let wanted = wanted(3);
        let mut members = vec![info(&wanted[0], 1, false)];
        assert_eq!(carry_out(&mut members, &wanted), 6);
        assert!(members.iter().all(|info| !info.learner));
    }

    #[test]
    fn a_member_moves_by_coming_before_the_old_one_goes() {
        let all = wanted(4);
        let mut members: Vec<_> = (0..3).map(|n| info(&all[n], n as u64, false)).collect();
        let wanted = [all[0].clone(), all[1].clone(), all[3].clone()];
        let first = next(&members, &wanted);
        assert_eq!(first, GrowthStep::AddLearner(all[3].clone()));
        carry_out(&mut members, &wanted);
        assert_eq!(members.len(), 3);
        assert!(!members.iter().any(|info| info.name == "app3"));
    }

    #[test]
    fn a_learner_that_is_not_wanted_any_more_goes_first() {
        let all = wanted(3);
        let members = [info(&all[0], 1, false), info(&all[1], 2, true)];
        let wanted = [all[0].clone(), all[2].clone()];
        assert_eq!(next(&members, &wanted), GrowthStep::Remove(2));
    }

    #[test]
    fn a_dead_member_goes_before_its_successor_comes_which_etcd_refuses_until_then() {
        let [lb1, web1, app1, db1] = usual();
        let members = voters(&[lb1.clone(), web1, app1.clone()]);
        let wanted = [lb1, app1, db1.clone()];
        let step = next_growth_step(&members, &wanted, &dead(2));
        assert_eq!(step, GrowthStep::Remove(2));
        let left = [members[0].clone(), members[2].clone()];
        assert_eq!(next(&left, &wanted), GrowthStep::AddLearner(db1));
    }

    #[test]
    fn a_dead_member_goes_before_the_living_which_the_quorum_needs_until_then() {
        let [lb1, web1, app1, _] = usual();
        let members = voters(&[lb1, web1, app1.clone()]);
        let step = next_growth_step(&members, std::slice::from_ref(&app1), &dead(2));
        assert_eq!(step, GrowthStep::Remove(2));
        let left = [members[0].clone(), members[2].clone()];
        assert_eq!(next(&left, &[app1]), GrowthStep::Remove(1));
    }

    #[test]
    fn a_voter_that_lost_its_data_goes_and_comes_again_as_a_learner() {
        let [lb1, web1, app1, _] = usual();
        let wanted = [lb1, web1.clone(), app1];
        let members = voters(&wanted);
        let lost = MembersSeen {
            lost: [2].into(),
            ..MembersSeen::default()
        };
        let step = next_growth_step(&members, &wanted, &lost);
        assert_eq!(step, GrowthStep::Remove(2));
        let left = [members[0].clone(), members[2].clone()];
        let step = next_growth_step(&left, &wanted, &lost);
        assert_eq!(step, GrowthStep::AddLearner(web1));
        // The last member keeps what is left of a store.
        let step = next_growth_step(&members[1..2], &wanted[1..2], &lost);
        assert_eq!(step, GrowthStep::Done);
    }

    #[test]
    fn who_leads_goes_last_and_hands_over_before() {
        let [lb1, web1, app1, _] = usual();
        let mut members = voters(&[lb1, web1, app1.clone()]);
        let wanted = [app1];
        let led_by = |id| MembersSeen {
            leader: Some(id),
            ..MembersSeen::default()
        };
        let step = next_growth_step(&members, &wanted, &led_by(1));
        assert_eq!(step, GrowthStep::Remove(2));
        members.remove(1);
        let step = next_growth_step(&members, &wanted, &led_by(1));
        assert_eq!(step, GrowthStep::MoveLeader { from: 1, to: 3 });
        let step = next_growth_step(&members, &wanted, &led_by(3));
        assert_eq!(step, GrowthStep::Remove(1));
    }

    #[test]
    fn a_dead_learner_gives_up_its_place_and_a_dead_voter_that_is_wanted_keeps_it() {
        let [lb1, web1, app1, _] = usual();
        let wanted = [lb1, web1, app1];
        let mut members = voters(&wanted);
        assert_eq!(
            next_growth_step(&members, &wanted, &dead(2)),
            GrowthStep::Done
        );
        members[1].learner = true;
        let step = next_growth_step(&members, &wanted, &dead(2));
        assert_eq!(step, GrowthStep::Remove(2));
    }

    /// etcd's rules for adding and removing members (`--strict-reconfig-check`), and the current leader.
    struct Rules {
        members: Vec<MemberInfo>,
        leader: u64,
        dead: Option<String>,
    }

    impl Rules {
        fn is_dead(&self, info: &MemberInfo) -> bool {
            let on = self
                .dead
                .as_ref()
                .and_then(|name| usual().into_iter().find(|member| member.name == *name));
            on.is_some_and(|member| info.peer_urls.contains(&member.peer_url()))
        }

        /// The number of voters, and of those that are up.
        fn voters(&self) -> (usize, usize) {
            let voters = self.members.iter().filter(|info| !info.learner);
            let (dead, live): (Vec<_>, Vec<_>) = voters.partition(|info| self.is_dead(info));
            (dead.len() + live.len(), live.len())
        }

        /// `false`: etcd rejects it, or the server is down.
        fn carry_out(&mut self, step: GrowthStep, id: u64) -> bool {
            let (voters, live) = self.voters();
            let find = |id| self.members.iter().position(|info| info.id == id).unwrap();
            match step {
                GrowthStep::AddLearner(member) => {
                    let name = String::new();
                    let new = info(&member, id, true);
                    if self.is_dead(&new) || live < voters {
                        return false;
                    }
                    self.members.push(MemberInfo { name, ..new });
                }
                GrowthStep::Start(member) => {
                    let unstarted = self.members.iter_mut().find(|info| info.name.is_empty());
                    unstarted.unwrap().name = member.name;
                }
                GrowthStep::Promote(id) => {
                    let at = find(id);
                    self.members[at].learner = false;
                }
                GrowthStep::MoveLeader { from, to } => {
                    let next = &self.members[find(to)];
                    assert!(from == self.leader && !next.learner && !self.is_dead(next));
                    self.leader = to;
                }
                GrowthStep::Remove(id) => {
                    let at = find(id);
                    assert_ne!(
                        id, self.leader,
                        "the leader goes without having handed over"
                    );
                    if !self.is_dead(&self.members[at]) && live - 1 < 1 + (voters - 1) / 2 {
                        return false;
                    }
                    self.members.remove(at);
                }
                GrowthStep::Done => {}
            }
            true
        }
    }

    /// Every change from one site's members to another's, with each of them as leader and each server dead.
    #[test]
    fn members_move_as_etcd_allows_and_wait_only_for_a_dead_server_that_is_wanted() {
        let [lb1, web1, app1, db1] = usual();
        let sets = [
            vec![app1.clone()],
            vec![lb1.clone(), web1.clone(), app1.clone()],
            vec![lb1.clone(), app1.clone(), db1.clone()],
            vec![web1.clone(), app1.clone(), db1.clone()],
        ];
        let deaths = usual().map(|member| Some(member.name)).into_iter();
        let deaths: Vec<_> = deaths.chain([None]).collect();
        for (old, wanted) in sets
            .iter()
            .flat_map(|old| sets.iter().map(move |new| (old, new)))
        {
            for (dead, leader) in deaths
                .iter()
                .flat_map(|dead| (1..=3).map(move |id| (dead, id)))
            {
                let mut rules = Rules {
                    members: voters(old),
                    leader,
                    dead: dead.clone(),
                };
                let leads = |info: &MemberInfo| info.id == leader && !rules.is_dead(info);
                if !rules.members.iter().any(leads) {
                    continue;
                }
                let mut is_done = false;
                for id in 10..40 {
                    let (voters, live) = rules.voters();
                    assert!(live > voters / 2, "{old:?} to {wanted:?} without {dead:?}");
                    let dead = rules.members.iter().filter(|info| rules.is_dead(info));
                    let seen = MembersSeen {
                        dead: dead.map(|info| info.id).collect(),
                        leader: Some(rules.leader),
                        ..MembersSeen::default()
                    };
                    let step = next_growth_step(&rules.members, wanted, &seen);
                    is_done = step == GrowthStep::Done;
                    if is_done || !rules.carry_out(step, id) {
                        break;
                    }
                }
                let waits = dead
                    .as_ref()
                    .is_some_and(|dead| wanted.iter().any(|one| one.name == *dead));
                assert!(
                    is_done || waits,
                    "{old:?} to {wanted:?} without {dead:?}: {:?}",
                    rules.members
                );
                assert!(!is_done || rules.members.len() == wanted.len());
            }
        }
    }
}
