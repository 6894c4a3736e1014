//! One leader at a time: a key under a lease, acquired by compare-and-swap, whose creation revision fences the holder's writes.

use super::{Expected, LeaseId, Revision, Store, StoreError};

/// The time during which one candidate leads.
///
/// A lease does not prove exclusiveness: only a write through [`super::Txn::within`] is rejected once the term is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The key of the election.
    pub key: String,
    /// The revision that created it: the fencing token. A later term has a higher one.
    pub created: Revision,
}

/// The current leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The candidate's name.
    pub who: String,
    /// Its lease.
    pub lease: Option<LeaseId>,
    /// Its term.
    pub term: Term,
}

/// Acquires the key `key` for `who` if it is free. `None`: another candidate leads.
///
/// Repeating the call during one's own term (the same `who` and `lease`) returns the same term.
pub async fn campaign(
    store: &Store,
    key: &str,
    who: &str,
    lease: LeaseId,
) -> Result<Option<Term>, StoreError> {
    match store.put_if(key, Expected::Absent, who, Some(lease)).await {
        Ok(created) => Ok(Some(Term {
            key: key.into(),
            created,
        })),
        Err(StoreError::CompareAndSwap { .. }) => {
            let leader = leader(store, key).await?;
            Ok(leader
                .filter(|leader| leader.who == who && leader.lease == Some(lease))
                .map(|leader| leader.term))
        }
        Err(error) => Err(error),
    }
}

/// The current leader; `None` if there is none.
pub async fn leader(store: &Store, key: &str) -> Result<Option<Leader>, StoreError> {
    Ok(store.get(key).await?.map(|item| Leader {
        who: String::from_utf8_lossy(&item.value).into_owned(),
        lease: item.lease,
        term: Term {
            key: item.key,
            created: item.created,
        },
    }))
}
