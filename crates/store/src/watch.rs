//! Following a prefix: every change once and in order, even while members fail.
//!
//! When its member is lost, hung or cut off from the others, a watch continues at the next revision. Where that revision
//! was compacted, it delivers everything under the prefix as a snapshot.

use super::call::Consistency;
use super::gateway::{EventValue, Line, Reply, WatchReply, base64, digits, prefix_end, text};
use super::{Item, Listing, Revision, Store, StoreError};
use gaiola_net::client::{ClientError, Request, Target};
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Updates queued for a slow reader; then the watch stops reading.
const QUEUE: usize = 64;
/// Silence after which the member's status is checked.
const SILENCE: Duration = Duration::from_secs(2);
/// Silence after which the watch is restarted: the member is healthy, but the watch itself might not be.
const STALE: Duration = Duration::from_secs(60);
/// Pause when no member answers.
const PAUSE: Duration = Duration::from_millis(200);

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Everything under the prefix: a key that is not in it does not exist. Comes first in [`Store::follow`], and after a
    /// compaction.
    Snapshot(Listing),
    /// Changes of one or more revisions, in order.
    Changed(Vec<Change>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was created or changed.
    Put(Item),
    /// A key was deleted, or its lease ended.
    Deleted {
        /// The key.
        key: String,
        /// When.
        revision: Revision,
    },
}

/// Changes under a prefix as they happen. A task of its own reads them; dropping this stops it.
#[derive(Debug)]
pub struct Watch {
    updates: mpsc::Receiver<Result<Update, StoreError>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// The next update. While no member answers it waits, without an error.
    ///
    /// An error ([`StoreError::Gone`]) ends the watch. May be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Result<Update, StoreError> {
        let ended = || Err(StoreError::Gone("the watch has ended".into()));
        self.updates.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Every change under `prefix` after the revision `after`.
    pub fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.start(prefix, Some(after))
    }

    /// Everything under `prefix`, and then every change.
    pub fn follow(&self, prefix: &str) -> Watch {
        self.start(prefix, None)
    }

    fn start(&self, prefix: &str, after: Option<Revision>) -> Watch {
        let (out, updates) = mpsc::channel(QUEUE);
        let follower = Follower {
            store: self.clone(),
            prefix: prefix.into(),
            after: after.unwrap_or_default(),
            needs_snapshot: after.is_none(),
            out,
        };
        let task = tokio::spawn(follower.run());
        Watch { updates, task }
    }
}

/// The task behind a [`Watch`].
struct Follower {
    store: Store,
    prefix: String,
    /// Everything up to this revision was delivered.
    after: Revision,
    needs_snapshot: bool,
    out: mpsc::Sender<Result<Update, StoreError>>,
}

/// Why a stream is no longer read.
enum End {
    /// Switch to another member.
    Lost,
    /// The same member may be used again.
    Stale,
    /// The next revision was compacted.
    Compacted,
    /// It is another store, or an older state of it.
    Gone(StoreError),
    /// The reader is gone.
    Unwanted,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let end = match self.begin().await {
                Ok(()) => self.read_one_member().await,
                Err(end) => end,
            };
            match end {
                End::Stale => {}
                End::Lost => tokio::time::sleep(PAUSE).await,
                End::Compacted => self.needs_snapshot = true,
                End::Unwanted => return,
                End::Gone(error) => return drop(self.out.send(Err(error)).await),
            }
        }
    }

    /// Checks that a member answers, and that it is still the same store.
    async fn begin(&mut self) -> Result<(), End> {
        if !self.needs_snapshot {
            return self.store.revision().await.map(drop).map_err(End::from);
        }
        let listing = self.store.list(&self.prefix).await?;
        self.after = listing.revision;
        self.needs_snapshot = false;
        self.send(Update::Snapshot(listing)).await
    }

    async fn read_one_member(&mut self) -> End {
        let Some(member) = self.store.endpoints().into_iter().next() else {
            return End::Lost;
        };
        let end = match self.read(&member).await {
            Err(end) => end,
            Ok(never) => match never {},
        };
        if matches!(end, End::Lost) {
            tracing::debug!(%member, prefix = self.prefix, after = %self.after, "a watch lost its member");
            self.store.put_last(&member);
        }
        end
    }

    async fn read(&mut self, member: &Target) -> Result<std::convert::Infallible, End> {
        let (client, timeout) = (&self.store.0.client, self.store.0.request_timeout);
        let mut stream = client.stream(member, &self.request(), timeout).await?;
        let mut heard = Instant::now();
        loop {
            match stream.next_line(SILENCE).await {
                Ok(Some(line)) => self.take(&line).await?,
                Err(ClientError::Timeout { .. }) => {
                    self.make_sure_of(member).await?;
                    if heard.elapsed() > STALE {
                        return Err(End::Stale);
                    }
                    continue;
                }
                Ok(None) | Err(_) => return Err(End::Lost),
            }
            heard = Instant::now();
        }
    }

    fn request(&self) -> Request {
        let key = self.prefix.as_bytes();
        let body = json!({ "create_request": {
            "key": base64(key),
            "range_end": base64(&prefix_end(key)),
            "start_revision": digits(self.after.0 + 1),
            "progress_notify": true,
        }});
        // Makes etcd end the stream when the member is cut off from the others.
        let (name, value) = ("grpc-metadata-hasleader", "true");
        Request::post("/v3/watch", body.to_string()).header(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), End> {
        let Ok(Line::Result(reply)) = serde_json::from_slice::<Line<WatchReply>>(line) else {
            return Err(End::Lost);
        };
        self.store.check(reply.header(), Consistency::Local, 0)?;
        if reply.compact_revision != 0 {
            return Err(End::Compacted);
        }
        if reply.canceled {
            tracing::debug!(reason = reply.cancel_reason, "a watch was cancelled");
            return Err(End::Lost);
        }
        let seen = self.after;
        let news = reply.events.iter().map(|event| event.kv.mod_revision).max();
        // Without events it is a progress report, unless it is the first answer.
        let progress = (!reply.created && news.is_none()).then_some(reply.header().revision);
        if let Some(revision) = news.or(progress) {
            self.after = seen.max(Revision(revision));
        }
        let unseen = |event: &EventValue| event.kv.mod_revision > seen.0;
        let changes: Vec<_> = reply
            .events
            .into_iter()
            .filter(unseen)
            .map(Change::from)
            .collect();
        if changes.is_empty() {
            Ok(())
        } else {
            self.send(Update::Changed(changes)).await
        }
    }

    /// Checks that a silent member is alive and has a leader.
    async fn make_sure_of(&self, member: &Target) -> Result<(), End> {
        let status = self.store.status(member).await?;
        status.leader.map(drop).ok_or(End::Lost)
    }

    async fn send(&self, update: Update) -> Result<(), End> {
        self.out.send(Ok(update)).await.map_err(|_| End::Unwanted)
    }
}

impl From<EventValue> for Change {
    fn from(event: EventValue) -> Self {
        if event.kind == "DELETE" {
            Self::Deleted {
                revision: Revision(event.kv.mod_revision),
                key: text(event.kv.key),
            }
        } else {
            Self::Put(event.kv.into())
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Gone(_) => Self::Gone(error),
            StoreError::Compacted(_) => Self::Compacted,
            _ => Self::Lost,
        }
    }
}

impl From<ClientError> for End {
    fn from(_: ClientError) -> Self {
        Self::Lost
    }
}
