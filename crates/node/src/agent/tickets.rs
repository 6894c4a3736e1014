//! The keys that session tickets are sealed with, the same on all balancers, so that a client resumes its session at
//! whichever of them it comes to. The conductor makes a new one now and then.

use crate::store::{Expected, Store, StoreError, Term, Txn, to_json};
use crate::view::{Keys, View};
use gaiola_model::Placement;
use gaiola_model::proxy::TicketKey;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// A key is sealed with for so long.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Tickets of so many keys are opened.
const KEPT: usize = 3;

/// The keys as the store has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTickets {
    /// The newest first, which seals; all of them open.
    pub keys: Vec<TicketKey>,
    /// When the newest was made, in seconds since 1970.
    made: u64,
}

impl SharedTickets {
    /// These keys with a new one before them; `None` while the newest is young enough.
    fn renewed(held: Option<&Self>, now: u64, make: impl FnOnce() -> TicketKey) -> Option<Self> {
        // A clock that was set back by much is no reason to keep a key for years.
        if held.is_some_and(|held| held.made.abs_diff(now) < LIFETIME.as_secs()) {
            return None;
        }
        let before = held.map_or(&[][..], |held| &held.keys);
        let keys = std::iter::once(make()).chain(before.iter().cloned());
        Some(Self {
            keys: keys.take(KEPT).collect(),
            made: now,
        })
    }
}

/// Has the store hold a key that is young enough, where the site speaks TLS.
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
        return Ok(()); // the next look tries again; until then each balancer has keys of its own
    };
    let held = view.tickets.as_ref();
    let Some(new) = SharedTickets::renewed(held.map(|(_, held)| &**held), now, || secret) else {
        return Ok(());
    };
    let key = keys.tickets();
    let at = held.map_or(Expected::Absent, |(at, _)| Expected::At(*at));
    let txn = Txn::new()
        .within(term)
        .expect(&key, at)
        .put(&key, to_json(&key, &new)?, None);
    match store.commit(&txn).await {
        // It was renewed before, and is told in a moment.
        Ok(_) | Err(StoreError::CompareAndSwap { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn random() -> Result<TicketKey, getrandom::Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(TicketKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_for_its_time_and_opens_for_longer() {
        let key = |byte| TicketKey([byte; 32]);
        let day = 24 * 3600;
        let one = SharedTickets::renewed(None, day, || key(1)).unwrap();
        assert_eq!(one.keys, [key(1)]);
        let soon = day + LIFETIME.as_secs() - 1;
        assert_eq!(SharedTickets::renewed(Some(&one), soon, || key(2)), None);
        let mut held = one;
        for number in 2..=4 {
            let now = u64::from(number) * day;
            held = SharedTickets::renewed(Some(&held), now, || key(number)).unwrap();
        }
        assert_eq!(held.keys, [key(4), key(3), key(2)]);
        let before = SharedTickets::renewed(Some(&held), day, || key(5)).unwrap();
        assert_eq!(before.keys[0], key(5));
    }
}
