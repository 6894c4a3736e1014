//! Session tickets: a session's state, sealed and given to the client, so that any proxy with the same keys resumes it.
//!
//! A ticket is laid out as RFC 5077, section 4, recommends: name of the key, nonce, ciphertext, tag; with AES-256-GCM in
//! the place of AES-CBC and HMAC.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use gaiola_model::proxy::TicketKey;
use rustls::server::ProducesTickets;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How long a ticket is good for.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Keys of our own that are kept: the one in use and those before it.
const OWN_KEYS: usize = 3;

/// Most keys that are taken.
const MOST_KEYS: usize = 16;

const NAME_LEN: usize = 16;

/// The process' keys, the newest first.
pub(crate) struct Tickets {
    keys: RwLock<Arc<[Key]>>,
    /// Those that the process made, until others are given.
    own: Mutex<Option<Vec<TicketKey>>>,
}

struct Key {
    name: [u8; NAME_LEN],
    key: RandomizedNonceKey,
}

impl Key {
    fn new(secret: &TicketKey) -> Result<Self, String> {
        let derive = |purpose: &str| {
            let digest = Sha256::new_with_prefix(purpose).chain_update(secret.0);
            <[u8; 32]>::from(digest.finalize())
        };
        let key = RandomizedNonceKey::new(&AES_256_GCM, &derive("gaiola ticket key"));
        let [name @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            derive("gaiola ticket name");
        Ok(Self {
            name,
            key: key.map_err(|error| error.to_string())?,
        })
    }
}

impl Tickets {
    /// A key of our own. Without the system's randomness there are no tickets.
    pub(crate) fn new() -> Self {
        let tickets = Self {
            keys: RwLock::new(Arc::new([])),
            own: Mutex::new(Some(Vec::new())),
        };
        tickets.make();
        tickets
    }

    /// Takes these keys, the newest first, in place of all others, and tells how many they are.
    ///
    /// # Errors
    /// Why they are not taken.
    pub(crate) fn take(&self, keys: &[TicketKey]) -> Result<usize, String> {
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(format!("from 1 to {MOST_KEYS} ticket keys are taken"));
        }
        self.put(keys)?;
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(keys.len())
    }

    /// Makes a new key as often as tickets grow old, for ever.
    pub(crate) async fn renew(&self) {
        loop {
            tokio::time::sleep(LIFETIME).await;
            self.make();
        }
    }

    /// Makes a new key, unless keys were given.
    fn make(&self) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = &mut *own else { return };
        let mut secret = TicketKey([0; 32]);
        if let Err(error) = getrandom::fill(&mut secret.0) {
            return tracing::warn!(%error, "no new ticket key");
        }
        own.insert(0, secret);
        own.truncate(OWN_KEYS);
        if let Err(error) = self.put(own) {
            tracing::warn!(error, "no new ticket key");
        }
    }

    fn put(&self, keys: &[TicketKey]) -> Result<(), String> {
        let keys: Arc<[Key]> = keys.iter().map(Key::new).collect::<Result<_, _>>()?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The tickets of one frontend: those of another, or with other demands on the client, are not opened.
pub(super) struct FrontendTickets {
    tickets: Arc<Tickets>,
    context: [u8; 32],
}

impl FrontendTickets {
    pub(super) fn new(tickets: &Arc<Tickets>, context: [u8; 32]) -> Self {
        Self {
            tickets: Arc::clone(tickets),
            context,
        }
    }

    /// What is sealed with a ticket: the context, and the key's name.
    fn bound_to(&self, key: &Key) -> Aad<[u8; 48]> {
        let mut bound = [0; 48];
        bound[..32].copy_from_slice(&self.context);
        bound[32..].copy_from_slice(&key.name);
        Aad::from(bound)
    }
}

impl std::fmt::Debug for FrontendTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrontendTickets")
    }
}

impl ProducesTickets for FrontendTickets {
    fn enabled(&self) -> bool {
        !self.tickets.keys().is_empty()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.tickets.keys();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let bound = self.bound_to(key);
        let nonce = key.key.seal_in_place_append_tag(bound, &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.tickets.keys();
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let bound = self.bound_to(key);
        let plain = key.key.open_in_place(nonce, bound, &mut sealed).ok()?;
        let len = plain.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(keys: &[u8]) -> Arc<Tickets> {
        let tickets = Tickets::new();
        let keys: Vec<_> = keys.iter().map(|&byte| TicketKey([byte; 32])).collect();
        tickets.take(&keys).unwrap();
        Arc::new(tickets)
    }

    fn of(tickets: &Arc<Tickets>, context: u8) -> FrontendTickets {
        FrontendTickets::new(tickets, [context; 32])
    }

    #[test]
    fn whoever_has_the_key_opens_a_ticket_until_it_is_gone() {
        let (one, other) = (tickets(&[1]), tickets(&[2, 1]));
        let ticket = of(&one, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&other, 0).decrypt(&ticket).unwrap(), b"session");
        let ticket = of(&other, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&one, 0).decrypt(&ticket), None);
        one.take(&[TicketKey([3; 32]), TicketKey([2; 32])]).unwrap();
        assert_eq!(of(&one, 0).decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_is_for_one_context_and_cannot_be_changed() {
        let tickets = tickets(&[1]);
        let ticket = of(&tickets, 0).encrypt(b"session").unwrap();
        assert_eq!(of(&tickets, 1).decrypt(&ticket), None);
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(of(&tickets, 0).decrypt(&changed), None, "{index}");
            assert_eq!(of(&tickets, 0).decrypt(&ticket[..index]), None, "{index}");
        }
    }

    #[test]
    fn our_own_keys_are_renewed_and_the_two_before_still_open() {
        let own = Arc::new(Tickets::new());
        let ticket = of(&own, 0).encrypt(b"session").unwrap();
        for _ in 1..OWN_KEYS {
            own.make();
            assert!(of(&own, 0).decrypt(&ticket).is_some());
        }
        own.make();
        assert_eq!(of(&own, 0).decrypt(&ticket), None);
    }

    #[test]
    fn keys_that_were_given_are_not_replaced_by_our_own() {
        let given = tickets(&[1]);
        let ticket = of(&given, 0).encrypt(b"session").unwrap();
        for _ in 0..OWN_KEYS {
            given.make();
        }
        assert!(of(&given, 0).decrypt(&ticket).is_some());
        assert!(given.take(&[]).is_err());
    }
}
