//! The site's event log, in the store: what happened, on which server, in the order in which it reached the store.

use crate::{Change, Item, Revision, SortOrder, Store, StoreError, Txn, Update, Watch};
use gaiola_model::SiteName;
use gaiola_model::event::{Event, Severity, Subject};
use std::collections::VecDeque;

/// How many events are kept; the conductor prunes the older ones.
pub const KEPT: usize = 1000;
/// Deletions in one transaction; etcd allows 128.
const BATCH: usize = 100;
/// Keys read in one round of pruning.
const READ: usize = 4 * KEPT;
/// Longest text of an event, in bytes; the rest is cut off.
const MAX_TEXT: usize = 2000;

/// The event log of a site.
#[derive(Clone, Debug)]
pub struct Events {
    store: Store,
    prefix: String,
}

/// An event and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Orders the events.
    pub revision: Revision,
    /// What happened.
    pub event: Event,
}

impl Events {
    /// The log of `site`.
    pub fn new(store: Store, site: &SiteName) -> Self {
        Self {
            store,
            prefix: format!("/gaiola/{site}/events/"),
        }
    }

    /// Logs that something happened now.
    pub async fn log(
        &self,
        subject: Subject,
        severity: Severity,
        kind: &str,
        text: impl Into<String>,
    ) -> Result<Revision, StoreError> {
        let event = Event {
            time: now(),
            subject,
            kind: kind.into(),
            text: text.into(),
            severity,
        };
        self.append(event).await
    }

    /// Appends an event. It is logged once, even where an answer of the store was lost.
    pub async fn append(&self, mut event: Event) -> Result<Revision, StoreError> {
        event
            .text
            .truncate(event.text.floor_char_boundary(MAX_TEXT));
        let key = self.new_key(&event);
        self.store.put_json(&key, &event, None).await
    }

    /// The last `count` events, the oldest first.
    pub async fn last(&self, count: usize) -> Result<Vec<Logged>, StoreError> {
        let listing = self
            .store
            .list_some(
                &self.prefix,
                SortOrder::NewestFirst,
                count.clamp(1, KEPT),
                false,
            )
            .await?;
        Ok(listing.items.iter().rev().filter_map(read).collect())
    }

    /// Every event after `after`, as it happens.
    pub fn follow(&self, after: Revision) -> Follow {
        Follow {
            watch: self.store.watch(&self.prefix, after),
            waiting: VecDeque::new(),
            last: after,
        }
    }

    /// Deletes all but the last [`KEPT`]; returns how many. The conductor calls it at intervals.
    pub async fn prune(&self) -> Result<usize, StoreError> {
        let listing = self
            .store
            .list_some(&self.prefix, SortOrder::NewestFirst, READ, true)
            .await?;
        let old = listing.items.get(KEPT..).unwrap_or_default();
        for batch in old.chunks(BATCH) {
            let delete = |txn: Txn, item: &Item| txn.delete(&item.key);
            self.store
                .commit(&batch.iter().fold(Txn::new(), delete))
                .await?;
        }
        Ok(old.len())
    }

    /// A key that no other event has; its time is for people who read the store by hand.
    fn new_key(&self, event: &Event) -> String {
        format!("{}{}-{:016x}", self.prefix, event.time, fastrand::u64(..))
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct Follow {
    watch: Watch,
    waiting: VecDeque<Logged>,
    /// The last event that was returned.
    last: Revision,
}

impl Follow {
    /// The next event. While no member of the store answers it waits; an error ends the log.
    ///
    /// May be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Result<Logged, StoreError> {
        loop {
            if let Some(logged) = self.waiting.pop_front() {
                self.last = logged.revision;
                return Ok(logged);
            }
            let update = self.watch.next().await?;
            self.waiting = news(update, self.last).into();
        }
    }
}

/// The events of an update after revision `last`, in order.
fn news(update: Update, last: Revision) -> Vec<Logged> {
    let items = match update {
        Update::Snapshot(listing) => listing.items,
        Update::Changed(changes) => changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Put(item) => Some(item),
                Change::Deleted { .. } => None,
            })
            .collect(),
    };
    let read = items.iter().filter_map(read);
    let mut news: Vec<_> = read.filter(|logged| logged.revision > last).collect();
    news.sort_by_key(|logged| logged.revision);
    news
}

/// Skips what a later version wrote and this one cannot read.
fn read(item: &Item) -> Option<Logged> {
    let stored = item.json().ok()?;
    Some(Logged {
        revision: stored.created,
        event: stored.value,
    })
}

/// Now, in RFC 3339 with milliseconds.
pub fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Listing;

    fn item(key: &str, created: u64) -> Item {
        let event = Event {
            time: now(),
            subject: Subject::Site,
            kind: "site.up".into(),
            text: "is up".into(),
            severity: Severity::Info,
        };
        Item {
            key: key.into(),
            value: serde_json::to_vec(&event).unwrap(),
            created: Revision(created),
            modified: Revision(created),
            lease: None,
        }
    }

    #[test]
    fn times_have_milliseconds_and_sort_as_text() {
        let time = now();
        assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len(), "{time}");
        assert!(time.ends_with('Z') && time <= now());
    }

    #[test]
    fn of_a_snapshot_only_later_events_are_returned_in_order() {
        let unreadable = Item {
            value: b"{}".into(),
            ..item("d", 8)
        };
        let items = vec![item("a", 9), item("b", 3), item("c", 7), unreadable];
        let revision = Revision(9);
        let update = Update::Snapshot(Listing { items, revision });
        let news = news(update, Revision(3));
        let revisions: Vec<_> = news.iter().map(|logged| logged.revision.0).collect();
        assert_eq!(revisions, [7, 9]);
    }
}
