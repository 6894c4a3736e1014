//! The site's store: etcd 3.4 to 3.6 through its v3 JSON gateway.
//!
//! A [`Store`] knows several members and switches to another one when the current one is lost, hung or cut off; that
//! costs one request timeout at most. Every change of a key is a transaction that compares first. Reads are linearizable.
//! The store's lifetime is checked: an answer of another cluster, or one whose revision went back, is
//! [`StoreError::Gone`] and never an empty result. etcd's own locks and elections are not used.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod call;
mod election;
mod error;
pub mod etcd;
pub mod events;
mod gateway;
mod lease;
mod maintenance;
mod range;
mod txn;
pub mod view;
mod watch;

pub use election::{Leader, Term, campaign, leader};
pub use error::{MemberError, StoreError};
pub use gaiola_model::Revision;
pub use lease::{Lease, LeaseId};
pub use maintenance::{Alarm, MemberInfo, MemberStatus};
pub use range::{Item, Listing, SortOrder};
pub use txn::{Expected, Txn};
pub use watch::{Change, Update, Watch};

use gaiola_model::schema::SCHEMA;
use gaiola_net::client::{Client, Target};
use gaiola_wire::document;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a store is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its members; the first is used until it fails.
    pub endpoints: Vec<Target>,
    /// TLS with the site's authority.
    pub tls: Option<Arc<ClientConfig>>,
    /// Timeout of one member's answer. Default 1 s.
    pub request_timeout: Duration,
    /// Time after which a failed call is not retried on another member. Default 5 s.
    pub deadline: Duration,
    /// What an earlier process knew of this store; `None` trusts the first answer.
    pub known: Option<KnownStore>,
}

impl Settings {
    /// Settings with the default limits.
    pub fn new(endpoints: Vec<Target>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            endpoints,
            tls,
            request_timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(5),
            known: None,
        }
    }
}

/// What is known of a store's lifetime. Kept on disk, it lets the next process detect that the store is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KnownStore {
    /// etcd's cluster id. It differs for each bootstrap, because each has a new random token.
    pub cluster_id: u64,
    /// The highest revision seen.
    pub revision: Revision,
}

impl KnownStore {
    /// The name of this lifetime: the cluster id in hexadecimal.
    pub fn incarnation(&self) -> String {
        format!("{:016x}", self.cluster_id)
    }
}

/// A store. Cloning is cheap; clones share connections and what is known.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    request_timeout: Duration,
    deadline: Duration,
    /// In the order in which they are tried.
    endpoints: Mutex<Vec<Target>>,
    /// 0 until the first answer.
    cluster_id: AtomicU64,
    revision: AtomicU64,
    /// The schema that documents are written in.
    schema: AtomicU64,
}

impl Store {
    /// A store with these settings. Nothing is sent yet.
    ///
    /// # Panics
    /// Without endpoints.
    pub fn new(settings: Settings) -> Self {
        assert!(!settings.endpoints.is_empty(), "a store has a member");
        let known = settings.known;
        Self(Arc::new(Inner {
            client: Client::new(settings.tls),
            request_timeout: settings.request_timeout,
            deadline: settings.deadline,
            endpoints: Mutex::new(settings.endpoints),
            cluster_id: AtomicU64::new(known.map_or(0, |known| known.cluster_id)),
            revision: AtomicU64::new(known.map_or(0, |known| known.revision.0)),
            schema: AtomicU64::new(SCHEMA),
        }))
    }

    /// The schema that documents are written in. At first the newest that this program reads.
    pub fn schema(&self) -> u64 {
        self.0.schema.load(Ordering::Relaxed)
    }

    /// Writes documents in the schema of the site's placement from now on.
    pub fn set_schema(&self, schema: u64) {
        self.0.schema.store(schema, Ordering::Relaxed);
    }

    /// The members in the order in which they are tried now.
    pub fn endpoints(&self) -> Vec<Target> {
        let endpoints = self.0.endpoints.lock();
        endpoints.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the set of members, after growth. Those that stay keep their order; an empty set is ignored.
    pub fn set_endpoints(&self, mut endpoints: Vec<Target>) {
        if endpoints.is_empty() {
            return;
        }
        let held = self.0.endpoints.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        held.retain(|target| endpoints.contains(target));
        endpoints.retain(|target| !held.contains(target));
        held.extend(endpoints);
    }

    /// Reads `key` as `T`.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Stored<T>>, StoreError> {
        self.get(key).await?.map(|item| item.json()).transpose()
    }

    /// `value` as JSON for `key` in this schema, with what newer programs have added to the key's value, which was last
    /// changed at `at`.
    pub async fn to_json_over<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        value: &T,
        at: Revision,
        schema: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let encoded = match self.get(key).await? {
            Some(item) if item.modified == at => document::encode_over(value, &item.value, schema),
            // It has changed: the write that follows fails.
            _ => document::encode(value, schema).map_err(Into::into),
        };
        encoded.map_err(StoreError::document(key))
    }

    /// Writes `value` as JSON if the key is as `expected`. What newer programs have added to it is kept.
    pub async fn put_json_if<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        expected: Expected,
        value: &T,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        let text = match expected {
            Expected::At(at) => self.to_json_over(key, value, at, self.schema()).await?,
            Expected::Absent => self.to_json(key, value)?,
        };
        self.put_if(key, expected, text, lease).await
    }

    /// Writes `value` as JSON unconditionally: for a key with one writer.
    pub async fn put_json(
        &self,
        key: &str,
        value: &impl Serialize,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        self.put(key, self.to_json(key, value)?, lease).await
    }

    /// `value` as JSON for `key`; for use with [`Txn::put`].
    pub fn to_json(&self, key: &str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        let encoded = document::encode(value, self.schema());
        encoded.map_err(|error| StoreError::document(key)(error.into()))
    }
}

/// A value and its revisions in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// When its key was last changed; what the next compare-and-swap expects.
    pub modified: Revision,
    /// When its key was created.
    pub created: Revision,
}
