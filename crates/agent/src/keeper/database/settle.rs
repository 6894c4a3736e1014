//! Hurries Patroni after something has happened.
//!
//! Patroni's loop runs every 3 s. It could see sooner that PostgreSQL has died, or that a standby has caught up: for a while
//! after a start, a change of role, or the end of a PostgreSQL, it is woken once a second until its loop has nothing left to
//! change. Patroni still decides everything; without this it would only decide later.

use super::query::Query;
use crate::engine::Api;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long Patroni is hurried at most.
const WHILE: Duration = Duration::from_secs(30);
/// A state that seems settled before this has passed may not be: a standby about to be promoted seems settled.
const EARLY: Duration = Duration::from_secs(5);
/// Poll interval.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Settle {
    since: Instant,
    until: Instant,
    next: Instant,
    /// Whether to wake it without polling first: it does not know yet that its PostgreSQL has died.
    unseen: bool,
    /// Polls whether it has settled.
    query: Query<bool>,
}

impl Settle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            until: now + WHILE,
            next: now + INTERVAL,
            unseen: false,
            query: Query::Idle,
        }
    }

    /// Starts hurrying; `unseen`: PostgreSQL has ended.
    pub(super) fn wake(&mut self, now: Instant, unseen: bool) {
        self.since = now;
        self.until = now + WHILE;
        self.next = now;
        self.unseen |= unseen;
    }

    /// Call it often; it never waits.
    pub(super) fn step(&mut self, now: Instant, api: &Api, at: SocketAddr) {
        if self.query.take() == Some(true) && now >= self.since + EARLY {
            self.until = now;
        }
        if now >= self.until || now < self.next || !self.query.is_idle() {
            return;
        }
        self.next = now + INTERVAL;
        let (api, unseen) = (api.clone(), std::mem::take(&mut self.unseen));
        self.query.start(async move { ask(&api, at, unseen).await });
    }
}

async fn ask(api: &Api, at: SocketAddr, unseen: bool) -> bool {
    if !unseen && api.report(at).await.is_ok_and(|report| report.is_settled()) {
        return true;
    }
    // While Patroni starts there is no API yet, and nothing to hurry.
    let _ = api.nudge(at).await;
    false
}
