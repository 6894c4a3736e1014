//! Reading: one key, or all keys under a prefix as they were at one revision.

use super::call::{Call, Consistency, Repeat};
use super::gateway::{RangeReply, Reply, base64, digits, prefix_end};
use super::{LeaseId, Revision, Store, StoreError, Stored};
use gaiola_net::client::Target;
use gaiola_wire::document;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Keys per request.
const PAGE: usize = 500;

/// A key, its value, and its revisions in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was created.
    pub created: Revision,
    /// When it was last changed.
    pub modified: Revision,
    /// The lease that it is attached to.
    pub lease: Option<LeaseId>,
}

impl Item {
    /// The value read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<Stored<T>, StoreError> {
        let value = document::decode(&self.value).map_err(StoreError::document(&self.key))?;
        Ok(Stored {
            value,
            modified: self.modified,
            created: self.created,
        })
    }
}

/// All keys under a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The keys, in their own order unless another one was requested.
    pub items: Vec<Item>,
    /// The revision of this listing; a watch continues from the next one.
    pub revision: Revision,
}

/// An order other than the keys' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// The oldest key first.
    OldestFirst,
    /// The newest key first.
    NewestFirst,
}

impl Store {
    /// The item at `key`; `None` when there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let reply = self
            .range(key, json!({ "key": base64(key.as_bytes()) }))
            .await?;
        Ok(reply.kvs.into_iter().next().map(Item::from))
    }

    /// All items whose keys begin with `prefix`.
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let end = base64(&prefix_end(prefix.as_bytes()));
        let mut from = prefix.as_bytes().to_vec();
        let mut listing = Listing {
            items: Vec::new(),
            revision: Revision(0),
        };
        loop {
            let mut body = json!({ "key": base64(&from), "range_end": end, "limit": digits(PAGE) });
            if listing.revision != Revision(0) {
                body["revision"] = digits(listing.revision).into();
            }
            let reply = self.range(prefix, body).await?;
            if listing.revision == Revision(0) {
                listing.revision = Revision(reply.header().revision);
            }
            let (more, last) = (reply.more, reply.kvs.last().map(|kv| kv.key.clone()));
            listing.items.extend(reply.kvs.into_iter().map(Item::from));
            match last {
                Some(last) if more => from = [&last[..], b"\0"].concat(),
                _ => return Ok(listing),
            }
        }
    }

    /// The first `limit` items under `prefix` in `order`, without their values where `keys_only`.
    pub async fn list_some(
        &self,
        prefix: &str,
        order: SortOrder,
        limit: usize,
        keys_only: bool,
    ) -> Result<Listing, StoreError> {
        let order = match order {
            SortOrder::OldestFirst => "ASCEND",
            SortOrder::NewestFirst => "DESCEND",
        };
        let body = json!({
            "key": base64(prefix.as_bytes()),
            "range_end": base64(&prefix_end(prefix.as_bytes())),
            "sort_target": "CREATE",
            "sort_order": order,
            "limit": digits(limit),
            "keys_only": keys_only,
        });
        let reply = self.range(prefix, body).await?;
        Ok(Listing {
            revision: Revision(reply.header().revision),
            items: reply.kvs.into_iter().map(Item::from).collect(),
        })
    }

    /// The store's newest revision. Like every linearizable read it needs a quorum, so it shows whether there is one.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        let body = json!({ "key": base64(b"/"), "count_only": true });
        let reply = self.range("/", body).await?;
        Ok(Revision(reply.header().revision))
    }

    /// Makes one member catch up with everything that was acknowledged before.
    pub(super) async fn catch_up(&self, target: &Target) -> Result<(), StoreError> {
        let call = Call {
            path: "/v3/kv/range",
            about: "/",
            body: json!({ "key": base64(b"/"), "count_only": true }),
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        self.ask_member::<RangeReply>(target, &call)
            .await
            .map(|_| ())
    }

    async fn range(&self, about: &str, body: Value) -> Result<RangeReply, StoreError> {
        let call = Call {
            path: "/v3/kv/range",
            about,
            body,
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        match self.call(&call).await {
            Ok(answered) => Ok(answered.reply),
            Err(error) if error.is_out_of_range() => {
                let asked = call.body["revision"]
                    .as_str()
                    .and_then(|text| text.parse().ok());
                Err(StoreError::Compacted(Revision(asked.unwrap_or(0))))
            }
            Err(error) => Err(error),
        }
    }
}
