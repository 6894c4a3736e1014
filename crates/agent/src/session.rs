//! The agent's session with the store: its lease, its report under that lease, and its turns as the conductor.

use super::conductor;
use crate::state::Boot;
use gaiola_core::conduct::{Report, should_campaign};
use gaiola_model::Observed;
use gaiola_model::event::Event;
use gaiola_store::events::Events;
use gaiola_store::view::{Keys, View};
use gaiola_store::{Expected, Lease, Store, StoreError, campaign};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Lease TTL: how long a silent agent keeps its lease.
const TTL: Duration = Duration::from_secs(5);
/// Interval between two attempts to get a lease.
const RETRY: Duration = Duration::from_millis(500);
/// Interval between two attempts to become the conductor while there is none.
const CAMPAIGN: Duration = Duration::from_millis(500);

/// Appends events to the store's log, one after another, for as long as the agent lives.
pub(super) async fn append(log: Events, mut queue: mpsc::Receiver<Event>) {
    while let Some(event) = queue.recv().await {
        while let Err(error) = log.append(event.clone()).await {
            let error = gaiola_os::chain(&error);
            tracing::warn!(error, kind = event.kind, "cannot store an event yet");
            sleep(RETRY).await;
        }
    }
}

/// What a session works with.
pub(super) struct Session {
    /// This server.
    pub boot: Boot,
    /// The store.
    pub store: Store,
    /// The store's current content.
    pub view: watch::Receiver<View>,
    /// This agent's report.
    pub observed: watch::Receiver<Observed>,
}

impl Session {
    /// Keeps a lease and reports under it, until the agent ends.
    pub(super) async fn run(mut self) {
        loop {
            let error = match Lease::hold(&self.store, TTL).await {
                Ok(lease) => self.hold(lease).await,
                Err(error) => error,
            };
            let error = gaiola_os::chain(&error);
            tracing::warn!(error, "the session with the store ended");
            sleep(RETRY).await;
        }
    }

    async fn hold(&mut self, lease: Lease) -> StoreError {
        let keys = Keys::of(&self.boot.site);
        let (observed, view) = (self.observed.clone(), self.view.clone());
        let publishing = publish(&self.store, &keys, &self.boot, observed, &lease);
        let conducting = conduct(&self.store, &keys, &self.boot, view, &lease);
        let id = lease.id();
        tokio::select! {
            error = publishing => error,
            error = conducting => error,
            () = expired(&lease) => StoreError::LeaseExpired(id),
        }
    }
}

/// Returns once the lease is known to have ended.
async fn expired(lease: &Lease) {
    while lease.is_alive() {
        sleep(Duration::from_millis(200)).await;
    }
}

async fn publish(
    store: &Store,
    keys: &Keys,
    boot: &Boot,
    mut observed: watch::Receiver<Observed>,
    lease: &Lease,
) -> StoreError {
    let key = keys.observed(boot.server);
    let mut report = Report::default();
    loop {
        let seen = observed.borrow_and_update().clone();
        let text = match store.to_json(&key, &seen) {
            Ok(text) => text,
            Err(error) => return error,
        };
        let replaced = Expected::from(report.replaces());
        match store.put_if(&key, replaced, text, Some(lease.id())).await {
            Ok(at) => report.was_written(at),
            Err(StoreError::CompareAndSwap { found, .. }) => {
                report.was_rejected(found);
                continue;
            }
            Err(error) => return error,
        }
        if observed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Becomes the conductor whenever it should.
async fn conduct(
    store: &Store,
    keys: &Keys,
    boot: &Boot,
    mut view: watch::Receiver<View>,
    lease: &Lease,
) -> StoreError {
    let own = boot.server.to_string();
    loop {
        let conductor = view.borrow_and_update().conductor.clone();
        if should_campaign(conductor.as_deref(), &own) {
            match campaign(store, &keys.conductor(), &own, lease.id()).await {
                Ok(Some(term)) => {
                    let term_revision = term.created;
                    tracing::info!(%term_revision, "became the conductor");
                    let error = conductor::run(store, keys, boot, &term, view.clone()).await;
                    tracing::info!("no longer the conductor");
                    if !matches!(error, StoreError::Fenced { .. }) {
                        return error;
                    }
                }
                Ok(None) => {}
                Err(error) => return error,
            }
            sleep(CAMPAIGN).await;
        } else if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
