//! Writing: conditions and the changes made if they hold, all or nothing.

use super::call::{Answered, Call, Consistency, Repeat};
use super::election::Term;
use super::gateway::{PutReply, Reply, TxnReply, base64, digits};
use super::{Item, LeaseId, Revision, Store, StoreError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Condition on a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It does not exist.
    Absent,
    /// It was last changed at this revision.
    At(Revision),
}

impl From<Option<Revision>> for Expected {
    fn from(modified: Option<Revision>) -> Self {
        modified.map_or(Self::Absent, Self::At)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::At(revision) => write!(f, "at revision {revision}"),
        }
    }
}

/// Several comparisons and writes, all or nothing. At most 120 of each, each key written once.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    compares: Vec<(String, Compare)>,
    writes: Vec<(String, Write)>,
}

#[derive(Clone, Debug)]
enum Compare {
    Modified(Expected),
    Created(Revision),
}

#[derive(Clone, Debug)]
enum Write {
    Put(Vec<u8>, Option<LeaseId>),
    Delete,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// `key` must be as `expected`.
    #[must_use]
    pub fn expect(mut self, key: &str, expected: Expected) -> Self {
        self.compares
            .push((key.into(), Compare::Modified(expected)));
        self
    }

    /// The writer's term must not be over; otherwise the transaction ends with [`StoreError::Fenced`].
    #[must_use]
    pub fn within(mut self, term: &Term) -> Self {
        let compare = Compare::Created(term.created);
        self.compares.push((term.key.clone(), compare));
        self
    }

    /// Sets `key` to this value; it is deleted when `lease` ends.
    #[must_use]
    pub fn put(mut self, key: &str, value: impl Into<Vec<u8>>, lease: Option<LeaseId>) -> Self {
        self.writes
            .push((key.into(), Write::Put(value.into(), lease)));
        self
    }

    /// Deletes `key`.
    #[must_use]
    pub fn delete(mut self, key: &str) -> Self {
        self.writes.push((key.into(), Write::Delete));
        self
    }

    fn about(&self) -> &str {
        let first = self.writes.first().map(|(key, _)| key);
        let first = first.or(self.compares.first().map(|(key, _)| key));
        first.map_or("nothing", String::as_str)
    }

    fn body(&self) -> Value {
        let keys = self.keys().into_iter();
        json!({
            "compare": self.compares.iter().map(|(key, compare)| compare.body(key)).collect::<Vec<_>>(),
            "success": self.writes.iter().map(|(key, write)| write.body(key)).collect::<Vec<_>>(),
            "failure": keys
                .map(|key| json!({ "request_range": { "key": base64(key.as_bytes()) } }))
                .collect::<Vec<_>>(),
        })
    }

    /// Every key in it, once.
    fn keys(&self) -> Vec<&str> {
        let compared = self.compares.iter().map(|(key, _)| key.as_str());
        let written = self.writes.iter().map(|(key, _)| key.as_str());
        let keys: std::collections::BTreeSet<_> = compared.chain(written).collect();
        keys.into_iter().collect()
    }

    /// Whether the keys are as this transaction would have left them: then an earlier attempt, whose answer was lost, has been
    /// carried out.
    fn has_happened(&self, found: &BTreeMap<String, Item>, now: Revision) -> Option<Revision> {
        let mut at = None;
        for (key, write) in &self.writes {
            match (write, found.get(key)) {
                (Write::Delete, None) => {}
                (Write::Put(value, lease), Some(item))
                    if item.value == *value
                        && item.lease == *lease
                        && at.is_none_or(|at| at == item.modified) =>
                {
                    at = Some(item.modified);
                }
                _ => return None,
            }
        }
        (!self.writes.is_empty()).then(|| at.unwrap_or(now))
    }

    /// Which condition failed.
    fn refusal(&self, found: &BTreeMap<String, Item>) -> StoreError {
        for (key, compare) in &self.compares {
            let item = found.get(key);
            let modified = item.map(|item| item.modified);
            match compare {
                Compare::Created(term) if item.map(|item| item.created) != Some(*term) => {
                    return StoreError::Fenced {
                        key: key.clone(),
                        term: *term,
                    };
                }
                Compare::Modified(expected) if Expected::from(modified) != *expected => {
                    return StoreError::CompareAndSwap {
                        key: key.clone(),
                        expected: *expected,
                        found: modified,
                    };
                }
                Compare::Created(_) | Compare::Modified(_) => {}
            }
        }
        StoreError::Refused {
            what: format!("a transaction on {}", self.about()),
            message: "its comparisons failed, and hold by what was found".into(),
            code: 0,
        }
    }
}

impl Compare {
    fn body(&self, key: &str) -> Value {
        let (target, field, revision) = match self {
            Self::Modified(Expected::Absent) => ("CREATE", "create_revision", Revision(0)),
            Self::Modified(Expected::At(revision)) => ("MOD", "mod_revision", *revision),
            Self::Created(revision) => ("CREATE", "create_revision", *revision),
        };
        json!({
            "key": base64(key.as_bytes()),
            "target": target,
            "result": "EQUAL",
            field: digits(revision),
        })
    }
}

