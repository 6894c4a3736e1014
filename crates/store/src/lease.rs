//! Leases: keys that are deleted when their owner falls silent.

use super::call::{Call, Consistency, Repeat};
use super::gateway::{LeaseReply, code};
use super::{Store, StoreError};
use serde_json::json;
use std::fmt;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for LeaseId {
    type Err = std::num::ParseIntError;

    /// Parses the gateway's decimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Store {
    /// Grants a lease of `ttl`, in whole seconds and at least two. An election of the store can extend it.
    pub async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs().max(2);
        let call = Call {
            path: "/v3/lease/grant",
            about: "a new lease",
            body: json!({ "TTL": seconds.to_string() }),
            // A lease that was granted but not received expires.
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        Ok(self.call::<LeaseReply>(&call).await?.reply.id)
    }

    /// Renews the lease for its whole TTL; [`StoreError::LeaseExpired`] when there is none.
    pub async fn lease_keepalive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let call = Call {
            path: "/v3/lease/keepalive",
            about: &lease.to_string(),
            body: json!({ "ID": lease }),
            repeat: Repeat::Freely,
            consistency: Consistency::Local,
        };
        let reply = self.call::<LeaseReply>(&call).await?.reply;
        match u64::try_from(reply.ttl) {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(StoreError::LeaseExpired(lease)),
        }
    }

    /// Ends the lease and deletes its keys. A lease that has ended already is no error.
    pub async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = Call {
            path: "/v3/lease/revoke",
            about: &lease.to_string(),
            body: json!({ "ID": lease }),
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        match self.call::<LeaseReply>(&call).await {
            Ok(_) => Ok(()),
            Err(StoreError::Refused { code, .. }) if code == code::NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A lease that a task of its own keeps alive until this is dropped; then it expires.
#[derive(Debug)]
pub struct Lease {
    id: LeaseId,
    alive: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Grants a lease of `ttl` and renews it four times within each `ttl`.
    pub async fn hold(store: &Store, ttl: Duration) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let id = store.lease_grant(ttl).await?;
        let (alive_sender, alive) = watch::channel(true);
        let store = store.clone();
        let task = tokio::spawn(async move {
            keep(&store, id, ttl, asked).await;
            let _ = alive_sender.send(false);
        });
        Ok(Self { id, alive, task })
    }

    /// Its id, for writes under it.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Whether it is alive, as far as known here: it was renewed within its TTL by the local clock.
    pub fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Returns once it is no longer alive. May be dropped and called again.
    pub async fn expired(&mut self) {
        drop(self.alive.wait_for(|alive| !alive).await);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews until the lease is known to have ended, or could not be renewed for its whole TTL.
async fn keep(store: &Store, id: LeaseId, ttl: Duration, mut renewed: Instant) {
    let ttl = Duration::from_secs(ttl.as_secs().max(2));
    let mut next = renewed + ttl / 4;
    loop {
        tokio::time::sleep_until(next).await;
        let asked = Instant::now();
        let renewal = tokio::time::timeout_at(renewed + ttl, store.lease_keepalive(id)).await;
        match renewal {
            Ok(Ok(_)) => renewed = asked,
            Ok(Err(StoreError::LeaseExpired(_) | StoreError::Gone(_))) | Err(_) => return,
            Ok(Err(error)) => {
                let error = gaiola_os::chain(&error);
                tracing::warn!(lease = %id, error, "cannot renew a lease");
            }
        }
        next = (asked + ttl / 4).max(Instant::now() + ttl / 16);
    }
}
