//! One call over several members: which one is called, for how long, and whether its answer is from the store we know.

use super::error::MemberError;
use super::gateway::{Header, Line, Refusal, Reply, code};
use super::{KnownStore, Revision, Store, StoreError};
use gaiola_net::client::{Request, Target};
use serde_json::Value;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;

/// Pause after all members have failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A call that any member can answer.
pub(super) struct Call<'a> {
    /// The gateway's path.
    pub(super) path: &'static str,
    /// Subject of the call, for messages: a key, a lease, a member.
    pub(super) about: &'a str,
    pub(super) body: Value,
    pub(super) repeat: Repeat,
    pub(super) consistency: Consistency,
}

/// What to do when a member may have carried out a call whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Retry on another member: repeating it changes nothing, or the caller can detect it.
    Freely,
    /// Give up: repeating it would change the result.
    OnlyUnsent,
}

/// Which state an answer may be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consistency {
    /// It includes every write that was acknowledged before the call.
    Linearizable,
    /// One member's own view, which may lag.
    Local,
}

/// A member's answer.
pub(super) struct Answered<T> {
    pub(super) reply: T,
    /// With `true` an earlier attempt may have been carried out too.
    pub(super) repeated: bool,
}

enum Failure {
    /// The store has decided: no other member is tried.
    Final(StoreError),
    /// This member failed; another one may answer.
    Member(MemberError),
}

impl Store {
    /// What is known of the store's lifetime; `None` before its first answer.
    pub fn known(&self) -> Option<KnownStore> {
        let cluster_id = self.0.cluster_id.load(Ordering::Relaxed);
        (cluster_id != 0).then(|| KnownStore {
            cluster_id,
            revision: Revision(self.0.revision.load(Ordering::Relaxed)),
        })
    }

    /// Tries members until one answers; the last try begins before [`super::Settings::deadline`] has passed.
    pub(super) async fn call<T: Reply>(&self, call: &Call<'_>) -> Result<Answered<T>, StoreError> {
        let span = tracing::debug_span!("store", path = call.path, about = call.about);
        self.try_members(call).instrument(span).await
    }