impl Write {
    fn body(&self, key: &str) -> Value {
        match self {
            Self::Put(value, lease) => json!({ "request_put": put_body(key, value, *lease) }),
            Self::Delete => json!({ "request_delete_range": { "key": base64(key.as_bytes()) } }),
        }
    }
}

impl Store {
    /// Writes `value` if `key` is as `expected`; the revision is what the next change of the key expects.
    ///
    /// When an answer was lost the write is retried, and an earlier success is recognised by value and lease.
    pub async fn put_if(
        &self,
        key: &str,
        expected: Expected,
        value: impl Into<Vec<u8>>,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        self.commit(&Txn::new().expect(key, expected).put(key, value, lease))
            .await
    }

    /// Deletes `key` if it was last changed at `expected`.
    pub async fn delete_if(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let txn = Txn::new().expect(key, Expected::At(expected)).delete(key);
        self.commit(&txn).await
    }

    /// Writes `value` unconditionally: for a key with one writer.
    pub async fn put(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        let call = Call {
            path: "/v3/kv/put",
            about: key,
            body: put_body(key, &value.into(), lease),
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        match self.call::<PutReply>(&call).await {
            Ok(answered) => Ok(Revision(answered.reply.header().revision)),
            Err(error) => Err(lease_gone(error, lease)),
        }
    }

    /// Carries out a transaction; returns its revision.
    pub async fn commit(&self, txn: &Txn) -> Result<Revision, StoreError> {
        let call = Call {
            path: "/v3/kv/txn",
            about: txn.about(),
            body: txn.body(),
            repeat: Repeat::Freely,
            consistency: Consistency::Linearizable,
        };
        let mut leases = txn.writes.iter().filter_map(|(_, write)| match write {
            Write::Put(_, lease) => *lease,
            Write::Delete => None,
        });
        let Answered { reply, repeated } = self
            .call::<TxnReply>(&call)
            .await
            .map_err(|error| lease_gone(error, leases.next_back()))?;
        if reply.succeeded {
            return Ok(Revision(reply.header().revision));
        }
        let now = Revision(reply.header().revision);
        let found = found(reply);
        match txn.has_happened(&found, now) {
            Some(revision) if repeated => Ok(revision),
            _ => Err(txn.refusal(&found)),
        }
    }
}

fn found(reply: TxnReply) -> BTreeMap<String, Item> {
    let ranges = reply
        .responses
        .into_iter()
        .filter_map(|one| one.response_range);
    let items = ranges.flat_map(|range| range.kvs).map(Item::from);
    items.map(|item| (item.key.clone(), item)).collect()
}

fn put_body(key: &str, value: &[u8], lease: Option<LeaseId>) -> Value {
    json!({
        "key": base64(key.as_bytes()),
        "value": base64(value),
        "lease": lease.unwrap_or(LeaseId(0)),
    })
}

/// etcd rejects a write under a lease that has expired.
fn lease_gone(error: StoreError, lease: Option<LeaseId>) -> StoreError {
    match lease {
        Some(lease) if error.is_not_found() => StoreError::LeaseExpired(lease),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, value: &str, created: u64, modified: u64) -> (String, Item) {
        let item = Item {
            key: key.into(),
            value: value.into(),
            created: Revision(created),
            modified: Revision(modified),
            lease: None,
        };
        (key.into(), item)
    }

    #[test]
    fn a_refusal_names_the_first_key_that_is_not_as_expected() {
        let txn = Txn::new()
            .expect("/a", Expected::At(Revision(3)))
            .expect("/b", Expected::Absent)
            .put("/b", "x", None);
        let found = BTreeMap::from([item("/a", "", 1, 3), item("/b", "y", 2, 7)]);
        assert_eq!(
            txn.refusal(&found).to_string(),
            "cannot change /b: expected it to be absent, but it is at revision 7"
        );
    }

    #[test]
    fn a_term_that_is_over_fences_whoever_holds_the_key_now() {
        let term = Term {
            key: "/conductor".into(),
            created: Revision(5),
        };
        let txn = Txn::new().within(&term).put("/b", "x", None);
        for found in [
            BTreeMap::new(),
            BTreeMap::from([item("/conductor", "app2", 9, 9)]),
        ] {
            let error = txn.refusal(&found);
            assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
        }
    }

    #[test]
    fn an_own_earlier_success_is_known_by_all_its_writes() {
        let now = Revision(9);
        let txn = Txn::new()
            .put("/a", "1", None)
            .put("/b", "2", None)
            .delete("/c");
        let all = BTreeMap::from([item("/a", "1", 4, 4), item("/b", "2", 1, 4)]);
        assert_eq!(txn.has_happened(&all, now), Some(Revision(4)));

        let later = BTreeMap::from([item("/a", "1", 4, 4), item("/b", "2", 1, 5)]);
        assert_eq!(txn.has_happened(&later, now), None);
        let kept = BTreeMap::from([
            item("/a", "1", 4, 4),
            item("/b", "2", 1, 4),
            item("/c", "", 1, 1),
        ]);
        assert_eq!(txn.has_happened(&kept, now), None);

        let deleted = Txn::new().delete("/c");
        assert_eq!(deleted.has_happened(&BTreeMap::new(), now), Some(now));
        assert_eq!(Txn::new().has_happened(&BTreeMap::new(), now), None);
    }
}
