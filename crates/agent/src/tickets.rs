//! The keys of session tickets, the same on all balancers, so that a client can resume its session at any of them. The
//! conductor makes a new one at intervals.

use gaiola_core::tickets;
use gaiola_model::Placement;
use gaiola_model::proxy::TicketKey;
use gaiola_store::view::{Keys, View};
use gaiola_store::{Expected, Store, StoreError, Term, Txn};
use std::time::SystemTime;

/// Renews the key in the store when it is too old, where the site speaks TLS.
pub(super) async fn renew(
    store: &Store,
    keys: &Keys,
    term: &Term,
    placement: &Placement,
    view: &View,
) -> Result<(), StoreError> {
    if !placement.config.speaks_tls() {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let Ok(secret) = random() else {
        return Ok(()); // retried at the next poll; until then each balancer has keys of its own
    };
    let held = view.tickets.as_ref();
    let Some(new) = tickets::renewed(held.map(|(_, held)| &**held), now, || secret) else {
        return Ok(());
    };
    let key = keys.tickets();
    let at = held.map_or(Expected::Absent, |(at, _)| Expected::At(*at));
    let txn = Txn::new()
        .within(term)
        .expect(&key, at)
        .put(&key, store.to_json(&key, &new)?, None);
    match store.commit(&txn).await {
        // Another conductor renewed it; the watch delivers it shortly.
        Ok(_) | Err(StoreError::CompareAndSwap { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn random() -> Result<TicketKey, getrandom::Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(TicketKey(key))
}
