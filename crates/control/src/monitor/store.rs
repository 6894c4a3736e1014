//! The store's members, each asked itself.

use crate::site::Site;
use gaiola_model::ServerName;
use gaiola_model::placement::Placement;
use gaiola_model::status::StoreMemberStatus;
use gaiola_store::etcd::EtcdMember;
use gaiola_store::{MemberStatus, Store, StoreError};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The longest until a member answers.
const LIMIT: Duration = Duration::from_secs(3);

/// Why a member of the store is not whole, in words that follow its name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Ill {
    #[error("cannot be asked: the store is not connected yet")]
    NotConnected,
    #[error("is on a server that is not placed")]
    NotPlaced,
    #[error("does not answer within {} s", LIMIT.as_secs())]
    Silent,
    #[error("does not answer: {0}")]
    Failed(String),
    #[error("has no leader")]
    NoLeader,
    #[error("does not vote yet")]
    Learner,
    #[error("reports {0}")]
    Reports(String),
}

/// Every member that the placement names, in its order.
pub(crate) async fn members(site: &Site) -> Vec<StoreMemberStatus> {
    let Some(order) = site.order.borrow().clone() else {
        return Vec::new();
    };
    let store = site.store.borrow().clone();
    let mut questions = JoinSet::new();
    for (place, server) in order.placement.store.iter().copied().enumerate() {
        let (store, order) = (store.clone(), Rc::clone(&order));
        questions.spawn_local(async move {
            let ill = ask(store, &order.placement, server).await.err();
            let trouble = ill.map(|ill| ill.to_string());
            (place, StoreMemberStatus { server, trouble })
        });
    }
    let mut members = questions.join_all().await;
    members.sort_by_key(|(place, _)| *place);
    members.into_iter().map(|(_, member)| member).collect()
}

async fn ask(store: Option<Store>, placement: &Placement, server: ServerName) -> Result<(), Ill> {
    let store = store.ok_or(Ill::NotConnected)?;
    let member = EtcdMember::on(placement, server).ok_or(Ill::NotPlaced)?;
    let answer = timeout(LIMIT, store.status(&member.target())).await;
    judge(answer.map_err(|_| Ill::Silent)?)
}

fn judge(answer: Result<MemberStatus, StoreError>) -> Result<(), Ill> {
    let status = answer.map_err(|error| Ill::Failed(gaiola_os::chain(&error)))?;
    match status {
        MemberStatus { leader: None, .. } => Err(Ill::NoLeader),
        MemberStatus { learner: true, .. } => Err(Ill::Learner),
        MemberStatus { errors, .. } if !errors.is_empty() => Err(Ill::Reports(errors.join(", "))),
        MemberStatus { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_follows_no_leader_or_does_not_vote_is_not_whole() {
        let well = MemberStatus {
            id: 1,
            version: "3.5.16".into(),
            leader: Some(2),
            learner: false,
            db_size: 0,
            db_size_in_use: 0,
            errors: Vec::new(),
        };
        assert_eq!(judge(Ok(well.clone())), Ok(()));
        let alone = MemberStatus {
            leader: None,
            ..well.clone()
        };
        assert_eq!(judge(Ok(alone)), Err(Ill::NoLeader));
        let learner = MemberStatus {
            learner: true,
            ..well.clone()
        };
        assert_eq!(judge(Ok(learner)), Err(Ill::Learner));
        let errors = vec!["NOSPACE".into()];
        let full = MemberStatus { errors, ..well };
        let why = judge(Ok(full)).unwrap_err().to_string();
        assert_eq!(why, "reports NOSPACE");
    }
}