    async fn try_members<T: Reply>(&self, call: &Call<'_>) -> Result<Answered<T>, StoreError> {
        let begun = Instant::now();
        let seen = self.0.revision.load(Ordering::Relaxed);
        let request = Request::post(call.path, call.body.to_string());
        let mut repeated = false;
        loop {
            let mut gone = None;
            for target in self.endpoints() {
                let timeout = self.0.request_timeout;
                let error = match self.ask::<T>(&target, &request, call, timeout).await {
                    Ok(reply) => match self.check(reply.header(), call.consistency, seen) {
                        Ok(()) => {
                            self.prefer(&target);
                            tracing::debug!(%target, took = ?begun.elapsed(), "answered");
                            return Ok(Answered { reply, repeated });
                        }
                        Err(error) => {
                            gone = Some(error);
                            continue;
                        }
                    },
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Member(error)) => error,
                };
                tracing::debug!(%target, error = %gaiola_os::chain(&error), "a member failed");
                repeated |= error.maybe_done();
                let give_up = repeated && call.repeat == Repeat::OnlyUnsent;
                if give_up || begun.elapsed() >= self.0.deadline {
                    return Err(StoreError::Unreachable {
                        what: format!("{} of {}", call.path, call.about),
                        waited: begun.elapsed(),
                        maybe_done: repeated,
                        source: Box::new(error),
                    });
                }
            }
            match gone {
                Some(error) => return Err(error),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Calls one member once.
    pub(super) async fn ask_member<T: Reply>(
        &self,
        target: &Target,
        call: &Call<'_>,
    ) -> Result<T, StoreError> {
        let request = Request::post(call.path, call.body.to_string());
        let seen = self.0.revision.load(Ordering::Relaxed);
        let timeout = self.0.request_timeout;
        match self.ask::<T>(target, &request, call, timeout).await {
            Ok(reply) => self
                .check(reply.header(), call.consistency, seen)
                .map(|()| reply),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Member(error)) => Err(StoreError::Unreachable {
                what: format!("{} of {}", call.path, call.about),
                waited: timeout,
                maybe_done: error.maybe_done(),
                source: Box::new(error),
            }),
        }
    }

    /// Rejects an answer of another store, or of an older state of this one. `seen` is the highest revision known before the
    /// call was sent.
    pub(super) fn check(
        &self,
        header: &Header,
        consistency: Consistency,
        seen: u64,
    ) -> Result<(), StoreError> {
        if header.cluster_id == 0 {
            // Alarms have no header.
            return Ok(());
        }
        let first = self.0.cluster_id.compare_exchange(
            0,
            header.cluster_id,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if let Err(known) = first
            && known != header.cluster_id
        {
            let (was, is) = (known, header.cluster_id);
            return Err(StoreError::Gone(format!(
                "it was cluster {was:016x}, and cluster {is:016x} answers now"
            )));
        }
        // The answers of membership calls may have no revision.
        if consistency == Consistency::Linearizable
            && header.revision != 0
            && header.revision < seen
        {
            let is = header.revision;
            return Err(StoreError::Gone(format!(
                "it was at revision {seen} and has gone back to {is}"
            )));
        }
        self.0
            .revision
            .fetch_max(header.revision, Ordering::Relaxed);
        Ok(())
    }

    /// Moves this member to the end of the order.
    pub(super) fn put_last(&self, target: &Target) {
        let mut endpoints = self
            .0
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = endpoints.iter().position(|one| one == target) {
            endpoints[at..].rotate_left(1);
        }
    }

    /// Moves this member to the front of the order. Those before it have just failed; they keep their order, at the end.
    fn prefer(&self, target: &Target) {
        let mut endpoints = self
            .0
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = endpoints.iter().position(|one| one == target) {
            endpoints.rotate_left(at);
        }
    }

    async fn ask<T: Reply>(
        &self,
        target: &Target,
        request: &Request,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let answer = self.0.client.request(target, request, timeout).await;
        let answer = answer.map_err(|error| Failure::Member(error.into()))?;
        let malformed = |source| {
            Failure::Member(MemberError::Malformed {
                member: target.to_string(),
                text: answer.text().chars().take(200).collect(),
                source,
            })
        };
        if answer.status == 200 {
            return match read::<T>(&answer.body).map_err(malformed)? {
                Line::Result(reply) => Ok(reply),
                Line::Error(refusal) => Err(refused(target, call, refusal)),
            };
        }
        let refusal = Refusal::read(&answer.body).map_err(malformed)?;
        Err(refused(target, call, refusal))
    }
}

/// Reads an answer with status 200: the reply itself, that of a stream's only line, or an error despite the status.
fn read<T: Reply>(body: &[u8]) -> Result<Line<T>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Peek {
        result: Option<serde::de::IgnoredAny>,
        error: Option<serde::de::IgnoredAny>,
    }
    let peek: Peek = serde_json::from_slice(body)?;
    if peek.error.is_some() {
        Refusal::read(body).map(Line::Error)
    } else if peek.result.is_some() {
        serde_json::from_slice(body)
    } else {
        serde_json::from_slice(body).map(Line::Result)
    }
}

fn refused(target: &Target, call: &Call<'_>, refusal: Refusal) -> Failure {
    if refusal.is_passing() {
        return Failure::Member(MemberError::Unavailable {
            member: target.to_string(),
            message: refusal.message,
        });
    }
    Failure::Final(StoreError::Refused {
        what: format!("{} of {}", call.path, call.about),
        message: refusal.message,
        code: refusal.code,
    })
}

impl StoreError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == code::NOT_FOUND)
    }

    pub(super) fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == code::OUT_OF_RANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn store(known: Option<KnownStore>) -> Store {
        let endpoints = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let endpoints = endpoints.map(|text| Target::Tcp(text.parse().unwrap()));
        Store::new(Settings {
            known,
            ..Settings::new(endpoints.into(), None)
        })
    }

    fn header(cluster_id: u64, revision: u64) -> Header {
        Header {
            cluster_id,
            revision,
            member_id: 1,
        }
    }

    #[test]
    fn the_first_answer_names_the_store_and_another_cluster_is_gone() {
        let store = store(None);
        assert_eq!(store.known(), None);
        store
            .check(&header(7, 3), Consistency::Linearizable, 0)
            .unwrap();
        assert_eq!(store.known().unwrap().incarnation(), "0000000000000007");
        let error = store
            .check(&header(8, 9), Consistency::Local, 0)
            .unwrap_err();
        assert!(matches!(error, StoreError::Gone(_)), "{error}");
    }

    #[test]
    fn a_revision_that_went_back_is_gone_unless_a_member_may_lag() {
        let known = KnownStore {
            cluster_id: 7,
            revision: Revision(10),
        };
        let store = store(Some(known));
        store.check(&header(7, 9), Consistency::Local, 10).unwrap();
        let error = store.check(&header(7, 9), Consistency::Linearizable, 10);
        assert!(matches!(error, Err(StoreError::Gone(_))));
        assert_eq!(store.known(), Some(known));
    }

    #[test]
    fn the_member_that_answered_is_asked_first_and_the_failed_ones_last() {
        let store = store(None);
        let [a, b, c] = <[Target; 3]>::try_from(store.endpoints()).unwrap();
        store.prefer(&b);
        assert_eq!(store.endpoints(), [b.clone(), c.clone(), a.clone()]);
        store.put_last(&b);
        assert_eq!(store.endpoints(), [c, a, b]);
    }

    #[test]
    fn an_error_with_status_200_is_an_error() {
        use super::super::gateway::LeaseReply;
        let body =
            br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#;
        assert!(matches!(read::<LeaseReply>(body), Ok(Line::Error(refusal)) if refusal.code == 14));
        let body = br#"{"result":{"header":{"cluster_id":"1"},"ID":"77","TTL":"10"}}"#;
        assert!(matches!(read::<LeaseReply>(body), Ok(Line::Result(reply)) if reply.ttl == 10));
        let body = br#"{"header":{"cluster_id":"1"},"ID":"77","TTL":"10"}"#;
        assert!(matches!(read::<LeaseReply>(body), Ok(Line::Result(reply)) if reply.ttl == 10));
    }
}
