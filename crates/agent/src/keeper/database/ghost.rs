//! Detects a primary whose commits wait for a standby that is gone.
//!
//! Patroni names a standby in PostgreSQL first and in the store two seconds later. If the standby disappears in between,
//! older versions never remove the name (patroni#3468), and every commit waits until that standby returns. Restarting
//! Patroni and PostgreSQL clears the name, and loses nothing.

use super::psql;
use super::query::Query;
use crate::engine::{Api, MemberRole};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Poll interval. A healthy Patroni removes a name within this time.
const INTERVAL: Duration = Duration::from_secs(4);
/// Polls in a row that must find the same before it is acted on.
const POLLS: u32 = 2;

pub(super) struct Ghost {
    psql: PathBuf,
    /// Where the socket and the password are.
    directory: PathBuf,
    next: Instant,
    found: u32,
    query: Query<Option<String>>,
}

impl Ghost {
    pub(super) fn new(now: Instant, psql: &Path, directory: &Path) -> Self {
        Self {
            psql: psql.into(),
            directory: directory.into(),
            next: now + INTERVAL,
            found: 0,
            query: Query::Idle,
        }
    }

    /// Call it often; it never waits. Returns the standby that commits wait for in vain, once that is certain.
    pub(super) fn step(&mut self, now: Instant, api: &Api, at: SocketAddr) -> Option<String> {
        let answer = self.query.take();
        if let Some(found) = &answer {
            self.found = found.as_ref().map_or(0, |_| self.found + 1);
        }
        if now >= self.next && self.query.is_idle() {
            self.next = now + INTERVAL;
            let (api, psql, directory) = (api.clone(), self.psql.clone(), self.directory.clone());
            self.query
                .start(async move { ask(&api, at, &psql, &directory).await });
        }
        answer.flatten().filter(|_| self.found >= POLLS)
    }
}

async fn ask(api: &Api, at: SocketAddr, psql: &Path, directory: &Path) -> Option<String> {
    let report = api.report(at).await.ok()?;
    if !report.is_primary() || report.is_settled() {
        return None;
    }
    // While the store names a synchronous standby, Patroni itself still handles it.
    let members = api.cluster(at).await.ok()?;
    if members
        .iter()
        .any(|member| member.role == MemberRole::SyncStandby)
    {
        return None;
    }
    // `*` is what strict mode writes while there is no standby: then commits are meant to wait.
    let names = psql::ask(psql, directory, "SHOW synchronous_standby_names").await?;
    (!names.is_empty() && names != "*").then_some(names)
}
