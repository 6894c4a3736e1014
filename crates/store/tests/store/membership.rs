//! How one member grows into three, and how a member leaves.

use super::etcd::{Cluster, eventually, installed, soon};
use gaiola_core::members::{self, MemberFacts, next_step};
use gaiola_model::ServerName;
use gaiola_store::etcd::{EtcdMember, Join, located};
use std::time::Duration;

fn names(members: &[EtcdMember]) -> Vec<ServerName> {
    let names = members.iter().map(|member| member.name.parse());
    names.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn one_member_grows_into_three_and_keeps_what_it_knows() {
    let Some(program) = installed("growth") else {
        return;
    };
    let (mut cluster, store) = Cluster::start(program, 1).await;
    store.put("/a", "1", None).await.unwrap();
    cluster.add(1);
    cluster.add(2);
    let wanted = cluster.members.clone();
    let mut joined = 1;
    loop {
        let members = eventually(|| store.member_list()).await;
        let there = located(&members, &wanted);
        match next_step(&there, &names(&wanted), &MemberFacts::default()) {
            members::MemberChange::Done => break,
            members::MemberChange::AddLearner(server) => {
                // etcd refuses for a moment after a promotion, until the new member counts as healthy.
                let named = |member: &&EtcdMember| member.name == server.to_string();
                let url = wanted.iter().find(named).unwrap().peer_url();
                eventually(|| store.member_add_learner(&url)).await;
            }
            members::MemberChange::Start(_) => {
                let there = wanted[..=joined].to_vec();
                cluster.run(joined, Join::Existing(there));
                joined += 1;
                soon("the new member's name", async {
                    while store
                        .member_list()
                        .await
                        .unwrap()
                        .iter()
                        .any(|one| one.name.is_empty())
                    {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
                .await;
            }
            members::MemberChange::Promote(id) => {
                let learner = members.iter().find(|info| info.id == id).unwrap();
                let target = learner.target().unwrap();
                let status = eventually(|| store.status(&target)).await;
                assert!(status.learner && status.id == id, "{status:?}");
                eventually(|| store.member_promote(id)).await;
            }
            step
            @ (members::MemberChange::MoveLeader { .. } | members::MemberChange::Remove(_)) => {
                panic!("{step:?}")
            }
        }
    }
    store.set_endpoints(wanted.iter().map(|member| member.target()).collect());
    let statuses = store.statuses().await;
    assert_eq!(statuses.len(), 3);
    for (target, status) in statuses {
        let status = status.unwrap();
        assert!(
            status.leader.is_some() && !status.learner,
            "{target}: {status:?}"
        );
    }
    assert_eq!(store.alarms().await.unwrap(), []);

    cluster.kill(0);
    let value = eventually(|| store.get("/a")).await.unwrap().value;
    assert_eq!(value, b"1");
}

#[tokio::test]
async fn a_leader_that_goes_hands_over_before() {
    let Some(program) = installed("shrinking") else {
        return;
    };
    let (cluster, store) = Cluster::start(program, 3).await;
    let members = eventually(|| store.member_list()).await;
    let statuses = store.statuses().await;
    let (_, status) = &statuses[0];
    let leader = status.as_ref().unwrap().leader.unwrap();
    let stays = members.iter().find(|info| info.id != leader).unwrap();
    let wanted: Vec<_> = cluster
        .members
        .iter()
        .filter(|member| stays.peer_urls.contains(&member.peer_url()))
        .cloned()
        .collect();
    let mut seen = MemberFacts {
        leader: Some(leader),
        ..MemberFacts::default()
    };
    let mut handed_over = false;
    loop {
        let members = eventually(|| store.member_list()).await;
        let there = located(&members, &cluster.members);
        match next_step(&there, &names(&wanted), &seen) {
            members::MemberChange::Done => break,
            members::MemberChange::MoveLeader { from, to } => {
                let target = members
                    .iter()
                    .find(|info| info.id == from)
                    .unwrap()
                    .target();
                let target = target.unwrap();
                store.move_leader(&target, to).await.unwrap();
                assert_eq!(store.status(&target).await.unwrap().leader, Some(to));
                (seen.leader, handed_over) = (Some(to), true);
            }
            members::MemberChange::Remove(id) => {
                let left = eventually(|| store.member_remove(id)).await;
                assert!(left.iter().all(|info| info.id != id), "{left:?}");
            }
            step => panic!("{step:?}"),
        }
    }
    assert!(handed_over);
    eventually(|| store.put("/a", "1", None)).await;
}
